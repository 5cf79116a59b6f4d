//! Disk that is reserved for work under way: a file of real blocks beside the journal, which is emptied
//! when the disk is full, so that what has begun can still be recorded.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt as _, MetadataExt as _, OpenOptionsExt as _};
use std::path::Path;
use std::time::Duration;

use rustix::fs::{FallocateFlags, fallocate, statvfs};
use rustix::io::Errno;
use tokio::time::Instant;

use crate::audit::segment::{FILE_MODE, Files};

const FILE: &str = "reserve";
/// Of all outcomes that can be waiting (16,384 of some 700 bytes, a head for each group) most find room.
pub(super) const BYTES: u64 = 16 << 20;
/// Intents are written into the first half only: the rest is for outcomes, which nothing can refuse.
const INTENTS_SHARE: u64 = 2;
/// A full disk is freed by people; asking for its free space costs one system call.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// The reserve is taken back when this share of it is free besides, so that it does not come and go.
const FREE_BESIDES: u64 = 8;
/// Written where the file system cannot set blocks aside, this much at once.
const CHUNK: usize = 64 << 10;

/// What the disk still takes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Room {
    /// Everything.
    #[default]
    Ample,
    /// The disk is full: no new sessions, but what the open ones do.
    UnderWay,
    /// And little of the reserve is left: only what has happened already.
    Ends,
}

/// The reserve as the writer knows it.
#[derive(Debug)]
pub(super) enum Reserve {
    Held,
    /// Emptied: `spent` bytes were written since.
    Used {
        spent: u64,
        looked: Instant,
    },
    /// There was never room for it. The journal goes on until the disk is full.
    Missing {
        looked: Instant,
    },
}

impl Reserve {
    /// At start-up. A disk without room for it is said to the operator, and no reason not to start.
    pub(super) fn start(files: &mut dyn Files, bytes: u64) -> Self {
        match files.hold_reserve(bytes) {
            Ok(()) => Self::Held,
            Err(error) => {
                tracing::warn!(%error, bytes, "the audit directory has no room for its reserve");
                let looked = Instant::now();
                Self::Missing { looked }
            }
        }
    }

    pub(super) fn room(&self, bytes: u64) -> Room {
        match self {
            Self::Held | Self::Missing { .. } => Room::Ample,
            Self::Used { spent, .. } if *spent < bytes / INTENTS_SHARE => Room::UnderWay,
            Self::Used { .. } => Room::Ends,
        }
    }

    /// A write failed. Says whether it is worth trying again, because the reserve made room.
    pub(super) fn give_way(&mut self, error: &io::Error, files: &mut dyn Files) -> bool {
        let full = matches!(
            error.kind(),
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded
        );
        if !full || !matches!(self, Self::Held) {
            return false;
        }
        let released = files.release_reserve();
        match &released {
            Ok(()) => tracing::error!("the disk of the audit journal is full: its reserve is in use"),
            Err(error) => tracing::error!(%error, "the reserve of the audit journal cannot be used"),
        }
        let looked = Instant::now();
        *self = Self::Used { spent: 0, looked };
        released.is_ok()
    }

    pub(super) const fn wrote(&mut self, bytes: u64) {
        if let Self::Used { spent, .. } = self {
            *spent = spent.saturating_add(bytes);
        }
    }

    /// How long until the reserve is to be looked at; `None` while it is there.
    pub(super) fn due_in(&self) -> Option<Duration> {
        match self {
            Self::Held => None,
            Self::Used { looked, .. } | Self::Missing { looked } => {
                Some(LOOK_EVERY.saturating_sub(looked.elapsed()))
            }
        }
    }

    /// Takes the reserve back if there is room for it again.
    pub(super) fn look(&mut self, files: &mut dyn Files, bytes: u64) {
        if self.due_in().is_none_or(|left| !left.is_zero()) {
            return;
        }
        let wanted = bytes.saturating_add(bytes / FREE_BESIDES);
        let held = files.free().and_then(|free| {
            if free < wanted {
                return Err(io::ErrorKind::StorageFull.into());
            }
            files.hold_reserve(bytes)
        });
        if held.is_ok() {
            tracing::info!("the audit journal has its reserve of disk again");
            *self = Self::Held;
        } else if let Self::Used { looked, .. } | Self::Missing { looked } = self {
            *looked = Instant::now();
        }
    }
}

/// Bytes that are free to this process where the journal is.
pub(super) fn free(directory: &Path) -> io::Result<u64> {
    let disk = statvfs(directory)?;
    Ok(disk.f_bavail.saturating_mul(disk.f_frsize))
}

/// Makes the file, unless it is there with all its blocks.
pub(super) fn hold(directory: &Path, bytes: u64) -> io::Result<()> {
    let file = open(directory)?;
    let known = file.metadata()?;
    // In units of 512 bytes, whatever the file system uses.
    if known.len() == bytes && known.blocks().saturating_mul(512) >= bytes {
        return Ok(());
    }
    let held = match fallocate(&file, FallocateFlags::empty(), 0, bytes) {
        Err(Errno::OPNOTSUPP | Errno::NOSYS) => fill(&file, bytes),
        other => other.map_err(io::Error::from),
    };
    if held.is_err() {
        // Half a reserve would only be in the way.
        let _emptied = file.set_len(0);
    }
    held
}

pub(super) fn release(directory: &Path) -> io::Result<()> {
    // Emptied, not removed: making a file may take a block of its own.
    open(directory)?.set_len(0)
}

fn open(directory: &Path) -> io::Result<File> {
    let mut options = OpenOptions::new();
    let options = options.write(true).create(true).truncate(false).mode(FILE_MODE);
    options.open(directory.join(FILE))
}

/// Real blocks also where the file system compresses: bytes without a pattern (xorshift), not secret.
fn fill(file: &File, bytes: u64) -> io::Result<()> {
    let mut state: u64 = 0x9e37_79b9_7f4a_7c15;
    let mut chunk = Vec::with_capacity(CHUNK);
    let mut at = 0;
    while at < bytes {
        chunk.clear();
        while chunk.len() < CHUNK {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            chunk.extend_from_slice(&state.to_le_bytes());
        }
        let left = usize::try_from(bytes - at).unwrap_or(CHUNK).min(CHUNK);
        chunk.truncate(left);
        file.write_all_at(&chunk, at)?;
        at += u64::try_from(left).unwrap_or(u64::MAX);
    }
    file.sync_data()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_file_has_real_blocks_and_is_made_once() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join(FILE);
        let before = free(directory.path()).unwrap();
        assert!(before > 1 << 20);
        hold(directory.path(), 1 << 20).unwrap();
        let made = std::fs::metadata(&path).unwrap();
        assert!(made.len() == 1 << 20 && made.blocks() * 512 >= 1 << 20);
        hold(directory.path(), 1 << 20).unwrap();
        release(directory.path()).unwrap();
        assert_eq!(std::fs::metadata(&path).unwrap().blocks(), 0);
    }

    #[test]
    fn without_preallocation_it_is_written() {
        let directory = tempfile::tempdir().unwrap();
        let file = open(directory.path()).unwrap();
        fill(&file, 100_000).unwrap();
        let made = file.metadata().unwrap();
        assert!(made.len() == 100_000 && made.blocks() * 512 >= 100_000);
    }
}
