//! The row that marks a transaction in the table of markers: written by the client's own session, as the last
//! thing before its COMMIT goes on, so that it is there if and only if the transaction was committed.
//!
//! Only a request that is a COMMIT and nothing else is marked. What runs in the same request could take the row
//! back to a savepoint and commit all the same, or commit more than the row stands for.

use std::time::SystemTime;

use crate::audit::record::Outcome;
use crate::audit::{Marker as Found, MarkerKey, Marking};
use crate::domain::marker_table::MarkerTable;
use crate::domain::refusal::{Reason, RefusalCode};
use crate::session::dialogue::{Demand, Fault};
use crate::session::lane::Lane;
use crate::session::sqlserver::request::Plan;
use crate::wire::tds::event::{EnvChange, Event};
use crate::wire::tds::packet::{PacketKind, Status};
use crate::wire::tds::reply::{Cell, ColumnKind};
use crate::wire::tds::rows::{Value, first_row};
use crate::wire::tds::rpc::{Argument, Callee, put_calls};
use crate::wire::tds::token::Reader;
use crate::wire::tds::turn::{Asked, Owed, Owner};

use super::questions::Question;
use super::{Conversation, Open, Phase};

/// `sp_executesql` by its number: with the payload as a parameter the server has one plan for all of them.
const EXECUTE_SQL: u16 = 10;
/// Room for a payload of a later version.
const PAYLOAD_BYTES_MAX: u16 = 64;

/// What a session marks its transactions with.
#[derive(Debug)]
pub(super) struct Marker {
    key: MarkerKey,
    table: MarkerTable,
    text: String,
    /// Of the row that was asked for last. No two rows of a session have the same.
    nonce: u64,
}

/// What a COMMIT at the front has to wait for before it goes on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Due {
    #[default]
    Nothing,
    Mark,
    Intent,
    /// It was not marked, and does not go on.
    Refusal,
}

/// What became of the row.
enum Marked {
    Yes,
    /// The COMMIT would end nothing: the transaction is within another one.
    NotDue,
    No,
}

impl Marker {
    /// `database`: the session's own, whichever it uses by now.
    fn new(marking: &Marking, database: &str, nonce: u64) -> Option<Self> {
        let table = marking.table.clone()?;
        let place = format!("[{}].{}", database.replace(']', "]]"), table.quoted());
        let name = place.replace('\'', "''");
        // Asked for before it is tried: under XACT_ABORT an error would take the transaction with it.
        let text = format!(
            "DECLARE @marked int; SET @marked = 0; IF @@TRANCOUNT = 1 AND HAS_PERMS_BY_NAME(N'{name}', N'OBJECT', N'INSERT') \
             = 1 BEGIN INSERT INTO {place} (mark) VALUES (@mark); SET @marked = 1 END; SELECT @marked, @@TRANCOUNT"
        );
        Some(Self {
            key: marking.key.clone(),
            table,
            text,
            nonce,
        })
    }
}

impl Conversation {
    /// The same, with a row in the table of markers for every transaction that may have written.
    pub(in crate::session::sqlserver) fn marking(mut self, marking: Option<&Marking>, nonce: u64) -> Self {
        self.marker = marking.and_then(|marking| Marker::new(marking, &self.database, nonce));
        self
    }

    /// What has to be done before something that commits goes on.
    pub(super) fn due_before(&mut self, plan: &Plan) -> Due {
        let marks = self.marker.is_some() && self.open.depth > 0 && self.plan_only.is_empty();
        if marks && plan.is_commit_alone() {
            return Due::Mark;
        }
        self.ledger.unmark();
        Due::Intent
    }

    /// Does what is due, one thing after another. `Some`: the request waits for it, or goes nowhere.
    pub(super) fn clear(&mut self, to_server: &mut Lane) -> Result<Option<Cleared>, Fault> {
        match self.due {
            Due::Nothing => Ok(None),
            Due::Mark => {
                self.due = Due::Intent;
                self.mark(to_server)?;
                Ok(Some(Cleared::Later))
            }
            Due::Intent => {
                self.due = Due::Nothing;
                self.ledger.announce();
                let Some(intent) = self.ledger.intent() else {
                    return Ok(None);
                };
                self.phase = Phase::Writing;
                Ok(Some(Cleared::Demand(Demand::Intent(intent))))
            }
            Due::Refusal => {
                self.due = Due::Nothing;
                self.phase = Phase::Dropping;
                Ok(Some(Cleared::Never))
            }
        }
    }

    fn mark(&mut self, to_server: &mut Lane) -> Result<(), Fault> {
        let Some(marker) = &mut self.marker else {
            return Ok(());
        };
        marker.nonce = marker.nonce.wrapping_add(1);
        let mark = marker
            .key
            .payload(self.reference, self.ledger.number(), marker.nonce);
        let arguments = [
            Argument::text("", &marker.text),
            Argument::text("", "@mark varbinary(64)"),
            Argument {
                name: "@mark",
                kind: ColumnKind::VarBinary(PAYLOAD_BYTES_MAX),
                value: Cell::Bytes(&mark),
                is_output: false,
            },
        ];
        let mut payload = Vec::new();
        let call = [(Callee::Number(EXECUTE_SQL), &arguments[..])];
        put_calls(&mut payload, self.open.descriptor, None, &call);
        let owed = Owed {
            asked: Asked::Rpc,
            owner: Owner::Ours,
        };
        self.send((PacketKind::Rpc, Status::NORMAL), &payload, owed, to_server)?;
        self.answer.clear();
        self.phase = Phase::Asking(Question::Mark);
        Ok(())
    }

    /// The row is there, or why not.
    pub(super) fn mark_answered(&mut self, now: SystemTime) -> Result<(), Fault> {
        let (mut failed, mut ended) = (false, false);
        let mut reader = Reader::default();
        let read = reader.read(&self.answer, &mut |event| match event {
            Event::Error(_) => failed = true,
            Event::EnvChange(EnvChange::Rollback { .. } | EnvChange::TransactionEnded { .. }) => ended = true,
            Event::EnvChange(_)
            | Event::Info(_)
            | Event::Done(_)
            | Event::ReturnStatus(_)
            | Event::ReturnValue { .. }
            | Event::Columns { .. }
            | Event::ColumnsUntold
            | Event::Row { .. }
            | Event::Other { .. }
            | Event::Lost(_) => {}
        });
        read.map_err(Fault::Server)?;
        let row = first_row(&self.answer).map_err(Fault::Server)?;
        let marked = match row.as_deref() {
            Some([Value::Int(1), Value::Int(1)]) if !failed && !ended => Marked::Yes,
            Some([Value::Int(0), Value::Int(count)]) if !failed && *count > 1 => Marked::NotDue,
            Some(_) | None => Marked::No,
        };
        self.ledger.heard(now);
        let Some(marker) = self.marker.as_ref() else {
            return Ok(());
        };
        match marked {
            Marked::Yes => self.ledger.marked(Found::Row(marker.table.clone(), marker.nonce)),
            Marked::NotDue => self.ledger.unmark(),
            Marked::No => {
                let reason = Reason::NotMarked {
                    table: marker.table.clone(),
                };
                self.not_marked(reason, (failed, ended), now);
            }
        }
        Ok(())
    }

    /// The transaction stays as it is, unless the error has ended it.
    fn not_marked(&mut self, reason: Reason, (failed, ended): (bool, bool), now: SystemTime) {
        self.refused = Some((RefusalCode::AuditUnavailable, reason));
        self.due = Due::Refusal;
        self.ledger.unmark();
        self.ledger.settled(now);
        if ended {
            self.taken_away = Some(self.open.descriptor);
            self.open = Open::default();
            self.close(Outcome::Aborted, now);
        } else if failed && !self.habits.tells_transactions {
            self.reply.count_unclear = true;
        }
    }
}

/// Where a request is that had something to wait for.
pub(super) enum Cleared {
    Later,
    Demand(Demand),
    /// It is dropped.
    Never,
}
