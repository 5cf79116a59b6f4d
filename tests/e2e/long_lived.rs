//! A long-lived worker: days of hourly tokens in as many seconds, by tokens, sessions and logins that
//! live for seconds. It works until it is told to come again, fetches a new token, and goes on; the
//! provider's keys rotate, the provider is away for a while, the database restarts. No message is lost
//! or applied twice, every commit is on record, and nothing piles up behind it.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};

use serde_json::Value;
use tokio_postgres::{Client, Error};

use crate::harness::config::POLICY;
use crate::harness::journal::of_event;
use crate::harness::programs::{Caller, Door};
use crate::harness::provider::{Shape, ask_for_token};
use crate::harness::world::World;
use crate::harness::{LOOK_EVERY, full, wait_for};

const WORKERS: usize = 2;
/// Tokens that each worker uses up; three days of hourly ones with `GATEPOST_TEST_FULL` set.
const TOKENS: usize = 12;
const TOKENS_FULL: usize = 72;
/// Every so manieth token outlives its session, which then ends by the rule's `session_max`.
const LONG_TOKEN_EVERY: usize = 4;

/// What a worker saw and was told.
#[derive(Debug, Default)]
struct Told {
    over: AtomicBool,
    /// Connections, each by a token of its own.
    tokens: AtomicUsize,
    /// Times that the provider did not answer.
    without: AtomicUsize,
    /// Login and server process of each connection.
    served_by: Mutex<Vec<(String, i32)>>,
    /// Messages, and the transaction that applied each, where its acknowledgement came through.
    applied: Mutex<BTreeMap<String, Option<u64>>>,
}

struct Worker {
    name: usize,
    door: Door,
    tokens_from: String,
    told: Arc<Told>,
}

impl Worker {
    fn over(&self) -> bool {
        self.told.over.load(Ordering::SeqCst)
    }

    async fn work(self) {
        let (mut next, mut tokens) = (0, 0_usize);
        while !self.over() {
            let life = if tokens.is_multiple_of(LONG_TOKEN_EVERY) {
                60
            } else {
                2
            };
            let wish = format!("&life={life}");
            let Ok(token) = ask_for_token(&self.tokens_from, "order-consumer", &wish) else {
                self.told.without.fetch_add(1, Ordering::SeqCst);
                tokio::time::sleep(LOOK_EVERY).await;
                continue;
            };
            let user = "orders_writer";
            match self.door.connect(&Caller { user, token }, "orders", "").await {
                Ok(mut client) => {
                    let end = self.apply_until_told(&mut client, &mut next).await;
                    assert!(end.as_ref().is_none_or(is_a_goodbye), "{end:?}");
                    tokens += 1;
                    self.told.tokens.fetch_add(1, Ordering::SeqCst);
                }
                Err(error) => {
                    assert!(is_a_goodbye(&error) || is_a_matter_of_time(&error), "{error:?}");
                    tokio::time::sleep(LOOK_EVERY).await;
                }
            }
        }
    }

    /// Message after message, until there is an error or the work is over.
    async fn apply_until_told(&self, client: &mut Client, next: &mut usize) -> Option<Error> {
        let who = "SELECT session_user::text, pg_backend_pid()";
        match client.query_one(who, &[]).await {
            Ok(row) => {
                let served_by = (row.get(0), row.get(1));
                self.told.served_by.lock().unwrap().push(served_by);
            }
            Err(error) => return Some(error),
        }
        while !self.over() {
            let message = format!("{}-{next}", self.name);
            match apply(client, &message, next.is_multiple_of(2)).await {
                Ok(id) => {
                    self.told.applied.lock().unwrap().insert(message, id);
                    *next += 1;
                }
                Err(error) => return Some(error),
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
        None
    }
}

/// Applies a message unless it was applied before, with the transaction's id. `slowly`: the
/// transaction stays open for a moment, so that ends fall into transactions too.
async fn apply(client: &mut Client, message: &str, slowly: bool) -> Result<Option<u64>, Error> {
    let block = client.transaction().await?;
    let once = "INSERT INTO inbox (message_id) VALUES ($1) ON CONFLICT DO NOTHING";
    if block.execute(once, &[&message]).await? == 0 {
        return Ok(None);
    }
    let insert = "INSERT INTO orders (customer) VALUES ($1) RETURNING pg_current_xact_id()::text";
    let id: String = block.query_one(insert, &[&message]).await?.get(0);
    if slowly {
        tokio::time::sleep(LOOK_EVERY).await;
    }
    block.commit().await?;
    Ok(Some(id.parse().unwrap()))
}

/// Told to come again, or the connection was found closed.
fn is_a_goodbye(error: &Error) -> bool {
    error.as_db_error().map_or(error.is_closed(), |told| {
        let code = told.code().code();
        code.starts_with("57P") || code == "08006"
    })
}

/// The first token by a new key comes before the key is known.
fn is_a_matter_of_time(error: &Error) -> bool {
    let told = error.as_db_error().map(tokio_postgres::error::DbError::message);
    told == Some("token signature cannot be verified")
}

fn start(world: &World, name: usize, told: &Arc<Told>) -> JoinHandle<()> {
    let worker = Worker {
        name,
        door: world.door(),
        tokens_from: world.provider.token_url(Shape::Entra),
        told: Arc::clone(told),
    };
    thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        runtime.block_on(worker.work());
    })
}

/// Lives are as short as the policy lets them be.
fn world() -> World {
    let mut world = World::without_proxy(15);
    let terms = "{role: orders_writer, login_ttl: 30m, session_max: 8h}";
    let short = "{role: orders_writer, login_ttl: 5s, session_max: 3s, login_max_age: 12s}";
    let policy = POLICY.replacen(terms, short, 1);
    assert_ne!(policy, POLICY);
    fs::write(world.path("policy.yaml"), policy).unwrap();
    // One thread has every idle connection at hand.
    world.config.threads = 1;
    world.serve();
    world
}

fn sessions(world: &World) -> usize {
    let said = world.gatepost(&["sessions", "list", "--config", "gatepost.yaml", "--json"]);
    let told: Value = serde_json::from_str(&said.well()).unwrap();
    told["sessions"].as_array().unwrap().len()
}

/// What an operator does who knows that the keys were replaced, instead of waiting for half a minute.
fn refresh_keys(world: &World) {
    world
        .gatepost(&["keys", "refresh", "entra", "--config", "gatepost.yaml"])
        .well();
}

/// Connections of minted logins.
const CONNECTIONS: &str = "SELECT count(*) FROM pg_stat_activity WHERE usename LIKE 'gp\\_%'";

/// Watches the workers use up tokens, and that nothing piles up meanwhile.
fn watch(world: &World, told: &Told, workers: &[JoinHandle<()>], tokens: usize) {
    let mut seen = told.tokens.load(Ordering::SeqCst);
    while seen < tokens * WORKERS {
        wait_for("the next token", || {
            assert!(!workers.iter().any(JoinHandle::is_finished), "a worker ended");
            // The current generation, an old one in use, an old one that is being dropped.
            let logins = world.logins();
            assert!(logins.len() <= 3, "{logins:?}");
            let connections: usize = world.sql(CONNECTIONS).parse().unwrap();
            assert!(connections <= 3 * WORKERS, "{connections} connections");
            let now = told.tokens.load(Ordering::SeqCst);
            (now > seen).then_some(())
        });
        seen = told.tokens.load(Ordering::SeqCst);
    }
}

#[test]
fn days_of_tokens_lose_no_message_and_leave_nothing() {
    let mut world = world();
    let told = Arc::new(Told::default());
    let workers: Vec<_> = (0..WORKERS).map(|name| start(&world, name, &told)).collect();
    let tokens = if full() { TOKENS_FULL } else { TOKENS };

    watch(&world, &told, &workers, tokens / 4);
    world.provider.rotate(Shape::Entra);
    refresh_keys(&world);

    watch(&world, &told, &workers, tokens / 2);
    world.provider.stop();
    let before = told.without.load(Ordering::SeqCst);
    wait_for("every session to end with its token", || {
        let missed = told.without.load(Ordering::SeqCst) > before;
        (missed && sessions(&world) == 0).then_some(())
    });
    wait_for("the logins to end", || world.logins().is_empty().then_some(()));
    world.provider.start_again();
    refresh_keys(&world);

    watch(&world, &told, &workers, tokens * 3 / 4);
    world.stop_server();
    world.start_server();

    watch(&world, &told, &workers, tokens);
    told.over.store(true, Ordering::SeqCst);
    for worker in workers {
        worker.join().unwrap();
    }
    wait_for("the last session to end", || {
        (sessions(&world) == 0).then_some(())
    });
    wait_for("the last login to end", || {
        world.logins().is_empty().then_some(())
    });
    assert_eq!(world.sql(CONNECTIONS), "0");
    assert_messages(&world, &told);
    assert_reuse(&world, &told);
    world.verify_journal();
}

/// Each once, each on record, and each acknowledged one with the id that its worker was told.
fn assert_messages(world: &World, told: &Told) {
    let rows = world.sql("SELECT customer, xmin::text FROM orders ORDER BY id");
    let mut written = BTreeMap::new();
    for row in rows.lines() {
        let (message, id) = row.split_once('|').unwrap();
        let id: u64 = id.parse().unwrap();
        assert!(
            written.insert(message.to_owned(), id).is_none(),
            "{message} twice"
        );
    }
    let applied = told.applied.lock().unwrap();
    assert!(applied.keys().eq(written.keys()), "{} applied", applied.len());
    let inbox = world.sql("SELECT count(*) FROM inbox");
    assert_eq!(inbox, written.len().to_string());
    let outcomes = outcomes(&world.settled());
    for (message, id) in &*applied {
        let Some(id) = id else { continue };
        assert_eq!(written.get(message), Some(id), "{message}");
        assert_eq!(
            outcomes.get(id).map(String::as_str),
            Some("committed"),
            "{message}"
        );
    }
    for (message, id) in written {
        // Whose answer the restart swallowed may be in doubt, but never unknown.
        let outcome = outcomes.get(&id).map(String::as_str);
        assert!(
            matches!(outcome, Some("committed" | "in_doubt")),
            "{message}: {outcome:?}"
        );
    }
}

fn outcomes(records: &[Value]) -> BTreeMap<u64, String> {
    let outcomes = of_event(records, "transaction.outcome").into_iter();
    let known = outcomes.filter_map(|it| {
        let outcome = it["detail"]["outcome"].as_str()?;
        Some((it["detail"]["id"].as_u64()?, outcome.to_owned()))
    });
    known.collect()
}

/// A new token is no new login and no new connection.
fn assert_reuse(world: &World, told: &Told) {
    let records = world.settled();
    let opened = of_event(&records, "session.opened").len();
    let minted = of_event(&records, "login.minted").len();
    assert!(minted * 2 <= opened, "{minted} logins for {opened} sessions");
    let served_by = told.served_by.lock().unwrap();
    let connections: BTreeSet<_> = served_by.iter().collect();
    assert!(
        connections.len() * 2 <= served_by.len(),
        "{} connections for {} sessions",
        connections.len(),
        served_by.len()
    );
    let closed = of_event(&records, "session.closed").into_iter();
    let reasons: BTreeSet<_> = closed.filter_map(|it| it["detail"]["reason"].as_str()).collect();
    for reason in [
        "the token of this session has expired",
        "the session has reached its maximum life",
    ] {
        assert!(reasons.contains(reason), "{reasons:?}");
    }
}
