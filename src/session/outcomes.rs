//! What a consumer asks whose COMMIT was never answered: which attempts of its own carried a correlation
//! id, and what became of them. Answered from the journal, as a text of JSON.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use serde::Serialize;
use tokio::sync::Semaphore;
use tokio::time::{Instant, timeout};

use crate::audit::attempts::{self, Attempt, Attempts, Question};
use crate::audit::record::{Doubtful, Evidence, Facts, Outcome};

/// From the question to the answer, the line before the desk included. A session does nothing else
/// meanwhile, and drivers give a statement some 30 s.
const ANSWER_WITHIN: Duration = Duration::from_secs(8);
/// What is on its way (an outcome to the disk, the broker's question to a server that is back) is there in
/// well under a second; what takes longer is told as unresolved.
const PATIENCE: Duration = Duration::from_secs(2);
/// Looks through the journal at one time, whoever asks: each keeps a disk and a core busy.
const LOOKS_MAX: usize = 2;

const UNKNOWN: &str = "no attempt of this identity at this target is on record under this id; unknown is not the same \
                       as not applied";
const INCOMPLETE: &str = "only the newest part of the journal was looked through; what is not listed may still have \
                          happened";
const SHORTENED: &str = "only the newest attempts are listed; there are more";
const UNRESOLVED: &str = "the end of an attempt is not known yet; ask again";
const BUSY: &str = "too many ask at the moment; ask again: unknown is not the same as not applied";
const UNREADABLE: &str = "the journal could not be read; unknown is not the same as not applied";

/// Where outcomes are asked for. One for all sessions.
#[derive(Clone, Debug)]
pub struct OutcomeDesk {
    directory: PathBuf,
    looks: Arc<Semaphore>,
}

#[derive(Serialize)]
struct Answer<'a> {
    correlation_id: &'a str,
    known: bool,
    attempts: Vec<Told>,
    complete: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    note: Option<&'static str>,
}

#[derive(Serialize)]
struct Told {
    transaction_id: Option<u64>,
    outcome: &'static str,
    /// `server_reply` where the server itself said so at once.
    evidence: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    why: Option<Doubtful>,
    session: String,
    number: u64,
    at: String,
}

impl OutcomeDesk {
    /// `directory` is the journal's.
    pub fn new(directory: PathBuf) -> Self {
        Self {
            directory,
            looks: Arc::new(Semaphore::new(LOOKS_MAX)),
        }
    }

    /// The attempts that carried `correlation`, of the identity and at the target of these facts. Always
    /// an answer, in ASCII, of at most so many bytes.
    pub(super) async fn answer(&self, correlation: &str, facts: &Facts, bytes_max: usize) -> String {
        let (Some(identity), Some(target)) = (&facts.identity, &facts.target) else {
            return told(correlation, Err(UNREADABLE), bytes_max);
        };
        let question = Question {
            correlation: correlation.to_owned(),
            identity: identity.clone(),
            target: target.clone(),
        };
        let until = Instant::now() + ANSWER_WITHIN;
        let Ok(Ok(look)) = timeout(ANSWER_WITHIN, Arc::clone(&self.looks).acquire_owned()).await else {
            return told(correlation, Err(BUSY), bytes_max);
        };
        let directory = self.directory.clone();
        let looking = tokio::task::spawn_blocking(move || {
            // Held for as long as the disk is busy, also when the session has gone meanwhile.
            let _look = look;
            attempts::find(&directory, &question, until, Instant::now() + PATIENCE)
        });
        let found = match looking.await {
            Ok(Ok(found)) => Ok(found),
            Ok(Err(error)) => {
                tracing::error!(%error, "the journal could not be looked through for a client");
                Err(UNREADABLE)
            }
            Err(_) => Err(UNREADABLE),
        };
        told(correlation, found, bytes_max)
    }
}

/// The answer, without the oldest attempts where it would be too long with them.
fn told(correlation: &str, mut found: Result<Attempts, &'static str>, bytes_max: usize) -> String {
    let mut shortened = false;
    loop {
        let text = written(correlation, &found, shortened);
        match &mut found {
            Ok(found) if text.len() > bytes_max && !found.attempts.is_empty() => {
                found.attempts.remove(0);
                found.complete = false;
                shortened = true;
            }
            Ok(_) | Err(_) => return text,
        }
    }
}

fn written(correlation: &str, found: &Result<Attempts, &'static str>, shortened: bool) -> String {
    let (attempts, complete) = match found {
        Ok(found) => (found.attempts.as_slice(), found.complete),
        Err(_) => (&[][..], false),
    };
    let note = match found {
        Err(note) => Some(*note),
        Ok(_) if attempts.iter().any(Attempt::is_unresolved) => Some(UNRESOLVED),
        Ok(_) if shortened => Some(SHORTENED),
        Ok(found) if !found.complete => Some(INCOMPLETE),
        Ok(found) if found.attempts.is_empty() => Some(UNKNOWN),
        Ok(_) => None,
    };
    let answer = Answer {
        correlation_id: correlation,
        known: !attempts.is_empty(),
        attempts: attempts.iter().map(Told::from).collect(),
        complete,
        note,
    };
    // Strings and numbers: there is nothing in it that has no JSON.
    ascii(&serde_json::to_string(&answer).unwrap_or_default())
}

/// The same JSON in ASCII, which every encoding of a server has.
fn ascii(json: &str) -> String {
    let mut text = String::with_capacity(json.len());
    for c in json.chars() {
        if c.is_ascii() {
            text.push(c);
        } else {
            let mut units = [0; 2];
            for unit in c.encode_utf16(&mut units) {
                text.push_str(&format!("\\u{unit:04x}"));
            }
        }
    }
    text
}

impl From<&Attempt> for Told {
    fn from(attempt: &Attempt) -> Self {
        let outcome = match attempt.outcome {
            _ if attempt.is_unresolved() => "unresolved",
            Some(Outcome::Committed) => "committed",
            Some(Outcome::Aborted) => "aborted",
            Some(Outcome::Prepared) => "prepared",
            Some(Outcome::InDoubt) | None => "in_doubt",
        };
        let evidence = match (attempt.evidence, attempt.outcome) {
            (Some(evidence), _) => word(evidence),
            (None, Some(Outcome::Committed | Outcome::Aborted | Outcome::Prepared)) => "server_reply",
            (None, Some(Outcome::InDoubt) | None) => "none",
        };
        Self {
            transaction_id: attempt.id,
            outcome,
            evidence,
            why: attempt.why,
            session: attempt.session.to_string(),
            number: attempt.number,
            at: humantime::format_rfc3339_micros(attempt.at).to_string(),
        }
    }
}

/// As it stands in the journal.
const fn word(evidence: Evidence) -> &'static str {
    match evidence {
        Evidence::SameIncarnation => "same_incarnation",
        Evidence::AbortedOrFuture => "aborted_or_future",
        Evidence::CommitTimestamp => "commit_timestamp",
        Evidence::ControlCheckpoint => "control_checkpoint",
        Evidence::WalMarker => "wal_marker",
        Evidence::MarkerTable => "marker_table",
        Evidence::PreparedTransaction => "prepared_transaction",
        Evidence::None => "none",
    }
}

#[cfg(test)]
mod tests {
    use std::time::SystemTime;

    use serde_json::Value;

    use super::*;
    use crate::domain::clock::Random;
    use crate::domain::ids::SessionId;

    #[derive(Debug)]
    struct Ones;

    impl Random for Ones {
        fn fill(&self, bytes: &mut [u8]) {
            bytes.fill(0x11);
        }
    }

    fn attempt(outcome: Option<Outcome>, evidence: Option<Evidence>) -> Attempt {
        Attempt {
            session: SessionId::random(&Ones),
            number: 1,
            id: Some(700),
            outcome,
            evidence,
            why: None,
            at: SystemTime::UNIX_EPOCH,
        }
    }

    fn answer(attempts: Vec<Attempt>, complete: bool) -> Value {
        let text = told(
            "m-\u{e9}\u{1f600}",
            Ok(Attempts { attempts, complete }),
            usize::MAX,
        );
        assert!(text.is_ascii(), "{text}");
        let answer: Value = serde_json::from_str(&text).unwrap();
        assert_eq!(answer["correlation_id"], "m-\u{e9}\u{1f600}");
        answer
    }

    #[test]
    fn nothing_found_is_said_to_be_unknown() {
        let unknown = answer(vec![], true);
        assert_eq!(unknown["known"], false);
        assert_eq!(unknown["note"], UNKNOWN);
        assert_eq!(answer(vec![], false)["note"], INCOMPLETE);
    }

    #[test]
    fn an_answer_has_room_for_the_newest() {
        let attempts: Vec<_> = (0..100)
            .map(|number| Attempt {
                number,
                ..attempt(Some(Outcome::Committed), None)
            })
            .collect();
        let found = Attempts {
            attempts,
            complete: true,
        };
        let text = told("m", Ok(found), 8_000);
        assert!((7_000..=8_000).contains(&text.len()), "{}", text.len());
        let answer: Value = serde_json::from_str(&text).unwrap();
        assert_eq!(answer["note"], SHORTENED);
        assert_eq!(answer["complete"], false);
        let listed = answer["attempts"].as_array().unwrap();
        assert_eq!(listed.last().unwrap()["number"], 99);
    }

    #[test]
    fn outcomes_are_told_with_what_they_rest_on() {
        let cases = [
            (Some(Outcome::Committed), None, "committed", "server_reply"),
            (
                Some(Outcome::Committed),
                Some(Evidence::SameIncarnation),
                "committed",
                "same_incarnation",
            ),
            (Some(Outcome::InDoubt), Some(Evidence::None), "in_doubt", "none"),
            (Some(Outcome::InDoubt), None, "unresolved", "none"),
            (None, None, "unresolved", "none"),
        ];
        for (outcome, evidence, told, rests_on) in cases {
            let answer = answer(vec![attempt(outcome, evidence)], true);
            assert_eq!(answer["attempts"][0]["outcome"], told);
            assert_eq!(answer["attempts"][0]["evidence"], rests_on);
            assert_eq!(answer["attempts"][0]["transaction_id"], 700);
            assert_eq!(answer["known"], true);
            assert_eq!(answer["note"].is_null(), told != "unresolved");
        }
    }
}
