//! What a start-up packet asks for, checked: target, role, settings for the server, correlation id.
//! Pure.

use crate::domain::correlation::Correlation;
use crate::domain::refusal::Reason;
use crate::session::presented::{kept_application, looks_like_token};
use crate::sql::correlation::startup as startup_correlation;
use crate::sql::escape::is_unreadable_encoding;
use crate::wire::pg::startup::Startup;

/// Settings that a client may bring; drivers send fewer than ten.
const SETTINGS_MAX: usize = 64;

/// Settings that would change who the login is, what the server lets it do, or what code the server's
/// process holds from then on.
const SETTINGS_REFUSED: [&str; 6] = [
    "role",
    "session_authorization",
    "session_replication_role",
    "replication",
    "session_preload_libraries",
    "local_preload_libraries",
];

/// A start-up packet, understood.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Wanted {
    pub(super) user: String,
    /// As the client wrote it: a database, an alias, or `target/database`.
    pub(super) database: String,
    pub(super) application: Option<String>,
    /// Settings for the server, names in lower case, sorted: part of the pool's key.
    pub(super) settings: Vec<(String, String)>,
    pub(super) correlation: Option<Correlation>,
}

/// Reads a start-up packet.
pub(super) fn read(startup: &Startup) -> Result<Wanted, Reason> {
    for (name, parameter) in [("user", "user name"), ("database", "database name")] {
        if startup.parameter(name).is_some_and(looks_like_token) {
            return Err(Reason::TokenInParameter { parameter });
        }
    }
    let mut settings = Vec::new();
    for (name, value) in &startup.parameters {
        match name.as_str() {
            "user" | "database" => {}
            "options" => settings.extend(options(value)?),
            name => settings.push((name.to_ascii_lowercase(), value.clone())),
        }
    }
    let user = startup.parameter("user").filter(|user| !user.is_empty());
    let user = user
        .ok_or(Reason::Malformed {
            what: "start-up packet: it names no user",
        })?
        .to_owned();
    let database = startup
        .parameter("database")
        .filter(|name| !name.is_empty())
        .unwrap_or(&user)
        .to_owned();
    for (name, value) in &settings {
        check(name, value)?;
    }
    let application = last(&settings, "application_name");
    let correlation = last(&settings, "gatepost.correlation_id");
    let correlation = startup_correlation(correlation.as_deref(), application.as_deref());
    let application = application.map(kept_application);
    Ok(Wanted {
        user,
        database,
        application,
        settings: for_server(settings)?,
        correlation,
    })
}

/// The settings that the server gets: without gatepost's own and the application name, which a
/// session sets after checkout; of several alike the last, as the server would take it.
fn for_server(settings: Vec<(String, String)>) -> Result<Vec<(String, String)>, Reason> {
    let mut kept: Vec<(String, String)> = Vec::new();
    for (name, value) in settings {
        if name == "application_name" || name.starts_with("gatepost.") {
            continue;
        }
        kept.retain(|(known, _)| *known != name);
        kept.push((name, value));
    }
    if kept.len() > SETTINGS_MAX {
        return Err(Reason::Malformed {
            what: "start-up packet: it has more than 64 settings",
        });
    }
    kept.sort();
    Ok(kept)
}

fn last(settings: &[(String, String)], name: &str) -> Option<String> {
    settings
        .iter()
        .rev()
        .find(|(known, _)| known == name)
        .map(|(_, value)| value.clone())
}

fn check(name: &str, value: &str) -> Result<(), Reason> {
    if looks_like_token(value) || looks_like_token(name) {
        let parameter = if name == "application_name" {
            "application name"
        } else {
            "options"
        };
        return Err(Reason::TokenInParameter { parameter });
    }
    let plain = name
        .bytes()
        .all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'.'));
    if !plain || SETTINGS_REFUSED.contains(&name) {
        return Err(Reason::StartupParameter { name: shown(name) });
    }
    if name == "client_encoding" && is_unreadable_encoding(value) {
        return Err(Reason::Unsupported {
            what: "this client_encoding",
        });
    }
    Ok(())
}

/// A name as far as it can be shown on any terminal and in any log.
fn shown(name: &str) -> String {
    let visible = |c: char| if c.is_ascii_graphic() || c == ' ' { c } else { '?' };
    name.chars().take(63).map(visible).collect()
}

/// `-c name=value`, `-cname=value`, `--name=value`, separated by white space that a backslash can
/// quote: the form of the server's own command line (PostgreSQL documentation, `options`).
fn options(text: &str) -> Result<Vec<(String, String)>, Reason> {
    if looks_like_token(text) {
        return Err(Reason::TokenInParameter { parameter: "options" });
    }
    let refused = || Reason::StartupParameter {
        name: "options".to_owned(),
    };
    let mut settings = Vec::new();
    let mut words = split(text).into_iter();
    while let Some(word) = words.next() {
        let setting = match word.strip_prefix("--") {
            Some(long) => long.to_owned(),
            None => match word.strip_prefix("-c") {
                Some("") => words.next().ok_or_else(refused)?,
                Some(setting) => setting.to_owned(),
                None => return Err(refused()),
            },
        };
        let (name, value) = setting.split_once('=').ok_or_else(refused)?;
        settings.push((name.replace('-', "_").to_ascii_lowercase(), value.to_owned()));
    }
    Ok(settings)
}

fn split(text: &str) -> Vec<String> {
    let mut words = Vec::new();
    let mut word: Option<String> = None;
    let mut escaped = false;
    for c in text.chars() {
        if escaped {
            word.get_or_insert_default().push(c);
            escaped = false;
        } else if c == '\\' {
            escaped = true;
        } else if c.is_ascii_whitespace() {
            words.extend(word.take());
        } else {
            word.get_or_insert_default().push(c);
        }
    }
    words.extend(word);
    words
}

#[cfg(test)]
mod tests {
    use super::*;

    const TOKEN: &str = "eyJhbGciOiJSUzI1NiJ9.eyJzdWIiOiJ4In0.c2lnbmF0dXJlLXNpZ25hdHVyZQ";

    fn startup(parameters: &[(&str, &str)]) -> Startup {
        let own = |(name, value): &(&str, &str)| ((*name).to_owned(), (*value).to_owned());
        Startup {
            asked_minor: 0,
            minor: 0,
            parameters: parameters.iter().map(own).collect(),
            unknown_options: vec![],
        }
    }

    #[test]
    fn settings_are_taken_from_options_and_parameters() {
        let wanted = read(&startup(&[
            ("user", "orders_writer"),
            ("database", "orders"),
            ("client_encoding", "UTF8"),
            ("application_name", "billing corr=m-9"),
            (
                "options",
                r"-c statement_timeout=5s --search-path=a\ b -cgatepost.correlation_id=m-1",
            ),
        ]))
        .unwrap();
        let settings: Vec<_> = wanted
            .settings
            .iter()
            .map(|(n, v)| (n.as_str(), v.as_str()))
            .collect();
        assert_eq!(
            settings,
            [
                ("client_encoding", "UTF8"),
                ("search_path", "a b"),
                ("statement_timeout", "5s")
            ]
        );
        assert_eq!(wanted.correlation.unwrap().id.as_ref(), "m-1");
        assert_eq!(wanted.application.as_deref(), Some("billing corr=m-9"));
    }

    #[test]
    fn the_database_defaults_to_the_user() {
        assert_eq!(read(&startup(&[("user", "x")])).unwrap().database, "x");
        assert!(read(&startup(&[("database", "x")])).is_err());
    }

    #[test]
    fn tokens_in_the_wrong_place_are_refused_and_never_repeated() {
        let ticket = format!("gpt_{}", "0a".repeat(24));
        let in_options = format!("-c a.b={TOKEN}");
        let cases = [
            ("user", ticket.as_str()),
            ("application_name", &ticket),
            ("user", TOKEN),
            ("database", TOKEN),
            ("application_name", TOKEN),
            ("options", &in_options),
        ];
        for (name, value) in cases {
            let reason = read(&startup(&[("user", "x"), (name, value)])).unwrap_err();
            assert!(matches!(reason, Reason::TokenInParameter { .. }), "{name}");
            let told = format!("{reason:?} {reason}");
            assert!(!told.contains("eyJ") && !told.contains("gpt_"), "{told}");
        }
    }

    #[test]
    fn what_is_shown_of_a_name_is_visible_and_short() {
        let name = format!("x\n\u{1b}[31m{}", "y".repeat(10_000));
        let Err(Reason::StartupParameter { name }) = read(&startup(&[("user", "x"), (&name, "1")])) else {
            panic!("let through");
        };
        assert!(name.starts_with("x??[31my") && name.len() == 63, "{name}");
    }

    #[test]
    fn values_go_to_the_server_as_they_are_and_names_are_cut() {
        let long = "\u{e9}".repeat(5_000);
        let wanted = read(&startup(&[
            ("user", "'; DROP ROLE x; --"),
            ("database", "orders\"; --"),
            ("application_name", &long),
            (
                "options",
                r"-c search_path=evil,pg_catalog -c a.b=';\ DROP\ TABLE\ x'",
            ),
        ]))
        .unwrap();
        assert_eq!(wanted.application.unwrap().len(), 256);
        assert_eq!(
            wanted.settings,
            [
                ("a.b".to_owned(), "'; DROP TABLE x'".to_owned()),
                ("search_path".to_owned(), "evil,pg_catalog".to_owned())
            ]
        );
        assert_eq!(
            (wanted.user.as_str(), wanted.database.as_str()),
            ("'; DROP ROLE x; --", "orders\"; --")
        );
    }

    #[test]
    fn escapes_at_start_up_are_refused() {
        let cases = [
            ("role", "postgres"),
            ("ROLE", "postgres"),
            ("options", "-c role=postgres"),
            ("options", "--session-authorization=postgres"),
            ("options", "-c Role=x"),
            ("options", "-d 5"),
            ("options", "-c"),
            ("replication", "database"),
            ("a b", "c"),
            ("options", "-c session_preload_libraries=evil"),
            ("local_preload_libraries", "evil"),
            ("options", r"-c\ role=postgres"),
            ("options", r"-c ro\le=postgres"),
            ("options", "-c role=postgres -c work_mem=1MB"),
            ("options", "--ROLE=postgres"),
            ("options", "-crole=postgres"),
            ("options", "-c work_mem=1MB\n-c role=postgres"),
            ("options", "-c"),
            ("options", "-o role=postgres"),
            ("options", "role=postgres"),
            ("options", "-c \u{ff52}ole=postgres"),
            ("client_encoding", "SJIS"),
            ("options", "-c client_encoding=windows-932"),
            ("x'; DROP TABLE orders; --", "1"),
            ("work_mem;role", "1"),
        ];
        for (name, value) in cases {
            assert!(
                read(&startup(&[("user", "x"), (name, value)])).is_err(),
                "{name}={value}"
            );
        }
    }
}
