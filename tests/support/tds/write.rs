//! INSERT, UPDATE, DELETE, SELECT INTO. Who meets a row of an open transaction waits for its end.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::evaluate::{Evaluator, Frame};
use super::fault::{Fault, Stop};
use super::model::Model;
use super::out;
use super::query::{self, Answer, Loaded, Relation};
use super::session::{Session, TablePlace, table_mut};
use super::store::{Blocked, Change, Table};
use super::syntax::{ColumnDefinition, Expr, Item, Name, Rows, Statement};
use super::value::Value;

/// Two that wait for one another are told apart by this: one of them is the victim of a deadlock.
const DEADLOCK_TIME: Duration = Duration::from_secs(5);
const GLANCE: Duration = Duration::from_millis(200);

/// The number of a row, what it is, what it becomes.
type Planned = (u64, Vec<Value>, Vec<Value>);

enum Tried {
    Done(Vec<Vec<Value>>, u64),
    Wait,
}

impl Session {
    pub(crate) fn write(&mut self, statement: &Statement) -> Result<(), Stop> {
        let began = Instant::now();
        let timeout = u64::try_from(self.settings.lock_timeout)
            .ok()
            .map(Duration::from_millis);
        loop {
            let shared = Arc::clone(&self.shared);
            let mut model = shared.lock();
            let mark = self.mark();
            let tried = match statement {
                Statement::Insert {
                    table,
                    columns,
                    rows,
                    output,
                } => self.insert(&mut model, table, columns, rows, output)?,
                Statement::Update {
                    table,
                    sets,
                    filter,
                    output,
                } => self.change(&mut model, table, Some(sets), (filter.as_ref(), None), output)?,
                Statement::Delete {
                    top,
                    table,
                    filter,
                    output,
                } => self.change(&mut model, table, None, (filter.as_ref(), top.as_ref()), output)?,
                _ => return Ok(()),
            };
            match tried {
                Tried::Done(rows, count) => {
                    drop(model);
                    self.wrote(statement, rows, count);
                    return Ok(());
                }
                Tried::Wait => {
                    drop(model);
                    // A transaction of its own begins again with the statement.
                    self.take_back(mark);
                    if timeout.is_some_and(|timeout| began.elapsed() >= timeout) {
                        return Err(Fault::new(1222, 16, "Lock request time out period exceeded.").into());
                    }
                    if self.count > 0 && began.elapsed() > DEADLOCK_TIME {
                        self.roll_all_back(true);
                        let text = format!(
                            "Transaction (Process ID {}) was deadlocked on lock resources with another process and has \
                             been chosen as the deadlock victim. Rerun the transaction.",
                            self.who.spid
                        );
                        return Err(Fault::new(1205, 13, text).aborting().into());
                    }
                    self.stop_if_cancelled()?;
                    let guard = shared.lock();
                    drop(shared.wait(guard, timeout.unwrap_or(GLANCE).min(GLANCE)));
                }
            }
        }
    }

    fn wrote(&mut self, statement: &Statement, rows: Vec<Vec<Value>>, count: u64) {
        let (command, output) = match statement {
            Statement::Insert { output, .. } => (out::INSERT, output),
            Statement::Update { output, .. } => (out::UPDATE, output),
            Statement::Delete { output, .. } => (out::DELETE, output),
            _ => return,
        };
        if !output.is_empty() {
            let first = |place: usize| rows.iter().find_map(|row| row.get(place)?.kind());
            let name = |item: &Item| match (&item.alias, &item.what) {
                (Some(name), _) | (None, Expr::Column { name, .. }) => name.clone(),
                (None, _) => String::new(),
            };
            let kind = |place| first(place).unwrap_or(gatepost::wire::tds::reply::ColumnKind::Int);
            self.out.answer(&Answer {
                names: output.iter().map(name).collect(),
                kinds: (0..output.len()).map(kind).collect(),
                rows,
            });
        }
        self.done(command, Some(count));
    }

    fn insert(
        &mut self,
        model: &mut Model,
        table: &Name,
        columns: &[String],
        rows: &Rows,
        output: &[Item],
    ) -> Result<Tried, Fault> {
        let place = self.place(table);
        let given = self.given(model, rows)?;
        if table_mut(model, &place).is_none() {
            return Err(Fault::no_object(&table.shown));
        }
        if !table.is_temporary() {
            self.may(model, "INSERT", &place)?;
        }
        let mut returned = Vec::new();
        let mut count = 0;
        for row in given {
            let (row, identity) = self.completed(model, &place, columns, row)?;
            let after = row.clone();
            match self.put(model, &place, |table, id| table.insert(row, id))? {
                None => return Ok(Tried::Wait),
                Some(()) => count += 1,
            }
            if let Some(identity) = identity {
                self.identity = identity;
            }
            if !output.is_empty() {
                returned.push(self.returned(model, &place, output, None, Some(after))?);
            }
        }
        Ok(Tried::Done(returned, count))
    }

    fn given(&self, model: &Model, rows: &Rows) -> Result<Vec<Vec<Value>>, Fault> {
        let evaluator = Evaluator { session: self, model };
        match rows {
            Rows::Defaults => Ok(vec![vec![]]),
            Rows::Select(select) => Ok(query::answer(evaluator, select, None)?.rows),
            Rows::Values(rows) => {
                let row = |row: &Vec<Expr>| {
                    let values = row.iter();
                    let values = values.map(|value| evaluator.value(value, &super::evaluate::NOWHERE));
                    values.collect::<Result<Vec<_>, _>>()
                };
                rows.iter().map(row).collect()
            }
        }
    }

    /// A row with its defaults and its identity, which is told.
    pub(crate) fn completed(
        &self,
        model: &mut Model,
        place: &TablePlace,
        names: &[String],
        row: Vec<Value>,
    ) -> Result<(Vec<Value>, Option<Value>), Fault> {
        let evaluator = Evaluator { session: self, model };
        let Some(table) = model
            .databases
            .get(&place.0)
            .and_then(|database| database.tables.get(&place.1))
        else {
            return Err(Fault::no_object(&place.1));
        };
        let unnamed = table.columns.iter().filter(|column| !column.identity);
        let names: Vec<String> = if names.is_empty() {
            unnamed.map(|column| column.name.clone()).collect()
        } else {
            names.to_vec()
        };
        if let Some(unknown) = names.iter().find(|name| table.column(name).is_none()) {
            return Err(Fault::no_column(unknown));
        }
        if names.len() != row.len() && !row.is_empty() {
            return Err(Fault::new(
                213,
                16,
                "Column name or number of supplied values does not match table definition.",
            ));
        }
        let mut values = Vec::new();
        let mut identity_at = None;
        for (at, column) in table.columns.iter().enumerate() {
            let given = names
                .iter()
                .position(|name| name.eq_ignore_ascii_case(&column.name));
            let value = match (given.and_then(|given| row.get(given)), &column.default) {
                (Some(value), _) => value.clone(),
                (None, _) if column.identity => {
                    identity_at = Some((at, column.kind));
                    Value::Null
                }
                (None, Some(default)) => evaluator.value(default, &super::evaluate::NOWHERE)?,
                (None, None) => Value::Null,
            };
            values.push(fitting(
                column,
                value,
                identity_at.is_some_and(|(place, _)| place == at),
            )?);
        }
        let Some((at, kind)) = identity_at else {
            return Ok((values, None));
        };
        let identity = table_mut(model, place).map(Table::identity).unwrap_or_default();
        let identity = Value::integer(identity).cast(kind)?;
        if let Some(slot) = values.get_mut(at) {
            slot.clone_from(&identity);
        }
        Ok((values, Some(identity)))
    }

    /// One change of one row; `None`: another transaction has it.
    pub(crate) fn put(
        &mut self,
        model: &mut Model,
        place: &TablePlace,
        change: impl FnOnce(&mut Table, i64) -> Result<Change, Blocked>,
    ) -> Result<Option<()>, Fault> {
        let id = self.transaction_id();
        let Some(table) = table_mut(model, place) else {
            return Err(Fault::no_object(&place.1));
        };
        match change(table, id) {
            Ok(change) => {
                self.writes().changed_row(place, change);
                Ok(Some(()))
            }
            Err(Blocked::Wait) => Ok(None),
            Err(Blocked::Fault(fault)) => Err(fault),
        }
    }

    /// UPDATE, or DELETE if there is nothing to set.
    fn change(
        &mut self,
        model: &mut Model,
        name: &Name,
        sets: Option<&Vec<(String, Expr)>>,
        (filter, top): (Option<&Expr>, Option<&Expr>),
        output: &[Item],
    ) -> Result<Tried, Fault> {
        let place = self.place(name);
        if table_mut(model, &place).is_none() {
            return Err(Fault::no_object(&name.shown));
        }
        if !name.is_temporary() {
            let permission = if sets.is_some() { "UPDATE" } else { "DELETE" };
            self.may(model, permission, &place)?;
        }
        let mut changes = self.planned(model, name, &place, sets.map_or(&[][..], Vec::as_slice), filter)?;
        if let Some(top) = top {
            let top = Evaluator { session: self, model }.value(top, &super::evaluate::NOWHERE)?;
            changes.truncate(
                top.as_int()
                    .and_then(|top| usize::try_from(top).ok())
                    .unwrap_or_default(),
            );
        }
        let (mut returned, mut count) = (Vec::new(), 0);
        for (id, before, after) in changes {
            let after = sets.is_some().then_some(after);
            let values = after.clone();
            match self.put(model, &place, |table, transaction| {
                table.change(id, values, transaction)
            })? {
                None => return Ok(Tried::Wait),
                Some(()) => count += 1,
            }
            if !output.is_empty() {
                returned.push(self.returned(model, &place, output, Some(before), after)?);
            }
        }
        Ok(Tried::Done(returned, count))
    }

    fn planned(
        &self,
        model: &Model,
        name: &Name,
        place: &TablePlace,
        sets: &[(String, Expr)],
        filter: Option<&Expr>,
    ) -> Result<Vec<Planned>, Fault> {
        let evaluator = Evaluator { session: self, model };
        let relation = query::relation(evaluator, name, filter)?;
        let definitions = &model
            .databases
            .get(&place.0)
            .and_then(|database| database.tables.get(&place.1));
        let columns = definitions
            .map(|table| table.columns.as_slice())
            .unwrap_or_default();
        let sources = [Loaded {
            alias: name.object.clone(),
            relation,
        }];
        let mut changes = Vec::new();
        for source in &sources {
            for (index, (id, row)) in source.relation.ids.iter().zip(&source.relation.rows).enumerate() {
                let frame = Frame {
                    sources: &sources,
                    row: &[Some(index)],
                    group: None,
                    outer: None,
                };
                let fits = filter.map_or(Ok(Some(true)), |filter| evaluator.truth(filter, &frame))?;
                if fits != Some(true) {
                    continue;
                }
                let mut after = row.clone();
                for (column, value) in sets {
                    let at = source
                        .relation
                        .column(column)
                        .ok_or_else(|| Fault::no_column(column))?;
                    let value = evaluator.value(value, &frame)?;
                    if let (Some(slot), Some(definition)) = (after.get_mut(at), columns.get(at)) {
                        *slot = fitting(definition, value, false)?;
                    }
                }
                changes.push((*id, row.clone(), after));
            }
        }
        Ok(changes)
    }

    /// OUTPUT: `inserted` and `deleted` of one row.
    fn returned(
        &self,
        model: &Model,
        place: &TablePlace,
        output: &[Item],
        before: Option<Vec<Value>>,
        after: Option<Vec<Value>>,
    ) -> Result<Vec<Value>, Fault> {
        let table = model
            .databases
            .get(&place.0)
            .and_then(|database| database.tables.get(&place.1));
        let columns = table.map(|table| table.columns.as_slice()).unwrap_or_default();
        let columns = columns
            .iter()
            .map(|column| (column.name.clone(), Some(column.kind)));
        let columns: Vec<_> = columns.collect();
        let loaded = |alias: &str, row: Option<Vec<Value>>| Loaded {
            alias: alias.to_owned(),
            relation: Relation {
                columns: columns.clone(),
                rows: row.into_iter().collect(),
                ids: Vec::new(),
            },
        };
        let sources = [loaded("inserted", after), loaded("deleted", before)];
        let frame = Frame {
            sources: &sources,
            row: &[Some(0), Some(0)],
            group: None,
            outer: None,
        };
        let evaluator = Evaluator { session: self, model };
        output
            .iter()
            .map(|item| evaluator.value(&item.what, &frame))
            .collect()
    }

    pub(crate) fn select_into(&mut self, name: &Name, answer: &Answer) -> Result<(), Fault> {
        let columns = answer
            .names
            .iter()
            .zip(&answer.kinds)
            .map(|(name, kind)| ColumnDefinition {
                name: name.clone(),
                kind: *kind,
                required: false,
                identity: false,
                default: None,
                above: None,
            });
        self.create_table(name, &columns.collect::<Vec<_>>(), &[])?;
        let place = self.place(name);
        let shared = Arc::clone(&self.shared);
        let mut model = shared.lock();
        for row in &answer.rows {
            self.put(&mut model, &place, |table, id| table.insert(row.clone(), id))?;
        }
        Ok(())
    }
}

/// A value as its column takes it.
fn fitting(column: &ColumnDefinition, value: Value, is_identity: bool) -> Result<Value, Fault> {
    use gatepost::wire::tds::reply::ColumnKind;
    if value.is_null() && column.required && !is_identity {
        let text = format!(
            "Cannot insert the value NULL into column '{}'; column does not allow nulls. INSERT fails.",
            column.name
        );
        return Err(Fault::new(515, 16, text));
    }
    if let (ColumnKind::NVarChar(units), Value::Text(text)) = (column.kind, &value)
        && text.encode_utf16().count() > usize::from(units)
    {
        let text = format!(
            "String or binary data would be truncated in column '{}'.",
            column.name
        );
        return Err(Fault::new(2628, 16, text));
    }
    value.cast(column.kind)
}
