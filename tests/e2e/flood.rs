//! A flood of strangers: it fills neither the journal's disk nor the log, every one of them is told why,
//! all are accounted for, and an honest writer commits all the while.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpSocket, TcpStream};
use tokio::time::{Instant, timeout};

use crate::harness::journal::of_event;
use crate::harness::programs::{Caller, Door};
use crate::harness::provider::{Shape, try_http};
use crate::harness::wait_for;
use crate::harness::world::World;

/// Strangers; with `GATEPOST_TEST_FULL` set, as in CI, the larger number.
const FEW: usize = 10_000;
const MANY: usize = 100_000;
/// They come from `127.0.0.2` and on.
const ADDRESSES: usize = 16;
const THREADS: usize = 2;
const AT_ONCE: usize = 24;
/// One of so many speaks TLS, which costs both sides what all the others cost together.
const TLS_EVERY: usize = 50;
/// Strangers that begin TLS and wait; they stay to the end.
const HALF_OPEN: usize = 100;

/// Only a failing test waits this long.
const REFUSED_WITHIN: Duration = Duration::from_secs(20);

/// What the journal's directory, and the log, may grow by for each: 5 MB for a hundred thousand.
const BYTES_EACH_MAX: usize = 50;
/// Commits before the flood, to compare with.
const QUIET_COMMITS: usize = 300;
/// A new session after so many commits: coming in must work as well.
const COMMITS_A_SESSION: usize = 50;

fn strangers() -> usize {
    if std::env::var_os("GATEPOST_TEST_FULL").is_some() {
        MANY
    } else {
        FEW
    }
}

/// What a stranger in clear sends, and a part of what it must be told; `None`: nothing, for it is gone or
/// only cancelled.
const IN_CLEAR: [(&[u8], Option<&str>); 8] = [
    (
        b"\0\0\0\x2c\0\x03\0\0user\0orders_writer\0database\0orders\0\0",
        Some("C28000\0Ma token is only accepted inside TLS\0"),
    ),
    (b"GET / HTTP/1.1\r\nHost: x\r\n\r\n", Some("C08P01\0")),
    (b"\0\0\0\x10\0\x02\0\0user\0x\0\0", Some("is not supported\0")),
    (b"\0\0\0\x04", Some("Mmalformed start-up packet\0")),
    (b"\0\0\0\x11\0\x03\0\0user\0\xff\0\0\0", Some("C08P01\0")),
    (b"\xff\xff\xff\xff\xff\xff\xff\xff", Some("C08P01\0")),
    // A cancel with a key that nobody has.
    (b"\0\0\0\x10\x04\xd2\x16\x2e\0\0\0\x07\0\0\0\x07", None),
    // Half a packet.
    (b"\0\0\0\x2b\0\x03\0\0user\0orders", None),
];

#[derive(Debug)]
struct Flood {
    door: Door,
    /// Tokens that open nothing, and what each is told.
    tokens: Vec<(Caller, &'static str)>,
    next: AtomicUsize,
    told: AtomicUsize,
}

async fn arrive(to: SocketAddr, number: usize) -> TcpStream {
    // Every kind from every address.
    let last = u8::try_from(2 + number / IN_CLEAR.len() % ADDRESSES).unwrap();
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind((Ipv4Addr::new(127, 0, 0, last), 0).into()).unwrap();
    socket.connect(to).await.unwrap()
}

impl Flood {
    async fn stranger(&self, number: usize) {
        if number.is_multiple_of(TLS_EVERY) {
            let (caller, wanted) = &self.tokens[number / TLS_EVERY % self.tokens.len()];
            let refused = self.door.connect(caller, "orders", "").await.err().unwrap();
            let told = refused.as_db_error().unwrap_or_else(|| panic!("{refused:?}"));
            assert!(told.message().contains(wanted), "{told:?}");
            self.told.fetch_add(1, Ordering::Relaxed);
            return;
        }
        let (sent, wanted) = IN_CLEAR[number % IN_CLEAR.len()];
        let mut stream = arrive(self.door.address, number).await;
        stream.write_all(sent).await.unwrap();
        if wanted.is_none() {
            stream.shutdown().await.unwrap();
        }
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).await.unwrap();
        let answer = String::from_utf8_lossy(&answer);
        match wanted {
            Some(wanted) => {
                assert!(answer.starts_with('E') && answer.contains(wanted), "{answer}");
                assert!(
                    answer.contains("Dgatepost session s-") && answer.contains("\0H"),
                    "{answer}"
                );
                self.told.fetch_add(1, Ordering::Relaxed);
            }
            None => assert_eq!(answer, ""),
        }
    }

    async fn run(&self, strangers: usize) {
        loop {
            let number = self.next.fetch_add(1, Ordering::Relaxed);
            if number >= strangers {
                return;
            }
            let refused = timeout(REFUSED_WITHIN, self.stranger(number)).await;
            refused.unwrap_or_else(|_| panic!("stranger {number} waits in vain"));
        }
    }
}

fn start(flood: &Arc<Flood>, strangers: usize) -> Vec<JoinHandle<()>> {
    let start = |_| {
        let flood = Arc::clone(flood);
        thread::spawn(move || {
            runtime().block_on(async {
                let tasks = (0..AT_ONCE).map(|_| {
                    let flood = Arc::clone(&flood);
                    tokio::spawn(async move { flood.run(strangers).await })
                });
                for task in tasks.collect::<Vec<_>>() {
                    task.await.unwrap();
                }
            });
        })
    };
    (0..THREADS).map(start).collect()
}

fn runtime() -> tokio::runtime::Runtime {
    let mut builder = tokio::runtime::Builder::new_current_thread();
    builder.enable_all().build().unwrap()
}

/// Commits one row after the other until told to stop; how long each took.
async fn commit(door: &Door, caller: &Caller, stop: &AtomicBool, commits: &AtomicUsize) -> Vec<Duration> {
    let mut took = Vec::new();
    while !stop.load(Ordering::Relaxed) {
        let client = door.connect(caller, "orders", "").await.unwrap();
        let insert = client
            .prepare("INSERT INTO orders (customer) VALUES ('honest')")
            .await
            .unwrap();
        for _ in 0..COMMITS_A_SESSION {
            let begun = Instant::now();
            assert_eq!(client.execute(&insert, &[]).await.unwrap(), 1);
            took.push(begun.elapsed());
            commits.fetch_add(1, Ordering::Relaxed);
        }
    }
    took
}

fn bytes_in(directory: &Path) -> u64 {
    let files = std::fs::read_dir(directory).unwrap();
    files.map(|file| file.unwrap().metadata().unwrap().len()).sum()
}

/// Refusals so far, all codes together.
fn refusals(world: &World) -> u64 {
    let url = format!("http://{}/metrics", world.config.metrics);
    let (_, page) = try_http("GET", &url, "").unwrap();
    let lines = page
        .lines()
        .filter(|line| line.starts_with("gatepost_refusals_total"));
    let counts = lines.map(|line| line.rsplit(' ').next().unwrap().parse::<f64>().unwrap());
    counts.map(|count| count as u64).sum()
}

fn print_ratio(what: &str, quiet: Duration, flooded: Duration) {
    let ratio = flooded.as_secs_f64() / quiet.as_secs_f64().max(1e-9);
    eprintln!("{what} honest commit: {quiet:?} in quiet, {flooded:?} in the flood, ratio {ratio:.1}");
}

/// An identity without any right, and tokens of several kinds that are none.
fn bad_tokens(world: &World) -> Vec<(Caller, &'static str)> {
    let caller = |token: String| Caller {
        user: "orders_writer",
        token,
    };
    let good = world.consumer().token;
    let unsigned = good.rsplit_once('.').unwrap().0.to_owned() + ".";
    vec![
        (caller("not a token".to_owned()), "the password is not a token"),
        (caller("x".repeat(4_000)), "the password is not a token"),
        (caller(String::new()), "no token was sent"),
        (caller(unsigned), "token signature cannot be verified"),
        (
            caller(world.provider.token(Shape::Entra, "late")),
            "token expired",
        ),
        (
            caller(world.provider.token(Shape::Entra, "misled")),
            "token was issued for another audience",
        ),
        (
            caller(world.provider.token(Shape::Stranger, "order-consumer")),
            "token issuer is not a configured identity provider",
        ),
        (
            caller(world.provider.token(Shape::Entra, "nobody")),
            "no rule permits this identity, database and role",
        ),
    ]
}

#[test]
fn strangers_fill_no_disk_and_delay_nobody() {
    let mut world = World::without_proxy(15);
    world.config.level = "info";
    world.serve();
    let strangers = strangers();
    let audit = world.path("audit");
    let (stop, commits) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
    let writer = {
        let (door, caller) = (world.door(), world.consumer());
        let (stop, commits) = (Arc::clone(&stop), Arc::clone(&commits));
        thread::spawn(move || runtime().block_on(commit(&door, &caller, &stop, &commits)))
    };
    let before = bytes_in(&audit);
    wait_for("quiet commits", || {
        (commits.load(Ordering::Relaxed) >= QUIET_COMMITS).then_some(())
    });
    let quiet = commits.load(Ordering::Relaxed);
    let (quiet_end, log_before) = (bytes_in(&audit), world.log().len());
    let each = (quiet_end - before) / quiet as u64;

    let flood = Arc::new(Flood {
        door: world.door(),
        tokens: bad_tokens(&world),
        next: AtomicUsize::new(0),
        told: AtomicUsize::new(0),
    });
    let half_open = world.runtime.block_on(half_open(world.config.postgres));
    let begun = Instant::now();
    for thread in start(&flood, strangers) {
        thread.join().unwrap();
    }
    let seconds = begun.elapsed().as_secs_f64();
    drop(half_open);
    stop.store(true, Ordering::Relaxed);
    let took = writer.join().unwrap();

    let told = flood.told.load(Ordering::Relaxed) as u64;
    assert!(told > strangers as u64 / 2, "{told}");
    // Half-open ones that ran into the time limit were refused without hearing of it.
    let refused = refusals(&world);
    assert!(
        refused >= told && refused <= told + HALF_OPEN as u64,
        "{refused} refused, {told} told"
    );
    let honest = took.len();
    world.stop_proxy();
    let grown = bytes_in(&audit) - quiet_end;
    let of_strangers = grown.saturating_sub((honest - quiet) as u64 * each);
    let logged = world.log().len() - log_before;
    eprintln!(
        "{strangers} strangers in {seconds:.1} s ({:.0} a second), {told} told why: journal +{of_strangers} bytes, log +{logged}",
        strangers as f64 / seconds
    );
    let bytes_max = strangers * BYTES_EACH_MAX;
    assert!(
        of_strangers < bytes_max as u64,
        "the journal grew by {of_strangers}"
    );
    assert!(logged < bytes_max, "the log grew by {logged}");
    assert_accounted_for(&world, refused);

    let (mut quiet_took, mut flood_took) = (took[..quiet].to_vec(), took[quiet..].to_vec());
    assert!(!flood_took.is_empty(), "no commit during the flood");
    quiet_took.sort();
    flood_took.sort();
    print_ratio("median", quiet_took[quiet / 2], flood_took[flood_took.len() / 2]);
    print_ratio("worst", quiet_took[quiet - 1], flood_took[flood_took.len() - 1]);
    let rows = world.sql("SELECT count(*) FROM orders WHERE customer = 'honest'");
    assert_eq!(rows, honest.to_string());
    world.verify_journal();
}

/// Asked for TLS, and nothing more but half a record.
async fn half_open(to: SocketAddr) -> Vec<TcpStream> {
    let mut open = Vec::new();
    for number in 0..HALF_OPEN {
        let mut stream = arrive(to, number).await;
        stream.write_all(b"\0\0\0\x08\x04\xd2\x16\x2f").await.unwrap();
        assert_eq!(stream.read_u8().await.unwrap(), b'S');
        stream.write_all(b"\x16\x03\x01\x02\0\x01").await.unwrap();
        open.push(stream);
    }
    open
}

/// One by one or summed, none twice and none left out.
fn assert_accounted_for(world: &World, refused: u64) {
    let records = world.records();
    let one_by_one = of_event(&records, "session.denied").len() as u64;
    let sums = of_event(&records, "session.denied_many");
    let summed: u64 = sums
        .iter()
        .map(|sum| sum["detail"]["count"].as_u64().unwrap())
        .sum();
    assert_eq!(one_by_one + summed, refused, "{one_by_one} one by one");
    // From every address, of the identity that proved who it is, and from nobody who can be told apart.
    let of = |address: &str| sums.iter().any(|sum| sum["detail"]["address"] == address);
    assert!((2..2 + ADDRESSES).all(|last| of(&format!("127.0.0.{last}"))));
    assert!(
        sums.iter().any(|sum| sum["identity"]["provider"] == "entra"),
        "{sums:#?}"
    );
}
