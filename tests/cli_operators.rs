//! The operators' commands against a socket that answers what the test wants: what is asked, what is
//! printed, and the exit codes.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on stops")]

use std::fs;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::process::Command;
use std::thread;

/// What a command said, and what it had asked.
struct Said {
    code: i32,
    out: String,
    err: String,
    /// The request line, and its body.
    asked: String,
}

fn gatepost(folder: &Path, arguments: &[&str]) -> (i32, String, String) {
    let output = Command::new(env!("CARGO_BIN_EXE_gatepost"))
        .args(arguments)
        .env_remove("GATEPOST_TOKEN")
        .current_dir(folder)
        .output()
        .unwrap();
    (
        output.status.code().unwrap(),
        String::from_utf8(output.stdout).unwrap(),
        String::from_utf8(output.stderr).unwrap(),
    )
}

/// Runs a command against a socket that answers this once.
fn run(arguments: &[&str], status: u16, body: &str) -> Said {
    let folder = tempfile::tempdir().unwrap();
    let listener = UnixListener::bind(folder.path().join("admin.sock")).unwrap();
    let answer = format!(
        "HTTP/1.1 {status} X\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n{body}",
        body.len()
    );
    let served = thread::spawn(move || {
        let (stream, _) = listener.accept().unwrap();
        let mut reader = BufReader::new(stream);
        let (mut asked, mut length) = (String::new(), 0);
        reader.read_line(&mut asked).unwrap();
        let mut line = String::new();
        while reader.read_line(&mut line).unwrap() > 2 {
            if let Some(value) = line.to_lowercase().strip_prefix("content-length: ") {
                length = value.trim().parse().unwrap();
            }
            line.clear();
        }
        let mut body = vec![0; length];
        reader.read_exact(&mut body).unwrap();
        reader.get_mut().write_all(answer.as_bytes()).unwrap();
        let asked = asked.trim().strip_suffix(" HTTP/1.1").unwrap().to_owned();
        format!("{asked} {}", String::from_utf8(body).unwrap())
    });
    let (code, out, err) = gatepost(folder.path(), &[arguments, &["--socket", "admin.sock"]].concat());
    let asked = served.join().unwrap().trim().to_owned();
    Said {
        code,
        out,
        err,
        asked,
    }
}

#[test]
fn each_command_asks_its_route() {
    let rows: &[(&[&str], &str)] = &[
        (&["sessions", "list"], "GET /v1/sessions"),
        (&["sessions", "kill", "s-01"], "DELETE /v1/sessions/s-01"),
        (&["pools"], "GET /v1/pools"),
        (&["logins"], "GET /v1/logins"),
        (&["policy", "show"], "GET /v1/policy"),
        (&["reload"], "POST /v1/reload"),
        (&["rotate", "--logins"], "POST /v1/logins/rotate"),
        (
            &["rotate", "--logins", "--target", "orders"],
            r#"POST /v1/logins/rotate {"target":"orders"}"#,
        ),
        (&["keys", "refresh", "okta"], "POST /v1/providers/okta/refresh"),
        (&["revoke", "list"], "GET /v1/revocations"),
        (&["revoke", "lift", "r-01"], "DELETE /v1/revocations/r-01"),
        (
            &["revoke", "--subject", "ann"],
            r#"POST /v1/revocations {"for":"24h","subject":"ann"}"#,
        ),
        (
            &[
                "revoke",
                "--session",
                "s-01",
                "--provider",
                "okta",
                "--for",
                "5m",
                "--reason",
                "gone",
            ],
            r#"POST /v1/revocations {"for":"5m","provider":"okta","reason":"gone","session":"s-01"}"#,
        ),
    ];
    for (arguments, expected) in rows {
        let said = run(arguments, 200, "{}");
        assert_eq!(said.asked, *expected);
        assert_eq!((said.code, said.err.as_str()), (0, ""), "{arguments:?}");
        let said = run(&[arguments, &["--json"][..]].concat(), 200, r#"{"a": [1]}"#);
        let printed: serde_json::Value = serde_json::from_str(&said.out).unwrap();
        assert_eq!(printed, serde_json::json!({"a": [1]}), "{arguments:?}");
    }
}

#[test]
fn a_list_is_a_table_and_no_clients_text_reaches_the_terminal_raw() {
    let body = r#"{"total": 12000, "sessions": [
        {"session": "s-01", "identity": {"subject": "00u1", "provider": "okta"}, "client": {"address": "10.0.0.1:5", "application": "a\u001b[2J\rb"},
         "target": "orders", "database": "orders", "role": "writer", "doing": "idle", "transactions": 12, "opened": "2026-01-01T00:00:00Z"},
        {"session": "s-0002", "doing": "opening"}]}"#;
    let said = run(&["sessions", "list"], 200, body);
    let lines: Vec<_> = said.out.lines().collect();
    assert_eq!(lines.len(), 3, "{}", said.out);
    let column = lines[0].find("DOING").unwrap();
    assert!(lines[1].contains(r"a\u{1b}[2J\u{d}b"), "{}", lines[1]);
    assert!(lines[1][column..].starts_with("idle "), "{}", said.out);
    assert!(lines[2].starts_with("s-0002   -"), "{}", lines[2]);
    assert!(!said.out.contains(['\u{1b}', '\r']));
    assert_eq!(said.err, "2 of 12000 are shown\n");
    assert_eq!(
        run(&["sessions", "list"], 200, r#"{"sessions": []}"#).out,
        "no sessions\n"
    );
}

#[test]
fn a_no_is_told_with_its_reason_and_exits_with_one() {
    let problem = r#"{"title": "Conflict", "status": 409, "detail": "1 mistake(s) \u001b[0m", "hint": "correct them",
        "mistakes": ["p.yaml:1:4: not that\n  |\n1 | a: b\n  |    ^"]}"#;
    let said = run(&["reload"], 409, problem);
    assert_eq!((said.code, said.out.as_str()), (1, ""));
    let expected = "p.yaml:1:4: not that\n  |\n1 | a: b\n  |    ^\ngatepost: 1 mistake(s) \\u{1b}[0m\nhint: correct them\n";
    assert_eq!(said.err, expected);
    let json = run(&["reload", "--json"], 409, problem);
    assert_eq!((json.code, json.err.as_str()), (1, ""));
    let printed: serde_json::Value = serde_json::from_str(&json.out).unwrap();
    assert_eq!(printed["status"], 409);
    let other = run(&["pools"], 200, "<html>");
    assert_eq!(other.code, 1);
    assert!(other.err.contains("is not gatepost's API"), "{}", other.err);
}

#[test]
fn the_configuration_leads_to_the_socket_without_its_secrets() {
    let folder = tempfile::tempdir().unwrap();
    let config = "installation: test
listen:
  postgres: {address: 127.0.0.1:0, allow_plaintext: true}
  admin_socket: {path: run/admin.sock}
identity_providers:
  dev: {issuer: \"http://127.0.0.1:1\", audiences: [a]}
targets:
  orders:
    engine: postgres
    address: 127.0.0.1:5432
    databases: [orders]
    broker: {user: b, password: {env: NO_SUCH_VARIABLE}}
policies: [nowhere]
audit: {directory: audit, signing_key: {file: nowhere}}
";
    fs::write(folder.path().join("gatepost.yaml"), config).unwrap();
    let (code, _, err) = gatepost(folder.path(), &["pools"]);
    assert_eq!(code, 1);
    assert!(
        err.starts_with("gatepost: no gatepost answers at run/admin.sock"),
        "{err}"
    );
    let without = config.replace("  admin_socket: {path: run/admin.sock}\n", "");
    fs::write(folder.path().join("gatepost.yaml"), without).unwrap();
    let (code, _, err) = gatepost(folder.path(), &["pools"]);
    assert!(code == 1 && err.contains("has no listen.admin_socket"), "{err}");
    fs::write(
        folder.path().join("gatepost.yaml"),
        config.replace("path: run", "pth: run"),
    )
    .unwrap();
    let (code, _, err) = gatepost(folder.path(), &["pools"]);
    assert!(code == 1 && err.contains("unknown key \"pth\""), "{err}");
}

#[test]
fn what_cannot_be_meant_exits_with_two() {
    let folder = tempfile::tempdir().unwrap();
    let rows: &[&[&str]] = &[
        &["sessions"],
        &["sessions", "kill"],
        &["sessions", "kill", "../pools"],
        &["rotate"],
        &["keys", "refresh", "a/b"],
        &["revoke"],
        &["revoke", "--subject", "a", "--client-id", "b"],
        &["revoke", "--subject", "a", "--for", "soon"],
        &["revoke", "--subject", "a", "list"],
        &["revoke", "lift"],
        &["pools", "--socket", "a", "--api", "https://b"],
        &["pools", "--token-file", "a"],
        // A token has no place on a command line.
        &["pools", "--api", "https://b", "--token", "x"],
    ];
    for arguments in rows {
        let (code, out, err) = gatepost(folder.path(), arguments);
        assert_eq!((code, out.as_str()), (2, ""), "{arguments:?}: {err}");
    }
    // Understood, but not to be done: a token would cross in clear, or there is none.
    let plain = ["pools", "--api", "http://127.0.0.1:1", "--token-file", "t"];
    fs::write(folder.path().join("t"), "x.y.z\n").unwrap();
    let (code, _, err) = gatepost(folder.path(), &plain);
    assert!(
        code == 1 && err.contains("is not an address like https://"),
        "{err}"
    );
    let (code, _, err) = gatepost(folder.path(), &["pools", "--api", "https://127.0.0.1:1"]);
    assert!(code == 1 && err.contains("give --token-file"), "{err}");
}
