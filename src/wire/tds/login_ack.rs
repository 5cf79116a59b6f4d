//! The reply to a client's login (MS-TDS 2.2.7.14 LOGINACK, 2.2.7.9 ENVCHANGE, 2.2.7.11 FEATUREEXTACK),
//! in the order that every driver was seen to take.

use crate::wire::tds::answer;
use crate::wire::tds::answer::ServerMessage;
use crate::wire::tds::feature;
use crate::wire::tds::version::TdsVersion;

pub const ENVCHANGE: u8 = 0xe3;
pub const LOGINACK: u8 = 0xad;
pub const FEATUREEXTACK: u8 = 0xae;

/// "Interface" of LOGINACK: Transact-SQL.
const TRANSACT_SQL: u8 = 1;

/// "Changed database context" and "Changed language setting", as SQL Server says them at every login.
const DATABASE_CHANGED: u32 = 5701;
const LANGUAGE_CHANGED: u32 = 5703;

/// The kinds of ENVCHANGE that a login brings.
pub mod change {
    pub const DATABASE: u8 = 1;
    pub const LANGUAGE: u8 = 2;
    pub const PACKET_SIZE: u8 = 4;
    pub const COLLATION: u8 = 7;
    pub const RESET: u8 = 18;
    pub const ROUTING: u8 = 20;
    pub const ENHANCED_ROUTING: u8 = 21;
}

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
    put_text_change(out, change::DATABASE, login.database, "master");
    let text = format!("Changed database context to '{}'.", login.database);
    put_notice(out, DATABASE_CHANGED, &text, login.server);
    put_collation_change(out, login.collation);
    put_text_change(out, change::LANGUAGE, login.language, "");
    let text = format!("Changed language setting to {}.", login.language);
    put_notice(out, LANGUAGE_CHANGED, &text, login.server);
    put_login_ack(out, login);
    put_packet_size_change(out, login.packet_bytes, login.packet_bytes_before);
    put_feature_ack(out, login.acknowledge);
    answer::put_done(out, answer::done::FINAL, 0, 0);
}

pub fn put_login_ack(out: &mut Vec<u8>, login: &LoginAnswer<'_>) {
    out.push(LOGINACK);
    answer::put_counted(out, |body| {
        body.push(TRANSACT_SQL);
        // Here alone the version has its large byte first.
        body.extend_from_slice(&login.version.0.to_be_bytes());
        answer::put_b_varchar(body, login.program);
        body.extend_from_slice(&login.program_version);
    });
}

/// An ENVCHANGE whose values are texts.
pub fn put_text_change(out: &mut Vec<u8>, kind: u8, new: &str, old: &str) {
    out.push(ENVCHANGE);
    answer::put_counted(out, |body| {
        body.push(kind);
        answer::put_b_varchar(body, new);
        answer::put_b_varchar(body, old);
    });
}

pub fn put_packet_size_change(out: &mut Vec<u8>, new: usize, old: usize) {
    put_text_change(out, change::PACKET_SIZE, &new.to_string(), &old.to_string());
}

pub fn put_collation_change(out: &mut Vec<u8>, collation: [u8; 5]) {
    out.push(ENVCHANGE);
    answer::put_counted(out, |body| {
        body.extend_from_slice(&[change::COLLATION, 5]);
        body.extend_from_slice(&collation);
        body.push(0); // none before
    });
}

/// The session was reset, as asked by a flag of the request.
pub fn put_reset_change(out: &mut Vec<u8>) {
    out.push(ENVCHANGE);
    answer::put_counted(out, |body| body.extend_from_slice(&[change::RESET, 0, 0]));
}

/// Appends nothing when nothing is granted.
pub fn put_feature_ack(out: &mut Vec<u8>, acknowledge: Acknowledge) {
    let federated = acknowledge.federated.then_some((feature::id::FEDAUTH, &[][..]));
    let utf8 = acknowledge.utf8.then_some((feature::id::UTF8_SUPPORT, &[1][..]));
    if federated.is_some() || utf8.is_some() {
        out.push(FEATUREEXTACK);
        feature::put_list(out, federated.into_iter().chain(utf8));
    }
}

fn put_notice(out: &mut Vec<u8>, number: u32, message: &str, server: &str) {
    let info = ServerMessage {
        number,
        state: 1,
        class: 0,
        message,
        server,
        line: 1,
    };
    answer::put_info(out, &info);
}
