//! The reply to a client's login, in the order that every driver was seen to take, and the two tokens that only
//! it has (MS-TDS 2.2.7.14 LOGINACK, 2.2.7.11 FEATUREEXTACK).

use crate::wire::tds::event::{DoneKind, DoneStatus};
use crate::wire::tds::feature;
use crate::wire::tds::reply::{self, Said};
use crate::wire::tds::tag;
use crate::wire::tds::version::TdsVersion;

/// "Interface" of LOGINACK: Transact-SQL.
const TRANSACT_SQL: u8 = 1;

/// "Changed database context" and "Changed language setting", as SQL Server says them at every login.
const DATABASE_CHANGED: i32 = 5701;
const LANGUAGE_CHANGED: i32 = 5703;

/// What of the asked features is granted. Nothing else ever is: a feature changes how replies look.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Acknowledge {
    /// The client asked for FEDAUTH.
    pub federated: bool,
    /// Collations in UTF-8 may occur.
    pub utf8: bool,
}

/// What a client learns of its session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LoginAnswer<'a> {
    /// Named in messages.
    pub server: &'a str,
    pub database: &'a str,
    pub language: &'a str,
    pub collation: [u8; 5],
    /// From the next message on.
    pub packet_bytes: usize,
    /// What this client had before: what it asked for.
    pub packet_bytes_before: usize,
    pub version: TdsVersion,
    /// Drivers look for "Microsoft SQL Server".
    pub program: &'a str,
    pub program_version: [u8; 4],
    pub acknowledge: Acknowledge,
}

/// Appends the payload of the whole reply, for [`crate::wire::tds::packet::put_reply`].
pub fn put_login_answer(out: &mut Vec<u8>, login: &LoginAnswer<'_>) {
    reply::put_database(out, login.database, "master");
    let text = format!("Changed database context to '{}'.", login.database);
    put_notice(out, DATABASE_CHANGED, &text, login.server);
    reply::put_collation(out, login.collation, None);
    reply::put_language(out, login.language, "");
    let text = format!("Changed language setting to {}.", login.language);
    put_notice(out, LANGUAGE_CHANGED, &text, login.server);
    put_login_ack(out, login);
    reply::put_packet_size(out, login.packet_bytes, login.packet_bytes_before);
    put_feature_ack(out, login.acknowledge);
    reply::put_done(out, DoneKind::Batch, DoneStatus::FINAL, 0, 0);
}

/// LOGINACK (2.2.7.14): the login is accepted, by this program and in this version of TDS.
pub fn put_login_ack(out: &mut Vec<u8>, login: &LoginAnswer<'_>) {
    reply::put_counted(out, tag::LOGINACK, |body| {
        body.push(TRANSACT_SQL);
        // Here alone the version has its large byte first.
        body.extend_from_slice(&login.version.0.to_be_bytes());
        reply::put_b_varchar(body, login.program);
        body.extend_from_slice(&login.program_version);
    });
}

/// FEATUREEXTACK (2.2.7.11). Appends nothing when nothing is granted.
pub fn put_feature_ack(out: &mut Vec<u8>, acknowledge: Acknowledge) {
    let federated = acknowledge.federated.then_some((feature::id::FEDAUTH, &[][..]));
    let utf8 = acknowledge.utf8.then_some((feature::id::UTF8_SUPPORT, &[1][..]));
    if federated.is_some() || utf8.is_some() {
        out.push(tag::FEATUREEXTACK);
        feature::put_list(out, federated.into_iter().chain(utf8));
    }
}

fn put_notice(out: &mut Vec<u8>, number: i32, text: &str, server: &str) {
    let said = Said {
        number,
        state: 1,
        class: 0,
        text,
        server,
        procedure: "",
        line: 1,
    };
    reply::put_info(out, &said);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::tds::utf16;

    fn wide(text: &str) -> Vec<u8> {
        let mut out = vec![];
        utf16::put(&mut out, text);
        out
    }

    #[test]
    fn the_whole_reply_byte_for_byte() {
        let mut out = vec![];
        let login = LoginAnswer {
            server: "g",
            database: "o",
            language: "e",
            collation: [9, 4, 0xd0, 0, 0x34],
            packet_bytes: 8000,
            // Clients may ask for more than any packet can have, and are told what they asked for.
            packet_bytes_before: 100_000,
            version: TdsVersion::V7_4,
            program: "p",
            program_version: [16, 0, 4, 0],
            acknowledge: Acknowledge {
                federated: true,
                utf8: true,
            },
        };
        put_login_answer(&mut out, &login);
        let expected = [
            &b"\xe3\x11\0\x01\x01o\0\x06m\0a\0s\0t\0e\0r\0"[..],
            b"\xab\x50\0\x45\x16\0\0\x01\0\x20\0",
            &wide("Changed database context to 'o'."),
            b"\x01g\0\0\x01\0\0\0",
            b"\xe3\x08\0\x07\x05\x09\x04\xd0\0\x34\0",
            b"\xe3\x05\0\x02\x01e\0\0",
            b"\xab\x4c\0\x47\x16\0\0\x01\0\x1e\0",
            &wide("Changed language setting to e."),
            b"\x01g\0\0\x01\0\0\0",
            b"\xad\x0c\0\x01\x74\0\0\x04\x01p\0\x10\0\x04\0",
            b"\xe3\x17\0\x04\x048\x000\x000\x000\0\x061\x000\x000\x000\x000\x000\0",
            b"\xae\x02\0\0\0\0\x0a\x01\0\0\0\x01\xff",
            b"\xfd\0\0\0\0\0\0\0\0\0\0\0\0",
        ];
        assert_eq!(out, expected.concat());
    }
}
