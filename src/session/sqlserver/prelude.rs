//! What a session sets on its connection to SQL Server: a reset, the isolation level, who the client is
//! (for triggers, row-level security and the server's own audit) and what its work belongs to.
//!
//! The identity's keys of the session context are read-only, so that no statement of the client can
//! change them until the next reset; a connection serves one identity only.

use std::time::Duration;

use tokio::time::timeout;

use crate::audit::record::Facts;
use crate::credential::{SETTINGS_CHECK_TSQL, TAMPER_CHECK_TSQL};
use crate::session::prelude::{Prelude, PreludeError};
use crate::upstream::ask::{AskError, ask};
use crate::upstream::checkout::{Checkout, Habits};
use crate::wire::tds::packet::Status;
use crate::wire::tds::rows::Value;

/// A few statements on one connection; a server that needs this long serves nobody.
const TIME_MAX: Duration = Duration::from_secs(5);
/// A new connection is also asked about its login, and a server's catalogue can be slow the first time.
const TIME_MAX_NEW: Duration = Duration::from_secs(15);

/// `sp_set_session_context` takes 8,000 bytes; a subject or client id of a token is far below.
const VALUE_CHARS_MAX: usize = 1_000;

/// What the tamper check says in one row: a phrase with one name in it. A record repeats no more.
const PHRASE_CHARS_SHOWN: usize = 160;

/// How a server may tell the id of a transaction: SQL Server 2016 and later; PostgreSQL behind T-SQL.
const ID_QUESTIONS: [&str; 2] = [
    "SELECT CURRENT_TRANSACTION_ID()",
    "SELECT txid_current_if_assigned()",
];
const SESSION_QUESTION: &str = "SELECT @@SPID";
/// Does the server tell of transactions that statements begin?
const TELLS_QUESTION: &str = "BEGIN TRANSACTION; ROLLBACK TRANSACTION";

/// Resets the session and sets what is this session's own; on a new connection also finds out what its
/// server tells of transactions.
pub(super) async fn play(checkout: &mut Checkout, prelude: &Prelude<'_>) -> Result<(), PreludeError> {
    let text = text(prelude);
    let limit = if checkout.habits().is_none() {
        TIME_MAX_NEW
    } else {
        TIME_MAX
    };
    let all = async {
        run(checkout, &text, prelude.facts).await?;
        if checkout.habits().is_none() {
            check(checkout, prelude.minted).await?;
            let habits = habits(checkout).await?;
            checkout.note_habits(habits);
        }
        Ok(())
    };
    timeout(limit, all).await.map_err(|_| PreludeError::TimedOut)?
}

async fn run(checkout: &mut Checkout, text: &str, facts: &Facts) -> Result<(), PreludeError> {
    let answer = ask(checkout, Status::RESET, text).await?;
    if let Some(number) = answer.error {
        let code = number.to_string();
        return Err(PreludeError::Refused { code });
    }
    if !answer.reset {
        return Err(PreludeError::NotTaken { what: "the reset" });
    }
    let wanted: Vec<Value> = identity(facts).map(|(_, value)| Value::Text(value)).collect();
    match answer.first_row()? {
        // Behind the identity's keys stands the number of open transactions.
        Some(row) if row.strip_prefix(wanted.as_slice()) == Some(&[Value::Int(0)]) => Ok(()),
        Some(_) | None => Err(PreludeError::NotTaken {
            what: "the identity in its session context",
        }),
    }
}

/// Is the login still as it was minted, or, where it is everybody's, without what one could have planted
/// for all? A row says what is not.
async fn check(checkout: &mut Checkout, minted: bool) -> Result<(), PreludeError> {
    let question = if minted {
        TAMPER_CHECK_TSQL
    } else {
        SETTINGS_CHECK_TSQL
    };
    let answer = ask(checkout, Status::NORMAL, question).await?;
    if let Some(number) = answer.error {
        let code = number.to_string();
        return Err(PreludeError::Refused { code });
    }
    match answer.first_row()?.and_then(|row| row.into_iter().next()) {
        Some(Value::Text(what)) => Err(PreludeError::Tampered {
            what: what.escape_debug().take(PHRASE_CHARS_SHOWN).collect(),
        }),
        Some(_) | None => Ok(()),
    }
}

async fn habits(checkout: &mut Checkout) -> Result<Habits, PreludeError> {
    let mut id_question = None;
    for question in ID_QUESTIONS {
        if ask(checkout, Status::NORMAL, question).await?.error.is_none() {
            id_question = Some(question);
            break;
        }
    }
    let answer = ask(checkout, Status::NORMAL, SESSION_QUESTION).await?;
    let session = match answer.first_row()?.as_deref() {
        Some([Value::Int(session)]) => i32::try_from(*session).unwrap_or_default(),
        Some(_) | None => checkout.process(),
    };
    let tells_transactions = ask(checkout, Status::NORMAL, TELLS_QUESTION).await?.began;
    Ok(Habits {
        id_question,
        session,
        tells_transactions,
    })
}

/// The keys of the session context that say who the client is.
fn identity(facts: &Facts) -> impl Iterator<Item = (&'static str, String)> {
    let identity = facts.identity.as_ref();
    let all = [
        ("gatepost.provider", identity.map(|it| it.provider.to_string())),
        ("gatepost.subject", identity.map(|it| it.subject.clone())),
        ("gatepost.client_id", identity.and_then(|it| it.client_id.clone())),
        ("gatepost.tenant", identity.and_then(|it| it.tenant.clone())),
        ("gatepost.role", facts.role.as_ref().map(ToString::to_string)),
    ];
    all.into_iter()
        .filter_map(|(key, value)| Some((key, value?.chars().take(VALUE_CHARS_MAX).collect())))
}

/// The whole prelude as one batch. It can be run again after any reset: what is read-only and there
/// already is left as it is, and is what is asked for at the end.
pub(super) fn text(prelude: &Prelude<'_>) -> String {
    let mut text = String::from(
        "SET NOCOUNT ON; SET TRANSACTION ISOLATION LEVEL READ COMMITTED; SET CONTEXT_INFO 0x00;\n",
    );
    let mut asked = String::new();
    for (key, value) in identity(prelude.facts) {
        let (key, value) = (literal(key), literal(&value));
        text.push_str(&format!(
            "IF SESSION_CONTEXT({key}) IS NULL EXEC sys.sp_set_session_context {key}, {value}, 1;\n"
        ));
        asked.push_str(&format!("CAST(SESSION_CONTEXT({key}) AS nvarchar(1000)), "));
    }
    let session = literal(&prelude.session.to_string());
    text.push_str(&format!(
        "EXEC sys.sp_set_session_context N'gatepost.session', {session}, 0;\n"
    ));
    let correlation = prelude.correlation.map(|correlation| literal(&correlation.id));
    let correlation = correlation.as_deref().unwrap_or("NULL");
    text.push_str(&format!(
        "EXEC sys.sp_set_session_context N'correlation_id', {correlation}, 0;\n"
    ));
    text.push_str(&format!("SET NOCOUNT OFF; SELECT {asked}@@TRANCOUNT"));
    text
}

/// A string constant. Within `N'…'` only the quote itself means anything.
fn literal(value: &str) -> String {
    let value: String = value.chars().filter(|c| *c != '\0').collect();
    format!("N'{}'", value.replace('\'', "''"))
}

impl From<AskError> for PreludeError {
    fn from(error: AskError) -> Self {
        match error {
            AskError::Broken(error) => Self::Broken(error),
            AskError::Misbehaved(error) => Self::Misbehaved(error),
            AskError::Closed | AskError::OtherEngine => {
                Self::Broken(std::io::Error::from(std::io::ErrorKind::UnexpectedEof))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::audit::record::IdentityFacts;
    use crate::domain::correlation::{Correlation, CorrelationSource};
    use crate::domain::{Autocommit, Random, SessionId};

    #[derive(Debug)]
    struct Seven;

    impl Random for Seven {
        fn fill(&self, bytes: &mut [u8]) {
            bytes.fill(7);
        }
    }

    #[test]
    fn literals_cannot_be_left() {
        assert_eq!(literal("a'; DROP TABLE x; --"), "N'a''; DROP TABLE x; --'");
        assert_eq!(literal("a\0b"), "N'ab'");
    }

    #[test]
    fn the_identity_is_read_only_and_the_correlation_is_not() {
        let facts = Facts {
            identity: Some(IdentityFacts {
                provider: "entra".into(),
                subject: "o'neill".to_owned(),
                client_id: None,
                tenant: None,
                name: None,
                token_id: None,
                ticket_id: None,
            }),
            ..Facts::default()
        };
        let correlation = Correlation {
            id: Arc::from("m-1"),
            source: CorrelationSource::ApplicationName,
        };
        let text = text(&Prelude {
            marker: None,
            autocommit: Autocommit::AskFirst,
            minted: true,
            application: None,
            session: SessionId::random(&Seven),
            correlation: Some(&correlation),
            facts: &facts,
        });
        assert!(text.contains("sp_set_session_context N'gatepost.subject', N'o''neill', 1;"));
        assert!(text.contains("sp_set_session_context N'correlation_id', N'm-1', 0;"));
        assert!(text.ends_with(
            "SELECT CAST(SESSION_CONTEXT(N'gatepost.provider') AS nvarchar(1000)), \
             CAST(SESSION_CONTEXT(N'gatepost.subject') AS nvarchar(1000)), @@TRANCOUNT"
        ));
    }
}
