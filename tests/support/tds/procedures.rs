//! Procedures: those of the system that somebody calls, and users' own.

use std::sync::Arc;

use gatepost::wire::tds::event::{DoneKind, DoneStatus};
use gatepost::wire::tds::reply::{self, Column, ColumnKind};

use super::fault::{Fault, Stop};
use super::out;
use super::parse;
use super::session::{Session, Variables};
use super::syntax::{Argument, Expr, Name};
use super::value::Value;
use super::wire::{Called, RemoteCall};

/// An argument with its value.
#[derive(Clone, Debug)]
pub(crate) struct Given {
    pub(crate) name: Option<String>,
    pub(crate) value: Value,
    pub(crate) kind: ColumnKind,
    pub(crate) is_output: bool,
}

/// What a procedure gives back: its status, and its outputs by the places of their arguments.
type Returned = (i32, Vec<(usize, ColumnKind, Value)>);

/// By this name an argument is found, else by its place.
fn find<'a>(given: &'a [Given], name: &str, place: usize) -> Option<&'a Given> {
    let named = given.iter().find(|one| one.name.as_deref() == Some(name));
    named.or_else(|| given.get(place).filter(|one| one.name.is_none()))
}

impl Session {
    /// EXEC in a batch.
    pub(crate) fn execute(
        &mut self,
        result: Option<&str>,
        name: &Name,
        arguments: &[Argument],
    ) -> Result<(), Stop> {
        let mut given = Vec::new();
        for argument in arguments {
            let value = self.value(&argument.value)?;
            given.push(Given {
                name: argument.name.clone(),
                kind: value.kind().unwrap_or(ColumnKind::NVarChar(4000)),
                value,
                is_output: argument.is_output,
            });
        }
        let (status, outputs) = self.call(name, &given)?;
        for (place, _, value) in outputs {
            let variable = arguments.get(place).filter(|argument| argument.is_output);
            if let Some(Expr::Variable(variable)) = variable.map(|argument| &argument.value) {
                self.assign(variable, &value)?;
            }
        }
        if let Some(result) = result {
            self.assign(result, &Value::Int(status))?;
        }
        // The client is told of it only by an RPC.
        self.done(0, None);
        Ok(())
    }

    pub(crate) fn call(&mut self, name: &Name, given: &[Given]) -> Result<Returned, Stop> {
        match name.object.as_str() {
            "sp_set_session_context" => self.set_context(given).map(|()| nothing()),
            "sp_getapplock" => Ok((self.take_lock(given), vec![])),
            "sp_releaseapplock" => Ok((self.release_lock(given)?, vec![])),
            "sp_executesql" => self.execute_text(given),
            "sp_prepare" | "sp_prepexec" => self.prepare(given, name.object == "sp_prepexec"),
            "sp_execute" => self.run_prepared(given),
            "sp_unprepare" => self.unprepare(given).map(|()| nothing()),
            "sp_reset_connection" => {
                self.reset(false);
                Ok(nothing())
            }
            "scripted_rows" => self.rows(given).map(|()| nothing()),
            _ => self.call_own(name, given),
        }
    }

    fn set_context(&mut self, given: &[Given]) -> Result<(), Stop> {
        let shown = |name, place| find(given, name, place).map(|one| one.value.shown());
        let key = shown("@key", 0).unwrap_or_default();
        let value = find(given, "@value", 1).map_or(Value::Null, |one| one.value.clone());
        let read_only = find(given, "@read_only", 2).and_then(|one| one.value.as_int()) == Some(1);
        if self.context.get(&key).is_some_and(|(_, read_only)| *read_only) {
            let text = format!(
                "Cannot set key '{key}' in the session context. The key has been set as read_only for this session."
            );
            return Err(Fault::new(15664, 16, text).into());
        }
        if value.is_null() && !read_only {
            self.context.remove(&key);
        } else {
            self.context.insert(key, (value, read_only));
        }
        Ok(())
    }

    fn lock_of(&self, given: &[Given]) -> (String, String) {
        let resource = find(given, "@resource", 0).map(|one| one.value.shown());
        (
            self.database.to_lowercase(),
            resource.unwrap_or_default().to_lowercase(),
        )
    }

    /// At once or not at all.
    fn take_lock(&self, given: &[Given]) -> i32 {
        let lock = self.lock_of(given);
        let holder = *self.shared.lock().locks.entry(lock).or_insert(self.who.spid);
        if holder == self.who.spid { 0 } else { -1 }
    }

    fn release_lock(&self, given: &[Given]) -> Result<i32, Stop> {
        let lock = self.lock_of(given);
        let mut model = self.shared.lock();
        if model.locks.get(&lock) != Some(&self.who.spid) {
            let text = "Cannot release the application lock because it is not currently held.";
            return Err(Fault::new(1223, 16, text).into());
        }
        model.locks.remove(&lock);
        Ok(0)
    }

    fn execute_text(&mut self, given: &[Given]) -> Result<Returned, Stop> {
        let text = given.first().map(|one| one.value.shown()).unwrap_or_default();
        let declared = given.get(1).map(|one| one.value.shown()).unwrap_or_default();
        self.run_text(&text, &declared, given, 2)
    }

    /// Statements with parameters, whose values stand from `skip` on.
    fn run_text(
        &mut self,
        text: &str,
        declared: &str,
        given: &[Given],
        skip: usize,
    ) -> Result<Returned, Stop> {
        let parameters = parse::parameters(declared)?;
        let statements = parse::batch(text)?;
        let values = given.get(skip..).unwrap_or_default();
        self.with_parameters(&parameters, values, skip, |session| session.nested(&statements))
    }

    fn with_parameters(
        &mut self,
        parameters: &[super::syntax::Parameter],
        values: &[Given],
        skip: usize,
        run: impl FnOnce(&mut Self) -> Result<(), Stop>,
    ) -> Result<Returned, Stop> {
        let mut scope = Variables::new();
        let mut outputs = Vec::new();
        for (place, parameter) in parameters.iter().enumerate() {
            let by_name = |one: &Given| one.name.as_deref() == Some(parameter.name.as_str());
            let at = values.iter().position(by_name);
            let at = at.or_else(|| values.get(place).filter(|one| one.name.is_none()).map(|_| place));
            let value = match (at.and_then(|at| values.get(at)), &parameter.default) {
                (Some(given), _) => given.value.clone(),
                (None, Some(default)) => self.value(default)?,
                (None, None) if parameter.is_output => Value::Null,
                (None, None) => {
                    let text = format!(
                        "The parameterized query expects the parameter '{}', which was not supplied.",
                        parameter.name
                    );
                    return Err(Fault::new(8178, 16, text).aborting().into());
                }
            };
            scope.insert(
                parameter.name.clone(),
                (parameter.kind, value.cast(parameter.kind)?),
            );
            if let Some(at) = at.filter(|_| parameter.is_output) {
                outputs.push((at + skip, parameter.kind, parameter.name.clone()));
            }
        }
        self.scopes.push(scope);
        let ran = run(self);
        let scope = self.scopes.pop().unwrap_or_default();
        let status = match ran {
            Ok(()) => 0,
            Err(Stop::Return(status)) => status,
            Err(stop) => return Err(stop),
        };
        let value = |name: &String| scope.get(name).map_or(Value::Null, |(_, value)| value.clone());
        let outputs = outputs.iter().map(|(at, kind, name)| (*at, *kind, value(name)));
        Ok((status, outputs.collect()))
    }

    fn prepare(&mut self, given: &[Given], runs: bool) -> Result<Returned, Stop> {
        let declared = given.get(1).map(|one| one.value.shown()).unwrap_or_default();
        let text = given.get(2).map(|one| one.value.shown()).unwrap_or_default();
        parse::batch(&text)?;
        if runs && let Some(old) = given.first().and_then(|one| one.value.as_int()) {
            self.prepared.remove(&i32::try_from(old).unwrap_or_default());
        }
        self.next_handle += 1;
        let handle = self.next_handle;
        self.prepared.insert(handle, (declared.clone(), text.clone()));
        let handle = (0, ColumnKind::Int, Value::Int(handle));
        if !runs {
            return Ok((0, vec![handle]));
        }
        let (status, outputs) = self.run_text(&text, &declared, given, 3)?;
        Ok((status, [vec![handle], outputs].concat()))
    }

    fn prepared_of(&self, given: &[Given]) -> Result<(i32, (String, String)), Fault> {
        let handle = given
            .first()
            .and_then(|one| one.value.as_int())
            .unwrap_or_default();
        let handle = i32::try_from(handle).unwrap_or_default();
        let found = self.prepared.get(&handle).cloned();
        let text = || format!("Could not find prepared statement with handle {handle}.");
        let found = found.ok_or_else(|| Fault::new(8179, 16, text()))?;
        Ok((handle, found))
    }

    fn run_prepared(&mut self, given: &[Given]) -> Result<Returned, Stop> {
        let (_, (declared, text)) = self.prepared_of(given)?;
        self.run_text(&text, &declared, given, 1)
    }

    fn unprepare(&mut self, given: &[Given]) -> Result<(), Stop> {
        let (handle, _) = self.prepared_of(given)?;
        self.prepared.remove(&handle);
        Ok(())
    }

    /// `scripted_rows @rows, @bytes`: a result of any size, made as it is sent.
    fn rows(&mut self, given: &[Given]) -> Result<(), Stop> {
        let number = |place: usize| given.get(place).and_then(|one| one.value.as_int());
        let (rows, bytes) = (number(0).unwrap_or(1), number(1).unwrap_or(8));
        let text = Value::Text("x".repeat(usize::try_from(bytes / 2).unwrap_or_default()));
        let columns = [
            Column {
                name: "id",
                kind: ColumnKind::BigInt,
            },
            Column {
                name: "text",
                kind: text.kind().unwrap_or(ColumnKind::NVarChar(4000)),
            },
        ];
        self.out.columns(&columns);
        for row in 0..rows {
            self.stop_if_cancelled()?;
            self.out.row(&columns, &[Value::BigInt(row), text.clone()]);
            if !self.out.flush() {
                return Err(Stop::Cancelled);
            }
        }
        self.done(out::SELECT, Some(u64::try_from(rows).unwrap_or_default()));
        Ok(())
    }

    fn call_own(&mut self, name: &Name, given: &[Given]) -> Result<Returned, Stop> {
        let place = self.place(name);
        let model = self.shared.lock();
        let found = model
            .databases
            .get(&place.0)
            .and_then(|database| database.procedures.get(&place.1))
            .cloned();
        let Some(procedure) = found else {
            let text = format!("Could not find stored procedure '{}'.", name.shown);
            return Err(Fault::new(2812, 16, text).into());
        };
        self.may(&model, "EXECUTE", &place)?;
        drop(model);
        let body = Arc::clone(&procedure.body);
        self.with_parameters(&procedure.parameters, given, 0, |session| session.nested(&body))
    }

    /// One call of an RPC request.
    pub(crate) fn remote(&mut self, called: &RemoteCall, is_last: bool) -> Result<(), Stop> {
        let name = match &called.procedure {
            Called::Number(number) => match number {
                10 => "sp_executesql",
                11 => "sp_prepare",
                12 => "sp_execute",
                13 => "sp_prepexec",
                15 => "sp_unprepare",
                _ => "sp_cursor",
            }
            .to_owned(),
            Called::Name(name) => name.clone(),
        };
        let name = name_of(&name);
        let given = called.arguments.iter().map(|argument| Given {
            name: Some(argument.name.to_lowercase()).filter(|name| !name.is_empty()),
            value: argument.value.clone(),
            kind: argument.kind,
            is_output: argument.is_output,
        });
        let mut given: Vec<Given> = given.collect();
        // The system's own parameters go by place, whatever they are called.
        let by_place = match name.object.as_str() {
            "sp_executesql" => 2,
            "sp_prepare" | "sp_prepexec" => 3,
            "sp_execute" | "sp_unprepare" => 1,
            _ => 0,
        };
        for one in given.iter_mut().take(by_place) {
            one.name = None;
        }
        let was = std::mem::replace(&mut self.in_procedure, true);
        let returned = self.call(&name, &given);
        self.in_procedure = was;
        let (status, outputs) = match returned {
            Ok(returned) => returned,
            Err(Stop::Fault(fault)) => {
                self.error = fault.number;
                self.out.fault(&fault);
                if self.settings.xact_abort && self.count > 0 {
                    self.roll_all_back(true);
                }
                self.out.done(DoneKind::Procedure, DoneStatus::ERROR, 0, 0);
                return if is_last { Ok(()) } else { Err(Stop::Aborted) };
            }
            Err(Stop::Aborted) => {
                self.out.done(DoneKind::Procedure, DoneStatus::ERROR, 0, 0);
                return Err(Stop::Aborted);
            }
            Err(stop) => return Err(stop),
        };
        self.out.put(|bytes| reply::put_return_status(bytes, status));
        for (place, kind, value) in outputs {
            let Some(argument) = called.arguments.get(place).filter(|argument| argument.is_output) else {
                continue;
            };
            let ordinal = u16::try_from(place).unwrap_or_default();
            self.out.return_value(ordinal, &argument.name, kind, &value);
        }
        self.out.done(DoneKind::Procedure, DoneStatus::FINAL, 0, 0);
        Ok(())
    }
}

const fn nothing() -> Returned {
    (0, Vec::new())
}

/// A name as a client wrote it, with brackets and parts.
fn name_of(text: &str) -> Name {
    let mut parts = text
        .rsplit('.')
        .map(|part| part.trim_matches(['[', ']', '"', ' ']).to_lowercase());
    Name {
        object: parts.next().unwrap_or_default(),
        schema: parts.next(),
        database: parts.next(),
        shown: text.to_owned(),
    }
}
