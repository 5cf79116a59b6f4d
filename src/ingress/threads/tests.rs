//! The doors end to end on loopback: accept, hand over, serve on the right thread, drain, stop.

use std::cell::Cell;
use std::net::SocketAddr;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::*;
use crate::ingress::acceptor::Acceptor;
use crate::ingress::limits::Limits;

/// Answers one byte with the thread's index and how many clients its world has served.
struct Echo {
    index: u8,
    served: Cell<u8>,
}

impl World for Echo {
    async fn serve(self: Rc<Self>, mut client: Client) {
        self.served.set(self.served.get() + 1);
        let answer = [self.index, self.served.get()];
        let mut byte = [0; 1];
        while client.stream.read_exact(&mut byte).await.is_ok() {
            assert_ne!(byte, *b"!", "a client that makes its session panic");
            client.stream.write_all(&answer).await.unwrap();
        }
    }
}

struct House {
    address: SocketAddr,
    drain: Drain,
    limits: Limits,
    threads: Threads,
    accepting: tokio::task::JoinHandle<()>,
}

fn open(limits: Limits) -> House {
    let drain = Drain::new();
    let factory = |ThreadIndex(index)| {
        // Not `Send`, as pools are not.
        let served = Cell::new(0);
        Ok(Echo {
            index: u8::try_from(index).unwrap(),
            served,
        })
    };
    let threads = Threads::start(2, &drain, factory).unwrap();
    let loopback = SocketAddr::from(([127, 0, 0, 1], 0));
    let acceptor = Acceptor::bind(ListenerId(7), loopback, limits.clone()).unwrap();
    let address = acceptor.address().unwrap();
    let accepting = tokio::spawn(acceptor.run(threads.dispatcher(), drain.signal()));
    House {
        address,
        drain,
        limits,
        threads,
        accepting,
    }
}

async fn ask(stream: &mut TcpStream, byte: u8) -> Option<[u8; 2]> {
    stream.write_all(&[byte]).await.ok()?;
    let mut answer = [0; 2];
    stream.read_exact(&mut answer).await.ok()?;
    Some(answer)
}

#[tokio::test]
async fn clients_are_spread_and_each_stays_on_its_thread() {
    let house = open(Limits::default());
    let mut clients = Vec::new();
    let mut counts = [0; 2];
    for _ in 0..6 {
        let mut client = TcpStream::connect(house.address).await.unwrap();
        let [index, _] = ask(&mut client, b'?').await.unwrap();
        counts[usize::from(index)] += 1;
        clients.push((client, index));
    }
    assert_eq!(counts, [3, 3]);
    for (client, index) in &mut clients {
        assert_eq!(ask(client, b'?').await.unwrap()[0], *index);
    }
    assert_eq!(house.threads.sessions(), [3, 3]);
    // A session that panics is gone alone.
    let (first, _) = &mut clients[0];
    assert_eq!(ask(first, b'!').await, None);
    let (second, _) = &mut clients[1];
    assert!(ask(second, b'?').await.is_some());
}

#[tokio::test]
async fn a_drain_closes_the_door_waits_and_then_stop_ends_the_rest() {
    let house = open(Limits::default());
    let mut client = TcpStream::connect(house.address).await.unwrap();
    ask(&mut client, b'?').await.unwrap();
    house.drain.begin();
    house.accepting.await.unwrap();
    assert!(TcpStream::connect(house.address).await.is_err());
    assert!(ask(&mut client, b'?').await.is_some(), "the session goes on");
    assert_eq!(house.drain.finished(Duration::ZERO).await, Err(1));
    let threads = house.threads;
    tokio::task::spawn_blocking(|| threads.stop()).await.unwrap();
    assert_eq!(ask(&mut client, b'?').await, None);
    assert_eq!(house.drain.finished(Duration::ZERO).await, Ok(()));
    assert_eq!(house.limits.connections(), 0);
}

#[tokio::test]
async fn who_is_over_the_limit_is_closed_at_once() {
    let house = open(Limits::new(1, 9));
    let mut first = TcpStream::connect(house.address).await.unwrap();
    ask(&mut first, b'?').await.unwrap();
    let mut second = TcpStream::connect(house.address).await.unwrap();
    assert_eq!(ask(&mut second, b'?').await, None);
    assert_eq!(house.limits.turned_away(), 1);
}

#[test]
fn a_world_that_cannot_be_built_fails_the_start() {
    let factory = |ThreadIndex(index)| match index {
        0 => Ok(Echo {
            index: 0,
            served: Cell::new(0),
        }),
        _ => Err(io::Error::other("no")),
    };
    let started = Threads::start(2, &Drain::new(), factory);
    assert_eq!(started.unwrap_err().to_string(), "no");
}
