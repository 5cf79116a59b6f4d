//! A session: its settings, variables, context, and its transaction.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::io::Write as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use gatepost::wire::tds::reply::{self, ColumnKind};

use tokio::time::Instant;

use super::fault::{Fault, Stop};
use super::model::{Committed, Loss, Model, Shared};
use super::out::Out;
use super::store::{Change, Table};
use super::syntax::Name;
use super::value::Value;

/// Where temporary tables are.
pub(crate) const TEMPORARY: &str = "tempdb";

/// Database and key of a table.
pub(crate) type TablePlace = (String, String);

pub(crate) enum Undo {
    Row(TablePlace, Change),
    Model(Box<dyn FnOnce(&mut Model) + Send>),
}

pub(crate) struct Transaction {
    pub(crate) id: i64,
    /// Nothing for a statement on its own.
    pub(crate) descriptor: Option<u64>,
    undo: Vec<Undo>,
    touched: BTreeSet<(TablePlace, u64)>,
    saves: Vec<(String, usize)>,
    statements: Vec<String>,
}

#[derive(Clone, Debug)]
pub(crate) struct Settings {
    pub(crate) no_count: bool,
    pub(crate) xact_abort: bool,
    pub(crate) implicit: bool,
    pub(crate) isolation: i32,
    /// Milliseconds; below zero without end.
    pub(crate) lock_timeout: i64,
    /// All others, by name.
    pub(crate) others: BTreeMap<String, String>,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            no_count: false,
            xact_abort: false,
            implicit: false,
            isolation: READ_COMMITTED,
            lock_timeout: -1,
            others: BTreeMap::new(),
        }
    }
}

pub(crate) const READ_COMMITTED: i32 = 2;

pub(crate) type Variables = HashMap<String, (ColumnKind, Value)>;

/// Who has logged in, and from where.
#[derive(Clone, Debug)]
pub(crate) struct Who {
    pub(crate) spid: u16,
    pub(crate) login: String,
    pub(crate) database: String,
    pub(crate) program: String,
    pub(crate) host: String,
    pub(crate) packet_bytes: usize,
}

pub(crate) struct Session {
    pub(crate) shared: Arc<Shared>,
    pub(crate) who: Who,
    pub(crate) database: String,
    pub(crate) user: String,
    pub(crate) settings: Settings,
    pub(crate) context: BTreeMap<String, (Value, bool)>,
    pub(crate) context_info: Vec<u8>,
    pub(crate) transaction: Option<Transaction>,
    pub(crate) count: i32,
    pub(crate) doomed: bool,
    /// Of the statement under way, if there is no transaction.
    pub(crate) statement_id: i64,
    pub(crate) scopes: Vec<Variables>,
    pub(crate) caught: Vec<Fault>,
    pub(crate) tries: usize,
    pub(crate) depth: usize,
    pub(crate) prepared: BTreeMap<i32, (String, String)>,
    pub(crate) next_handle: i32,
    pub(crate) bulk: Option<(Name, Vec<String>)>,
    pub(crate) row_count: i64,
    pub(crate) error: i32,
    pub(crate) identity: Value,
    /// Statements end with DONEINPROC.
    pub(crate) in_procedure: bool,
    pub(crate) cancelled: Arc<AtomicBool>,
    pub(crate) out: Out,
}

impl Session {
    pub(crate) fn is_cancelled(&self) -> bool {
        self.cancelled.load(Ordering::Acquire)
    }

    pub(crate) fn descriptor(&self) -> u64 {
        let transaction = self.transaction.as_ref();
        transaction
            .and_then(|transaction| transaction.descriptor)
            .unwrap_or_default()
    }

    /// What `CURRENT_TRANSACTION_ID()` says.
    pub(crate) fn transaction_id(&self) -> i64 {
        self.transaction
            .as_ref()
            .map_or(self.statement_id, |transaction| transaction.id)
    }

    pub(crate) fn variable(&self, name: &str) -> Option<&(ColumnKind, Value)> {
        self.scopes.last()?.get(name)
    }

    pub(crate) fn assign(&mut self, name: &str, value: &Value) -> Result<(), Fault> {
        let found = self.scopes.last_mut().and_then(|scope| scope.get_mut(name));
        let Some((kind, slot)) = found else {
            let text = format!("Must declare the scalar variable \"{name}\".");
            return Err(Fault::new(137, 15, text).aborting());
        };
        *slot = value.cast(*kind)?;
        Ok(())
    }

    /// Where a table of this name is, in lower case.
    pub(crate) fn place(&self, name: &Name) -> TablePlace {
        if name.is_temporary() {
            return (TEMPORARY.to_owned(), format!("{}:{}", self.who.spid, name.object));
        }
        let database = name.database.clone().filter(|database| !database.is_empty());
        (
            database.unwrap_or_else(|| self.database.to_lowercase()),
            name.key(),
        )
    }

    /// BEGIN TRANSACTION, in whatever way it was said.
    pub(crate) fn begin(&mut self) {
        if self.count == 0 {
            let mut model = self.shared.lock();
            let descriptor = model.descriptor();
            self.transaction = Some(Transaction::new(model.transaction_id(), Some(descriptor)));
            drop(model);
            self.out.put(|bytes| reply::put_begin(bytes, descriptor));
        }
        self.counted(self.count + 1);
    }

    fn counted(&mut self, count: i32) {
        self.count = count;
        if let Some(seen) = self.shared.lock().sessions.get_mut(&self.who.spid) {
            seen.open_transactions = count;
        }
    }

    pub(crate) fn commit(&mut self) -> Result<(), Fault> {
        if self.count == 0 {
            let text = "The COMMIT TRANSACTION request has no corresponding BEGIN TRANSACTION.";
            return Err(Fault::new(3902, 16, text));
        }
        if self.doomed {
            let text = "The current transaction cannot be committed and cannot support operations that write to the \
                        log file. Roll back the transaction.";
            return Err(Fault::new(3930, 16, text));
        }
        if self.count > 1 {
            self.counted(self.count - 1);
            return Ok(());
        }
        let loss = if self.who.login.starts_with("gp_") {
            self.shared.lock().orders.lose.take()
        } else {
            None
        };
        if let Some(Loss { cut, late, done }) = loss {
            self.lose(cut, late);
            if !done {
                // The end of the session rolls back.
                return Err(Fault::new(3902, 16, "The connection is lost.").aborting());
            }
        }
        let descriptor = self.descriptor();
        self.finish();
        self.counted(0);
        self.out.put(|bytes| reply::put_commit(bytes, descriptor));
        Ok(())
    }

    /// Until the connection is no more, and for a while longer.
    fn lose(&self, cut: bool, late: Duration) {
        let mut model = self.shared.lock();
        if let Some(seen) = model.sessions.get_mut(&self.who.spid).filter(|_| cut) {
            seen.killed = true;
            seen.kill.notify_one();
        }
        while !self.is_cancelled() {
            model = self.shared.wait(model, Duration::from_millis(200));
        }
        let until = Instant::now() + late;
        while Instant::now() < until {
            model = self.shared.wait(model, Duration::from_millis(50));
        }
    }

    pub(crate) fn save(&mut self, name: &str) -> Result<(), Fault> {
        let Some(transaction) = self.transaction.as_mut() else {
            let text = "Cannot issue SAVE TRANSACTION when there is no active transaction.";
            return Err(Fault::new(628, 16, text));
        };
        transaction
            .saves
            .push((name.to_lowercase(), transaction.undo.len()));
        Ok(())
    }

    /// All of it, or back to a savepoint.
    pub(crate) fn rollback(&mut self, name: Option<&str>) -> Result<(), Fault> {
        if self.count == 0 {
            let text = "The ROLLBACK TRANSACTION request has no corresponding BEGIN TRANSACTION.";
            return Err(Fault::new(3903, 16, text));
        }
        let save = name.and_then(|name| {
            let saves = &self.transaction.as_ref()?.saves;
            saves
                .iter()
                .rposition(|(known, _)| known.eq_ignore_ascii_case(name))
        });
        if let (Some(save), Some(transaction)) = (save, self.transaction.as_mut()) {
            let mark = transaction.saves.get(save).map_or(0, |(_, mark)| *mark);
            transaction.saves.truncate(save + 1);
            let mut model = self.shared.lock();
            transaction.undo_to(mark, &mut model);
            return Ok(());
        }
        self.roll_all_back(true);
        Ok(())
    }

    /// Tells of it unless nobody listens any more.
    pub(crate) fn roll_all_back(&mut self, tells: bool) {
        let descriptor = self.descriptor();
        if let Some(mut transaction) = self.transaction.take() {
            let mut model = self.shared.lock();
            transaction.undo_to(0, &mut model);
            transaction.release(&mut model);
        }
        self.shared.wake();
        self.doomed = false;
        self.counted(0);
        if tells && descriptor != 0 {
            self.out.put(|bytes| reply::put_rollback(bytes, descriptor));
        }
    }

    /// Makes what was done last, and writes it down.
    fn finish(&mut self) {
        let Some(transaction) = self.transaction.take() else {
            return;
        };
        let mut model = self.shared.lock();
        transaction.release(&mut model);
        let wrote = !transaction.undo.is_empty();
        if wrote || transaction.descriptor.is_some() {
            let text = |key: &str| self.context.get(key).map(|(value, _)| value.shown());
            let committed = Committed {
                id: transaction.id,
                spid: self.who.spid,
                login: self.who.login.clone(),
                database: self.database.clone(),
                subject: text("gatepost.subject"),
                correlation: text("correlation_id"),
                wrote,
                statements: transaction.statements,
            };
            if let Some(journal) = &mut model.journal {
                let line = serde_json::json!({
                    "id": committed.id, "spid": committed.spid, "login": committed.login,
                    "database": committed.database, "subject": committed.subject,
                    "correlation_id": committed.correlation, "wrote": committed.wrote,
                    "statements": committed.statements,
                });
                // A full disk is seen by whoever reads the file.
                let _ = writeln!(journal, "{line}");
            }
            model.committed.push(committed);
        }
        drop(model);
        self.shared.wake();
    }

    /// Before a statement: implicit transactions begin, and a statement on its own gets its id.
    pub(crate) fn enter_statement(&mut self, touches_data: bool) {
        if touches_data && self.settings.implicit && self.count == 0 {
            self.begin();
        }
        if self.transaction.is_none() {
            self.statement_id = self.shared.lock().transaction_id();
        }
    }

    /// The transaction that a write belongs to, which is the statement's own if there is no other.
    pub(crate) fn writes(&mut self) -> &mut Transaction {
        let id = self.statement_id;
        self.transaction.get_or_insert_with(|| Transaction::new(id, None))
    }

    pub(crate) fn note(&mut self, text: &str) {
        if let Some(transaction) = &mut self.transaction {
            transaction.statements.push(text.to_owned());
        }
    }

    pub(crate) fn mark(&self) -> usize {
        self.transaction
            .as_ref()
            .map_or(0, |transaction| transaction.undo.len())
    }

    /// After a statement: what failed is taken back, and what stood on its own is committed.
    pub(crate) fn leave_statement(&mut self, mark: usize, failed: bool) {
        let is_own = self
            .transaction
            .as_ref()
            .is_some_and(|transaction| transaction.descriptor.is_none());
        if failed && let Some(transaction) = &mut self.transaction {
            let mut model = self.shared.lock();
            transaction.undo_to(mark, &mut model);
        }
        if is_own && self.count == 0 {
            if failed {
                self.roll_all_back(false);
            } else {
                self.finish();
            }
        }
    }

    /// RESETCONNECTION. The isolation level stays (MS-TDS 2.2.3.1.2).
    pub(crate) fn reset(&mut self, keeps_transaction: bool) {
        if !keeps_transaction {
            // The acknowledgement says it; there is no ENVCHANGE of its own.
            self.roll_all_back(false);
        }
        let isolation = self.settings.isolation;
        self.settings = Settings {
            isolation,
            ..Settings::default()
        };
        self.context.clear();
        self.context_info.clear();
        self.prepared.clear();
        self.caught.clear();
        self.bulk = None;
        self.identity = Value::Null;
        self.error = 0;
        self.row_count = 0;
        self.drop_own();
        self.database.clone_from(&self.who.database);
        if let Some(seen) = self.shared.lock().sessions.get_mut(&self.who.spid) {
            seen.database.clone_from(&self.who.database);
        }
        self.find_user();
        self.out.put(reply::put_reset_ack);
    }

    /// Temporary tables and locks.
    pub(crate) fn drop_own(&mut self) {
        let spid = self.who.spid;
        let mut model = self.shared.lock();
        let own = format!("{spid}:");
        if let Some(database) = model.databases.get_mut(TEMPORARY) {
            database.tables.retain(|key, _| !key.starts_with(&own));
        }
        model.locks.retain(|_, holder| *holder != spid);
        drop(model);
        self.shared.wake();
    }

    /// Who the login is in its database.
    pub(crate) fn find_user(&mut self) {
        let model = self.shared.lock();
        let is_sysadmin = model.is_server_member(&self.who.login, "sysadmin");
        let user = model
            .database(&self.database)
            .and_then(|database| database.user_of(is_sysadmin, &self.who.login));
        drop(model);
        self.user = user.unwrap_or_else(|| "guest".to_owned());
    }

    pub(crate) fn change_database(&mut self, name: &str) -> Result<(), Fault> {
        let model = self.shared.lock();
        if model.azure && !name.eq_ignore_ascii_case(&self.database) {
            let text = "USE statement is not supported to switch between databases. Use a new connection to \
                        connect to a different database.";
            return Err(Fault::new(40508, 16, text));
        }
        let is_sysadmin = model.is_server_member(&self.who.login, "sysadmin");
        let Some(database) = model.database(name) else {
            let text =
                format!("Database '{name}' does not exist. Make sure that the name is entered correctly.");
            return Err(Fault::new(911, 16, text));
        };
        if database.user_of(is_sysadmin, &self.who.login).is_none() {
            let text = format!(
                "The server principal \"{}\" is not able to access the database \"{name}\" under the current security \
                 context.",
                self.who.login
            );
            return Err(Fault::new(916, 14, text));
        }
        let new = database.name.clone();
        drop(model);
        let old = std::mem::replace(&mut self.database, new.clone());
        if let Some(seen) = self.shared.lock().sessions.get_mut(&self.who.spid) {
            seen.database.clone_from(&new);
        }
        self.find_user();
        self.out.put(|bytes| reply::put_database(bytes, &new, &old));
        self.out
            .info(5701, &format!("Changed database context to '{new}'."));
        Ok(())
    }

    /// The client has gone.
    pub(crate) fn end(&mut self) {
        self.roll_all_back(false);
        self.drop_own();
        self.shared.lock().sessions.remove(&self.who.spid);
        self.shared.wake();
    }

    pub(crate) fn stop_if_cancelled(&self) -> Result<(), Stop> {
        if self.is_cancelled() {
            Err(Stop::Cancelled)
        } else {
            Ok(())
        }
    }
}

impl Transaction {
    const fn new(id: i64, descriptor: Option<u64>) -> Self {
        Self {
            id,
            descriptor,
            undo: Vec::new(),
            touched: BTreeSet::new(),
            saves: Vec::new(),
            statements: Vec::new(),
        }
    }

    pub(crate) fn changed_row(&mut self, place: &TablePlace, change: Change) {
        let (Change::Inserted(id) | Change::Changed(id, ..)) = &change;
        self.touched.insert((place.clone(), *id));
        self.undo.push(Undo::Row(place.clone(), change));
    }

    pub(crate) fn changed(&mut self, undo: impl FnOnce(&mut Model) + Send + 'static) {
        self.undo.push(Undo::Model(Box::new(undo)));
    }

    fn undo_to(&mut self, mark: usize, model: &mut Model) {
        while self.undo.len() > mark {
            match self.undo.pop() {
                Some(Undo::Row(place, change)) => {
                    if let Some(table) = table_mut(model, &place) {
                        table.undo(change);
                    }
                }
                Some(Undo::Model(undo)) => undo(model),
                None => return,
            }
        }
    }

    fn release(&self, model: &mut Model) {
        for (place, id) in &self.touched {
            if let Some(table) = table_mut(model, place) {
                table.release(*id);
            }
        }
    }
}

pub(crate) fn table_mut<'a>(model: &'a mut Model, (database, key): &TablePlace) -> Option<&'a mut Table> {
    model.databases.get_mut(database)?.tables.get_mut(key)
}

impl Session {
    /// What was tried is taken back; a transaction of the statement's own ends.
    pub(crate) fn take_back(&mut self, mark: usize) {
        let is_own = self
            .transaction
            .as_ref()
            .is_some_and(|transaction| transaction.descriptor.is_none());
        if is_own && mark == 0 {
            self.roll_all_back(false);
        } else if let Some(transaction) = &mut self.transaction {
            let mut model = self.shared.lock();
            transaction.undo_to(mark, &mut model);
        }
    }
}
