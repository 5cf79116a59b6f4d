//! Names of several parts: `[server].[database].[schema].[object]`.

use std::fmt;

use crate::sql::tsql::lexer::{Lexer, Token, TokenKind, fold};

/// Parts that a name has at most.
const PARTS_MAX: usize = 4;

/// A name as it is written, without quotes and brackets. What is left out (`db..object`) is `None`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Name {
    pub server: Option<Box<str>>,
    pub database: Option<Box<str>>,
    pub schema: Option<Box<str>>,
    pub object: Box<str>,
}

impl Name {
    /// Reads a whole text as one name, as the procedure's name of an RPC request is written: also with
    /// the number of a numbered procedure (`name;1`). `None` for everything else.
    pub fn parse(text: &str) -> Option<Self> {
        let mut lexer = Lexer::new(text);
        // A name of four parts with its dots and number has nine tokens.
        let tokens: Vec<_> = lexer.by_ref().take(3 * PARTS_MAX).collect();
        let (name, used) = Self::at(&tokens)?;
        let numbered = match tokens.get(used..)? {
            [] => true,
            [semicolon, number] => semicolon.kind == TokenKind::Semicolon && number.kind == TokenKind::Number,
            _ => false,
        };
        (numbered && lexer.next().is_none() && !lexer.is_doubtful()).then_some(name)
    }

    /// The name at the beginning of `words`, and how many tokens it has.
    pub(super) fn at(words: &[Token<'_>]) -> Option<(Self, usize)> {
        let mut parts: Vec<Option<String>> = Vec::new();
        let mut used = 0;
        loop {
            let part = words.get(used).and_then(Token::name);
            used += usize::from(part.is_some());
            let dotted = words.get(used).is_some_and(|token| token.symbol('.'));
            if part.is_none() && !dotted {
                return None;
            }
            parts.push(part.map(std::borrow::Cow::into_owned));
            if !dotted {
                return Some((Self::of(parts)?, used));
            }
            used += 1;
        }
    }

    /// From the parts in the order in which they are written.
    pub(super) fn of(parts: Vec<Option<String>>) -> Option<Self> {
        if parts.len() > PARTS_MAX {
            return None;
        }
        let filled = |part: Option<Option<String>>| {
            let part = part.flatten().filter(|part| !part.is_empty());
            part.map(String::into_boxed_str)
        };
        let mut parts = parts.into_iter().rev();
        Some(Self {
            object: filled(parts.next())?,
            schema: filled(parts.next()),
            database: filled(parts.next()),
            server: filled(parts.next()),
        })
    }

    /// The object's name as collations without case and width compare it.
    pub(super) fn folded(&self) -> String {
        fold(&self.object)
    }

    /// Can a name of the system's procedures mean only that one? Such a name is looked up among the system's
    /// own first, with no schema, with `sys`, or with master's `dbo`.
    pub(super) fn may_be_systems(&self) -> bool {
        let schema = self.schema.as_deref().map(fold);
        let database = self.database.as_deref().map(fold);
        self.server.is_none()
            && match schema.as_deref() {
                Some("sys") => true,
                None | Some("dbo") => {
                    matches!(database.as_deref(), Some("master")) || database.is_none() && schema.is_none()
                }
                Some(_) => false,
            }
    }
}

impl fmt::Display for Name {
    /// `database.schema.object`, with brackets where a part is no plain word.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let before = [&self.server, &self.database, &self.schema];
        let mut begun = false;
        for part in before {
            if let Some(part) = part {
                write_part(f, part)?;
                begun = true;
            }
            if begun {
                f.write_str(".")?;
            }
        }
        write_part(f, &self.object)
    }
}

fn write_part(f: &mut fmt::Formatter<'_>, part: &str) -> fmt::Result {
    let plain = part
        .chars()
        .all(|c| c.is_alphanumeric() || matches!(c, '_' | '#' | '@' | '$'));
    if plain {
        f.write_str(part)
    } else {
        write!(f, "[{}]", part.replace(']', "]]"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_split_at_their_dots() {
        let shown = |text: &str| Name::parse(text).map(|name| name.to_string());
        assert_eq!(shown("apply_order").as_deref(), Some("apply_order"));
        assert_eq!(
            shown("[dbo].[apply order];1").as_deref(),
            Some("dbo.[apply order]")
        );
        assert_eq!(shown("orders..\"x\"").as_deref(), Some("orders..x"));
        assert_eq!(shown("[a.b].c.d").as_deref(), Some("[a.b].c.d"));
        assert_eq!(shown("s.d.[x]]y].o").as_deref(), Some("s.d.[x]]y].o"));
        for no in [
            "",
            "a.b.c.d.e",
            "a b",
            "a.",
            "a;b",
            "a;1;2",
            "'a'",
            "@a",
            "a\u{200b}",
            "exec a",
        ] {
            assert_eq!(shown(no), None, "{no}");
        }
    }

    #[test]
    fn only_some_qualifiers_leave_a_system_procedure_what_it_is() {
        let systems = |text: &str| Name::parse(text).unwrap().may_be_systems();
        for text in [
            "sp_who",
            "sys.sp_who",
            "master..sp_who",
            "master.dbo.sp_who",
            "x.SYS.sp_who",
        ] {
            assert!(systems(text), "{text}");
        }
        for text in ["dbo.sp_who", "x..sp_who", "x.dbo.sp_who", "s.master.dbo.sp_who"] {
            assert!(!systems(text), "{text}");
        }
    }
}
