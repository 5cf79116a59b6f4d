//! Reads statements by their first words.

use gatepost::sql::tsql::lexer::TokenKind;

use super::fault::Fault;
use super::parse::{Parsed, Parser};
use super::syntax::{Expr, Parameter, Spoken, Statement};
use super::value::Value;

impl Parser<'_> {
    /// Up to one of these words, or to the end.
    pub(crate) fn statements(&mut self, ends: &[&str]) -> Parsed<Vec<Spoken>> {
        let mut all = Vec::new();
        loop {
            while self.take_kind(TokenKind::Semicolon) {}
            if self.peek().is_none_or(|token| token.is_any(ends)) {
                return Ok(all);
            }
            let is_first = all.is_empty() && ends.is_empty();
            all.push(self.spoken(is_first)?);
        }
    }

    fn spoken(&mut self, is_first: bool) -> Parsed<Spoken> {
        let start = self.position();
        let what = self.statement(is_first)?;
        let text = self.said(start);
        Ok(Spoken { what, text })
    }

    fn boxed(&mut self) -> Parsed<Box<Spoken>> {
        while self.take_kind(TokenKind::Semicolon) {}
        self.spoken(false).map(Box::new)
    }

    fn statement(&mut self, is_first: bool) -> Parsed<Statement> {
        if self.is("select") {
            return self.select().map(|select| Statement::Select(Box::new(select)));
        }
        let token = *self.peek().ok_or_else(|| self.unexpected())?;
        let word = if token.kind == TokenKind::Word {
            token.text.to_lowercase()
        } else {
            String::new()
        };
        let start = self.position();
        self.next()?;
        match word.as_str() {
            "insert" => self.insert(),
            "update" => {
                if self.take("statistics") {
                    self.name()?;
                    return Ok(Statement::Nothing);
                }
                self.update()
            }
            "delete" => self.delete(),
            "truncate" => self.truncate(),
            "exec" | "execute" => {
                if self.take("as") {
                    return Err(Fault::syntax("AS"));
                }
                self.execute()
            }
            "set" => self.set(),
            "declare" => self.declare(),
            "begin" => self.begin(),
            "commit" => {
                self.transaction_words()?;
                Ok(Statement::Commit)
            }
            "rollback" => self.transaction_words().map(Statement::Rollback),
            "save" => {
                let name = self.transaction_words()?;
                name.map(Statement::Save).ok_or_else(|| self.unexpected())
            }
            "if" => {
                let condition = self.expression()?;
                let then = self.boxed()?;
                let at = self.position();
                while self.take_kind(TokenKind::Semicolon) {}
                let otherwise = if self.take("else") {
                    Some(self.boxed()?)
                } else {
                    None
                };
                if otherwise.is_none() {
                    self.back(at);
                }
                Ok(Statement::If {
                    condition,
                    then,
                    otherwise,
                })
            }
            "create" | "alter" | "drop" | "grant" | "revoke" | "deny" => self.definition(&word),
            _ => self.small(&word, is_first, start),
        }
    }

    /// Statements of a few words.
    fn small(&mut self, word: &str, is_first: bool, start: usize) -> Parsed<Statement> {
        match word {
            "return" => {
                let ends = self
                    .peek()
                    .is_none_or(|token| token.kind == TokenKind::Semicolon || Self::is_reserved(token));
                Ok(Statement::Return(if ends {
                    None
                } else {
                    Some(self.expression()?)
                }))
            }
            "while" => {
                let condition = self.expression()?;
                let body = self.boxed()?;
                Ok(Statement::While { condition, body })
            }
            "use" => self.word().map(Statement::Use),
            "print" => self.expression().map(Statement::Print),
            "raiserror" => self.enclosed_list().map(|list| {
                if self.take("with") {
                    let _ = self.next();
                }
                Statement::RaiseError(list)
            }),
            "throw" => {
                let mut all = Vec::new();
                let speaks = |kind| matches!(kind, TokenKind::Number | TokenKind::Variable);
                if self.peek().is_some_and(|token| speaks(token.kind)) {
                    all.push(self.expression()?);
                    while self.take_symbol(',') {
                        all.push(self.expression()?);
                    }
                }
                Ok(Statement::Throw(all))
            }
            "waitfor" => {
                self.want("delay")?;
                self.expression().map(Statement::WaitFor)
            }
            "kill" => self.expression().map(Statement::Kill),
            // A batch may begin with the name of a procedure.
            _ if is_first => {
                self.back(start);
                self.execute()
            }
            _ => {
                self.back(start);
                Err(self.unexpected())
            }
        }
    }

    fn enclosed_list(&mut self) -> Parsed<Vec<Expr>> {
        self.want_kind(TokenKind::Open)?;
        let mut all = Vec::new();
        while !self.take_kind(TokenKind::Close) {
            all.push(self.expression()?);
            self.take_symbol(',');
        }
        Ok(all)
    }

    fn begin(&mut self) -> Parsed<Statement> {
        if self.take("try") {
            let body = self.statements(&["end"])?;
            self.want("end try")?;
            while self.take_kind(TokenKind::Semicolon) {}
            self.want("begin catch")?;
            let handler = self.statements(&["end"])?;
            self.want("end catch")?;
            return Ok(Statement::Try { body, handler });
        }
        if self.is("tran") || self.is("transaction") {
            self.transaction_words()?;
            return Ok(Statement::Begin);
        }
        let block = self.statements(&["end"])?;
        self.want("end")?;
        Ok(Statement::Block(block))
    }

    /// `TRAN`, `TRANSACTION` or `WORK`, and a name.
    fn transaction_words(&mut self) -> Parsed<Option<String>> {
        if !(self.take("tran") || self.take("transaction")) {
            self.take("work");
            return Ok(None);
        }
        let names = self.peek().is_some_and(|token| {
            token.kind == TokenKind::Variable || token.name().is_some() && !Self::is_reserved(token)
        });
        if !names {
            return Ok(None);
        }
        let name = self.next()?.text.trim_matches(['[', ']']).to_lowercase();
        if self.take("with mark") {
            let _ = self.take_kind(TokenKind::Text);
        }
        Ok(Some(name))
    }

    fn set(&mut self) -> Parsed<Statement> {
        if self.is_kind(TokenKind::Variable) {
            let name = self.variable()?;
            self.want_symbol('=')?;
            return self.expression().map(|value| Statement::SetVariable(name, value));
        }
        if self.take("context_info") {
            return self.expression().map(Statement::ContextInfo);
        }
        if self.take("transaction isolation level") {
            let mut words = vec!["transaction".to_owned()];
            words.push(self.word()?.to_lowercase());
            if words
                .last()
                .is_some_and(|word| word == "read" || word == "repeatable")
            {
                words.push(self.word()?.to_lowercase());
            }
            return Ok(Statement::SetOption(words));
        }
        let mut words = vec![self.word()?.to_lowercase()];
        while self.take_symbol(',') {
            words.push(self.word()?.to_lowercase());
        }
        if words
            .iter()
            .any(|word| word == "statistics" || word == "identity_insert")
        {
            words.push(self.name()?.object);
        }
        let sign = if self.take_symbol('-') { "-" } else { "" };
        let value = self.next()?;
        words.push(format!("{sign}{}", value.text.to_lowercase()));
        Ok(Statement::SetOption(words))
    }

    fn declare(&mut self) -> Parsed<Statement> {
        let mut all = Vec::new();
        loop {
            let name = self.variable()?;
            self.take("as");
            let kind = self.kind()?;
            let value = if self.take_symbol('=') {
                Some(self.expression()?)
            } else {
                None
            };
            all.push((name, kind, value));
            if !self.take_symbol(',') {
                return Ok(Statement::Declare(all));
            }
        }
    }

    /// Of a procedure, or of a statement for `sp_executesql`.
    pub(crate) fn parameter_list(&mut self) -> Parsed<Vec<Parameter>> {
        let mut all = Vec::new();
        while self.is_kind(TokenKind::Variable) {
            let name = self.variable()?;
            self.take("as");
            let kind = self.kind()?;
            let default = if self.take_symbol('=') {
                Some(self.primary()?)
            } else {
                None
            };
            let is_output = self.take("output") || self.take("out");
            self.take("readonly");
            all.push(Parameter {
                name,
                kind,
                default,
                is_output,
            });
            if !self.take_symbol(',') {
                break;
            }
        }
        Ok(all)
    }

    pub(crate) fn text_constant(&mut self) -> Parsed<String> {
        match self.primary()? {
            Expr::Value(Value::Text(text)) => Ok(text),
            _ => Err(self.unexpected()),
        }
    }
}
