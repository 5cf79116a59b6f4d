//! Runs statements.

use std::time::Duration;

use gatepost::wire::tds::event::{DoneKind, DoneStatus};
use tokio::time::Instant;

use super::evaluate::{Evaluator, NOWHERE};
use super::fault::{Fault, Stop};
use super::model::Model;
use super::out;
use super::parse;
use super::query;
use super::session::Session;
use super::syntax::{Expr, Select, Spoken, Statement};
use super::value::Value;

/// Procedures and dynamic statements within one another, as SQL Server has it.
const DEPTH_MAX: usize = 32;
/// How long a wait sleeps before it looks around.
const GLANCE: Duration = Duration::from_millis(500);

impl Session {
    pub(crate) fn done_kind(&self) -> DoneKind {
        if self.in_procedure {
            DoneKind::InProcedure
        } else {
            DoneKind::Batch
        }
    }

    /// A statement ends, with or without a count of rows.
    pub(crate) fn done(&mut self, command: u16, rows: Option<u64>) {
        if let Some(rows) = rows {
            self.row_count = i64::try_from(rows).unwrap_or_default();
        }
        let counts = rows.filter(|_| !self.settings.no_count || command == out::SELECT);
        let status = if counts.is_some() {
            DoneStatus::COUNT
        } else {
            DoneStatus::FINAL
        };
        self.out
            .done(self.done_kind(), status, command, counts.unwrap_or_default());
    }

    /// A whole batch; errors are told as they come.
    pub(crate) fn batch(&mut self, text: &str) -> Result<(), Stop> {
        match parse::batch(text) {
            Ok(statements) => self.all(&statements),
            Err(fault) => {
                self.tell(&fault);
                Err(Stop::Aborted)
            }
        }
    }

    /// Text within a statement: EXEC ('…'), `sp_executesql`. Variables of its own are set by the caller.
    pub(crate) fn nested(&mut self, statements: &[Spoken]) -> Result<(), Stop> {
        if self.depth >= DEPTH_MAX {
            let text =
                "Maximum stored procedure, function, trigger, or view nesting level exceeded (limit 32).";
            return Err(Fault::new(217, 16, text).aborting().into());
        }
        self.depth += 1;
        let was = std::mem::replace(&mut self.in_procedure, true);
        let ran = self.all(statements);
        self.in_procedure = was;
        self.depth -= 1;
        ran
    }

    pub(crate) fn all(&mut self, statements: &[Spoken]) -> Result<(), Stop> {
        for statement in statements {
            self.one(statement)?;
        }
        Ok(())
    }

    pub(crate) fn tell(&mut self, fault: &Fault) {
        self.error = fault.number;
        self.out.fault(fault);
        self.out.done(self.done_kind(), DoneStatus::ERROR, 0, 0);
    }

    fn one(&mut self, spoken: &Spoken) -> Result<(), Stop> {
        self.stop_if_cancelled()?;
        if !self.out.flush() {
            return Err(Stop::Cancelled);
        }
        let structure = matches!(
            spoken.what,
            Statement::If { .. }
                | Statement::While { .. }
                | Statement::Block(_)
                | Statement::Try { .. }
                | Statement::Execute { .. }
                | Statement::ExecuteText(_)
        );
        if structure {
            let ran = self.structure(&spoken.what);
            return match ran {
                // What is not a statement of its own fails like one.
                Err(Stop::Fault(fault)) => self.failed(fault),
                other => other,
            };
        }
        let ends_own = matches!(
            spoken.what,
            Statement::Begin | Statement::Commit | Statement::Rollback(_) | Statement::Save(_)
        );
        if !ends_own {
            self.enter_statement(spoken.what.touches_data());
        }
        let mark = self.mark();
        let ran = self.plain(&spoken.what);
        if !ends_own {
            // Logins come with secrets in their text.
            if ran.is_ok() && spoken.what.touches_data() {
                self.note(&spoken.text);
            }
            self.leave_statement(mark, ran.is_err());
        }
        match ran {
            Ok(()) => {
                if !matches!(spoken.what, Statement::RaiseError(_)) {
                    self.error = 0;
                }
                Ok(())
            }
            Err(Stop::Fault(fault)) => self.failed(fault),
            Err(stop) => Err(stop),
        }
    }

    /// What an error does to the statements behind it.
    fn failed(&mut self, fault: Fault) -> Result<(), Stop> {
        let abort = self.settings.xact_abort && fault.number != 50_000;
        if self.tries > 0 {
            self.doomed |= self.count > 0 && (abort || fault.number == 245);
            return Err(Stop::Fault(fault));
        }
        self.tell(&fault);
        if abort && self.count > 0 {
            self.roll_all_back(true);
        }
        if abort || fault.aborts {
            Err(Stop::Aborted)
        } else {
            Ok(())
        }
    }

    fn structure(&mut self, statement: &Statement) -> Result<(), Stop> {
        match statement {
            Statement::If {
                condition,
                then,
                otherwise,
            } => {
                if self.truth(condition)? {
                    self.one(then)
                } else if let Some(otherwise) = otherwise {
                    self.one(otherwise)
                } else {
                    Ok(())
                }
            }
            Statement::While { condition, body } => {
                while self.truth(condition)? {
                    self.one(body)?;
                }
                Ok(())
            }
            Statement::Block(body) => self.all(body),
            Statement::Try { body, handler } => {
                self.tries += 1;
                let ran = self.all(body);
                self.tries -= 1;
                match ran {
                    Err(Stop::Fault(fault)) => {
                        self.error = fault.number;
                        self.caught.push(fault);
                        let handled = self.all(handler);
                        self.caught.pop();
                        handled
                    }
                    other => other,
                }
            }
            Statement::Execute {
                result,
                name,
                arguments,
            } => self.execute(result.as_deref(), name, arguments),
            Statement::ExecuteText(text) => {
                let text = self.value(text)?.shown();
                let statements = parse::batch(&text)?;
                self.scopes.push(super::session::Variables::new());
                let ran = self.nested(&statements);
                self.scopes.pop();
                match ran {
                    Err(Stop::Return(_)) => Ok(()),
                    other => other,
                }
            }
            _ => Ok(()),
        }
    }

    fn plain(&mut self, statement: &Statement) -> Result<(), Stop> {
        match statement {
            Statement::Select(select) => self.select(select),
            Statement::Insert { .. } | Statement::Update { .. } | Statement::Delete { .. } => {
                self.write(statement)
            }
            Statement::InsertBulk { table, columns } => {
                self.bulk = Some((table.clone(), columns.clone()));
                self.done(0, None);
                Ok(())
            }
            Statement::Declare(all) => {
                for (name, kind, value) in all {
                    let value = value.as_ref().map(|value| self.value(value)).transpose()?;
                    let value = value.unwrap_or(Value::Null).cast(*kind)?;
                    if let Some(scope) = self.scopes.last_mut() {
                        scope.insert(name.clone(), (*kind, value));
                    }
                }
                Ok(())
            }
            Statement::SetVariable(name, value) => {
                let value = self.value(value)?;
                self.assign(name, &value)?;
                self.done(0, None);
                Ok(())
            }
            Statement::Begin => {
                self.begin();
                self.done(0xd4, None);
                Ok(())
            }
            Statement::Commit => {
                self.commit()?;
                self.done(0xd5, None);
                Ok(())
            }
            Statement::Rollback(name) => {
                self.rollback(name.as_deref())?;
                self.done(0xd2, None);
                Ok(())
            }
            Statement::Save(name) => {
                self.save(name)?;
                self.done(0, None);
                Ok(())
            }
            Statement::WaitFor(delay) => {
                let delay = self.value(delay)?.shown();
                let delay = duration(&delay)
                    .ok_or_else(|| Fault::new(148, 15, "Incorrect time syntax in time string."))?;
                self.sleep(delay)?;
                self.done(0, None);
                Ok(())
            }
            other => self.small(other),
        }
    }

    fn small(&mut self, statement: &Statement) -> Result<(), Stop> {
        match statement {
            Statement::SetOption(words) => self.set_option(words)?,
            Statement::ContextInfo(value) => {
                let value = self.value(value)?;
                self.context_info = match value {
                    Value::Bytes(bytes) => bytes,
                    other => other.shown().into_bytes(),
                };
            }
            Statement::Return(value) => {
                let value = value.as_ref().map(|value| self.value(value)).transpose()?;
                let status = value.and_then(|value| value.as_int()).unwrap_or_default();
                return Err(Stop::Return(i32::try_from(status).unwrap_or_default()));
            }
            Statement::Use(name) => self.change_database(name)?,
            Statement::Print(text) => {
                let text = self.value(text)?.shown();
                self.out.info(0, &text);
            }
            Statement::RaiseError(arguments) => self.raise(arguments)?,
            Statement::Throw(arguments) => return Err(self.throw(arguments)?.into()),
            Statement::Kill(spid) => {
                let spid = self.value(spid)?.as_int().unwrap_or_default();
                self.kill(spid)?;
            }
            Statement::Define(definition) => self.define(definition)?,
            _ => {}
        }
        self.done(0, None);
        Ok(())
    }

    fn raise(&mut self, arguments: &[Expr]) -> Result<(), Fault> {
        let values = arguments.iter().map(|argument| self.value(argument));
        let values = values.collect::<Result<Vec<_>, _>>()?;
        let mut text = values.first().map(Value::shown).unwrap_or_default();
        for value in values.iter().skip(3) {
            let place = ["%s", "%d", "%i"].iter().filter_map(|mark| text.find(mark)).min();
            if let Some(place) = place {
                text.replace_range(place..place + 2, &value.shown());
            }
        }
        let number = |place: usize| values.get(place).and_then(Value::as_int).unwrap_or_default();
        let class = u8::try_from(number(1)).unwrap_or(16);
        if class <= 10 {
            self.out.info(50_000, &text);
            return Ok(());
        }
        let fault = Fault::new(50_000, class, text);
        Err(Fault {
            state: u8::try_from(number(2)).unwrap_or(1),
            ..fault
        })
    }

    fn throw(&self, arguments: &[Expr]) -> Result<Fault, Fault> {
        if arguments.is_empty() {
            let caught = self.caught.last().cloned();
            return caught.map(Fault::aborting).ok_or_else(|| {
                Fault::new(
                    10704,
                    15,
                    "To rethrow an error, a THROW statement must be used inside a CATCH block.",
                )
            });
        }
        let values = arguments.iter().map(|argument| self.value(argument));
        let values = values.collect::<Result<Vec<_>, _>>()?;
        let number = values.first().and_then(Value::as_int).unwrap_or(50_000);
        let text = values.get(1).map(Value::shown).unwrap_or_default();
        Ok(Fault::new(i32::try_from(number).unwrap_or(50_000), 16, text).aborting())
    }

    fn kill(&mut self, spid: i64) -> Result<(), Fault> {
        if self.count > 0 {
            return Err(Fault::new(
                6115,
                16,
                "KILL command cannot be used inside user transactions.",
            ));
        }
        let mut model = self.shared.lock();
        let rights = ("ALTER ANY CONNECTION", "KILL DATABASE CONNECTION");
        if !model.may_of_sessions((&self.who.login, &self.user), &self.database, rights) {
            return Err(Fault::new(
                6102,
                14,
                "User does not have permission to use the KILL statement.",
            ));
        }
        let found = u16::try_from(spid)
            .ok()
            .and_then(|spid| model.sessions.get_mut(&spid));
        let Some(seen) = found else {
            return Err(Fault::new(
                6106,
                16,
                format!("Process ID {spid} is not an active process ID."),
            ));
        };
        seen.killed = true;
        seen.kill.notify_one();
        Ok(())
    }

    fn set_option(&mut self, words: &[String]) -> Result<(), Fault> {
        let last = words.last().map_or("", String::as_str);
        let on = last == "on";
        for word in words.iter().take(words.len().saturating_sub(1).max(1)) {
            match word.as_str() {
                "nocount" => self.settings.no_count = on,
                "xact_abort" => self.settings.xact_abort = on,
                "implicit_transactions" => self.settings.implicit = on,
                "ansi_defaults" => self.settings.implicit = on,
                "lock_timeout" => self.settings.lock_timeout = last.parse().unwrap_or(-1),
                "transaction" => self.settings.isolation = level(words)?,
                other => {
                    self.settings.others.insert(other.to_owned(), last.to_owned());
                }
            }
        }
        Ok(())
    }

    fn select(&mut self, select: &Select) -> Result<(), Stop> {
        let shared = std::sync::Arc::clone(&self.shared);
        let mut model = shared.lock();
        self.may_read(&model, select)?;
        let most = u64::try_from(self.settings.lock_timeout).ok();
        let until = most.map(|most| Instant::now() + Duration::from_millis(most));
        loop {
            let evaluator = Evaluator {
                session: self,
                model: &model,
            };
            if !query::is_locked(evaluator, select)? {
                break;
            }
            if until.is_some_and(|until| Instant::now() >= until) {
                return Err(Fault::new(1222, 16, "Lock request time out period exceeded.").into());
            }
            model = shared.wait(model, Duration::from_millis(50));
            self.stop_if_cancelled()?;
        }
        let evaluator = Evaluator {
            session: self,
            model: &model,
        };
        let mut answer = query::answer(evaluator, select, None)?;
        drop(model);
        if self
            .settings
            .others
            .get("fmtonly")
            .is_some_and(|value| value == "on")
        {
            answer.rows.clear();
        }
        let count = u64::try_from(answer.rows.len()).unwrap_or_default();
        if let Some(into) = &select.into {
            self.select_into(into, &answer)?;
            self.done(out::INSERT, Some(count));
            return Ok(());
        }
        if select.items.iter().any(|item| item.into.is_some()) {
            for row in answer.rows.iter().rev().take(1) {
                for (item, value) in select.items.iter().zip(row) {
                    if let Some(name) = &item.into {
                        self.assign(name, value)?;
                    }
                }
            }
        } else {
            self.out.answer(&answer);
        }
        self.done(out::SELECT, Some(count));
        Ok(())
    }

    /// Every table that is named, in queries within too.
    fn may_read(&self, model: &Model, select: &Select) -> Result<(), Fault> {
        for source in select.sources.iter().filter(|source| !source.name.is_temporary()) {
            let (database, key) = self.place(&source.name);
            if model
                .databases
                .get(&database)
                .is_some_and(|database| database.tables.contains_key(&key))
            {
                self.may(model, "SELECT", &(database, key))?;
            }
        }
        select
            .union
            .as_ref()
            .map_or(Ok(()), |union| self.may_read(model, union))
    }

    pub(crate) fn may(
        &self,
        model: &Model,
        permission: &str,
        place: &super::session::TablePlace,
    ) -> Result<(), Fault> {
        let (database, key) = place;
        let is_sysadmin = model.is_server_member(&self.who.login, "sysadmin");
        let there = model.databases.get(database);
        let user = there.and_then(|there| there.user_of(is_sysadmin, &self.who.login));
        let may = |user: &String| there.is_some_and(|there| there.may(user, permission, "object", key));
        if user.as_ref().is_some_and(may) {
            return Ok(());
        }
        let (schema, object) = key.split_once('.').unwrap_or(("dbo", key));
        Err(Fault::forbidden(format!(
            "The {permission} permission was denied on the object '{object}', database '{database}', schema '{schema}'."
        )))
    }

    pub(crate) fn value(&self, expression: &Expr) -> Result<Value, Fault> {
        let model = self.shared.lock();
        let evaluator = Evaluator {
            session: self,
            model: &model,
        };
        evaluator.value(expression, &NOWHERE)
    }

    fn truth(&self, condition: &Expr) -> Result<bool, Fault> {
        let model = self.shared.lock();
        let evaluator = Evaluator {
            session: self,
            model: &model,
        };
        Ok(evaluator.truth(condition, &NOWHERE)? == Some(true))
    }

    /// Ends early when the client sends an attention.
    pub(crate) fn sleep(&self, time: Duration) -> Result<(), Stop> {
        let until = Instant::now() + time;
        let mut guard = self.shared.lock();
        loop {
            self.stop_if_cancelled()?;
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Ok(());
            }
            guard = self.shared.wait(guard, left.min(GLANCE));
        }
    }
}

impl Statement {
    /// Belongs into the record of a transaction, and begins an implicit one.
    const fn touches_data(&self) -> bool {
        match self {
            Self::Select(select) => !select.sources.is_empty(),
            Self::Insert { .. } | Self::Update { .. } | Self::Delete { .. } => true,
            Self::Define(definition) => !definition.has_secret(),
            _ => false,
        }
    }
}

fn level(words: &[String]) -> Result<i32, Fault> {
    Ok(match words.get(1..).unwrap_or_default().join(" ").as_str() {
        "read uncommitted" => 1,
        "read committed" => 2,
        "repeatable read" => 3,
        "serializable" => 4,
        "snapshot" => 5,
        other => return Err(Fault::syntax(other)),
    })
}

/// `hh:mm:ss.mmm`.
fn duration(text: &str) -> Option<Duration> {
    let mut seconds = 0.0;
    for part in text.trim().split(':') {
        seconds = seconds * 60.0 + part.parse::<f64>().ok()?;
    }
    Duration::try_from_secs_f64(seconds).ok()
}
