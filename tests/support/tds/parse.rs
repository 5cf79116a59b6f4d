//! Reads statements. What is not known is a syntax error, as it would be on a server that does not know it.

use gatepost::sql::tsql::lexer::{Lexer, Token, TokenKind};
use gatepost::wire::tds::reply::ColumnKind;

use super::fault::Fault;
use super::syntax::{Expr, Item, Join, Name, Select, Source, Spoken};

/// No name without brackets, so that an alias ends where the next statement begins.
const RESERVED: [&str; 57] = [
    "add",
    "alter",
    "and",
    "as",
    "begin",
    "break",
    "by",
    "case",
    "commit",
    "continue",
    "create",
    "cross",
    "declare",
    "delete",
    "deny",
    "drop",
    "else",
    "end",
    "exec",
    "execute",
    "exists",
    "from",
    "grant",
    "group",
    "having",
    "if",
    "in",
    "inner",
    "insert",
    "into",
    "is",
    "join",
    "kill",
    "left",
    "like",
    "not",
    "null",
    "on",
    "or",
    "order",
    "print",
    "raiserror",
    "return",
    "revoke",
    "rollback",
    "save",
    "select",
    "set",
    "then",
    "throw",
    "truncate",
    "union",
    "update",
    "use",
    "values",
    "waitfor",
    "where",
];
const RESERVED_MORE: [&str; 7] = ["when", "while", "with", "option", "output", "outer", "between"];

pub(crate) type Parsed<T> = Result<T, Fault>;

pub(crate) struct Parser<'a> {
    text: &'a str,
    tokens: Vec<Token<'a>>,
    at: usize,
}

/// All statements of a batch.
pub(crate) fn batch(text: &str) -> Parsed<Vec<Spoken>> {
    let mut parser = Parser::new(text);
    let statements = parser.statements(&[])?;
    match parser.peek() {
        None => Ok(statements),
        Some(token) => Err(Fault::syntax(token.text)),
    }
}

/// `@a int, @b nvarchar(50) OUTPUT`, as `sp_executesql` takes it.
pub(crate) fn parameters(text: &str) -> Parsed<Vec<super::syntax::Parameter>> {
    Parser::new(text).parameter_list()
}

impl<'a> Parser<'a> {
    fn new(text: &'a str) -> Self {
        let tokens = Lexer::new(text).filter(|token| token.kind != TokenKind::Comment);
        Self {
            text,
            tokens: tokens.collect(),
            at: 0,
        }
    }

    pub(crate) fn peek(&self) -> Option<&Token<'a>> {
        self.tokens.get(self.at)
    }

    pub(crate) fn ahead(&self, count: usize) -> Option<&Token<'a>> {
        self.tokens.get(self.at + count)
    }

    pub(crate) fn next(&mut self) -> Parsed<Token<'a>> {
        let token = self.tokens.get(self.at).copied();
        self.at += 1;
        token.ok_or_else(|| Fault::syntax("the end of the batch"))
    }

    pub(crate) fn is(&self, word: &str) -> bool {
        self.peek().is_some_and(|token| token.is(word))
    }

    pub(crate) fn is_symbol(&self, symbol: char) -> bool {
        self.peek().is_some_and(|token| token.symbol(symbol))
    }

    pub(crate) fn is_kind(&self, kind: TokenKind) -> bool {
        self.peek().is_some_and(|token| token.kind == kind)
    }

    /// Takes the words if they all come next.
    pub(crate) fn take(&mut self, words: &str) -> bool {
        let words: Vec<_> = words.split(' ').collect();
        let all = words
            .iter()
            .enumerate()
            .all(|(index, word)| self.ahead(index).is_some_and(|token| token.is(word)));
        if all {
            self.at += words.len();
        }
        all
    }

    pub(crate) fn take_symbol(&mut self, symbol: char) -> bool {
        let is = self.is_symbol(symbol);
        self.at += usize::from(is);
        is
    }

    pub(crate) fn take_kind(&mut self, kind: TokenKind) -> bool {
        let is = self.is_kind(kind);
        self.at += usize::from(is);
        is
    }

    pub(crate) fn want(&mut self, words: &str) -> Parsed<()> {
        if self.take(words) {
            Ok(())
        } else {
            Err(self.unexpected())
        }
    }

    pub(crate) fn want_kind(&mut self, kind: TokenKind) -> Parsed<()> {
        if self.take_kind(kind) {
            Ok(())
        } else {
            Err(self.unexpected())
        }
    }

    pub(crate) fn want_symbol(&mut self, symbol: char) -> Parsed<()> {
        if self.take_symbol(symbol) {
            Ok(())
        } else {
            Err(self.unexpected())
        }
    }

    pub(crate) fn unexpected(&self) -> Fault {
        Fault::syntax(self.peek().map_or("the end of the batch", |token| token.text))
    }

    /// A name of one part, as written.
    pub(crate) fn word(&mut self) -> Parsed<String> {
        let token = self.next()?;
        let name = token.name().map(std::borrow::Cow::into_owned);
        name.ok_or_else(|| Fault::syntax(token.text))
    }

    pub(crate) fn text(&mut self) -> Parsed<String> {
        let token = self.next()?;
        let text = token.text_value().map(std::borrow::Cow::into_owned);
        text.ok_or_else(|| Fault::syntax(token.text))
    }

    pub(crate) fn variable(&mut self) -> Parsed<String> {
        let token = self.next()?;
        if token.kind == TokenKind::Variable {
            Ok(token.text.to_lowercase())
        } else {
            Err(Fault::syntax(token.text))
        }
    }

    /// `a`, `s.a`, `d.s.a`, `d..a`.
    pub(crate) fn name(&mut self) -> Parsed<Name> {
        let start = self.peek().map_or(0, |token| token.start);
        let mut parts = vec![self.word()?];
        while self.take_symbol('.') {
            if self.is_symbol('.') {
                parts.push(String::new());
            } else {
                parts.push(self.word()?);
            }
        }
        let end = self
            .tokens
            .get(self.at.saturating_sub(1))
            .map_or(start, Token::end);
        let shown = self
            .text
            .get(start..end)
            .unwrap_or_default()
            .replace(['[', ']'], "");
        let mut parts = parts.into_iter().rev().map(|part| part.to_lowercase());
        Ok(Name {
            object: parts.next().unwrap_or_default(),
            schema: parts.next(),
            database: parts.next(),
            shown,
        })
    }

    /// Names in brackets behind one another, with commas.
    pub(crate) fn name_list(&mut self) -> Parsed<Vec<String>> {
        let mut names = Vec::new();
        self.want_kind(TokenKind::Open)?;
        loop {
            names.push(self.word()?.to_lowercase());
            let _ = self.take("asc") || self.take("desc");
            if !self.take_symbol(',') {
                break;
            }
        }
        self.want_kind(TokenKind::Close)?;
        Ok(names)
    }

    pub(crate) fn is_reserved(token: &Token<'_>) -> bool {
        token.is_any(&RESERVED) || token.is_any(&RESERVED_MORE)
    }

    /// `AS x`, or `x` alone.
    fn alias(&mut self) -> Parsed<Option<String>> {
        if self.take("as") {
            return Ok(Some(match self.peek().and_then(Token::text_value) {
                Some(text) if self.is_kind(TokenKind::Text) => {
                    let text = text.into_owned();
                    self.at += 1;
                    text
                }
                _ => self.word()?,
            }));
        }
        let names = self
            .peek()
            .is_some_and(|token| token.name().is_some() && !Self::is_reserved(token));
        if names { Ok(Some(self.word()?)) } else { Ok(None) }
    }

    /// A type, as a column or a variable has it.
    pub(crate) fn kind(&mut self) -> Parsed<ColumnKind> {
        let name = self.name()?.object;
        let mut sizes = Vec::new();
        if self.take_kind(TokenKind::Open) {
            while !self.take_kind(TokenKind::Close) {
                let token = self.next()?;
                sizes.push(token.text.to_lowercase());
                self.take_symbol(',');
            }
        }
        let is_max = sizes.first().is_some_and(|size| size == "max");
        let size = |index: usize, otherwise: u16| {
            sizes
                .get(index)
                .and_then(|size: &String| size.parse().ok())
                .unwrap_or(otherwise)
        };
        let small = |number: u16| u8::try_from(number).unwrap_or(u8::MAX);
        Ok(match name.as_str() {
            "bit" => ColumnKind::Bit,
            "int" | "smallint" | "tinyint" => ColumnKind::Int,
            "bigint" => ColumnKind::BigInt,
            "float" | "real" => ColumnKind::Float,
            "decimal" | "numeric" => ColumnKind::Decimal {
                precision: small(size(0, 18)),
                scale: small(size(1, 0)),
            },
            "money" | "smallmoney" => ColumnKind::Decimal {
                precision: 19,
                scale: 4,
            },
            "date" | "datetime" | "datetime2" | "smalldatetime" | "datetimeoffset" | "time" => {
                ColumnKind::DateTime2 { scale: 7 }
            }
            "uniqueidentifier" => ColumnKind::UniqueIdentifier,
            "nvarchar" | "varchar" | "nchar" | "char" if is_max => ColumnKind::NVarCharMax,
            "text" | "ntext" | "xml" | "sql_variant" => ColumnKind::NVarCharMax,
            // In CAST a length that is not given is 30.
            "nvarchar" | "varchar" => ColumnKind::NVarChar(size(0, 30).min(4000)),
            "nchar" | "char" => ColumnKind::NVarChar(size(0, 1).min(4000)),
            "sysname" => ColumnKind::NVarChar(128),
            "varbinary" | "binary" if is_max => ColumnKind::VarBinaryMax,
            "image" => ColumnKind::VarBinaryMax,
            "varbinary" | "binary" => ColumnKind::VarBinary(size(0, 30).min(8000)),
            "rowversion" | "timestamp" => ColumnKind::VarBinary(8),
            other => {
                let text = format!("Cannot find data type {other}.");
                return Err(Fault::new(2715, 16, text).aborting());
            }
        })
    }

    pub(crate) fn select(&mut self) -> Parsed<Select> {
        self.want("select")?;
        let mut select = Select {
            distinct: self.take("distinct"),
            ..Select::default()
        };
        self.take("all");
        if self.take("top") {
            let enclosed = self.take_kind(TokenKind::Open);
            select.top = Some(if enclosed {
                self.expression()?
            } else {
                self.primary()?
            });
            if enclosed {
                self.want_kind(TokenKind::Close)?;
            }
        }
        select.items = self.items()?;
        if self.take("into") {
            select.into = Some(self.name()?);
        }
        if self.take("from") {
            select.sources = self.sources()?;
        }
        if self.take("where") {
            select.filter = Some(self.expression()?);
        }
        if self.take("group by") {
            select.groups = self.expressions()?;
        }
        if self.take("union all") || self.take("union") {
            select.union = Some(Box::new(self.select()?));
            return Ok(select);
        }
        if self.take("order by") {
            loop {
                let by = self.expression()?;
                let descends = self.take("desc");
                self.take("asc");
                select.order.push((by, descends));
                if !self.take_symbol(',') {
                    break;
                }
            }
        }
        if self.take("option") {
            self.skip_enclosed()?;
        }
        Ok(select)
    }

    /// Everything up to the matching closing bracket.
    pub(crate) fn skip_enclosed(&mut self) -> Parsed<()> {
        self.want_kind(TokenKind::Open)?;
        let mut depth = 1;
        while depth > 0 {
            match self.next()?.kind {
                TokenKind::Open => depth += 1,
                TokenKind::Close => depth -= 1,
                _ => {}
            }
        }
        Ok(())
    }

    pub(crate) fn items(&mut self) -> Parsed<Vec<Item>> {
        let mut items = Vec::new();
        loop {
            items.push(self.item()?);
            if !self.take_symbol(',') {
                return Ok(items);
            }
        }
    }

    fn item(&mut self) -> Parsed<Item> {
        let assigns = self.is_kind(TokenKind::Variable) && self.ahead(1).is_some_and(|next| next.symbol('='));
        let into = if assigns {
            let name = self.variable()?;
            self.want_symbol('=')?;
            Some(name)
        } else {
            None
        };
        let named = self.ahead(1).is_some_and(|next| next.symbol('='))
            && self.peek().is_some_and(|token| token.name().is_some());
        if named && into.is_none() {
            let alias = Some(self.word()?);
            self.want_symbol('=')?;
            let what = self.expression()?;
            return Ok(Item { what, alias, into });
        }
        let what = if self.take_symbol('*') {
            Expr::Star(None)
        } else {
            self.expression()?
        };
        let alias = self.alias()?;
        Ok(Item { what, alias, into })
    }

    fn sources(&mut self) -> Parsed<Vec<Source>> {
        let mut sources = vec![self.source(Join::First)?];
        loop {
            if self.take_symbol(',') || self.take("cross join") {
                sources.push(self.source(Join::Cross)?);
            } else if self.take("inner join") || self.take("join") {
                let source = self.source(Join::Cross)?;
                self.want("on")?;
                let join = Join::Inner(self.expression()?);
                sources.push(Source { join, ..source });
            } else if self.take("left join") || self.take("left outer join") {
                let source = self.source(Join::Cross)?;
                self.want("on")?;
                let join = Join::Left(self.expression()?);
                sources.push(Source { join, ..source });
            } else {
                return Ok(sources);
            }
        }
    }

    fn source(&mut self, join: Join) -> Parsed<Source> {
        let name = self.name()?;
        let alias = self.alias()?.map(|alias| alias.to_lowercase());
        let waits = self.hints()?.contains(&"readcommittedlock".to_owned());
        let alias = alias.unwrap_or_else(|| name.object.clone());
        Ok(Source {
            name,
            alias,
            join,
            waits,
        })
    }

    /// `WITH (UPDLOCK, …)`: its words.
    pub(crate) fn hints(&mut self) -> Parsed<Vec<String>> {
        if !self.is("with") || self.ahead(1).is_none_or(|next| next.kind != TokenKind::Open) {
            return Ok(Vec::new());
        }
        let from = self.at;
        self.at += 1;
        self.skip_enclosed()?;
        let words = self.tokens.get(from..self.at).unwrap_or_default().iter();
        Ok(words.map(|token| token.text.to_lowercase()).collect())
    }

    pub(crate) fn expressions(&mut self) -> Parsed<Vec<Expr>> {
        let mut all = vec![self.expression()?];
        while self.take_symbol(',') {
            all.push(self.expression()?);
        }
        Ok(all)
    }

    pub(crate) const fn position(&self) -> usize {
        self.at
    }

    pub(crate) const fn back(&mut self, at: usize) {
        self.at = at;
    }

    /// The text of the tokens from `start` up to here.
    pub(crate) fn said(&self, start: usize) -> String {
        let first = self.tokens.get(start).map_or(0, |token| token.start);
        let last = self
            .tokens
            .get(self.at.saturating_sub(1))
            .map_or(first, Token::end);
        self.text.get(first..last).unwrap_or_default().to_owned()
    }
}
