//! Proves a journal: nothing in it was changed, removed, inserted or reordered since it was signed.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use serde::Serialize;

use crate::audit::chain::Hash;
use crate::audit::heads::KeptHead;
use crate::audit::key::PublicKey;
use crate::audit::rotation::Keys;
use crate::audit::stored::Files;
use crate::audit::walk::{Kept, Walk};

pub use crate::audit::stored::Spot;
use crate::audit::stored::segments;

/// What a sound journal holds.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Summary {
    pub segments: u64,
    pub records: u64,
    pub heads: u64,
    /// The first record; those before it have expired, which is on record.
    pub first: u64,
    /// Segments whose tree of records was found as it was sealed.
    pub seals: u64,
    /// How often the signing key was replaced.
    pub rotations: u64,
    /// Heads from the second place that were found in the journal.
    pub kept_heads: u64,
    /// The last signed head: keep it elsewhere, and expect it the next time.
    pub head: Option<Head>,
    /// Whole records behind the last head: a write that is going on now, or was interrupted. They
    /// are chained and not signed, so nothing is proved about them.
    pub unsigned: u64,
    /// Bytes of an incomplete last line, for the same reason.
    pub torn_bytes: u64,
}

/// A head, as kept in a second place.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Head {
    pub seq: u64,
    pub hash: String,
}

/// The first place where a journal is not what was written.
#[derive(Debug, thiserror::Error)]
#[error("{}, line {line}, record {seq}: {what}", file.display())]
pub struct Broken {
    pub file: PathBuf,
    /// From 1; 0 means the file or the directory as a whole.
    pub line: u64,
    /// The record that is at fault: for `Removed` the first that is missing.
    pub seq: u64,
    pub what: Fault,
}

#[derive(Debug, thiserror::Error)]
pub enum Fault {
    #[error("changed")]
    Changed,
    #[error("removed, through record {through}")]
    Removed { through: u64 },
    #[error("inserted here; gatepost did not write it here")]
    Inserted,
    #[error("not in its place: reordered")]
    Reordered,
    #[error("the head is not signed with this key: a record after record {after} was rewritten")]
    Rewritten { after: u64 },
    #[error("cut off: the journal ends before the head that was expected")]
    Cut,
    #[error("signed with another key, {id}; if it is yours, give its public key too")]
    OtherKey { id: String },
    #[error("signed with the key {id}, which had been replaced before")]
    RetiredKey { id: String },
    #[error("the records of this segment are not those that were sealed")]
    OtherSeal,
    #[error("cannot be read")]
    Unreadable(#[source] io::Error),
}

/// What a journal has to stand up to.
pub struct Demands {
    pub keys: Keys,
    /// Heads that were kept elsewhere, in their order.
    pub kept: Box<dyn Iterator<Item = io::Result<KeptHead>>>,
}

impl Demands {
    /// Every head is signed with this key, or one that follows from it.
    pub fn key(key: &PublicKey) -> Self {
        Self {
            keys: Keys::new([key.clone()]),
            kept: Box::new(std::iter::empty()),
        }
    }
}

/// Verifies every segment in `directory`.
pub fn verify(directory: &Path, key: &PublicKey) -> Result<Summary, Broken> {
    verify_expecting(directory, key, None)
}

/// As [`verify`], and proves besides that the journal still reaches `expected`, a head that was
/// kept elsewhere: only so can a cut end be told from an end.
pub fn verify_expecting(
    directory: &Path,
    key: &PublicKey,
    expected: Option<&Head>,
) -> Result<Summary, Broken> {
    let kept = expected.map(|expected| {
        let unreadable = || io::Error::new(io::ErrorKind::InvalidData, "the expected head is not a hash");
        Ok(KeptHead {
            seq: expected.seq,
            hash: Hash::read(&expected.hash).ok_or_else(unreadable)?,
            signed: None,
        })
    });
    let demands = Demands {
        kept: Box::new(kept.into_iter()),
        ..Demands::key(key)
    };
    verify_all(directory, demands, &mut |_| {})
}

/// Verifies every segment in `directory` against all of `demands`; `progress` hears now and then how many
/// bytes of the [size](stored_bytes) are done.
pub fn verify_all(
    directory: &Path,
    demands: Demands,
    progress: &mut dyn FnMut(u64),
) -> Result<Summary, Broken> {
    let whole = |what| Broken {
        file: directory.to_owned(),
        line: 0,
        seq: 0,
        what,
    };
    let files = segments(directory).map_err(|source| whole(Fault::Unreadable(source)))?;
    let Demands { mut keys, kept } = demands;
    keys.follow(directory)
        .map_err(|source| whole(Fault::Unreadable(source)))?;
    let count = u64::try_from(files.len()).unwrap_or(u64::MAX);
    let walk = Walk::new(keys, Kept::new(kept));
    let mut summary = walk.run(&mut Files::new(files), progress)?;
    summary.segments = count;
    if summary.records == 0 {
        return Err(Broken {
            seq: 1,
            ..whole(Fault::Cut)
        });
    }
    Ok(summary)
}

/// Bytes of all segments as they lie on disk.
pub fn stored_bytes(directory: &Path) -> io::Result<u64> {
    let sizes = segments(directory)?.into_iter().map(fs::metadata);
    sizes.map(|known| known.map(|known| known.len())).sum()
}
