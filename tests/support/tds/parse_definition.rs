//! Reads statements that change principals and objects.

use gatepost::sql::tsql::lexer::TokenKind;

use super::parse::{Parsed, Parser};
use super::syntax::{ColumnDefinition, Definition, LoginChange, Name, Statement};

/// Columns, and what is unique: its name and its columns.
type Table = (Vec<ColumnDefinition>, Vec<(String, Vec<String>)>);

impl Parser<'_> {
    /// From behind the first word.
    pub(crate) fn definition(&mut self, verb: &str) -> Parsed<Statement> {
        let what = match verb {
            "create" => self.create()?,
            "alter" => self.alter()?,
            "drop" => self.drop_what()?,
            _ => self.grant(verb == "grant")?,
        };
        Ok(what.map_or(Statement::Nothing, |what| Statement::Define(Box::new(what))))
    }

    fn create(&mut self) -> Parsed<Option<Definition>> {
        if self.take("or") {
            self.want("alter")?;
            return self.procedure(true).map(Some);
        }
        if self.is("procedure") || self.is("proc") {
            return self.procedure(false).map(Some);
        }
        if self.take("database") {
            return self.word().map(|name| Some(Definition::CreateDatabase(name)));
        }
        if self.take("view") {
            // The only view that there is, `dbo.numbers`, is known already.
            while self.peek().is_some() {
                self.next()?;
            }
            return Ok(None);
        }
        if self.take("schema") {
            let name = self.word()?;
            let owner = self.take("authorization").then(|| self.word()).transpose()?;
            return Ok(Some(Definition::CreateSchema { name, owner }));
        }
        if self.take("role") {
            let name = self.word()?;
            if self.take("authorization") {
                self.word()?;
            }
            return Ok(Some(Definition::CreateRole(name)));
        }
        if self.take("login") {
            return self.create_login().map(Some);
        }
        if self.take("user") {
            return self.create_user().map(Some);
        }
        if self.take("table") {
            let name = self.name()?;
            let (columns, keys) = self.columns()?;
            return Ok(Some(Definition::CreateTable { name, columns, keys }));
        }
        let unique = self.take("unique");
        let _ = self.take("clustered") || self.take("nonclustered");
        self.want("index")?;
        let name = self.word()?;
        self.want("on")?;
        let table = self.name()?;
        let columns = self.name_list()?;
        Ok(Some(Definition::CreateIndex {
            name,
            table,
            columns,
            unique,
        }))
    }

    /// `NAME = value`, several with commas.
    fn options(&mut self) -> Parsed<Vec<(String, String)>> {
        let mut all = Vec::new();
        loop {
            let name = self.word()?.to_lowercase();
            self.want_symbol('=')?;
            let is_text = self.is_kind(TokenKind::Text);
            let value = if is_text { self.text()? } else { self.word()? };
            all.push((name, value));
            self.take_symbol(',');
            let goes_on = self.ahead(1).is_some_and(|next| next.symbol('=')) && self.is_kind(TokenKind::Word);
            if !goes_on {
                return Ok(all);
            }
        }
    }

    fn create_login(&mut self) -> Parsed<Definition> {
        let name = self.word()?;
        self.want("with")?;
        let options = self.options()?;
        let password = find(&options, "password").ok_or_else(|| self.unexpected())?;
        Ok(Definition::CreateLogin {
            name,
            password,
            database: find(&options, "default_database"),
        })
    }

    fn create_user(&mut self) -> Parsed<Definition> {
        let name = self.word()?;
        let external = self.take("from external provider");
        let login = if self.take("for login") || self.take("from login") {
            Some(self.word()?)
        } else {
            self.take("without login");
            None
        };
        let options = if self.take("with") {
            self.options()?
        } else {
            Vec::new()
        };
        let password = find(&options, "password");
        let schema = find(&options, "default_schema");
        let login = login.or_else(|| (password.is_none() && !external).then(|| name.clone()));
        Ok(Definition::CreateUser {
            name,
            login,
            password,
            schema,
        })
    }

    fn alter(&mut self) -> Parsed<Option<Definition>> {
        if self.take("login") {
            let name = self.word()?;
            if self.take("disable") {
                return Ok(Some(Definition::AlterLogin(name, LoginChange::Enabled(false))));
            }
            if self.take("enable") {
                return Ok(Some(Definition::AlterLogin(name, LoginChange::Enabled(true))));
            }
            self.want("with")?;
            let options = self.options()?;
            let change = match (find(&options, "password"), find(&options, "default_database")) {
                (Some(password), _) => LoginChange::Password(password),
                (None, Some(database)) => LoginChange::Database(database),
                (None, None) => return Err(self.unexpected()),
            };
            return Ok(Some(Definition::AlterLogin(name, change)));
        }
        if self.take("user") {
            let name = self.word()?;
            self.want("with")?;
            let options = self.options()?;
            return Ok(Some(Definition::AlterUser {
                name,
                password: find(&options, "password"),
                schema: find(&options, "default_schema"),
            }));
        }
        if self.take("authorization on") {
            let (class, name) = self.object()?;
            self.want("to")?;
            let to = self.word()?;
            return Ok(Some(Definition::Authorization { class, name, to }));
        }
        if self.take("database") {
            // Options of a database change nothing here.
            while self
                .peek()
                .is_some_and(|token| token.kind != TokenKind::Semicolon)
            {
                self.next()?;
            }
            return Ok(None);
        }
        let of_server = self.take("server role");
        if !of_server {
            self.want("role")?;
        }
        let role = self.word()?;
        let adds = self.take("add member");
        if !adds {
            self.want("drop member")?;
        }
        let member = self.word()?;
        Ok(Some(Definition::Member {
            of_server,
            role,
            member,
            adds,
        }))
    }

    fn drop_what(&mut self) -> Parsed<Option<Definition>> {
        let kind = self.word()?.to_lowercase();
        let if_exists = self.take("if exists");
        Ok(Some(match kind.as_str() {
            "database" => Definition::DropDatabase(self.word()?),
            "login" => Definition::DropLogin(self.word()?),
            "user" => Definition::DropUser {
                name: self.word()?,
                if_exists,
            },
            "role" => Definition::DropRole(self.word()?),
            "table" => Definition::DropTable {
                name: self.name()?,
                if_exists,
            },
            "procedure" | "proc" => Definition::DropProcedure(self.name()?),
            _ => return Err(self.unexpected()),
        }))
    }

    /// `OBJECT::s.o`, `SCHEMA::s`, or an object's name alone.
    fn object(&mut self) -> Parsed<(String, Name)> {
        let named = self.ahead(1).is_some_and(|next| next.symbol(':'));
        let class = if named {
            let class = self.word()?.to_lowercase();
            self.want_symbol(':')?;
            self.want_symbol(':')?;
            class
        } else {
            "object".to_owned()
        };
        self.name().map(|name| (class, name))
    }

    fn grant(&mut self, grants: bool) -> Parsed<Option<Definition>> {
        let mut permissions = vec![String::new()];
        while !self.is("on") && !self.is("to") && !self.is("from") {
            let token = self.next()?;
            match token.kind {
                TokenKind::Symbol => permissions.push(String::new()),
                TokenKind::Word => {
                    if let Some(last) = permissions.last_mut() {
                        let gap = if last.is_empty() { "" } else { " " };
                        *last = format!("{last}{gap}{}", token.text.to_uppercase());
                    }
                }
                _ => return Err(self.unexpected()),
            }
        }
        let on = if self.take("on") {
            Some(self.object()?)
        } else {
            None
        };
        self.next()?;
        let mut to = vec![self.word()?];
        while self.take_symbol(',') {
            to.push(self.word()?);
        }
        self.take("with grant option");
        self.take("cascade");
        Ok(Some(Definition::Grant {
            grants,
            permissions,
            on,
            to,
        }))
    }

    fn columns(&mut self) -> Parsed<Table> {
        let (mut columns, mut keys) = (Vec::new(), Vec::new());
        self.want_kind(TokenKind::Open)?;
        while !self.take_kind(TokenKind::Close) {
            let constraint = if self.take("constraint") {
                Some(self.word()?)
            } else {
                None
            };
            let is_key = self.take("primary key") || self.take("unique");
            if is_key {
                let _ = self.take("clustered") || self.take("nonclustered");
                let name = constraint.unwrap_or_else(|| format!("UQ_{}", keys.len()));
                keys.push((name, self.name_list()?));
            } else {
                columns.push(self.column(&mut keys)?);
            }
            self.take_symbol(',');
        }
        Ok((columns, keys))
    }

    fn column(&mut self, keys: &mut Vec<(String, Vec<String>)>) -> Parsed<ColumnDefinition> {
        let name = self.word()?;
        let kind = self.kind()?;
        let mut column = ColumnDefinition {
            name: name.clone(),
            kind,
            required: false,
            identity: false,
            default: None,
            above: None,
        };
        let mut constraint = None;
        loop {
            if self.take("not null") {
                column.required = true;
            } else if self.take("null") || self.take("clustered") || self.take("nonclustered") {
            } else if self.take("primary key") {
                column.required = true;
                let key = constraint.take().unwrap_or_else(|| format!("PK_{}", keys.len()));
                keys.push((key, vec![name.to_lowercase()]));
            } else if self.take("unique") {
                let key = constraint.take().unwrap_or_else(|| format!("UQ_{}", keys.len()));
                keys.push((key, vec![name.to_lowercase()]));
            } else if self.take("identity") {
                column.identity = true;
                if self.is_kind(TokenKind::Open) {
                    self.skip_enclosed()?;
                }
            } else if self.take("default") {
                column.default = Some(self.primary()?);
            } else if self.take("check") {
                // Of this one form, and of a column with a name for it: CONSTRAINT c CHECK (column > number).
                self.want_kind(TokenKind::Open)?;
                self.word()?;
                self.want_symbol('>')?;
                let bound = self.next()?.text.parse().map_err(|_| self.unexpected())?;
                self.want_kind(TokenKind::Close)?;
                column.above = Some((constraint.take().unwrap_or_default(), bound));
            } else if self.take("references") {
                self.name()?;
                if self.is_kind(TokenKind::Open) {
                    self.skip_enclosed()?;
                }
            } else if self.take("constraint") {
                constraint = Some(self.word()?);
            } else if self.take("collate") {
                self.word()?;
            } else {
                return Ok(column);
            }
        }
    }

    fn procedure(&mut self, replaces: bool) -> Parsed<Definition> {
        if !self.take("procedure") {
            self.want("proc")?;
        }
        let name = self.name()?;
        let enclosed = self.take_kind(TokenKind::Open);
        let parameters = self.parameter_list()?;
        if enclosed {
            self.want_kind(TokenKind::Close)?;
        }
        self.want("as")?;
        let body = self.statements(&[])?;
        Ok(Definition::CreateProcedure {
            name,
            parameters,
            body,
            replaces,
        })
    }
}

fn find(options: &[(String, String)], name: &str) -> Option<String> {
    let found = options.iter().find(|(known, _)| known == name);
    found.map(|(_, value)| value.clone())
}
