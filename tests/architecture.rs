//! The floor plan, kept true: who may use whom, which library lives in which room, and how large a
//! file may grow.
//!
//! The test reads source text. It sees `crate::room` wherever it stands in code, so imports are
//! spelled `use crate::room::…;`, one room a statement. Comments do not count; a string that holds
//! `crate::` would.

#![expect(clippy::unwrap_used, clippy::panic, reason = "a test that cannot go on stops")]

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};

/// From the ground up. A room uses only rooms on lower floors; neighbours are strangers.
const FLOORS: [&[&str]; 9] = [
    // The words stand on nothing; bytes and statements are spoken of in them.
    &["domain"],
    &["sql", "wire"],
    &["audit", "policy", "tls"],
    &["credential", "identity"],
    &["sink", "upstream"],
    &["session"],
    &["admin", "ingress"],
    &["app"],
    &["cli"],
];

/// Rooms that only compute …
const PURE: [&str; 4] = ["domain", "policy", "sql", "wire"];
/// … and so never touch these.
const OUTSIDE: [&str; 8] = [
    "tokio::",
    "tracing::",
    "std::fs",
    "std::env",
    "std::net::Tcp",
    "std::thread",
    "SystemTime::now",
    "Instant::now",
];

/// A library, and the only places (below `src/`) that may name it.
const LIBRARIES: [(&str, &[&str]); 28] = [
    ("tokio_postgres", &["credential/"]),
    ("tokio_postgres_rustls", &["credential/"]),
    // The fetcher opens its own connections with a configuration made in `tls`.
    (
        "tokio_rustls",
        &["tls/", "identity/fetch.rs", "identity/tests/authorities.rs"],
    ),
    // The configuration is made in `tls`; the rooms that dial by themselves carry it.
    ("rustls", &["tls/", "identity/", "credential/", "app/"]),
    ("rustls_native_certs", &["tls/"]),
    ("x509_cert", &["tls/"]),
    // Hashes, signatures, randomness. Who needs randomness is handed a `domain::Random`; wire has none of
    // it but in its tests.
    (
        "aws_lc_rs",
        &[
            "audit/",
            "credential/",
            "policy/",
            "sql/",
            "tls/",
            "cli/dev/",
            // Providers' public keys (P-521 too, which jsonwebtoken lacks), fingerprints, hashed tokens.
            "identity/jwk.rs",
            "identity/seen.rs",
            "identity/tests/",
            "identity/attacks/",
            "wire/pg/login/tests.rs",
        ],
    ),
    ("openidconnect", &["identity/"]),
    ("jsonwebtoken", &["cli/dev/"]),
    ("hyper", &["admin/", "identity/", "sink/", "cli/dev/"]),
    ("hyper_util", &["admin/", "identity/", "sink/", "cli/dev/"]),
    ("http_body_util", &["admin/", "identity/", "sink/", "cli/dev/"]),
    (
        "dashmap",
        &["session/registry.rs", "session/roster.rs", "upstream/"],
    ),
    // tiberius speaks the traits of `futures`; tokio-util translates.
    ("tokio_util", &["session/", "credential/"]),
    ("tiberius", &["credential/"]),
    ("sqlparser", &["sql/"]),
    ("serde_saphyr", &["policy/", "app/config/"]),
    ("schemars", &["policy/", "app/config/"]),
    ("cel", &["policy/"]),
    // Tables line up in terminals.
    ("unicode_width", &["audit/table.rs"]),
    ("clap", &["cli/"]),
    (
        "rustix",
        &["app/", "audit/reserve.rs", "audit/retention.rs", "admin/door.rs"],
    ),
    (
        "flate2",
        &["audit/stored.rs", "audit/retention.rs", "audit/lasting_tests.rs"],
    ),
    ("indicatif", &["cli/audit/"]),
    ("tracing_subscriber", &["app/"]),
    // Tests make the certificates that they need.
    (
        "rcgen",
        &[
            "cli/",
            "tls/tests.rs",
            "admin/tests/",
            "identity/tests/authorities.rs",
        ],
    ),
    // Looks for a correlation id in a journal of gigabytes.
    ("memchr", &["audit/"]),
    ("postgres_protocol", &["wire/", "credential/"]),
];

/// Libraries for the whole house; what may not touch `tokio` and `tracing` is told by [`PURE`].
const EVERYWHERE: [&str; 8] = [
    "base64",
    "bytes",
    "humantime",
    "serde",
    "serde_json",
    "thiserror",
    "tokio",
    "tracing",
];

const FILE_LINES_MAX: usize = 600;
const MAIN_LINES_MAX: usize = 60;

/// Names that say nothing: what is in such a file belongs to the room that needs it.
const SHAPELESS: [&str; 8] = [
    "util", "utils", "helper", "helpers", "common", "misc", "types", "manager",
];

#[test]
fn rooms_use_only_the_floors_below() {
    let findings = in_code(|file, line| {
        let used = line.split("crate::").skip(1).map(first_word);
        let wrong =
            used.filter(|used| *used != file.room && floor(used).is_none_or(|used| used >= file.floor));
        wrong
            .map(|used| format!("`{}` must not use `{used}`", file.room))
            .collect()
    });
    assert_none(&findings);
}

#[test]
fn imports_can_be_seen() {
    let findings = in_code(|file, line| {
        let bundled = line.contains("crate::{") || line.contains("super::super");
        // From a room's root `super::` leaves the room.
        let leaves = file.is_root && line.contains("super::") && !line.contains("super::*");
        if bundled || leaves {
            vec!["spell it `use crate::room::…;`".to_owned()]
        } else {
            vec![]
        }
    });
    assert_none(&findings);
}

#[test]
fn pure_rooms_only_compute() {
    let findings = in_code(|file, line| {
        let touched = OUTSIDE
            .iter()
            .filter(|word| PURE.contains(&file.room.as_str()) && line.contains(**word));
        touched
            .map(|word| format!("`{}` is pure and must not touch `{word}`", file.room))
            .collect()
    });
    assert_none(&findings);
}

/// A protocol is known to its codec, to what dials it, and to one folder of the session each; the story of
/// a session is written once and names neither.
#[test]
fn each_protocol_stays_in_its_corner() {
    const CORNERS: [(&str, &[&str]); 3] = [
        // The journal's thread reads the values of calls, long after they went on.
        (
            "wire::tds",
            &[
                "wire/",
                "tls/",
                "upstream/",
                "session/sqlserver/",
                "audit/values/",
            ],
        ),
        ("sql::tsql", &["sql/", "audit/", "session/sqlserver/"]),
        ("sql::pg", &["sql/", "audit/", "credential/", "session/postgres/"]),
    ];
    let findings = in_code(|file, line| {
        let strays = CORNERS.iter().filter(|(protocol, homes)| {
            line.contains(protocol) && !homes.iter().any(|home| file.inside.starts_with(home))
        });
        let mut found: Vec<_> = strays
            .map(|(protocol, homes)| format!("`{protocol}` belongs to {homes:?}"))
            .collect();
        if file.inside == "session/mod.rs" && (line.contains("SqlServer") || line.contains("sqlserver::")) {
            found.push("the story of a session names no protocol".to_owned());
        }
        found
    });
    assert_none(&findings);
}

#[test]
fn libraries_stay_in_their_room() {
    let findings = in_code(|file, line| {
        let strays = LIBRARIES.iter().filter(|(library, homes)| {
            names_library(line, library) && !homes.iter().any(|home| file.inside.starts_with(home))
        });
        strays
            .map(|(library, homes)| format!("`{library}` belongs to {homes:?}"))
            .collect()
    });
    assert_none(&findings);
}

#[test]
fn every_dependency_has_a_room() {
    let manifest = fs::read_to_string("Cargo.toml").unwrap();
    let listed = manifest.lines().skip_while(|line| *line != "[dependencies]");
    let listed = listed.skip(1).take_while(|line| !line.starts_with('['));
    let names = listed
        .filter_map(|line| line.split_once(" = "))
        .map(|(name, _)| name.replace('-', "_"));
    let homeless: Vec<_> = names
        .filter(|name| {
            let housed = LIBRARIES.iter().any(|(library, _)| library == name);
            !housed && !EVERYWHERE.contains(&name.as_str())
        })
        .collect();
    assert_none(&homeless);
}

#[test]
fn lints_are_expected_with_a_reason_and_never_silenced() {
    let findings = in_code(|_, line| {
        let silenced = line.contains("#[allow(") || line.contains("#![allow(");
        let unexplained = line.contains("#[expect(") && line.contains(")]") && !line.contains("reason");
        if silenced || unexplained {
            vec!["write `#[expect(…, reason = \"…\")]`".to_owned()]
        } else {
            vec![]
        }
    });
    assert_none(&findings);
}

#[test]
fn files_say_what_they_are_for_and_fit_in_a_head() {
    let mut findings = String::new();
    let folders = ["src", "tests", "examples"].map(Path::new);
    for path in folders.into_iter().flat_map(rust_files) {
        let text = fs::read_to_string(&path).unwrap();
        let shown = path.display();
        if !text.starts_with("//!") {
            writeln!(findings, "{shown}: begin with a `//!` sentence").unwrap();
        }
        let lines = text.lines().count();
        let limit = if path == Path::new("src/main.rs") {
            MAIN_LINES_MAX
        } else {
            FILE_LINES_MAX
        };
        if lines > limit {
            writeln!(findings, "{shown}: {lines} lines, at most {limit}").unwrap();
        }
        let stem = path.file_stem().and_then(|stem| stem.to_str()).unwrap();
        if SHAPELESS.contains(&stem) {
            writeln!(findings, "{shown}: name the thing, not its shape").unwrap();
        }
    }
    assert!(findings.is_empty(), "\n{findings}");
}

/// The rules are only worth something if they fire.
#[test]
fn the_rules_see_what_they_should_see() {
    assert!(names_library("use tokio_postgres::Client;", "tokio_postgres"));
    assert!(names_library("fn f(x: &rustls::ClientConfig)", "rustls"));
    assert!(!names_library("use tokio_rustls::TlsStream;", "rustls"));
    assert!(!names_library("let parcel::x = 1;", "cel"));
    assert_eq!(first_word("tls::Stream;"), "tls");
    assert!(floor("session") > floor("upstream"));
    assert_eq!(floor("nowhere"), None);
}

struct SourceFile {
    path: PathBuf,
    /// The path below `src/`, with `/`.
    inside: String,
    room: String,
    floor: usize,
    is_root: bool,
    text: String,
}

impl SourceFile {
    /// `None` for `lib.rs` and `main.rs`, which stand before the door.
    fn read(path: PathBuf) -> Option<Self> {
        let inside = path.strip_prefix("src").unwrap().to_str().unwrap().to_owned();
        let room = first_word(&inside).to_owned();
        if room == "lib" || room == "main" {
            return None;
        }
        let Some(floor) = floor(&room) else {
            panic!("give the room `{room}` a floor in {}", file!());
        };
        let is_root = inside == format!("{room}/mod.rs");
        let text = fs::read_to_string(&path).unwrap();
        Some(Self {
            path,
            inside,
            room,
            floor,
            is_root,
            text,
        })
    }
}

/// Applies `rule` to every line of code below `src/`.
fn in_code(rule: impl Fn(&SourceFile, &str) -> Vec<String>) -> Vec<String> {
    let mut findings = Vec::new();
    for file in rust_files(Path::new("src"))
        .into_iter()
        .filter_map(SourceFile::read)
    {
        for (index, line) in file.text.lines().enumerate() {
            let code = line.split("//").next().unwrap_or_default();
            let found = rule(&file, code).into_iter();
            findings.extend(found.map(|it| format!("{}:{}: {it}", file.path.display(), index + 1)));
        }
    }
    findings
}

fn assert_none(findings: &[String]) {
    assert!(findings.is_empty(), "\n{}", findings.join("\n"));
}

fn rust_files(folder: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            files.extend(rust_files(&path));
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            files.push(path);
        }
    }
    files.sort();
    files
}

fn floor(room: &str) -> Option<usize> {
    FLOORS.iter().position(|rooms| rooms.contains(&room))
}

/// `library::` as a whole word; every use of a crate has one.
fn names_library(code: &str, library: &str) -> bool {
    let path = format!("{library}::");
    code.match_indices(&path).any(|(at, _)| {
        let before = code[..at].chars().next_back();
        // `crate::identity::hyper::…` is our own module, not the library.
        before.is_none_or(|before| !(before.is_alphanumeric() || before == '_' || before == ':'))
            || code[..at].trim_end().ends_with("use ::")
    })
}

fn first_word(path: &str) -> &str {
    path.split(|c: char| !c.is_alphanumeric() && c != '_')
        .next()
        .unwrap_or_default()
}
