//! Tokens: provider discovery and keys, signature and claims, one `Identity` out. `managed` is about
//! gatepost's own identity: where it gets tokens for database servers.

mod attempts;
pub mod claims;
mod error;
mod fetch;
mod freshness;
mod issuer;
mod json;
mod jwk;
mod keys;
pub mod managed;
mod provider;
mod seen;
pub mod ticket;
mod token;
mod verifier;

#[cfg(test)]
mod attacks;
#[cfg(test)]
mod tests;

pub use claims::ClaimsError;
pub use error::{RefreshError, TokenError};
pub use issuer::speaks_for_many;
pub use provider::RefreshReport;
pub use ticket::{IssueError, IssuedTicket, NewTicket, ShownFrom, TicketError, Tickets};
pub use verifier::Verifier;

use crate::domain::ProviderName;
use crate::tls::HttpsTrust;

/// Whose habits the claims follow.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ProviderKind {
    Entra,
    Okta,
    Oidc,
}

/// Equal settings mean the same provider: its keys and verified tokens outlive a reload.
#[derive(Clone, Debug, PartialEq)]
pub struct ProviderSettings {
    pub name: ProviderName,
    pub kind: ProviderKind,
    /// Compared byte for byte with the discovery document's `issuer` and the token's `iss`; for one
    /// that [`speaks_for_many`], the tenant's id takes its place in both.
    pub issuer: String,
    /// Ids of the tenants that are believed, for such an issuer; empty for others.
    pub tenants: Vec<String>,
    pub audiences: Vec<String>,
    /// How the issuer's host proves itself.
    pub https: HttpsTrust,
}
