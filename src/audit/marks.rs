//! What the journal records about itself, as verification reads it: seals, changes of the key, and what
//! has expired.

use serde::Deserialize;

use crate::audit::chain::Hash;
use crate::audit::key::PublicKey;

/// Closes a segment, right before the head that signs it.
pub(super) const SEALED: &str = "segment.sealed";
/// The signing key was replaced.
pub(super) const KEY_ROTATED: &str = "key.rotated";
/// A segment was too old to be kept.
pub(super) const EXPIRED: &str = "journal.expired";

/// One of them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Mark {
    Sealed(Seal),
    Rotated {
        old: PublicKey,
        new: PublicKey,
    },
    /// Everything through this record was removed; it had this hash.
    Expired {
        through: u64,
        hash: Hash,
    },
}

/// The records from `first` through `last` are the leaves of the tree with this root.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Seal {
    pub(super) first: u64,
    pub(super) last: u64,
    pub(super) root: Hash,
}

#[derive(Deserialize)]
struct Members<D> {
    detail: D,
}

#[derive(Deserialize)]
struct SealDetail {
    first: u64,
    last: u64,
    root: String,
}

#[derive(Deserialize)]
struct RotationDetail {
    old_public: String,
    new_public: String,
}

#[derive(Deserialize)]
struct ExpiryDetail {
    through_seq: u64,
    hash: String,
}

impl Mark {
    /// Reads the mark of a line with this event. `None`: the event is none of them, or its detail is not
    /// as gatepost writes it.
    pub(super) fn read(event: &str, line: &[u8]) -> Option<Self> {
        match event {
            SEALED => {
                let SealDetail { first, last, root } = detail(line)?;
                let root = Hash::read(&root)?;
                Some(Self::Sealed(Seal { first, last, root }))
            }
            KEY_ROTATED => {
                let RotationDetail {
                    old_public,
                    new_public,
                } = detail(line)?;
                Some(Self::Rotated {
                    old: PublicKey::from_base64(&old_public)?,
                    new: PublicKey::from_base64(&new_public)?,
                })
            }
            EXPIRED => {
                let ExpiryDetail { through_seq, hash } = detail(line)?;
                let hash = Hash::read(&hash)?;
                let through = through_seq;
                Some(Self::Expired { through, hash })
            }
            _ => None,
        }
    }
}

fn detail<'l, D: Deserialize<'l>>(line: &'l [u8]) -> Option<D> {
    serde_json::from_slice::<Members<D>>(line)
        .ok()
        .map(|members| members.detail)
}
