//! The built binary, as a person or a script meets it: exit codes, help, what goes where.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on stops")]

use std::fs;
use std::path::Path;
use std::process::{Command, Output};

fn gatepost(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_gatepost"))
        .args(arguments)
        .env("GATEPOST_TEST_BROKER", "broker-secret")
        .output()
        .unwrap()
}

fn code(output: &Output) -> i32 {
    output.status.code().unwrap()
}

fn out(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).unwrap()
}

fn err(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).unwrap()
}

/// All commands, as the top-level help lists them.
fn commands(path: &[&str]) -> Vec<String> {
    let help = out(&gatepost(&[path, &["--help"]].concat()));
    let listed = help
        .lines()
        .skip_while(|line| !line.starts_with("Commands:"))
        .skip(1);
    let names = listed
        .take_while(|line| !line.is_empty())
        .filter(|line| line.starts_with("  "));
    let names = names.filter_map(|line| line.split_whitespace().next());
    names.filter(|name| *name != "help").map(str::to_owned).collect()
}

#[test]
fn every_command_has_help_with_an_example() {
    let top = commands(&[]);
    assert!(top.contains(&"check".to_owned()), "{top:?}");
    for command in top {
        let nested = commands(&[&command]);
        let paths = if nested.is_empty() {
            vec![vec![command.clone()]]
        } else {
            nested
                .into_iter()
                .map(|nested| vec![command.clone(), nested])
                .collect()
        };
        for path in paths {
            let words: Vec<_> = path.iter().map(String::as_str).chain(["--help"]).collect();
            let output = gatepost(&words);
            assert_eq!(code(&output), 0, "{path:?}");
            let help = out(&output);
            let example = format!("gatepost {}", path.join(" "));
            assert!(
                help.contains("Example") && help.contains(&example),
                "{path:?}:\n{help}"
            );
        }
    }
}

#[test]
fn a_wrong_command_line_exits_with_two() {
    for arguments in [
        &[][..],
        &["no-such"],
        &["check", "--no-such"],
        &["schema", "nothing"],
        &["roles"],
        // Neither password, both passwords, nobody to connect as.
        &["roles", "plan", "--target", "t", "--as", "u"],
        &[
            "roles",
            "plan",
            "--target=t",
            "--as=u",
            "--password-env=A",
            "--password-file=b",
        ],
        &["roles", "apply", "--target", "t", "--password-env", "A"],
        // A password has no place on a command line.
        &["roles", "plan", "--target", "t", "--as", "u", "--password", "p"],
    ] {
        let output = gatepost(arguments);
        assert_eq!(code(&output), 2, "{arguments:?}");
        assert!(
            out(&output).is_empty() && !err(&output).is_empty(),
            "{arguments:?}"
        );
    }
}

#[test]
fn the_schema_is_json() {
    let output = gatepost(&["schema", "config"]);
    assert_eq!(code(&output), 0);
    let schema: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(schema["additionalProperties"], false);
}

const CONFIG: &str = "\
installation: test
listen: {postgres: {address: 127.0.0.1:0}}
tls: {certificate: server.crt, private_key: {file: server.key}}
identity_providers:
  local: {issuer: \"http://127.0.0.1:1\", audiences: [gatepost]}
targets:
  orders:
    engine: postgres
    address: 127.0.0.1:1
    tls: {mode: verify-full, ca: ca.crt, client_certificate: client.crt, client_key: {file: client.key}}
    databases: [orders]
    broker: {user: broker, password: {env: GATEPOST_TEST_BROKER}}
policies: [policy.yaml]
audit: {directory: audit, signing_key: {file: signing.key}}
";

const POLICY: &str = "\
version: 1
roles:
  reader:
    target: orders
    database: orders
    grants:
      - {privileges: [select], on: {tables: [public.orders]}}
rules:
  - name: everyone-reads
    identity: {provider: local, client_id: reader-app}
    grant: {role: reader, login_ttl: 30m, session_max: 8h}
";

/// A folder with certificates, a configuration and a policy.
fn installation() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    let made = gatepost(&["certs", "--directory", folder.path().to_str().unwrap()]);
    assert_eq!(code(&made), 0, "{}", err(&made));
    fs::write(folder.path().join("gatepost.yaml"), CONFIG).unwrap();
    fs::write(folder.path().join("policy.yaml"), POLICY).unwrap();
    folder
}

fn check(folder: &Path, more: &[&str]) -> Output {
    let config = folder.join("gatepost.yaml");
    gatepost(&[&["check", "--config", config.to_str().unwrap()], more].concat())
}

#[test]
fn check_is_content_with_a_good_installation() {
    let folder = installation();
    let output = check(folder.path(), &[]);
    assert_eq!(code(&output), 0, "{}", err(&output));
    assert!(out(&output).ends_with("good\n"));
    // Checking leaves nothing behind.
    assert!(!folder.path().join("audit").exists());
}

#[test]
fn check_prints_every_mistake_and_exits_with_one() {
    let folder = installation();
    let broken = CONFIG
        .replace("address: 127.0.0.1:1\n", "address: nowhere\n")
        .replace("policies:", "polices:");
    fs::write(folder.path().join("gatepost.yaml"), broken).unwrap();
    let output = check(folder.path(), &[]);
    assert_eq!(code(&output), 1);
    let told = err(&output);
    assert!(
        told.contains("gatepost.yaml:9:14: \"nowhere\" is not a host and port"),
        "{told}"
    );
    assert!(
        told.contains("gatepost.yaml:13:1: unknown key \"polices\""),
        "{told}"
    );
    assert!(told.contains("3 mistakes"), "{told}");
    let output = check(folder.path(), &["--json"]);
    assert_eq!(code(&output), 1);
    let document: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(document["good"], false);
    assert_eq!(document["mistakes"].as_array().unwrap().len(), 3);
}

#[test]
fn check_names_a_configuration_that_is_not_there() {
    let output = gatepost(&["check", "--config", "/nowhere/gatepost.yaml"]);
    assert_eq!(code(&output), 1);
    assert!(err(&output).contains("cannot read /nowhere/gatepost.yaml"));
}

#[test]
fn certs_never_overwrites_and_hides_keys() {
    use std::os::unix::fs::PermissionsExt;
    let folder = installation();
    let key = folder.path().join("server.key");
    assert_eq!(fs::metadata(&key).unwrap().permissions().mode() & 0o777, 0o600);
    let before = fs::read(&key).unwrap();
    let again = gatepost(&["certs", "--directory", folder.path().to_str().unwrap()]);
    assert_eq!(code(&again), 1);
    assert!(err(&again).contains("exists already"));
    assert_eq!(fs::read(&key).unwrap(), before);
}

#[test]
fn roles_need_a_target_that_is_configured() {
    let folder = installation();
    let config = folder.path().join("gatepost.yaml");
    let words = [
        "--target",
        "payments",
        "--as",
        "u",
        "--password-env",
        "GATEPOST_TEST_BROKER",
    ];
    let output = gatepost(
        &[
            &["roles", "plan", "--config", config.to_str().unwrap()],
            &words[..],
        ]
        .concat(),
    );
    assert_eq!(code(&output), 1);
    assert!(
        err(&output).contains("no target \"payments\""),
        "{}",
        err(&output)
    );
}

#[test]
fn audit_verify_needs_a_journal_and_says_so() {
    let folder = installation();
    let key = folder.path().join("signing.pub");
    let empty = folder.path().join("none");
    let arguments = [
        "audit",
        "verify",
        "--directory",
        empty.to_str().unwrap(),
        "--public-key",
        key.to_str().unwrap(),
    ];
    let output = gatepost(&arguments);
    assert_eq!(code(&output), 1, "{}", err(&output));
    assert!(err(&output).contains("NOT SOUND"), "{}", err(&output));
    assert_eq!(code(&gatepost(&["audit", "verify"])), 2);
}

#[test]
fn check_refuses_a_key_that_does_not_belong_to_its_certificate() {
    let folder = installation();
    fs::copy(folder.path().join("client.key"), folder.path().join("server.key")).unwrap();
    fs::copy(
        folder.path().join("client.key"),
        folder.path().join("signing.key"),
    )
    .unwrap();
    let output = check(folder.path(), &[]);
    assert_eq!(code(&output), 1);
    let told = err(&output);
    assert!(told.contains("tls: the private key does not match"), "{told}");
    assert!(told.contains("audit.signing_key"), "{told}");
}

/// A journal by hand: two transactions, one without an outcome, and a name that means harm.
fn journal(folder: &Path) -> [String; 4] {
    let record = |seq: u64, event: &str, rest: &str| {
        format!(
            r#"{{"v":1,"seq":{seq},"at":"2026-05-01T12:00:0{seq}.000000Z","installation":"i","replica":"r","epoch":1,"event":"{event}",{rest}}}"#
        )
    };
    let facts = r#""session":"s-1","identity":{"provider":"p","subject":"ann\u001b[2J"},"target":"orders","database":"orders","role":"writer""#;
    let lines = [
        record(1, "session.opened", facts),
        record(
            2,
            "transaction.outcome",
            &format!(
                r#"{facts},"correlation":[{{"id":"m-1","source":"set"}}],"detail":{{"number":1,"id":742,"began":"2026-05-01T12:00:01.500000Z","outcome":"committed","statements":[]}}"#
            ),
        ),
        record(
            3,
            "transaction.intent",
            &format!(
                r#"{facts},"detail":{{"number":2,"began":"2026-05-01T12:00:02.500000Z","statements":[]}}"#
            ),
        ),
        record(4, "session.closed", facts),
    ];
    fs::create_dir(folder.join("audit")).unwrap();
    let text = lines.join("\n") + "\n";
    fs::write(folder.join("audit/segment-0000000000000001.jsonl"), text).unwrap();
    lines
}

#[test]
fn audit_show_lists_transactions_or_the_records_byte_for_byte() {
    let folder = tempfile::tempdir().unwrap();
    let lines = journal(folder.path());
    let directory = folder.path().join("audit");
    let show = |filter: &[&str]| {
        let base = ["audit", "show", "--directory", directory.to_str().unwrap()];
        gatepost(&[&base, filter].concat())
    };
    let table = out(&show(&[]));
    assert_eq!(table.lines().count(), 3, "{table}");
    assert!(
        table.contains("ann\\u{1b}[2J") && !table.contains('\u{1b}'),
        "{table}"
    );
    assert!(table.lines().nth(2).unwrap().contains("unknown"), "{table}");
    let unknown = out(&show(&["--outcome", "unknown", "--json"]));
    assert!(
        unknown.lines().count() == 1 && unknown.contains("\"number\":2"),
        "{unknown}"
    );
    let all = out(&show(&["--records", "--format", "json"]));
    assert_eq!(all, lines.join("\n") + "\n");
    let last = out(&show(&["--event", "session.*", "--json", "--limit", "1"]));
    assert_eq!(last, lines[3].clone() + "\n");
    let timed = out(&show(&[
        "--records",
        "--json",
        "--from",
        "2026-05-01T12:00:03Z",
        "--to",
        "2026-05-02",
    ]));
    assert_eq!(timed, lines[2..].join("\n") + "\n");
    for nothing in [["--subject", "ann"], ["--from", "1s"]] {
        let output = show(&nothing);
        assert_eq!(code(&output), 1, "{nothing:?}");
    }
    assert_eq!(code(&show(&["--from", "yesterday"])), 2);
}

#[test]
fn audit_show_follows_until_it_is_interrupted() {
    use std::io::{BufRead as _, BufReader, Write as _};
    let folder = tempfile::tempdir().unwrap();
    let lines = journal(folder.path());
    let directory = folder.path().join("audit");
    let mut child = Command::new(env!("CARGO_BIN_EXE_gatepost"))
        .args(["audit", "show", "--follow", "--json", "-n", "1", "--directory"])
        .arg(&directory)
        .stdout(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    let mut told = BufReader::new(child.stdout.take().unwrap())
        .lines()
        .map(Result::unwrap);
    assert_eq!(told.next().unwrap(), lines[3]);
    // A new segment, and a line that is written in two pieces.
    let fifth = lines[3].replace("\"seq\":4", "\"seq\":5");
    let mut segment = fs::File::create(directory.join("segment-0000000000000005.jsonl")).unwrap();
    segment.write_all(&fifth.as_bytes()[..20]).unwrap();
    segment.write_all(&fifth.as_bytes()[20..]).unwrap();
    segment.write_all(b"\n").unwrap();
    assert_eq!(told.next().unwrap(), fifth);
    let interrupted = Command::new("kill")
        .args(["-INT", &child.id().to_string()])
        .status();
    assert!(interrupted.unwrap().success());
    assert_eq!(child.wait().unwrap().code(), Some(0));
}

#[test]
fn audit_report_says_that_a_journal_is_not_sound_and_audit_export_takes_every_form() {
    let folder = tempfile::tempdir().unwrap();
    journal(folder.path());
    let directory = folder.path().join("audit");
    let directory = directory.to_str().unwrap();
    for (format, begins) in [
        ("ocsf", "{\"activity_id\""),
        ("cef", "CEF:0|"),
        ("rfc5424", "<110>1 "),
    ] {
        let exported = out(&gatepost(&[
            "audit",
            "export",
            "--directory",
            directory,
            "--format",
            format,
            "--event",
            "session.*",
        ]));
        assert_eq!(exported.lines().count(), 2, "{exported}");
        assert!(
            exported.lines().all(|line| line.starts_with(begins)),
            "{exported}"
        );
    }
    let report = |rest: &[&str]| gatepost(&[&["audit", "report", "--directory", directory], rest].concat());
    assert_eq!(code(&report(&["--control", "CC9.9"])), 2);
    let without_key = report(&["--from", "2026-05-01"]);
    assert_eq!(code(&without_key), 1);
    assert!(err(&without_key).contains("signing.pub"), "{}", err(&without_key));
    let public = "-----BEGIN PUBLIC KEY-----\nMCowBQYDK2VwAyEAGb9ECWmEzf6FQbrBZ9w7lshQhqowtrbLDFw4rXAxZuE=\n-----END PUBLIC KEY-----\n";
    fs::write(folder.path().join("audit/signing.pub"), public).unwrap();
    let output = report(&["--from", "2026-05-01", "--to", "2026-05-02", "--format", "json"]);
    assert_eq!(code(&output), 1, "the lines are not chained");
    let json: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(json["chain"]["result"], "broken");
    assert_eq!(json["access"]["identities"][0]["sessions"], 1);
    let page = folder.path().join("q.html");
    let output = report(&[
        "--from",
        "2026-05-01",
        "--to",
        "2026-05-02",
        "--output",
        page.to_str().unwrap(),
    ]);
    assert!(out(&output).is_empty());
    let text = fs::read_to_string(&page).unwrap();
    assert!(text.contains("NOT SOUND") && !text.contains('\u{1b}'));
}
