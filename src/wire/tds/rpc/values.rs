//! The values that a call hands to its statement or procedure, for the record: read from a copy of the request,
//! when it is on its way already.

use crate::wire::tds::data_type::{self, Body, PLP_NULL, Place, Width, id};
use crate::wire::tds::headers;
use crate::wire::tds::incoming::{Incoming, Stop};
use crate::wire::tds::procedure::{Named, Procedure};
use crate::wire::tds::rpc::{BATCH_FLAG, CALLS_MAX, NO_EXEC_FLAG, PARAMETERS_MAX, head};
use crate::wire::tds::table;
use crate::wire::tds::value::text;

/// In place of the sum of the chunks: the sender does not know it.
const PLP_UNKNOWN: u64 = PLP_NULL - 1;

/// One value. No `Debug`: it is people's data.
#[derive(Clone, PartialEq, Eq)]
pub enum CallValue {
    Null,
    Text(String),
    /// It cannot be told as text.
    Raw(Vec<u8>),
    /// It is so long, and was not seen as a whole, or is a table.
    Bytes(usize),
}

/// The values of one call.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct CallValues {
    pub values: Vec<CallValue>,
    /// There are more, or there may be.
    pub more: bool,
}

/// Of the call with this index (from 0) in a request's payload, as far as it was seen.
pub fn of_call(payload: &[u8], is_whole: bool, index: usize) -> CallValues {
    let mut found = CallValues::default();
    let mut incoming = Incoming::new(payload);
    let walked = headers::read(&mut incoming).and_then(|_| {
        for _ in 0..index.min(CALLS_MAX) {
            head(&mut incoming)?;
            each_value(&mut incoming, |_, _| {})?;
        }
        let (named, _) = head(&mut incoming)?;
        let Some(first) = first_value(named) else {
            found.more = true;
            return Ok(());
        };
        each_value(&mut incoming, |at, value| {
            if at >= first {
                found.values.push(value);
            }
        })
    });
    found.more |= walked.is_err() || (!is_whole && incoming.is_empty());
    found
}

/// Which parameter, from 0, is the first one of the statement's own; none where the system's procedures take
/// what is not for the record, among it passwords.
fn first_value(named: Named<'_>) -> Option<usize> {
    match named.procedure() {
        Procedure::Execute => Some(1),
        Procedure::ExecuteSql | Procedure::PrepExecRpc => Some(2),
        Procedure::PrepExec => Some(3),
        Procedure::CursorExecute => Some(5),
        Procedure::CursorOpen => Some(6),
        Procedure::CursorPrepExec => Some(7),
        Procedure::Other => {
            let Named::Name(name) = named else { return None };
            let name = name.lossy().to_ascii_lowercase();
            let is_systems = ["sp_", "xp_", "sys."].iter().any(|part| name.contains(part));
            (!is_systems).then_some(0)
        }
        Procedure::Cursor
        | Procedure::CursorPrepare
        | Procedure::CursorUnprepare
        | Procedure::CursorFetch
        | Procedure::CursorOption
        | Procedure::CursorClose
        | Procedure::Prepare
        | Procedure::Unprepare
        | Procedure::SetSessionContext
        | Procedure::ResetConnection => None,
    }
}

/// Walks the parameters of a call, and over the flag behind it.
fn each_value(incoming: &mut Incoming<'_>, mut see: impl FnMut(usize, CallValue)) -> Result<(), Stop> {
    for at in 0..PARAMETERS_MAX {
        match incoming.rest().first() {
            None => return Ok(()),
            Some(&(BATCH_FLAG | NO_EXEC_FLAG)) => {
                incoming.u8()?;
                return Ok(());
            }
            Some(_) => {}
        }
        incoming.b_varchar()?; // name
        incoming.u8()?; // status
        let start = incoming.clone();
        match value(incoming) {
            Ok(value) => see(at, value),
            Err(stop) => {
                if let Some(bytes) = length(start) {
                    see(at, CallValue::Bytes(bytes));
                }
                return Err(stop);
            }
        }
    }
    Ok(())
}

fn value(incoming: &mut Incoming<'_>) -> Result<CallValue, Stop> {
    let start = incoming.clone();
    if incoming.rest().first() == Some(&id::TABLE) {
        incoming.u8()?;
        table::skip(incoming)?;
        return Ok(CallValue::Bytes(incoming.taken().saturating_sub(start.taken())));
    }
    let data_type = data_type::read(incoming, Place::Request)?;
    let described = incoming.taken().saturating_sub(start.taken());
    let described = start.rest().get(1..described).unwrap_or_default();
    let bytes = match incoming.length(data_type.width)? {
        Body::Null => return Ok(CallValue::Null),
        Body::Bytes(count) => incoming.bytes(count)?.to_vec(),
        Body::Chunks => chunks(incoming)?,
    };
    Ok(match text(data_type.id, described, &bytes) {
        Some(text) => CallValue::Text(text),
        None => CallValue::Raw(bytes),
    })
}

fn chunks(incoming: &mut Incoming<'_>) -> Result<Vec<u8>, Stop> {
    let mut joined = Vec::new();
    loop {
        match data_type::count(incoming)? {
            0 => return Ok(joined),
            count => joined.extend_from_slice(incoming.bytes(count)?),
        }
    }
}

/// How long a value is that was not seen as a whole, if that was.
fn length(mut incoming: Incoming<'_>) -> Option<usize> {
    if incoming.rest().first() == Some(&id::TABLE) {
        return None;
    }
    let data_type = data_type::read(&mut incoming, Place::Request).ok()?;
    if data_type.width == Width::Chunks {
        let sum = incoming.u64().ok().filter(|sum| *sum < PLP_UNKNOWN)?;
        return usize::try_from(sum).ok();
    }
    match incoming.length(data_type.width).ok()? {
        Body::Bytes(bytes) => Some(bytes),
        Body::Null | Body::Chunks => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::tds::reply::{Cell, ColumnKind};
    use crate::wire::tds::rpc::{Argument, Callee, put_calls};

    fn written(calls: &[(Callee<'_>, &[Argument<'_>])]) -> Vec<u8> {
        let mut out = vec![];
        put_calls(&mut out, 9, None, calls);
        out
    }

    fn shown(found: &CallValues) -> (Vec<String>, bool) {
        let shown = |value: &CallValue| match value {
            CallValue::Null => "null".to_owned(),
            CallValue::Text(text) => text.clone(),
            CallValue::Raw(bytes) => format!("{bytes:?}"),
            CallValue::Bytes(bytes) => format!("{bytes} bytes"),
        };
        (found.values.iter().map(shown).collect(), found.more)
    }

    #[test]
    fn the_values_are_those_of_the_statement() {
        let null = Argument {
            value: Cell::Null,
            ..Argument::int("@c", 0)
        };
        let own = [Argument::text("@a", "größer"), Argument::int("@b", -7), null];
        let expected = ["größer".to_owned(), "-7".to_owned(), "null".to_owned()];
        let (sql, int) = (Argument::text("", "select @a"), Argument::int("", 1));
        for (callee, before) in [
            (Callee::Number(10), vec![sql, sql]),
            (Callee::Name("sp_executesql"), vec![sql, sql]),
            (Callee::Number(12), vec![int]),
            (Callee::Number(13), vec![int, sql, sql]),
            (Callee::Name("dbo.apply_order"), vec![]),
        ] {
            let arguments = [before, own.to_vec()].concat();
            let calls: [(Callee<'_>, &[Argument<'_>]); 2] =
                [(Callee::Number(15), &[int]), (callee, &arguments)];
            let payload = written(&calls);
            assert_eq!(
                shown(&of_call(&payload, true, 1)),
                (expected.to_vec(), false),
                "{callee:?}"
            );
            assert_eq!(
                shown(&of_call(&payload, true, 0)),
                (vec![], true),
                "not for the record"
            );
        }
        let secret = written(&[(Callee::Name("sp_setapprole"), &own)]);
        assert_eq!(shown(&of_call(&secret, true, 0)), (vec![], true));
    }

    #[test]
    fn what_was_not_seen_has_a_length() {
        let long = "x".repeat(100);
        let large = "y".repeat(5_000);
        let arguments = [
            Argument::text("", "select"),
            Argument::text("", "@a"),
            Argument::int("", 5),
            Argument::text("", &long),
            Argument::text("", &large),
        ];
        let payload = written(&[(Callee::Number(10), &arguments)]);
        let whole = shown(&of_call(&payload, true, 0));
        assert_eq!(whole, (vec!["5".to_owned(), long.clone(), large], false));
        let at = payload.len() - 10_000;
        let cut = shown(&of_call(&payload[..at], false, 0));
        assert_eq!(cut.0[..2], ["5".to_owned(), long]);
        assert!(cut.1);
        for end in 0..payload.len() {
            let (values, more) = shown(&of_call(&payload[..end], false, 0));
            assert!(values.len() <= 3 && more, "{end}");
        }
    }

    #[test]
    fn kinds_of_columns_are_told() {
        let argument = |kind, value| Argument {
            name: "",
            kind,
            value,
            is_output: false,
        };
        let payload = written(&[(
            Callee::Name("p"),
            &[argument(ColumnKind::Bit, Cell::Bit(true)), Argument::int("", 3)],
        )]);
        assert_eq!(shown(&of_call(&payload, true, 0)).0, ["1", "3"]);
    }
}
