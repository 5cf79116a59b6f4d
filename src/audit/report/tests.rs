//! The report of a journal whose story is known, and of one whose names mean harm.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;
use std::time::SystemTime;

use serde_json::{Value, json};

use super::model::Report;
use super::*;
use crate::audit::entry::{Entry, entries};
use crate::audit::record::*;
use crate::audit::specimens::*;
use crate::domain::correlation::{Correlation, CorrelationSource};

fn sound() -> Chain {
    Chain::Sound {
        key: "0123456789abcdef".to_owned(),
        key_was_given: true,
        records: 1,
        segments: 1,
        heads: 1,
        head: None,
        unsigned: 0,
    }
}

fn report_of(directory: &Path, from: SystemTime, to: SystemTime) -> Report {
    let now = at(200_000);
    let mut gathering = Gathering::new(Period { from, to, now });
    for found in entries(directory).unwrap() {
        gathering.take(found.unwrap().entry);
    }
    gathering.end(sound())
}

fn of(facts: &Arc<Facts>, event: Event) -> Record {
    Record::new(Arc::clone(facts), event)
}

fn about(facts: &Arc<Facts>, id: &str, event: Event) -> Record {
    Record {
        correlation: Correlation::new(id, CorrelationSource::Set).into_iter().collect(),
        ..of(facts, event)
    }
}

/// The first run ends without saying so.
fn story() -> Vec<Vec<Record>> {
    let ann = Arc::new(facts("ann", "writer", 1));
    let nobody = Arc::default();
    let committed = |number, id| outcome(number, Some(id), Outcome::Committed, Scope::Complete);
    let mut first = vec![
        of(&nobody, Event::ServerStarted { version: "1" }),
        of(&ann, policy_loaded("provider entra, client_id ann-app")),
        of(&ann, Event::SessionOpened),
        of(&ann, Event::LoginMinted { expires_at: at(1800) }),
        about(
            &ann,
            "m-1",
            Event::TransactionIntent(transaction(1, Some(700), &["insert"])),
        ),
        about(
            &ann,
            "m-1",
            outcome(1, Some(700), Outcome::Aborted, Scope::Complete),
        ),
        about(&ann, "m-1", committed(2, 701)),
        about(&ann, "m-2", committed(3, 702)),
        about(&ann, "m-2", committed(4, 703)),
        about(&ann, "m-3", committed(5, 704)),
        about(&ann, "m-3", outcome(6, None, Outcome::Committed, Scope::ReadOnly)),
        about(
            &ann,
            "m-4",
            Event::TransactionIntent(transaction(7, Some(705), &["update"])),
        ),
        about(
            &ann,
            "m-5",
            outcome(8, Some(706), Outcome::InDoubt, Scope::Complete),
        ),
        about(&ann, "m-6", outcome(9, None, Outcome::Committed, Scope::Partial)),
    ];
    first.extend(others(&ann));
    vec![first, second_run()]
}

/// What others did in the first run, and what became of Ann's login.
fn others(ann: &Arc<Facts>) -> Vec<Record> {
    let (bob, nobody) = (Arc::new(facts("bob", "rescue", 2)), Arc::default());
    let eve = Arc::new(Facts {
        login: None,
        ..facts("eve", "writer", 3)
    });
    let stranger = Arc::new(stranger(9));
    let denied = |code| Event::SessionDenied {
        code,
        reason: "no rule".to_owned(),
    };
    vec![
        of(&bob, Event::SessionOpened),
        of(&bob, Event::LoginMinted { expires_at: at(10) }),
        of(
            &bob,
            Event::LoginTampered {
                what: "password".to_owned(),
            },
        ),
        of(&bob, outcome(1, Some(707), Outcome::Committed, Scope::Complete)),
        of(&eve, denied("not_permitted")),
        of(&stranger, denied("token_missing")),
        of(
            &nobody,
            Event::StrangersDenied {
                address: Some([198, 51, 100, 9].into()),
                count: 41,
            },
        ),
        of(ann, Event::LoginDisabled { why: "expired" }),
        of(ann, Event::LoginDropped),
    ]
}

fn policy_loaded(who: &str) -> Event {
    Event::PolicyLoaded {
        rules: 1,
        outline: Box::new(outline("writer", who)),
    }
}

fn second_run() -> Vec<Record> {
    let (ann, nobody) = (Arc::new(facts("ann", "writer", 1)), Arc::default());
    vec![
        of(&nobody, Event::ServerStarted { version: "2" }),
        of(&ann, policy_loaded("provider entra, client_id ann-app")),
        of(
            &nobody,
            Event::SecretRotated {
                what: "broker_password",
                which: None,
            },
        ),
        of(&nobody, Event::ServerStopped),
    ]
}

fn told() -> (Report, Value, tempfile::TempDir) {
    let folder = tempfile::tempdir().unwrap();
    write(folder.path(), story());
    let report = report_of(folder.path(), at(0), at(100_000));
    let json = serde_json::to_value(&report).unwrap();
    (report, json, folder)
}

#[test]
fn who_could_and_who_did() {
    let (report, json, _folder) = told();
    let versions = &json["policy"]["versions"]["rows"];
    assert_eq!(versions.as_array().unwrap().len(), 1);
    assert_eq!(versions[0]["loaded"]["rows"].as_array().unwrap().len(), 2);
    assert_eq!(
        versions[0]["permits"][0]["who"],
        "provider entra, client_id ann-app"
    );
    assert_eq!(versions[0]["files"][0]["sha256"], "ab".repeat(32));
    let access = report.access.unwrap();
    let [ann, bob, eve] = &access.identities[..] else {
        panic!("{:?}", access.identities);
    };
    assert_eq!((ann.subject.as_str(), ann.sessions, ann.refused), ("ann", 1, 0));
    let outcomes = ["committed", "aborted", "read_only", "in_doubt", "unknown"];
    assert_eq!(outcomes.map(|it| ann.transactions.get(it)), [5, 1, 1, 1, 1]);
    assert_eq!(ann.roles.get("writer"), 8);
    assert_eq!(ann.targets.get("orders/orders"), 8);
    assert_eq!(
        (
            ann.statements.get("insert"),
            ann.statements.get("update"),
            ann.rows
        ),
        (8, 8, 32)
    );
    assert_eq!((bob.sessions, bob.transactions.get("committed")), (1, 1));
    assert_eq!((eve.sessions, eve.refused), (0, 1));
    let glass = report.break_glass.unwrap();
    assert_eq!(glass.roles, BTreeSet::from(["rescue".to_owned()]));
    assert_eq!((glass.uses.total(), glass.transactions.get("committed")), (1, 1));
    assert_eq!(glass.uses.rows[0].who, "entra/bob (Name of bob)");
}

#[test]
fn what_was_refused_and_what_became_of_logins() {
    let (report, _, _folder) = told();
    let refusals = report.refusals.unwrap();
    assert_eq!(
        refusals.by_code.sorted(),
        [("summed_up", 41), ("not_permitted", 1), ("token_missing", 1)]
    );
    assert_eq!(refusals.by_address.get("198.51.100.9"), 42);
    assert_eq!(refusals.by_identity.sorted(), [("entra/eve (Name of eve)", 1)]);
    let credentials = report.credentials.unwrap();
    assert_eq!(
        (credentials.minted, credentials.dropped, credentials.live_at_end),
        (2, 1, 0)
    );
    assert_eq!(credentials.left_over.rows[0].login, "gp_test_rescue_2");
    assert_eq!(credentials.left_over.total(), 1);
    assert_eq!(
        (credentials.tampered.total(), credentials.rotated.total()),
        (1, 1)
    );
}

#[test]
fn retries_and_gaps() {
    let (report, json, _folder) = told();
    let retries = report.retries.unwrap();
    assert_eq!(
        (
            retries.compared,
            retries.committed_twice,
            retries.committed_after_failure
        ),
        (6, 1, 1)
    );
    let ids: Vec<_> = retries
        .ids
        .rows
        .iter()
        .map(|one| one.correlation.as_str())
        .collect();
    assert_eq!(
        ids,
        ["m-2", "m-1"],
        "those that took effect twice come first; reads do not count"
    );
    let attempts: Vec<_> = retries.ids.rows[1]
        .attempts
        .rows
        .iter()
        .map(|one| (one.xid, one.outcome))
        .collect();
    assert_eq!(attempts, [(Some(700), "aborted"), (Some(701), "committed")]);
    let gaps = report.gaps.unwrap();
    assert_eq!(
        (gaps.unknown.total(), gaps.in_doubt.total(), gaps.partial),
        (1, 1, 1)
    );
    assert_eq!(
        (gaps.unknown.rows[0].xid, &gaps.unknown.rows[0].correlation[..]),
        (Some(705), &["m-4".to_owned()][..])
    );
    assert_eq!((gaps.unstopped.rows[0].epoch, gaps.unstopped.total()), (1, 1));
    assert_eq!(json["schema"], "gatepost.audit.report/1");
}

#[test]
fn what_was_before_the_period_counts_only_where_it_still_holds() {
    let (_, _, folder) = told();
    let all: Vec<_> = entries(folder.path())
        .unwrap()
        .map(|found| found.unwrap().entry)
        .collect();
    let restart = all.iter().find(|entry| entry.epoch == 2).unwrap().time().unwrap();
    let report = report_of(folder.path(), restart, at(100_000));
    let policy = report.policy.unwrap();
    assert!(policy.versions.rows[0].at_beginning);
    assert_eq!(policy.versions.rows[0].loaded.total(), 2);
    assert!(report.access.unwrap().identities.is_empty());
    let credentials = report.credentials.unwrap();
    assert_eq!((credentials.minted, credentials.left_over.total()), (0, 1));
    let gaps = report.gaps.unwrap();
    assert_eq!((gaps.unknown.total(), gaps.unstopped.total()), (0, 1));
    // And what comes after it settles what was open, and is not counted.
    let first = all
        .iter()
        .find(|entry| entry.event == "transaction.intent")
        .unwrap()
        .time()
        .unwrap();
    let report = report_of(folder.path(), at(0), first + std::time::Duration::from_micros(1));
    assert_eq!(report.gaps.unwrap().unknown.total(), 0);
    assert_eq!(report.access.unwrap().transactions.total(), 0);
}

/// A line as another version may write it.
fn line(seq: u64, event: &str, detail: Value) -> Entry {
    let line = json!({"seq": seq, "at": humantime::format_rfc3339(at(seq)).to_string(), "epoch": 1, "event": event,
        "session": "s-1", "identity": {"provider": "p", "subject": "s"}, "detail": detail});
    Entry::read(line.to_string().as_bytes()).unwrap()
}

fn gathered(lines: Vec<Entry>) -> Report {
    let mut gathering = Gathering::new(Period {
        from: at(0),
        to: at(100_000),
        now: at(200_000),
    });
    lines.into_iter().for_each(|entry| gathering.take(entry));
    gathering.end(sound())
}

#[test]
fn what_is_reconciled_later_is_no_gap() {
    let report = gathered(vec![
        line(1, "transaction.intent", json!({"number": 1, "id": 7})),
        line(
            2,
            "transaction.outcome",
            json!({"number": 2, "id": 8, "outcome": "in_doubt"}),
        ),
        line(3, "transaction.intent", json!({"number": 3, "id": 9})),
        line(
            4,
            "transaction.reconciled",
            json!({"number": 1, "id": 7, "outcome": "committed"}),
        ),
        line(
            5,
            "transaction.reconciled",
            json!({"number": 2, "id": 8, "outcome": "aborted"}),
        ),
        line(
            6,
            "transaction.reconciled",
            json!({"of_epoch": 1, "number": 3, "id": 9, "outcome": "in_doubt"}),
        ),
        line(
            7,
            "transaction.outcome",
            json!({"number": 4, "id": 10, "outcome": "prepared"}),
        ),
        line(
            8,
            "transaction.outcome",
            json!({"number": 5, "id": 11, "outcome": "prepared"}),
        ),
        line(
            9,
            "transaction.reconciled",
            json!({"number": 5, "id": 11, "outcome": "committed", "previous": "prepared"}),
        ),
    ]);
    let gaps = report.gaps.unwrap();
    let open = (gaps.unknown.total(), gaps.in_doubt.total(), gaps.prepared.total());
    assert_eq!(open, (0, 1, 1));
    let told = report.access.unwrap().transactions;
    assert_eq!(
        ["committed", "in_doubt", "prepared"].map(|it| told.get(it)),
        [1, 2, 2]
    );
    assert_eq!(
        (gaps.in_doubt.rows[0].xid, gaps.prepared.rows[0].xid),
        (Some(9), Some(10))
    );
    assert_eq!(
        gaps.reconciled.sorted(),
        [("committed", 2), ("aborted", 1), ("in_doubt", 1)]
    );
}

#[test]
fn relations_are_known_from_the_statements() {
    let report = gathered(vec![
        line(
            1,
            "statement.seen",
            json!({"fingerprint": "f", "relations": {"read": ["a"], "written": ["b"]}}),
        ),
        line(
            2,
            "transaction.outcome",
            json!({"number": 1, "outcome": "committed",
            "statements": [{"fingerprint": "f", "kind": "insert"}, {"fingerprint": "g", "kind": "insert"}]}),
        ),
    ]);
    let person = &report.access.unwrap().identities[0];
    assert_eq!(
        (person.written.sorted(), person.read.sorted()),
        (vec![("b", 1)], vec![("a", 1)])
    );
}

#[test]
fn a_long_journal_takes_bounded_room() {
    let mut gathering = Gathering::new(Period {
        from: at(0),
        to: at(100_000),
        now: at(200_000),
    });
    for number in 0..20_000_u64 {
        let mut entry = line(
            number,
            "session.denied",
            json!({"code": format!("c{number}"), "reason": "r".repeat(900)}),
        );
        entry.identity.as_mut().unwrap().subject = format!("subject-{number}");
        entry.at = humantime::format_rfc3339(at(1)).to_string();
        gathering.take(entry);
    }
    let report = gathering.end(sound());
    let text = serde_json::to_string(&report).unwrap();
    assert!(text.len() < 4 << 20, "{}", text.len());
    assert_eq!(report.refusals.as_ref().unwrap().by_code.total(), 20_000);
    let access = report.access.as_ref().unwrap();
    assert_eq!((access.identities.len(), access.of_others), (2_000, 18_000));
    assert!(html::html(&report).contains("and 18000 more"));
}

#[test]
fn a_control_selects_what_is_evidence_for_it() {
    let (report, _, _folder) = told();
    let names = |controls: &[Control]| {
        let report = report.clone().only(controls);
        let json = serde_json::to_value(&report).unwrap();
        let named: Vec<_> = sections(&report).iter().map(|section| section.name).collect();
        for section in [
            "policy",
            "access",
            "break_glass",
            "credentials",
            "refusals",
            "operators",
            "retries",
            "gaps",
        ] {
            assert_eq!(json.get(section).is_some(), named.contains(&section), "{section}");
        }
        named
    };
    assert_eq!(names(&[Control::OutsideThreats]), ["refusals"]);
    assert_eq!(
        names(&[Control::Credentials]),
        ["policy", "credentials", "operators"]
    );
    assert_eq!(names(&Control::ALL).len(), 8);
    for control in Control::ALL {
        assert!(!names(&[control]).is_empty(), "{control:?}");
    }
}

fn hostile() -> Report {
    let folder = tempfile::tempdir().unwrap();
    write(folder.path(), vec![every_event(), story().remove(0)]);
    let mut report = report_of(folder.path(), at(0), at(100_000));
    report.chain = Chain::Broken {
        key: HOSTILE.to_owned(),
        what: HOSTILE.to_owned(),
    };
    report
}

/// Every tag of a page.
fn tags(page: &str) -> Vec<&str> {
    page.split('<')
        .skip(1)
        .map(|rest| rest.split('>').next().unwrap())
        .collect()
}

#[test]
fn no_name_becomes_markup() {
    let page = html::html(&hostile());
    // Words apart, as long ones are marked.
    let page = page.replace("<span class=\"long\">", "").replace("</span>", "");
    assert!(page.contains(
        "&lt;script&gt;alert(1)&lt;/script&gt;&quot;&#39;]=a\\b|c\\n\\r\\t\\u{1b}[2J\\u{202e}&amp;amp;"
    ));
    const ALLOWED: [&str; 30] = [
        "span class=\"long\"",
        "!DOCTYPE html",
        "html lang=\"en\"",
        "head",
        "body",
        "title",
        "style",
        "h1",
        "h2",
        "h3",
        "strong",
        "dt",
        "dd",
        "dl class=\"facts\"",
        "div class=\"title\"",
        "div class=\"chain broken\"",
        "section",
        "table",
        "table class=\"short\"",
        "thead",
        "tbody",
        "tr",
        "th",
        "td",
        "br",
        "code",
        "footer",
        "p",
        "span class=\"control\"",
        "meta charset=\"utf-8\"",
    ];
    let kinds: BTreeSet<_> = tags(&page).into_iter().collect();
    for tag in kinds {
        let name = tag.trim_start_matches('/');
        let known = ALLOWED.contains(&name)
            || [
                "div",
                "dl",
                "html",
                "span",
                "section id=\"",
                "meta name=\"viewport\"",
                "meta http-equiv",
                "p class=\"",
                "td class=\"",
                "th class=\"",
            ]
            .iter()
            .any(|known| name.starts_with(known));
        assert!(known, "{tag}");
        assert!(
            !name.contains("src=") && !name.contains("href=") && !name.contains(" on"),
            "{tag}"
        );
    }
    assert!(!page.contains("<script") && !page.contains("url(") && !page.contains("@import"));
    assert!(!page.chars().any(|char| char.is_control() && char != '\n'));
}

/// Reads CSV by RFC 4180.
fn read_csv(text: &str) -> Vec<Vec<String>> {
    let (mut rows, mut row, mut field) = (Vec::new(), Vec::new(), String::new());
    let mut chars = text.chars().peekable();
    let mut quoted = false;
    while let Some(char) = chars.next() {
        match (char, quoted) {
            ('"', true) if chars.peek() == Some(&'"') => field.extend(chars.next()),
            ('"', _) => quoted = !quoted,
            (',', false) => row.push(std::mem::take(&mut field)),
            ('\r', false) => {
                assert_eq!(chars.next(), Some('\n'));
                row.push(std::mem::take(&mut field));
                rows.push(std::mem::take(&mut row));
            }
            (char, _) => field.push(char),
        }
    }
    assert!(
        row.is_empty() && field.is_empty() && !quoted,
        "the last line ends"
    );
    rows
}

#[test]
fn no_name_becomes_a_formula() {
    let rows = read_csv(&csv::csv(&hostile()));
    let width = rows[0].len();
    assert!(rows.len() > 100);
    let mut harmed = 0;
    for row in &rows {
        assert_eq!(row.len(), width, "{row:?}");
        for field in row {
            assert!(!field.starts_with(['=', '+', '-', '@', '\t', '\r']), "{field}");
            harmed += usize::from(field.starts_with("'=cmd|' /C calc'!A0<script>"));
        }
    }
    assert!(harmed > 3, "{harmed}");
}

#[test]
fn the_page_says_whether_the_journal_is_sound() {
    let (mut report, _, _folder) = told();
    let page = html::html(&report);
    assert!(page.contains("The journal is sound.") && !page.contains("lies beside the journal"));
    if let Chain::Sound { key_was_given, .. } = &mut report.chain {
        *key_was_given = false;
    }
    assert!(html::html(&report).contains("lies beside the journal"));
    report.chain = Chain::Broken {
        key: "k".to_owned(),
        what: "record 7: changed".to_owned(),
    };
    let page = html::html(&report);
    assert!(
        page.contains("NOT SOUND")
            && page.contains("record 7: changed")
            && page.contains("class=\"chain broken\"")
    );
    assert!(csv::csv(&report).contains("NOT SOUND: record 7: changed"));
}
