//! Who owes what: the replies that the server still has to send, in order. Every reply is matched
//! to the message that caused it, so that replies to gatepost's own messages never reach a client
//! and a connection is only called clean when nothing is owed.
//!
//! Rules from "Message Flow" in PostgreSQL's documentation: an error makes the server skip to the
//! next Sync; while it reads COPY data it ignores Sync and Flush.

use std::collections::VecDeque;

use crate::wire::pg::from_server::TransactionStatus;

/// Replies that may be owed at once; a client whose pipeline is longer is held back until the server
/// has answered some. It always does: what a server keeps for a later flush fits its buffer of 8 KiB
/// (PostgreSQL's `PQ_SEND_BUFFER_SIZE`), which is less than 1,700 of the smallest replies.
pub const OWED_MAX: usize = 4_096;

/// A message that was sent and is answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sent {
    Parse,
    Bind,
    /// Describe of a statement: answered twice (parameters, then rows or none).
    DescribeStatement,
    DescribePortal,
    Execute,
    Close,
    Sync,
    Query,
    FunctionCall,
}

impl Sent {
    /// Does the server answer it with ReadyForQuery?
    const fn ends_in_ready(self) -> bool {
        matches!(self, Self::Sync | Self::Query | Self::FunctionCall)
    }
}

/// Whose reply it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Owner {
    Client,
    /// Made by splitting a client's Query into extended messages: only what a Query would have
    /// answered goes on.
    Converted,
    /// Gatepost's own; never goes on.
    Ours,
    /// Gatepost's question for the transaction id.
    Probe,
    /// Gatepost's message that fails on purpose; its error is replaced by a refusal.
    Poison,
}

/// What is copied between client and server at the moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Copying {
    Nothing,
    /// The server takes CopyData until CopyDone or CopyFail.
    In,
    Out,
}

/// What a message from the server answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reply {
    /// Notices, notifications, parameter changes: may come at any time, always for the client.
    Unasked,
    /// A part of, or the whole, answer to this message.
    To(Sent, Owner),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TurnError {
    #[error("the server sent message '{}' that nobody asked for", char::from(*.tag))]
    Unexpected { tag: u8 },
}

/// The replies owed on one upstream connection.
#[derive(Debug)]
pub struct Turn {
    owed: VecDeque<(Sent, Owner)>,
    status: TransactionStatus,
    copying: Copying,
    /// An error came before any Sync was sent: the server ignores everything up to the next one.
    skipping: bool,
}

impl Turn {
    /// A connection that has just logged in, or was just reset.
    pub const fn idle() -> Self {
        Self {
            owed: VecDeque::new(),
            status: TransactionStatus::Idle,
            copying: Copying::Nothing,
            skipping: false,
        }
    }

    /// Does the server ignore what is sent, up to the next Sync?
    pub const fn is_skipping(&self) -> bool {
        self.skipping
    }

    /// The status in the last ReadyForQuery.
    pub const fn status(&self) -> TransactionStatus {
        self.status
    }

    pub const fn copying(&self) -> Copying {
        self.copying
    }

    /// Is nothing owed?
    pub fn is_settled(&self) -> bool {
        self.owed.is_empty() && self.copying == Copying::Nothing
    }

    /// May this connection be reset and lent to the next client?
    pub fn is_clean(&self) -> bool {
        self.is_settled() && self.status == TransactionStatus::Idle
    }

    /// Is more owed than a client may let pile up?
    pub fn is_full(&self) -> bool {
        self.owed.len() >= OWED_MAX
    }

    /// Is a reply owed that ends in ReadyForQuery?
    pub fn awaits_ready(&self) -> bool {
        self.owed.iter().any(|(sent, _)| sent.ends_in_ready())
    }

    /// Whose reply comes next?
    pub fn front_owner(&self) -> Option<Owner> {
        self.owed.front().map(|(_, owner)| *owner)
    }

    /// Does the next ReadyForQuery end a group that is wholly our own?
    pub fn is_own_group(&self) -> bool {
        let ready = self.owed.iter().find(|(sent, _)| sent.ends_in_ready());
        ready.is_some_and(|(_, owner)| *owner == Owner::Ours)
    }

    /// Is a reply owed to the client, as opposed to our own questions?
    pub fn is_client_waiting(&self) -> bool {
        self.front_owner()
            .is_some_and(|owner| matches!(owner, Owner::Client | Owner::Converted))
    }

    /// Notes that a message was sent.
    pub fn sent(&mut self, sent: Sent, owner: Owner) {
        // The server reads and ignores Sync between the start of COPY FROM STDIN and its end.
        if self.copying == Copying::In && sent == Sent::Sync {
            return;
        }
        if self.skipping && sent != Sent::Sync {
            return;
        }
        self.skipping = false;
        self.owed.push_back((sent, owner));
    }

    /// Notes that the client ended its copy data (CopyDone or CopyFail was sent).
    pub fn copy_data_ended(&mut self) {
        if self.copying == Copying::In {
            self.copying = Copying::Nothing;
        }
    }

    /// Matches a message from the server. `status` is that of a ReadyForQuery.
    ///
    /// # Errors
    /// When nothing that was sent can have caused this message.
    pub fn received(&mut self, tag: u8, status: Option<TransactionStatus>) -> Result<Reply, TurnError> {
        if matches!(tag, b'N' | b'A' | b'S') {
            return Ok(Reply::Unasked);
        }
        let Some((sent, owner)) = self.owed.front().copied() else {
            // A FATAL error (an administrator ended the session) may come when nothing is owed.
            return if tag == b'E' {
                Ok(Reply::Unasked)
            } else {
                Err(TurnError::Unexpected { tag })
            };
        };
        match tag {
            b'E' => self.failed(),
            b'Z' if sent.ends_in_ready() => {
                self.status = status.unwrap_or(self.status);
                self.copying = Copying::Nothing;
                self.owed.pop_front();
            }
            b'G' => self.copy_in_began(),
            b'H' => self.copying = Copying::Out,
            _ if !answers(tag, sent) => return Err(TurnError::Unexpected { tag }),
            _ if completes(tag, sent) => {
                self.copying = Copying::Nothing;
                self.owed.pop_front();
            }
            _ => {}
        }
        Ok(Reply::To(sent, owner))
    }

    /// Behind an extended message that failed the server skips all that was sent up to the next Sync, a Query and a
    /// FunctionCall too; one of these that fails itself is followed by its ReadyForQuery all the same.
    fn failed(&mut self) {
        self.copying = Copying::Nothing;
        if self.owed.front().is_some_and(|(sent, _)| sent.ends_in_ready()) {
            return;
        }
        while self.owed.front().is_some_and(|(sent, _)| *sent != Sent::Sync) {
            self.owed.pop_front();
        }
        self.skipping = self.owed.is_empty();
    }

    /// A Sync that was already sent behind the COPY is ignored by the server.
    fn copy_in_began(&mut self) {
        self.copying = Copying::In;
        self.owed.retain({
            let mut first = true;
            move |(sent, _)| std::mem::take(&mut first) || *sent != Sent::Sync
        });
    }
}

/// Can a message with this tag be part of the answer?
const fn answers(tag: u8, sent: Sent) -> bool {
    match sent {
        Sent::Parse => tag == b'1',
        Sent::Bind => tag == b'2',
        Sent::Close => tag == b'3',
        Sent::DescribeStatement => matches!(tag, b't' | b'T' | b'n'),
        Sent::DescribePortal => matches!(tag, b'T' | b'n'),
        Sent::Execute => matches!(tag, b'D' | b'C' | b'I' | b's' | b'd' | b'c'),
        Sent::Query => matches!(tag, b'T' | b'D' | b'C' | b'I' | b'd' | b'c'),
        Sent::FunctionCall => tag == b'V',
        Sent::Sync => false,
    }
}

/// Is a message with this tag the last part of the answer?
const fn completes(tag: u8, sent: Sent) -> bool {
    match sent {
        Sent::Parse | Sent::Bind | Sent::Close => true,
        Sent::DescribeStatement | Sent::DescribePortal => matches!(tag, b'T' | b'n'),
        Sent::Execute => matches!(tag, b'C' | b'I' | b's'),
        Sent::Query | Sent::FunctionCall | Sent::Sync => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const READY: Option<TransactionStatus> = Some(TransactionStatus::Idle);

    fn replies(turn: &mut Turn, tags: &str) -> Vec<Owner> {
        let mut owners = Vec::new();
        for tag in tags.bytes() {
            if let Reply::To(_, owner) = turn.received(tag, READY).unwrap() {
                owners.push(owner);
            }
        }
        owners
    }

    fn group(probe: bool) -> Turn {
        let mut turn = Turn::idle();
        for sent in [Sent::Parse, Sent::Bind, Sent::Execute] {
            turn.sent(sent, Owner::Client);
        }
        if probe {
            turn.sent(Sent::Bind, Owner::Probe);
            turn.sent(Sent::Execute, Owner::Probe);
        }
        turn.sent(Sent::Sync, Owner::Client);
        turn
    }

    #[test]
    fn the_probe_s_replies_are_told_apart() {
        use Owner::{Client, Probe};
        let mut turn = group(true);
        let owners = replies(&mut turn, "12DDC2DCZ");
        assert_eq!(
            owners,
            [
                Client, Client, Client, Client, Client, Probe, Probe, Probe, Client
            ]
        );
        assert!(turn.is_clean());
    }

    #[test]
    fn an_error_skips_to_the_sync() {
        let mut turn = group(true);
        assert_eq!(replies(&mut turn, "12EZ"), [Owner::Client; 4]);
        assert!(turn.is_clean());
    }

    #[test]
    fn what_is_sent_behind_an_error_is_not_answered() {
        let mut turn = Turn::idle();
        turn.sent(Sent::Parse, Owner::Client);
        replies(&mut turn, "E");
        for sent in [Sent::Bind, Sent::Execute, Sent::Sync] {
            turn.sent(sent, Owner::Client);
        }
        assert_eq!(replies(&mut turn, "Z"), [Owner::Client]);
        assert!(turn.is_clean());
    }

    #[test]
    fn a_call_behind_an_error_is_skipped_like_the_rest() {
        let mut turn = Turn::idle();
        turn.sent(Sent::Execute, Owner::Client);
        turn.sent(Sent::FunctionCall, Owner::Probe);
        replies(&mut turn, "E");
        assert!(turn.is_skipping());
        turn.sent(Sent::Sync, Owner::Client);
        assert_eq!(replies(&mut turn, "Z"), [Owner::Client]);
        assert!(turn.is_clean());
    }

    #[test]
    fn a_call_that_fails_itself_ends_in_ready() {
        let mut turn = Turn::idle();
        turn.sent(Sent::Execute, Owner::Client);
        turn.sent(Sent::FunctionCall, Owner::Probe);
        use Owner::{Client, Probe};
        assert_eq!(replies(&mut turn, "CVEZ"), [Client, Probe, Probe, Probe]);
        assert!(turn.is_clean() && !turn.is_skipping());
    }

    #[test]
    fn an_error_behind_the_probe_belongs_to_the_sync() {
        // A deferred constraint fails when Sync commits.
        let mut turn = group(true);
        replies(&mut turn, "12C2DC");
        assert_eq!(
            turn.received(b'E', None),
            Ok(Reply::To(Sent::Sync, Owner::Client))
        );
        replies(&mut turn, "Z");
        assert!(turn.is_clean());
    }

    #[test]
    fn a_sync_before_the_copy_data_is_not_answered() {
        let mut turn = group(false);
        replies(&mut turn, "12G");
        assert_eq!(turn.copying(), Copying::In);
        turn.sent(Sent::Sync, Owner::Client);
        turn.copy_data_ended();
        turn.sent(Sent::Sync, Owner::Client);
        replies(&mut turn, "CZ");
        assert!(turn.is_clean());
    }

    #[test]
    fn a_simple_query_may_answer_many_times() {
        let mut turn = Turn::idle();
        turn.sent(Sent::Query, Owner::Client);
        replies(&mut turn, "TDDCTDCICEZ");
        assert!(turn.is_clean());
    }

    #[test]
    fn what_nobody_asked_for_is_an_error() {
        let mut turn = Turn::idle();
        assert_eq!(
            turn.received(b'D', None),
            Err(TurnError::Unexpected { tag: b'D' })
        );
        assert_eq!(turn.received(b'N', None), Ok(Reply::Unasked));
        let mut turn = group(false);
        assert_eq!(
            turn.received(b'D', None),
            Err(TurnError::Unexpected { tag: b'D' })
        );
    }
}
