//! `sp_set_session_context N'gatepost.outcome_of'`: a client asks what became of a message. The answer is put into
//! its session context by a request of our own, before the next of the client goes on.

use crate::session::dialogue::{Demand, Fault, Verdict};
use crate::session::lane::Lane;
use crate::wire::tds::event::Event;
use crate::wire::tds::packet::Status;
use crate::wire::tds::token::Reader;

use super::questions::Question;
use super::{Conversation, Phase};

/// `sp_set_session_context` takes 8,000 bytes, and an answer in ASCII has one for each character.
pub(super) const ANSWER_BYTES_MAX: usize = 8_000;

impl Conversation {
    /// The question that is to be answered now, if there is one: what asked it is over, and well.
    pub(super) fn question_due(&mut self) -> Option<Verdict> {
        let over = self.phase == Phase::Open && self.turn.is_idle() && self.plan.is_none();
        if !over || !self.plan_only.is_empty() {
            return None;
        }
        let asked = self.question.take()?;
        self.phase = Phase::Looking;
        Some(Verdict::Demand(Demand::Outcomes(asked)))
    }

    pub(super) fn put_answer(&mut self, answer: &str, to_server: &mut Lane) -> Result<(), Fault> {
        if self.phase != Phase::Looking {
            return Ok(());
        }
        let answer = answer.replace('\'', "''");
        // Quoted in ASCII: as Unicode each character would have two bytes.
        let text = format!("EXEC sp_set_session_context N'gatepost.outcomes', '{answer}'");
        self.ask_with(Question::Answer, (&text, Status::NORMAL), to_server)
    }

    /// An answer that was not taken must not leave one in its place that was given to an earlier question.
    pub(super) fn answer_taken(&self) -> Result<(), Fault> {
        let mut error = None;
        let mut reader = Reader::default();
        let read = reader.read(&self.answer, &mut |event| {
            if let Event::Error(told) = event {
                error = error.or(Some(told.number));
            }
        });
        read.map_err(Fault::Server)?;
        match error {
            None => Ok(()),
            Some(number) => {
                let what = format!("the answer to the client's question was not taken (error {number})");
                Err(Fault::OutOfTurn { what })
            }
        }
    }
}
