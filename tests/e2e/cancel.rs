//! Cancelling: it reaches the one statement that it is meant for, whatever that waits for, and
//! nothing else, however late it comes and whoever sends it.

use std::io::Write as _;
use std::net::{IpAddr, SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use gatepost::wire::pg::startup::{put_cancel_request, put_ssl_request};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, ServerName};

use crate::harness::journal::of_event;
use crate::harness::metrics::Page;
use crate::harness::plain::{Cancelling, Plain, Said};
use crate::harness::wait_for;
use crate::harness::world::World;

/// Every other of them cancels itself, in every round; the others must never hear of it.
const CLIENTS: usize = 20;
const ROUNDS: usize = 60;

/// How long the statement runs that is cancelled, in milliseconds: about as long as a cancel takes.
const STATEMENTS: [usize; 5] = [0, 1, 2, 3, 20];

/// One round of a client that cancels itself. Whatever became of the statement, the next one is not
/// touched.
fn race(client: &mut Plain, address: SocketAddr, me: usize, round: usize) {
    let (process, key) = client.cancel_key();
    let milliseconds = STATEMENTS[round % STATEMENTS.len()];
    let statement = format!("SELECT {me} FROM pg_sleep(0.0{milliseconds:02})");
    let in_block = !round.is_multiple_of(3);
    if in_block {
        client.query("BEGIN").well();
    }
    let mut cancel = Cancelling::prepare(address);
    client.ask(&statement);
    // At the beginning, about the end, or behind it.
    let late = round % 4 == 3;
    if !late {
        thread::sleep(Duration::from_micros((round * 37 % 40 * 100) as u64));
        cancel.send(process, &key);
    }
    let answer = client.answer();
    if late {
        cancel.send(process, &key);
    }
    cancel.wait();
    let cancelled = answer.is_cancelled();
    if !cancelled {
        assert_eq!(answer.well().rows, [me.to_string()], "{statement}");
        // Long enough to be hit by what is under way; in the block that the client believes in.
        let next = client.query(&format!("SELECT {me} FROM pg_sleep(0.01)"));
        assert_eq!(next.well().rows, [me.to_string()], "behind {statement}");
    }
    if in_block {
        let end = if cancelled { "ROLLBACK" } else { "COMMIT" };
        assert_eq!(client.query(end).well().tags, [end], "after {statement}");
    }
    let next = client.query(&format!("SELECT {me} FROM pg_sleep(0.001)"));
    assert_eq!(next.well().rows, [me.to_string()], "after {statement}");
}

#[test]
fn a_cancel_never_hits_another_client_or_a_later_statement() {
    let mut world = World::with_plain_door();
    world.config.max_connections = 40;
    world.config.threads = 1;
    world.serve();
    let (address, consumer) = (world.config.postgres, world.consumer());
    let racing = Arc::new(AtomicUsize::new(CLIENTS / 2));
    let bystander = {
        let racing = Arc::clone(&racing);
        move |mut client: Plain, me: usize| {
            while racing.load(Ordering::SeqCst) > 0 {
                let rows = client
                    .query(&format!("SELECT {me} FROM pg_sleep(0.005)"))
                    .well()
                    .rows;
                assert_eq!(rows, [me.to_string()]);
            }
        }
    };
    let racer = move |mut client: Plain, me: usize| {
        for round in 0..ROUNDS {
            race(&mut client, address, me, round);
        }
    };
    let clients: Vec<_> = (0..CLIENTS)
        .map(|me| {
            let client = Plain::knock(address, &consumer, 0).welcomed();
            let (bystander, racing) = (bystander.clone(), Arc::clone(&racing));
            thread::spawn(move || {
                if me.is_multiple_of(2) {
                    let _over = Over(racing);
                    racer(client, me);
                } else {
                    bystander(client, me);
                }
            })
        })
        .collect();
    let ended: Vec<_> = clients.into_iter().map(|client| client.join()).collect();
    assert!(ended.iter().all(Result::is_ok), "a client was hit");
    world.settled();
    world.verify_journal();
}

/// Counts a racer down when it ends, however it ends.
struct Over(Arc<AtomicUsize>);

impl Drop for Over {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

/// Over TLS, as libpq does it since 17.
fn cancel_in_tls(world: &World, process: i32, key: &[u8]) {
    let mut roots = rustls::RootCertStore::empty();
    for certificate in CertificateDer::pem_file_iter(world.path("certs/ca.crt")).unwrap() {
        roots.add(certificate.unwrap()).unwrap();
    }
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    let name = ServerName::try_from(world.config.postgres.ip().to_string()).unwrap();
    let session = rustls::ClientConnection::new(Arc::new(config), name).unwrap();
    let mut socket = TcpStream::connect(world.config.postgres).unwrap();
    let mut out = Vec::new();
    put_ssl_request(&mut out);
    socket.write_all(&out).unwrap();
    let mut answer = [0];
    std::io::Read::read_exact(&mut socket, &mut answer).unwrap();
    assert_eq!(&answer, b"S");
    let mut tls = rustls::StreamOwned::new(session, socket);
    out.clear();
    put_cancel_request(&mut out, process, key);
    tls.write_all(&out).unwrap();
    let mut nothing = Vec::new();
    std::io::Read::read_to_end(&mut tls, &mut nothing).unwrap();
    assert_eq!(nothing, b"");
}

#[test]
fn a_cancel_reaches_whatever_its_session_waits_for() {
    let mut world = World::with_plain_door();
    world.serve();
    let consumer = world.consumer();
    world
        .psql(&consumer, "INSERT INTO orders (customer) VALUES ('locked')")
        .well();
    let (mut holder, mut client) = (world.plain(&consumer), world.plain(&consumer));
    let (process, key) = client.cancel_key();
    holder.query("BEGIN").well();
    holder.query("UPDATE orders SET cents = 2").well();
    // Another's lock, in a block and outside of one; in clear and in TLS.
    client.ask("UPDATE orders SET cents = 3");
    world.until_running("UPDATE orders SET cents = 3", 1);
    world.cancel(process, &key);
    assert!(client.answer().is_cancelled());
    client.query("BEGIN").well();
    client.ask("UPDATE orders SET cents = 4");
    world.until_running("UPDATE orders SET cents = 4", 1);
    cancel_in_tls(&world, process, &key);
    assert!(client.answer().is_cancelled());
    assert_eq!(client.query("SELECT 1").errors, ["25P02"]);
    assert_eq!(client.query("ROLLBACK").well().tags, ["ROLLBACK"]);
    // Data that it reads, and data that it writes.
    client.ask("COPY (SELECT repeat('x', 1000) FROM generate_series(1, 100000000)) TO STDOUT");
    world.until_running("COPY (SELECT", 1);
    world.cancel(process, &key);
    assert!(client.answer().is_cancelled());
    client.ask("COPY orders (customer) FROM STDIN");
    loop {
        if let Said::CopyIn = client.next() {
            break;
        }
    }
    world.cancel(process, &key);
    // PostgreSQL looks for a cancel when there is data.
    let mut row = vec![b'd', 0, 0, 0, 8];
    row.extend_from_slice(b"row\n");
    wait_for("the end of the COPY", || {
        client.send(&row);
        client.has_news().then_some(())
    });
    client.send(b"c\0\0\0\x04");
    let answer = client.answer();
    assert!(answer.is_cancelled(), "{answer:?}");
    // Nothing of it is left, for this client and for the other.
    assert_eq!(client.query("SELECT 1").well().rows, ["1"]);
    assert_eq!(holder.query("COMMIT").well().tags, ["COMMIT"]);
    assert_eq!(world.sql("SELECT customer, cents FROM orders"), "locked|2");
    world.settled_after((holder, client));
}

#[test]
fn a_cancel_needs_no_connection_of_a_full_pool_and_who_leaves_the_line_is_gone() {
    let mut world = World::with_plain_door();
    world.config.max_connections = 1;
    world.config.queue_timeout = "60s";
    world.serve();
    let consumer = world.consumer();
    let mut running = world.plain(&consumer);
    running.ask("SELECT pg_sleep(100)");
    world.until_running("SELECT pg_sleep(100)", 1);
    let waiting = |count: u64| {
        wait_for(&format!("{count} in line"), || {
            let page = Page::of(&world);
            let labels = [("target", "orders"), ("for", "target")];
            (page.value("gatepost_pool_waiting", &labels) == Some(count as f64)).then_some(())
        });
    };
    let knock = || Plain::knock(world.config.postgres, &consumer, 0);
    let (first, second) = (knock(), knock());
    waiting(2);
    // One leaves without a word, and its place is free at once.
    drop(first);
    waiting(1);
    let (process, key) = running.cancel_key();
    world.cancel(process, &key);
    assert!(running.answer().is_cancelled());
    assert_eq!(running.query("SELECT 7").well().rows, ["7"]);
    waiting(1);
    drop(running);
    let mut second = second.welcomed();
    assert_eq!(second.query("SELECT 7").well().rows, ["7"]);
    drop(second);
    let records = world.settled();
    let closed = of_event(&records, "session.closed");
    assert_eq!(closed.len(), 3);
    assert!(
        closed.iter().all(|it| it["detail"]["why"] == "client_left"),
        "{closed:#?}"
    );
    assert_eq!(of_event(&records, "session.denied").len(), 0);
}

#[test]
fn wrong_keys_are_ignored_and_too_many_of_them_with_all_from_their_address() {
    let mut world = World::with_plain_door();
    world.serve();
    let consumer = world.consumer();
    let (mut victim, other) = (world.plain(&consumer), world.plain(&consumer));
    let mut long = Plain::knock(world.config.postgres, &consumer, 2).welcomed();
    assert_eq!((victim.key.len(), long.key.len()), (4, 32));
    victim.ask("SELECT pg_sleep(100)");
    long.ask("SELECT pg_sleep(100)");
    world.until_running("SELECT pg_sleep(100)", 2);
    let mut wrong = 0;
    let (process, key) = victim.cancel_key();
    let mut beside = key.clone();
    beside[3] ^= 1;
    let mut lengthened = key.clone();
    lengthened.push(0);
    for (process, key) in [
        // Another's key, all but right, too long, too short, and nobody's process.
        (process, other.key.clone()),
        (other.process, key.clone()),
        (process, beside),
        (process, lengthened),
        (process, long.key.clone()),
        (long.process, long.key[..31].to_vec()),
        (long.process, long.key[..4].to_vec()),
        (process ^ 1, key.clone()),
    ] {
        world.cancel(process, &key);
        wrong += 1;
    }
    let count = |result| {
        let page = Page::of(&world);
        page.value("gatepost_cancels_total", &[("result", result)])
            .unwrap()
    };
    assert_eq!((count("wrong_key"), count("passed_on")), (f64::from(wrong), 0.0));
    world.until_running("SELECT pg_sleep(100)", 2);
    // A right one gets through among the wrong ones …
    world.cancel(long.process, &long.key);
    assert!(long.answer().is_cancelled());
    // … until they are too many from one address; others are not concerned.
    for _ in wrong..25 {
        world.cancel(process, &[0; 4]);
    }
    assert!(count("ignored") > 0.0);
    let before = count("ignored");
    world.cancel(process, &key);
    assert_eq!(count("ignored"), before + 1.0);
    world.until_running("SELECT pg_sleep(100)", 1);
    world.cancel_from(IpAddr::from([127, 0, 0, 2]), process, &key);
    assert!(victim.answer().is_cancelled());
    assert_eq!(victim.query("SELECT 7").well().rows, ["7"]);
    world.settled_after((victim, other, long));
}
