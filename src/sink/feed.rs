//! The journal's records in batches that end with a signed head: what stands behind the last one may still
//! be cut off and written again.

use std::path::{Path, PathBuf};

use crate::audit::entry::{Found, ReadError};
use crate::audit::follow::{self, Follower};

/// A batch ends with the first head behind so many records; a group of the journal is never divided.
const BATCH_RECORDS: usize = 500;
/// Or behind so many bytes: what receivers take in one request.
const BATCH_BYTES: usize = 1024 * 1024;

/// See the module.
pub(super) struct Feed {
    directory: PathBuf,
    follower: Follower,
    held: Vec<Found>,
}

/// Why reading stops.
#[derive(Debug)]
pub(super) enum Stop {
    Enough,
    Read(ReadError),
}

impl From<ReadError> for Stop {
    fn from(error: ReadError) -> Self {
        Self::Read(error)
    }
}

impl Feed {
    /// Begins behind record `seq`.
    pub(super) fn new(directory: &Path, seq: u64) -> Self {
        Self {
            directory: directory.to_owned(),
            follower: Follower::new(directory, seq),
            held: Vec::new(),
        }
    }

    /// Begins again behind record `seq`.
    pub(super) fn back_to(&mut self, seq: u64) {
        self.follower = Follower::new(&self.directory, seq);
        self.held.clear();
    }

    /// The next batch; empty when there is none yet.
    pub(super) fn next(&mut self) -> Result<Vec<Found>, ReadError> {
        let held = &mut self.held;
        let (mut bytes, mut signed) = (0, 0);
        let looked = self.follower.look(&mut |found| {
            bytes += found.line.len();
            let is_head = found.entry.is_head();
            held.push(found);
            if is_head {
                signed = held.len();
            }
            let enough = is_head && (signed >= BATCH_RECORDS || bytes >= BATCH_BYTES);
            if enough { Err(Stop::Enough) } else { Ok(()) }
        });
        if let Err(Stop::Read(error)) = looked {
            return Err(error);
        }
        let unsigned = self.held.split_off(signed);
        Ok(std::mem::replace(&mut self.held, unsigned))
    }

    /// The newest record of the journal; 0 when there is none.
    pub(super) fn newest(&self) -> u64 {
        follow::newest(&self.directory).unwrap_or_default()
    }
}
