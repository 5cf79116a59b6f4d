//! Whoever waits for a message to be applied: told by the database itself, when the transaction commits.

#![expect(clippy::print_stdout, reason = "an example shows its progress")]

use std::future::poll_fn;

use tokio::net::TcpStream;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc;
use tokio_postgres::tls::MakeTlsConnect;
use tokio_postgres::{AsyncMessage, Client};

use crate::parts::{Access, Failure};
use crate::trouble::patiently;

/// The worker notifies this channel in the transaction that applies messages.
pub(crate) const CHANNEL: &str = "orders_applied";
const APPLICATION: &str = "order-listener";
/// Ours to choose: the server holds back what is not read yet.
const BACKLOG: usize = 100;

/// Prints `confirmed: ` and the payload (transaction id, number of messages) of each notification, until it is
/// told to end. What is notified while there is no connection is lost: a notification is news, and the
/// journal is the record.
pub(crate) async fn listen(access: &Access) -> Result<(), Failure> {
    let mut end = signal(SignalKind::terminate())?;
    loop {
        let (client, mut heard) = tokio::select! {
            opened = patiently(|| open(access)) => opened?,
            _ = end.recv() => return Ok(()),
        };
        client.batch_execute(&format!("LISTEN {CHANNEL}")).await?;
        println!("listening");
        loop {
            tokio::select! {
                biased;
                payload = heard.recv() => match payload {
                    Some(payload) => println!("confirmed: {payload}"),
                    None => break,
                },
                _ = end.recv() => return Ok(()),
            }
        }
        println!("the connection is lost; connecting again");
    }
}

/// The receiver ends with the connection.
async fn open(access: &Access) -> Result<(Client, mpsc::Receiver<String>), Failure> {
    let config = access.config("auto", APPLICATION).await?;
    let stream = TcpStream::connect((access.host.as_str(), access.port)).await?;
    let tls = MakeTlsConnect::<TcpStream>::make_tls_connect(&mut access.tls()?, &access.host)?;
    let (client, mut connection) = config.connect_raw(stream, tls).await?;
    let (tell, heard) = mpsc::channel(BACKLOG);
    tokio::spawn(async move {
        while let Some(Ok(message)) = poll_fn(|context| connection.poll_message(context)).await {
            if let AsyncMessage::Notification(notification) = message
                && notification.channel() == CHANNEL
                && tell.send(notification.payload().to_owned()).await.is_err()
            {
                return;
            }
        }
    });
    Ok((client, heard))
}
