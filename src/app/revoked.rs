//! Revocations on disk: beside the journal, so that they outlive the process.

use std::fs::{self, File};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use crate::domain::Revocations;

const FILE: &str = "revocations.json";
/// Some hundred bytes each; a list of this size is not written by people.
pub(super) const REVOCATIONS_MAX: usize = 10_000;
const FILE_BYTES_MAX: u64 = 8 * 1024 * 1024;

/// The file of one journal's folder.
#[derive(Clone, Debug)]
pub(super) struct RevocationFile {
    folder: PathBuf,
}

impl RevocationFile {
    pub(super) fn in_folder(folder: &Path) -> Self {
        Self {
            folder: folder.to_owned(),
        }
    }

    /// What is in force from the last run. A file that cannot be read is an error: starting without it
    /// would let in whom an operator has shut out.
    pub(super) fn load(&self) -> io::Result<Revocations> {
        let path = self.folder.join(FILE);
        let length = match fs::metadata(&path) {
            Ok(metadata) => metadata.len(),
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Revocations::default()),
            Err(error) => return Err(error),
        };
        if length > FILE_BYTES_MAX {
            return Err(io::Error::new(
                io::ErrorKind::FileTooLarge,
                "the list is too large",
            ));
        }
        let bytes = fs::read(&path)?;
        serde_json::from_slice(&bytes).map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))
    }

    /// On disk when this returns, whole or not at all.
    pub(super) fn save(&self, revocations: &Revocations) -> io::Result<()> {
        let (path, new) = (self.folder.join(FILE), self.folder.join("revocations.new"));
        let bytes = serde_json::to_vec_pretty(revocations)?;
        let mut file = File::create(&new)?;
        file.write_all(&bytes)?;
        file.sync_all()?;
        fs::rename(&new, &path)?;
        File::open(&self.folder)?.sync_all()
    }
}

#[cfg(test)]
mod tests {
    use std::time::SystemTime;

    use super::*;
    use crate::domain::Revocation;
    use crate::domain::revocation::Struck;

    #[test]
    fn they_come_back_and_a_broken_file_is_an_error() {
        let folder = tempfile::tempdir().unwrap();
        let file = RevocationFile::in_folder(folder.path());
        assert!(file.load().unwrap().is_empty());
        let one = Revocation {
            struck: Struck::Subject("ann".to_owned()),
            provider: Some("okta".into()),
            made: 1,
            until: u64::MAX,
            by: "operator".to_owned(),
            reason: Some("left".to_owned()),
        };
        let list = Revocations::default().with(one, SystemTime::UNIX_EPOCH);
        file.save(&list).unwrap();
        assert_eq!(file.load().unwrap(), list);
        fs::write(folder.path().join(FILE), "[{").unwrap();
        assert_eq!(file.load().unwrap_err().kind(), io::ErrorKind::InvalidData);
    }
}
