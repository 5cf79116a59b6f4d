//! What a text does to the transaction that it runs in, by its own words.
//!
//! Not seen, and to be learnt from the server: a trigger that rolls back, an error that ends the
//! transaction (always under XACT_ABORT, else by its severity), a deadlock. They all show in the reply
//! as an error. While SET NOEXEC, PARSEONLY, FMTONLY or SHOWPLAN is on, nothing of it happens.

use crate::sql::tsql::call::{Callee, calls};
use crate::sql::tsql::lexer::{Lexer, Token, TokenKind};
use crate::sql::tsql::procedures;
use crate::sql::tsql::statements::is_keyword;

/// Steps that are told apart; a longer batch is unclear.
const STEPS_MAX: usize = 1_000;

/// One step of a batch without branches.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// One level more.
    Begin,
    /// Statements that leave transactions alone. Under IMPLICIT_TRANSACTIONS they may begin one.
    Work,
    /// One level less; the last one commits.
    Commit,
    /// All levels end.
    Rollback,
    Save,
    /// Back to a savepoint that was set in this batch: no level ends, unless the transaction bears the
    /// same name.
    RollbackToSave,
}

/// What a text does to transactions.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Effect {
    /// None of its words begins, ends or divides one, and it runs no other code.
    Untouched,
    /// Exactly this in this order, if no statement of it fails.
    Steps(Vec<Step>),
    /// Conditions, procedures, dynamic SQL, or what cannot be read decide.
    Unclear { may_begin: bool, may_end: bool },
}

impl Effect {
    /// What anything may be.
    pub const UNKNOWN: Self = Self::Unclear {
        may_begin: true,
        may_end: true,
    };

    /// Can a transaction be open behind it that was not before?
    pub fn may_begin(&self) -> bool {
        match self {
            Self::Untouched => false,
            Self::Steps(steps) => steps.contains(&Step::Begin),
            Self::Unclear { may_begin, .. } => *may_begin,
        }
    }

    /// Can it end the transaction that it runs in, or one that it begins?
    pub fn may_end(&self) -> bool {
        match self {
            Self::Untouched => false,
            Self::Steps(steps) => steps
                .iter()
                .any(|step| matches!(step, Step::Commit | Step::Rollback | Step::RollbackToSave)),
            Self::Unclear { may_end, .. } => *may_end,
        }
    }

    /// @@TRANCOUNT behind it, if it was `depth` before and nothing of it failed; `None` when that cannot
    /// be told. With `implicit`, any work outside of a transaction may begin one.
    pub fn depth_after(&self, depth: u32, implicit: bool) -> Option<u32> {
        match self {
            Self::Untouched if implicit && depth == 0 => None,
            Self::Untouched => Some(depth),
            Self::Steps(steps) => steps.iter().try_fold(depth, |depth, step| match step {
                Step::Begin => depth.checked_add(1),
                Step::Work if implicit && depth == 0 => None,
                Step::Work => Some(depth),
                Step::Commit => depth.checked_sub(1),
                Step::Rollback => (depth > 0).then_some(0),
                Step::Save | Step::RollbackToSave => (depth > 0).then_some(depth),
            }),
            Self::Unclear { .. } => None,
        }
    }
}

/// Words after which a statement may run once, never, or many times.
const BRANCHES: [&str; 10] = [
    "if", "else", "while", "try", "catch", "goto", "return", "break", "continue", "throw",
];

/// May some of the statements be skipped or repeated?
pub(super) fn branches(words: &[Token<'_>]) -> bool {
    words.iter().any(|token| token.is_any(&BRANCHES))
}

/// `doubtful` when the text cannot be read for sure; `planned` when it sets something under which
/// statements are not executed.
pub(super) fn judge(words: &[Token<'_>], doubtful: bool, planned: bool) -> Effect {
    if doubtful || calls(words).iter().any(|call| may_end(&call.callee)) {
        return Effect::UNKNOWN;
    }
    let mut walk = Walk::default();
    let mut at = 0;
    while at < words.len() {
        at += walk.step(words, at);
    }
    if !walk.unreadable && walk.steps.iter().all(|step| *step == Step::Work) {
        return Effect::Untouched;
    }
    if walk.unreadable || planned || branches(words) || is_module(words) || walk.steps.len() > STEPS_MAX {
        return Effect::Unclear {
            may_begin: walk.begins || walk.unreadable,
            may_end: walk.ends || walk.unreadable,
        };
    }
    Effect::Steps(walk.steps)
}

/// Is the text `IF @@TRANCOUNT > 0 COMMIT` and nothing else, as mssql-jdbc sends it? Within a transaction that is a
/// COMMIT.
pub fn is_guarded_commit(text: &str) -> bool {
    let words = Lexer::new(text).filter(|token| token.kind != TokenKind::Comment);
    // One more than the longest has.
    let words: Vec<_> = words.take(8).collect();
    let [condition, count, above, zero, commit, rest @ ..] = words.as_slice() else {
        return false;
    };
    let asked = count.kind == TokenKind::Variable && count.text.eq_ignore_ascii_case("@@trancount");
    let guarded = condition.is("if") && asked && above.symbol('>') && zero.text == "0";
    let mut rest = rest.iter().filter(|token| token.kind != TokenKind::Semicolon);
    let of = rest
        .next()
        .is_none_or(|word| word.is_any(&["tran", "transaction", "work"]));
    guarded && commit.is("commit") && of && rest.next().is_none() && words.len() < 8
}

fn may_end(callee: &Callee) -> bool {
    match callee {
        Callee::Named(name) => procedures::by_name(name).is_none_or(|meaning| meaning.may_end_transaction),
        Callee::Text | Callee::Hidden => true,
    }
}

/// Does the batch define a module, which holds all the rest of it?
pub(super) fn is_module(words: &[Token<'_>]) -> bool {
    const MODULES: [&str; 5] = ["proc", "procedure", "function", "trigger", "view"];
    let mut head = words
        .iter()
        .skip_while(|token| token.kind == TokenKind::Semicolon)
        .take(4);
    head.next()
        .is_some_and(|token| token.is_any(&["create", "alter"]))
        && head
            .find(|token| !token.is_any(&["or", "alter"]))
            .is_some_and(|token| token.is_any(&MODULES))
}

#[derive(Debug, Default)]
struct Walk<'a> {
    steps: Vec<Step>,
    saves: Vec<&'a str>,
    begins: bool,
    ends: bool,
    unreadable: bool,
}

impl<'a> Walk<'a> {
    /// Looks at the statement word at `at`; returns how many tokens it took.
    fn step(&mut self, words: &[Token<'a>], at: usize) -> usize {
        let Some(token) = words.get(at) else { return 1 };
        let next = words.get(at + 1);
        let transaction = next.is_some_and(|next| next.is_any(&["tran", "transaction"]));
        if token.is("begin") && transaction {
            self.begins = true;
            self.push(Step::Begin);
            return 2 + self.named(words, at + 2).1;
        }
        if token.is("begin") && next.is_some_and(|next| next.is("distributed")) {
            self.begins = true;
            self.unreadable = true;
            return 2;
        }
        if token.is("commit") {
            self.ends = true;
            self.push(Step::Commit);
            let work = next.is_some_and(|next| next.is("work"));
            return 1
                + usize::from(work)
                + if transaction {
                    1 + self.named(words, at + 2).1
                } else {
                    0
                };
        }
        if token.is("rollback") {
            self.ends = true;
            let (name, more) = if transaction {
                self.named(words, at + 2)
            } else {
                (None, 0)
            };
            match name {
                None => self.push(Step::Rollback),
                Some(name) if self.saves.contains(&name) => self.push(Step::RollbackToSave),
                // A savepoint of an earlier batch, a variable, or the transaction's own name.
                Some(_) => self.unreadable = true,
            }
            let work = next.is_some_and(|next| next.is("work"));
            return 1 + usize::from(work || transaction) + more;
        }
        if token.is("save") {
            self.unreadable |= !transaction;
            self.push(Step::Save);
            let (name, more) = self.named(words, at + 2);
            self.saves.extend(name.filter(|name| !name.starts_with('@')));
            return 2 + more;
        }
        let silent = token.kind == TokenKind::Semicolon || token.is_any(&["begin", "end"]);
        if !silent && self.steps.last() != Some(&Step::Work) {
            self.push(Step::Work);
        }
        1
    }

    fn push(&mut self, step: Step) {
        if self.steps.len() <= STEPS_MAX {
            self.steps.push(step);
        }
        if matches!(step, Step::Begin | Step::Rollback) {
            self.saves.clear();
        }
    }

    /// The transaction's name at `at` with what may follow it (`WITH MARK '…'`, `WITH (…)`), and how many
    /// tokens they take.
    fn named(&mut self, words: &[Token<'a>], at: usize) -> (Option<&'a str>, usize) {
        let name = words.get(at).filter(|token| {
            let variable = token.kind == TokenKind::Variable;
            (variable || token.name().is_some()) && !is_keyword(token)
        });
        let mut used = usize::from(name.is_some());
        if words.get(at + used).is_some_and(|token| token.is("with")) {
            let next = words.get(at + used + 1);
            if next.is_some_and(|next| next.is("mark")) {
                let text = words.get(at + used + 2);
                used += 2 + usize::from(text.is_some_and(|text| text.kind == TokenKind::Text));
            } else if next.is_some_and(|next| next.kind == TokenKind::Open) {
                let rest = words.get(at + used..).unwrap_or_default();
                let close = rest.iter().position(|token| token.kind == TokenKind::Close);
                used += close.map_or(rest.len(), |close| close + 1);
            }
        }
        (name.map(|name| name.text), used)
    }
}
