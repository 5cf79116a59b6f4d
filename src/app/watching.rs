//! Notices on its own that a deploy has changed a file, and reloads: certificates, secrets, policies.

use std::collections::HashMap;
use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::time::{Instant, sleep};

use crate::app::policies;
use crate::app::reload::{Reloader, watched_files};

/// Looking costs a `stat` for each file, some dozens together. A deploy that takes longer than this to
/// write its files is noticed in the middle, which the second look is for.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// A reload that was refused may depend on a file that nobody watches yet.
const RETRY_EVERY: Duration = Duration::from_secs(60);

/// How the watched files looked. Follows links, so that a mounted secret that is swapped by its link is
/// seen; the inode tells a file that was replaced within its time stamp's precision.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Look(Vec<(PathBuf, Option<Stamp>)>);

/// Inode, length, seconds and nanoseconds of the last change. `None`: the file is not there.
type Stamp = (u64, u64, i64, i64);

impl Look {
    fn at(files: &[PathBuf], policies: &[PathBuf]) -> Self {
        let listed = policies
            .iter()
            .flat_map(|path| policies::files(path).unwrap_or_default());
        let all = files.iter().cloned().chain(listed);
        Self(all.map(|file| (file.clone(), stamp(&file))).collect())
    }
}

impl Look {
    /// The same files; the stamps of those that are in `before` too are taken from there.
    fn with_stamps_of(mut self, before: Self) -> Self {
        let before: HashMap<_, _> = before.0.into_iter().collect();
        for (file, stamp) in &mut self.0 {
            if let Some(earlier) = before.get(file) {
                *stamp = *earlier;
            }
        }
        self
    }
}

fn stamp(file: &Path) -> Option<Stamp> {
    let metadata = fs::metadata(file).ok()?;
    Some((
        metadata.ino(),
        metadata.len(),
        metadata.mtime(),
        metadata.mtime_nsec(),
    ))
}

/// Reloads on every hangup and after every change of a file that has settled. Runs until the process
/// ends.
pub(super) async fn keep_current(reloader: Arc<Reloader>, mut hangups: mpsc::Receiver<()>) {
    let mut known = look(&reloader).await;
    let mut last = known.clone();
    let mut refused: Option<Instant> = None;
    loop {
        let asked = tokio::select! {
            Some(()) = hangups.recv() => true,
            () = sleep(LOOK_EVERY) => false,
        };
        let now = look(&reloader).await;
        let settled = now == last;
        last = now.clone();
        let due = refused.is_some_and(|at| at.elapsed() >= RETRY_EVERY);
        if !asked && !due && (now == known || !settled) {
            continue;
        }
        let why = if asked { "SIGHUP" } else { "a file changed" };
        tracing::info!(why, "reloading");
        refused = reloader.reload().await.is_err().then(Instant::now);
        // The new configuration may name other files. Those that were watched count as they looked
        // before: what changed meanwhile makes another reload.
        known = look(&reloader).await.with_stamps_of(now);
    }
}

async fn look(reloader: &Arc<Reloader>) -> Look {
    let built = reloader.built();
    let looking = tokio::task::spawn_blocking(move || {
        Look::at(&watched_files(&built.settings), &built.settings.policies)
    });
    looking.await.unwrap_or(Look(Vec::new()))
}
