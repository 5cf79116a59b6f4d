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
        // Neither password, both passwords, no target, nobody to connect as.
        &["roles", "plan", "--target", "t", "--as", "u"],
        &[
            "roles",
            "plan",
            "--target=t",
            "--as=u",
            "--password-env=A",
            "--password-file=b",
        ],
        &["roles", "apply", "--as", "u", "--password-env", "A"],
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
