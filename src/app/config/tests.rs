//! Tables of mistakes: what was written, and exactly what its author reads.

use std::io;
use std::path::Path;

use crate::app::config::settings::{BrokerCredential, Environment, Settings};
use crate::credential::Logins;
use crate::domain::{Mistake, Secret};
use crate::identity::managed::Endpoint;

const GOOD: &str = "\
installation: payments-prod
listen:
  postgres: {address: 127.0.0.1:6432}
  metrics: {address: 127.0.0.1:9090}
tls: {certificate: certs/server.crt, private_key: {file: certs/server.key}}
identity_providers:
  entra: {issuer: \"https://login.microsoftonline.com/T/v2.0\", audiences: [\"api://gatepost\"]}
targets:
  orders:
    engine: postgres
    address: db.internal:5432
    databases: [orders]
    broker: {user: gatepost_broker, password: {env: BROKER}}
policies: [policies/]
audit: {directory: audit, signing_key: {file: certs/sign.key}}
";

fn variable(name: &str) -> Option<String> {
    (name == "BROKER").then(|| "hunter2\n".to_owned())
}

fn read_file(path: &Path) -> io::Result<Vec<u8>> {
    if path.starts_with("etc/certs") {
        Ok(b"PEM".to_vec())
    } else {
        Err(io::ErrorKind::NotFound.into())
    }
}

fn parse(text: &str) -> Result<Settings, Vec<Mistake>> {
    let environment = Environment {
        variable: &variable,
        read_file: &read_file,
        default_replica: "here-1".to_owned(),
        cores: 3,
    };
    Settings::parse(Path::new("etc/gatepost.yaml"), text, &environment)
}

/// All mistakes as printed.
fn printed(text: &str) -> String {
    let mistakes = parse(text).unwrap_err();
    let shown: Vec<_> = mistakes.iter().map(Mistake::to_string).collect();
    shown.join("\n")
}

/// `GOOD` with one place changed.
fn with(from: &str, to: &str) -> String {
    assert!(GOOD.contains(from), "{from}");
    GOOD.replacen(from, to, 1)
}

#[test]
fn the_good_file_means_what_it_says() {
    let settings = parse(GOOD).unwrap();
    assert_eq!(settings.replica.as_str(), "here-1");
    assert_eq!(settings.threads, 3);
    assert_eq!(settings.policies, [Path::new("etc/policies/")]);
    let target = &settings.targets[0];
    assert_eq!((target.host.as_str(), target.port), ("db.internal", 5432));
    let password = BrokerCredential::Password(Secret::new("hunter2".to_owned()));
    assert_eq!((&target.broker, target.logins), (&password, Logins::Minted));
    assert_eq!(
        settings.providers[0].kind,
        crate::app::config::file::ProviderKind::Entra
    );
    assert!(!format!("{settings:?}").contains("hunter2"));
}

#[test]
fn a_mistake_has_a_place_and_a_caret() {
    let text = with("address: db.internal:5432", "address: db.internal");
    let expected = "\
etc/gatepost.yaml:11:14: \"db.internal\" is not a host and port, like db.internal:5432
   |
11 |     address: db.internal
   |              ^";
    assert_eq!(printed(&text), expected);
}

#[test]
fn all_mistakes_are_told_at_once() {
    let text = with("installation: payments-prod", "installation: 5\ninstalation: x")
        .replacen("https://login", "http://login", 1)
        .replacen("engine: postgres", "engine: oracle", 1)
        .replacen("{env: BROKER}", "{env: NO_SUCH}", 1)
        .replacen("certs/sign.key", "elsewhere/sign.key", 1);
    let mistakes = parse(&text).unwrap_err();
    let told: Vec<_> = mistakes
        .iter()
        .map(|it| (it.place.as_ref().unwrap().line, it.message.as_str()))
        .collect();
    let lines: Vec<_> = told.iter().map(|(line, _)| *line).collect();
    assert_eq!(lines, [1, 2, 8, 11, 14, 16], "{told:#?}");
}

/// What is changed, and a part of the sentence that its author must read.
const TABLE: &[(&str, &str, &str)] = &[
    (
        "installation: payments-prod",
        "installation: [a]",
        "1:15: expected text, found a list",
    ),
    ("installation: payments-prod\n", "", "\"installation\" is missing"),
    (
        "installation: payments-prod",
        "installation: 1st",
        "1:15: \"1st\" is not a name",
    ),
    (
        "signing_key: {file: certs/sign.key}",
        "signing_key: {file: certs/sign.key}, heads: {to: x}",
        "unknown key \"to\"; known here: file, log",
    ),
    (
        "signing_key: {file: certs/sign.key}",
        "signing_key: {file: certs/sign.key}, retention: {keep: 400s}",
        "\"400s\" must be a day or more",
    ),
    (
        "signing_key: {file: certs/sign.key}",
        "signing_key: {file: certs/sign.key}, retention: {compress_after: 30d, keep: 7d}",
        "a segment is removed before it is this old",
    ),
    (
        "policies:",
        "polices:",
        "14:1: unknown key \"polices\"; known here: installation,",
    ),
    (
        "engine: postgres",
        "engine: postgres\n    engine: postgres",
        "11:5: duplicate key \"engine\"",
    ),
    (
        "engine: postgres",
        "engine: sqlserver",
        "no listener leads to this target: add \"listen.sqlserver\"",
    ),
    (
        "engine: postgres",
        "engine: postgres\n    credential: certificate",
        "11:17: \"certificate\" is refused",
    ),
    (
        "engine: postgres",
        "engine: postgres\n    contained: true",
        "11:16: contained users are SQL Server's",
    ),
    (
        "engine: postgres",
        "engine: postgres\n    marker_table: gatepost.markers",
        "marker_table is SQL Server's; on PostgreSQL it is wal_marker",
    ),
    (
        "engine: postgres",
        "engine: postgres\n    pool: {mode: transaction}",
        "11:18: \"transaction\" is refused",
    ),
    (
        "engine: postgres",
        "engine: postgres\n    pool: {max_connections: 0}",
        "11:29: must be at least 1",
    ),
    (
        "engine: postgres",
        "engine: postgres\n    pool: {queue_timeout: 5}",
        "11:27: expected text (quote it)",
    ),
    (
        "engine: postgres",
        "engine: postgres\n    pool: {idle_timeout: soon}",
        "is not a duration",
    ),
    (
        "engine: postgres",
        "engine: postgres\n    tls: {mode: prefer}",
        "11:17: \"prefer\" is refused: it falls back",
    ),
    (
        "engine: postgres",
        "engine: postgres\n    tls: {mode: disable, ca: certs/x}",
        "11:30: mode: disable would ignore",
    ),
    (
        "engine: postgres",
        "engine: postgres\n    tls: {client_certificate: certs/x}",
        "needs its client_key",
    ),
    (
        "engine: postgres",
        "engine: postgres\n    tls: {ca: nowhere.crt}",
        "11:15: cannot read etc/nowhere.crt",
    ),
    (
        "{user: gatepost_broker, password: {env: BROKER}}",
        "{user: gatepost_broker, managed_identity: x}",
        "13:55: expected a mapping",
    ),
    (
        "password: {env: BROKER}",
        "password: {env: BROKER}, managed_identity: {}",
        "13:80: a broker has either",
    ),
    (
        ", password: {env: BROKER}",
        "",
        "13:13: \"password\" is missing (or managed_identity",
    ),
    (
        "password: {env: BROKER}",
        "managed_identity: {source: vault}",
        "13:64: \"vault\" is not one of: auto, imds, app_service, workload",
    ),
    (
        "password: {env: BROKER}",
        "managed_identity: {source: workload}",
        "13:64: workload identity needs",
    ),
    (
        "password: {env: BROKER}",
        "managed_identity: {secret: x}",
        "unknown key \"secret\"; known here: source, client_id, resource",
    ),
    (
        "password: {env: BROKER}",
        "managed_identity: {resource: orders}",
        "13:66: \"orders\" is not an address",
    ),
    (
        "databases: [orders]\n    broker: {user: gatepost_broker, password: {env: BROKER}}",
        "databases: [orders]\n    tls: {mode: verify-ca}\n    broker: {user: b, managed_identity: {}}",
        "14:41: a token is shown to the server as it is",
    ),
    (
        "engine: postgres",
        "engine: postgres\n    credential: managed_identity",
        "11:17: clients' connections would log in as the broker's managed identity",
    ),
    ("metrics:", "sqlserver:", "no target of this engine"),
    (
        "metrics:",
        "postgres_oauth:",
        "4:3: \"postgres_oauth\" is refused: it is not enforced",
    ),
    (
        "metrics: {address: 127.0.0.1:9090}",
        "api: {address: 127.0.0.1}",
        "4:18: \"127.0.0.1\" is not an IP address and port",
    ),
    (
        "metrics: {address: 127.0.0.1:9090}",
        "api: {}",
        "4:8: \"address\" is missing",
    ),
    (
        "metrics: {address: 127.0.0.1:9090}",
        "admin_socket: {path: \"\"}",
        "4:24: must not be empty",
    ),
    (
        "metrics: {address: 127.0.0.1:9090}",
        "admin_socket: admin.sock",
        "4:17: expected",
    ),
    (
        "targets:",
        "session: {expiry_grace: never}\ntargets:",
        "8:25: \"never\" is not a duration",
    ),
    (
        "127.0.0.1:6432}",
        "0.0.0.0:6432, allow_plaintext: true}",
        "3:54: allow_plaintext is only for a loopback",
    ),
    (
        "tls: {certificate: certs/server.crt, private_key: {file: certs/server.key}}\n",
        "",
        "this listener needs \"tls\"",
    ),
    (
        "127.0.0.1:6432",
        "localhost:6432",
        "3:23: \"localhost:6432\" is not an IP address and port",
    ),
    ("https://login", "http://login", "7:19: the issuer must be https"),
    ("[\"api://gatepost\"]", "[]", "at least one audience"),
    (
        "databases: [orders]",
        "databases: [orders, orders]",
        "12:25: \"orders\" already names a database of target",
    ),
    (
        "address: db.internal:5432",
        "address: db.internal:5432\n    tls: {mode: strict}",
        "mode: strict is SQL Server's TDS 8.0",
    ),
    ("databases: [orders]", "databases: []", "at least one database"),
    (
        "policies: [policies/]",
        "policies: []",
        "without one, nobody gets in",
    ),
    (
        "policies: [policies/]",
        "policies: [policies/]\nthreads: 0",
        "15:10: must be between 1 and 512",
    ),
    (
        "{env: BROKER}",
        "{env: NO_SUCH}",
        "environment variable NO_SUCH is not set",
    ),
    ("{env: BROKER}", "{file: none}", "cannot read etc/none"),
    (
        "{env: BROKER}",
        "{env: BROKER, file: x}",
        "only accepted by reference",
    ),
];

#[test]
fn every_mistake_is_refused_at_its_place() {
    for (from, to, told) in TABLE {
        let shown = printed(&with(from, to));
        assert!(
            shown.contains(told),
            "{to}\n  should tell: {told}\n  but told: {shown}"
        );
    }
}

#[test]
fn one_change_makes_one_mistake() {
    for (from, to, _) in TABLE
        .iter()
        .filter(|(_, to, _)| !to.is_empty() && !to.starts_with("polices"))
    {
        let mistakes = parse(&with(from, to)).unwrap_err();
        assert_eq!(mistakes.len(), 1, "{to}: {mistakes:#?}");
    }
}

#[test]
fn the_api_needs_a_certificate_and_the_socket_does_not() {
    let doors = "metrics: {address: 127.0.0.1:9090}\n  api: {address: 0.0.0.0:8443}\n  admin_socket: {path: run/admin.sock}";
    let text = with("metrics: {address: 127.0.0.1:9090}", doors);
    let settings = parse(&text).unwrap();
    assert_eq!(settings.api, Some("0.0.0.0:8443".parse().unwrap()));
    assert_eq!(settings.admin_socket.unwrap(), Path::new("etc/run/admin.sock"));

    let long = text.replacen("run/admin.sock", &"x".repeat(104), 1);
    assert!(printed(&long).contains("at most 107 bytes"), "{}", printed(&long));

    let tls = "tls: {certificate: certs/server.crt, private_key: {file: certs/server.key}}\n";
    let bare =
        text.replacen(tls, "", 1)
            .replacen("127.0.0.1:6432}", "127.0.0.1:6432, allow_plaintext: true}", 1);
    assert!(
        printed(&bare).contains("5:18: the API needs \"tls\""),
        "{}",
        printed(&bare)
    );
    let socket_only = bare.replacen("  api: {address: 0.0.0.0:8443}\n", "", 1);
    assert!(parse(&socket_only).unwrap().admin_socket.is_some());
}

#[test]
fn http_is_for_loopback_and_kinds_are_inferred() {
    use crate::app::config::file::ProviderKind::{Entra, Oidc, Okta};
    let cases = [
        ("https://acme.okta.com/oauth2/default", Okta),
        ("https://login.microsoftonline.com/T/v2.0", Entra),
        ("https://okta.com.evil.example/x", Oidc),
        ("http://127.0.0.1:8080/realm", Oidc),
        ("http://localhost:8080", Oidc),
        ("http://[::1]:8080", Oidc),
    ];
    for (issuer, kind) in cases {
        let settings = parse(&with("https://login.microsoftonline.com/T/v2.0", issuer)).unwrap();
        assert_eq!(settings.providers[0].kind, kind, "{issuer}");
    }
}

#[test]
fn an_issuer_for_many_tenants_needs_a_list_of_them() {
    let written = "issuer: \"https://login.microsoftonline.com/T/v2.0\"";
    let shared = "issuer: \"https://login.microsoftonline.com/organizations/v2.0\"";
    let tenant = "1a1a1a1a-2222-4333-8444-555555555555";
    let good = with(written, &format!("{shared}, tenants: [{tenant}]"));
    assert_eq!(parse(&good).unwrap().providers[0].tenants, [tenant]);
    for (provider, expected) in [
        (shared.to_owned(), "speaks for every tenant"),
        (
            shared.replace("organizations", "common"),
            "speaks for every tenant",
        ),
        (format!("{shared}, tenants: []"), "at least one tenant"),
        (format!("{shared}, tenants: [\"*\"]"), "is not a tenant's id"),
        (
            format!("{shared}, tenants: [{}]", tenant.to_uppercase()),
            "in lower case",
        ),
        (
            format!("{written}, tenants: [{tenant}]"),
            "only Entra's shared issuers",
        ),
        (
            format!("{shared}, kind: oidc, tenants: [{tenant}]"),
            "only Entra's shared issuers",
        ),
    ] {
        let shown = printed(&with(written, &provider));
        assert!(shown.contains(expected), "{provider}: {shown}");
    }
}

#[test]
fn a_managed_identity_takes_the_place_of_the_password() {
    let broker = "broker: {user: gatepost_broker, password: {env: BROKER}}";
    let target = |text: &str| parse(&with(broker, text)).unwrap().targets.remove(0);
    let minting = target("broker: {user: gatepost-prod, managed_identity: {}}");
    assert_eq!(
        (minting.broker_user.as_str(), minting.logins),
        ("gatepost-prod", Logins::Minted)
    );
    let identity = minting.broker.managed_identity().unwrap();
    assert_eq!(identity.resource, "https://ossrdbms-aad.database.windows.net");
    assert!(matches!(
        &identity.endpoint,
        Endpoint::Imds { client_id: None, .. }
    ));

    let lending = target(
        "credential: managed_identity\n    broker: {user: u, managed_identity: \
         {source: imds, client_id: c, resource: \"https://ossrdbms-aad.database.usgovcloudapi.net\"}}",
    );
    assert_eq!(lending.logins, Logins::BrokersOwn);
    let identity = lending.broker.managed_identity().unwrap();
    assert_eq!(
        identity.resource,
        "https://ossrdbms-aad.database.usgovcloudapi.net"
    );
    assert!(matches!(&identity.endpoint, Endpoint::Imds { client_id: Some(id), .. } if id == "c"));
}

#[test]
fn a_managed_identity_of_sql_server_has_its_own_resource_and_needs_proven_tls() {
    let text = |more: &str| {
        let broker = "broker: {user: gatepost_broker, password: {env: BROKER}}";
        let identity = format!("broker: {{user: gatepost-prod, managed_identity: {{}}}}\n    {more}");
        with(broker, &identity)
            .replacen("engine: postgres", "engine: sqlserver", 1)
            .replacen("  postgres: {", "  sqlserver: {", 1)
    };
    for more in [
        "credential: managed_identity",
        "credential: managed_identity\n    tls: {mode: strict}",
        "tls: {mode: verify-full}",
        "contained: true",
        "marker_table: gatepost.markers",
    ] {
        let target = parse(&text(more)).unwrap().targets.remove(0);
        let lends = more.starts_with("credential");
        assert_eq!(target.logins == Logins::BrokersOwn, lends, "{more}");
        let identity = target.broker.managed_identity().unwrap();
        assert_eq!(identity.resource, "https://database.windows.net/");
    }
    for (more, expected) in [
        (
            "tls: {mode: require}",
            "so this needs tls: {mode: verify-full} or strict",
        ),
        (
            "tls: {mode: disable}",
            "so this needs tls: {mode: verify-full} or strict",
        ),
        (
            "credential: managed_identity\n    contained: true",
            "contained is about minted logins",
        ),
        (
            "credential: managed_identity\n    marker_table: gatepost.markers",
            "marker_table wants minted logins",
        ),
        ("marker_table: markers", "not a table with its schema"),
        ("wal_marker: true", "on SQL Server it is marker_table"),
    ] {
        let shown = printed(&text(more));
        assert!(shown.contains(expected), "{more}: {shown}");
    }
}

#[test]
fn aliases_tell_databases_apart() {
    let second = "policies:";
    let other = "  other:\n    engine: postgres\n    address: b:5432\n    databases: [DB]\n    broker: {user: b, password: {env: BROKER}}\npolicies:";
    let clash = with(second, &other.replace("DB", "orders"));
    assert!(printed(&clash).contains("already names a database of target \"orders\""));
    let apart = with(second, &other.replace("DB", "{name: orders, alias: orders-eu}"));
    let settings = parse(&apart).unwrap();
    assert_eq!(settings.targets[1].databases[0].asked_as, "orders-eu");
    assert_eq!(settings.targets[1].databases[0].name.as_str(), "orders");
}

#[test]
fn an_inline_secret_is_never_echoed() {
    let cases = [
        ("{env: BROKER}", "s3cr3t"),
        ("{env: BROKER}", "{value: s3cr3t}"),
        ("{env: BROKER}", "[s3cr3t]"),
        ("password: {env: BROKER}", "passwort: s3cr3t"),
        // Another mistake on the same line must not show it either.
        (
            "user: gatepost_broker, password: {env: BROKER}",
            "user: 5, password: s3cr3t",
        ),
        // Not YAML at all: nobody knows what stands where.
        ("password: {env: BROKER}", "password: \"s3cr3t"),
        ("password: {env: BROKER}", "password: s3cr3t: x"),
    ];
    for (from, to) in cases {
        let shown = printed(&with(from, to));
        assert!(!shown.contains("s3cr3t"), "{to}: {shown}");
        assert!(shown.contains("etc/gatepost.yaml:"), "{to}: {shown}");
    }
}

#[test]
fn what_is_not_yaml_is_told_with_its_line() {
    let shown = printed("installation: [a\nlisten: }");
    assert!(shown.starts_with("etc/gatepost.yaml:2:"), "{shown}");
}

#[test]
fn whole_files_of_the_wrong_shape_are_told() {
    for text in [
        "",
        "5",
        "[]",
        "a: &x [1]\nb: *x",
        "<<: {a: 1}",
        "---\na: 1\n---\nb: 2",
    ] {
        assert!(!printed(text).is_empty(), "{text}");
    }
}

#[test]
fn tickets_belong_to_the_api_and_are_offered_to_networks_that_are_ones() {
    let with_tickets = |api: &str, tickets: &str| {
        let door = format!("metrics: {{address: 127.0.0.1:9090}}\n{api}");
        with("metrics: {address: 127.0.0.1:9090}\n", &door) + tickets
    };
    let api = "  api: {address: 127.0.0.1:8443}\n";
    let nothing = parse(&with_tickets(api, "")).unwrap().tickets;
    assert!(nothing.networks.is_empty() && !nothing.any_address);
    let text = "tickets: {networks: [10.0.0.0/8, \"::1\"], any_address: true}\n";
    let some = parse(&with_tickets(api, text)).unwrap().tickets;
    let shown: Vec<_> = some.networks.iter().map(ToString::to_string).collect();
    assert_eq!(
        (shown, some.any_address),
        (vec!["10.0.0.0/8".to_owned(), "::1".to_owned()], true)
    );

    let told = printed(&with_tickets("", "tickets: {}\n"));
    assert!(told.contains("tickets are given by the API"), "{told}");
    for (network, message) in [
        ("10.0.0.1/8", "\"10.0.0.1/8\" is not an IP address or a network"),
        ("any", "\"any\" is not an IP address"),
    ] {
        let told = printed(&with_tickets(
            api,
            &format!("tickets: {{networks: [{network}]}}\n"),
        ));
        assert!(told.contains(message), "{told}");
    }
    let many = vec!["10.0.0.0/8"; 65].join(", ");
    let told = printed(&with_tickets(api, &format!("tickets: {{networks: [{many}]}}\n")));
    assert!(told.contains("at most 64 networks"), "{told}");
}
