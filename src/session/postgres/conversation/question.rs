//! `SET gatepost.outcome_of`: a client asks what became of a message. The answer is put into a setting
//! of its session, in a message group of our own, before anything else of the client goes on.

use std::sync::Arc;

use crate::session::dialogue::{Demand, Verdict};
use crate::session::lane::Lane;
use crate::session::postgres::prelude::literal;
use crate::wire::pg::from_client::{self, Described};
use crate::wire::pg::from_server::TransactionStatus;
use crate::wire::pg::turn::{Owner, Sent};

use super::{Conversation, Phase};

impl Conversation {
    /// The question that is to be answered now, if there is one: what asked it is over, and well.
    pub(super) fn question_due(&mut self) -> Option<Verdict> {
        let over = self.phase == Phase::Open && self.turn.is_settled() && self.group.is_empty();
        if !over || self.cleared {
            return None;
        }
        let asked: Arc<str> = self.question.take()?;
        if self.expected == TransactionStatus::Failed {
            return None;
        }
        self.phase = Phase::Looking;
        Some(Verdict::Demand(Demand::Outcomes(asked)))
    }

    /// SET is a utility: it takes no snapshot, which a client at the beginning of its block has yet to take.
    /// Under names of our own, so that the client's unnamed statement and portal stay what they are.
    pub(super) fn put_answer(&mut self, answer: &str, lane: &mut Lane) {
        if self.phase != Phase::Looking {
            return;
        }
        let text = format!("SET gatepost.outcomes = {}", literal(answer));
        let name = self.probe.answer_name();
        self.scratch.clear();
        let out = &mut self.scratch;
        from_client::put_close(out, Described::Statement, &name);
        from_client::put_parse(out, &name, text.as_bytes());
        from_client::put_bind(out, &name, &name);
        from_client::put_execute(out, &name, 0);
        from_client::put_close(out, Described::Portal, &name);
        from_client::put_close(out, Described::Statement, &name);
        from_client::put_sync(out);
        lane.add(&self.scratch);
        let sent = [
            Sent::Close,
            Sent::Parse,
            Sent::Bind,
            Sent::Execute,
            Sent::Close,
            Sent::Close,
            Sent::Sync,
        ];
        for sent in sent {
            self.turn.sent(sent, Owner::Ours);
        }
        self.phase = Phase::Answering;
    }
}
