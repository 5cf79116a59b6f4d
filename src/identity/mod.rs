//! Tokens: provider discovery and keys, signature and claims, one `Identity` out.

pub mod claims;
mod error;
mod fetch;
mod keys;
mod provider;
mod token;
mod verifier;

#[cfg(test)]
mod attacks;
#[cfg(test)]
mod tests;

pub use claims::ClaimsError;
pub use error::TokenError;
pub use verifier::Verifier;

use crate::domain::ProviderName;

/// Whose habits the claims follow.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ProviderKind {
    Entra,
    Okta,
    Oidc,
}

#[derive(Clone, Debug)]
pub struct ProviderSettings {
    pub name: ProviderName,
    pub kind: ProviderKind,
    /// Compared byte for byte with the discovery document's `issuer` and the token's `iss`.
    pub issuer: String,
    pub audiences: Vec<String>,
}
