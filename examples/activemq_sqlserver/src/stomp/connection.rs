//! A connection to the broker: subscriptions that hand out one message at a time, and answers that count
//! only when the broker has confirmed them.

use std::collections::VecDeque;
use std::error::Error;
use std::fmt;
use std::time::Duration;

use sqlserver_inbox::Failure;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, ReadHalf, WriteHalf};
use tokio::sync::mpsc;
use tokio::time::{Instant, timeout, timeout_at};

use super::dial::{Broker, Stream};
use super::frame::{Decoder, Frame};

/// How often we tell the broker that we live, and want to hear the same.
const HEARTBEAT: Duration = Duration::from_secs(10);
/// So many times the agreed silence, and the other side is taken for dead: clocks and nets are not exact.
const HEARTBEAT_GRACE: u32 = 2;
/// For a confirmation; a broker that syncs a slow disk takes its time.
const RECEIPT_WAIT: Duration = Duration::from_secs(30);
/// Frames that the writer has not yet taken.
const UNWRITTEN_MAX: usize = 4;
/// Messages that are handed over before the last one is answered. One, so that a worker that dies, or cannot
/// reach its database, holds no more than the message that it works on.
const PREFETCH: &str = "1";

/// The connection cannot be used any more; what was not answered is delivered again.
#[derive(Debug)]
pub(crate) struct Lost(pub(crate) String);

impl fmt::Display for Lost {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0)
    }
}

impl Error for Lost {}

fn lost(why: impl fmt::Display) -> Lost {
    Lost(why.to_string())
}

pub(crate) struct Connection {
    reader: ReadHalf<Box<dyn Stream>>,
    writer: mpsc::Sender<Vec<u8>>,
    decoder: Decoder,
    /// Messages that came while something else was awaited.
    waiting: VecDeque<Frame>,
    /// Longer than this the broker is never silent.
    silence_max: Option<Duration>,
    heard: Instant,
    receipts: u64,
    subscription: u64,
}

impl Connection {
    /// Fails with an I/O error or [`Lost`] where another try may help.
    pub(crate) async fn open(broker: &Broker) -> Result<Self, Failure> {
        let (reader, writer) = tokio::io::split(broker.dial().await?);
        let (frames, unwritten) = mpsc::channel(UNWRITTEN_MAX);
        let mut connection = Self {
            reader,
            writer: frames,
            decoder: Decoder::default(),
            waiting: VecDeque::new(),
            silence_max: None,
            heard: Instant::now(),
            receipts: 0,
            subscription: 0,
        };
        let every = HEARTBEAT.as_millis();
        let mut connect = Frame::new("CONNECT")
            .with("accept-version", "1.2")
            .with("host", broker.host()?)
            .with("heart-beat", &format!("{every},{every}"));
        if let Some((user, password)) = broker.login()? {
            connect = connect.with("login", user).with("passcode", &password);
        }
        // Twice as often as promised: ActiveMQ cuts off whoever is a moment late.
        tokio::spawn(write(writer, unwritten, HEARTBEAT / 2));
        connection.write(&connect).await?;
        let connected = match timeout(RECEIPT_WAIT, connection.read()).await {
            Ok(frame) => frame?,
            Err(_) => return Err(Box::new(lost("the broker did not answer CONNECT"))),
        };
        match &*connected.command {
            "CONNECTED" => {
                let theirs = connected.header("heart-beat").unwrap_or("0,0");
                connection.silence_max = silence_max(theirs);
                Ok(connection)
            }
            "ERROR" => Err(told(&connected).into()),
            other => Err(format!("the broker answered CONNECT with {other}").into()),
        }
    }

    /// Returns when the broker has stored it.
    pub(crate) async fn send(&mut self, queue: &str, correlation: &str, body: &[u8]) -> Result<(), Lost> {
        let frame = Frame::new("SEND")
            .with("destination", &destination(queue))
            .with("persistent", "true")
            .with("content-type", "application/json")
            .with("correlation-id", correlation)
            .with_body(body);
        self.confirmed(frame).await
    }

    /// From now on [`Self::next`] gives the queue's messages. Each is to be answered.
    pub(crate) async fn subscribe(&mut self, queue: &str) -> Result<(), Lost> {
        self.subscription += 1;
        let frame = Frame::new("SUBSCRIBE")
            .with("id", &self.subscription.to_string())
            .with("destination", &destination(queue))
            .with("ack", "client-individual")
            .with("activemq.prefetchSize", PREFETCH);
        self.confirmed(frame).await
    }

    /// Gives back what was not answered, to whoever reads the queue next.
    pub(crate) async fn unsubscribe(&mut self) -> Result<(), Lost> {
        let frame = Frame::new("UNSUBSCRIBE").with("id", &self.subscription.to_string());
        self.confirmed(frame).await?;
        self.waiting.clear();
        Ok(())
    }

    /// Waits for a message. May be dropped at any time; nothing is lost.
    pub(crate) async fn next(&mut self) -> Result<Frame, Lost> {
        loop {
            if let Some(message) = self.waiting.pop_front() {
                return Ok(message);
            }
            let frame = self.read().await?;
            self.take(frame)?;
        }
    }

    /// The message is done, and the broker knows when this returns.
    pub(crate) async fn ack(&mut self, message: &Frame) -> Result<(), Lost> {
        self.answer("ACK", message).await
    }

    /// The message will never be done. ActiveMQ moves it to the dead-letter queue.
    pub(crate) async fn nack(&mut self, message: &Frame) -> Result<(), Lost> {
        self.answer("NACK", message).await
    }

    /// What is in a queue, without taking it. ActiveMQ's own; it marks the end with a message.
    pub(crate) async fn browse(&mut self, queue: &str) -> Result<Vec<Frame>, Lost> {
        self.subscription += 1;
        let frame = Frame::new("SUBSCRIBE")
            .with("id", &self.subscription.to_string())
            .with("destination", &destination(queue))
            .with("browser", "true");
        self.confirmed(frame).await?;
        let mut messages = Vec::new();
        loop {
            let next = timeout(RECEIPT_WAIT, self.next()).await;
            let message = next.map_err(|_| lost("the broker did not end its list"))??;
            if message.header("browser") == Some("end") {
                self.unsubscribe().await?;
                return Ok(messages);
            }
            messages.push(message);
        }
    }

    /// Says good-bye, so that the broker does not look for us.
    pub(crate) async fn close(mut self) -> Result<(), Lost> {
        self.confirmed(Frame::new("DISCONNECT")).await
    }

    async fn answer(&mut self, command: &str, message: &Frame) -> Result<(), Lost> {
        let id = message
            .header("ack")
            .ok_or_else(|| lost("a message that cannot be answered"))?;
        self.confirmed(Frame::new(command).with("id", id)).await
    }

    /// Sends a frame and waits until the broker has done what it says.
    async fn confirmed(&mut self, frame: Frame) -> Result<(), Lost> {
        self.receipts += 1;
        let receipt = self.receipts.to_string();
        self.write(&frame.with("receipt", &receipt)).await?;
        let until = Instant::now() + RECEIPT_WAIT;
        loop {
            let read = timeout_at(until, self.read()).await;
            let frame = read.map_err(|_| lost("the broker did not confirm"))??;
            if frame.command == "RECEIPT" && frame.header("receipt-id") == Some(&receipt) {
                return Ok(());
            }
            self.take(frame)?;
        }
    }

    fn take(&mut self, frame: Frame) -> Result<(), Lost> {
        match &*frame.command {
            "MESSAGE" => {
                // One of a subscription that ended is the broker's again.
                if frame.header("subscription") == Some(&self.subscription.to_string()) {
                    self.waiting.push_back(frame);
                }
                Ok(())
            }
            "ERROR" => Err(Lost(told(&frame))),
            _ => Ok(()),
        }
    }

    async fn write(&mut self, frame: &Frame) -> Result<(), Lost> {
        let handed = self.writer.send(frame.encode()).await;
        handed.map_err(|_| lost("the connection to the broker is closed"))
    }

    async fn read(&mut self) -> Result<Frame, Lost> {
        let mut bytes = [0; 8192];
        loop {
            if let Some(frame) = self.decoder.next().map_err(lost)? {
                return Ok(frame);
            }
            let reading = self.reader.read(&mut bytes);
            let read = match self.silence_max {
                Some(longest) => timeout_at(self.heard + longest, reading)
                    .await
                    .map_err(|_| lost("the broker is silent"))?,
                None => reading.await,
            };
            let length = read.map_err(lost)?;
            if length == 0 {
                return Err(lost("the broker closed the connection"));
            }
            self.heard = Instant::now();
            self.decoder
                .push(bytes.get(..length).unwrap_or_default())
                .map_err(lost)?;
        }
    }
}

/// Frames as they come, and a line end when none came for a while. Ends when the connection breaks, which
/// whoever has a frame to write then notices, or when it is not needed any more.
async fn write(mut stream: WriteHalf<Box<dyn Stream>>, mut frames: mpsc::Receiver<Vec<u8>>, beat: Duration) {
    loop {
        let bytes = match timeout(beat, frames.recv()).await {
            Ok(Some(bytes)) => bytes,
            Ok(None) => break,
            Err(_) => b"\n".to_vec(),
        };
        if stream.write_all(&bytes).await.is_err() || stream.flush().await.is_err() {
            return;
        }
    }
    // Whoever reads there sees the end.
    let _ = stream.shutdown().await;
}

/// From the broker's `heart-beat` header: what it can send, in milliseconds, and what it wants.
fn silence_max(theirs: &str) -> Option<Duration> {
    let sends = theirs.split(',').next()?.trim().parse::<u32>().ok()?;
    let sends = Duration::from_millis(sends.into());
    (!sends.is_zero()).then(|| sends.max(HEARTBEAT) * HEARTBEAT_GRACE)
}

fn destination(queue: &str) -> String {
    format!("/queue/{queue}")
}

/// The first line of what an ERROR frame says; below it brokers put stack traces.
fn told(error: &Frame) -> String {
    let body = String::from_utf8_lossy(&error.body);
    let line = body.lines().next().unwrap_or_default().trim();
    let message = error.header("message").unwrap_or("no reason");
    let line = if line.is_empty() { message } else { line };
    format!("the broker said: {line}")
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::silence_max;

    #[test]
    fn the_slower_side_sets_the_beat() {
        let seconds = |seconds| Some(Duration::from_secs(seconds));
        assert_eq!(silence_max("10000,10000"), seconds(20));
        assert_eq!(silence_max("30000,0"), seconds(60));
        assert_eq!(silence_max("5,5"), seconds(20));
        for never in ["0,10000", "0,0", "", "x,y"] {
            assert_eq!(silence_max(never), None, "{never}");
        }
    }
}
