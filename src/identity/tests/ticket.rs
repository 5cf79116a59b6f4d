//! Tickets by a clock that the tests move: how long they live, where they count, how many there may be.

use std::collections::HashSet;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use super::*;
use crate::domain::{Claimed, Network, Reason, RefusalCode, Refuse};
use crate::identity::ticket::{
    FoundTicket, IssueError, IssuedTicket, LIFETIME_MAX, NewTicket, ShownFrom, TicketError, Tickets,
    begins_like_a_ticket, holds_a_ticket, is_ticket,
};
use crate::tls::SystemRandom;

const HOME: &str = "192.0.2.7";
const START: SystemTime = SystemTime::UNIX_EPOCH;

/// Time of day and age of the process apart, in seconds.
#[derive(Debug)]
struct TwoClocks {
    day: AtomicU64,
    age: AtomicU64,
}

impl TwoClocks {
    fn pass(&self, seconds: u64) {
        self.day.fetch_add(seconds, Ordering::SeqCst);
        self.age.fetch_add(seconds, Ordering::SeqCst);
    }
}

impl Clock for TwoClocks {
    fn now(&self) -> SystemTime {
        START + Duration::from_secs(self.day.load(Ordering::SeqCst))
    }

    fn uptime(&self) -> Duration {
        Duration::from_secs(self.age.load(Ordering::SeqCst))
    }
}

struct Desk {
    clock: Arc<TwoClocks>,
    tickets: Tickets,
}

impl Desk {
    fn open() -> Self {
        let clock = Arc::new(TwoClocks {
            day: AtomicU64::new(1_000_000),
            age: AtomicU64::new(50),
        });
        let tickets = Tickets::new(clock.clone(), Arc::new(SystemRandom));
        Self { clock, tickets }
    }

    /// Whose token has an hour left.
    fn wish(&self, subject: &str) -> NewTicket {
        NewTicket {
            identity: Arc::new(identity(subject, self.clock.now() + Duration::from_secs(3_600))),
            token_bytes: 1_000,
            target: "orders".into(),
            database: Some("sales".into()),
            from: ShownFrom::Network(Network::of(ip(HOME))),
            lifetime: Duration::from_secs(300),
            single_use: false,
        }
    }

    fn issue(&self, wish: NewTicket) -> IssuedTicket {
        self.tickets.issue(wish).unwrap()
    }

    fn find(&self, issued: &IssuedTicket, from: &str) -> Result<FoundTicket, TicketError> {
        self.tickets
            .find(&shown(issued), ip(from))
            .map_err(|(error, _)| error)
    }

    /// The whole way, to this target and database.
    fn enter(&self, issued: &IssuedTicket, to: (&str, &str)) -> Result<Arc<Identity>, TicketError> {
        let found = self.find(issued, HOME)?;
        self.tickets.redeem(found, Some((&to.0.into(), &to.1.into())))
    }
}

const SALES: (&str, &str) = ("orders", "sales");

fn ip(text: &str) -> std::net::IpAddr {
    text.parse().unwrap()
}

fn shown(issued: &IssuedTicket) -> Secret<Vec<u8>> {
    Secret::new(issued.ticket.expose().clone().into_bytes())
}

fn identity(subject: &str, expires_at: SystemTime) -> Identity {
    Identity {
        provider: "dev".into(),
        subject: subject.to_owned(),
        client_id: None,
        tenant: None,
        name: None,
        roles: Claimed::none(),
        groups: Claimed::none(),
        scopes: Claimed::none(),
        token_id: Some("jti".to_owned()),
        expires_at,
        claims: serde_json::Map::new(),
    }
}

#[test]
fn a_ticket_is_short_plain_and_never_twice_the_same() {
    let desk = Desk::open();
    let mut seen = HashSet::new();
    for _ in 0..100 {
        let issued = desk.issue(desk.wish("ann"));
        let text = issued.ticket.expose().clone();
        assert!(text.len() <= 64 && is_ticket(text.as_bytes()), "{text}");
        assert!(text.bytes().all(|it| it.is_ascii_alphanumeric() || it == b'_'));
        assert!(!format!("{issued:?} {:?}", desk.tickets).contains(&text));
        assert!(seen.insert(text));
    }
}

#[test]
fn forms_are_told_apart() {
    let good = format!("gpt_{}", "0a".repeat(24));
    assert!(is_ticket(good.as_bytes()) && holds_a_ticket(&format!("x{good}y")));
    for wrong in [
        "",
        "gpt_",
        "eyJhbGciOiJub25lIn0.e30.",
        &good[..51],
        &format!("{good}0"),
        &good.to_uppercase(),
        &good.replace('a', "g"),
    ] {
        assert!(!is_ticket(wrong.as_bytes()), "{wrong}");
    }
    // One that was cut is still meant as a ticket, and its holder hears of tickets.
    assert!(begins_like_a_ticket(&good.as_bytes()[..20]));
    assert!(!holds_a_ticket("gpt_ gpt_00") && !holds_a_ticket("gpt_ä"));
}

#[test]
fn it_is_whom_the_token_spoke_for_as_often_as_a_pool_asks() {
    let desk = Desk::open();
    let wish = desk.wish("ann");
    let issued = desk.issue(wish.clone());
    assert_eq!(issued.expires_at, desk.clock.now() + Duration::from_secs(300));
    for _ in 0..3 {
        let identity = desk.enter(&issued, SALES).unwrap();
        assert_eq!(identity.subject, "ann");
        // As long as the token, not as long as the ticket.
        assert_eq!(identity.expires_at, wish.identity.expires_at);
    }
}

#[test]
fn it_ends_on_time_by_either_clock_and_with_its_token() {
    let desk = Desk::open();
    let issued = desk.issue(desk.wish("ann"));
    let id = issued.id;
    desk.clock.pass(299);
    assert!(desk.enter(&issued, SALES).is_ok());
    desk.clock.pass(1);
    assert_eq!(
        desk.enter(&issued, SALES).unwrap_err(),
        TicketError::Expired { id }
    );
    assert_eq!(desk.enter(&issued, SALES).unwrap_err(), TicketError::Unknown);
    assert_eq!(desk.tickets.count(), 0);

    // A clock that is set back gives nobody more time, and one that is set on takes it.
    let issued = desk.issue(desk.wish("ann"));
    desk.clock.day.fetch_sub(100_000, Ordering::SeqCst);
    desk.clock.age.fetch_add(300, Ordering::SeqCst);
    assert!(matches!(
        desk.enter(&issued, SALES),
        Err(TicketError::Expired { .. })
    ));
    let issued = desk.issue(desk.wish("ann"));
    desk.clock.day.fetch_add(300, Ordering::SeqCst);
    assert!(matches!(
        desk.enter(&issued, SALES),
        Err(TicketError::Expired { .. })
    ));

    // Neither the wish nor the token's end can be exceeded.
    for (token_left, wanted, lives) in [
        (3_600, 86_400, LIFETIME_MAX.as_secs()),
        (60, 300, 60),
        (3_600, 10, 10),
    ] {
        let now = desk.clock.now();
        let issued = desk.issue(NewTicket {
            identity: Arc::new(identity("ann", now + Duration::from_secs(token_left))),
            lifetime: Duration::from_secs(wanted),
            ..desk.wish("ann")
        });
        assert_eq!(issued.expires_at, now + Duration::from_secs(lives));
    }
    // Still believed, by the leeway, but over.
    let late = identity("ann", desk.clock.now() - Duration::from_secs(5));
    let wish = NewTicket {
        identity: Arc::new(late),
        ..desk.wish("ann")
    };
    let ago = Duration::from_secs(5);
    assert_eq!(
        desk.tickets.issue(wish).unwrap_err(),
        IssueError::TokenExpired { ago }
    );
}

#[test]
fn it_counts_at_one_place_and_from_one_place() {
    let desk = Desk::open();
    let issued = desk.issue(desk.wish("ann"));
    let id = issued.id;
    for wrong in [("orders", "stock"), ("other", "sales")] {
        let refused = desk.enter(&issued, wrong).unwrap_err();
        assert_eq!(refused, TicketError::OtherTarget { id });
    }
    let nowhere = desk.find(&issued, HOME).unwrap();
    let refused = desk.tickets.redeem(nowhere, None).unwrap_err();
    assert_eq!(refused, TicketError::OtherTarget { id });
    assert_eq!(
        desk.find(&issued, "192.0.2.8").unwrap_err(),
        TicketError::OtherAddress { id }
    );
    // The same machine, seen through a listener for both kinds of addresses.
    assert!(desk.find(&issued, "::ffff:192.0.2.7").is_ok());
    // Wrong attempts take nothing from the right one.
    assert!(desk.enter(&issued, SALES).is_ok());

    // Whose it was is known to the records, also when it is refused.
    let (_, whose) = desk.tickets.find(&shown(&issued), ip("192.0.2.8")).unwrap_err();
    assert_eq!(whose.unwrap().subject, "ann");

    let of_target = desk.issue(NewTicket {
        database: None,
        ..desk.wish("ann")
    });
    assert!(desk.enter(&of_target, ("orders", "stock")).is_ok());
    assert!(desk.enter(&of_target, ("other", "sales")).is_err());
    for (from, address, admitted) in [
        (ShownFrom::Anywhere, "203.0.113.9", true),
        (
            ShownFrom::Network("10.0.0.0/8".parse().unwrap()),
            "10.9.9.9",
            true,
        ),
        (ShownFrom::Network("10.0.0.0/8".parse().unwrap()), HOME, false),
    ] {
        let issued = desk.issue(NewTicket {
            from,
            ..desk.wish("ann")
        });
        assert_eq!(desk.find(&issued, address).is_ok(), admitted, "{from} {address}");
    }
}

#[test]
fn one_for_a_single_use_opens_one_session_even_in_a_race() {
    let desk = Desk::open();
    let issued = desk.issue(NewTicket {
        single_use: true,
        ..desk.wish("ann")
    });
    let id = issued.id;
    // Shown at the wrong place it is not used up.
    assert!(desk.enter(&issued, ("orders", "stock")).is_err());
    let (one, other) = (
        desk.find(&issued, HOME).unwrap(),
        desk.find(&issued, HOME).unwrap(),
    );
    let (target, database) = (SALES.0.into(), SALES.1.into());
    assert!(desk.tickets.redeem(one, Some((&target, &database))).is_ok());
    let second = desk.tickets.redeem(other, Some((&target, &database)));
    assert_eq!(second.unwrap_err(), TicketError::Used { id });
    assert_eq!(desk.enter(&issued, SALES).unwrap_err(), TicketError::Used { id });

    let issued = desk.issue(NewTicket {
        single_use: true,
        ..desk.wish("ann")
    });
    let opened = Mutex::new(0);
    std::thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| {
                if desk.enter(&issued, SALES).is_ok() {
                    *opened.lock().unwrap() += 1;
                }
            });
        }
    });
    assert_eq!(opened.into_inner().unwrap(), 1);
}

#[test]
fn there_are_never_too_many_and_nobody_takes_anothers_place() {
    let desk = Desk::open();
    let first = desk.issue(desk.wish("greedy"));
    let more = (0..).take_while(|_| desk.tickets.issue(desk.wish("greedy")).is_ok());
    assert_eq!(more.count(), 999);
    assert_eq!(
        desk.tickets.issue(desk.wish("greedy")).unwrap_err(),
        IssueError::TooMany
    );
    assert!(desk.enter(&first, SALES).is_ok());
    for number in 0..9 {
        let who = format!("crowd-{number}");
        (0..1_000).for_each(|_| drop(desk.issue(desk.wish(&who))));
    }
    assert_eq!(desk.tickets.count(), 10_000);
    assert_eq!(
        desk.tickets.issue(desk.wish("ann")).unwrap_err(),
        IssueError::TooMany
    );
    // One that was taken back makes room, and so does the end of the others, without a timer.
    desk.tickets.withdraw(&first);
    assert!(desk.enter(&first, SALES).is_err());
    let last = desk.issue(desk.wish("ann"));
    desk.clock.pass(300);
    assert!(desk.enter(&last, SALES).is_err());
    assert_eq!(desk.tickets.count(), 0);
    assert!(desk.tickets.issue(desk.wish("greedy")).is_ok());
}

#[test]
fn large_tokens_are_kept_only_so_far() {
    let desk = Desk::open();
    let large = || NewTicket {
        token_bytes: 1024 * 1024,
        ..desk.wish("ann")
    };
    let kept = (0..).take_while(|_| desk.tickets.issue(large()).is_ok());
    assert_eq!(kept.count(), 32);
    desk.clock.pass(300);
    assert!(desk.tickets.issue(large()).is_ok());
}

#[test]
fn whoever_shows_a_bad_one_learns_nothing_about_it() {
    let id = Desk::open().issue(Desk::open().wish("ann")).id;
    for error in [
        TicketError::Unknown,
        TicketError::Expired { id },
        TicketError::Used { id },
        TicketError::OtherAddress { id },
        TicketError::OtherTarget { id },
        TicketError::OtherProvider { id },
    ] {
        assert_eq!(
            error.refusal(),
            (RefusalCode::TokenRejected, Reason::TicketUnknown)
        );
    }
}
