//! Finds and reads the policy files that the configuration names.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use crate::domain::Mistake;

/// A policy is written by people; one that is larger was made by a machine that went wrong.
const FILE_BYTES_MAX: u64 = 4 * 1024 * 1024;

/// One policy file as it stands on disk.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PolicyText {
    pub path: PathBuf,
    pub text: String,
}

/// Reads files as named, and folders' `*.yaml` and `*.yml` in order of name.
pub fn read(named: &[PathBuf]) -> Result<Vec<PolicyText>, Vec<Mistake>> {
    let mut texts = Vec::new();
    let mut mistakes = Vec::new();
    for path in named {
        match files(path) {
            Ok(found) if found.is_empty() => {
                let shown = path.display();
                mistakes.push(Mistake::general(format!("{shown} holds no *.yaml file")));
            }
            Ok(found) => {
                for file in found {
                    match read_one(&file) {
                        Ok(text) => texts.push(PolicyText { path: file, text }),
                        Err(error) => mistakes.push(unreadable(&file, &error)),
                    }
                }
            }
            Err(error) => mistakes.push(unreadable(path, &error)),
        }
    }
    if mistakes.is_empty() {
        Ok(texts)
    } else {
        Err(mistakes)
    }
}

fn unreadable(path: &Path, error: &io::Error) -> Mistake {
    Mistake::general(format!("cannot read {}: {error}", path.display()))
}

fn read_one(path: &Path) -> io::Result<String> {
    if fs::metadata(path)?.len() > FILE_BYTES_MAX {
        let message = format!("larger than {FILE_BYTES_MAX} bytes");
        return Err(io::Error::new(io::ErrorKind::FileTooLarge, message));
    }
    fs::read_to_string(path)
}

pub(super) fn files(path: &Path) -> io::Result<Vec<PathBuf>> {
    if !fs::metadata(path)?.is_dir() {
        return Ok(vec![path.to_owned()]);
    }
    let mut found = Vec::new();
    for entry in fs::read_dir(path)? {
        let file = entry?.path();
        let yaml = file
            .extension()
            .is_some_and(|extension| extension == "yaml" || extension == "yml");
        if yaml && file.is_file() {
            found.push(file);
        }
    }
    found.sort();
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn folders_are_read_in_order_of_name() {
        let folder = tempfile::tempdir().unwrap();
        for name in ["20-b.yaml", "10-a.yml", "README.md"] {
            fs::write(folder.path().join(name), name).unwrap();
        }
        let texts = read(&[folder.path().to_owned()]).unwrap();
        let read: Vec<_> = texts.iter().map(|it| it.text.as_str()).collect();
        assert_eq!(read, ["10-a.yml", "20-b.yaml"]);
    }

    #[test]
    fn what_is_missing_is_named_and_an_empty_folder_is_a_mistake() {
        let folder = tempfile::tempdir().unwrap();
        let missing = folder.path().join("none.yaml");
        let mistakes = read(&[folder.path().to_owned(), missing]).unwrap_err();
        assert!(mistakes[0].message.contains("holds no *.yaml file"));
        assert!(mistakes[1].message.contains("none.yaml"));
    }
}
