//! Who gets a ticket: somebody whom the policy in force grants anything where it is to be used, as often
//! as their address and their identity may ask, and once it is on record.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use crate::admin::ticket::{NoTicket, TicketRefused, TicketView, TicketWish, Wishing};
use crate::app::config::settings;
use crate::app::reload::Reloader;
use crate::app::start::Shared;
use crate::audit::{Event, Facts, PolicyFacts, Record};
use crate::domain::{
    AccessRequest, Clock, DatabaseName, IdentityKey, Network, ParameterRule, Random, Rations, TargetName,
    subscriber,
};
use crate::identity::{NewTicket, ShownFrom, Tickets};
use crate::policy::{Decision, Policy};
use crate::session::directory::Directory;

const WINDOW: Duration = Duration::from_secs(60);
/// Wishes of one address in a window, right or wrong: a machine room behind one address starts anew.
const PER_ADDRESS: u64 = 300;
/// Of one identity: a fleet of two hundred starts anew.
const PER_IDENTITY: u64 = 200;
/// Addresses and identities that are counted, some 100 bytes each.
const TOLD_APART: usize = 4096;

/// The start-up `user` that asks for whatever role there is.
const ANY_ROLE: &str = "auto";

/// The tickets of this process, and who asked for them lately.
#[derive(Debug)]
pub(super) struct TicketOffice {
    pub(super) tickets: Arc<Tickets>,
    by_address: Rations<IpAddr>,
    by_identity: Rations<IdentityKey>,
}

impl TicketOffice {
    pub(super) fn new(clock: Arc<dyn Clock>, random: Arc<dyn Random>) -> Self {
        Self {
            tickets: Arc::new(Tickets::new(clock, random)),
            by_address: Rations::new(PER_ADDRESS, WINDOW, TOLD_APART),
            by_identity: Rations::new(PER_IDENTITY, WINDOW, TOLD_APART),
        }
    }

    pub(super) fn admit(&self, who: Wishing<'_>, clock: &dyn Clock) -> Result<(), Duration> {
        match who {
            Wishing::Address(address) => self.by_address.admit(subscriber(address), clock.now()),
            Wishing::Identity(key) => self.by_identity.admit(key.clone(), clock.now()),
        }
    }
}

/// Where a ticket is to count.
struct Place {
    target: TargetName,
    /// `None`: in all of the target's databases.
    database: Option<DatabaseName>,
}

/// Decides, mints, records, and hands out.
pub(super) async fn issue(
    shared: &Shared,
    reloader: &Reloader,
    wish: TicketWish,
) -> Result<TicketView, TicketRefused> {
    let snapshot = reloader.current();
    let mut facts = wish.facts.clone();
    let refused = |facts: &Facts, why| TicketRefused {
        facts: Box::new(facts.clone()),
        why,
    };
    let strike = snapshot
        .revocations
        .strike(&wish.identity, None, shared.clock.now());
    if strike.is_some() {
        return Err(refused(&facts, NoTicket::Revoked));
    }
    let version = Arc::clone(snapshot.policy.version());
    facts.policy = Some(PolicyFacts {
        rule: None,
        version,
        parameters: ParameterRule::Absent,
    });
    let place = find(&shared.directory, &wish.target).ok_or_else(|| refused(&facts, NoTicket::NoGrant))?;
    facts.target = Some(place.target.clone());
    facts.database = place.database.clone();
    let now = shared.clock.now();
    if !is_granted_anything(&snapshot.policy, &shared.directory, (&wish, &place), now) {
        return Err(refused(&facts, NoTicket::NoGrant));
    }
    let from = bound_to(&wish, &reloader.built().settings.tickets);
    let from = from.ok_or_else(|| refused(&facts, NoTicket::AddressNotOffered))?;
    let issued = shared.office.tickets.issue(NewTicket {
        identity: Arc::clone(&wish.identity),
        token_bytes: wish.token_bytes,
        target: place.target.clone(),
        database: place.database.clone(),
        from,
        lifetime: wish.lifetime,
        single_use: wish.single_use,
    });
    let issued = issued.map_err(|error| refused(&facts, NoTicket::Issue(error)))?;
    let event = Event::TicketIssued {
        ticket_id: issued.id,
        expires_at: issued.expires_at,
        bound_to: from.to_string(),
        single_use: wish.single_use,
    };
    let record = Record::new(Arc::new(facts.clone()), event);
    if let Err(error) = shared.journal.append(record).await {
        // Nobody has seen it.
        shared.office.tickets.withdraw(&issued);
        tracing::error!(%error, "a ticket is refused: it cannot be recorded");
        return Err(refused(&facts, NoTicket::Unrecorded));
    }
    Ok(TicketView {
        ticket: issued.ticket,
        id: issued.id,
        expires_at: issued.expires_at,
        target: place.to_string(),
        bound_to: from,
        single_use: wish.single_use,
    })
}

/// As a driver would name it; else a target as a whole.
fn find(directory: &Directory, wanted: &str) -> Option<Place> {
    if let Some(found) = directory.find_at_any(wanted) {
        return Some(Place {
            target: found.target.clone(),
            database: Some(found.database.clone()),
        });
    }
    let mut of_target = directory.of_target(wanted);
    of_target.next().map(|found| Place {
        target: found.target.clone(),
        database: None,
    })
}

/// Would any session there be let in? What exactly is decided when one is opened.
fn is_granted_anything(
    policy: &Policy,
    directory: &Directory,
    (wish, place): (&TicketWish, &Place),
    at: SystemTime,
) -> bool {
    let granted = |database: &DatabaseName| {
        let decision = policy.decide(&AccessRequest {
            identity: &wish.identity,
            target: &place.target,
            database,
            wanted: ANY_ROLE,
            client: wish.peer.ip(),
            at,
        });
        match decision {
            Decision::Allow(_) => true,
            Decision::Deny(denial) => !denial.own_roles.is_empty(),
        }
    };
    match &place.database {
        Some(database) => granted(database),
        None => {
            let mut all = directory.of_target(place.target.as_str());
            all.any(|it| granted(&it.database))
        }
    }
}

/// The caller's own address, or another that the configuration offers.
fn bound_to(wish: &TicketWish, offered: &settings::Tickets) -> Option<ShownFrom> {
    let own = Network::of(wish.peer.ip());
    match wish.from {
        None => Some(ShownFrom::Network(own)),
        Some(ShownFrom::Anywhere) => offered.any_address.then_some(ShownFrom::Anywhere),
        Some(ShownFrom::Network(wanted)) => {
            let listed = offered.networks.iter().any(|network| network.covers(&wanted));
            (wanted == own || listed || offered.any_address).then_some(ShownFrom::Network(wanted))
        }
    }
}

impl std::fmt::Display for Place {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match &self.database {
            Some(database) => write!(f, "{}/{database}", self.target),
            None => write!(f, "{}", self.target),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::{Claimed, Engine, Identity};
    use crate::policy::{self, SourceText, Surroundings, TargetFacts};
    use crate::session::directory::Destination;

    const POLICY: &str = "
version: 1
roles:
  reader: {target: shop, database: sales, grants: [{privileges: [select], on: {tables: [public.t]}}]}
  writer: {target: shop, database: sales, grants: [{privileges: [insert], on: {tables: [public.t]}}]}
  keeper: {target: depot, database: stock, break_glass: true, grants: [{privileges: [select], on: {tables: [public.t]}}]}
rules:
  - {name: read, identity: {provider: dev, subject: [ann, out]}, grant: {role: reader, login_ttl: 30m, session_max: 8h}}
  - {name: write, identity: {provider: dev, subject: ann}, grant: {role: writer, login_ttl: 30m, session_max: 8h}}
  - {name: keep, identity: {provider: dev, subject: keeper}, grant: {role: keeper, login_ttl: 30m, session_max: 8h}}
  - {name: left, identity: {provider: dev, subject: out}, deny: left}
";

    fn directory() -> Directory {
        let mut directory = Directory::default();
        for (target, database, alias) in [
            ("shop", "sales", None),
            ("shop", "offers", None),
            ("depot", "stock", Some("stock-eu")),
        ] {
            let destination = Destination {
                target: target.into(),
                database: database.into(),
            };
            assert!(directory.offer(Engine::Postgres, destination, alias));
        }
        directory
    }

    fn policy() -> Policy {
        let facts = |databases: &[&str]| TargetFacts {
            engine: crate::domain::Engine::Postgres,
            databases: databases.iter().map(DatabaseName::new).collect(),
        };
        let around = Surroundings {
            providers: ["dev".into()].into(),
            targets: [
                ("shop".into(), facts(&["sales", "offers"])),
                ("depot".into(), facts(&["stock"])),
            ]
            .into(),
        };
        let source = SourceText {
            path: "p.yaml".into(),
            text: POLICY.to_owned(),
        };
        policy::load(&[source], &around).unwrap().policy
    }

    fn wish(subject: &str) -> TicketWish {
        let identity = Identity {
            provider: "dev".into(),
            subject: subject.to_owned(),
            client_id: None,
            tenant: None,
            name: None,
            roles: Claimed::none(),
            groups: Claimed::none(),
            scopes: Claimed::none(),
            token_id: None,
            expires_at: SystemTime::UNIX_EPOCH,
            claims: serde_json::Map::new(),
        };
        TicketWish {
            identity: Arc::new(identity),
            token_bytes: 0,
            peer: ([192, 0, 2, 7], 4711).into(),
            target: String::new(),
            from: None,
            lifetime: Duration::ZERO,
            single_use: false,
            facts: Facts::default(),
        }
    }

    #[test]
    fn a_place_is_named_as_drivers_do_or_is_a_whole_target() {
        let directory = directory();
        for (wanted, place) in [
            ("sales", Some("shop/sales")),
            ("shop/sales", Some("shop/sales")),
            ("stock-eu", Some("depot/stock")),
            ("shop", Some("shop")),
            // Behind an alias, the own name is nobody's.
            ("stock", None),
            ("shop/stock", None),
            ("SALES", None),
            ("", None),
        ] {
            let found = find(&directory, wanted).map(|it| it.to_string());
            assert_eq!(found.as_deref(), place, "{wanted}");
        }
    }

    #[test]
    fn any_grant_there_is_enough_and_a_deny_takes_all() {
        let (directory, policy) = (directory(), policy());
        for (subject, wanted, granted) in [
            // Two roles: which of them is said when connecting.
            ("ann", "sales", true),
            ("ann", "shop", true),
            ("ann", "offers", false),
            ("ann", "depot", false),
            ("keeper", "stock-eu", true),
            ("keeper", "shop", false),
            ("nobody", "sales", false),
            ("out", "sales", false),
        ] {
            let place = find(&directory, wanted).unwrap();
            let wish = wish(subject);
            let found = is_granted_anything(&policy, &directory, (&wish, &place), SystemTime::UNIX_EPOCH);
            assert_eq!(found, granted, "{subject} {wanted}");
        }
    }

    #[test]
    fn another_address_must_be_offered() {
        let network = |text: &str| ShownFrom::Network(text.parse().unwrap());
        let offered = |networks: &[&str], any_address| settings::Tickets {
            networks: networks.iter().map(|it| it.parse().unwrap()).collect(),
            any_address,
        };
        let (nothing, some, any) = (
            offered(&[], false),
            offered(&["10.0.0.0/8"], false),
            offered(&[], true),
        );
        for (settings, wanted, bound) in [
            (&nothing, None, Some("192.0.2.7")),
            (&nothing, Some(network("192.0.2.7")), Some("192.0.2.7")),
            (&nothing, Some(network("192.0.2.0/24")), None),
            (&nothing, Some(ShownFrom::Anywhere), None),
            (&some, None, Some("192.0.2.7")),
            (&some, Some(network("10.1.0.0/16")), Some("10.1.0.0/16")),
            (&some, Some(network("0.0.0.0/0")), None),
            (&some, Some(ShownFrom::Anywhere), None),
            (&any, None, Some("192.0.2.7")),
            (&any, Some(network("::/0")), Some("::/0")),
            (&any, Some(ShownFrom::Anywhere), Some("any")),
        ] {
            let wish = TicketWish {
                from: wanted,
                ..wish("ann")
            };
            let found = bound_to(&wish, settings).map(|it| it.to_string());
            assert_eq!(found.as_deref(), bound, "{settings:?} {wanted:?}");
        }
    }

    #[test]
    fn addresses_and_identities_are_rationed_apart() {
        #[derive(Debug)]
        struct Still;
        impl Clock for Still {
            fn now(&self) -> SystemTime {
                SystemTime::UNIX_EPOCH
            }
        }
        let office = TicketOffice::new(Arc::new(Still), Arc::new(crate::tls::SystemRandom));
        let ann = wish("ann").identity.key();
        let as_ann = || office.admit(Wishing::Identity(&ann), &Still);
        assert!((0..200).all(|_| as_ann().is_ok()));
        assert_eq!(as_ann(), Err(WINDOW));
        assert!(
            office
                .admit(Wishing::Identity(&wish("bob").identity.key()), &Still)
                .is_ok()
        );
        let from = |text: &str| office.admit(Wishing::Address(text.parse().unwrap()), &Still);
        // One subscriber has one ration, whichever of his addresses he uses.
        assert!((0..300).all(|host| from(&format!("2001:db8::{host:x}")).is_ok()));
        assert_eq!(from("2001:db8::ffff"), Err(WINDOW));
        assert!(from("192.0.2.7").is_ok());
    }
}
