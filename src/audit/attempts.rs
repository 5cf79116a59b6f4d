//! What became of a message: all attempts of one identity at one target that carry a correlation id.
//! Looks through the newest part of the journal, on whatever thread may block.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use memchr::memmem;
use tokio::time::Instant;

use crate::audit::reading::{Key, Said, Told, newest, told};
use crate::audit::record::{Doubtful, Evidence, IdentityFacts, Outcome};
use crate::audit::stored::lines_of;
use crate::domain::ids::SessionId;
use crate::domain::target::TargetName;

/// Newest segments that are looked through: 1 GiB, some two million transactions. Whoever asks has lost a
/// reply moments ago, or starts again after an outage.
const SEGMENTS_MAX: usize = 16;
/// Attempts that are told, the newest ones. A message that fails is given up after far fewer.
const ATTEMPTS_MAX: usize = 100;
/// Lines between two looks at the time.
const LINES_PER_LOOK: usize = 4096;
/// An attempt whose end is not on record yet is looked for again this often.
const AGAIN_EVERY: Duration = Duration::from_millis(50);

/// Who asks for what.
#[derive(Clone, Debug)]
pub struct Question {
    pub correlation: String,
    /// Attempts of others are not told, and their existence neither.
    pub identity: IdentityFacts,
    pub target: TargetName,
}

/// One transaction that carried the id.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Attempt {
    pub session: SessionId,
    pub number: u64,
    /// The engine's own id, if it was known.
    pub id: Option<u64>,
    /// `None`: its end is not on record.
    pub outcome: Option<Outcome>,
    /// What a later verdict rests on; none where the server itself said it at once.
    pub evidence: Option<Evidence>,
    pub why: Option<Doubtful>,
    pub at: SystemTime,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Attempts {
    /// Oldest first.
    pub attempts: Vec<Attempt>,
    /// Was all of the journal looked through, and is all told?
    pub complete: bool,
}

/// Looks for attempts until `until`. Attempts whose end is not on record are waited for until `patience`.
pub fn find(
    directory: &Path,
    question: &Question,
    until: Instant,
    patience: Instant,
) -> io::Result<Attempts> {
    let mut search = Search::new(question, until)?;
    let all = newest(directory, usize::MAX)?;
    let near = newest(directory, SEGMENTS_MAX)?;
    search.complete = near.first() == all.first();
    // From the newest to the oldest, so that what there is no time for is the oldest.
    for path in near.iter().rev() {
        search.segment(path.clone());
    }
    let mut last = near.last().cloned();
    while search.awaits() && Instant::now() < patience.min(until) {
        std::thread::sleep(AGAIN_EVERY);
        // What is written meanwhile is in the segment that was the newest, or behind it.
        let files = newest(directory, usize::MAX)?;
        let from = files.partition_point(|file| last.as_ref().is_some_and(|last| file < last));
        for path in files.iter().skip(from) {
            search.segment(path.clone());
        }
        last = files.last().cloned();
    }
    Ok(search.end())
}

struct Search<'a> {
    question: &'a Question,
    /// The id as it stands in a line.
    needle: memmem::Finder<'static>,
    until: Instant,
    found: BTreeMap<Key, (Rank, Attempt)>,
    complete: bool,
}

/// Of two records about one transaction the higher one counts, and of two alike the later one.
type Rank = (u8, SystemTime);

impl<'a> Search<'a> {
    fn new(question: &'a Question, until: Instant) -> io::Result<Self> {
        let id = serde_json::to_string(&question.correlation)?;
        Ok(Self {
            question,
            needle: memmem::Finder::new(&format!("\"id\":{id}")).into_owned(),
            until,
            found: BTreeMap::new(),
            complete: true,
        })
    }

    fn segment(&mut self, path: PathBuf) {
        for (number, spot) in lines_of(path).enumerate() {
            if number % LINES_PER_LOOK == 0 && Instant::now() >= self.until {
                self.complete = false;
                return;
            }
            let Ok(line) = spot.bytes else {
                self.complete = false;
                return;
            };
            if self.needle.find(&line).is_some()
                && let Some(told) = told(&line)
                && self.is_asked_for(&told)
            {
                self.note(told);
            }
        }
    }

    fn is_asked_for(&self, told: &Told) -> bool {
        let asked = &self.question.identity;
        let same = |who: &IdentityFacts| {
            who.provider == asked.provider && who.subject == asked.subject && who.tenant == asked.tenant
        };
        let named = |id: &str| id == self.question.correlation;
        told.facts.identity.as_ref().is_some_and(same)
            && told.facts.target.as_ref() == Some(&self.question.target)
            && told.correlation.iter().any(|one| named(&one.id))
            && !told.is_read_only
    }

    fn note(&mut self, told: Told) {
        let (level, outcome, evidence, why) = match told.said {
            Said::Intent => (0, None, None, None),
            Said::Outcome(outcome) => (1, Some(outcome), None, None),
            Said::Reconciled {
                outcome,
                evidence,
                why,
            } => (2, Some(outcome), Some(evidence), why),
        };
        let rank = (level, told.at);
        let attempt = Attempt {
            session: told.key.session,
            number: told.key.number,
            id: told.id,
            outcome,
            evidence,
            why,
            at: told.at,
        };
        let known = self.found.entry(told.key);
        let (known_rank, known) = known.or_insert_with(|| (rank, attempt.clone()));
        if rank > *known_rank {
            let id = attempt.id.or(known.id);
            (*known_rank, *known) = (rank, Attempt { id, ..attempt });
        } else {
            known.id = known.id.or(attempt.id);
        }
    }

    /// Is something on its way that is worth a moment?
    fn awaits(&self) -> bool {
        self.found.values().any(|(_, attempt)| attempt.is_unresolved())
    }

    fn end(self) -> Attempts {
        let mut attempts: Vec<_> = self.found.into_values().map(|(_, attempt)| attempt).collect();
        attempts.sort_by_key(|attempt| attempt.at);
        let omitted = attempts.len().saturating_sub(ATTEMPTS_MAX);
        attempts.drain(..omitted);
        Attempts {
            attempts,
            complete: self.complete && omitted == 0,
        }
    }
}

impl Attempt {
    /// May more be known of it in a moment?
    pub fn is_unresolved(&self) -> bool {
        match self.outcome {
            None => true,
            Some(Outcome::InDoubt) => self.evidence.is_none() && self.id.is_some(),
            Some(Outcome::Committed | Outcome::Aborted | Outcome::Prepared) => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::ids::ProviderName;

    fn line(event: &str, who: &str, target: &str, id: &str, number: u64, detail: &str) -> String {
        let id = serde_json::to_string(id).unwrap();
        format!(
            r#"{{"v":1,"seq":5,"at":"2026-01-01T00:00:0{number}.000000Z","installation":"i","replica":"r","epoch":1,"event":"transaction.{event}","session":"s-00112233445566778899","identity":{{"provider":"p","subject":"{who}"}},"target":"{target}","engine":"postgres","correlation":[{{"id":{id},"source":"set"}}],"detail":{{"number":{number},{detail}}},"prev":"","hash":""}}"#
        )
    }

    fn ask(segments: &[&[String]], id: &str) -> Attempts {
        let folder = tempfile::tempdir().unwrap();
        for (number, lines) in segments.iter().enumerate() {
            let text: String = lines.iter().map(|line| format!("{line}\n")).collect();
            let name = format!("segment-{:016}.jsonl", number + 1);
            std::fs::write(folder.path().join(name), text).unwrap();
        }
        let identity = IdentityFacts {
            provider: ProviderName::new("p"),
            subject: "me".to_owned(),
            client_id: None,
            tenant: None,
            name: None,
            token_id: None,
            ticket_id: None,
        };
        let question = Question {
            correlation: id.to_owned(),
            identity,
            target: TargetName::new("orders"),
        };
        let until = Instant::now() + Duration::from_secs(30);
        find(folder.path(), &question, until, Instant::now()).unwrap()
    }

    #[test]
    fn every_attempt_is_told_with_what_is_known_last() {
        let me = |event, number, detail| line(event, "me", "orders", "m-\u{e9}\"1", number, detail);
        let first = [me("intent", 1, r#""id":700"#), me("intent", 2, r#""id":701"#)];
        let second = [
            me("outcome", 1, r#""id":700,"outcome":"in_doubt""#),
            me(
                "reconciled",
                1,
                r#""of_epoch":1,"id":700,"outcome":"aborted","evidence":"same_incarnation""#,
            ),
            me("outcome", 2, r#""id":701,"outcome":"committed""#),
            me("outcome", 3, r#""outcome":"committed","scope":"read_only""#),
        ];
        let found = ask(&[&first, &second], "m-\u{e9}\"1");
        assert!(found.complete);
        let told: Vec<_> = found
            .attempts
            .iter()
            .map(|one| (one.id, one.outcome, one.evidence))
            .collect();
        assert_eq!(
            told,
            [
                (Some(700), Some(Outcome::Aborted), Some(Evidence::SameIncarnation)),
                (Some(701), Some(Outcome::Committed), None)
            ]
        );
    }

    #[test]
    fn others_and_other_targets_are_not_told() {
        let outcome = r#""id":7,"outcome":"committed""#;
        let lines = [
            line("outcome", "you", "orders", "m-1", 1, outcome),
            line("outcome", "me", "billing", "m-1", 2, outcome),
            line("outcome", "me", "orders", "m-11", 3, outcome),
            line("outcome", "me", "orders", "M-1", 4, outcome),
        ];
        assert_eq!(ask(&[&lines], "m-1").attempts, []);
        assert_eq!(ask(&[&lines], "m-11").attempts.len(), 1);
    }

    #[test]
    fn an_intent_alone_is_unresolved() {
        let found = ask(&[&[line("intent", "me", "orders", "m-1", 1, r#""id":7"#)]], "m-1");
        assert!(found.attempts[0].is_unresolved());
    }
}
