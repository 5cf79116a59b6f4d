//! The thread of a session: takes requests one after another and answers them.

use std::sync::mpsc::Receiver;

use gatepost::wire::Decoded;
use gatepost::wire::tds::event::{DoneKind, DoneStatus};
use gatepost::wire::tds::packet::{PacketKind, Status};
use gatepost::wire::tds::reply;
use gatepost::wire::tds::request::{self, Begin, Isolation, Request, Seen, TransactionRequest};

use super::fault::{Fault, Stop};
use super::session::{Session, Variables};
use super::wire;

/// A whole message of the client.
pub(crate) struct Job {
    pub(crate) kind: PacketKind,
    pub(crate) status: Status,
    pub(crate) payload: Vec<u8>,
}

/// Until the connection's task lets go.
pub(crate) fn work(mut session: Session, jobs: &Receiver<Job>) {
    while let Ok(job) = jobs.recv() {
        let closes = session.job(&job);
        session.out.end(closes);
    }
    session.end();
}

impl Session {
    /// Answers one request. True if the connection ends with it.
    fn job(&mut self, job: &Job) -> bool {
        if job.status.has(Status::RESET) {
            self.reset(false);
        } else if job.status.has(Status::RESET_SKIP_TRAN) {
            self.reset(true);
        }
        let delay = self.shared.lock().orders.delay;
        self.scopes = vec![Variables::new()];
        self.in_procedure = false;
        self.tries = 0;
        self.depth = 0;
        let ran = self.sleep(delay).and_then(|()| self.request(job));
        let is_procedure = job.kind == PacketKind::Rpc;
        match ran {
            Err(Stop::Cancelled) => {
                self.out.cut();
                if self.settings.xact_abort && self.count > 0 {
                    self.roll_all_back(true);
                }
                self.out.done(DoneKind::Batch, DoneStatus::ERROR, 0, 0);
            }
            Err(Stop::Fault(fault)) => {
                let fatal = fault.class >= 20;
                self.tell(&fault);
                if fatal {
                    return true;
                }
            }
            Err(Stop::Aborted | Stop::Return(_)) | Ok(()) => {}
        }
        if self.doomed {
            self.roll_all_back(true);
            let text = "Uncommittable transaction is detected at the end of the batch. The transaction is rolled back.";
            self.tell(&Fault::new(3998, 16, text));
        }
        if self.out.is_empty() || !self.out.is_held() {
            let kind = if is_procedure {
                DoneKind::Procedure
            } else {
                DoneKind::Batch
            };
            self.out.done(kind, DoneStatus::FINAL, 0, 0);
        }
        false
    }

    fn request(&mut self, job: &Job) -> Result<(), Stop> {
        if job.kind == PacketKind::Bulk {
            return self.bulk_rows(&job.payload);
        }
        let read = request::read(job.kind.code(), Seen::Whole(&job.payload));
        let broken = |what: &str| {
            let text =
                format!("The incoming tabular data stream (TDS) protocol stream is incorrect: {what}.");
            Stop::Fault(Fault::new(4002, 20, text))
        };
        let request = match read {
            Ok(Decoded::Message(request)) => request,
            Ok(Decoded::NeedMore { .. }) => return Err(broken("a request is short")),
            Err(error) => return Err(broken(&error.to_string())),
        };
        let headers = match &request {
            Request::Batch(batch) => batch.headers,
            Request::Rpc(calls) => calls.headers,
            Request::Transaction(headers, _) => *headers,
            Request::Bulk => return Ok(()),
        };
        let named = headers
            .transaction
            .map_or(0, |transaction| transaction.descriptor);
        // Nought is let pass: some clients never say more.
        if named != 0 && named != self.descriptor() {
            let text = format!("The server failed to resume the transaction. Desc:{named:x}.");
            return Err(Fault::new(3971, 16, text).into());
        }
        match request {
            Request::Batch(batch) => {
                let text = batch.text.lossy();
                self.shared.lock().batches.push((self.who.spid, text.clone()));
                self.batch(&text)
            }
            Request::Rpc(_) => {
                let calls = wire::calls(&job.payload).ok_or_else(|| broken("a call"))?;
                let last = calls.len().saturating_sub(1);
                for (at, called) in calls.iter().enumerate() {
                    let text = format!("RPC {:?}", called.procedure);
                    self.shared.lock().batches.push((self.who.spid, text));
                    self.remote(called, at == last)?;
                }
                Ok(())
            }
            Request::Transaction(_, asked) => self.manage(&asked).map_err(Stop::from),
            Request::Bulk => Ok(()),
        }
    }

    fn manage(&mut self, asked: &TransactionRequest<'_>) -> Result<(), Fault> {
        let mut command = 0xd5;
        match asked {
            TransactionRequest::Begin(begin) => {
                self.begin_as(begin);
                command = 0xd4;
            }
            TransactionRequest::Commit { then, .. } => {
                self.commit()?;
                if let Some(begin) = then {
                    self.begin_as(begin);
                }
            }
            TransactionRequest::Rollback { name, then } => {
                let name = name.lossy();
                self.rollback(Some(name.as_str()).filter(|name| !name.is_empty()))?;
                if let Some(begin) = then {
                    self.begin_as(begin);
                }
                command = 0xd2;
            }
            TransactionRequest::Save { name } => self.save(&name.lossy())?,
            TransactionRequest::GetDtcAddress
            | TransactionRequest::Propagate
            | TransactionRequest::Promote => {
                let text = "The distributed transaction cannot be joined: there is no coordinator here.";
                return Err(Fault::new(8501, 16, text));
            }
        }
        self.done(command, None);
        Ok(())
    }

    fn begin_as(&mut self, begin: &Begin<'_>) {
        self.settings.isolation = match begin.isolation {
            Isolation::Unchanged => self.settings.isolation,
            Isolation::ReadUncommitted => 1,
            Isolation::ReadCommitted => 2,
            Isolation::RepeatableRead => 3,
            Isolation::Serializable => 4,
            Isolation::Snapshot => 5,
        };
        self.begin();
    }

    fn bulk_rows(&mut self, payload: &[u8]) -> Result<(), Stop> {
        let unasked = || Fault::new(4002, 16, "Bulk rows come without an INSERT BULK.");
        let (table, columns) = self.bulk.take().ok_or_else(unasked)?;
        let (names, rows) = wire::bulk(payload)
            .ok_or_else(|| Fault::new(4804, 16, "The rows of the bulk load cannot be read."))?;
        let columns = if names.len() == columns.len() {
            columns
        } else {
            names
        };
        self.enter_statement(true);
        let mark = self.mark();
        let count = u64::try_from(rows.len()).unwrap_or_default();
        let loaded = self.load(&table, &columns, rows);
        if loaded.is_ok() {
            self.note(&format!("INSERT BULK {}", table.shown));
        }
        self.leave_statement(mark, loaded.is_err());
        loaded?;
        self.done(0xf0, Some(count));
        Ok(())
    }

    fn load(
        &mut self,
        table: &super::syntax::Name,
        columns: &[String],
        rows: Vec<Vec<super::value::Value>>,
    ) -> Result<(), Fault> {
        let place = self.place(table);
        let shared = std::sync::Arc::clone(&self.shared);
        let mut model = shared.lock();
        if !table.is_temporary() {
            self.may(&model, "INSERT", &place)?;
        }
        for row in rows {
            let (row, _) = self.completed(&mut model, &place, columns, row)?;
            if self
                .put(&mut model, &place, |table, id| table.insert(row, id))?
                .is_none()
            {
                return Err(Fault::new(1222, 16, "Lock request time out period exceeded."));
            }
        }
        Ok(())
    }
}

/// Acknowledges an attention, as a message of its own.
pub(crate) fn attention_acknowledged() -> Vec<u8> {
    let mut payload = Vec::new();
    reply::put_done(&mut payload, DoneKind::Batch, DoneStatus::ATTENTION, 0, 0);
    payload
}
