//! What is meant by the `audit` section.

use std::time::Duration;

use crate::app::config::file::{self, Must, Written};
use crate::app::config::resolve::Resolver;
use crate::app::config::settings::{Audit, Durability};
use crate::audit::heads::SecondPlace;
use crate::audit::retention::Retention;
use crate::domain::autocommit::Autocommit;

/// A journal that is removed after less than this is a typing mistake.
const KEEP_MIN: Duration = Duration::from_secs(24 * 60 * 60);
/// Older than anything that has to be kept: longer is a typing mistake.
const AGE_MAX: Duration = Duration::from_secs(100 * 366 * 24 * 60 * 60);

impl Resolver<'_, '_, '_> {
    pub(super) fn audit(&mut self, written: &Must<file::Audit>) -> Option<Audit> {
        let written = written.get()?;
        let signing_key = self.secret(written.signing_key.get());
        let previous = written.previous_signing_key.as_ref();
        let previous = previous.map(|previous| self.secret(Some(previous)));
        let durability = written.durability.as_ref();
        let durability = durability.map_or(Durability::Strict, |durability| durability.value);
        let heads = self.second_place(written.heads.as_ref());
        let retention = self.retention(written.retention.as_ref());
        let directory = self.path(&written.directory.get()?.value);
        let sinks = self.sinks(written.sinks.as_ref(), &directory);
        Some(Audit {
            directory,
            sinks: sinks?,
            durability,
            autocommit: autocommit(written.autocommit.as_ref().map(|it| it.value), durability),
            signing_key: signing_key?,
            previous_signing_key: match previous {
                Some(previous) => Some(previous?),
                None => None,
            },
            heads,
            retention: retention?,
        })
    }

    fn second_place(&self, written: Option<&file::Heads>) -> SecondPlace {
        let file = written.and_then(|heads| heads.file.as_ref());
        let log = written.and_then(|heads| heads.log.as_ref());
        SecondPlace {
            file: file.map(|file| self.path(&file.value)),
            log: log.is_some_and(|log| log.value),
        }
    }

    fn retention(&mut self, written: Option<&file::Retention>) -> Option<Retention> {
        let compress_after = written.and_then(|it| it.compress_after.as_ref());
        let keep = written.and_then(|it| it.keep.as_ref());
        let retention = Retention {
            compress_after: self.age(compress_after, Duration::ZERO)?,
            keep: self.age(keep, KEEP_MIN)?,
        };
        if let (Some(compressed), Some(kept), Some(written)) =
            (retention.compress_after, retention.keep, compress_after)
            && compressed >= kept
        {
            let message = "a segment is removed before it is this old: see keep";
            self.reader.mistake(written.at, message);
        }
        Some(retention)
    }

    fn age(&mut self, written: Option<&Written<String>>, least: Duration) -> Option<Option<Duration>> {
        let Some(written) = written else {
            return Some(None);
        };
        let wrong = match humantime::parse_duration(&written.value) {
            Ok(age) if age < least => "must be a day or more",
            Ok(age) if age > AGE_MAX => "must be a hundred years or less",
            Ok(age) => return Some(Some(age)),
            Err(_) => "is not an age, like 7d or 400d",
        };
        let message = format!("\"{}\" {wrong}", written.value);
        self.reader.mistake(written.at, message);
        None
    }
}

/// Who waits for the disk with every commit wants to know afterwards what became of each; who does not, wants
/// them fast.
fn autocommit(written: Option<file::Autocommit>, durability: Durability) -> Autocommit {
    match (written, durability) {
        (Some(file::Autocommit::AskFirst), _) | (None, Durability::Strict) => Autocommit::AskFirst,
        (Some(file::Autocommit::HoldReply), _) | (None, Durability::Batched | Durability::Os) => {
            Autocommit::HoldReply
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn without_a_word_the_durability_decides() {
        use file::Autocommit::{AskFirst, HoldReply};
        let cases = [
            (None, Durability::Strict, Autocommit::AskFirst),
            (None, Durability::Batched, Autocommit::HoldReply),
            (None, Durability::Os, Autocommit::HoldReply),
            (Some(HoldReply), Durability::Strict, Autocommit::HoldReply),
            (Some(AskFirst), Durability::Os, Autocommit::AskFirst),
        ];
        for (written, durability, expected) in cases {
            assert_eq!(
                autocommit(written, durability),
                expected,
                "{written:?} {durability:?}"
            );
        }
    }
}
