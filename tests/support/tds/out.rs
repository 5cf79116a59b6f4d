//! What a session answers, token by token, in pieces of a message.

use gatepost::wire::tds::event::{DoneKind, DoneStatus};
use gatepost::wire::tds::reply::{self, Cell, Column, ColumnKind, Said};
use tokio::sync::mpsc::Sender;

use super::fault::Fault;
use super::query::Answer;
use super::value::Value;

pub(crate) const SERVER_NAME: &str = "SCRIPTED";
/// A piece is sent when it is this long.
const PIECE_BYTES: usize = 16 * 1024;
/// Kinds of statement in DONE.
pub(crate) const SELECT: u16 = 0xc1;
pub(crate) const INSERT: u16 = 0xc3;
pub(crate) const DELETE: u16 = 0xc4;
pub(crate) const UPDATE: u16 = 0xc5;

/// For the connection's own task.
#[derive(Debug)]
pub(crate) enum Piece {
    Part(Vec<u8>),
    /// The message ends.
    End(Vec<u8>),
    /// The same, and the connection too.
    Close(Vec<u8>),
}

#[derive(Debug)]
pub(crate) struct Out {
    bytes: Vec<u8>,
    /// The last DONE, which says whether something follows.
    held: Option<(DoneKind, DoneStatus, u16, u64)>,
    /// Nobody, where nobody reads.
    to: Option<Sender<Piece>>,
}

impl Out {
    pub(crate) const fn new(to: Option<Sender<Piece>>) -> Self {
        Self {
            bytes: Vec::new(),
            held: None,
            to,
        }
    }

    /// Writes tokens behind the last DONE, which then has more behind it.
    pub(crate) fn put(&mut self, write: impl FnOnce(&mut Vec<u8>)) {
        if let Some((kind, status, command, rows)) = self.held.take() {
            reply::put_done(&mut self.bytes, kind, status.and(DoneStatus::MORE), command, rows);
        }
        write(&mut self.bytes);
    }

    pub(crate) fn done(&mut self, kind: DoneKind, status: DoneStatus, command: u16, rows: u64) {
        self.put(|_| ());
        self.held = Some((kind, status, command, rows));
    }

    pub(crate) const fn is_empty(&self) -> bool {
        self.held.is_none() && self.bytes.is_empty()
    }

    /// Would the message end with a DONE?
    pub(crate) const fn is_held(&self) -> bool {
        self.held.is_some()
    }

    pub(crate) fn fault(&mut self, fault: &Fault) {
        self.put(|bytes| reply::put_error(bytes, &said(fault)));
    }

    pub(crate) fn info(&mut self, number: i32, text: &str) {
        let fault = Fault::new(number, 0, text);
        self.put(|bytes| reply::put_info(bytes, &said(&fault)));
    }

    pub(crate) fn answer(&mut self, answer: &Answer) {
        let columns = answer.columns();
        self.columns(&columns);
        for row in &answer.rows {
            self.row(&columns, row);
        }
    }

    pub(crate) fn columns(&mut self, columns: &[Column<'_>]) {
        self.put(|bytes| reply::put_columns(bytes, columns));
    }

    /// Values of another kind than their column become it, or NULL.
    pub(crate) fn row(&mut self, columns: &[Column<'_>], row: &[Value]) {
        let cast = |(value, column): (&Value, &Column<'_>)| value.cast(column.kind).unwrap_or(Value::Null);
        let row: Vec<Value> = row.iter().zip(columns).map(cast).collect();
        let cells: Vec<Cell<'_>> = row.iter().map(Value::cell).collect();
        self.put(|bytes| reply::put_row(bytes, columns, &cells));
    }

    pub(crate) fn return_value(&mut self, ordinal: u16, name: &str, kind: ColumnKind, value: &Value) {
        let value = value.cast(kind).unwrap_or(Value::Null);
        self.put(|bytes| reply::put_return_value(bytes, ordinal, name, kind, value.cell()));
    }

    /// Sends what is long enough. Not while the model is locked: the client may be slow. False if it has
    /// gone.
    pub(crate) fn flush(&mut self) -> bool {
        if self.bytes.len() < PIECE_BYTES {
            return true;
        }
        let bytes = std::mem::take(&mut self.bytes);
        let to = self.to.as_ref();
        to.is_none_or(|to| to.blocking_send(Piece::Part(bytes)).is_ok())
    }

    /// Ends the message; the last DONE has nothing behind it.
    pub(crate) fn end(&mut self, closes: bool) {
        if let Some((kind, status, command, rows)) = self.held.take() {
            reply::put_done(&mut self.bytes, kind, status, command, rows);
        }
        let bytes = std::mem::take(&mut self.bytes);
        let piece = if closes {
            Piece::Close(bytes)
        } else {
            Piece::End(bytes)
        };
        if let Some(to) = &self.to {
            // A client that has gone reads nothing.
            let _ = to.blocking_send(piece);
        }
    }

    /// Drops what was not sent, as at an attention.
    pub(crate) fn cut(&mut self) {
        self.held = None;
        self.bytes.clear();
    }
}

fn said(fault: &Fault) -> Said<'_> {
    Said {
        number: fault.number,
        state: fault.state,
        class: fault.class,
        text: &fault.text,
        server: SERVER_NAME,
        procedure: "",
        line: 1,
    }
}
