//! Stories of sessions that end when they should not, and of connections that nobody may have after them.

use super::{
    Argument, Callee, SPID, Status, Story, batch, commit, in_transaction, outcome, payload, reply_packet, rpc,
};
use crate::domain::{Reason, Refusal, RefusalCode};
use crate::session::dialogue::Dialogue as _;

impl super::Conversation {
    pub(super) fn is_at_rest_and_clean(&self) -> bool {
        self.is_at_rest() && self.leaves_clean() && self.owes_nothing()
    }
}

impl Story {
    /// One side is gone. What is on record then.
    fn abandoned(&mut self) -> Vec<String> {
        let last = self.conversation.abandon(super::NOW);
        let records = self.conversation.take_records();
        last.iter().chain(&records).map(outcome).collect()
    }

    fn farewell(&mut self) -> String {
        let mut bytes = Vec::new();
        let refusal = Refusal {
            code: RefusalCode::SessionExpired,
            reason: Reason::EndedByOperator,
            reference: super::SessionId::random(&super::Seven),
        };
        self.conversation.put_farewell(&mut bytes, &refusal);
        self.show_replies(&bytes);
        self.told()
    }
}

#[test]
fn a_server_that_is_lost_behind_the_commit_leaves_it_in_doubt() {
    let mut story = in_transaction();
    assert_eq!(story.abandoned(), ["aborted:70:complete"]);
    let mut story = in_transaction();
    story.client(&commit(7));
    assert_eq!(story.abandoned(), ["indoubt:70:complete"]);
    let mut story = Story::new();
    story.client(&batch(0, "INSERT a VALUES (1)"));
    assert_eq!(story.abandoned(), ["indoubt:-:partial"]);
    let mut story = Story::new();
    story.client(&batch(0, "SELECT 1"));
    assert!(story.abandoned().is_empty());
}

#[test]
fn a_commit_that_was_told_is_on_record_even_if_the_reply_has_no_end() {
    let mut story = Story::new();
    story.client(&batch(
        0,
        "BEGIN TRAN; INSERT a VALUES (1); COMMIT; WAITFOR DELAY '1:00'",
    ));
    story.server_begins("begin:7 inserted:1 commit:7 done+");
    assert_eq!(story.abandoned(), ["committed:-:partial"]);
}

#[test]
fn a_client_that_leaves_before_its_request_is_whole_has_committed_nothing() {
    let mut story = Story::new();
    story.exchange(&batch(0, "INSERT BULK a (b int)"), "done");
    story.client(&super::part(super::PacketKind::Bulk, Status::NORMAL, &[1; 100]));
    assert!(!story.conversation.is_committing());
    assert_eq!(story.abandoned(), ["aborted:-:partial"]);
    assert!(!story.conversation.leaves_clean());
}

#[test]
fn what_cannot_be_read_is_relayed_and_the_connection_closed_behind_it() {
    let mut story = Story::new();
    story.client(&batch(0, "SELECT 1"));
    assert_eq!(
        story.server("int:1 unknown"),
        "<columns row lost. >'SELECT @@TRANCOUNT'"
    );
    assert_eq!(story.server("int:0 done"), "");
    assert!(!story.conversation.leaves_clean());
    assert_eq!(story.counters.unread(), 1);
    assert_eq!(story.client(&batch(0, "SELECT 1")), ">'SELECT 1'");
    // A write whose end cannot be read is in doubt.
    let mut story = Story::new();
    story.client(&batch(0, "INSERT a VALUES (1)"));
    story.server("unknown");
    assert_eq!(story.server("int:0 done"), "indoubt:-:partial");
}

#[test]
fn a_token_that_is_malformed_ends_the_session() {
    let mut story = Story::new();
    story.client(&batch(0, "SELECT 1"));
    assert_eq!(
        story.server_bytes(&reply_packet(Status::EOM, &[0xaa, 2, 0, 1, 2])),
        "fault"
    );
}

#[test]
fn another_face_is_nobody_elses() {
    let mut story = Story::new();
    story.exchange(&batch(0, "EXECUTE AS USER = 'x'"), "done");
    assert!(!story.conversation.leaves_clean());
    let mut story = Story::new();
    let call = rpc(0, &[(Callee::Name("sp_setapprole"), &[Argument::text("", "r")])]);
    story.exchange(&call, "status:0 doneproc");
    assert!(!story.conversation.leaves_clean());
}

#[test]
fn a_farewell_is_said_where_it_can_be_read() {
    let mut story = Story::new();
    assert_eq!(story.farewell(), "<error:40613 done!.");
    // Between two tokens of a reply.
    let mut story = Story::new();
    story.client(&batch(0, "SELECT 1"));
    story.server_begins("int:1");
    assert_eq!(story.farewell(), "<error:40613 done!.");
    // In the middle of one nothing can be said.
    let mut story = Story::new();
    story.client(&batch(0, "SELECT 1"));
    let torn = payload("int:1");
    story.server_bytes(&reply_packet(Status::NORMAL, &torn[..torn.len() - 2]));
    assert_eq!(story.farewell(), "");
}

#[test]
fn a_farewell_goes_by_what_the_client_has_seen() {
    // The last packet is held for an outcome that cannot be written: what went before ends in a token.
    let mut story = Story::new();
    story.client(&batch(0, "INSERT a VALUES (1)"));
    let whole = payload("inserted:1 done");
    story.server_bytes(&reply_packet(Status::NORMAL, &whole[..20]));
    story.to_client.push(&reply_packet(Status::EOM, &whole[20..]));
    let verdict = story
        .conversation
        .judge_server(&mut story.to_client, &mut story.to_server, super::NOW);
    assert!(matches!(
        verdict,
        Ok(super::Verdict::Demand(super::Demand::Outcome(_)))
    ));
    assert_eq!(story.farewell(), "");
    assert_eq!(SPID, 53);
}
