//! A provider's keys. The key says which algorithms it is for; the token only picks one of them.

use std::sync::Arc;

use jsonwebtoken::crypto::aws_lc::DEFAULT_PROVIDER;
use jsonwebtoken::{Algorithm, DecodingKey};
use openidconnect::core::{CoreJsonWebKey, CoreJsonWebKeySet};
use serde_json::Value;

use crate::domain::ProviderName;
use crate::identity::TokenError;
use crate::identity::token::Token;

/// Providers publish a handful; more would make a token without a good key id expensive.
const KEYS_MAX: usize = 100;

#[derive(Clone, Debug, Default)]
pub(super) struct KeySet {
    keys: Arc<[Key]>,
}

#[derive(Debug)]
struct Key {
    id: Option<String>,
    algorithms: Vec<(&'static str, Algorithm)>,
    key: DecodingKey,
}

impl KeySet {
    /// Keys that we cannot use (another purpose, kind or curve) are left out: one exotic key must
    /// not spoil the set.
    pub(super) fn from_jwks(set: &CoreJsonWebKeySet) -> Self {
        let keys = set.keys().iter().take(KEYS_MAX).filter_map(Key::from_jwk);
        Self { keys: keys.collect() }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.keys.is_empty()
    }

    /// Is there a key to check this token with? If not, fresher keys may help.
    pub(super) fn knows(&self, token: &Token) -> bool {
        self.find(token).is_some()
    }

    pub(super) fn check(&self, token: &Token, provider: &ProviderName) -> Result<(), TokenError> {
        let key = self.find(token).ok_or(TokenError::Key {
            what: "no such key id",
        })?;
        let algorithm = key
            .algorithms
            .iter()
            .find(|(name, _)| *name == token.algorithm())
            .ok_or(TokenError::Key {
                what: "the key is not for this algorithm",
            })?;
        let refused = || TokenError::Signature {
            provider: provider.clone(),
        };
        let verifier = (DEFAULT_PROVIDER.verifier_factory)(&algorithm.1, &key.key).map_err(|_| refused())?;
        let signature = token.signature().to_vec();
        verifier.verify(token.signed(), &signature).map_err(|_| refused())
    }

    /// By id; without one only if the set leaves no choice. Ids may repeat across key types.
    fn find(&self, token: &Token) -> Option<&Key> {
        let Some(id) = token.key_id() else {
            return match self.keys.as_ref() {
                [only] => Some(only),
                _ => None,
            };
        };
        let mut named = self.keys.iter().filter(|key| key.id.as_deref() == Some(id));
        let first = named.next()?;
        let fits = |key: &&Key| key.algorithms.iter().any(|(name, _)| *name == token.algorithm());
        Some(std::iter::once(first).chain(named).find(fits).unwrap_or(first))
    }
}

impl Key {
    fn from_jwk(jwk: &CoreJsonWebKey) -> Option<Self> {
        // The fields of openidconnect's type are private; its JSON is not.
        let jwk = serde_json::to_value(jwk).ok()?;
        let field = |name: &str| jwk.get(name).and_then(Value::as_str);
        if field("use").is_some_and(|purpose| purpose != "sig") {
            return None;
        }
        let (key, mut algorithms) = match (field("kty")?, field("crv")) {
            ("RSA", _) => (
                DecodingKey::from_rsa_components(field("n")?, field("e")?).ok()?,
                vec![
                    ("RS256", Algorithm::RS256),
                    ("RS384", Algorithm::RS384),
                    ("RS512", Algorithm::RS512),
                    ("PS256", Algorithm::PS256),
                    ("PS384", Algorithm::PS384),
                    ("PS512", Algorithm::PS512),
                ],
            ),
            ("EC", Some("P-256")) => (
                DecodingKey::from_ec_components(field("x")?, field("y")?).ok()?,
                vec![("ES256", Algorithm::ES256)],
            ),
            ("EC", Some("P-384")) => (
                DecodingKey::from_ec_components(field("x")?, field("y")?).ok()?,
                vec![("ES384", Algorithm::ES384)],
            ),
            ("OKP", Some("Ed25519")) => (
                DecodingKey::from_ed_components(field("x")?).ok()?,
                vec![("EdDSA", Algorithm::EdDSA)],
            ),
            _ => return None,
        };
        if let Some(only) = field("alg") {
            algorithms.retain(|(name, _)| *name == only);
        }
        if algorithms.is_empty() {
            return None;
        }
        Some(Self {
            id: field("kid").map(str::to_owned),
            algorithms,
            key,
        })
    }
}
