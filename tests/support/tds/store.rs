//! Tables with rows in versions: readers see what was committed, and writers wait for one another row by
//! row, as on a server with READ_COMMITTED_SNAPSHOT.

use std::collections::{BTreeMap, HashMap};

use super::fault::Fault;
use super::syntax::ColumnDefinition;
use super::value::Value;

#[derive(Clone, Debug)]
pub(crate) struct Row {
    pub(crate) values: Vec<Value>,
    pub(crate) deleted: bool,
    /// The transaction that has changed it and is still open.
    writer: Option<i64>,
    /// What was committed before that; nothing for a new row.
    before: Option<Vec<Value>>,
}

#[derive(Clone, Debug)]
pub(crate) struct Key {
    pub(crate) name: String,
    pub(crate) columns: Vec<usize>,
    rows: HashMap<String, Vec<u64>>,
}

#[derive(Clone, Debug)]
pub(crate) struct Table {
    pub(crate) id: i32,
    /// With its schema, as created.
    pub(crate) name: String,
    pub(crate) owner: Option<String>,
    pub(crate) columns: Vec<ColumnDefinition>,
    pub(crate) keys: Vec<Key>,
    rows: BTreeMap<u64, Row>,
    next_row: u64,
    next_identity: i64,
}

/// One change, to be taken back.
#[derive(Clone, Debug)]
pub(crate) enum Change {
    Inserted(u64),
    /// With what it was.
    Changed(u64, Vec<Value>, bool),
}

/// Why a row cannot be written now.
pub(crate) enum Blocked {
    /// Another transaction has it.
    Wait,
    Fault(Fault),
}

impl Table {
    pub(crate) fn new(id: i32, name: &str, columns: Vec<ColumnDefinition>) -> Self {
        Self {
            id,
            name: name.to_owned(),
            owner: None,
            columns,
            keys: Vec::new(),
            rows: BTreeMap::new(),
            next_row: 1,
            next_identity: 1,
        }
    }

    pub(crate) fn column(&self, name: &str) -> Option<usize> {
        self.columns
            .iter()
            .position(|column| column.name.eq_ignore_ascii_case(name))
    }

    /// Rows that are there already are not looked at for duplicates.
    pub(crate) fn add_key(&mut self, name: &str, columns: &[String]) -> Result<(), Fault> {
        let places = columns
            .iter()
            .map(|column| self.column(column).ok_or_else(|| Fault::no_column(column)));
        let mut key = Key {
            name: name.to_owned(),
            columns: places.collect::<Result<_, _>>()?,
            rows: HashMap::new(),
        };
        for (id, row) in &self.rows {
            key.rows.entry(key.of(&row.values)).or_default().push(*id);
        }
        self.keys.push(key);
        Ok(())
    }

    pub(crate) const fn identity(&mut self) -> i64 {
        let identity = self.next_identity;
        self.next_identity += 1;
        identity
    }

    /// What a transaction sees: rows and their numbers.
    pub(crate) fn visible(&self, transaction: i64) -> impl Iterator<Item = (u64, &Vec<Value>)> {
        self.rows
            .iter()
            .filter_map(move |(id, row)| Some((*id, row.seen_by(transaction)?)))
    }

    /// Rows that another transaction has changed and not committed, as they would be.
    pub(crate) fn unsettled(&self, transaction: i64) -> impl Iterator<Item = &Vec<Value>> {
        let others = move |row: &&Row| row.writer.is_some_and(|writer| writer != transaction);
        self.rows.values().filter(others).map(|row| &row.values)
    }

    /// The same for rows with this value in a column that is a key of its own; `None` if it is not.
    pub(crate) fn found(
        &self,
        column: usize,
        value: &Value,
        transaction: i64,
    ) -> Option<Vec<(u64, &Vec<Value>)>> {
        let key = self.keys.iter().find(|key| key.columns == [column])?;
        let wanted = value.cast(self.columns.get(column)?.kind).ok()?;
        let ids = key.rows.get(&wanted.key()).map(Vec::as_slice).unwrap_or_default();
        let rows = ids
            .iter()
            .filter_map(|id| Some((*id, self.rows.get(id)?.seen_by(transaction)?)));
        Some(rows.collect())
    }

    pub(crate) fn insert(&mut self, values: Vec<Value>, transaction: i64) -> Result<Change, Blocked> {
        self.check(&values, None, transaction)?;
        let id = self.next_row;
        self.next_row += 1;
        for key in &mut self.keys {
            key.rows.entry(key.of(&values)).or_default().push(id);
        }
        let row = Row {
            values,
            deleted: false,
            writer: Some(transaction),
            before: None,
        };
        self.rows.insert(id, row);
        Ok(Change::Inserted(id))
    }

    /// `None` deletes it.
    pub(crate) fn change(
        &mut self,
        id: u64,
        values: Option<Vec<Value>>,
        transaction: i64,
    ) -> Result<Change, Blocked> {
        if let Some(values) = &values {
            self.check(values, Some(id), transaction)?;
        }
        let Some(row) = self.rows.get_mut(&id) else {
            return Err(Blocked::Wait);
        };
        match row.writer {
            Some(writer) if writer != transaction => return Err(Blocked::Wait),
            Some(_) => {}
            None => {
                row.writer = Some(transaction);
                row.before = Some(row.values.clone());
            }
        }
        let change = Change::Changed(id, row.values.clone(), row.deleted);
        match values {
            None => row.deleted = true,
            Some(values) => {
                let old = std::mem::replace(&mut row.values, values.clone());
                for key in &mut self.keys {
                    key.moved(id, &old, &values);
                }
            }
        }
        Ok(change)
    }

    /// Would a key be violated? A row that another transaction deletes or makes is waited for.
    fn check(&self, values: &[Value], except: Option<u64>, transaction: i64) -> Result<(), Blocked> {
        for (column, value) in self.columns.iter().zip(values) {
            if let Some((name, bound)) = &column.above
                && value.as_int().is_some_and(|value| value <= *bound)
            {
                let text = format!("The INSERT statement conflicted with the CHECK constraint \"{name}\".");
                return Err(Blocked::Fault(Fault::new(547, 16, text)));
            }
        }
        for key in &self.keys {
            let there = key
                .rows
                .get(&key.of(values))
                .map(Vec::as_slice)
                .unwrap_or_default();
            for row in there
                .iter()
                .filter(|id| Some(**id) != except)
                .filter_map(|id| self.rows.get(id))
            {
                match row.writer {
                    Some(writer) if writer != transaction => return Err(Blocked::Wait),
                    _ if row.deleted => {}
                    _ => return Err(Blocked::Fault(self.duplicate(key, values))),
                }
            }
        }
        Ok(())
    }

    fn duplicate(&self, key: &Key, values: &[Value]) -> Fault {
        let shown: Vec<_> = key
            .columns
            .iter()
            .filter_map(|place| values.get(*place))
            .map(Value::shown)
            .collect();
        Fault::new(
            2627,
            14,
            format!(
                "Violation of UNIQUE KEY constraint '{}'. Cannot insert duplicate key in object '{}'. The duplicate \
                 key value is ({}).",
                key.name,
                self.name,
                shown.join(", ")
            ),
        )
    }

    pub(crate) fn undo(&mut self, change: Change) {
        match change {
            Change::Inserted(id) => self.remove(id),
            Change::Changed(id, values, deleted) => {
                let Some(row) = self.rows.get_mut(&id) else { return };
                row.deleted = deleted;
                let old = std::mem::replace(&mut row.values, values.clone());
                for key in &mut self.keys {
                    key.moved(id, &old, &values);
                }
            }
        }
    }

    /// The end of a transaction, after all was taken back if it is rolled back.
    pub(crate) fn release(&mut self, id: u64) {
        let Some(row) = self.rows.get_mut(&id) else { return };
        row.writer = None;
        row.before = None;
        if row.deleted {
            self.remove(id);
        }
    }

    fn remove(&mut self, id: u64) {
        if let Some(row) = self.rows.remove(&id) {
            for key in &mut self.keys {
                let values = key.of(&row.values);
                if let Some(ids) = key.rows.get_mut(&values) {
                    ids.retain(|other| *other != id);
                }
            }
        }
    }
}

impl Row {
    fn seen_by(&self, transaction: i64) -> Option<&Vec<Value>> {
        match self.writer {
            Some(writer) if writer != transaction => self.before.as_ref(),
            _ if self.deleted => None,
            _ => Some(&self.values),
        }
    }
}

impl Key {
    fn of(&self, values: &[Value]) -> String {
        let parts = self.columns.iter().filter_map(|place| values.get(*place));
        parts.map(Value::key).collect::<Vec<_>>().join("\0")
    }

    fn moved(&mut self, id: u64, old: &[Value], new: &[Value]) {
        let (old, new) = (self.of(old), self.of(new));
        if old != new {
            if let Some(ids) = self.rows.get_mut(&old) {
                ids.retain(|other| *other != id);
            }
            self.rows.entry(new).or_default().push(id);
        }
    }
}
