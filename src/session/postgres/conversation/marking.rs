//! Questions for the transaction id, and the one among them that marks the transaction as well.
//!
//! Where `wal_marker` is on, the last question before a transaction commits writes our marker into it: the
//! WAL then proves the commit, whoever lives to hear of it.

use crate::audit::{Lsn, Marker as Found, MarkerKey};
use crate::session::lane::Lane;
use crate::wire::pg::from_client;
use crate::wire::pg::turn::{Owner, Sent};

use super::group::Called;
use super::probe::{self, Portal, Probe};
use super::{Conversation, Phase, Then};

/// What a session marks its transactions with.
#[derive(Debug)]
pub(super) struct Marker {
    key: MarkerKey,
    probe: Probe,
    nonce: u64,
    /// Is the question under way the marking one?
    asked: bool,
}

impl Conversation {
    /// The same, with a marker in every transaction that writes.
    pub(in crate::session::postgres) fn marking(
        self,
        key: Option<MarkerKey>,
        name: &str,
        nonce: u64,
    ) -> Self {
        let marker = key.map(|key| Marker {
            key,
            probe: Probe::marking(name),
            nonce,
            asked: false,
        });
        Self { marker, ..self }
    }

    /// Is there something to mark before this transaction commits?
    pub(super) fn wants_marker(&self) -> bool {
        self.marker.is_some() && self.ledger.wants_marker()
    }

    /// Asks for the transaction id inside the client's group, as the last thing before it commits.
    pub(super) fn ask(&mut self, portal: Portal, lane: &mut Lane, then: Then) {
        self.put_last_question(portal, lane);
        self.add(lane, from_client::put_flush);
        self.phase = Phase::Asking(then);
    }

    /// Asks for the transaction id in a group of its own, behind a simple Query in a block.
    pub(super) fn call_group(&mut self, lane: &mut Lane) {
        self.add(lane, probe::put_call);
        self.turn.sent(Sent::FunctionCall, Owner::Ours);
    }

    /// The same before the COMMIT of a simple Query.
    pub(super) fn last_question_group(&mut self, lane: &mut Lane) {
        if self.marker.is_none() {
            return self.call_group(lane);
        }
        self.put_last_question(Portal::Named, lane);
        self.add(lane, from_client::put_sync);
        self.turn.sent(Sent::Sync, Owner::Ours);
    }

    /// Asks in place of the group's Sync, which goes on only if the server turns out to want it.
    pub(super) fn call(&mut self, called: Called, lane: &mut Lane) {
        self.add(lane, probe::put_call);
        self.turn.sent(Sent::FunctionCall, Owner::Probe);
        self.group.called = called;
        self.phase = Phase::AwaitingReady;
    }

    /// The Sync that a call stood for.
    pub(super) fn sync_behind_call(&mut self, lane: &mut Lane) {
        self.group.called = Called::Not;
        self.add(lane, from_client::put_sync);
        self.turn.sent(Sent::Sync, Owner::Client);
    }

    /// Only asks.
    pub(super) fn put_probe(&mut self, portal: Portal, lane: &mut Lane) {
        if let Some(marker) = &mut self.marker {
            marker.asked = false;
        }
        self.probe.put(portal, &mut self.scratch, lane, &mut self.turn);
    }

    fn put_last_question(&mut self, portal: Portal, lane: &mut Lane) {
        let Some(marker) = &mut self.marker else {
            return self.put_probe(portal, lane);
        };
        marker.asked = true;
        let payload = marker
            .key
            .payload(self.reference, self.ledger.number(), marker.nonce);
        let (scratch, turn) = (&mut self.scratch, &mut self.turn);
        marker.probe.put_with(portal, Some(&payload), scratch, lane, turn);
    }

    fn asked(&mut self) -> &mut Probe {
        match &mut self.marker {
            Some(marker) if marker.asked => &mut marker.probe,
            Some(_) | None => &mut self.probe,
        }
    }

    /// The server has prepared the question that was put last.
    pub(super) fn question_prepared(&mut self) {
        self.asked().prepared();
    }

    /// A question has its answer.
    pub(super) fn question_answered(&mut self, body: &[u8]) {
        self.ledger.learned(probe::id_in_row(body));
        let marked = self.marker.as_ref().is_some_and(|marker| marker.asked);
        if let Some(place) = probe::place_in_row(body).filter(|_| marked) {
            self.ledger.marked(Found::Wal(Lsn(place)));
        }
    }

    /// A call has its answer.
    pub(super) fn call_answered(&mut self, body: &[u8]) {
        self.ledger.learned(probe::id_in_result(body));
    }

    /// Something ran that could have removed or replaced the questions' statements.
    pub(super) fn distrust_questions(&mut self) {
        self.probe.distrust();
        if let Some(marker) = &mut self.marker {
            marker.probe.distrust();
        }
    }

    /// Something ran that could have made code of the session's own.
    pub(super) fn distrust_questions_always(&mut self) {
        self.probe.distrust_always();
        if let Some(marker) = &mut self.marker {
            marker.probe.distrust_always();
        }
    }
}
