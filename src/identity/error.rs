//! Why a token was not believed, and what its sender may be told of it. Holds no part of the token.

use std::time::Duration;

use crate::domain::{ProviderName, Reason, RefusalCode, Refuse};
use crate::identity::claims::ClaimsError;

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TokenError {
    #[error("no token was sent")]
    Missing,
    #[error("not a token: {what}")]
    Malformed { what: &'static str },
    #[error("the token's signature algorithm or key id is not acceptable: {what}")]
    Key { what: &'static str },
    #[error("the token's signature is not valid for provider {provider}")]
    Signature { provider: ProviderName },
    #[error("the token's issuer is not configured")]
    UnknownIssuer,
    #[error("the token is for another audience than provider {provider} expects")]
    Audience { provider: ProviderName },
    #[error("the token expired {} s ago", ago.as_secs())]
    Expired { ago: Duration },
    #[error("the token is not valid yet")]
    NotYetValid,
    #[error("not an access token: {what}")]
    NotAccess { what: &'static str },
    #[error("the token's claims cannot be used")]
    Claims(#[from] ClaimsError),
    #[error("the keys of provider {provider} are not available")]
    Unavailable { provider: ProviderName },
}

/// Why keys were not fetched on demand. Said to operators only.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RefreshError {
    #[error("no identity provider \"{provider}\"")]
    Unknown { provider: ProviderName },
    #[error("the keys of {provider} were asked for less than a second ago")]
    TooSoon { provider: ProviderName },
    #[error("the keys of {provider} were not refreshed: {cause}")]
    Failed { provider: ProviderName, cause: String },
}

impl Refuse for TokenError {
    fn refusal(&self) -> (RefusalCode, Reason) {
        let reason = match self {
            Self::Missing => return (RefusalCode::TokenMissing, Reason::NoToken),
            Self::Malformed { .. } => Reason::TokenMalformed,
            Self::Key { .. } | Self::Signature { .. } => Reason::TokenSignature,
            Self::UnknownIssuer => Reason::TokenIssuerUnknown,
            Self::Audience { .. } => Reason::TokenAudience,
            Self::Expired { ago } => Reason::TokenExpired { ago: *ago },
            Self::NotYetValid => Reason::TokenNotYetValid,
            Self::NotAccess { .. } => Reason::TokenNotAccess,
            Self::Claims(_) => Reason::TokenClaims,
            Self::Unavailable { .. } => Reason::ProviderUnavailable,
        };
        (RefusalCode::TokenRejected, reason)
    }
}
