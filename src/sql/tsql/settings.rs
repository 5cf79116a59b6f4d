//! `SET` statements: which of them can be set again on another connection, and which cannot.
//!
//! The list is that of the drivers' start-up batches and of what other poolers of SQL Server track.

use crate::sql::tsql::lexer::{Token, TokenKind, fold};
use crate::sql::tsql::pins::Pin;
use crate::sql::tsql::statements::is_keyword;

/// Bytes of a value (a language's or a database's name): `sysname` has 128 characters.
const VALUE_BYTES_MAX: usize = 512;

/// An option whose value can be read from the text and set again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Tracked {
    /// `USE`.
    Database,
    AnsiNullDfltOff,
    AnsiNullDfltOn,
    AnsiNulls,
    AnsiPadding,
    AnsiWarnings,
    Arithabort,
    ConcatNullYieldsNull,
    CursorCloseOnCommit,
    Datefirst,
    Dateformat,
    ImplicitTransactions,
    IsolationLevel,
    Language,
    LockTimeout,
    Nocount,
    NumericRoundabort,
    QuotedIdentifier,
    Rowcount,
    Textsize,
    XactAbort,
}

impl Tracked {
    /// The options that are ON or OFF.
    const SWITCHES: [(&'static str, Self); 13] = [
        ("ANSI_NULL_DFLT_OFF", Self::AnsiNullDfltOff),
        ("ANSI_NULL_DFLT_ON", Self::AnsiNullDfltOn),
        ("ANSI_NULLS", Self::AnsiNulls),
        ("ANSI_PADDING", Self::AnsiPadding),
        ("ANSI_WARNINGS", Self::AnsiWarnings),
        ("ARITHABORT", Self::Arithabort),
        ("CONCAT_NULL_YIELDS_NULL", Self::ConcatNullYieldsNull),
        ("CURSOR_CLOSE_ON_COMMIT", Self::CursorCloseOnCommit),
        ("IMPLICIT_TRANSACTIONS", Self::ImplicitTransactions),
        ("NOCOUNT", Self::Nocount),
        ("NUMERIC_ROUNDABORT", Self::NumericRoundabort),
        ("QUOTED_IDENTIFIER", Self::QuotedIdentifier),
        ("XACT_ABORT", Self::XactAbort),
    ];

    /// The options that have a value.
    const VALUES: [(&'static str, Self); 6] = [
        ("DATEFIRST", Self::Datefirst),
        ("DATEFORMAT", Self::Dateformat),
        ("LANGUAGE", Self::Language),
        ("LOCK_TIMEOUT", Self::LockTimeout),
        ("ROWCOUNT", Self::Rowcount),
        ("TEXTSIZE", Self::Textsize),
    ];

    /// What `SET ANSI_DEFAULTS` sets.
    const ANSI_DEFAULTS: [Self; 7] = [
        Self::AnsiNullDfltOn,
        Self::AnsiNulls,
        Self::AnsiPadding,
        Self::AnsiWarnings,
        Self::CursorCloseOnCommit,
        Self::ImplicitTransactions,
        Self::QuotedIdentifier,
    ];

    /// The option's name behind `SET`.
    pub fn name(self) -> &'static str {
        let others = [
            ("USE", Self::Database),
            ("TRANSACTION ISOLATION LEVEL", Self::IsolationLevel),
        ];
        let mut all = Self::SWITCHES.iter().chain(&Self::VALUES).chain(&others);
        all.find(|named| named.1 == self).map_or("", |named| named.0)
    }
}

/// An option with its value as it is written in a `SET`, safe to be put in a text.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Setting {
    pub option: Tracked,
    /// `ON`, `OFF`, a number, a word, `N'…'`, or (of a database) `[…]`.
    pub value: Box<str>,
}

impl Setting {
    /// The statement that sets it again.
    pub fn sql(&self) -> String {
        let Self { option, value } = self;
        if *option == Tracked::Database {
            format!("USE {value}")
        } else {
            format!("SET {} {value}", option.name())
        }
    }

    pub(super) fn database(name: &str) -> Option<Self> {
        let fits = !name.is_empty() && name.len() <= VALUE_BYTES_MAX && !name.contains(char::is_control);
        fits.then(|| Self {
            option: Tracked::Database,
            value: format!("[{}]", name.replace(']', "]]")).into_boxed_str(),
        })
    }
}

/// Options under which statements are described, compiled or parsed, and not executed.
const PLAN_ONLY: [&str; 6] = [
    "showplan_all",
    "showplan_text",
    "showplan_xml",
    "noexec",
    "parseonly",
    "fmtonly",
];

/// A set of the options under which statements are not executed: SHOWPLAN_ALL, _TEXT, _XML, NOEXEC,
/// PARSEONLY, FMTONLY.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct PlanOnly(u8);

impl PlanOnly {
    pub const NONE: Self = Self(0);

    pub const fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// What is on behind a text that turned `on` on last and `off` off last.
    pub const fn after(self, on: Self, off: Self) -> Self {
        Self((self.0 & !off.0) | on.0)
    }

    pub(super) const fn union(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    fn of(option: &str) -> Option<Self> {
        let place = PLAN_ONLY.iter().position(|name| *name == option)?;
        Some(Self(1 << place))
    }
}

/// What one `SET` does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Set {
    /// `SET @x = …`.
    Variable,
    Tracked(Vec<Setting>),
    PlanOnly {
        options: PlanOnly,
        on: bool,
    },
    Pinned(Pin),
    /// The SET of an UPDATE, a MERGE or an ALTER.
    Clause,
}

/// Reads what stands behind the `SET` at `at`.
pub(super) fn set_at(words: &[Token<'_>], at: usize) -> Set {
    let before = at.checked_sub(1).and_then(|at| words.get(at));
    let rest = words.get(at + 1..).unwrap_or_default();
    let Some(first) = rest.first() else {
        return Set::Pinned(Pin::Setting);
    };
    if first.kind == TokenKind::Variable {
        return if rest.get(1).is_some_and(|next| next.kind == TokenKind::Symbol) {
            Set::Variable
        } else {
            Set::Pinned(Pin::Setting)
        };
    }
    // `ON DELETE SET NULL`.
    let action =
        before.is_some_and(|token| token.is_any(&["delete", "update"])) && first.is_any(&["null", "default"]);
    // `SET column = …`, `SET column += …`, `SET a.column = …`.
    let assigned = rest
        .get(1)
        .is_some_and(|next| next.kind == TokenKind::Symbol && !next.symbol(',') && !next.symbol('-'));
    let column = matches!(first.kind, TokenKind::Bracketed | TokenKind::Quoted);
    if action || assigned || column || first.kind == TokenKind::Open {
        return Set::Clause;
    }
    let name = fold(first.text);
    match name.as_str() {
        "transaction" => isolation_level(rest),
        "context_info" => Set::Pinned(Pin::ContextInfo),
        "statistics" => Set::Pinned(Pin::Statistics),
        "identity_insert" => Set::Pinned(Pin::IdentityInsert),
        _ => {
            let valued = Tracked::VALUES
                .iter()
                .find(|named| named.0.eq_ignore_ascii_case(&name));
            match valued {
                Some((_, option)) => value(*option, rest.get(1..).unwrap_or_default()),
                None => switches(rest),
            }
        }
    }
}

/// `SET TRANSACTION ISOLATION LEVEL …`.
fn isolation_level(rest: &[Token<'_>]) -> Set {
    const LEVELS: [&[&str]; 5] = [
        &["read", "uncommitted"],
        &["read", "committed"],
        &["repeatable", "read"],
        &["snapshot"],
        &["serializable"],
    ];
    let head = ["transaction", "isolation", "level"];
    let spelt = |from: usize, words: &[&str]| {
        let tokens = rest.iter().skip(from);
        words.len() <= rest.len().saturating_sub(from)
            && tokens.zip(words).all(|(token, word)| token.is(word))
    };
    let level = LEVELS
        .iter()
        .find(|level| spelt(0, &head) && spelt(head.len(), level));
    level.map_or(Set::Pinned(Pin::Setting), |level| {
        Set::Tracked(vec![Setting {
            option: Tracked::IsolationLevel,
            value: level.join(" ").to_uppercase().into_boxed_str(),
        }])
    })
}

/// A number, a word, or a constant; a variable's value is not known.
fn value(option: Tracked, rest: &[Token<'_>]) -> Set {
    let value = match rest {
        [minus, number, ..] if minus.symbol('-') && number.kind == TokenKind::Number => {
            number_value(number).map(|number| format!("-{number}"))
        }
        [number, ..] if number.kind == TokenKind::Number => number_value(number),
        [text, ..] if text.kind == TokenKind::Text => text.text_value().map(|value| constant(&value)),
        [name, ..] if option == Tracked::Language || option == Tracked::Dateformat => {
            let name = if is_keyword(name) { None } else { name.name() };
            name.map(|value| constant(&value))
        }
        _ => None,
    };
    match value.filter(|value| value.len() <= VALUE_BYTES_MAX) {
        Some(value) => Set::Tracked(vec![Setting {
            option,
            value: value.into_boxed_str(),
        }]),
        None => Set::Pinned(Pin::Setting),
    }
}

fn number_value(number: &Token<'_>) -> Option<String> {
    let whole = number.text.bytes().all(|byte| byte.is_ascii_digit());
    whole.then(|| number.text.to_owned())
}

/// A word may be written as a constant (`SET DATEFORMAT N'mdy'`).
fn constant(value: &str) -> String {
    format!("N'{}'", value.replace('\'', "''"))
}

/// One or more names with one ON or OFF behind them.
fn switches(rest: &[Token<'_>]) -> Set {
    let mut names = Vec::new();
    let mut on = None;
    for (place, token) in rest.iter().enumerate() {
        match token {
            name if place % 2 == 0 && name.kind == TokenKind::Word => names.push(fold(name.text)),
            comma if comma.symbol(',') => {}
            last => {
                on = last.is("on").then_some(true).or(last.is("off").then_some(false));
                break;
            }
        }
    }
    let Some(on) = on else {
        return Set::Pinned(Pin::Setting);
    };
    let mut settings = Vec::new();
    let mut options = PlanOnly::NONE;
    let setting = |option: Tracked| Setting {
        option,
        value: Box::from(if on { "ON" } else { "OFF" }),
    };
    for name in &names {
        let switch = Tracked::SWITCHES
            .iter()
            .find(|named| named.0.eq_ignore_ascii_case(name));
        if let Some((_, option)) = switch {
            settings.push(setting(*option));
        } else if name == "ansi_defaults" {
            settings.extend(Tracked::ANSI_DEFAULTS.map(setting));
        } else if let Some(option) = PlanOnly::of(name) {
            options = options.union(option);
        } else {
            return Set::Pinned(Pin::Setting);
        }
    }
    match (settings.is_empty(), options.is_empty()) {
        (false, true) => Set::Tracked(settings),
        (true, false) => Set::PlanOnly { options, on },
        // Both at once: nobody writes that.
        (false, false) if on => Set::PlanOnly { options, on },
        _ => Set::Pinned(Pin::Setting),
    }
}
