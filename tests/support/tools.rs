//! Programs that the tests run. Those that do not come with the system lie in one cache folder, where
//! `tests/setup/all.sh` puts them. What is missing fails the test: a test that skips proves nothing.

use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

/// Far above what any single client program here takes.
const SECONDS_MAX: &str = "100";

/// The cache folder, as `tests/setup/places.sh` lays it out.
fn folder() -> PathBuf {
    std::env::var_os("GATEPOST_TEST_TOOLS").map_or_else(
        || Path::new(env!("CARGO_TARGET_TMPDIR")).with_file_name("test-tools"),
        PathBuf::from,
    )
}

fn found(path: PathBuf) -> PathBuf {
    assert!(
        path.exists(),
        "{} is missing: run tests/run.sh, or tests/setup/all.sh, which installs it",
        path.display()
    );
    path
}

/// A Node.js that the identity provider supports.
pub(crate) fn node() -> Command {
    Command::new(found(folder().join("node")))
}

/// The folder whose `node_modules` hold `oidc-provider`.
pub(crate) fn oidc_provider() -> PathBuf {
    let place = folder().join("oidc-provider");
    found(place.join("node_modules/oidc-provider/lib/index.js"));
    place
}

/// Python with the drivers, running a script of `tests/e2e/drivers`.
pub(crate) fn python(script: &str) -> Command {
    let mut command = limited(&found(folder().join("python/bin/python")));
    command.arg(found(
        Path::new(env!("CARGO_MANIFEST_DIR"))
            .join("tests/e2e/drivers")
            .join(script),
    ));
    command
}

/// A client program of PostgreSQL: `psql`, `pgbench`.
pub(crate) fn postgres_client(name: &str) -> Command {
    limited(&found(Path::new("/usr/lib/postgresql/15/bin").join(name)))
}

/// A program that is ended when it hangs.
fn limited(program: &Path) -> Command {
    let mut command = Command::new("timeout");
    command.arg(SECONDS_MAX).arg(program).stdin(Stdio::null());
    command
}

/// What a finished program said, both streams.
#[derive(Debug)]
pub(crate) struct Said {
    pub(crate) good: bool,
    pub(crate) out: String,
    pub(crate) err: String,
}

impl From<Output> for Said {
    fn from(output: Output) -> Self {
        Self {
            good: output.status.success(),
            out: String::from_utf8_lossy(&output.stdout).into_owned(),
            err: String::from_utf8_lossy(&output.stderr).into_owned(),
        }
    }
}

/// Runs to the end.
pub(crate) fn run(command: &mut Command) -> Said {
    command.output().unwrap().into()
}

/// Runs to the end, which must be good; returns the standard output.
pub(crate) fn succeed(command: &mut Command) -> String {
    let said = run(command);
    assert!(said.good, "{command:?}\n{}\n{}", said.out, said.err);
    said.out
}
