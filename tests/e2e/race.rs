//! Reload, revocation, a kill and the end of a token, each against clients that are connecting in the
//! same moment: whoever is struck is out, however far it had come.
//!
//! Twenty identities with ten clients each. Every identity goes through its rounds on its own, so the
//! acts also meet each other.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde_json::{Value, json};
use tokio_postgres::error::SqlState;

use crate::harness::certificates::replace;
use crate::harness::config::POLICY;
use crate::harness::operator::Operator;
use crate::harness::programs::{Caller, Door};
use crate::harness::provider::Shape;
use crate::harness::wait_for;
use crate::harness::world::World;

const IDENTITIES: usize = 20;
const CLIENTS: usize = 10;
/// Between the start of the clients and the blow, in the first round, the second, and so on: from before
/// the first byte to after the welcome.
const BLOWS_AFTER_MS: [u64; 7] = [0, 3, 11, 25, 47, 90, 160];

/// What everybody shares.
struct Arena {
    door: Door,
    operator: Operator,
    policy: PathBuf,
    /// Whom the policy denies at present.
    denied: Mutex<BTreeSet<usize>>,
    connected: AtomicUsize,
    refused: AtomicUsize,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Blow {
    Reload,
    Revoke,
    Kill,
    Expire,
}

impl Blow {
    const fn of_round(round: usize) -> Self {
        match round % 4 {
            0 => Self::Reload,
            1 => Self::Revoke,
            2 => Self::Kill,
            _ => Self::Expire,
        }
    }
}

fn policy(denied: &BTreeSet<usize>) -> String {
    let mut rules = "rules:
  - name: fleet
    identity: {provider: entra, client_id: [fleet-*, flash-*], roles: [Orders.Write]}
    grant: {role: orders_writer, login_ttl: 30m, session_max: 8h}
"
    .to_owned();
    for number in denied {
        writeln!(
            rules,
            "  - name: no-{number}\n    identity: {{provider: entra, client_id: fleet-{number}}}\n    deny: \"not now\""
        )
        .unwrap();
    }
    POLICY.replacen("rules:\n", &rules, 1)
}

impl Arena {
    /// Puts a policy in force that denies `number`, or no longer does.
    fn deny(&self, number: usize, deny: bool) {
        // Written and loaded under one lock, so that no reload sees the file of another.
        let mut denied = self.denied.lock().unwrap();
        if deny {
            denied.insert(number);
        } else {
            denied.remove(&number);
        }
        replace(&self.policy, &policy(&denied));
        self.operator.done("POST", "/v1/reload", &Value::Null);
    }

    /// Sessions of this identity, by their references.
    fn sessions(&self, client: &str) -> Vec<String> {
        let all = self.operator.done("GET", "/v1/sessions", &Value::Null);
        let all = all["sessions"].as_array().unwrap().clone();
        let own = all.iter().filter(|it| it["identity"]["client_id"] == client);
        own.map(|it| it["session"].as_str().unwrap().to_owned()).collect()
    }

    /// One client: connects until it is told to stop; then once more, which must fail if `barred`. It
    /// never leaves by itself, unless the blow was a `kill`, after which it may come back.
    async fn client(&self, caller: Caller, kill: bool, stop: &AtomicBool, barred: &AtomicBool) {
        loop {
            let (last, must_fail) = (stop.load(Ordering::SeqCst), barred.load(Ordering::SeqCst));
            match self.door.connect(&caller, "orders", "").await {
                Ok(client) => {
                    self.connected.fetch_add(1, Ordering::Relaxed);
                    assert!(!must_fail, "{} was let in after it was struck", caller.user);
                    let leaves = || kill && stop.load(Ordering::SeqCst);
                    while !client.is_closed() && !leaves() {
                        let _ = client.batch_execute("SELECT 1").await;
                        tokio::time::sleep(Duration::from_millis(2)).await;
                    }
                }
                Err(error) => {
                    self.refused.fetch_add(1, Ordering::Relaxed);
                    // Before its welcome a client may also find the door shut without a word.
                    let expected = [
                        SqlState::INSUFFICIENT_PRIVILEGE,
                        SqlState::ADMIN_SHUTDOWN,
                        SqlState::INVALID_AUTHORIZATION_SPECIFICATION,
                        // Two hundred at once may be too many for the machine that this runs on.
                        SqlState::CONNECTION_FAILURE,
                    ];
                    let code = error.code();
                    assert!(code.is_none_or(|code| expected.contains(code)), "{error:?}");
                }
            }
            if last {
                return;
            }
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }
}

async fn round(arena: &Arc<Arena>, number: usize, round: usize, token: String) {
    let blow = Blow::of_round(round);
    let client = match blow {
        Blow::Expire => format!("flash-{number}"),
        Blow::Reload | Blow::Revoke | Blow::Kill => format!("fleet-{number}"),
    };
    let caller = Caller {
        user: "orders_writer",
        token,
    };
    let (stop, barred) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicBool::new(false)));
    let clients: Vec<_> = (0..CLIENTS)
        .map(|_| {
            let (arena, caller) = (Arc::clone(arena), caller.clone());
            let (stop, barred) = (Arc::clone(&stop), Arc::clone(&barred));
            tokio::spawn(async move { arena.client(caller, blow == Blow::Kill, &stop, &barred).await })
        })
        .collect();
    let after = BLOWS_AFTER_MS[(round / 4 + number) % BLOWS_AFTER_MS.len()];
    tokio::time::sleep(Duration::from_millis(after)).await;
    let striking = {
        let (arena, client) = (Arc::clone(arena), client.clone());
        tokio::task::spawn_blocking(move || strike(&arena, number, &client, blow))
    };
    let undo = striking.await.unwrap();
    // What begins from now on must fail, where the blow bars the way.
    barred.store(matches!(blow, Blow::Reload | Blow::Revoke), Ordering::SeqCst);
    stop.store(true, Ordering::SeqCst);
    for client in clients {
        client.await.unwrap();
    }
    let arena = Arc::clone(arena);
    let ending = tokio::task::spawn_blocking(move || {
        wait_for("the end of every struck session", || {
            arena.sessions(&client).is_empty().then_some(())
        });
        undo(&arena);
    });
    ending.await.unwrap();
}

/// Comes back when the blow is in force, with what takes it back.
fn strike(arena: &Arena, number: usize, client: &str, blow: Blow) -> Box<dyn FnOnce(&Arena) + Send> {
    match blow {
        Blow::Reload => {
            arena.deny(number, true);
            Box::new(move |arena| arena.deny(number, false))
        }
        Blow::Revoke => {
            let wanted = json!({"client_id": client, "for": "1h", "reason": "race"});
            let made = arena.operator.done("POST", "/v1/revocations", &wanted);
            let id = made["id"].as_str().unwrap().to_owned();
            Box::new(move |arena| {
                arena
                    .operator
                    .done("DELETE", &format!("/v1/revocations/{id}"), &Value::Null);
            })
        }
        Blow::Kill => {
            let struck = arena.sessions(client);
            for reference in &struck {
                // It may have ended by itself.
                arena
                    .operator
                    .ask("DELETE", &format!("/v1/sessions/{reference}"), &Value::Null);
            }
            let client = client.to_owned();
            wait_for("the end of the killed", || {
                let left = arena.sessions(&client);
                struck.iter().all(|it| !left.contains(it)).then_some(())
            });
            Box::new(|_| ())
        }
        Blow::Expire => Box::new(|_| ()),
    }
}

#[test]
fn who_waits_in_line_is_told_at_once() {
    let mut world = World::without_proxy(15);
    world.config.max_connections = 1;
    // Longer than this test may take.
    world.config.queue_timeout = "1h";
    world.serve();
    let (consumer, operator) = (world.consumer(), world.local_operator());
    let other = world.caller(Shape::Okta, "order-consumer", "orders_writer");
    world.runtime.block_on(async {
        let holder = world.connect(&consumer, "").await.unwrap();
        let door = world.door();
        let waiting = tokio::spawn(async move { door.connect(&other, "orders", "").await.err().unwrap() });
        while operator.done("GET", "/v1/pools", &Value::Null)["pools"][0]["waiting"] != 1 {
            tokio::task::yield_now().await;
        }
        let wanted = json!({"client_id": "order-consumer", "provider": "okta"});
        let asking = tokio::task::spawn_blocking(move || operator.done("POST", "/v1/revocations", &wanted));
        let refused = waiting.await.unwrap();
        assert_eq!(refused.as_db_error().unwrap().message(), "access was revoked");
        asking.await.unwrap();
        // Another provider's client of the same name is another.
        holder.batch_execute("SELECT 1").await.unwrap();
    });
}

#[test]
fn no_session_survives_what_ended_it() {
    let full = std::env::var("GATEPOST_TEST_FULL").is_ok_and(|it| it == "1");
    // A thousand rounds, or a few of each kind.
    let rounds = if full { 50 } else { 8 };
    let mut world = World::without_proxy(15);
    world.sql("ALTER SYSTEM SET max_connections = 260");
    world.stop_server();
    world.start_server();
    world.config.max_connections = 220;
    world.config.level = "info";
    replace(&world.path("policy.yaml"), &policy(&BTreeSet::new()));
    world.serve();
    let arena = Arc::new(Arena {
        door: world.door(),
        operator: world.local_operator(),
        policy: world.path("policy.yaml"),
        denied: Mutex::default(),
        connected: AtomicUsize::new(0),
        refused: AtomicUsize::new(0),
    });
    let provider = &world.provider;
    std::thread::scope(|scope| {
        for number in 0..IDENTITIES {
            let arena = Arc::clone(&arena);
            scope.spawn(move || {
                let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
                let usual = provider.token(Shape::Entra, &format!("fleet-{number}"));
                for at in 0..rounds {
                    let token = match Blow::of_round(at) {
                        Blow::Expire => provider.token(Shape::Entra, &format!("flash-{number}")),
                        Blow::Reload | Blow::Revoke | Blow::Kill => usual.clone(),
                    };
                    runtime
                        .as_ref()
                        .unwrap()
                        .block_on(round(&arena, number, at, token));
                }
            });
        }
    });
    let (connected, refused) = (
        arena.connected.load(Ordering::Relaxed),
        arena.refused.load(Ordering::Relaxed),
    );
    // Blows that met nobody, or only closed doors, prove nothing.
    let blows = IDENTITIES * rounds;
    assert!(
        connected > blows && refused > blows / 2,
        "{connected} connected, {refused} refused"
    );
    world.settled();
    world.verify_journal();
}
