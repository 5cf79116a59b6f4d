//! What a sink has delivered: the number of the last record, in a file beside the journal.

use std::fs;
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

/// See the module.
pub(super) struct Place {
    file: PathBuf,
    seq: u64,
}

impl Place {
    /// Without a file nothing was delivered. A file that holds something else is an error: whoever made it
    /// says whether all is to be sent again, by removing it.
    pub(super) fn open(directory: &Path, name: &str) -> io::Result<Self> {
        let file = directory.join(format!("sink-{name}.delivered"));
        let seq = match fs::read_to_string(&file) {
            Ok(text) => text.trim().parse().map_err(|_| {
                let what = format!("{} holds no number; remove it to send all again", file.display());
                io::Error::new(io::ErrorKind::InvalidData, what)
            })?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => 0,
            Err(error) => return Err(error),
        };
        Ok(Self { file, seq })
    }

    /// The last record that was delivered; 0 before the first.
    pub(super) const fn seq(&self) -> u64 {
        self.seq
    }

    /// Replaced whole, so that no crash leaves half a number. Not synced: an older number only sends
    /// records a second time.
    pub(super) fn keep(&mut self, seq: u64) -> io::Result<()> {
        self.seq = seq;
        let new = self.file.with_extension("new");
        let mut options = fs::OpenOptions::new();
        let mut file = options
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o600)
            .open(&new)?;
        writeln!(file, "{seq}")?;
        fs::rename(&new, &self.file)
    }
}
