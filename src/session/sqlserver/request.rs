//! What a client's request would do, as far as it can be told before it runs. Pure.
//!
//! What cannot be told errs to one side: it is a write, and it may end the transaction.

use std::collections::HashMap;
use std::sync::Arc;

use crate::audit::values::{Called, Values};
use crate::domain::correlation::{Correlation, CorrelationSource};
use crate::domain::refusal::Reason;
use crate::session::ledger::Allowance;
use crate::sql::Kind;
use crate::sql::correlation::{Reach, SetCorrelation};
use crate::sql::tsql::correlation::{Key, SetContext, Value as SetValue, key, parameter_place};
use crate::sql::tsql::{
    Effect, Implicit, Name, PlanOnly, Reading, Step, is_guarded_commit, procedures, read, read_inner,
};
use crate::wire::tds::headers::{Activity, Headers};
use crate::wire::tds::procedure::{Named, Procedure};
use crate::wire::tds::request::{Batch, Request, TransactionRequest};
use crate::wire::tds::rpc::{Call, Calls, Extent};

/// Prepared statements of one session whose texts are kept; a call of one beyond is of unknown effect.
const PREPARED_MAX: usize = 4_096;
/// Bytes of all of them together.
const PREPARED_BYTES_MAX: usize = 16 * 1024 * 1024;

/// What a request of the transaction manager does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Managed {
    Begin,
    Commit {
        then_begin: bool,
    },
    Rollback {
        then_begin: bool,
    },
    /// To a savepoint, or a savepoint itself.
    Save,
}

/// A statement that was prepared.
#[derive(Debug)]
pub(super) struct Prepared {
    text: Arc<str>,
    reading: Reading,
}

/// One request, understood.
#[derive(Debug, Default)]
pub(super) struct Plan {
    /// For the record, in order.
    pub(super) statements: Vec<(Arc<str>, Kind)>,
    /// Which statement is the first of which call, where the values of calls go on record.
    pub(super) calls: Vec<(usize, usize)>,
    /// The request, as far as it was here by then.
    pub(super) payload: Option<Arc<Called>>,
    /// Proven to write nothing and to end nothing.
    pub(super) plain_read: bool,
    /// Of all that it runs, in order.
    pub(super) effects: Vec<Effect>,
    pub(super) managed: Option<Managed>,
    /// The connection must be closed when its client is done.
    pub(super) poisons: bool,
    pub(super) plan_only_on: PlanOnly,
    pub(super) plan_only_off: PlanOnly,
    pub(super) implicit: Option<Implicit>,
    pub(super) sets: Vec<SetCorrelation>,
    pub(super) ids: Vec<Correlation>,
    pub(super) refused: Option<Reason>,
    pub(super) is_rpc: bool,
    /// It is a reset and nothing else, asked for by a call.
    pub(super) resets: bool,
    /// It is `USE` of this database and nothing else.
    pub(super) uses: Option<Box<str>>,
    /// The handle that the reply brings is for this.
    pub(super) awaited: Option<Arc<Prepared>>,
    pub(super) unprepares: Option<i64>,
}

/// What a session has prepared, and its bulk load.
#[derive(Debug, Default)]
pub(super) struct Texts {
    prepared: HashMap<i64, Arc<Prepared>>,
    bytes: usize,
    bulk: Option<Arc<str>>,
}

impl Texts {
    /// The server gave a handle.
    pub(super) fn prepared(&mut self, handle: i64, prepared: Arc<Prepared>) {
        let bytes = prepared.text.len();
        if self.prepared.len() < PREPARED_MAX && self.bytes.saturating_add(bytes) <= PREPARED_BYTES_MAX {
            self.forget(handle);
            self.bytes += bytes;
            self.prepared.insert(handle, prepared);
        }
    }

    pub(super) fn forget(&mut self, handle: i64) {
        if let Some(gone) = self.prepared.remove(&handle) {
            self.bytes = self.bytes.saturating_sub(gone.text.len());
        }
    }

    /// The session was reset: handles mean nothing any more.
    pub(super) fn clear(&mut self) {
        *self = Self::default();
    }

    /// Understands a request. `None`: more of it must be seen first.
    pub(super) fn understand(&mut self, request: &Request<'_>, wants_values: bool) -> Option<Plan> {
        let mut plan = match request {
            Request::Batch(batch) => self.batch(batch)?,
            Request::Rpc(calls) => self.calls(calls, wants_values)?,
            Request::Transaction(headers, request) => managed(headers, request),
            Request::Bulk => self.rows(),
        };
        if plan.refused.is_none() && notifies(request) {
            plan.refused = Some(Reason::Unsupported {
                what: "a query notification",
            });
        }
        Some(plan)
    }

    fn batch(&mut self, batch: &Batch<'_>) -> Option<Plan> {
        if batch.is_cut {
            return None;
        }
        let Some(text) = batch.text.decoded() else {
            return Some(Plan {
                refused: Some(Reason::Malformed {
                    what: "statement: it is not UTF-16",
                }),
                ..Plan::default()
            });
        };
        let reading = read(&text);
        let mut plan = Plan {
            plain_read: true,
            ids: activity(&batch.headers),
            ..Plan::default()
        };
        if is_bulk(&text) {
            self.bulk = Some(Arc::from(text.as_str()));
            // It only announces rows: what they do is on record with them. What stands beside it is not.
            if reading.statements.len() <= 1 {
                plan.refused = refused(&reading);
                return Some(plan);
            }
        }
        plan.run(&text, &reading, |_| None);
        plan.uses = used(&text, &reading);
        Some(plan)
    }

    fn rows(&mut self) -> Plan {
        let text = self.bulk.take().unwrap_or_else(|| Arc::from("INSERT BULK"));
        Plan {
            statements: vec![(text, Kind::Insert)],
            effects: vec![Effect::Untouched],
            ..Plan::default()
        }
    }

    fn calls(&self, calls: &Calls<'_>, wants_values: bool) -> Option<Plan> {
        let mut plan = Plan {
            plain_read: !calls.calls.is_empty(),
            is_rpc: true,
            ids: activity(&calls.headers),
            ..Plan::default()
        };
        if let [only] = calls.calls.as_slice()
            && only.procedure == Procedure::ResetConnection
            && calls.extent == Extent::Whole
        {
            plan.resets = true;
            return Some(plan);
        }
        // A text that is cut is waited for; of what stands behind it only the last call may be unseen.
        for (index, call) in calls.calls.iter().enumerate() {
            if call.statement().is_some_and(|statement| statement.is_cut) {
                return None;
            }
            if wants_values {
                plan.calls.push((plan.statements.len(), index));
            }
            self.call(call, &mut plan);
        }
        if calls.calls.len() != 1 {
            // Nobody says whose handle is whose.
            plan.awaited = None;
        }
        match calls.extent {
            Extent::Whole => {}
            Extent::Cut if calls.calls.last().is_none_or(is_unseen) => return None,
            // Behind a large value more calls may follow.
            Extent::Cut | Extent::UnknownType(_) => plan.anything(),
        }
        Some(plan)
    }

    fn call(&self, call: &Call<'_>, plan: &mut Plan) {
        let name = match call.named {
            Named::Number(number) => procedures::known_id(number).map(|(name, _)| name.to_owned()),
            Named::Name(name) => Some(name.lossy()),
        };
        let name = name.unwrap_or_default();
        let meaning = procedures::known(&name).unwrap_or(procedures::UNKNOWN);
        if let Some(what) = meaning.escape {
            plan.refused = Some(Reason::EscapeStatement { what });
        }
        plan.poisons |= meaning.pins.poisons();
        if call.procedure == Procedure::SetSessionContext {
            return plan.set_context(call);
        }
        if !meaning.runs_text {
            plan.plain_read &= meaning.plain_read;
            if call.procedure == Procedure::Unprepare {
                plan.unprepares = call.handle();
                return;
            }
            if !meaning.plain_read {
                plan.statements.push((called(&name), meaning.kind));
            }
            plan.effects.push(match meaning.may_end_transaction {
                true => Effect::UNKNOWN,
                false => Effect::Untouched,
            });
            return;
        }
        self.text_of(call, plan);
    }

    /// A call that runs a text, or the handle of one.
    fn text_of(&self, call: &Call<'_>, plan: &mut Plan) {
        if let Some(statement) = call.statement() {
            let Some(text) = statement.value.text() else {
                return plan.anything();
            };
            let inner = matches!(
                call.procedure,
                Procedure::ExecuteSql | Procedure::PrepExec | Procedure::Prepare
            );
            let reading = if inner { read_inner(&text) } else { read(&text) };
            let declared = call.parameters.get(1).and_then(|it| it.value.text());
            if call.procedure != Procedure::Prepare {
                plan.run(&text, &reading, |variable| {
                    let place = parameter_place(declared.as_deref()?, variable)?;
                    let by_name = call
                        .parameters
                        .iter()
                        .skip(2)
                        .find(|it| it.name.is_like(variable));
                    let value = by_name.or_else(|| call.parameters.get(place + 2))?;
                    value.value.text()
                });
            } else {
                plan.refused = plan.refused.take().or_else(|| refused(&reading));
            }
            if gives_handle(call.procedure) {
                let text = Arc::from(text.as_str());
                plan.awaited = Some(Arc::new(Prepared { text, reading }));
            }
            return;
        }
        match call.handle().and_then(|handle| self.prepared.get(&handle)) {
            Some(prepared) => plan.run(&prepared.text, &prepared.reading, |_| None),
            None => {
                plan.statements.push((Arc::from("EXECUTE"), Kind::Execute));
                plan.anything();
            }
        }
    }
}

impl Plan {
    /// What goes on record of the values of this statement.
    pub(super) fn values(&self, statement: usize, allowance: &Allowance) -> Option<Values> {
        // Of several calls that begin here all but the last one run nothing.
        let mut begins = self.calls.iter().rev().filter(|(first, _)| *first == statement);
        let Some((_, call)) = begins.next() else {
            return allowance.of_text();
        };
        match &self.payload {
            Some(request) => Some(Values::Called {
                request: Arc::clone(request),
                call: *call,
            }),
            None => allowance.is_wanted().then_some(Values::Omitted),
        }
    }

    /// A text that is run.
    fn run(&mut self, text: &str, reading: &Reading, value: impl Fn(&str) -> Option<String>) {
        let statements = reading.statements.iter().map(|statement| {
            let part = text.get(statement.range.clone()).unwrap_or_default();
            (Arc::from(part.trim()), statement.kind)
        });
        self.statements.extend(statements);
        self.plain_read &= reading.plain_read;
        self.effects.push(reading.transaction.clone());
        self.poisons |= reading.poisons();
        self.plan_only_on = self.plan_only_on.after(reading.plan_only_on, PlanOnly::default());
        self.plan_only_off = self
            .plan_only_off
            .after(reading.plan_only_off, PlanOnly::default());
        self.implicit = reading.implicit.or(self.implicit);
        self.ids.extend(reading.comments.iter().cloned());
        for set in &reading.sets {
            self.sets.push(bound(set, &value));
        }
        self.refused = self.refused.take().or_else(|| refused(reading));
    }

    fn set_context(&mut self, call: &Call<'_>) {
        self.plain_read = false;
        self.effects.push(Effect::Untouched);
        self.statements
            .push((Arc::from("EXEC sp_set_session_context"), Kind::Set));
        let named = call.parameter("@key", 0).and_then(|it| it.value.text());
        // A key that cannot be read could be one of ours.
        let Some(named) = named else {
            self.refused = Some(Reason::EscapeStatement {
                what: "sp_set_session_context",
            });
            return;
        };
        match key(&named) {
            Key::Setting(setting) => {
                let value = call.parameter("@value", 1).and_then(|it| it.value.text());
                let value = value.and_then(|id| Correlation::new(&id, CorrelationSource::Set));
                self.sets.push(SetCorrelation {
                    setting,
                    reach: Reach::Session,
                    value,
                    parameter: None,
                });
            }
            Key::Reserved => {
                self.refused = Some(Reason::EscapeStatement {
                    what: "sp_set_session_context of a key of gatepost's",
                });
            }
            Key::Own => {}
        }
    }

    /// It may do anything.
    fn anything(&mut self) {
        self.plain_read = false;
        self.effects.push(Effect::UNKNOWN);
    }

    /// Can something be committed by it, run at this depth of transactions? `implicit`: work outside of one
    /// begins one.
    pub(super) fn may_commit(&self, mut depth: u32, implicit: bool) -> bool {
        if let Some(managed) = self.managed {
            return matches!(managed, Managed::Commit { .. });
        }
        for effect in &self.effects {
            let steps = match effect {
                Effect::Unclear { .. } => return true,
                Effect::Untouched => [Step::Work].as_slice(),
                Effect::Steps(steps) => steps.as_slice(),
            };
            for step in steps {
                match step {
                    Step::Work if depth > 0 => {}
                    Step::Work if implicit => depth = 1,
                    Step::Work => return true,
                    Step::Begin => depth += 1,
                    Step::Commit if depth > 1 => depth -= 1,
                    Step::Commit => return true,
                    Step::Rollback => depth = 0,
                    Step::Save | Step::RollbackToSave => {}
                }
            }
        }
        false
    }

    /// Is it a COMMIT and nothing else? What runs beside one could undo a part of the transaction first.
    pub(super) fn is_commit_alone(&self) -> bool {
        if let Some(managed) = self.managed {
            return matches!(managed, Managed::Commit { .. });
        }
        match self.effects.as_slice() {
            [Effect::Steps(steps)] => steps.as_slice() == [Step::Commit],
            [Effect::Unclear { may_begin: false, .. }] => {
                let texts: Vec<_> = self.statements.iter().map(|(text, _)| text.as_ref()).collect();
                is_guarded_commit(&texts.join(" "))
            }
            _ => false,
        }
    }

    /// Is it one statement that is there whole or not at all, so that its error says that nothing stayed?
    pub(super) fn is_one_statement(&self) -> bool {
        let [(text, kind)] = self.statements.as_slice() else {
            return false;
        };
        let first = text.split(|c: char| !c.is_ascii_alphanumeric()).next();
        // Its rounds commit one by one.
        let repeats = first.is_some_and(|word| word.eq_ignore_ascii_case("while"));
        let whole = matches!(
            kind,
            Kind::Insert | Kind::Update | Kind::Delete | Kind::Merge | Kind::Definition
        );
        whole && !repeats && self.effects.iter().all(|effect| *effect == Effect::Untouched)
    }

    /// Does something run behind the last COMMIT or ROLLBACK in it, outside of a transaction?
    pub(super) fn works_behind_its_end(&self) -> bool {
        let (mut ended, mut works) = (false, false);
        for effect in &self.effects {
            let steps = match effect {
                Effect::Unclear { .. } => return false,
                Effect::Untouched => [Step::Work].as_slice(),
                Effect::Steps(steps) => steps.as_slice(),
            };
            for step in steps {
                match step {
                    Step::Work => works = ended,
                    Step::Begin => works = false,
                    Step::Commit | Step::Rollback => (ended, works) = (true, false),
                    Step::Save | Step::RollbackToSave => {}
                }
            }
        }
        works
    }

    /// Is the last word on transactions in it a COMMIT, if there is a single way through it?
    pub(super) fn ends_by_commit(&self) -> Option<bool> {
        match self.managed {
            Some(Managed::Commit { .. }) => return Some(true),
            Some(Managed::Rollback { .. }) => return Some(false),
            Some(Managed::Begin | Managed::Save) => return None,
            None => {}
        }
        let mut last = None;
        for effect in &self.effects {
            match effect {
                Effect::Unclear { .. } => return None,
                Effect::Untouched => {}
                Effect::Steps(steps) => {
                    let ends = steps
                        .iter()
                        .rev()
                        .find(|step| matches!(step, Step::Commit | Step::Rollback));
                    last = ends.map(|step| *step == Step::Commit).or(last);
                }
            }
        }
        last
    }

    /// How many transactions are open behind it, if that can be told.
    pub(super) fn depth_after(&self, depth: u32, implicit: bool) -> Option<u32> {
        self.effects
            .iter()
            .try_fold(depth, |depth, effect| effect.depth_after(depth, implicit))
    }
}

fn bound(set: &SetContext, value: impl Fn(&str) -> Option<String>) -> SetCorrelation {
    let value = match &set.value {
        SetValue::Variable(variable) => value(variable),
        SetValue::None | SetValue::Known(_) => None,
    };
    set.bound(value.as_deref())
}

/// The database of a text that is one USE.
fn used(text: &str, reading: &Reading) -> Option<Box<str>> {
    let [only] = reading.statements.as_slice() else {
        return None;
    };
    let words = text
        .get(only.range.clone())?
        .trim_end_matches([';', ' ', '\r', '\n']);
    let name = words
        .split_at_checked("use".len())
        .filter(|_| only.kind == Kind::Use)?;
    let name = Name::parse(name.1)?;
    name.schema.is_none().then_some(name.object)
}

fn refused(reading: &Reading) -> Option<Reason> {
    reading.escape.map(|what| Reason::EscapeStatement { what })
}

/// How a call of a procedure stands in the record.
fn called(name: &str) -> Arc<str> {
    let name = Name::parse(name).map_or_else(|| "?".to_owned(), |name| name.to_string());
    Arc::from(format!("EXEC {name}"))
}

/// Does the first number that it returns stand for the text?
const fn gives_handle(procedure: Procedure) -> bool {
    matches!(
        procedure,
        Procedure::Prepare
            | Procedure::PrepExec
            | Procedure::PrepExecRpc
            | Procedure::CursorPrepare
            | Procedure::CursorPrepExec
    )
}

/// Is what matters of a call still to come? A text that was not seen could be one that is refused.
fn is_unseen(call: &Call<'_>) -> bool {
    let has = call.parameters.len();
    match call.procedure {
        Procedure::SetSessionContext => true,
        Procedure::ExecuteSql | Procedure::Execute | Procedure::Unprepare | Procedure::CursorExecute => {
            has < 1
        }
        Procedure::CursorOpen | Procedure::PrepExecRpc => has < 2,
        Procedure::Prepare | Procedure::PrepExec | Procedure::CursorPrepare => has < 3,
        Procedure::CursorPrepExec => has < 4,
        Procedure::Cursor
        | Procedure::CursorUnprepare
        | Procedure::CursorFetch
        | Procedure::CursorOption
        | Procedure::CursorClose
        | Procedure::ResetConnection
        | Procedure::Other => false,
    }
}

/// `INSERT BULK`, which only drivers send.
fn is_bulk(text: &str) -> bool {
    let mut words = text.split_ascii_whitespace();
    let mut next = |word: &str| words.next().is_some_and(|it| it.eq_ignore_ascii_case(word));
    next("insert") && next("bulk")
}

fn notifies(request: &Request<'_>) -> bool {
    match request {
        Request::Batch(batch) => batch.headers.has_notification,
        Request::Rpc(calls) => calls.headers.has_notification,
        Request::Transaction(headers, _) => headers.has_notification,
        Request::Bulk => false,
    }
}

fn managed(headers: &Headers, request: &TransactionRequest<'_>) -> Plan {
    let mut plan = Plan {
        ids: activity(headers),
        ..Plan::default()
    };
    plan.managed = Some(match request {
        TransactionRequest::Begin(_) => Managed::Begin,
        TransactionRequest::Commit { then, .. } => Managed::Commit {
            then_begin: then.is_some(),
        },
        TransactionRequest::Rollback { name, then } if name.is_empty() => Managed::Rollback {
            then_begin: then.is_some(),
        },
        TransactionRequest::Rollback { .. } | TransactionRequest::Save { .. } => Managed::Save,
        TransactionRequest::GetDtcAddress | TransactionRequest::Propagate | TransactionRequest::Promote => {
            plan.refused = Some(Reason::Unsupported {
                what: "a distributed transaction",
            });
            Managed::Save
        }
    });
    plan
}

/// The id that the client's own trace gives the request.
fn activity(headers: &Headers) -> Vec<Correlation> {
    let Some(Activity { id, sequence }) = headers.activity else {
        return Vec::new();
    };
    let hex = |bytes: &[u8]| bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
    // The first three groups of a GUID travel with their small byte first.
    let [a, b, c, d, e, f, g, h, rest @ ..] = id;
    let text = format!(
        "{}-{}-{}-{}-{}:{sequence}",
        hex(&[d, c, b, a]),
        hex(&[f, e]),
        hex(&[h, g]),
        hex(rest.get(..2).unwrap_or_default()),
        hex(rest.get(2..).unwrap_or_default()),
    );
    Correlation::new(&text, CorrelationSource::TraceActivity)
        .into_iter()
        .collect()
}
