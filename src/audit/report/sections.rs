//! The report in words and tables: what HTML and CSV print.

use crate::audit::report::bounded::Listing;
use crate::audit::report::control::Control;
use crate::audit::report::model::*;
use crate::audit::report::tables::{
    Cell, Section, Table, alarm_if_any, code, counted, counted_or_zero, happenings, listing, names, record,
    row, summary_table, tally_table, text, time,
};

/// For which controls a section is evidence.
pub(super) fn controls_of(section: &str) -> &'static [Control] {
    use Control::{AccessSecurity, Credentials, Evaluation, Monitoring, OutsideThreats, RoleBasedAccess};
    match section {
        "policy" => &[AccessSecurity, Credentials, RoleBasedAccess],
        "access" => &[AccessSecurity, RoleBasedAccess, Monitoring],
        "break_glass" => &[AccessSecurity, RoleBasedAccess, Evaluation],
        "credentials" => &[AccessSecurity, Credentials, Monitoring],
        "refusals" => &[AccessSecurity, OutsideThreats, Monitoring],
        "operators" => &[Credentials, RoleBasedAccess, Evaluation],
        "retries" => &[Evaluation],
        "gaps" => &[Monitoring, Evaluation],
        _ => &[],
    }
}

/// The sections that the report holds.
pub fn sections(report: &Report) -> Vec<Section> {
    let all = [
        report.policy.as_ref().map(policy),
        report.access.as_ref().map(access),
        report.break_glass.as_ref().map(break_glass),
        report.credentials.as_ref().map(credentials),
        report.refusals.as_ref().map(refusals),
        report.operators.as_ref().map(operators),
        report.retries.as_ref().map(retries),
        report.gaps.as_ref().map(gaps),
    ];
    all.into_iter().flatten().collect()
}

fn policy(part: &PolicyPart) -> Section {
    let versions = listing(
        "Versions",
        &[
            "version (SHA-256)",
            "in force from",
            "loads",
            "rules",
            "files (SHA-256)",
        ],
        "No policy came into force in the period or before it.",
        &part.versions,
        |one| {
            let from = one.loaded.rows.first().map_or("", |place| place.at.as_str());
            let files = one.outline.files.iter();
            let files: Vec<_> = files
                .map(|file| format!("{} {}", file.name, file.sha256))
                .collect();
            vec![
                code(&one.version),
                time(from),
                Cell::Number(one.loaded.total()),
                Cell::Number(one.rules),
                Cell::Lines(files),
            ]
        },
    );
    let (permits, roles) = outlined(&part.versions.rows);
    Section {
        name: "policy",
        title: "Who could",
        controls: controls_of("policy"),
        evidence: "The versions of the policy that were in force, and what each permitted. Nothing is permitted \
                   that no rule names.",
        limits: "A version is named by the hash of its files; who approved it is in the repository that they come \
                 from. Memberships of groups and roles are the identity provider's evidence.",
        tables: vec![
            versions,
            permits,
            roles,
            listing(
                "Refused changes",
                &["when", "mistakes", "record"],
                "No change of the configuration was refused.",
                &part.rejected,
                |one| {
                    vec![
                        time(&one.place.at),
                        Cell::Number(one.mistakes),
                        record(&one.place),
                    ]
                },
            ),
        ],
    }
}

/// What the versions permit, and the roles that they declare.
fn outlined(versions: &[PolicyVersion]) -> (Table, Table) {
    let of_each = |version: &PolicyVersion| crate::audit::wording::short(&version.version);
    let mut permits = Vec::new();
    let mut roles = Vec::new();
    let mut omitted = 0;
    for version in versions {
        let outline = &version.outline;
        omitted += outline.omitted;
        for permit in &outline.permits {
            let gets = match (&permit.role, &permit.deny) {
                (Some(role), _) => match &permit.parameters {
                    Some(recorded) => format!("{role}; parameters {recorded}"),
                    None => role.clone(),
                },
                (None, deny) => format!("nothing: {}", deny.as_deref().unwrap_or_default()),
            };
            permits.push(vec![
                code(&of_each(version)),
                text(&permit.rule),
                text(&permit.who),
                text(&gets),
            ]);
        }
        for operator in &outline.operators {
            let gets = format!("operator: {}", operator.allow.join(", "));
            permits.push(vec![
                code(&of_each(version)),
                text(&operator.rule),
                text(&operator.who),
                text(&gets),
            ]);
        }
        for role in &outline.roles {
            let kind = if role.break_glass {
                Cell::Alarm("break glass".to_owned())
            } else {
                text("")
            };
            let place = format!("{}/{}", role.target, role.database);
            roles.push(vec![
                code(&of_each(version)),
                text(&role.name),
                text(&place),
                text(&role.grants),
                kind,
            ]);
        }
    }
    let permits = Table {
        title: "Rules",
        heads: vec!["version", "rule", "who", "gets"],
        rows: permits,
        more: omitted,
        none: "The records of these versions do not say their rules.",
    };
    let roles = Table {
        title: "Roles",
        heads: vec!["version", "role", "database", "may", ""],
        rows: roles,
        more: 0,
        none: "The records of these versions do not say their roles.",
    };
    (permits, roles)
}

fn access(part: &AccessPart) -> Section {
    Section {
        name: "access",
        title: "Who did",
        controls: controls_of("access"),
        evidence: "Every identity that came to gatepost in the period, with its sessions, and its transactions as \
                   the database ended them.",
        limits: "Statements that are proven to write nothing need no record and may be missing. Relations are \
                 known where the text of the statement could be read. Client names are the provider's.",
        tables: vec![
            people(part),
            work(part),
            tally_table(
                "Transactions",
                ["outcome", "count"],
                "There were none.",
                &part.transactions,
            ),
        ],
    }
}

fn people(part: &AccessPart) -> Table {
    let people = part.identities.iter().map(|one| {
        vec![
            person(one),
            names(&one.client_ids),
            Cell::Number(one.sessions),
            counted(&one.transactions),
            counted(&one.roles),
            names(&one.targets),
            time(&one.first.at),
            time(&one.last.at),
        ]
    });
    Table {
        title: "Identities",
        heads: vec![
            "identity",
            "client",
            "sessions",
            "transactions",
            "by role",
            "databases",
            "first",
            "last",
        ],
        rows: people.collect(),
        more: part.of_others,
        none: "Nobody came.",
    }
}

fn work(part: &AccessPart) -> Table {
    let work = part
        .identities
        .iter()
        .filter(|one| one.statements.total() > 0)
        .map(|one| {
            vec![
                person(one),
                counted(&one.statements),
                Cell::Number(one.rows),
                counted(&one.written),
                counted(&one.read),
                names(&one.rules),
                names(&one.addresses),
            ]
        });
    Table {
        title: "What they ran",
        heads: vec![
            "identity",
            "statements",
            "rows",
            "written",
            "read",
            "rules",
            "from",
        ],
        rows: work.collect(),
        more: 0,
        none: "No statement was recorded.",
    }
}

fn person(one: &Person) -> Cell {
    let mut lines = vec![format!("{}/{}", one.provider, one.subject)];
    lines.extend(one.name.clone().filter(|name| *name != one.subject));
    Cell::Lines(lines)
}

fn break_glass(part: &BreakGlassPart) -> Section {
    let roles = part.roles.iter().map(|role| vec![text(role)]);
    Section {
        name: "break_glass",
        title: "Emergency roles",
        controls: controls_of("break_glass"),
        evidence: "Roles that policy marks as break_glass are never chosen by default; each session that asked \
                   for one is listed.",
        limits: "Why it was used, and who agreed, is not in the journal.",
        tables: vec![
            Table {
                title: "Roles",
                heads: vec!["role"],
                rows: roles.collect(),
                more: 0,
                none: "No version of the policy has such a role.",
            },
            listing(
                "Sessions",
                &["when", "who", "role", "database", "from", "session", "record"],
                "None was used.",
                &part.uses,
                |one| {
                    vec![
                        time(&one.place.at),
                        text(&one.who),
                        Cell::Alarm(one.role.clone()),
                        text(&one.target),
                        text(&one.address),
                        code(&one.session),
                        record(&one.place),
                    ]
                },
            ),
            tally_table(
                "Transactions",
                ["outcome", "count"],
                "There were none.",
                &part.transactions,
            ),
        ],
    }
}

fn credentials(part: &CredentialPart) -> Section {
    let mut rows = vec![
        row("logins minted", Cell::Number(part.minted)),
        row("renewed", Cell::Number(part.renewed)),
        row("disabled", counted_or_zero(&part.disabled)),
        row("dropped", Cell::Number(part.dropped)),
        row(
            "not expired when the period ended",
            Cell::Number(part.live_at_end),
        ),
        row("expired and not dropped", alarm_if_any(part.left_over.total())),
        row("tampered with", alarm_if_any(part.tampered.total())),
        row("tickets issued", Cell::Number(part.tickets_issued)),
        row("tickets refused", Cell::Number(part.tickets_denied)),
    ];
    if part.not_followed > 0 {
        rows.push(row(
            "logins too many to be followed",
            Cell::Alarm(part.not_followed.to_string()),
        ));
    }
    Section {
        name: "credentials",
        title: "Credentials",
        controls: controls_of("credentials"),
        evidence: "Nobody had a standing password: each login was minted for one identity, for a limited time, and \
                   dropped. Secrets that were replaced are listed.",
        limits: "What a sweep after a crash dropped has no record of its own; \"gatepost doctor\" compares what is \
                 left over here with the databases.",
        tables: vec![
            summary_table(rows),
            listing(
                "Expired and not dropped",
                &[
                    "login", "for", "role", "database", "minted", "expired", "disabled",
                ],
                "None is left over.",
                &part.left_over,
                |one| {
                    vec![
                        Cell::Alarm(one.login.clone()),
                        text(&one.who),
                        text(&one.role),
                        text(&one.target),
                        time(&one.minted_at),
                        time(&one.expires_at),
                        text(if one.disabled { "yes" } else { "no" }),
                    ]
                },
            ),
            happenings("Tampering", "None was noticed.", &part.tampered),
            happenings("Rotations", "No secret was replaced.", &part.rotated),
        ],
    }
}

fn refusals(part: &RefusalPart) -> Section {
    Section {
        name: "refusals",
        title: "What was refused",
        controls: controls_of("refusals"),
        evidence: "Everybody who was turned away. Of many from one address or identity the first of each minute \
                   are recorded one by one, and the others counted (summed_up).",
        limits: "Counts of the minute before a crash can be missing. Connections that sent nothing are not \
                 refusals.",
        tables: vec![
            tally_table("By code", ["code", "count"], "Nobody was refused.", &part.by_code),
            tally_table(
                "By reason",
                ["reason", "count"],
                "Nobody was refused.",
                &part.by_reason,
            ),
            tally_table(
                "By address",
                ["address", "count"],
                "Nobody was refused.",
                &part.by_address,
            ),
            tally_table(
                "By verified identity",
                ["identity", "count"],
                "No identity was refused.",
                &part.by_identity,
            ),
            tally_table(
                "Sessions ended by gatepost",
                ["what the client was told", "count"],
                "None.",
                &part.ended,
            ),
        ],
    }
}

fn operators(part: &OperatorPart) -> Section {
    Section {
        name: "operators",
        title: "Operators",
        controls: controls_of("operators"),
        evidence: "What was asked of the running gatepost over its API or its socket: an act is on record before it \
                   is done.",
        limits: "Changes of the files that gatepost reads are shown by the policy's versions, and not by who wrote \
                 the files.",
        tables: vec![
            happenings("Acts, and what was refused", "There were none.", &part.acts),
            tally_table(
                "All calls",
                ["call and result", "count"],
                "There were none.",
                &part.actions,
            ),
        ],
    }
}

fn retries(part: &RetryPart) -> Section {
    let mut rows = vec![
        row("correlation ids", Cell::Number(part.compared)),
        row("committed more than once", alarm_if_any(part.committed_twice)),
        row(
            "committed after a failure",
            Cell::Number(part.committed_after_failure),
        ),
        row(
            "several attempts, none committed",
            alarm_if_any(part.never_committed),
        ),
    ];
    if part.not_compared > 0 {
        rows.push(row(
            "not compared, there were too many",
            Cell::Alarm(part.not_compared.to_string()),
        ));
    }
    Section {
        name: "retries",
        title: "Messages with several transactions",
        controls: controls_of("retries"),
        evidence: "Correlation ids under which more than one transaction could write, with the outcome of each: a \
                   message that was delivered again is seen, and whether it took effect twice.",
        limits: "Correlation ids are asserted by clients; one id may stand for several intended transactions.",
        tables: vec![
            summary_table(rows),
            listing(
                "Correlation ids",
                &["correlation id", "committed", "not committed", "attempts"],
                "No correlation id has several transactions.",
                &part.ids,
                |one| {
                    let mut attempts: Vec<_> = one.attempts.rows.iter().map(attempt).collect();
                    if one.attempts.more > 0 {
                        attempts.push(format!("and {} more", one.attempts.more));
                    }
                    let committed = if one.committed == 1 {
                        Cell::Number(1)
                    } else {
                        Cell::Alarm(one.committed.to_string())
                    };
                    vec![
                        text(&one.correlation),
                        committed,
                        Cell::Number(one.failed),
                        Cell::Lines(attempts),
                    ]
                },
            ),
        ],
    }
}

fn attempt(attempt: &Attempt) -> String {
    let xid = attempt.xid.map_or_else(String::new, |xid| format!(", xid {xid}"));
    let Place { seq, at } = &attempt.place;
    format!("{} {}{xid} (record {seq})", time(at).text(), attempt.outcome)
}

fn gaps(part: &GapPart) -> Section {
    let mut rows = vec![
        row("intents without an outcome", alarm_if_any(part.unknown.total())),
        row("commits in doubt", alarm_if_any(part.in_doubt.total())),
        row("prepared, decided elsewhere", Cell::Number(part.prepared.total())),
        row(
            "partial: one record may stand for several commits",
            Cell::Number(part.partial),
        ),
        row(
            "settled afterwards from evidence",
            counted_or_zero(&part.reconciled),
        ),
        row(
            "runs that ended without server.stopped",
            alarm_if_any(part.unstopped.total()),
        ),
    ];
    if part.not_followed > 0 {
        rows.push(row(
            "transactions too many to be followed",
            Cell::Alarm(part.not_followed.to_string()),
        ));
    }
    Section {
        name: "gaps",
        title: "Gaps",
        controls: controls_of("gaps"),
        evidence: "Where the journal itself says that it does not know: nothing is guessed.",
        limits: "The transaction ids below can be looked up in the database while it remembers them.",
        tables: vec![
            summary_table(rows),
            doubts(
                "Intents without an outcome",
                "Every intent has its outcome.",
                &part.unknown,
            ),
            doubts("In doubt", "No commit is in doubt.", &part.in_doubt),
            doubts("Prepared", "There were none.", &part.prepared),
            listing(
                "Runs without an end",
                &["run", "last record", "record"],
                "Every run ended in order, or goes on.",
                &part.unstopped,
                |one| vec![Cell::Number(one.epoch), time(&one.last.at), record(&one.last)],
            ),
            happenings("Interrupted writes", "There were none.", &part.repaired),
            happenings(
                "Times when it could not be written",
                "There were none.",
                &part.recovered,
            ),
        ],
    }
}

fn doubts(title: &'static str, none: &'static str, rows: &Listing<Doubt, ROWS>) -> Table {
    let heads = [
        "when",
        "who",
        "database",
        "role",
        "session/no",
        "xid",
        "correlation",
        "record",
    ];
    listing(title, &heads, none, rows, |one| {
        vec![
            time(&one.place.at),
            text(&one.who),
            text(&one.target),
            text(&one.role),
            code(&format!("{}/{}", one.session, one.number)),
            one.xid.map_or_else(|| text(""), Cell::Number),
            text(&one.correlation.join(", ")),
            record(&one.place),
        ]
    })
}
