//! For tests: one record of every event, as the real writer writes it, with names that mean harm.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime};

use crate::audit::entry::{Found, entries};
use crate::audit::heads::SecondPlace;
use crate::audit::journal::{Durability, Journal, Settings};
use crate::audit::key::{PublicKey, SigningKey, generate};
use crate::audit::record::*;
use crate::audit::retention::Retention;
use crate::audit::values::{Bound, Values};
use crate::domain::admin::AdminAction;
use crate::domain::clock::{Clock, Random};
use crate::domain::correlation::{Correlation, CorrelationSource};
use crate::domain::ids::SessionId;
use crate::domain::outline::{OutlinedRole, OutlinedRule, PolicyFile, PolicyOutline};
use crate::domain::parameters::ParameterRule;
use crate::domain::target::Engine;

/// A name that breaks out of HTML, CSV, CEF, syslog, terminals and JSON, where it is let.
pub(super) const HOSTILE: &str =
    "=cmd|' /C calc'!A0<script>alert(1)</script>\"']=a\\b|c\n\r\t\u{1b}[2J\u{202e}&amp; 注文";

/// A correlation id may hold no control characters; otherwise the same.
pub(super) const HOSTILE_ID: &str = "=m\"]=|\\<b>&";

/// Noon of 1 May 2026, and a second more at each look.
#[derive(Debug)]
pub(super) struct Ticking(AtomicU64);

pub(super) const NOON: u64 = 1_777_636_800;

impl Clock for Ticking {
    fn now(&self) -> SystemTime {
        at(self.0.fetch_add(1, Ordering::Relaxed))
    }
}

pub(super) fn at(second: u64) -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_secs(NOON + second)
}

#[derive(Debug)]
struct Byte(u8);

impl Random for Byte {
    fn fill(&self, bytes: &mut [u8]) {
        bytes.fill(self.0);
    }
}

pub(super) fn session(number: u8) -> SessionId {
    SessionId::random(&Byte(number))
}

/// Who they are, in session `number`.
pub(super) fn facts(subject: &str, role: &str, number: u8) -> Facts {
    Facts {
        session: Some(session(number)),
        identity: Some(IdentityFacts {
            provider: "entra".into(),
            subject: subject.to_owned(),
            client_id: Some(format!("{subject}-app")),
            tenant: Some("tenant-1".to_owned()),
            name: Some(format!("Name of {subject}")),
            token_id: Some("token-1".to_owned()),
            ticket_id: None,
        }),
        client: Some(ClientFacts {
            address: ([192, 0, 2, number], 4711).into(),
            application: Some(format!("app {subject}")),
        }),
        target: Some("orders".into()),
        engine: Some(Engine::Postgres),
        database: Some("orders".into()),
        role: Some(role.into()),
        login: Some(format!("gp_test_{role}_{number}").into()),
        policy: Some(PolicyFacts {
            rule: Some("order-consumers".into()),
            version: "0011223344556677".into(),
            parameters: ParameterRule::Plain,
        }),
    }
}

/// Somebody of whom only the address is known.
pub(super) fn stranger(number: u8) -> Facts {
    let client = ClientFacts {
        address: ([198, 51, 100, number], 4711).into(),
        application: None,
    };
    Facts {
        client: Some(client),
        ..Facts::default()
    }
}

/// One parameter, as text.
fn hostile_values() -> Values {
    let length = u32::try_from(HOSTILE.len()).unwrap().to_be_bytes();
    let bytes = [&[0, 0, 0, 1], &length[..], HOSTILE.as_bytes()].concat();
    Values::Bound(Arc::new(Bound::new(&bytes, None)))
}

pub(super) fn transaction(number: u64, id: Option<u64>, kinds: &[&'static str]) -> Box<Transaction> {
    let statements = kinds.iter().map(|kind| Statement {
        text: format!("{kind} into orders values (1)").into(),
        kind,
        rows: Some(2),
        values: Some(hostile_values()),
    });
    Box::new(Transaction {
        number,
        id,
        statements: statements.collect(),
        statements_omitted: 0,
        began: at(0),
        backend: 7,
        incarnation: None,
        marker: None,
        heard: None,
        gid: None,
    })
}

pub(super) fn outcome(number: u64, id: Option<u64>, outcome: Outcome, scope: Scope) -> Event {
    Event::TransactionOutcome {
        transaction: transaction(number, id, &["insert", "update"]),
        scope,
        outcome,
        duration: Duration::from_millis(3),
    }
}

pub(super) fn outline(role: &str, who: &str) -> PolicyOutline {
    PolicyOutline {
        files: vec![PolicyFile {
            name: "orders.yaml".to_owned(),
            sha256: "ab".repeat(32),
        }],
        roles: vec![
            OutlinedRole {
                name: role.into(),
                target: "orders".into(),
                database: "orders".into(),
                break_glass: false,
                grants: "select, insert on tables public.orders".to_owned(),
            },
            OutlinedRole {
                name: "rescue".into(),
                target: "orders".into(),
                database: "orders".into(),
                break_glass: true,
                grants: "delete on tables public.orders".to_owned(),
            },
        ],
        permits: vec![OutlinedRule {
            rule: "order-consumers".into(),
            who: who.to_owned(),
            role: Some(role.into()),
            deny: None,
            parameters: ParameterRule::Hashed,
        }],
        operators: vec![],
        omitted: 0,
    }
}

/// Every call once, and one with every result.
fn admin_calls() -> Vec<AdminCall> {
    let call = |action, result, what: Option<&str>| AdminCall {
        action,
        door: if what.is_some() { "socket" } else { "api" },
        uid: what.is_some().then_some(1000),
        what: what.map(str::to_owned),
        result,
        why: None,
    };
    let results = [AdminResult::Permitted, AdminResult::Done, AdminResult::Refused];
    let mut calls: Vec<_> = results
        .map(|it| call(AdminAction::SessionsKill, it, Some(HOSTILE)))
        .into();
    calls.extend(AdminAction::ALL.map(|action| call(action, AdminResult::Done, None)));
    calls
}

fn reconciled() -> Event {
    Event::TransactionReconciled(Box::new(Reconciled {
        epoch: 1,
        number: 2,
        id: None,
        outcome: Outcome::InDoubt,
        evidence: Evidence::None,
        why: None,
        previous: Some(Outcome::InDoubt),
        gid: Some(HOSTILE.to_owned()),
    }))
}

/// One of every event, of an identity with a hostile name.
pub(super) fn every_event() -> Vec<Record> {
    let whole = Arc::new(facts(HOSTILE, HOSTILE, 1));
    let of = |event| Record::new(Arc::clone(&whole), event);
    let plain = |event| Record::new(Arc::default(), event);
    let mut records = vec![
        plain(Event::ServerStarted { version: "1.2.3" }),
        of(Event::PolicyLoaded {
            rules: 1,
            outline: Box::new(outline(HOSTILE, HOSTILE)),
        }),
        plain(Event::PolicyRejected { mistakes: 2 }),
        plain(Event::SecretRotated {
            what: "broker_password",
            which: Some(HOSTILE.to_owned()),
        }),
        of(Event::SessionOpened),
        of(Event::LoginMinted { expires_at: at(1800) }),
        of(Event::LoginRenewed { expires_at: at(3600) }),
        of(Event::TransactionIntent(transaction(1, Some(742), &["insert"]))),
        of(outcome(1, Some(742), Outcome::Committed, Scope::Complete)),
        of(outcome(2, None, Outcome::InDoubt, Scope::Partial)),
        of(outcome(3, None, Outcome::Aborted, Scope::Complete)),
        of(outcome(4, None, Outcome::Committed, Scope::ReadOnly)),
        of(reconciled()),
        of(Event::SessionDenied {
            code: "not_permitted",
            reason: HOSTILE.to_owned(),
        }),
        Record::new(
            Arc::new(stranger(8)),
            Event::SessionDenied {
                code: "token_missing",
                reason: "no token".to_owned(),
            },
        ),
        plain(Event::StrangersDenied {
            address: Some([192, 0, 2, 9].into()),
            count: 5,
        }),
        of(Event::LoginTampered {
            what: HOSTILE.to_owned(),
        }),
        of(Event::LoginDisabled { why: "expired" }),
        of(Event::LoginDropped),
        of(Event::SessionClosed {
            why: "done",
            reason: Some(HOSTILE.to_owned()),
            transactions: 4,
        }),
        of(Event::TicketDenied {
            code: "not_permitted",
            reason: HOSTILE.to_owned(),
        }),
        plain(Event::JournalRepaired {
            bytes_cut: 3,
            unsigned_kept: 1,
        }),
    ];
    records.extend(admin_calls().into_iter().map(|call| of(Event::Admin(call))));
    let ids = ["m-1", HOSTILE_ID].map(|id| Correlation::new(id, CorrelationSource::Set));
    for record in &mut records {
        if matches!(
            record.event,
            Event::TransactionIntent(_) | Event::TransactionOutcome { .. }
        ) {
            record.correlation = ids.iter().flatten().cloned().collect();
        }
    }
    records.push(plain(Event::ServerStopped));
    records
}

fn normalise(text: &str) -> Normalised {
    Normalised {
        fingerprint: format!("{:016x}", text.len()),
        text: text.to_owned(),
    }
}

/// Writes records with the real writer, one a second from noon on; gives the key that proves them.
pub(super) fn write(directory: &Path, runs: Vec<Vec<Record>>) -> PublicKey {
    let pem = generate().unwrap().expose().clone();
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let clock = Arc::new(Ticking(AtomicU64::new(0)));
    for records in runs {
        let settings = Settings {
            directory: directory.to_owned(),
            durability: Durability::Os,
            signing_key: crate::domain::secret::Secret::new(pem.as_bytes().to_vec()),
            installation: HOSTILE.into(),
            replica: HOSTILE.into(),
            previous_key: None,
            segment_bytes: 16 << 10,
            heads: SecondPlace::default(),
            retention: Retention::default(),
        };
        runtime.block_on(async {
            let clock: Arc<dyn Clock> = Arc::<Ticking>::clone(&clock);
            let journal = Journal::open(settings, clock, normalise).unwrap();
            for record in records {
                let _receipt = journal.append(record).await.unwrap();
            }
            journal.close().await;
        });
    }
    SigningKey::read(pem.as_bytes()).unwrap().public().clone()
}

/// One record of every event, as written.
pub(super) fn found() -> Vec<Found> {
    let folder = tempfile::tempdir().unwrap();
    write(folder.path(), vec![every_event()]);
    entries(folder.path()).unwrap().map(Result::unwrap).collect()
}
