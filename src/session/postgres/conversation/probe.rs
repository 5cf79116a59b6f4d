//! The question for the transaction id, inside the client's transaction. Where the group may end with it, it is a
//! function call by number: one message, and nobody short of a superuser can put another function behind the number.
//! Else it is a statement, prepared once per upstream connection under a name of our own, bound and executed.

use crate::session::lane::Lane;
use crate::wire::pg::from_client;
use crate::wire::pg::from_client::Described;
use crate::wire::pg::from_server;
use crate::wire::pg::from_server::FromServer;
use crate::wire::pg::turn::{Owner, Sent, Turn};

/// Schema-qualified, so that no client's search_path can put another function in its place. NULL
/// until the transaction has written.
const TEXT: &[u8] = b"SELECT pg_catalog.pg_current_xact_id_if_assigned() /* gatepost */";

/// The same, which besides writes our marker into the WAL as part of the transaction, if that has written
/// anything. The place in the WAL is read before the marker is there.
const MARKER_TEXT: &[u8] = b"SELECT q.x, CASE WHEN q.x IS NOT NULL THEN pg_catalog.pg_current_wal_insert_lsn() END, \
    CASE WHEN q.x IS NOT NULL THEN pg_catalog.pg_logical_emit_message(true, 'gatepost', $1::pg_catalog.bytea) END \
    FROM (SELECT pg_catalog.pg_current_xact_id_if_assigned() AS x OFFSET 0) AS q /* gatepost */";

/// `pg_current_xact_id_if_assigned()` in every PostgreSQL since 13 (`pg_proc.dat`): numbers of built-in functions are
/// never given to others.
const FUNCTION: u32 = 5060;

/// Which portal carries the probe.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Portal {
    /// Ends with the transaction at the Sync. Would destroy an unnamed portal that a client in a
    /// block wants to resume.
    Unnamed,
    /// Closed again behind the probe.
    Named,
}

#[derive(Debug)]
pub(super) struct Probe {
    name: Vec<u8>,
    text: &'static [u8],
    /// Does the server hold our statement under our name, as far as anybody can tell?
    trusted: bool,
    /// The session may have made code of its own (a temporary function, say), and any later statement
    /// may run it: whatever is called can take our name away from our statement by SQL.
    always_anew: bool,
}

impl Probe {
    pub(super) fn new(name: &str) -> Self {
        Self {
            name: name.as_bytes().to_vec(),
            text: TEXT,
            trusted: false,
            always_anew: false,
        }
    }

    /// The question that marks as well, for [`Self::put_with`].
    pub(super) fn marking(name: &str) -> Self {
        Self {
            text: MARKER_TEXT,
            ..Self::new(&format!("{name}_marker"))
        }
    }

    /// A name beside it, for what a client is told in its session.
    pub(super) fn answer_name(&self) -> Vec<u8> {
        [self.name.as_slice(), b"_outcomes"].concat()
    }

    /// Something ran that could have removed or replaced the statement.
    pub(super) const fn distrust(&mut self) {
        self.trusted = false;
    }

    /// Something ran that could have made code of the session's own: from now on the statement is
    /// prepared again each time, in the same breath in which it is used.
    pub(super) const fn distrust_always(&mut self) {
        self.trusted = false;
        self.always_anew = true;
    }

    /// The server has prepared the statement.
    pub(super) const fn prepared(&mut self) {
        self.trusted = !self.always_anew;
    }

    /// Puts the probe behind what the client sent.
    pub(super) fn put(&self, portal: Portal, scratch: &mut Vec<u8>, lane: &mut Lane, turn: &mut Turn) {
        self.put_with(portal, None, scratch, lane, turn);
    }

    /// The same with what its text asks for as a parameter.
    pub(super) fn put_with(
        &self,
        portal: Portal,
        parameter: Option<&[u8]>,
        scratch: &mut Vec<u8>,
        lane: &mut Lane,
        turn: &mut Turn,
    ) {
        scratch.clear();
        if !self.trusted {
            // Closing what does not exist is no error; preparing what exists would be.
            from_client::put_close(scratch, Described::Statement, &self.name);
            turn.sent(Sent::Close, Owner::Ours);
            from_client::put_parse(scratch, &self.name, self.text);
            turn.sent(Sent::Parse, Owner::Ours);
        }
        let name: &[u8] = match portal {
            Portal::Unnamed => b"",
            Portal::Named => &self.name,
        };
        match parameter {
            Some(parameter) => from_client::put_bind_with(scratch, name, &self.name, parameter),
            None => from_client::put_bind(scratch, name, &self.name),
        }
        turn.sent(Sent::Bind, Owner::Probe);
        from_client::put_execute(scratch, name, 0);
        turn.sent(Sent::Execute, Owner::Probe);
        if portal == Portal::Named {
            from_client::put_close(scratch, Described::Portal, name);
            turn.sent(Sent::Close, Owner::Ours);
        }
        lane.add(scratch);
    }
}

/// The question as a call. It ends its message group.
pub(super) fn put_call(out: &mut Vec<u8>) {
    from_client::put_function_call(out, FUNCTION);
}

/// The id in the answer to a call: binary `xid8` behind its length, or NULL.
pub(super) fn id_in_result(body: &[u8]) -> Option<u64> {
    let (length, id) = body.split_first_chunk()?;
    let id = id.try_into().ok().filter(|_| i32::from_be_bytes(*length) == 8);
    id.map(u64::from_be_bytes)
}

/// The place in the WAL in the second column of a marking probe's row.
pub(super) fn place_in_row(body: &[u8]) -> Option<u64> {
    let Ok(FromServer::DataRow(row)) = from_server::parse(from_server::tag::DATA_ROW, body) else {
        return None;
    };
    let bytes: [u8; 8] = row.column(1)??.try_into().ok()?;
    Some(u64::from_be_bytes(bytes))
}

/// The id in the probe's row: one binary `xid8`, or NULL.
pub(super) fn id_in_row(body: &[u8]) -> Option<u64> {
    let Ok(FromServer::DataRow(row)) = from_server::parse(from_server::tag::DATA_ROW, body) else {
        return None;
    };
    let bytes: [u8; 8] = row.column(0)??.try_into().ok()?;
    Some(u64::from_be_bytes(bytes))
}
