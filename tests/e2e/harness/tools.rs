//! Where `tests/setup/` puts what the tests need. What is missing fails the test by name; it is never
//! passed over in silence.

use std::path::{Path, PathBuf};

use gatepost::cli::dev::postgres::Binaries;

fn folder() -> PathBuf {
    std::env::var_os("GATEPOST_TEST_TOOLS").map_or_else(
        || {
            Path::new(env!("CARGO_TARGET_TMPDIR"))
                .parent()
                .unwrap()
                .join("test-tools")
        },
        PathBuf::from,
    )
}

fn tool(name: &str) -> PathBuf {
    let path = folder().join(name);
    assert!(
        path.exists(),
        "{} is missing: run tests/run.sh, or tests/setup/all.sh, which installs it",
        path.display()
    );
    path
}

pub(crate) fn node() -> PathBuf {
    tool("node")
}

pub(crate) fn oidc_provider() -> PathBuf {
    tool("oidc-provider")
}

pub(crate) fn python() -> PathBuf {
    tool("python/bin/python")
}

/// The folder of node's drivers.
pub(crate) fn node_drivers() -> PathBuf {
    tool("node-pg")
}

/// tedious: its folder of node_modules.
pub(crate) fn tedious() -> PathBuf {
    tool("tedious")
}

/// FreeTDS's tsql and freebcp.
pub(crate) fn freetds() -> (PathBuf, PathBuf) {
    (tool("freetds/tsql"), tool("freetds/freebcp"))
}

/// A JDK's `java`, and jTDS.
pub(crate) fn jtds() -> (PathBuf, PathBuf) {
    (tool("jdbc/java"), tool("jdbc/jtds.jar"))
}

/// A program of this workspace: one of the Rust drivers.
pub(crate) fn rust_driver(name: &str) -> PathBuf {
    let path = Path::new(env!("CARGO_BIN_EXE_gatepost")).with_file_name(name);
    assert!(
        path.exists(),
        "{} is missing: run tests/run.sh, or tests/setup/rust_drivers.sh, which builds it",
        path.display()
    );
    path
}

/// A JDK's `java`, and the driver's jar.
pub(crate) fn jdbc() -> (PathBuf, PathBuf) {
    (tool("jdbc/java"), tool("jdbc/postgresql.jar"))
}

/// A server of this major version: 15 from Debian with its clients and extensions, others from npm.
pub(crate) fn server(major: u32) -> Binaries {
    let folder = match major {
        15 => PathBuf::from("/usr/lib/postgresql/15/bin"),
        other => tool(&format!("postgres-{other}/bin")),
    };
    let found = Binaries::at(folder);
    found.unwrap_or_else(|_| {
        panic!("PostgreSQL {major} is missing: run tests/run.sh, or tests/setup/all.sh, which installs it")
    })
}

/// psql or pgbench.
pub(crate) fn client_program(name: &str) -> PathBuf {
    let path = Path::new("/usr/lib/postgresql/15/bin").join(name);
    assert!(
        path.exists(),
        "{} is missing: run tests/run.sh, or tests/setup/postgres.sh, which installs it",
        path.display()
    );
    path
}
