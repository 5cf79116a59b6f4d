//! Transactions that are marked in the server's WAL.

use crate::audit::{Event, MarkerKey, SigningKey};
use crate::domain::Installation;

use super::{Called, Complete, Idle, InBlock, Marked, Plain, Ready, Story};

/// RFC 8410, section 10.3.
const KEY: &[u8] = b"-----BEGIN PRIVATE KEY-----\n\
    MC4CAQAwBQYDK2VwBCIEINTuctv5E1hK1bbY8fdp+K06/nwoy/HU++CXqI9EdVhC\n\
    -----END PRIVATE KEY-----\n";

fn marking() -> Story {
    let key = MarkerKey::of(&SigningKey::read(KEY).unwrap(), &Installation::new("i"));
    let story = Story::new();
    Story {
        conversation: story.conversation.marking(Some(key), "probe", 9),
        ..story
    }
}

/// Where the WAL is to be searched from, of each intent.
fn marked(story: &Story) -> Vec<Option<String>> {
    let marker = |record: &crate::audit::Record| {
        let Event::TransactionIntent(transaction) = &record.event else {
            panic!("no intent")
        };
        transaction.marker.as_ref().map(ToString::to_string)
    };
    story.intents.iter().map(marker).collect()
}

#[test]
fn an_autocommit_write_is_marked_in_place_of_the_probe() {
    let mut story = marking();
    for sent in ["PBECPBEH", "PBEBEH"] {
        assert_eq!(story.extended("insert into t values (1)"), sent);
        story.server(&[Plain("12"), Complete("INSERT 0 1")]);
        if sent == "PBECPBEH" {
            story.server(&[Plain("31")]);
        }
        let (_, to_server) = story.server(&[Plain("2"), Marked(700, 0x1_0000_0028), Complete("SELECT 1")]);
        assert_eq!(to_server, "S");
        story.server(&[Ready(Idle)]);
    }
    assert_eq!(story.intended(), [Some(700), Some(700)]);
    assert_eq!(marked(&story), [Some("1/28".to_owned()), Some("1/28".to_owned())]);
}

#[test]
fn a_block_is_marked_right_before_its_commit() {
    let mut story = marking();
    story.query("begin");
    story.server(&[Complete("BEGIN"), Ready(InBlock)]);
    assert_eq!(story.query("insert into t values (1)"), "QF", "the plain probe");
    story.server(&[Complete("INSERT 0 1"), Ready(InBlock)]);
    story.server(&[Called(Some(77)), Ready(InBlock)]);
    assert_eq!(story.query("commit"), "CPBECS", "COMMIT waits");
    assert!(story.intents.is_empty());
    let replies = [
        Plain("31"),
        Plain("2"),
        Marked(77, 40),
        Complete("SELECT 1"),
        Plain("3"),
        Ready(InBlock),
    ];
    let (to_client, to_server) = story.server(&replies);
    assert_eq!((to_client.as_str(), to_server.as_str()), ("", "Q"));
    assert_eq!(marked(&story), [Some("0/28".to_owned())]);
    story.server(&[Complete("COMMIT"), Ready(Idle)]);
    assert_eq!(story.outcomes.len(), 1);
}

#[test]
fn what_wrote_nothing_is_not_marked() {
    let mut story = marking();
    story.query("begin");
    story.server(&[Complete("BEGIN"), Ready(InBlock)]);
    story.query("select 1");
    story.server(&[Complete("SELECT 1"), Ready(InBlock)]);
    story.server(&[Called(None), Ready(InBlock)]);
    assert_eq!(story.query("commit"), "Q");
    assert!(story.intents.is_empty());
}
