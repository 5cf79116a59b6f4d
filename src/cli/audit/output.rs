//! Where lines go: standard output, or a file that only its owner may read.

use std::fs::OpenOptions;
use std::io::{self, BufWriter, Write};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

/// Evidence names people.
const FILE_MODE: u32 = 0o600;

/// Buffered; a reader that went away (`| head`) is no failure.
pub(super) struct Output(BufWriter<Box<dyn Write>>);

impl Output {
    pub(super) fn standard() -> Self {
        Self(BufWriter::new(Box::new(io::stdout())))
    }

    /// A file, made anew, or standard output.
    pub(super) fn to(path: Option<&Path>) -> io::Result<Self> {
        let Some(path) = path else {
            return Ok(Self::standard());
        };
        let mut options = OpenOptions::new();
        let options = options.write(true).create(true).truncate(true).mode(FILE_MODE);
        Ok(Self(BufWriter::new(Box::new(options.open(path)?))))
    }

    /// Bytes as they are. `false`: nobody reads any more.
    pub(super) fn bytes(&mut self, bytes: &[u8]) -> io::Result<bool> {
        read_on(self.0.write_all(bytes))
    }

    /// A line. `false`: nobody reads any more.
    pub(super) fn line(&mut self, line: &[u8]) -> io::Result<bool> {
        Ok(self.bytes(line)? && self.bytes(b"\n")?)
    }

    /// What was written is out. `false`: nobody reads any more.
    pub(super) fn flush(&mut self) -> io::Result<bool> {
        read_on(self.0.flush())
    }
}

fn read_on(written: io::Result<()>) -> io::Result<bool> {
    match written {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(false),
        Err(error) => Err(error),
    }
}
