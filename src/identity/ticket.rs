//! Tickets: short secrets that stand for a verified token where a driver's password field is too short
//! for the token itself. Whoever shows a good one is the identity that the token spoke for.
//!
//! A ticket is bound to a target and to where it may be shown, lives for minutes, and never longer than
//! its token. It is kept as a keyed hash, in memory alone: a restart ends them all.

use std::collections::{BTreeSet, HashMap};
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use crate::domain::{
    Clock, DatabaseName, Identity, IdentityKey, Network, Random, Reason, RefusalCode, Refuse, Secret,
    TargetName, TicketId,
};
use crate::identity::seen::{Digest, Fingers};

/// What tells a ticket from a token, which begins with `eyJ`, and lets scanners for lost secrets find it.
const PREFIX: &str = "gpt_";
/// 192 bits cannot be guessed. As hexadecimal digits a ticket has 52 characters, none of which means
/// anything in a URL, a connection string or a shell.
const SECRET_BYTES: usize = 24;
const TICKET_CHARS: usize = PREFIX.len() + 2 * SECRET_BYTES;

/// Long enough to start a program that opens a pool, short enough to be worth little in a log.
pub const LIFETIME_DEFAULT: Duration = Duration::from_secs(5 * 60);
/// What needs longer asks again: the token is at hand where the ticket came from.
pub const LIFETIME_MAX: Duration = Duration::from_secs(15 * 60);

/// Tickets that are alive at the same time: for two thousand workers that ask anew every minute.
const TICKETS_MAX: usize = 10_000;
/// Of one identity, so that a worker gone wild shuts out only its own kind.
const TICKETS_PER_IDENTITY_MAX: usize = 1_000;
/// The tokens behind all tickets together. Their claims take several times as much in memory.
const TOKEN_BYTES_MAX: usize = 32 * 1024 * 1024;

/// Where a ticket may be shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ShownFrom {
    Anywhere,
    /// One address, or a network.
    Network(Network),
}

/// What a ticket is asked for.
#[derive(Clone, Debug)]
pub struct NewTicket {
    pub identity: Arc<Identity>,
    /// Length of the token that the identity was read from.
    pub token_bytes: usize,
    pub target: TargetName,
    /// `None`: any database of the target.
    pub database: Option<DatabaseName>,
    pub from: ShownFrom,
    /// Cut to [`LIFETIME_MAX`], and to what is left of the token's own life.
    pub lifetime: Duration,
    /// Good for one session; others are good for as many as a pool opens.
    pub single_use: bool,
}

/// A new ticket on its way to whoever asked for it.
#[derive(Debug)]
pub struct IssuedTicket {
    pub ticket: Secret<String>,
    pub id: TicketId,
    pub expires_at: SystemTime,
    digest: Digest,
}

/// Why none was issued.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum IssueError {
    /// Within the leeway a token is believed a little longer than it lives; a ticket is not.
    #[error("the token expired {} s ago", ago.as_secs())]
    TokenExpired { ago: Duration },
    #[error("there are too many tickets of this identity, or at all")]
    TooMany,
}

/// Why a ticket was not accepted. Its holder is told that it was not, and nothing more; this is for
/// the log.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TicketError {
    #[error("no such ticket: it was never issued here, or it ended a while ago")]
    Unknown,
    #[error("ticket {id} is over")]
    Expired { id: TicketId },
    #[error("ticket {id} was for one session and has been used")]
    Used { id: TicketId },
    #[error("ticket {id} is bound to another address")]
    OtherAddress { id: TicketId },
    #[error("ticket {id} is bound to another target or database")]
    OtherTarget { id: TicketId },
    #[error("the provider behind ticket {id} is not believed any more")]
    OtherProvider { id: TicketId },
}

impl TicketError {
    /// Which ticket, if it was found.
    pub const fn id(&self) -> Option<TicketId> {
        match self {
            Self::Unknown => None,
            Self::Expired { id }
            | Self::Used { id }
            | Self::OtherAddress { id }
            | Self::OtherTarget { id }
            | Self::OtherProvider { id } => Some(*id),
        }
    }
}

impl Refuse for TicketError {
    fn refusal(&self) -> (RefusalCode, Reason) {
        (RefusalCode::TokenRejected, Reason::TicketUnknown)
    }
}

/// A ticket that was found. It counts for nothing until it is [redeemed](Tickets::redeem).
#[derive(Debug)]
pub struct FoundTicket {
    identity: Arc<Identity>,
    id: TicketId,
    digest: Digest,
}

impl FoundTicket {
    /// Whose it is, if it is redeemed.
    pub const fn identity(&self) -> &Arc<Identity> {
        &self.identity
    }

    pub const fn id(&self) -> TicketId {
        self.id
    }
}

/// All tickets of this process.
#[derive(Debug)]
pub struct Tickets {
    clock: Arc<dyn Clock>,
    random: Arc<dyn Random>,
    fingers: Fingers,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    entries: HashMap<Digest, Entry>,
    /// By the age of the process, which does not jump.
    by_end: BTreeSet<(Duration, Digest)>,
    of_identity: HashMap<IdentityKey, usize>,
    token_bytes: usize,
}

#[derive(Debug)]
struct Entry {
    id: TicketId,
    new: NewTicket,
    /// Age of the process.
    ends: Duration,
    /// Time of day.
    expires_at: SystemTime,
    used: bool,
}

impl Tickets {
    pub fn new(clock: Arc<dyn Clock>, random: Arc<dyn Random>) -> Self {
        Self {
            fingers: Fingers::new(random.as_ref()),
            clock,
            random,
            state: Mutex::default(),
        }
    }

    pub fn issue(&self, new: NewTicket) -> Result<IssuedTicket, IssueError> {
        let (now, age) = (self.clock.now(), self.clock.uptime());
        let left = new.identity.expires_at.duration_since(now);
        let left = left.map_err(|since| since.duration());
        // At its very end there is nothing left to be shown.
        let left = left.and_then(|left| if left.is_zero() { Err(left) } else { Ok(left) });
        let left = left.map_err(|ago| IssueError::TokenExpired { ago })?;
        let lives = new.lifetime.min(LIFETIME_MAX).min(left);
        let ticket = self.make();
        let digest = self.fingers.digest(ticket.expose().as_bytes());
        let entry = Entry {
            id: TicketId::random(self.random.as_ref()),
            ends: age.saturating_add(lives),
            // Of one that is so far in the future that it cannot be told, the age decides.
            expires_at: now.checked_add(lives).unwrap_or(now),
            used: false,
            new,
        };
        let (id, expires_at) = (entry.id, entry.expires_at);
        let mut state = self.lock();
        state.forget_ended(age);
        state.add(digest, entry)?;
        Ok(IssuedTicket {
            ticket,
            id,
            expires_at,
            digest,
        })
    }

    /// Takes back what nobody was given.
    pub fn withdraw(&self, issued: &IssuedTicket) {
        self.lock().remove(&issued.digest);
    }

    /// Whose ticket is it, and may it be shown from there? Whom it belongs to is told in any case, once
    /// that is known: the records of what was tried with it should say so.
    pub fn find(
        &self,
        ticket: &Secret<Vec<u8>>,
        client: IpAddr,
    ) -> Result<FoundTicket, (TicketError, Option<Arc<Identity>>)> {
        let (now, age) = (self.clock.now(), self.clock.uptime());
        if !is_ticket(ticket.expose()) {
            return Err((TicketError::Unknown, None));
        }
        let digest = self.fingers.digest(ticket.expose());
        let mut state = self.lock();
        let found = match state.entries.get(&digest) {
            None => Err((TicketError::Unknown, None)),
            Some(entry) => match entry.check(client, now, age) {
                Ok(()) => Ok(entry.found(digest)),
                Err(error) => Err((error, Some(Arc::clone(&entry.new.identity)))),
            },
        };
        // Behind the look, so that one that has just ended is told as such.
        state.forget_ended(age);
        found
    }

    /// Is it for this target and database? One for a single use is used up here. `None` stands for a
    /// destination that does not exist, which must read like any that the ticket is not for.
    pub fn redeem(
        &self,
        found: FoundTicket,
        destination: Option<(&TargetName, &DatabaseName)>,
    ) -> Result<Arc<Identity>, TicketError> {
        let FoundTicket { identity, id, digest } = found;
        let mut state = self.lock();
        let entry = state.entries.get_mut(&digest).ok_or(TicketError::Unknown)?;
        let fits = destination.is_some_and(|(target, database)| entry.new.is_for(target, database));
        if !fits {
            return Err(TicketError::OtherTarget { id });
        }
        // Of two that showed it at the same time one comes here first.
        if entry.used {
            return Err(TicketError::Used { id });
        }
        entry.used = entry.new.single_use;
        Ok(identity)
    }

    /// Those that are alive, and some that ended since somebody looked last.
    pub fn count(&self) -> usize {
        self.lock().entries.len()
    }

    fn make(&self) -> Secret<String> {
        let mut bytes = [0; SECRET_BYTES];
        self.random.fill(&mut bytes);
        let digit = |nibble: u8| char::from_digit(nibble.into(), 16).unwrap_or('0');
        let digits = bytes
            .iter()
            .flat_map(|byte| [digit(byte >> 4), digit(byte & 0xf)]);
        Secret::new(PREFIX.chars().chain(digits).collect())
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Has it a ticket's form? A token never has.
pub fn is_ticket(text: &[u8]) -> bool {
    let digits = text.strip_prefix(PREFIX.as_bytes());
    digits.is_some_and(|digits| digits.len() == 2 * SECRET_BYTES && digits.iter().copied().all(is_digit))
}

/// Is it meant to be a ticket, whole or not?
pub fn begins_like_a_ticket(text: &[u8]) -> bool {
    text.starts_with(PREFIX.as_bytes())
}

/// Is there a ticket anywhere in this text?
pub fn holds_a_ticket(text: &str) -> bool {
    text.match_indices(PREFIX).any(|(at, _)| {
        let ticket = text.as_bytes().get(at..at + TICKET_CHARS);
        ticket.is_some_and(is_ticket)
    })
}

const fn is_digit(byte: u8) -> bool {
    matches!(byte, b'0'..=b'9' | b'a'..=b'f')
}

impl ShownFrom {
    fn admits(&self, client: IpAddr) -> bool {
        match self {
            Self::Anywhere => true,
            Self::Network(network) => network.contains(client),
        }
    }
}

impl std::fmt::Display for ShownFrom {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Anywhere => f.write_str("any"),
            Self::Network(network) => network.fmt(f),
        }
    }
}

impl NewTicket {
    fn is_for(&self, target: &TargetName, database: &DatabaseName) -> bool {
        self.target == *target && self.database.as_ref().is_none_or(|own| own == database)
    }
}

impl Entry {
    fn check(&self, client: IpAddr, now: SystemTime, age: Duration) -> Result<(), TicketError> {
        let id = self.id;
        // The age holds when the machine's clock is set back; the time of day when the machine slept.
        if age >= self.ends || now >= self.expires_at {
            return Err(TicketError::Expired { id });
        }
        if !self.new.from.admits(client) {
            return Err(TicketError::OtherAddress { id });
        }
        if self.used {
            return Err(TicketError::Used { id });
        }
        Ok(())
    }

    fn found(&self, digest: Digest) -> FoundTicket {
        FoundTicket {
            identity: Arc::clone(&self.new.identity),
            id: self.id,
            digest,
        }
    }
}

impl State {
    /// Nobody's ticket is given up for somebody else's.
    fn add(&mut self, digest: Digest, entry: Entry) -> Result<(), IssueError> {
        let own = self.of_identity.entry(entry.new.identity.key()).or_default();
        let bytes = self.token_bytes.saturating_add(entry.new.token_bytes);
        if *own >= TICKETS_PER_IDENTITY_MAX || self.entries.len() >= TICKETS_MAX || bytes > TOKEN_BYTES_MAX {
            if *own == 0 {
                self.of_identity.remove(&entry.new.identity.key());
            }
            return Err(IssueError::TooMany);
        }
        *own += 1;
        self.token_bytes = bytes;
        self.by_end.insert((entry.ends, digest));
        self.entries.insert(digest, entry);
        Ok(())
    }

    /// Whoever asks for a ticket or shows one clears away what is over: no timer has to.
    fn forget_ended(&mut self, age: Duration) {
        while let Some((ends, digest)) = self.by_end.first().copied() {
            if ends > age {
                return;
            }
            self.remove(&digest);
        }
    }

    fn remove(&mut self, digest: &Digest) {
        let Some(entry) = self.entries.remove(digest) else {
            return;
        };
        self.by_end.remove(&(entry.ends, *digest));
        self.token_bytes = self.token_bytes.saturating_sub(entry.new.token_bytes);
        let key = entry.new.identity.key();
        if let Some(own) = self.of_identity.get_mut(&key) {
            *own = own.saturating_sub(1);
            if *own == 0 {
                self.of_identity.remove(&key);
            }
        }
    }
}
