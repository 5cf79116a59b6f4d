//! Which keys may sign a journal: those that an auditor trusts, and those that follow from them.
//!
//! When the key is replaced while the old one is at hand, three lines stand together in the chain:
//! `key.rotated` with both public keys, a head signed with the old key, a head signed with the new one.
//! Whoever trusts either key can trust the other by these three lines alone. They are kept in a file
//! beside the segments too, where they outlive the segment that they were written to.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::audit::chain::{Line, Link};
use crate::audit::key::PublicKey;
use crate::audit::marks::Mark;
use crate::audit::segment::FILE_MODE;

const ROTATIONS_FILE: &str = "rotations";
/// Of the key in use.
const CURRENT: &str = "signing.pub";
const KEY_PREFIX: &str = "signing-";
const KEY_SUFFIX: &str = ".pub";
/// A rotation takes some 1,500 bytes: a monthly one for half a century fits.
const ROTATIONS_BYTES_MAX: u64 = 1 << 20;

/// `key.rotated` and its two heads.
pub(super) const LINES: usize = 3;
/// The lines of one rotation.
pub(super) type Lines = [String; LINES];

/// The keys whose signatures count.
#[derive(Clone, Debug, Default)]
pub struct Keys {
    trusted: Vec<Arc<PublicKey>>,
    /// Ids of keys that were replaced: what they sign after that does not count.
    retired: Vec<String>,
}

impl Keys {
    pub fn new(trusted: impl IntoIterator<Item = PublicKey>) -> Self {
        let mut keys = Self::default();
        trusted.into_iter().for_each(|key| keys.trust(key));
        keys
    }

    /// Trusts the keys that follow from those that are trusted, by the rotations that are kept beside the
    /// journal.
    pub fn follow(&mut self, directory: &Path) -> io::Result<()> {
        self.follow_all(&kept(directory)?);
        Ok(())
    }

    pub(super) fn follow_all(&mut self, rotations: &[Lines]) {
        let links: Vec<_> = rotations.iter().filter_map(proved).collect();
        // Each round trusts at least one key more, or is the last.
        loop {
            let known = self.trusted.len();
            for (old, new) in &links {
                match (self.knows(old), self.knows(new)) {
                    (true, false) => self.trust(new.clone()),
                    (false, true) => self.trust(old.clone()),
                    (true, true) | (false, false) => {}
                }
            }
            if self.trusted.len() == known {
                return;
            }
        }
    }

    fn knows(&self, key: &PublicKey) -> bool {
        self.trusted.iter().any(|known| **known == *key)
    }

    pub(super) fn trust(&mut self, key: PublicKey) {
        if !self.knows(&key) {
            self.trusted.push(Arc::new(key));
        }
    }

    /// From here on the old key signs nothing more, and the new one does, if it is trusted.
    pub(super) fn hand_over(&mut self, old: &PublicKey, new: &PublicKey) {
        self.retired.retain(|id| id != new.id());
        self.retired.push(old.id().to_owned());
    }

    /// The key with this id, if its signature counts.
    pub(super) fn get(&self, id: &str) -> Option<&Arc<PublicKey>> {
        let key = self.trusted.iter().find(|key| key.id() == id);
        key.filter(|_| !self.retired.iter().any(|retired| retired == id))
    }

    /// The key with this id, whether or not it was replaced since.
    pub(super) fn any(&self, id: &str) -> Option<&Arc<PublicKey>> {
        self.trusted.iter().find(|key| key.id() == id)
    }
}

/// Both keys of a rotation, if its three lines prove that the holders of both agreed.
fn proved(lines: &Lines) -> Option<(PublicKey, PublicKey)> {
    let [rotated, by_old, by_new] = lines.each_ref().map(String::as_bytes);
    let Mark::Rotated { old, new } = mark_of(rotated)? else {
        return None;
    };
    let first = Line::read(rotated)?;
    let agreed = first.intact()
        && is_signed_next(first.link(), by_old, &old)
        && is_signed_next(Line::read(by_old)?.link(), by_new, &new);
    agreed.then_some((old, new))
}

fn mark_of(line: &[u8]) -> Option<Mark> {
    Mark::read(&Line::read(line)?.event, line)
}

/// Is `head` a head that follows `link`, signed with this key?
pub(super) fn is_signed_next(link: Link, head: &[u8], key: &PublicKey) -> bool {
    let Some(line) = Line::read(head) else {
        return false;
    };
    line.continues(link)
        && line
            .signed
            .as_ref()
            .is_some_and(|signed| signed.key == key.id() && key.verifies(&line.hash, &signed.signature))
}

/// The rotations that are kept beside a journal. What is no rotation proves nothing, and is passed over.
pub(super) fn kept(directory: &Path) -> io::Result<Vec<Lines>> {
    let path = directory.join(ROTATIONS_FILE);
    let size = match fs::metadata(&path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        size => size?.len(),
    };
    if size > ROTATIONS_BYTES_MAX {
        return Err(io::ErrorKind::FileTooLarge.into());
    }
    let text = fs::read_to_string(&path)?;
    let mut lines = text.lines().map(str::to_owned).peekable();
    let mut rotations = Vec::new();
    while let Some(first) = lines.next() {
        // A write that was interrupted leaves fewer lines, before the next rotation or at the end.
        let is_rotated = |line: &str| Line::read(line.as_bytes()).is_some_and(|it| it.signed.is_none());
        if !is_rotated(&first) {
            continue;
        }
        let second = lines.next_if(|line| !is_rotated(line));
        let third = lines.next_if(|line| !is_rotated(line));
        if let (Some(second), Some(third)) = (second, third) {
            rotations.push([first, second, third]);
        }
    }
    Ok(rotations)
}

/// Keeps a rotation beside the journal, on disk when this returns.
pub(super) fn keep(directory: &Path, lines: &[u8]) -> io::Result<()> {
    let mut options = OpenOptions::new();
    let options = options.append(true).create(true).mode(FILE_MODE);
    let mut file = options.open(directory.join(ROTATIONS_FILE))?;
    // Behind a line that was interrupted, if there is one.
    file.write_all(b"\n")?;
    file.write_all(lines)?;
    file.sync_all()
}

/// Puts a public key beside the journal under its id, if it is not there.
pub(super) fn keep_key(directory: &Path, key: &PublicKey) -> io::Result<()> {
    let path = directory.join(format!("{KEY_PREFIX}{}{KEY_SUFFIX}", key.id()));
    if fs::read_to_string(&path).is_ok_and(|text| PublicKey::read(&text).as_ref() == Ok(key)) {
        return Ok(());
    }
    replace(&path, key)
}

/// Keeps the key, and makes it the one that `signing.pub` shows.
pub(super) fn keep_current(directory: &Path, key: &PublicKey) -> io::Result<()> {
    keep_key(directory, key)?;
    let path = directory.join(CURRENT);
    if fs::read_to_string(&path).is_ok_and(|text| PublicKey::read(&text).as_ref() == Ok(key)) {
        return Ok(());
    }
    replace(&path, key)
}

fn replace(path: &Path, key: &PublicKey) -> io::Result<()> {
    let beside = path.with_extension("pub.new");
    let mut file = File::create(&beside)?;
    file.write_all(key.to_pem().as_bytes())?;
    file.sync_all()?;
    fs::rename(&beside, path)?;
    File::open(path.parent().unwrap_or(Path::new(".")))?.sync_all()
}

/// The public keys that lie beside a journal.
pub(super) fn keys_beside(directory: &Path) -> io::Result<Vec<PublicKey>> {
    let mut keys = Vec::new();
    for entry in fs::read_dir(directory)? {
        let path: PathBuf = entry?.path();
        let name = path.file_name().and_then(|name| name.to_str());
        let is_key = name.is_some_and(|name| {
            name == CURRENT || name.starts_with(KEY_PREFIX) && name.ends_with(KEY_SUFFIX)
        });
        if is_key && let Ok(key) = PublicKey::read(&fs::read_to_string(&path)?) {
            keys.push(key);
        }
    }
    Ok(keys)
}
