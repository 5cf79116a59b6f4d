//! Who signs when a journal is opened that another key may have signed last.

use std::path::Path;

use crate::audit::journal::{JournalError, NextKey, Shared};
use crate::audit::key::{PublicKey, SigningKey};
use crate::audit::rotation;
use crate::audit::segment::{self, End, open_error};

/// Who signs.
pub(super) struct Signers {
    pub(super) key: SigningKey,
    /// Who signed before, where that is another one and it is at hand.
    pub(super) previous: Option<SigningKey>,
}

/// Reads the end of the journal with every key that may have signed it.
pub(super) fn find_end(directory: &Path, signers: &Signers) -> Result<(End, Vec<PublicKey>), JournalError> {
    let known = rotation::keys_beside(directory).map_err(open_error(directory))?;
    let ours = [Some(&signers.key), signers.previous.as_ref()];
    let ours = ours.into_iter().flatten().map(SigningKey::public);
    let keys: Vec<_> = known.iter().chain(ours).cloned().collect();
    Ok((segment::find_end(directory, &keys)?, known))
}

/// Who signs first, and whose key is not at hand any more. Where the previous key is at hand, it begins,
/// and the new one takes over with the first group. `known` are the keys that were ever used.
pub(super) fn take_over(
    signers: Signers,
    last: Option<PublicKey>,
    known: &[PublicKey],
    shared: &Shared,
) -> Result<(SigningKey, Option<PublicKey>), JournalError> {
    let Signers { key, previous } = signers;
    let Some(last) = last.filter(|last| last != key.public()) else {
        return Ok((key, None));
    };
    match previous.filter(|previous| *previous.public() == last) {
        Some(previous) => {
            shared.lock().next_key = Some(NextKey { key, answer: None });
            Ok((previous, None))
        }
        // Who stole an old key must not be able to make it the one in use.
        None if known.contains(key.public()) => {
            let id = key.public().id().to_owned();
            Err(JournalError::RetiredKey { id })
        }
        None => {
            tracing::warn!(
                old = last.id(),
                new = key.public().id(),
                "the audit journal goes on with another signing key, which the old one does not vouch for"
            );
            Ok((key, Some(last)))
        }
    }
}
