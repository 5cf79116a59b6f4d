//! One record, proved to somebody who has nothing but the proof and the public key.
//!
//! In a sealed segment the proof is the record's line, its path to the root of the segment's tree, the
//! `segment.sealed` line that names the root, and the head behind it, which signs that: no other record is
//! shown. Where a segment is not sealed yet, the proof is the lines from the record to the next head.

use std::io;
use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::audit::chain::{Hash, Line, Link};
use crate::audit::marks::{Mark, Seal};
use crate::audit::rotation::{self, Keys};
use crate::audit::stored::{Current, Files, Source as _, first_of, segments};
use crate::audit::tree::{self, leaf};

/// The version of the format, in `v`.
const FORMAT: u64 = 1;
/// Lines of one group at the most, which is what lies between a record and the next head.
const CHAIN_MAX: usize = 64 << 10;

/// See the module.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Proof {
    v: u64,
    /// The record's line, byte for byte.
    record: String,
    /// From the record's leaf to the root. Without it the segment was not sealed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    path: Option<Vec<String>>,
    /// With a path: `segment.sealed` and its head. Else: what follows the record, through the next head.
    chain: Vec<String>,
    /// What leads from earlier signing keys to the one that signed here.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    rotations: Vec<rotation::Lines>,
}

/// Why there is no proof.
#[derive(Debug, thiserror::Error)]
pub enum ProveError {
    #[error("cannot read the journal")]
    Read(#[from] io::Error),
    #[error("there is no record {seq}, or it has expired")]
    Absent { seq: u64 },
    #[error("record {seq} is not signed yet: no head stands behind it")]
    Unsigned { seq: u64 },
    #[error("the journal is not as it was written near record {seq}; run \"gatepost audit verify\"")]
    Unsound { seq: u64 },
}

/// Why a proof proves nothing.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotProved {
    #[error("it is not a proof of this version of gatepost")]
    OtherFormat,
    #[error("the record was changed")]
    Record,
    #[error("the lines do not follow each other")]
    Chain,
    #[error("the record is not among those that were sealed")]
    Path,
    #[error("signed with the key {id}, which is not the one that was given and does not follow from it")]
    OtherKey { id: String },
    #[error("the signature does not fit")]
    Signature,
}

/// What a proof proves: this record stands in the journal whose holder signed with this key.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Proved {
    pub seq: u64,
    /// The record's line.
    pub record: String,
    /// The head that signs it, and by which key.
    pub head: u64,
    pub key: String,
}

/// Makes the proof for one record. The journal is not verified as a whole.
pub fn prove(directory: &Path, seq: u64) -> Result<Proof, ProveError> {
    let files = segments(directory)?;
    let holds = |path: &&std::path::PathBuf| first_of(path).is_some_and(|first| first <= seq);
    let file = files.iter().rev().find(holds).ok_or(ProveError::Absent { seq })?;
    let mut source = Files::new(vec![file.clone()]);
    let mut current = Current::new();
    let mut leaves = Vec::new();
    let mut found = Found::default();
    while source.next_line(&mut current)? {
        // An interrupted last line is no record.
        let Some(text) = current.text() else { break };
        leaves.push(leaf(text));
        let line = Line::read(text).ok_or(ProveError::Unsound { seq })?;
        found.take(seq, &line, text)?;
    }
    found.proof(seq, &leaves, rotation::kept(directory)?)
}

/// What a segment holds for the proof of one record.
#[derive(Default)]
struct Found {
    record: Option<(usize, String)>,
    /// Lines behind the record, through the next head.
    chain: Vec<String>,
    is_signed: bool,
    /// The last two lines of the segment so far.
    ends: [String; 2],
    lines: usize,
}

impl Found {
    fn take(&mut self, seq: u64, line: &Line<'_>, text: &[u8]) -> Result<(), ProveError> {
        let text = std::str::from_utf8(text).map_err(|_| ProveError::Unsound { seq })?;
        if line.seq == seq {
            self.record = Some((self.lines, text.to_owned()));
            self.is_signed = line.signed.is_some();
        } else if self.record.is_some() && !self.is_signed {
            self.chain.push(text.to_owned());
            self.is_signed = line.signed.is_some();
        }
        self.lines += 1;
        self.ends.swap(0, 1);
        let [_, last] = &mut self.ends;
        last.clear();
        last.push_str(text);
        Ok(())
    }

    fn proof(self, seq: u64, leaves: &[Hash], rotations: Vec<rotation::Lines>) -> Result<Proof, ProveError> {
        let (index, record) = self.record.ok_or(ProveError::Absent { seq })?;
        if !self.is_signed {
            return Err(ProveError::Unsigned { seq });
        }
        let [sealed, head] = self.ends;
        let mut proof = Proof {
            v: FORMAT,
            record,
            path: None,
            chain: self.chain,
            rotations,
        };
        // The seal and its head are not among what is sealed: they are proved by the chain.
        let sealed_leaves = leaves.get(..leaves.len().saturating_sub(2)).unwrap_or_default();
        if seal_of(&sealed).is_some() && index < sealed_leaves.len() {
            let path = tree::path(sealed_leaves, index);
            proof.path = Some(path.iter().map(Hash::to_string).collect());
            proof.chain = vec![sealed, head];
        }
        match proof.check() {
            Ok(_) => Ok(proof),
            Err(_) => Err(ProveError::Unsound { seq }),
        }
    }
}

fn seal_of(line: &str) -> Option<Seal> {
    let read = Line::read(line.as_bytes())?;
    match Mark::read(&read.event, line.as_bytes())? {
        Mark::Sealed(seal) => Some(seal),
        Mark::Rotated { .. } | Mark::Expired { .. } => None,
    }
}

impl Proof {
    /// Proves the record to whoever trusts one of these keys.
    pub fn verify(&self, keys: &Keys) -> Result<Proved, NotProved> {
        let (record, head) = self.check()?;
        let mut keys = keys.clone();
        keys.follow_all(&self.rotations);
        let signed = head.signed.ok_or(NotProved::Chain)?;
        let Some(key) = keys.get(&signed.key) else {
            let id = signed.key.to_string();
            return Err(NotProved::OtherKey { id });
        };
        if !key.verifies(&head.hash, &signed.signature) {
            return Err(NotProved::Signature);
        }
        Ok(Proved {
            seq: record.seq,
            record: self.record.clone(),
            head: head.seq,
            key: key.id().to_owned(),
        })
    }

    /// All but the signature: the record, and the head that stands for it.
    fn check(&self) -> Result<(Link, Line<'_>), NotProved> {
        if self.v != FORMAT || self.chain.len() > CHAIN_MAX {
            return Err(NotProved::OtherFormat);
        }
        let record = Line::read(self.record.as_bytes()).ok_or(NotProved::Record)?;
        if !record.intact() {
            return Err(NotProved::Record);
        }
        let link = record.link();
        let Some(path) = &self.path else {
            return Ok((link, follow(record, &self.chain)?));
        };
        let [sealed, head] = self.chain.as_slice() else {
            return Err(NotProved::Chain);
        };
        let seal = seal_of(sealed).ok_or(NotProved::Path)?;
        let path: Option<Vec<Hash>> = path.iter().map(|hash| Hash::read(hash)).collect();
        let path = path
            .filter(|path| path.len() <= tree::PATH_MAX)
            .ok_or(NotProved::Path)?;
        let leaves = seal.last.checked_sub(seal.first).and_then(|it| it.checked_add(1));
        let index = link.seq.checked_sub(seal.first);
        let root = index
            .zip(leaves)
            .and_then(|(index, leaves)| tree::root_from(leaf(self.record.as_bytes()), index, leaves, &path));
        if root != Some(seal.root) {
            return Err(NotProved::Path);
        }
        let sealed = Line::read(sealed.as_bytes())
            .filter(Line::intact)
            .ok_or(NotProved::Chain)?;
        Ok((link, follow(sealed, std::slice::from_ref(head))?))
    }
}

/// The head at the end of lines that follow each other.
fn follow<'l>(first: Line<'l>, rest: &'l [String]) -> Result<Line<'l>, NotProved> {
    let mut line = first;
    for next in rest {
        let next = Line::read(next.as_bytes()).ok_or(NotProved::Chain)?;
        if !next.continues(line.link()) {
            return Err(NotProved::Chain);
        }
        line = next;
    }
    Ok(line)
}
