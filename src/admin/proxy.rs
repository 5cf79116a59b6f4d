//! What the doors ask of the running proxy. The composition implements it; tests have their own.
//!
//! Acts take their permit by value, and the doors hand one over only when the act is on record.

use std::fmt;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use crate::admin::ticket::{TicketRefused, TicketView, TicketWish, Wishing};
use crate::admin::view::{LoginsView, NewRevocation, PolicyView, PoolView, Reloaded, RevocationView};
use crate::audit::{AdminCall, Facts, JournalError};
use crate::credential::Rotated;
use crate::domain::{Identity, Mistake, ProviderName, Secret, TargetName};
use crate::identity::TokenError;
use crate::policy::{AdminPermit, AdminRights};
use crate::session::roster::SessionView;
use crate::tls::ServerTls;

/// An answer that takes its time.
pub type Waiting<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// Why something that was permitted was not done. The texts are read by operators.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Trouble {
    /// Nothing of that name: "session s-… is not open".
    #[error("{0}")]
    NotFound(String),
    /// What was asked for cannot be meant: "there is no identity provider x".
    #[error("{0}")]
    Unusable(String),
    /// Not now: a database or a provider does not answer.
    #[error("{0}")]
    Unavailable(String),
    /// What lies on the disk has mistakes; what was in force stays in force.
    #[error("{} mistake(s) in the configuration or the policies", .0.len())]
    Mistakes(Vec<Mistake>),
}

/// The running proxy, as its operators see it.
pub trait Proxy: fmt::Debug + Send + Sync {
    /// The certificate of the API, looked up for every connection so that a new one is picked up.
    fn tls(&self) -> Option<Arc<ServerTls>>;

    /// Whose access token is it? By the verifier that is in force now.
    fn verify<'a>(&'a self, token: &'a Secret<Vec<u8>>) -> Waiting<'a, Result<Arc<Identity>, TokenError>>;

    /// Counts one wish for a ticket. `Err`: there were so many that this one has to wait so long.
    fn admit_wish(&self, who: Wishing<'_>) -> Result<(), Duration>;

    /// A ticket for whoever the policy in force now grants anything where it is wanted. It is on record
    /// before it is handed out.
    fn issue_ticket(&self, wish: TicketWish) -> Waiting<'_, Result<TicketView, TicketRefused>>;

    /// That no ticket was given goes to the journal as [`note`](Self::note) does.
    fn note_no_ticket(&self, facts: Facts, code: &'static str, reason: String);

    /// What the policy in force now allows. Nothing to whom a revocation strikes.
    fn rights(&self, identity: &Identity) -> AdminRights;

    /// A call that ends before anything is done goes to the journal; nobody waits for the disk, and
    /// refusals of strangers are summed up there.
    fn note(&self, facts: Facts, call: AdminCall);

    /// Waits until the call is as durable as the journal's setting says.
    fn record(&self, facts: Facts, call: AdminCall) -> Waiting<'_, Result<(), JournalError>>;

    /// All sessions, in any order.
    fn sessions(&self, permit: AdminPermit) -> Vec<SessionView>;

    /// Ends a session at its next boundary. False: no such session is open.
    fn kill(&self, permit: AdminPermit, reference: &str) -> bool;

    fn pools(&self, permit: AdminPermit) -> Vec<PoolView>;

    fn logins(&self, permit: AdminPermit) -> Waiting<'_, LoginsView>;

    /// Replaces every minted login of one target, or of all, by its next generation.
    fn rotate_logins(
        &self,
        permit: AdminPermit,
        target: Option<TargetName>,
    ) -> Waiting<'_, Result<Vec<Rotated>, Trouble>>;

    fn policy(&self, permit: AdminPermit) -> PolicyView;

    fn reload(&self, permit: AdminPermit) -> Waiting<'_, Result<Reloaded, Trouble>>;

    /// Fetches a provider's keys now.
    fn refresh_keys(&self, permit: AdminPermit, provider: ProviderName) -> Waiting<'_, Result<(), Trouble>>;

    /// Those in force.
    fn revocations(&self, permit: AdminPermit) -> Vec<RevocationView>;

    /// Comes back when the revocation is in force and survives a restart.
    fn revoke(
        &self,
        permit: AdminPermit,
        revocation: NewRevocation,
    ) -> Waiting<'_, Result<RevocationView, Trouble>>;

    /// Takes a revocation back, by its [id](crate::domain::Revocation::id).
    fn lift(&self, permit: AdminPermit, id: String) -> Waiting<'_, Result<(), Trouble>>;
}
