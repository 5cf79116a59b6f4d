//! Statement texts become fingerprints; each normalised text is recorded once while it is remembered.

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::Arc;
use std::time::SystemTime;

use crate::audit::group::Group;
use crate::audit::line::{Detail, Origin, RelationNames};
use crate::audit::record::Normalised;
use crate::domain::target::Engine;
use crate::sql::pg;
use crate::sql::tsql::{self, Relations};

/// A normalised text is cut to this: enough to recognise any statement, too little to fill a disk.
const TEXT_BYTES_MAX: usize = 16 << 10;
/// Fingerprints that count as recorded. A text that returns after this many others is recorded
/// again, which costs a line and loses nothing.
const SEEN_MAX: usize = 16_384;
/// Raw texts whose fingerprints are kept: prepared statements and the like, which repeat.
const KNOWN_MAX: usize = 4_096;
/// Raw texts longer than this are not kept; 4,096 of them must fit in memory.
const KNOWN_BYTES_MAX: usize = 8 << 10;

pub(super) struct Statements {
    /// For PostgreSQL's texts; those of SQL Server are read by [`tsql`].
    normalise: fn(&str) -> Normalised,
    /// One and the same text is another one on another engine.
    known: HashMap<(Engine, Arc<str>), Arc<str>>,
    seen: HashSet<(Engine, Arc<str>)>,
    order: VecDeque<(Engine, Arc<str>)>,
}

/// A normalised text that has to be recorded.
#[derive(Debug, PartialEq, Eq)]
struct New {
    text: String,
    /// What the text names, where it can be read.
    relations: Option<Relations>,
}

impl Statements {
    pub(super) fn new(normalise: fn(&str) -> Normalised) -> Self {
        Self {
            normalise,
            known: HashMap::new(),
            seen: HashSet::new(),
            order: VecDeque::new(),
        }
    }

    /// The fingerprint. Before it the normalised text goes on record, if it was not yet.
    pub(super) fn tell(
        &mut self,
        engine: Engine,
        raw: &Arc<str>,
        (origin, at): (&Origin, SystemTime),
        group: &mut Group,
    ) -> Arc<str> {
        let (fingerprint, new) = self.fingerprint(engine, raw);
        if let Some(New { text, relations }) = new {
            let shown = text
                .get(..text.floor_char_boundary(TEXT_BYTES_MAX))
                .unwrap_or_default();
            let detail = Detail::Seen {
                fingerprint: &fingerprint,
                text: shown,
                truncated: shown.len() < text.len(),
                relations: relations.as_ref().map(RelationNames::of),
            };
            group.note(origin, at, "statement.seen", detail);
        }
        fingerprint
    }

    /// The fingerprint, and the normalised text if it has to be recorded now.
    fn fingerprint(&mut self, engine: Engine, raw: &Arc<str>) -> (Arc<str>, Option<New>) {
        let key = (engine, Arc::clone(raw));
        if let Some(fingerprint) = self.known.get(&key)
            && self.seen.contains(&(engine, Arc::clone(fingerprint)))
        {
            return (Arc::clone(fingerprint), None);
        }
        let normalised = self.normalised(engine, raw);
        let fingerprint: Arc<str> = Arc::from(normalised.fingerprint);
        if raw.len() <= KNOWN_BYTES_MAX {
            if self.known.len() >= KNOWN_MAX {
                self.known.clear();
            }
            self.known.insert(key, Arc::clone(&fingerprint));
        }
        let seen = (engine, Arc::clone(&fingerprint));
        if !self.seen.insert(seen.clone()) {
            return (fingerprint, None);
        }
        self.order.push_back(seen);
        if self.order.len() > SEEN_MAX
            && let Some(oldest) = self.order.pop_front()
        {
            self.seen.remove(&oldest);
        }
        let relations = match engine {
            Engine::Postgres => pg::relations(raw),
            Engine::SqlServer => tsql::relations(raw),
        };
        let text = normalised.text;
        (fingerprint, Some(New { text, relations }))
    }

    fn normalised(&self, engine: Engine, raw: &str) -> Normalised {
        match engine {
            Engine::Postgres => (self.normalise)(raw),
            Engine::SqlServer => {
                let normal = tsql::normalise(raw);
                Normalised {
                    fingerprint: normal.fingerprint,
                    text: normal.text,
                }
            }
        }
    }

    /// The records of these texts could not be written: all count as new again.
    pub(super) fn forget_seen(&mut self) {
        self.seen.clear();
        self.order.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plain(text: &str) -> Normalised {
        Normalised {
            fingerprint: format!("{:016}", text.len()),
            text: text.to_owned(),
        }
    }

    #[test]
    fn every_engine_has_its_own_reading() {
        let mut statements = Statements::new(plain);
        let raw: Arc<str> = Arc::from("select [A] from dbo.t where b = N'hunter2'");
        let (_, new) = statements.fingerprint(Engine::Postgres, &raw);
        assert!(new.is_some());
        let own: Arc<str> = Arc::from("select a from app.t where b = 'hunter2'");
        let (_, new) = statements.fingerprint(Engine::Postgres, &own);
        assert_eq!(new.unwrap().relations.unwrap().read[0].to_string(), "app.t");
        let (fingerprint, new) = statements.fingerprint(Engine::SqlServer, &raw);
        let new = new.unwrap();
        assert_eq!(new.text, "select [A] from dbo.t where b=?");
        assert_eq!(new.relations.unwrap().read[0].to_string(), "dbo.t");
        let other: Arc<str> = Arc::from("SELECT [A] FROM dbo.t WHERE b = @p1");
        assert_eq!(
            statements.fingerprint(Engine::SqlServer, &other),
            (fingerprint, None)
        );
        statements.forget_seen();
        assert!(statements.fingerprint(Engine::SqlServer, &raw).1.is_some());
    }
}
