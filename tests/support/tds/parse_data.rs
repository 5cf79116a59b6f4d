//! Reads INSERT, UPDATE, DELETE and EXECUTE, each from behind its first word.

use gatepost::sql::tsql::lexer::TokenKind;

use super::parse::{Parsed, Parser};
use super::syntax::{Argument, Expr, Rows, Statement};
use super::value::Value;

impl Parser<'_> {
    pub(crate) fn insert(&mut self) -> Parsed<Statement> {
        if self.take("bulk") {
            let table = self.name()?;
            let mut columns = Vec::new();
            self.want_kind(TokenKind::Open)?;
            loop {
                columns.push(self.word()?.to_lowercase());
                self.kind()?;
                while self.is("collate") || self.is("null") || self.is("not") {
                    let is_collation = self.is("collate");
                    self.back(self.position() + 1 + usize::from(is_collation));
                }
                if !self.take_symbol(',') {
                    break;
                }
            }
            self.want_kind(TokenKind::Close)?;
            self.hints()?;
            return Ok(Statement::InsertBulk { table, columns });
        }
        self.take("into");
        let table = self.name()?;
        self.hints()?;
        let columns = if self.is_kind(TokenKind::Open) {
            self.name_list()?
        } else {
            Vec::new()
        };
        let output = if self.take("output") {
            self.items()?
        } else {
            Vec::new()
        };
        let rows = if self.take("default values") {
            Rows::Defaults
        } else if self.is("select") {
            Rows::Select(Box::new(self.select()?))
        } else {
            self.want("values")?;
            let mut rows = Vec::new();
            loop {
                self.want_kind(TokenKind::Open)?;
                rows.push(self.expressions()?);
                self.want_kind(TokenKind::Close)?;
                if !self.take_symbol(',') {
                    break Rows::Values(rows);
                }
            }
        };
        Ok(Statement::Insert {
            table,
            columns,
            rows,
            output,
        })
    }

    pub(crate) fn update(&mut self) -> Parsed<Statement> {
        let table = self.name()?;
        self.hints()?;
        self.want("set")?;
        let mut sets = Vec::new();
        loop {
            let column = self.word()?.to_lowercase();
            let operator = ['+', '-', '*']
                .into_iter()
                .find(|symbol| self.take_symbol(*symbol));
            self.want_symbol('=')?;
            let mut value = self.expression()?;
            if let Some(operator) = operator {
                let old = Expr::Column {
                    of: None,
                    name: column.clone(),
                };
                value = Expr::Binary(Self::arithmetic(operator), Box::new(old), Box::new(value));
            }
            sets.push((column, value));
            if !self.take_symbol(',') {
                break;
            }
        }
        let output = if self.take("output") {
            self.items()?
        } else {
            Vec::new()
        };
        let filter = if self.take("where") {
            Some(self.expression()?)
        } else {
            None
        };
        Ok(Statement::Update {
            table,
            sets,
            filter,
            output,
        })
    }

    pub(crate) fn truncate(&mut self) -> Parsed<Statement> {
        self.want("table")?;
        Ok(Statement::Delete {
            top: None,
            table: self.name()?,
            filter: None,
            output: Vec::new(),
        })
    }

    pub(crate) fn delete(&mut self) -> Parsed<Statement> {
        let top = if self.take("top") {
            self.want_kind(TokenKind::Open)?;
            let top = self.expression()?;
            self.want_kind(TokenKind::Close)?;
            Some(top)
        } else {
            None
        };
        self.take("from");
        let table = self.name()?;
        self.hints()?;
        let output = if self.take("output") {
            self.items()?
        } else {
            Vec::new()
        };
        let filter = if self.take("where") {
            Some(self.expression()?)
        } else {
            None
        };
        Ok(Statement::Delete {
            top,
            table,
            filter,
            output,
        })
    }

    /// From behind EXEC.
    pub(crate) fn execute(&mut self) -> Parsed<Statement> {
        if self.take_kind(TokenKind::Open) {
            let text = self.expression()?;
            self.want_kind(TokenKind::Close)?;
            return Ok(Statement::ExecuteText(text));
        }
        let mut result = None;
        if self.is_kind(TokenKind::Variable) {
            result = Some(self.variable()?);
            self.want_symbol('=')?;
        }
        let name = self.name()?;
        let mut arguments = Vec::new();
        while self.peek().is_some_and(|token| {
            token.kind != TokenKind::Semicolon && (!Self::is_reserved(token) || token.is("null"))
        }) {
            let named =
                self.is_kind(TokenKind::Variable) && self.ahead(1).is_some_and(|next| next.symbol('='));
            let argument_name = if named {
                let name = self.variable()?;
                self.want_symbol('=')?;
                Some(name)
            } else {
                None
            };
            // A bare word is a text here.
            let is_bare = self.is_kind(TokenKind::Word) && !self.is("null");
            let value = if is_bare {
                Expr::Value(Value::Text(self.word()?))
            } else {
                self.expression()?
            };
            let is_output = self.take("output") || self.take("out");
            arguments.push(Argument {
                name: argument_name,
                value,
                is_output,
            });
            if !self.take_symbol(',') {
                break;
            }
        }
        Ok(Statement::Execute {
            result,
            name,
            arguments,
        })
    }
}
