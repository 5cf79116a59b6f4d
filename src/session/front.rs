//! How a protocol speaks to its client. The story in `mod.rs` is written once against this trait;
//! protocols differ only in wording.

use std::io;

use bytes::BytesMut;

use crate::credential::CatalogueWatch;
use crate::domain::correlation::Correlation;
use crate::domain::refusal::{Reason, Refusal, RefusalCode};
use crate::domain::secret::Secret;
use crate::domain::target::Engine;
use crate::session::dialogue::Dialogue;
use crate::session::ledger::Ledger;
use crate::session::prelude::{Prelude, PreludeError};
use crate::session::registry::CancelDesk;
use crate::tls::Stream;
use crate::upstream::checkout::Checkout;

/// What a client presented, before anything of it is verified.
#[derive(Debug)]
pub(super) struct Presented {
    /// The raw token; empty when the client sent none.
    pub(super) token: Secret<Vec<u8>>,
    /// The user asked for: a role, `auto`, or a name of the identity.
    pub(super) wanted: String,
    /// The database, alias, or `target/database`.
    pub(super) database: String,
    pub(super) application: Option<String>,
    /// Settings for the server that a reset does not undo.
    pub(super) settings: Vec<(String, String)>,
    pub(super) correlation: Option<Correlation>,
    /// Bytes of the cancel key that the client has room for.
    pub(super) cancel_key_bytes: usize,
}

/// How the opening of a connection ended, if not with a token.
#[derive(Debug)]
pub(super) enum Opening {
    Presented(Presented),
    /// A connection that only asked for a cancel; there is no reply to it.
    Cancel {
        process: i32,
        key: Vec<u8>,
    },
    /// The client went away, or never spoke.
    Gone,
    /// The client is to be told why.
    Refused(RefusalCode, Reason),
}

/// Proof that policy, journal, broker and pool all said yes. Made only in `Gate::open`, consumed by
/// the one welcome that it permits.
#[derive(Debug)]
pub(super) struct WelcomePermit(pub(super) ());

/// One protocol's client side, up to the relay.
pub(super) trait Front: Sized {
    /// What speaks this protocol: a listener leads only to targets of its engine.
    const ENGINE: Engine;

    type Dialogue: Dialogue;

    /// Speaks with the client until it has presented a token.
    async fn open(&mut self) -> Opening;

    /// Ready when the client leaves before its welcome; never otherwise. Cancel-safe.
    async fn gone(&mut self);

    /// Sets on the upstream connection what this session has of its own, and asks whether its login is
    /// still as it was minted.
    async fn prepare(checkout: &mut Checkout, prelude: &Prelude<'_>) -> Result<(), PreludeError>;

    /// Tells the client that it is in, with what the real server reports about itself.
    async fn welcome(
        &mut self,
        permit: WelcomePermit,
        application: Option<&str>,
        upstream: &Checkout,
        desk: &CancelDesk,
    ) -> io::Result<()>;

    /// What judges the two sides from the welcome on. `nonce` cannot be guessed by the client; by the `catalogue`
    /// statements are proven harmless.
    fn dialogue(
        &self,
        ledger: Ledger,
        upstream: &Checkout,
        prelude: &Prelude<'_>,
        nonce: u64,
        catalogue: Option<CatalogueWatch>,
    ) -> Self::Dialogue;

    /// The stream and what was read behind the login, for the relay.
    fn into_parts(self) -> Option<(Stream, BytesMut)>;

    /// Tells the client why it is not, and closes.
    async fn refuse(self, refusal: Refusal);

    /// Closes without a word.
    async fn close(self);
}
