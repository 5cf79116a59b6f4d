//! Which relations a text reads and writes and which procedures it calls, for the record. Read by
//! `sqlparser`; what it cannot read is unknown, never guessed, and nothing but the record rests on it.

use std::collections::BTreeSet;
use std::ops::ControlFlow;

use sqlparser::ast::{
    Delete, Expr, FromTable, Ident, ObjectName, Query, Select, SetExpr, Statement as Parsed, TableFactor,
    TableObject, Visit, Visitor,
};
use sqlparser::dialect::{Dialect, MsSqlDialect};
use sqlparser::parser::Parser;

use crate::sql::kind::Kind;
use crate::sql::tsql::call::{Callee, calls};
use crate::sql::tsql::lexer::{Lexer, Token, TokenKind, fold};
use crate::sql::tsql::name::Name;
use crate::sql::tsql::plain::is_servers_own;
use crate::sql::tsql::statements::split;
use crate::sql::tsql::transaction::is_module;

/// Bytes of a text that is parsed. Longer ones are lists of values, and parsing takes memory by length.
pub(in crate::sql) const TEXT_BYTES_MAX: usize = 64 << 10;
/// Parentheses within parentheses. Each level costs the parser stack, in places beyond its own count: of 24
/// joins within each other, or calls, two megabytes do not hold it in a debug build.
pub(in crate::sql) const NESTING_MAX: usize = 8;
/// The parser's own count of what stands within each other, for the same reason.
const RECURSION_MAX: usize = 16;
/// Operators of one text. `1 + 1 + …` becomes a tree as deep as it is long, which is walked and dropped level
/// by level.
pub(in crate::sql) const OPERATORS_MAX: usize = 200;
/// Names of each sort that are kept.
const NAMES_MAX: usize = 64;

/// The relations and procedures that a text names, sorted, at most 64 of each.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Relations {
    pub read: Vec<Name>,
    pub written: Vec<Name>,
    /// Procedures, and functions with their schema.
    pub called: Vec<Name>,
    /// There are more.
    pub truncated: bool,
}

#[cfg(test)]
impl Relations {
    /// All names, as tests compare them.
    pub(in crate::sql) fn shown(&self) -> String {
        let list = |names: &[Name]| names.iter().map(Name::to_string).collect::<Vec<_>>().join(",");
        let (read, written, called) = (list(&self.read), list(&self.written), list(&self.called));
        format!("r:{read} w:{written} c:{called}")
    }
}

/// What a text names; `None` when any part of it cannot be read.
pub fn relations(text: &str) -> Option<Relations> {
    if text.len() > TEXT_BYTES_MAX {
        return None;
    }
    let mut lexer = Lexer::new(text);
    let words: Vec<_> = lexer
        .by_ref()
        .filter(|token| token.kind != TokenKind::Comment)
        .collect();
    if lexer.is_doubtful() || !is_shallow(&words) || is_module(&words) {
        return None;
    }
    let mut found = Found::default();
    for call in calls(&words) {
        let Callee::Named(name) = call.callee else {
            return None;
        };
        found.called.insert(name);
    }
    for statement in split(&words) {
        let slice = text.get(statement.range)?;
        match statement.kind {
            // They name no relation, or only in what was looked at above.
            Kind::Begin | Kind::Commit | Kind::Rollback | Kind::Savepoint | Kind::Use | Kind::Print => {}
            Kind::Execute => {}
            Kind::Set | Kind::Declare | Kind::Control if !mentions(slice, "select") => {}
            Kind::Control => found.statement(&condition(slice)?, &MsSqlDialect {})?,
            Kind::Select | Kind::Insert | Kind::Update | Kind::Delete | Kind::Merge | Kind::Definition => {
                found.statement(slice, &MsSqlDialect {})?;
            }
            Kind::Empty
            | Kind::With
            | Kind::RollbackTo
            | Kind::Release
            | Kind::PrepareTransaction
            | Kind::EndPrepared
            | Kind::Set
            | Kind::Show
            | Kind::CopyIn
            | Kind::CopyOut
            | Kind::CopyServer
            | Kind::Call
            | Kind::Do
            | Kind::Prepare
            | Kind::Deallocate
            | Kind::Discard
            | Kind::Listen
            | Kind::Notify
            | Kind::Lock
            | Kind::Declare
            | Kind::DeclareHeld
            | Kind::Fetch
            | Kind::CloseCursor
            | Kind::Explain
            | Kind::Maintenance
            | Kind::Unknown => return None,
        }
    }
    Some(found.finish())
}

/// What a call by RPC names; `None` when its name cannot be read.
pub fn called(procedure: &str) -> Option<Relations> {
    Some(Relations {
        called: vec![Name::parse(procedure)?],
        ..Relations::default()
    })
}

/// Words that make the parsed tree deeper.
pub(in crate::sql) const OPERATORS: [&str; 17] = [
    "all",
    "and",
    "at",
    "between",
    "case",
    "collate",
    "else",
    "escape",
    "except",
    "in",
    "intersect",
    "is",
    "like",
    "not",
    "or",
    "union",
    "when",
];

/// Does the text stay within what the parser's stack can bear?
fn is_shallow(words: &[Token<'_>]) -> bool {
    let mut depth = 0_usize;
    let mut operators = 0_usize;
    words.iter().all(|token| {
        let symbol = token.kind == TokenKind::Symbol && !token.symbol(',') && !token.symbol('.');
        operators += usize::from(symbol || token.is_any(&OPERATORS));
        depth += usize::from(token.kind == TokenKind::Open);
        depth -= usize::from(token.kind == TokenKind::Close && depth > 0);
        depth <= NESTING_MAX && operators <= OPERATORS_MAX
    })
}

fn mentions(text: &str, word: &str) -> bool {
    Lexer::new(text).any(|token| token.is(word))
}

/// The condition of an IF or a WHILE as a query.
fn condition(text: &str) -> Option<String> {
    let first = Lexer::new(text).next()?;
    first
        .is_any(&["if", "while"])
        .then(|| format!("select 1 where {}", text.get(first.end()..).unwrap_or_default()))
}

/// What was found so far; of PostgreSQL's texts as well.
#[derive(Debug, Default)]
pub(in crate::sql) struct Found {
    read: BTreeSet<Name>,
    written: BTreeSet<Name>,
    called: BTreeSet<Name>,
}

impl Found {
    pub(in crate::sql) fn statement(&mut self, text: &str, dialect: &dyn Dialect) -> Option<()> {
        let parser = Parser::new(dialect).with_recursion_limit(RECURSION_MAX);
        let parsed = parser.try_with_sql(text).ok()?.parse_statements().ok()?;
        for statement in &parsed {
            let mut look = Look::default();
            if statement.visit(&mut look).is_break() {
                return None;
            }
            let targets = targets(statement)?.into_iter().chain(look.made.drain(..));
            let targets: Vec<Name> = targets.collect();
            for target in &targets {
                // An UPDATE or DELETE may name its relation by the alias that its FROM gives it.
                let alone = target.schema.is_none() && target.database.is_none();
                let alias = look
                    .aliases
                    .iter()
                    .find(|(alias, _)| alone && *alias == target.folded());
                if alone && look.hidden.contains(&target.folded()) {
                    return None;
                }
                if let Some(place) = look.read.iter().position(|name| name == target) {
                    look.read.swap_remove(place);
                }
                let written = alias.map_or(target, |(_, name)| name).clone();
                if !is_variable(&written) {
                    self.written.insert(written);
                }
            }
            let read = look.read.into_iter().filter(|name| {
                let alone = name.schema.is_none() && name.database.is_none();
                let hidden = alone && look.hidden.contains(&name.folded());
                !hidden && !is_variable(name)
            });
            self.read.extend(read);
            self.called.extend(look.called);
        }
        Some(())
    }

    pub(in crate::sql) fn finish(self) -> Relations {
        let mut relations = Relations {
            truncated: [&self.read, &self.written, &self.called]
                .iter()
                .any(|names| names.len() > NAMES_MAX),
            ..Relations::default()
        };
        relations.read = self.read.into_iter().take(NAMES_MAX).collect();
        relations.written = self.written.into_iter().take(NAMES_MAX).collect();
        relations.called = self.called.into_iter().take(NAMES_MAX).collect();
        relations
    }
}

fn is_variable(name: &Name) -> bool {
    name.object.starts_with('@')
}

/// The relations that a statement changes; `None` for a statement that we do not know.
fn targets(statement: &Parsed) -> Option<Vec<Name>> {
    let names = |names: Vec<&ObjectName>| names.into_iter().map(name_of).collect::<Option<Vec<_>>>();
    let table = |factor: &TableFactor| {
        let TableFactor::Table { name, .. } = factor else {
            return None;
        };
        name_of(name)
    };
    if let Parsed::Query(query) = statement {
        // Behind WITH the parser takes every statement for a query.
        return match &*query.body {
            SetExpr::Insert(inner)
            | SetExpr::Update(inner)
            | SetExpr::Delete(inner)
            | SetExpr::Merge(inner) => targets(inner),
            SetExpr::Select(_)
            | SetExpr::Query(_)
            | SetExpr::SetOperation { .. }
            | SetExpr::Values(_)
            | SetExpr::Table(_) => Some(Vec::new()),
        };
    }
    if let Parsed::Insert(insert) = statement {
        let TableObject::TableName(name) = &insert.table else {
            return None;
        };
        return names(vec![name]);
    }
    if let Parsed::Update(update) = statement {
        return Some(vec![table(&update.table.relation)?]);
    }
    if let Parsed::Delete(delete) = statement {
        return deleted(delete);
    }
    if let Parsed::Merge(merge) = statement {
        return Some(vec![table(&merge.table)?]);
    }
    if let Parsed::Truncate(truncate) = statement {
        return names(truncate.table_names.iter().map(|target| &target.name).collect());
    }
    if let Parsed::CreateTable(create) = statement {
        return names(vec![&create.name]);
    }
    if let Parsed::CreateIndex(create) = statement {
        return names(vec![&create.table_name]);
    }
    if let Parsed::AlterTable(alter) = statement {
        return names(vec![&alter.name]);
    }
    if let Parsed::Drop { names: dropped, .. } = statement {
        return names(dropped.iter().collect());
    }
    None
}

/// `DELETE name FROM …`, `DELETE FROM name …`, `DELETE name …`.
fn deleted(delete: &Delete) -> Option<Vec<Name>> {
    if let [name] = delete.tables.as_slice() {
        return Some(vec![name_of(name)?]);
    }
    let (FromTable::WithFromKeyword(from) | FromTable::WithoutKeyword(from)) = &delete.from;
    let [only] = from.as_slice() else { return None };
    let TableFactor::Table { name, .. } = &only.relation else {
        return None;
    };
    Some(vec![name_of(name)?])
}

fn name_of(name: &ObjectName) -> Option<Name> {
    let parts = name.0.iter().map(|part| part.as_ident());
    let parts: Option<Vec<_>> = parts
        .map(|part| part.map(|part| Some(part.value.clone())))
        .collect();
    Name::of(parts?)
}

fn name_of_idents(idents: &[Ident]) -> Option<Name> {
    Name::of(idents.iter().map(|part| Some(part.value.clone())).collect())
}

/// Walks what was parsed. Breaks where a name cannot be read.
#[derive(Debug, Default)]
struct Look {
    read: Vec<Name>,
    called: Vec<Name>,
    /// What SELECT … INTO makes.
    made: Vec<Name>,
    /// Names of common table expressions, folded.
    hidden: BTreeSet<String>,
    /// Aliases, folded, with what they stand for.
    aliases: Vec<(String, Name)>,
}

impl Look {
    fn function(&mut self, name: &ObjectName) {
        let Some(name) = name_of(name) else { return };
        if name.schema.is_some() || !is_servers_own(&name.folded()) {
            self.called.push(name);
        }
    }
}

impl Visitor for Look {
    type Break = ();

    fn pre_visit_query(&mut self, query: &Query) -> ControlFlow<()> {
        for table in query.with.iter().flat_map(|with| &with.cte_tables) {
            self.hidden.insert(fold(&table.alias.name.value));
        }
        ControlFlow::Continue(())
    }

    fn pre_visit_select(&mut self, select: &Select) -> ControlFlow<()> {
        for target in select.into.iter().flat_map(|into| &into.targets) {
            let name = if let Expr::Identifier(ident) = target {
                name_of_idents(std::slice::from_ref(ident))
            } else if let Expr::CompoundIdentifier(idents) = target {
                name_of_idents(idents)
            } else {
                None
            };
            let Some(name) = name else {
                return ControlFlow::Break(());
            };
            self.made.push(name);
        }
        ControlFlow::Continue(())
    }

    fn pre_visit_relation(&mut self, relation: &ObjectName) -> ControlFlow<()> {
        match name_of(relation) {
            Some(name) => self.read.push(name),
            None => return ControlFlow::Break(()),
        }
        ControlFlow::Continue(())
    }

    fn post_visit_table_factor(&mut self, factor: &TableFactor) -> ControlFlow<()> {
        if let TableFactor::Table {
            name, alias, args, ..
        } = factor
            && let Some(relation) = name_of(name)
        {
            if args.is_some() {
                // A function that gives a table: visited as a relation before.
                if let Some(place) = self.read.iter().rposition(|read| *read == relation) {
                    self.read.remove(place);
                }
                self.function(name);
            } else if let Some(alias) = alias {
                self.aliases.push((fold(&alias.name.value), relation));
            }
        }
        ControlFlow::Continue(())
    }

    fn pre_visit_expr(&mut self, expr: &Expr) -> ControlFlow<()> {
        if let Expr::Function(function) = expr
            && function.name.0.len() > 1
        {
            self.function(&function.name);
        }
        ControlFlow::Continue(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(text: &str) -> Option<String> {
        relations(text).map(|relations| relations.shown())
    }

    #[test]
    fn relations_are_told() {
        let table = [
            ("select 1", "r: w: c:"),
            (
                "select * from dbo.orders o join [sales].[Lines] l on l.id = o.id",
                "r:dbo.orders,sales.Lines w: c:",
            ),
            ("insert into dbo.t (a) select b from u", "r:u w:dbo.t c:"),
            ("insert dbo.t (a) values (@p1)", "r: w:dbo.t c:"),
            ("update t set a = 1 where b in (select c from u)", "r:u w:t c:"),
            (
                "update o set a = 1 from dbo.orders o join u on u.a = o.a",
                "r:u,dbo.orders w:dbo.orders c:",
            ),
            ("delete from t where a = 1", "r: w:t c:"),
            ("with x as (select a from t) select * from x, y", "r:t,y w: c:"),
            (
                "with x as (select a from t) insert into u select a from x",
                "r:t w:u c:",
            ),
            (
                "with x as (select a from t) update u set a = 1 from u join x on x.a = u.a",
                "r:t,u w:u c:",
            ),
            (
                "begin tran update t set a = 1 insert into u (a) values (2) commit",
                "r: w:t,u c:",
            ),
            ("exec dbo.apply_order @a = 1", "r: w: c:dbo.apply_order"),
            (
                "declare @r int exec @r = [x].[dbo].[p] select @r",
                "r: w: c:x.dbo.p",
            ),
            ("select dbo.f(a) from t", "r:t w: c:dbo.f"),
            ("select * from dbo.f(1) x", "r: w: c:dbo.f"),
            ("truncate table t", "r: w:t c:"),
            ("create table #t (a int)", "r: w:#t c:"),
            ("if exists (select 1 from t) delete from u", "r:t w:u c:"),
            (
                "set nocount on; insert into t (a) output inserted.id values (@a); select scope_identity()",
                "r: w:t c:",
            ),
            (
                "merge into t using s on t.a = s.a when matched then update set b = 1 when not matched then insert (a) values (1);",
                "r:s w:t c:",
            ),
        ];
        for (text, wanted) in table {
            assert_eq!(shown(text).as_deref(), Some(wanted), "{text}");
        }
    }

    #[test]
    fn what_cannot_be_read_is_unknown() {
        let deep = format!("select {}1{}", "(".repeat(200), ")".repeat(200));
        let long = format!("select {} 1", "1, ".repeat(40_000));
        for text in [
            "select from from",
            "exec (@s)",
            "exec @p",
            "create procedure p as select 1",
            "select 1 -- x\rdelete t",
            "backup database x to disk = 'y'",
            "with x as (select a from t) update x set a = 1",
            deep.as_str(),
            long.as_str(),
        ] {
            assert_eq!(shown(text), None, "{text:.80}");
        }
        assert_eq!(called("[dbo].[p];1").unwrap().called[0].to_string(), "dbo.p");
        assert_eq!(called("a b"), None);
    }
}
