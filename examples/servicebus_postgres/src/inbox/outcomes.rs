//! What gatepost says about a COMMIT whose reply was lost.

use serde::Deserialize;

/// The answer of `SHOW gatepost.outcomes`, as far as it is needed here.
#[derive(Debug, Deserialize)]
struct Answer {
    attempts: Vec<Attempt>,
}

#[derive(Debug, Deserialize)]
struct Attempt {
    transaction_id: Option<u64>,
    outcome: String,
    evidence: String,
}

#[derive(Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// Proved; the text is what it rests on.
    Committed(String),
    Aborted(String),
    /// It is on its way: ask again.
    Unresolved,
    /// Not on record, or nobody can tell. That is not the same as not applied: the inbox decides.
    Unknown,
}

/// About this one transaction. Others may carry the same correlation id, from other workers and other tries.
pub(super) fn verdict(answer: &str, xid: u64) -> Result<Verdict, serde_json::Error> {
    let answer: Answer = serde_json::from_str(answer)?;
    let ours = answer
        .attempts
        .into_iter()
        .find(|one| one.transaction_id == Some(xid));
    Ok(match ours {
        None => Verdict::Unknown,
        Some(attempt) => match attempt.outcome.as_str() {
            "committed" => Verdict::Committed(attempt.evidence),
            "aborted" => Verdict::Aborted(attempt.evidence),
            "unresolved" => Verdict::Unresolved,
            _ => Verdict::Unknown,
        },
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(attempts: &str) -> String {
        format!(r#"{{"correlation_id":"c","known":true,"complete":true,"attempts":[{attempts}]}}"#)
    }

    #[test]
    fn only_the_transaction_that_was_asked_for_counts() {
        let other = r#"{"transaction_id":7,"outcome":"committed","evidence":"server_reply"}"#;
        let nameless = r#"{"transaction_id":null,"outcome":"committed","evidence":"server_reply"}"#;
        let ours = r#"{"transaction_id":8,"outcome":"aborted","evidence":"same_incarnation"}"#;
        let all = answer(&format!("{other},{nameless},{ours}"));
        assert_eq!(
            verdict(&all, 8).unwrap(),
            Verdict::Aborted("same_incarnation".to_owned())
        );
        assert_eq!(
            verdict(&all, 7).unwrap(),
            Verdict::Committed("server_reply".to_owned())
        );
        assert_eq!(verdict(&all, 9).unwrap(), Verdict::Unknown);
    }

    #[test]
    fn unknown_is_not_the_same_as_not_applied() {
        assert_eq!(verdict(&answer(""), 8).unwrap(), Verdict::Unknown);
        let said = |word: &str| {
            let one = format!(r#"{{"transaction_id":8,"outcome":"{word}","evidence":"none"}}"#);
            verdict(&answer(&one), 8).unwrap()
        };
        assert_eq!(said("in_doubt"), Verdict::Unknown);
        assert_eq!(said("prepared"), Verdict::Unknown);
        assert_eq!(said("unresolved"), Verdict::Unresolved);
        verdict("no answer", 8).unwrap_err();
    }
}
