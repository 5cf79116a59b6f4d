//! Gatepost's own questions on the client's connection, while the client thinks: the id of its
//! transaction, the number of open ones, and the reset that it asked for.

use std::time::SystemTime;

use crate::audit::record::Outcome;
use crate::session::dialogue::Fault;
use crate::session::lane::Lane;
use crate::sql::tsql::PlanOnly;
use crate::wire::PeerMisbehaved;
use crate::wire::tds::event::{EnvChange, Event};
use crate::wire::tds::packet::{PacketKind, Status};
use crate::wire::tds::request::put_batch;
use crate::wire::tds::rows::{Value, first_row};
use crate::wire::tds::token::Reader;
use crate::wire::tds::turn::{Asked, Owed, Owner};

use super::{Conversation, Open, Phase};

/// Our questions have one short row for an answer.
const ANSWER_BYTES_MAX: usize = 64 * 1024;

const COUNT: &str = "SELECT @@TRANCOUNT";

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Question {
    /// What is the id of the transaction at hand?
    Id,
    /// How many transactions are open?
    Count,
    /// Is the transaction marked now?
    Mark,
    /// Has the answer to the client's question been taken?
    Answer,
    /// The reset of this kind that the client asked for, and what is set behind it.
    Reset(Status),
}

impl Conversation {
    /// Asks, if something is to be known that nobody told.
    pub(super) fn wonder(&mut self, to_server: &mut Lane) -> Result<(), Fault> {
        if self.phase != Phase::Open || !self.turn.is_idle() || !self.plan_only.is_empty() {
            return Ok(());
        }
        if self.reply.count_unclear {
            self.reply.count_unclear = false;
            return self.ask(Question::Count, to_server);
        }
        let wanted = self.open.depth > 0 && self.ledger.id().is_none() && !self.asked;
        if wanted && self.habits.id_question.is_some() {
            self.asked = true;
            return self.ask(Question::Id, to_server);
        }
        Ok(())
    }

    pub(super) fn ask(&mut self, question: Question, to_server: &mut Lane) -> Result<(), Fault> {
        match question {
            Question::Id => {
                let text = self.habits.id_question.unwrap_or(COUNT);
                self.ask_with(question, (text, Status::NORMAL), to_server)
            }
            Question::Count => self.ask_with(question, (COUNT, Status::NORMAL), to_server),
            Question::Reset(status) => {
                let prelude = std::mem::take(&mut self.prelude);
                let asked = self.ask_with(question, (&prelude, status), to_server);
                self.prelude = prelude;
                asked
            }
            // They come with a value, and are sent from elsewhere.
            Question::Mark | Question::Answer => Ok(()),
        }
    }

    pub(super) fn ask_with(
        &mut self,
        question: Question,
        (text, status): (&str, Status),
        to_server: &mut Lane,
    ) -> Result<(), Fault> {
        // A reset ends the transaction before the text is looked at.
        let descriptor = if status.has(Status::RESET) {
            0
        } else {
            self.open.descriptor
        };
        let mut payload = Vec::new();
        put_batch(&mut payload, descriptor, None, text);
        let owed = Owed {
            asked: Asked::Batch,
            owner: Owner::Ours,
        };
        self.send((PacketKind::Batch, status), &payload, owed, to_server)?;
        self.answer.clear();
        self.phase = Phase::Asking(question);
        Ok(())
    }

    /// A packet of the answer.
    pub(super) fn answering(&mut self, body: &[u8]) -> Result<(), Fault> {
        let length = self.answer.len().saturating_add(body.len());
        if length > ANSWER_BYTES_MAX {
            return Err(Fault::Server(PeerMisbehaved::TooLarge {
                what: "the answer to our question",
                length,
                limit: ANSWER_BYTES_MAX,
            }));
        }
        self.answer.extend_from_slice(body);
        Ok(())
    }

    /// The answer is whole.
    pub(super) fn answered(&mut self, question: Question, now: SystemTime) -> Result<(), Fault> {
        self.step(|turn| turn.answered(false));
        self.phase = Phase::Open;
        if question == Question::Mark {
            return self.mark_answered(now);
        }
        if question == Question::Answer {
            return self.answer_taken();
        }
        let row = first_row(&self.answer).map_err(Fault::Server)?;
        let value = row.and_then(|row| row.into_iter().next());
        match question {
            Question::Id => {
                if let Some(Value::Int(id)) = value {
                    self.ledger.learned(u64::try_from(id).ok());
                }
            }
            Question::Count => {
                let Some(Value::Int(count)) = value else {
                    self.spoiled = true;
                    if self.unsettled.take().is_some() {
                        self.close(Outcome::InDoubt, now);
                    }
                    return Ok(());
                };
                self.counted(u32::try_from(count).unwrap_or(u32::MAX), now);
            }
            Question::Reset(status) => self.was_reset(status, now)?,
            Question::Mark | Question::Answer => {}
        }
        Ok(())
    }

    /// The server says how many transactions are open.
    fn counted(&mut self, depth: u32, now: SystemTime) {
        let ended = self.open.depth > 0 && depth == 0;
        let began = self.open.depth == 0 && depth > 0;
        let unsettled = self.unsettled.take();
        self.open.depth = depth;
        if ended {
            self.open = Open::default();
            // It ended, and nobody said how.
            self.close(Outcome::InDoubt, now);
        } else if began {
            self.asked = false;
            self.ledger.began(now);
            if unsettled.is_some_and(|(_, cleared)| cleared) {
                // Some of it may have been committed before.
                self.ledger.mark_partial();
            }
        } else if let Some((outcome, _)) = unsettled.filter(|_| depth == 0) {
            self.close(outcome, now);
        }
        self.records.append(&mut self.held);
    }

    /// The session is new, and belongs to the same client.
    fn was_reset(&mut self, status: Status, now: SystemTime) -> Result<(), Fault> {
        let mut reset = false;
        let mut error = None;
        let mut reader = Reader::default();
        let read = reader.read(&self.answer, &mut |event| {
            if let Event::EnvChange(change) = event {
                reset |= change == EnvChange::ResetAck;
            } else if let Event::Error(told) = event {
                error = error.or(Some(told.number));
            }
        });
        read.map_err(Fault::Server)?;
        if !reset || error.is_some() {
            let what = format!("the reset was not made (error {error:?})");
            return Err(Fault::OutOfTurn { what });
        }
        if self.open.depth > 0 && status.has(Status::RESET) {
            self.open = Open::default();
            self.close(Outcome::Aborted, now);
            self.records.append(&mut self.held);
        }
        self.texts.clear();
        self.question = None;
        self.implicit = false;
        self.plan_only = PlanOnly::NONE;
        self.reset_made = true;
        Ok(())
    }
}
