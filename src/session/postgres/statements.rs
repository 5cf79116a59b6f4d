//! What the names of prepared statements and portals stand for, as far as the server has confirmed
//! it. A name that is not known here stands for the worst that it could be.
//!
//! A Parse or Bind counts only once the server has answered it: if it fails, the name keeps its old
//! meaning, and believing the new one would let a statement run unrecognised.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use crate::audit::values::{ParameterTypes, Values};
use crate::session::ledger::Allowance;
use crate::session::postgres::proofs::{Judged, Memory, Proofs};
use crate::sql::Kind;
use crate::sql::correlation::SetCorrelation;
use crate::wire::pg::bound::{self, Parameters};
use crate::wire::pg::from_client;

/// Names that one session may keep; a driver's cache holds some hundreds. Beyond it new names are
/// not remembered, so their statements count as unknown and are treated with the most care.
const NAMES_MAX: usize = 20_000;

/// Bytes of texts that one session may keep under names, those on their way to the server included.
const TEXTS_BYTES_MAX: usize = 16 * 1024 * 1024;

/// A prepared statement's text and what was read in it.
#[derive(Debug)]
pub(super) struct Prepared {
    pub(super) text: Arc<str>,
    pub(super) kind: Kind,
    pub(super) sets: Vec<SetCorrelation>,
    /// The names of prepared transactions in it.
    pub(super) gids: Vec<Option<Arc<str>>>,
    pub(super) memory: Memory,
    /// Where the values of its parameters go on record.
    pub(super) types: Option<Arc<ParameterTypes>>,
}

impl Prepared {
    /// What it takes of the room for texts.
    fn bytes(&self) -> usize {
        self.text.len() + self.types.as_ref().map_or(0, |types| types.bytes())
    }

    /// What a name stands for that nobody here knows: a statement of SQL's PREPARE, a cursor.
    pub(super) fn unknown() -> Arc<Self> {
        Arc::new(Self::nameless("/* prepared outside of the protocol */"))
    }

    pub(super) fn judged(&self, proofs: &Proofs) -> Judged {
        proofs.judge_prepared(&self.text, self.kind, &self.memory)
    }

    fn nameless(text: &str) -> Self {
        Self {
            text: Arc::from(text),
            kind: Kind::Unknown,
            sets: Vec::new(),
            gids: Vec::new(),
            memory: Memory::illegible(),
            types: None,
        }
    }
}

/// A portal: a statement with its parameters, executed once or in parts.
#[derive(Clone, Debug)]
pub(super) struct Portal {
    pub(super) statement: Arc<Prepared>,
    /// What it sets of the correlation id, parameters filled in; empty where the statement says all.
    pub(super) sets: Vec<SetCorrelation>,
    /// Was it a plain read when it was bound? Its plan was made then, and outlives what it calls.
    pub(super) plain: bool,
    /// Its parameters, where they go on record: with its first part.
    pub(super) values: Option<Values>,
    /// Was it executed before? A portal that is fetched in parts is one statement on record.
    pub(super) executed: bool,
}

/// What an Execute brings with it.
#[derive(Debug, Default)]
pub(super) struct Execution {
    /// What it sets of the correlation id.
    pub(super) sets: Vec<SetCorrelation>,
    /// Is it the portal's first part?
    pub(super) first: bool,
    pub(super) values: Option<Values>,
}

#[derive(Debug, Default)]
pub(super) struct Statements {
    confirmed: HashMap<Vec<u8>, Arc<Prepared>>,
    portals: HashMap<Vec<u8>, Portal>,
    /// Sent and not answered yet, in order.
    parsing: VecDeque<(Vec<u8>, Arc<Prepared>)>,
    binding: VecDeque<(Vec<u8>, Portal)>,
    /// Whose parameters the server was asked to describe, where their values go on record.
    describing: VecDeque<(Vec<u8>, Arc<Prepared>)>,
    /// Bytes of texts and types in `confirmed` and `parsing`.
    bytes: usize,
}

impl Statements {
    /// A Parse was sent. What no longer fits is remembered as unknown, which costs a careful
    /// treatment and no memory.
    pub(super) fn parse(&mut self, name: &[u8], statement: Prepared) {
        let fits = self.bytes + statement.bytes() <= TEXTS_BYTES_MAX;
        let statement = if fits {
            statement
        } else {
            Prepared::nameless("/* one of too many texts */")
        };
        self.bytes += statement.bytes();
        self.parsing.push_back((name.to_vec(), Arc::new(statement)));
    }

    fn forget(&mut self, statement: Option<Arc<Prepared>>) {
        self.bytes -= statement.map_or(0, |statement| statement.bytes());
    }

    /// Does a Bind of this statement carry a correlation id among its parameters?
    pub(super) fn wants_parameters(&self, statement: &[u8]) -> bool {
        let found = self.named(statement);
        found.is_some_and(|found| found.sets.iter().any(|set| set.parameter.is_some()))
    }

    /// A Bind was sent, with this body as far as it is here. It runs what the statement calls with
    /// constants, and makes what SQL's FETCH can run.
    pub(super) fn bind(
        &mut self,
        (portal, statement): (&[u8], &[u8]),
        body: &[u8],
        proofs: &mut Proofs,
        allowance: &mut Allowance,
    ) {
        let statement = self.named(statement).cloned().unwrap_or_else(Prepared::unknown);
        let judged = statement.judged(proofs);
        proofs.runs(statement.kind, &judged);
        let value = |at: usize| from_client::bind_parameter(body, at.checked_sub(1)?);
        let bound = statement.sets.iter().map(|set| match set.parameter {
            Some(at) => set.bound(value(at)),
            None => set.clone(),
        });
        let portal_of = Portal {
            sets: bound.collect(),
            plain: judged.is_plain_read(),
            values: values(body, statement.types.as_ref(), allowance),
            executed: false,
            statement,
        };
        self.binding.push_back((portal.to_vec(), portal_of));
    }

    fn named(&self, statement: &[u8]) -> Option<&Arc<Prepared>> {
        let mut latest = self.parsing.iter().rev().filter(|(name, _)| name == statement);
        latest
            .next()
            .map(|(_, it)| it)
            .or_else(|| self.confirmed.get(statement))
    }

    /// An Execute is about to be sent.
    pub(super) fn execute(&mut self, portal: &[u8]) -> Execution {
        let mut latest = self.binding.iter_mut().rev().filter(|(name, _)| name == portal);
        let latest = latest.next().map(|(_, it)| it);
        let Some(found) = latest.or_else(|| self.portals.get_mut(portal)) else {
            return Execution {
                first: true,
                ..Execution::default()
            };
        };
        Execution {
            first: !std::mem::replace(&mut found.executed, true),
            sets: std::mem::take(&mut found.sets),
            values: found.values.take(),
        }
    }

    /// A Describe of this statement was sent, and the server will tell its types.
    pub(super) fn describe(&mut self, name: &[u8]) {
        let statement = self.named(name).cloned().unwrap_or_else(Prepared::unknown);
        self.describing.push_back((name.to_vec(), statement));
    }

    /// The server told the types of the oldest statement that it was asked for.
    pub(super) fn described(&mut self, types: &[u8]) {
        let Some((name, statement)) = self.describing.pop_front() else {
            return;
        };
        let current = self.confirmed.get(&name);
        // Of one whose name means something else by now nothing more is kept.
        if let Some(known) = &statement.types
            && current.is_some_and(|current| Arc::ptr_eq(current, &statement))
            && self.bytes + types.len() <= TEXTS_BYTES_MAX
        {
            self.bytes -= statement.bytes();
            known.told(types);
            self.bytes += statement.bytes();
        }
    }

    /// What an Execute of this portal would run, and whether it was a plain read when it was bound.
    pub(super) fn peek(&self, portal: &[u8]) -> (Arc<Prepared>, bool) {
        let latest = self
            .binding
            .iter()
            .rev()
            .find(|(name, _)| name == portal)
            .map(|(_, it)| it);
        let found = latest.or_else(|| self.portals.get(portal));
        found.map_or_else(
            || (Prepared::unknown(), false),
            |portal| (portal.statement.clone(), portal.plain),
        )
    }

    /// A Close was sent. If the server skips it, the name is unknown here: the careful side.
    pub(super) fn close_statement(&mut self, name: &[u8]) {
        let closed = self.confirmed.remove(name);
        self.forget(closed);
    }

    pub(super) fn close_portal(&mut self, name: &[u8]) {
        self.portals.remove(name);
    }

    /// The server answered the oldest Parse.
    pub(super) fn parsed(&mut self) {
        let Some((name, statement)) = self.parsing.pop_front() else {
            return;
        };
        let replaced = if self.confirmed.len() < NAMES_MAX || self.confirmed.contains_key(&name) {
            self.confirmed.insert(name, statement)
        } else {
            Some(statement)
        };
        self.forget(replaced);
    }

    /// The server answered the oldest Bind.
    pub(super) fn bound(&mut self) {
        let Some((name, portal)) = self.binding.pop_front() else {
            return;
        };
        if self.portals.len() < NAMES_MAX || self.portals.contains_key(&name) {
            self.portals.insert(name, portal);
        }
    }

    /// The server reported an error and skips what was sent up to the next Sync.
    pub(super) fn failed(&mut self) {
        while let Some((_, statement)) = self.parsing.pop_front() {
            self.forget(Some(statement));
        }
        self.binding.clear();
        self.describing.clear();
    }

    /// A transaction ended: its portals are gone.
    pub(super) fn transaction_ended(&mut self) {
        self.portals.clear();
    }

    /// A simple Query destroys the unnamed statement and portal.
    pub(super) fn simple_query(&mut self) {
        self.close_statement(b"");
        self.close_portal(b"");
    }

    /// Something ran that can prepare and deallocate by SQL. SQL's PREPARE takes only statements
    /// that read or write tables, so what is known as such stays what it is at most; what is known
    /// to be harmless may have been replaced.
    pub(super) fn distrust(&mut self) {
        let bytes = &mut self.bytes;
        self.confirmed.retain(|_, statement| {
            let kept = !statement.kind.is_inert();
            *bytes -= if kept { 0 } else { statement.bytes() };
            kept
        });
    }
}

/// The parameters of a Bind, if they go on record and there are any.
fn values(body: &[u8], types: Option<&Arc<ParameterTypes>>, allowance: &mut Allowance) -> Option<Values> {
    if !allowance.is_wanted() {
        return None;
    }
    let kept = bound::behind_names(body).filter(|rest| {
        // Not even their number is here, or there are some.
        Parameters::read(rest).is_none_or(|parameters| parameters.left() > 0)
    });
    match kept {
        Some(rest) => allowance.bound(rest, types),
        None => allowance.of_text(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::audit::record::Facts;

    fn prepared(kind: Kind) -> Prepared {
        Prepared {
            text: Arc::from("x"),
            kind,
            sets: vec![],
            gids: vec![],
            memory: Memory::illegible(),
            types: None,
        }
    }

    fn bind(statements: &mut Statements, portal: &[u8], name: &[u8]) {
        let mut allowance = Allowance::of(&Facts::default());
        statements.bind((portal, name), b"", &mut Proofs::new(None, &[]), &mut allowance);
    }

    #[test]
    fn texts_are_bounded_and_given_back() {
        let mut statements = Statements::default();
        let large = || Prepared {
            text: Arc::from("x".repeat(TEXTS_BYTES_MAX / 2 - 64)),
            kind: Kind::Insert,
            sets: vec![],
            gids: vec![],
            memory: Memory::illegible(),
            types: None,
        };
        for name in [b"a", b"b", b"c"] {
            statements.parse(name, large());
            statements.parsed();
        }
        let kind = |statements: &mut Statements, name: &[u8]| {
            bind(statements, b"", name);
            statements.peek(b"").0.kind
        };
        assert_eq!(kind(&mut statements, b"b"), Kind::Insert);
        assert_eq!(kind(&mut statements, b"c"), Kind::Unknown);
        statements.close_statement(b"a");
        statements.parse(b"c", large());
        statements.failed();
        statements.parse(b"c", large());
        statements.parsed();
        assert_eq!(kind(&mut statements, b"c"), Kind::Insert);
        for name in [b"b", b"c"] {
            statements.close_statement(name);
        }
        assert_eq!(statements.bytes, 0);
    }

    #[test]
    fn a_failed_parse_does_not_change_a_name() {
        let mut statements = Statements::default();
        statements.parse(b"s", prepared(Kind::Insert));
        statements.parsed();
        statements.parse(b"s", prepared(Kind::Set));
        statements.failed();
        bind(&mut statements, b"", b"s");
        assert_eq!(statements.peek(b"").0.kind, Kind::Insert);
    }

    #[test]
    fn within_a_group_the_latest_parse_counts() {
        let mut statements = Statements::default();
        statements.parse(b"", prepared(Kind::Insert));
        bind(&mut statements, b"", b"");
        assert_eq!(statements.peek(b"").0.kind, Kind::Insert);
        assert!(statements.execute(b"").first);
        assert!(
            !statements.execute(b"").first,
            "a second Execute continues the portal"
        );
    }

    #[test]
    fn unknown_names_are_the_worst() {
        let mut statements = Statements::default();
        bind(&mut statements, b"p", b"nobody");
        assert_eq!(statements.peek(b"p").0.kind, Kind::Unknown);
        assert_eq!(statements.peek(b"cursor").0.kind, Kind::Unknown);
    }

    #[test]
    fn after_sql_prepare_harmless_names_are_distrusted() {
        let mut statements = Statements::default();
        for (name, kind) in [(b"a", Kind::Set), (b"b", Kind::Update)] {
            statements.parse(name, prepared(kind));
            statements.parsed();
        }
        statements.distrust();
        bind(&mut statements, b"p", b"a");
        bind(&mut statements, b"q", b"b");
        assert_eq!(statements.peek(b"p").0.kind, Kind::Unknown);
        assert_eq!(statements.peek(b"q").0.kind, Kind::Update);
    }
}
