//! A provider's keys, and the search for the one that a token names.

use serde::Deserialize;
use serde_json::value::RawValue;

use crate::identity::issuer;
use crate::identity::json;
use crate::identity::jwk::{Fingerprint, Key, Unused};
use crate::identity::token::Token;
use crate::identity::{ProviderKind, ProviderSettings, TokenError};

/// Providers publish a handful; more would only make their set expensive to search.
const KEYS_MAX: usize = 100;
/// Entries that are looked at to find these.
const ENTRIES_MAX: usize = 1000;
/// Ids should be distinct (RFC 7517 §4.5). Where they are not, so many are tried: each costs a check.
const SAME_ID_MAX: usize = 4;

#[derive(Debug, Default)]
pub(super) struct KeySet {
    keys: Vec<Key>,
}

/// What became of the entries of a set.
#[derive(Debug)]
pub(super) struct Reading {
    pub(super) keys: KeySet,
    /// Entries with members of a private key: not used, and worth a warning.
    pub(super) private: usize,
    pub(super) unused: usize,
}

/// Why a token was not confirmed.
#[derive(Debug)]
pub(super) struct Unconfirmed {
    pub(super) error: TokenError,
    /// The set may be too old to have its key.
    pub(super) fresher_may_help: bool,
}

impl KeySet {
    /// Each entry is parsed by itself: one that cannot be used, however strange, spoils no other.
    pub(super) fn read(document: &[u8]) -> Result<Reading, serde_json::Error> {
        #[derive(Deserialize)]
        struct Document<'a> {
            #[serde(borrow)]
            keys: Vec<&'a RawValue>,
        }
        let document: Document<'_> = serde_json::from_slice(document)?;
        let mut reading = Reading {
            keys: Self::default(),
            private: 0,
            unused: document.keys.len().saturating_sub(ENTRIES_MAX),
        };
        for entry in document.keys.into_iter().take(ENTRIES_MAX) {
            let read =
                json::object(entry.get().as_bytes()).map_or(Err(Unused::NotForUs), |it| Key::read(&it));
            match read {
                Ok(key) if reading.keys.keys.len() < KEYS_MAX => reading.keys.keys.push(key),
                Err(Unused::Private) => reading.private += 1,
                Ok(_) | Err(Unused::NotForUs) => reading.unused += 1,
            }
        }
        Ok(reading)
    }

    pub(super) fn len(&self) -> usize {
        self.keys.len()
    }

    pub(super) fn has(&self, fingerprint: &Fingerprint) -> bool {
        self.keys.iter().any(|key| key.fingerprint == *fingerprint)
    }

    pub(super) fn is_same_as(&self, other: &Self) -> bool {
        self.len() == other.len() && self.keys.iter().all(|key| other.has(&key.fingerprint))
    }

    /// Checks the signature, and that the key found may sign for the token's issuer.
    pub(super) fn confirm(
        &self,
        token: &Token,
        settings: &ProviderSettings,
    ) -> Result<Fingerprint, Unconfirmed> {
        let refused = |what| Unconfirmed {
            error: TokenError::Key { what },
            fresher_may_help: false,
        };
        let named: Vec<&Key> = match (token.key_id(), self.keys.as_slice()) {
            (Some(id), keys) => keys.iter().filter(|key| key.id.as_deref() == Some(id)).collect(),
            (None, [only]) => vec![only],
            (None, _) => return Err(refused("it names no key, and there are several")),
        };
        if named.is_empty() {
            return Err(Unconfirmed {
                fresher_may_help: true,
                ..refused("no such key id")
            });
        }
        let algorithm = token.algorithm();
        let mut fitting = named.into_iter().filter(|key| key.is_for(algorithm)).peekable();
        if fitting.peek().is_none() {
            return Err(refused("the key is not for this algorithm"));
        }
        let key = fitting
            .take(SAME_ID_MAX)
            .find(|key| key.verifies(algorithm, token.signed(), token.signature()))
            .ok_or_else(|| Unconfirmed {
                error: TokenError::Signature {
                    provider: settings.name.clone(),
                },
                // The one key without a name may have been replaced by another.
                fresher_may_help: token.key_id().is_none(),
            })?;
        let foreign = |own: &String| {
            let signs = |issuer| issuer::key_signs_for(own, issuer, token.tenant());
            !token.issuer().is_ok_and(signs)
        };
        if settings.kind == ProviderKind::Entra && key.issuer.as_ref().is_some_and(foreign) {
            return Err(refused("the key signs for another issuer"));
        }
        Ok(key.fingerprint)
    }
}
