//! What the SQL Server examples share: a session that is opened with a token, and one message applied in
//! one transaction that carries the message's correlation id. Nothing here knows gatepost; any program
//! that speaks OIDC and TDS does the same.
//!
//! Every message is noted in an inbox table in the transaction that applies it. So one that was applied
//! just before a connection broke, or that a broker delivers again, is not applied twice.

mod change;
mod inbox;
mod script;
mod server;
mod trouble;

use std::error::Error;

pub use change::{Change, Delivery, Domain, Envelope, Malformed};
pub use inbox::{Fate, Inbox};
pub use script::{rows, run_script};
pub use server::Server;
pub use trouble::Trouble;

/// What ends a program.
pub type Failure = Box<dyn Error + Send + Sync>;

/// aws-lc-rs for every TLS connection of this process, the broker's too. To be called before the first.
pub fn choose_cryptography() {
    // Refused only when it was chosen already, which is as good.
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
}
