//! Who owes what on one connection: one request at a time, its reply, and what an attention adds to that.
//!
//! Rules from 2.2.1.7 and 2.2.2.9 (attention) and 2.2.3.1.2 (the ignore bit of a request that is not finished).
//! Without MARS, which gatepost refuses, a second request never follows before the first is answered.

/// What was asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Asked {
    Batch,
    Rpc,
    Transaction,
    Bulk,
}

/// Whose reply it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Owner {
    Client,
    /// Gatepost's own; never goes on.
    Ours,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Owed {
    pub asked: Asked,
    pub owner: Owner,
}

/// The state of one upstream connection after its login. Every step consumes it.
#[derive(Debug, PartialEq, Eq)]
pub enum Turn {
    /// Nothing is owed.
    Idle,
    /// The request has begun and has not ended.
    Sending(Owed),
    /// The request is whole; one reply is owed.
    Waiting(Owed),
    /// The request ended with the ignore bit: a reply that only says so is owed.
    Dropped(Owed),
    /// An attention was sent: its acknowledgement is owed, a DONE with the attention bit. Before it, perhaps in
    /// a message of its own, comes what there is of the reply to the request.
    Cancelled(Option<Owed>),
    /// Something came that cannot be accounted for. Only closing the connection helps.
    Spoiled,
}

/// What to do with a client's attention.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Attention {
    /// Send it on, ahead of everything.
    Send,
    /// One is under way; a second would be acknowledged twice.
    Known,
    /// A request that is not finished is dropped with the ignore bit, not with an attention.
    Misplaced,
}

/// What a message from the server answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reply {
    To(Owed),
    /// The message that only acknowledges an attention.
    Acknowledgement,
    /// Nothing that was asked.
    Unasked,
}

/// What a connection whose client is gone still owes, and how it gets clean.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Debt {
    /// It may be reset and lent to the next client.
    Nothing,
    /// End the request with the ignore bit, then read one message.
    Request,
    /// Cancel it or wait for it, then read as before.
    Reply,
    /// Read until the turn is idle.
    Rest,
    /// Close the connection.
    Unknown,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TurnError {
    #[error("a request began before the one before it was answered")]
    NotIdle,
    #[error("a request ended that had not begun")]
    NotSending,
}

impl Turn {
    /// Is nothing owed? Only then may a request be sent, and with it the reset bit.
    pub const fn is_idle(&self) -> bool {
        matches!(self, Self::Idle)
    }

    /// Whose request is under way? The message that comes next is for it.
    pub const fn owed(&self) -> Option<Owed> {
        match self {
            Self::Sending(owed) | Self::Waiting(owed) | Self::Dropped(owed) => Some(*owed),
            Self::Cancelled(owed) => *owed,
            Self::Idle | Self::Spoiled => None,
        }
    }

    pub const fn debt(&self) -> Debt {
        match self {
            Self::Idle => Debt::Nothing,
            Self::Sending(_) => Debt::Request,
            Self::Waiting(_) => Debt::Reply,
            Self::Dropped(_) | Self::Cancelled(_) => Debt::Rest,
            Self::Spoiled => Debt::Unknown,
        }
    }

    /// Notes that the first packet of a request is sent.
    ///
    /// # Errors
    /// When a reply is still owed.
    pub fn began(self, owed: Owed) -> Result<Self, TurnError> {
        match self {
            Self::Idle => Ok(Self::Sending(owed)),
            Self::Sending(_) | Self::Waiting(_) | Self::Dropped(_) | Self::Cancelled(_) | Self::Spoiled => {
                Err(TurnError::NotIdle)
            }
        }
    }

    /// Notes that the last packet of the request is sent.
    ///
    /// # Errors
    /// When no request had begun.
    pub fn ended(self) -> Result<Self, TurnError> {
        match self {
            Self::Sending(owed) => Ok(Self::Waiting(owed)),
            // It was answered before it ended.
            Self::Spoiled => Ok(Self::Spoiled),
            Self::Idle | Self::Waiting(_) | Self::Dropped(_) | Self::Cancelled(_) => {
                Err(TurnError::NotSending)
            }
        }
    }

    /// Notes that the request ended with a packet that has the ignore bit.
    ///
    /// # Errors
    /// When no request had begun.
    pub fn dropped(self) -> Result<Self, TurnError> {
        match self {
            Self::Sending(owed) => Ok(Self::Dropped(owed)),
            Self::Spoiled => Ok(Self::Spoiled),
            Self::Idle | Self::Waiting(_) | Self::Dropped(_) | Self::Cancelled(_) => {
                Err(TurnError::NotSending)
            }
        }
    }

    /// An attention is to be sent. It may cross the end of the reply, so it is acknowledged when nothing else
    /// is owed as well.
    #[must_use]
    pub fn attention(self) -> (Self, Attention) {
        match self {
            Self::Idle => (Self::Cancelled(None), Attention::Send),
            Self::Waiting(owed) | Self::Dropped(owed) => (Self::Cancelled(Some(owed)), Attention::Send),
            Self::Cancelled(owed) => (Self::Cancelled(owed), Attention::Known),
            Self::Sending(owed) => (Self::Sending(owed), Attention::Misplaced),
            Self::Spoiled => (Self::Spoiled, Attention::Misplaced),
        }
    }

    /// Notes that a message from the server ended. `acknowledges`: it held a DONE with the attention bit.
    #[must_use]
    pub fn answered(self, acknowledges: bool) -> (Self, Reply) {
        match self {
            Self::Waiting(owed) | Self::Dropped(owed) if !acknowledges => (Self::Idle, Reply::To(owed)),
            Self::Cancelled(Some(owed)) if acknowledges => (Self::Idle, Reply::To(owed)),
            Self::Cancelled(Some(owed)) => (Self::Cancelled(None), Reply::To(owed)),
            Self::Cancelled(None) if acknowledges => (Self::Idle, Reply::Acknowledgement),
            // Answered before it ended, as when a bulk load fails early: does the rest of it have an answer?
            Self::Sending(owed) | Self::Waiting(owed) | Self::Dropped(owed) => {
                (Self::Spoiled, Reply::To(owed))
            }
            Self::Idle | Self::Cancelled(None) | Self::Spoiled => (Self::Spoiled, Reply::Unasked),
        }
    }

    /// Something cannot be accounted for: a reply that could not be read, or ended in the middle of a token.
    #[must_use]
    pub fn spoiled(self) -> Self {
        Self::Spoiled
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const OWED: Owed = Owed {
        asked: Asked::Batch,
        owner: Owner::Client,
    };

    fn waiting() -> Turn {
        Turn::Idle.began(OWED).unwrap().ended().unwrap()
    }

    #[test]
    fn a_request_is_answered_once() {
        let turn = waiting();
        assert_eq!(turn.owed(), Some(OWED));
        assert_eq!(turn.debt(), Debt::Reply);
        assert_eq!(turn.answered(false), (Turn::Idle, Reply::To(OWED)));
        assert_eq!(Turn::Idle.answered(false), (Turn::Spoiled, Reply::Unasked));
    }

    #[test]
    fn one_request_at_a_time() {
        assert_eq!(waiting().began(OWED), Err(TurnError::NotIdle));
        assert_eq!(Turn::Sending(OWED).began(OWED), Err(TurnError::NotIdle));
        assert_eq!(Turn::Spoiled.began(OWED), Err(TurnError::NotIdle));
        assert_eq!(waiting().ended(), Err(TurnError::NotSending));
        assert_eq!(Turn::Idle.dropped(), Err(TurnError::NotSending));
    }

    #[test]
    fn an_attention_is_acknowledged_behind_the_reply() {
        let (turn, attention) = waiting().attention();
        assert_eq!(attention, Attention::Send);
        let (turn, reply) = turn.answered(false);
        assert_eq!((&turn, reply), (&Turn::Cancelled(None), Reply::To(OWED)));
        assert_eq!(turn.debt(), Debt::Rest);
        assert_eq!(turn.answered(true), (Turn::Idle, Reply::Acknowledgement));
    }

    #[test]
    fn an_attention_is_acknowledged_in_the_reply() {
        let (turn, _) = waiting().attention();
        assert_eq!(turn.answered(true), (Turn::Idle, Reply::To(OWED)));
    }

    #[test]
    fn an_attention_may_cross_the_end_of_the_reply() {
        let (turn, _) = waiting().answered(false);
        let (turn, attention) = turn.attention();
        assert_eq!(attention, Attention::Send);
        assert!(!turn.is_idle());
        assert_eq!(turn.answered(true), (Turn::Idle, Reply::Acknowledgement));
    }

    #[test]
    fn a_second_attention_is_not_sent() {
        let (turn, _) = waiting().attention();
        let (turn, attention) = turn.attention();
        assert_eq!(attention, Attention::Known);
        assert_eq!(turn, Turn::Cancelled(Some(OWED)));
        assert_eq!(Turn::Sending(OWED).attention().1, Attention::Misplaced);
    }

    #[test]
    fn a_dropped_request_is_answered_as_well() {
        let turn = Turn::Idle.began(OWED).unwrap();
        assert_eq!(turn.debt(), Debt::Request);
        let turn = turn.dropped().unwrap();
        assert_eq!(turn.debt(), Debt::Rest);
        assert_eq!(turn.answered(false), (Turn::Idle, Reply::To(OWED)));
    }

    #[test]
    fn what_cannot_be_accounted_for_spoils() {
        let early = Turn::Sending(OWED).answered(false);
        assert_eq!(early, (Turn::Spoiled, Reply::To(OWED)));
        assert_eq!(early.0.ended(), Ok(Turn::Spoiled));
        // An acknowledgement of nothing, and none where one is owed.
        assert_eq!(waiting().answered(true).0, Turn::Spoiled);
        assert_eq!(Turn::Cancelled(None).answered(false).0, Turn::Spoiled);
        assert_eq!(waiting().spoiled().debt(), Debt::Unknown);
    }
}
