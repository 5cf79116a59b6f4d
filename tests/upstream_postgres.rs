//! The upstream pool against a real PostgreSQL: what a session leaves behind is gone, dead
//! connections are not lent, and the cap holds over threads.

#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::wildcard_enum_match_arm,
    reason = "a test ends by panicking; clippy spares only the functions that carry the attribute"
)]

use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::time::Duration;

use gatepost::domain::{Engine, Random, Reason, RefusalCode, Refuse, Secret};
use gatepost::tls::{ClientSettings, ClientTls, Mode};
use gatepost::upstream::{
    Budget, Checkout, CheckoutError, DialError, Pool, PoolKey, Settings, TargetAddress, reset,
};
use gatepost::wire::Decoded;
use gatepost::wire::pg::frame;
use gatepost::wire::pg::from_client::put_query;
use gatepost::wire::pg::from_server::{self, FromServer};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::task::{LocalSet, spawn_local, yield_now};

#[path = "support/share.rs"]
mod share;
use share::borrow;
const PASSWORD: &str = "correct horse";

/// A PostgreSQL of its own in a temporary folder; stopped when dropped.
struct Server {
    _folder: tempfile::TempDir,
    cluster: PathBuf,
    port: u16,
}

impl Server {
    fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let cluster = folder.path().join("cluster");
        let secret = folder.path().join("password");
        std::fs::write(&secret, PASSWORD).unwrap();
        run(Command::new("chmod").args(["-R", "a+rwX"]).arg(folder.path()));
        let mut initdb = binary("initdb");
        initdb.args(["--no-sync", "--username=postgres", "--auth=scram-sha-256"]);
        initdb.args(["--encoding=UTF8", "--locale=C", "-D"]).arg(&cluster);
        run(initdb.arg(format!("--pwfile={}", secret.display())));
        let port = free_port();
        let options = format!(
            "-c listen_addresses=127.0.0.1 -c port={port} -c fsync=off -c unix_socket_directories={}",
            folder.path().display()
        );
        let mut start = binary("pg_ctl");
        start.args(["start", "--wait", "--silent", "-o", &options, "-D"]);
        run(start.arg(&cluster).arg("-l").arg(folder.path().join("log")));
        Self {
            _folder: folder,
            cluster,
            port,
        }
    }

    fn pool(&self, budget: &Arc<Budget>, change: impl FnOnce(&mut Settings)) -> Rc<Pool> {
        pool(self.port, budget, change)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let mut stop = binary("pg_ctl");
        stop.args(["stop", "--mode=immediate", "--silent", "-D"]);
        let _ = stop.arg(&self.cluster).status();
    }
}

fn free_port() -> u16 {
    let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
    listener.local_addr().unwrap().port()
}

/// PostgreSQL refuses to run as root, which tests in containers often do.
fn binary(name: &str) -> Command {
    let path = Path::new("/usr/lib/postgresql/15/bin").join(name);
    let id = Command::new("id").arg("-u").output().unwrap();
    if id.stdout.trim_ascii() != b"0" {
        return Command::new(path);
    }
    let mut command = Command::new("runuser");
    command.args(["-u", "postgres", "--"]).arg(path);
    command
}

fn run(command: &mut Command) {
    // Not inherited: the server would keep the test runner's output open.
    command
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    assert!(command.status().unwrap().success(), "{command:?}");
}

fn pool(port: u16, budget: &Arc<Budget>, change: impl FnOnce(&mut Settings)) -> Rc<Pool> {
    let client = ClientSettings {
        engine: Engine::Postgres,
        mode: Mode::Disable,
        ca: None,
        client: None,
    };
    pool_over(&client, port, budget, change)
}

fn pool_over(
    client: &ClientSettings,
    port: u16,
    budget: &Arc<Budget>,
    change: impl FnOnce(&mut Settings),
) -> Rc<Pool> {
    let address = TargetAddress {
        engine: Engine::Postgres,
        target: "orders".into(),
        host: "127.0.0.1".to_owned(),
        port,
        tls: ClientTls::load(client).unwrap(),
    };
    let mut settings = Settings {
        max_connections: budget.stats().max,
        queue_timeout: Duration::from_secs(30),
        idle_timeout: Duration::from_secs(60),
        connect_timeout: Duration::from_secs(30),
        max_lifetime: Duration::from_secs(3600),
    };
    change(&mut settings);
    Pool::new(Arc::new(address), settings, budget, Arc::new(Counting::default()))
}

#[derive(Debug, Default)]
struct Counting(AtomicU64);

impl Random for Counting {
    fn fill(&self, bytes: &mut [u8]) {
        bytes.fill_with(|| self.0.fetch_add(1, Ordering::Relaxed).to_le_bytes()[0]);
    }
}

fn key(login: &str) -> PoolKey {
    PoolKey {
        target: "orders".into(),
        database: "postgres".into(),
        login: login.into(),
        identity: None,
        settings: vec![],
    }
}

fn password() -> Secret<String> {
    Secret::new(PASSWORD.to_owned())
}

fn budget(max: u32) -> Arc<Budget> {
    Budget::new("orders".into(), max)
}

async fn lend(pool: &Rc<Pool>, login: &str) -> Checkout {
    borrow(pool, key(login), &password()).await.unwrap()
}

/// Runs simple statements; the first column of every row as text, or the SQLSTATE.
async fn ask(checkout: &mut Checkout, sql: &str) -> Result<Vec<String>, String> {
    let mut request = Vec::new();
    put_query(&mut request, sql.as_bytes());
    let stream = checkout.stream();
    stream.write_all(&request).await.unwrap();
    stream.flush().await.unwrap();
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
    let mut answer = Ok(Vec::new());
    let mut input = Vec::new();
    loop {
        while let Decoded::Message(head) = frame::head(&input, 1 << 20).unwrap() {
            if input.len() < head.length {
                break;
            }
            let message: Vec<u8> = input.drain(..head.length).collect();
            match from_server::parse(head.tag, &message[frame::HEAD_BYTES..]).unwrap() {
                FromServer::DataRow(row) => {
                    let cell = row.column(0).flatten().map(text).unwrap_or_default();
                    answer.as_mut().unwrap().push(cell);
                }
                FromServer::ErrorResponse(fields) => answer = Err(text(fields.get(b'C').unwrap())),
                FromServer::ReadyForQuery(_) => return answer,
                _ => {}
            }
        }
        let read = checkout.stream().read_buf(&mut input).await.unwrap();
        assert_ne!(read, 0, "closed");
    }
}

async fn one(checkout: &mut Checkout, sql: &str) -> String {
    ask(checkout, sql).await.unwrap().remove(0)
}

async fn give_back(mut checkout: Checkout) {
    let slate = reset::clean(&mut checkout).await.unwrap();
    checkout.give_back(slate);
}

/// Asks until the server says that no such process is left.
async fn wait_until_gone(admin: &mut Checkout, process: i32) {
    let sql = format!("SELECT count(*) FROM pg_stat_activity WHERE pid = {process}");
    while one(admin, &sql).await != "0" {}
}

async fn with_roles(pool: &Rc<Pool>, roles: &[&str]) {
    let mut admin = lend(pool, "postgres").await;
    for role in roles {
        let sql = format!("CREATE ROLE {role} LOGIN PASSWORD '{PASSWORD}'");
        ask(&mut admin, &sql).await.unwrap();
    }
    give_back(admin).await;
}

#[tokio::test]
async fn a_connection_is_reused_under_its_own_key_only() {
    let server = Server::start();
    let work = async {
        let pool = server.pool(&budget(9), |_| {});
        with_roles(&pool, &["alice", "bob"]).await;
        let mut first = lend(&pool, "alice").await;
        assert!(first.fresh());
        assert_eq!(first.parameters()[0].0, "application_name");
        let process = first.process();
        let own = one(&mut first, "SELECT pg_backend_pid()").await;
        assert_eq!(own, process.to_string());
        give_back(first).await;

        let mut bob = lend(&pool, "bob").await;
        assert_eq!(one(&mut bob, "SELECT session_user").await, "bob");
        assert!(bob.fresh());
        let mut in_tokyo = key("alice");
        in_tokyo.settings = vec![("TimeZone".to_owned(), "Asia/Tokyo".to_owned())];
        let mut tokyo = borrow(&pool, in_tokyo, &password()).await.unwrap();
        assert_eq!(one(&mut tokyo, "SHOW TimeZone").await, "Asia/Tokyo");
        give_back(tokyo).await;

        let again = lend(&pool, "alice").await;
        assert_eq!((again.process(), again.fresh()), (process, false));
    };
    LocalSet::new().run_until(work).await;
}

#[tokio::test]
async fn login_failures_are_told_apart_and_free_their_slot() {
    let server = Server::start();
    let work = async {
        let budget = budget(1);
        let pool = server.pool(&budget, |_| {});
        let wrong = Secret::new("wrong".to_owned());
        let error = borrow(&pool, key("postgres"), &wrong).await.unwrap_err();
        let expected = (RefusalCode::TargetUnavailable, Reason::LoginNotMinted);
        assert_eq!(error.refusal(), expected);
        let CheckoutError::Dial(error) = error else {
            panic!()
        };
        assert!(error.login_stopped());
        let missing = PoolKey {
            database: "missing".into(),
            ..key("postgres")
        };
        let error = borrow(&pool, missing, &password()).await.unwrap_err();
        let CheckoutError::Dial(DialError::Refused { code: sqlstate, .. }) = error else {
            panic!()
        };
        assert_eq!(sqlstate, "3D000");
        assert_eq!(budget.stats().taken, 0);
        lend(&pool, "postgres").await;
    };
    LocalSet::new().run_until(work).await;
}

const LEAVE_BEHIND: [&str; 7] = [
    "SET search_path = nowhere; SET statement_timeout = '77s'; SET app.secret = 'x'",
    "SELECT set_config('app.other', 'y', false)",
    "CREATE TEMP TABLE leftover (x int); CREATE TEMP SEQUENCE leftovers; SELECT nextval('leftovers')",
    "SELECT pg_advisory_lock(42); LISTEN gossip; PREPARE spy AS SELECT 1",
    "BEGIN; DECLARE held CURSOR WITH HOLD FOR SELECT 1; COMMIT",
    "SET application_name = 'mine'; SET SESSION AUTHORIZATION alice; SET ROLE alice",
    "NOTIFY gossip",
];

const FIND: [(&str, &str); 11] = [
    (
        "SELECT concat_ws('/', current_user, session_user, current_setting('role'))",
        "postgres/postgres/none",
    ),
    ("SHOW search_path", "\"$user\", public"),
    ("SHOW statement_timeout", "0"),
    ("SELECT current_setting('app.secret', true)", ""),
    ("SELECT current_setting('app.other', true)", ""),
    ("SHOW application_name", "gatepost"),
    ("SELECT count(*) FROM pg_class WHERE relname ~ 'leftover'", "0"),
    ("SELECT count(*) FROM pg_locks WHERE locktype = 'advisory'", "0"),
    ("SELECT count(*) FROM pg_listening_channels()", "0"),
    ("SELECT count(*) FROM pg_prepared_statements", "0"),
    ("SELECT count(*) FROM pg_cursors WHERE is_holdable", "0"),
];

#[tokio::test]
async fn nothing_of_a_session_survives_the_reset() {
    let server = Server::start();
    let work = async {
        let pool = server.pool(&budget(2), |_| {});
        with_roles(&pool, &["alice"]).await;
        let mut checkout = lend(&pool, "postgres").await;
        let process = checkout.process();
        for sql in LEAVE_BEHIND {
            ask(&mut checkout, sql).await.unwrap();
        }
        checkout.note_parameter("application_name", "mine");
        give_back(checkout).await;

        let mut next = lend(&pool, "postgres").await;
        assert_eq!((next.process(), next.fresh()), (process, false));
        let name = ("application_name".to_owned(), "gatepost".to_owned());
        assert!(next.parameters().contains(&name));
        for (sql, expected) in FIND {
            assert_eq!(one(&mut next, sql).await, expected, "{sql}");
        }
        let sequence = ask(&mut next, "SELECT lastval()").await;
        assert_eq!(sequence, Err("55000".to_owned()));
    };
    LocalSet::new().run_until(work).await;
}

#[tokio::test]
async fn what_is_not_clean_is_closed() {
    let server = Server::start();
    let work = async {
        let budget = budget(3);
        let pool = server.pool(&budget, |_| {});
        let mut admin = lend(&pool, "postgres").await;

        let mut open_block = lend(&pool, "postgres").await;
        ask(&mut open_block, "BEGIN").await.unwrap();
        assert!(reset::clean(&mut open_block).await.is_err());
        let process = open_block.process();
        drop(open_block);
        wait_until_gone(&mut admin, process).await;

        // A slate does not count once the stream was used again, nor for another connection.
        let mut used = lend(&pool, "postgres").await;
        let slate = reset::clean(&mut used).await.unwrap();
        ask(&mut used, "SET app.secret = 'x'").await.unwrap();
        used.give_back(slate);
        let mut cleaned = lend(&pool, "postgres").await;
        let other = lend(&pool, "postgres").await;
        let slate = reset::clean(&mut cleaned).await.unwrap();
        other.give_back(slate);
        let stats = pool.stats();
        assert_eq!((stats.idle, stats.lent, stats.budget.taken), (0, 2, 2));
    };
    LocalSet::new().run_until(work).await;
}

/// Lends to "postgres", gives back, kills the idle backend, and lends again.
async fn kill_while_idle(pool: &Rc<Pool>, admin: &mut Checkout) {
    let victim = lend(pool, "postgres").await;
    let process = victim.process();
    give_back(victim).await;
    one(admin, &format!("SELECT pg_terminate_backend({process})")).await;
    wait_until_gone(admin, process).await;
    let mut next = lend(pool, "postgres").await;
    assert_ne!(next.process(), process);
    assert_eq!(one(&mut next, "SELECT 1").await, "1");
}

#[tokio::test]
async fn a_backend_that_was_killed_while_idle_is_never_lent() {
    let server = Server::start();
    let work = async {
        let pool = server.pool(&budget(2), |_| {});
        let mut admin = lend(&pool, "postgres").await;
        for _ in 0..20 {
            kill_while_idle(&pool, &mut admin).await;
        }
    };
    LocalSet::new().run_until(work).await;
}

#[tokio::test]
async fn a_cancel_reaches_the_statement() {
    let server = Server::start();
    let work = async {
        let pool = server.pool(&budget(2), |_| {});
        let mut checkout = lend(&pool, "postgres").await;
        let mut admin = lend(&pool, "postgres").await;
        let canceller = checkout.canceller().unwrap();
        let sleeping = format!(
            "SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'PgSleep' AND pid = {}",
            checkout.process()
        );
        let cancelling = async {
            while one(&mut admin, &sleeping).await != "1" {}
            canceller.cancel().await.unwrap();
        };
        let sleep = ask(&mut checkout, "SELECT pg_sleep(600)");
        let (answer, ()) = tokio::join!(sleep, cancelling);
        assert_eq!(answer, Err("57014".to_owned()));
        give_back(checkout).await;
        // The loan is over: what runs now is somebody else's.
        let mut next = lend(&pool, "postgres").await;
        let (answer, cancelled) = tokio::join!(ask(&mut next, "SELECT pg_sleep(0.1)"), canceller.cancel());
        assert!(answer.is_ok() && cancelled.is_ok());
    };
    LocalSet::new().run_until(work).await;
}

#[tokio::test]
async fn the_queue_hands_over_evicts_and_gives_up() {
    let server = Server::start();
    let work = async {
        let budget = budget(2);
        let limit = Duration::from_millis(50);
        let here = server.pool(&budget, |_| {});
        let there = server.pool(&budget, |settings| settings.queue_timeout = limit);
        with_roles(&here, &["alice"]).await;
        // The administrator's idle connection holds a slot until the second one needs it.
        let alice = lend(&here, "alice").await;
        let also_alice = lend(&here, "alice").await;
        assert_eq!((here.stats().idle, here.stats().lent), (0, 2));
        let pool = Rc::clone(&here);
        let waiting = spawn_local(async move { lend(&pool, "alice").await });
        while budget.stats().waiting == 0 {
            yield_now().await;
        }
        // Who waits too long gives up and leaves no trace.
        let error = borrow(&there, key("alice"), &password()).await.unwrap_err();
        assert!(matches!(error, CheckoutError::QueueTimeout { .. }));
        assert_eq!(error.refusal().0, RefusalCode::TooManySessions);
        assert_eq!((budget.stats().waiting, there.stats().waiting), (1, 0));
        // The waiter gets the very connection, without a new login.
        let process = alice.process();
        give_back(alice).await;
        let handed = waiting.await.unwrap();
        assert_eq!((handed.process(), handed.fresh()), (process, false));
        // A waiter of another pool has an idle connection closed for it.
        give_back(handed).await;
        let patient = server.pool(&budget, |_| {});
        let other = lend(&patient, "postgres").await;
        assert!(other.fresh());
        assert_eq!((here.stats().idle, budget.stats().taken), (0, 2));
        drop((also_alice, other));
        assert_eq!(budget.stats().taken, 0);
    };
    LocalSet::new().run_until(work).await;
}

#[tokio::test]
async fn idle_old_and_retired_connections_end() {
    let server = Server::start();
    let work = async {
        let budget = budget(2);
        let limit = Duration::from_millis(20);
        let short = server.pool(&budget, |settings| settings.idle_timeout = limit);
        give_back(lend(&short, "postgres").await).await;
        while budget.stats().taken != 0 {
            yield_now().await;
        }
        let old = server.pool(&budget, |settings| settings.max_lifetime = Duration::ZERO);
        give_back(lend(&old, "postgres").await).await;
        assert_eq!(budget.stats().taken, 0);

        let pool = server.pool(&budget, |_| {});
        let (lent, idle) = (lend(&pool, "postgres").await, lend(&pool, "postgres").await);
        give_back(idle).await;
        assert_eq!((budget.stats().idle, budget.stats().taken), (1, 2));
        budget.retire("postgres");
        while budget.stats().taken != 1 {
            yield_now().await;
        }
        give_back(lent).await;
        assert_eq!((budget.stats().idle, budget.stats().taken), (0, 0));
    };
    LocalSet::new().run_until(work).await;
}

/// Has the server write a file into its own folder, which is closed to others.
#[cfg(feature = "dev")]
async fn write_file(admin: &mut Checkout, name: &str, text: &str) {
    let bytes = format!("translate(encode(convert_to('{text}', 'UTF8'), 'base64'), E'\\n', '')");
    let sql = format!("COPY (SELECT {bytes}) TO PROGRAM 'umask 077; base64 -d > {name}'");
    ask(admin, &sql).await.unwrap();
}

#[cfg(feature = "dev")]
#[tokio::test]
async fn the_same_inside_tls() {
    let server = Server::start();
    let folder = tempfile::tempdir().unwrap();
    let ca = folder.path().join("ca.crt");
    let certified = rcgen::generate_simple_self_signed(["127.0.0.1".to_owned()]).unwrap();
    std::fs::write(&ca, certified.cert.pem()).unwrap();
    let work = async {
        let budget = budget(3);
        let mut admin = lend(&server.pool(&budget, |_| {}), "postgres").await;
        write_file(&mut admin, "server.crt", &certified.cert.pem()).await;
        write_file(&mut admin, "server.key", &certified.signing_key.serialize_pem()).await;
        let only_tls = "hostssl all all 127.0.0.1/32 scram-sha-256\n";
        write_file(&mut admin, "pg_hba.conf", only_tls).await;
        ask(&mut admin, "ALTER SYSTEM SET ssl = on").await.unwrap();
        one(&mut admin, "SELECT pg_reload_conf()").await;

        let client = ClientSettings {
            engine: Engine::Postgres,
            mode: Mode::VerifyFull,
            ca: Some(ca),
            client: None,
        };
        let pool = pool_over(&client, server.port, &budget, |_| {});
        // The reload takes effect a moment after it was asked for.
        let mut checkout = loop {
            match borrow(&pool, key("postgres"), &password()).await {
                Ok(checkout) => break checkout,
                Err(CheckoutError::Dial(DialError::TlsNotOffered)) => yield_now().await,
                Err(error) => panic!("{error:?}"),
            }
        };
        let encrypted = "SELECT ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()";
        assert_eq!(one(&mut checkout, encrypted).await, "t");
        let process = checkout.process();
        give_back(checkout).await;
        let again = lend(&pool, "postgres").await;
        assert_eq!((again.process(), again.fresh()), (process, false));
        give_back(again).await;
        kill_while_idle(&pool, &mut admin).await;
        let plain = server.pool(&budget, |_| {});
        let error = borrow(&plain, key("postgres"), &password()).await.unwrap_err();
        assert!(matches!(error, CheckoutError::Dial(error) if error.login_stopped()));
    };
    LocalSet::new().run_until(work).await;
}

const CAP: u32 = 3;
const TURNS: usize = 8;
const LOGINS: [&str; 5] = ["postgres", "alice", "bob", "carol", "dave"];

/// How many connections are lent at once, over all threads.
#[derive(Default)]
struct Tide {
    now: AtomicU32,
    most: AtomicU32,
}

async fn take_turns(pool: Rc<Pool>, login: &'static str, tide: Arc<Tide>) {
    for _ in 0..TURNS {
        let mut checkout = lend(&pool, login).await;
        let now = tide.now.fetch_add(1, Ordering::SeqCst) + 1;
        tide.most.fetch_max(now, Ordering::SeqCst);
        assert_eq!(one(&mut checkout, "SELECT session_user").await, login);
        assert!(pool.stats().budget.taken <= CAP);
        let slate = reset::clean(&mut checkout).await.unwrap();
        tide.now.fetch_sub(1, Ordering::SeqCst);
        checkout.give_back(slate);
    }
}

fn on_a_thread(work: impl Future<Output = ()>) {
    let mut builder = tokio::runtime::Builder::new_current_thread();
    let runtime = builder.enable_all().build().unwrap();
    LocalSet::new().block_on(&runtime, work);
}

/// Two threads, three slots, ten sessions of five logins: all get their turns.
#[test]
fn the_cap_holds_over_two_threads() {
    let server = Server::start();
    let (budget, tide) = (budget(CAP), Arc::<Tide>::default());
    on_a_thread(async { with_roles(&server.pool(&budget, |_| {}), &LOGINS[1..]).await });
    let (port, budget, tide) = (server.port, &budget, &tide);
    let thread = move || {
        on_a_thread(async {
            let pool = pool(port, budget, |_| {});
            let session = |login| spawn_local(take_turns(Rc::clone(&pool), login, Arc::clone(tide)));
            for session in LOGINS.map(session) {
                session.await.unwrap();
            }
        });
    };
    std::thread::scope(|scope| {
        scope.spawn(thread);
        scope.spawn(thread);
    });
    assert!((2..=CAP).contains(&tide.most.load(Ordering::SeqCst)));
    assert_eq!(budget.stats().taken, 0);
}
