//! Denials of those who were never let in: a few of each are recorded, the rest are only counted. Pure.

use std::collections::HashMap;
use std::hash::Hash;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use crate::audit::record::{Event, Facts, IdentityFacts, Record};
use crate::domain::ids::ProviderName;
use crate::domain::subscriber::subscriber;

/// After this the counts are recorded and start anew.
const WINDOW: Duration = Duration::from_secs(60);
/// Denials of one address, or of one identity, that are recorded one by one in a window: enough to see
/// what is tried.
const EACH: u64 = 10;
/// Denials that are recorded one by one in a window, all addresses (or all identities) together: below
/// 1 GB a day.
const TOGETHER: u64 = 600;
/// Addresses, and identities, that are told apart in a window; each costs a line at its end.
const TOLD_APART: usize = 256;

/// Whoever proved an identity is told apart by it, everybody else by address: a stranger cannot use up
/// what is kept for those who are known, nor the other way round.
#[derive(Debug, Default)]
pub(super) struct Strangers {
    since: Option<SystemTime>,
    addresses: Tally<IpAddr, ()>,
    identities: Tally<Who, IdentityFacts>,
}

/// What stays the same when the same identity comes with another token.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
struct Who {
    provider: ProviderName,
    tenant: Option<String>,
    subject: String,
}

#[derive(Debug)]
struct Tally<K, V> {
    recorded: u64,
    seen: HashMap<K, Seen<V>>,
    /// Denials of those who were too many to be told apart.
    elsewhere: u64,
}

#[derive(Debug)]
struct Seen<V> {
    what: V,
    recorded: u64,
    summed: u64,
}

impl<K, V> Default for Tally<K, V> {
    fn default() -> Self {
        Self {
            recorded: 0,
            seen: HashMap::new(),
            elsewhere: 0,
        }
    }
}

impl<K: Eq + Hash + Ord, V> Tally<K, V> {
    fn admit(&mut self, who: Option<K>, what: V, may_record: bool) -> bool {
        let room = self.seen.len() < TOLD_APART;
        let Some(who) = who.filter(|who| room || self.seen.contains_key(who)) else {
            self.elsewhere += 1;
            return false;
        };
        let seen = self.seen.entry(who).or_insert(Seen {
            what,
            recorded: 0,
            summed: 0,
        });
        if may_record && seen.recorded < EACH && self.recorded < TOGETHER {
            seen.recorded += 1;
            self.recorded += 1;
            return true;
        }
        seen.summed += 1;
        false
    }

    /// Those with denials that were only counted, in order.
    fn drain(&mut self) -> Vec<(K, V, u64)> {
        let mut sums: Vec<_> = self
            .seen
            .drain()
            .filter(|(_, seen)| seen.summed > 0)
            .map(|(who, seen)| (who, seen.what, seen.summed))
            .collect();
        sums.sort_by(|(one, ..), (other, ..)| one.cmp(other));
        sums
    }
}

impl Strangers {
    /// May this denial be recorded by itself? Otherwise it has been counted. Without `may_record` it is
    /// counted in any case.
    pub(super) fn admit(&mut self, facts: &Facts, at: SystemTime, may_record: bool) -> bool {
        self.since.get_or_insert(at);
        if let Some(identity) = &facts.identity {
            let who = Who {
                provider: identity.provider.clone(),
                tenant: identity.tenant.clone(),
                subject: identity.subject.clone(),
            };
            let what = IdentityFacts {
                token_id: None,
                ticket_id: None,
                ..identity.clone()
            };
            return self.identities.admit(Some(who), what, may_record);
        }
        let address = facts
            .client
            .as_ref()
            .map(|client| subscriber(client.address.ip()));
        self.addresses.admit(address, (), may_record)
    }

    pub(super) fn is_due(&self, at: SystemTime) -> bool {
        // A clock that was set back must not hold the counts for ever.
        self.since
            .is_some_and(|since| at.duration_since(since).is_ok_and(|past| past >= WINDOW) || at < since)
    }

    /// Ends the window: a record for each address (IPv6: its /64) and each identity whose denials were
    /// only counted, and one for all others together.
    pub(super) fn drain(&mut self) -> Vec<Record> {
        let Self {
            addresses,
            identities,
            ..
        } = self;
        let sum = |identity, address, count| {
            let facts = Facts {
                identity,
                ..Facts::default()
            };
            Record::new(Arc::new(facts), Event::StrangersDenied { address, count })
        };
        let mut sums: Vec<_> = addresses
            .drain()
            .into_iter()
            .map(|(address, (), count)| sum(None, Some(address), count))
            .collect();
        let known = identities.drain().into_iter();
        sums.extend(known.map(|(_, identity, count)| sum(Some(identity), None, count)));
        let elsewhere = addresses.elsewhere + identities.elsewhere;
        if elsewhere > 0 {
            sums.push(sum(None, None, elsewhere));
        }
        *self = Self::default();
        sums
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::audit::record::ClientFacts;

    const START: SystemTime = SystemTime::UNIX_EPOCH;

    fn from(address: IpAddr) -> Facts {
        Facts {
            client: Some(ClientFacts {
                address: (address, 1).into(),
                application: None,
            }),
            ..Facts::default()
        }
    }

    fn known(subject: &str, token: &str) -> Facts {
        Facts {
            identity: Some(IdentityFacts {
                provider: "entra".into(),
                subject: subject.to_owned(),
                client_id: None,
                tenant: None,
                name: None,
                token_id: Some(token.to_owned()),
                ticket_id: None,
            }),
            ..from(IpAddr::from([192, 0, 2, 1]))
        }
    }

    fn sums(strangers: &mut Strangers) -> Vec<(Option<IpAddr>, Option<String>, u64)> {
        let read = |record: Record| {
            let Event::StrangersDenied { address, count } = record.event else {
                panic!("{record:?}");
            };
            let subject = record.facts.identity.as_ref().map(|it| it.subject.clone());
            (address, subject, count)
        };
        strangers.drain().into_iter().map(read).collect()
    }

    #[test]
    fn beyond_the_rate_denials_are_only_counted() {
        let mut strangers = Strangers::default();
        let address = IpAddr::from([192, 0, 2, 1]);
        let recorded = (0..25).filter(|_| strangers.admit(&from(address), START, true));
        assert_eq!(recorded.count(), 10);
        assert!(!strangers.is_due(START + Duration::from_secs(59)));
        assert!(strangers.is_due(START + Duration::from_secs(60)));
        assert_eq!(sums(&mut strangers), [(Some(address), None, 15)]);
        assert!(!strangers.is_due(START + Duration::from_secs(600)));
    }

    #[test]
    fn many_addresses_cost_no_more_than_a_few_lines() {
        let mut strangers = Strangers::default();
        let addresses = (0..100_000_u32).map(|bits| IpAddr::from(bits.to_be_bytes()));
        let recorded = addresses
            .filter(|address| strangers.admit(&from(*address), START, true))
            .count();
        let sums = sums(&mut strangers);
        assert!(recorded <= 600 && sums.len() <= 257, "{recorded}, {}", sums.len());
        let summed: u64 = sums.iter().map(|(.., count)| count).sum();
        assert_eq!(u64::try_from(recorded).unwrap() + summed, 100_000);
    }

    /// With a good token and no right, a new token for every attempt makes nobody new.
    #[test]
    fn an_identity_is_counted_whatever_its_tokens_and_apart_from_addresses() {
        let mut strangers = Strangers::default();
        let address = IpAddr::from([192, 0, 2, 1]);
        for at in 0..25 {
            let token = at.to_string();
            assert_eq!(
                strangers.admit(&known("nobody", &token), START, true),
                at < 10,
                "{at}"
            );
        }
        assert!(strangers.admit(&from(address), START, true));
        assert!(strangers.admit(&known("other", "x"), START, true));
        assert_eq!(sums(&mut strangers), [(None, Some("nobody".to_owned()), 15)]);
    }

    #[test]
    fn what_may_not_be_recorded_is_counted() {
        let mut strangers = Strangers::default();
        let address = IpAddr::from([192, 0, 2, 1]);
        assert!(!strangers.admit(&from(address), START, false));
        assert!(strangers.admit(&from(address), START, true));
        assert!(!strangers.admit(&Facts::default(), START, true));
        assert_eq!(sums(&mut strangers), [(Some(address), None, 1), (None, None, 1)]);
    }
}
