//! The last words to a client, and the patience that it gets to read them.

use std::io;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::timeout;

use crate::session::relay::Outbound;
use crate::tls::Stream;

/// A client that is told why gets this long to read it.
pub(super) const FAREWELL_TIME_MAX: Duration = Duration::from_secs(2);

/// Gives a client what it was still to get and tells it why it ends, for as long as it reads.
pub(super) async fn take_leave(mut client: Stream, mut outbound: Outbound, text: &[u8]) {
    let written = timeout(FAREWELL_TIME_MAX, outbound.write_to(&mut client)).await;
    if matches!(written, Ok(Ok(()))) {
        farewell(&mut client, text).await;
    }
}

/// Tells a client why its connection ends, and closes it. Errors no longer matter.
pub(super) async fn farewell(stream: &mut Stream, text: &[u8]) {
    let told = async {
        stream.write_all(text).await?;
        stream.flush().await?;
        stream.shutdown().await?;
        // Read until the client closes: closing with unread bytes would reset the connection, and
        // the client would never see the text.
        let mut rest = [0; 1024];
        while stream.read(&mut rest).await? > 0 {}
        io::Result::Ok(())
    };
    let _ = timeout(FAREWELL_TIME_MAX, told).await;
}
