//! One pass over a client's Transact-SQL: all that gatepost wants to know about it.

use crate::domain::correlation::Correlation;
use crate::sql::correlation as comments;
use crate::sql::kind::Kind;
use crate::sql::tsql::call::{Call, Callee, Exec, calls, exec_at};
use crate::sql::tsql::correlation::{Context, SetContext, context};
use crate::sql::tsql::escape;
use crate::sql::tsql::lexer::{LOWERED_BYTES, Lexer, Token, TokenKind};
use crate::sql::tsql::pins::{Pin, Pins};
use crate::sql::tsql::plain::is_plain_read;
use crate::sql::tsql::procedures;
use crate::sql::tsql::settings::{PlanOnly, Set, Setting, Tracked, set_at};
use crate::sql::tsql::statements::{Statement, split};
use crate::sql::tsql::transaction::{self, Effect};

/// Tokens of one text that are judged: three megabytes of them. A longer text is unreadable, and only
/// what is refused is looked for to its end.
const TOKENS_MAX: usize = 65_536;

/// What one text (a batch, or the text of an sp_executesql) holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reading {
    /// The statements in order, for the record.
    pub statements: Vec<Statement>,
    /// Proven to write nothing and to end no transaction.
    pub plain_read: bool,
    pub transaction: Effect,
    /// Why the connection must stay with its client.
    pub pins: Pins,
    /// Options that it sets to values that can be set again, in order.
    pub settings: Vec<Setting>,
    /// Behind it gatepost must not ask for the transaction's id until these are off …
    pub plan_only_on: PlanOnly,
    /// … and these it turned off.
    pub plan_only_off: PlanOnly,
    /// What IMPLICIT_TRANSACTIONS is behind it, if it says so.
    pub implicit: Option<Implicit>,
    /// It asks for @@IDENTITY, SCOPE_IDENTITY() or @@ROWCOUNT, which may be those of the request before.
    pub asks_for_last: bool,
    /// What the text attempts that is always refused.
    pub escape: Option<&'static str>,
    /// `sp_set_session_context` of the correlation id, in order.
    pub sets: Vec<SetContext>,
    /// Correlation ids in comments.
    pub comments: Vec<Correlation>,
}

/// What IMPLICIT_TRANSACTIONS was set to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Implicit {
    On,
    Off,
    /// In a branch, or to both.
    Perhaps,
}

impl Reading {
    /// Must the connection be closed when its client is done?
    pub fn poisons(&self) -> bool {
        self.pins.poisons()
    }

    /// Are statements only described, compiled or parsed behind it, where `before` was on before it?
    pub const fn suppresses_probe(&self, before: PlanOnly) -> PlanOnly {
        before.after(self.plan_only_on, self.plan_only_off)
    }
}

/// Reads a batch.
pub fn read(text: &str) -> Reading {
    let mut comments = Vec::new();
    let mut words = Vec::new();
    let mut cut = false;
    let mut lexer = Lexer::new(text);
    for token in lexer.by_ref() {
        if token.kind == TokenKind::Comment {
            comments::comment(token.text.as_bytes(), &mut comments);
        } else if words.len() < TOKENS_MAX {
            words.push(token);
        } else {
            cut = true;
        }
    }
    let doubtful = cut || lexer.is_doubtful();
    let mut state = State {
        branches: transaction::branches(&words),
        ..State::default()
    };
    for at in 0..words.len() {
        state.see(&words, at);
    }
    for call in calls(&words) {
        state.call(&call);
    }
    if doubtful {
        state.pin(Pin::Unreadable);
    }
    let statements = split(&words);
    // What begins with no word that we know could be the name of a procedure.
    let unknown = statements.iter().any(|statement| statement.kind == Kind::Unknown);
    if unknown {
        state.pin(Pin::Unreadable);
    }
    let doubtful = doubtful || unknown;
    let planned = !state.plan_only_on.is_empty() || !state.plan_only_off.is_empty();
    Reading {
        statements,
        plain_read: !doubtful && !planned && (is_plain_read(&words) || only_sets_correlation(&words)),
        transaction: transaction::judge(&words, doubtful, planned),
        pins: state.pins,
        implicit: state.implicit(),
        settings: state.settings,
        plan_only_on: state.plan_only_on,
        plan_only_off: state.plan_only_off,
        asks_for_last: state.asks_for_last,
        escape: escape::attempt(text),
        sets: state.sets,
        comments,
    }
}

/// Reads the text of an sp_executesql, an sp_prepexec or the like: what it sets and its temporary tables
/// end with it ("SET Statements" and "sp_executesql" in Microsoft's reference).
pub fn read_inner(text: &str) -> Reading {
    let mut reading = read(text);
    let ends = reading.pins.iter().filter(|pin| pin.ends_with_scope());
    reading.pins = ends.fold(reading.pins, Pins::without);
    reading.settings.clear();
    // Where it turned something on and back off, it may have ended between; what was on before is so again.
    reading.plan_only_off = PlanOnly::NONE;
    reading.implicit = None;
    reading
}

/// Is it one call of `sp_set_session_context` that sets the correlation id to a constant or variable, and
/// nothing else? It changes what the session remembers, and no table.
fn only_sets_correlation(words: &[Token<'_>]) -> bool {
    let (calls, statements) = (calls(words), split(words));
    let ([call], [_]) = (calls.as_slice(), statements.as_slice()) else {
        return false;
    };
    let of_system = matches!(&call.callee, Callee::Named(name) if name.may_be_systems());
    let constant = |token: &Token<'_>| match token.kind {
        TokenKind::Text | TokenKind::Number | TokenKind::Variable | TokenKind::Semicolon => true,
        TokenKind::Word => token.is_any(&["null", "default"]),
        TokenKind::Symbol => [',', '=', '-'].iter().any(|sign| token.symbol(*sign)),
        TokenKind::Bracketed
        | TokenKind::Quoted
        | TokenKind::Strange
        | TokenKind::Comment
        | TokenKind::Open
        | TokenKind::Close => false,
    };
    of_system && matches!(context(call), Some(Context::Setting(_))) && call.arguments.iter().all(constant)
}

/// What is gathered word by word.
#[derive(Debug, Default)]
struct State {
    branches: bool,
    pins: Pins,
    settings: Vec<Setting>,
    plan_only_on: PlanOnly,
    plan_only_off: PlanOnly,
    implicit_unsure: bool,
    asks_for_last: bool,
    sets: Vec<SetContext>,
}

impl State {
    const fn pin(&mut self, pin: Pin) {
        self.pins = self.pins.with(pin);
    }

    fn see(&mut self, words: &[Token<'_>], at: usize) {
        let Some(token) = words.get(at) else { return };
        if let Some(name) = token.name() {
            if name.starts_with("##") {
                self.pin(Pin::GlobalTempTable);
            } else if name.starts_with('#') {
                self.pin(Pin::TempTable);
            }
        }
        if token.kind == TokenKind::Variable {
            self.asks_for_last |= ["@@identity", "@@rowcount"]
                .iter()
                .any(|name| token.text.eq_ignore_ascii_case(name));
        }
        if token.kind == TokenKind::Word {
            self.word(words, at, token);
        }
    }

    fn word(&mut self, words: &[Token<'_>], at: usize, token: &Token<'_>) {
        let next = |list: &[&str]| words.get(at + 1).is_some_and(|next| next.is_any(list));
        match token.lowered(&mut [0; LOWERED_BYTES]) {
            "set" => self.set(set_at(words, at)),
            "use" if !next(&["hint", "plan"]) => self.use_database(words.get(at + 1)),
            "exec" | "execute" if exec_at(words, at) == Some(Exec::As) => self.pin(Pin::ExecuteAs),
            "setuser" => self.pin(Pin::SetUser),
            "cursor" if !is_local_cursor(words, at) => self.pin(Pin::Cursor),
            "dbcc" if next(&["traceon", "traceoff"]) => self.pin(Pin::TraceFlag),
            "open" if next(&["symmetric", "master"]) => self.pin(Pin::SymmetricKey),
            "insert" if next(&["bulk"]) => self.pin(Pin::Bulk),
            "dialog" | "conversation" | "receive" => self.pin(Pin::ServiceBroker),
            "begin" if next(&["distributed"]) => self.pin(Pin::Distributed),
            "scope_identity" | "rowcount_big" => self.asks_for_last = true,
            _ => {}
        }
    }

    fn use_database(&mut self, name: Option<&Token<'_>>) {
        self.pin(Pin::Database);
        let name = name.and_then(Token::name).filter(|_| !self.branches);
        self.settings
            .extend(name.and_then(|name| Setting::database(&name)));
    }

    fn set(&mut self, set: Set) {
        match set {
            Set::Tracked(settings) if self.branches => {
                // Whether it is set at all is not to be told.
                self.pin(Pin::Setting);
                self.implicit_unsure |= settings
                    .iter()
                    .any(|setting| setting.option == Tracked::ImplicitTransactions);
            }
            Set::Tracked(settings) => self.settings.extend(settings),
            Set::PlanOnly { options, on: true } => {
                self.pin(Pin::PlanOnly);
                self.plan_only_on = self.plan_only_on.union(options);
                self.plan_only_off = self.plan_only_off.after(PlanOnly::NONE, options);
            }
            Set::PlanOnly { options, on: false } if !self.branches => {
                self.plan_only_off = self.plan_only_off.union(options);
                self.plan_only_on = self.plan_only_on.after(PlanOnly::NONE, options);
            }
            Set::PlanOnly { .. } => self.pin(Pin::PlanOnly),
            Set::Pinned(pin) => self.pin(pin),
            Set::Variable | Set::Clause => {}
        }
    }

    fn call(&mut self, call: &Call<'_, '_>) {
        let Callee::Named(name) = &call.callee else {
            return self.pin(Pin::DynamicSql);
        };
        match context(call) {
            Some(Context::Setting(set)) => {
                if set.read_only {
                    self.pin(Pin::SessionContext);
                }
                return self.sets.push(set);
            }
            Some(Context::Other) => return self.pin(Pin::SessionContext),
            None => {}
        }
        let meaning = procedures::by_name(name).unwrap_or(procedures::UNKNOWN);
        self.pins = self.pins.union(meaning.pins);
    }

    fn implicit(&self) -> Option<Implicit> {
        if self.implicit_unsure {
            return Some(Implicit::Perhaps);
        }
        let last = self
            .settings
            .iter()
            .rfind(|setting| setting.option == Tracked::ImplicitTransactions)?;
        Some(if &*last.value == "ON" {
            Implicit::On
        } else {
            Implicit::Off
        })
    }
}

/// `DECLARE c CURSOR LOCAL …`, `DECLARE @c CURSOR`, `SET @c = CURSOR …` end with their batch.
fn is_local_cursor(words: &[Token<'_>], at: usize) -> bool {
    let before = |back: usize| at.checked_sub(back).and_then(|at| words.get(at));
    let is_variable =
        |token: Option<&Token<'_>>| token.is_some_and(|token| token.kind == TokenKind::Variable);
    words.get(at + 1).is_some_and(|next| next.is("local"))
        || is_variable(before(1))
        || (before(1).is_some_and(|token| token.symbol('=')) && is_variable(before(2)))
}
