//! What a failure means for the message that was being applied.

use std::io;

use crate::Failure;

/// The database will never take this message, whoever tries it and how often.
const POISON: [u32; 13] = [
    220,  // arithmetic overflow for a type
    232,  // the same, of another type
    241,  // not a date
    242,  // a date out of range
    245,  // conversion failed
    515,  // null where none may be
    547,  // a check or a foreign key
    2601, // a unique index
    2627, // a unique constraint
    2628, // text is too long (and which)
    8114, // conversion failed, of a parameter
    8115, // arithmetic overflow in an expression
    8152, // text is too long
];

/// It will be otherwise in a moment, on this connection or another.
const PASSING: [u32; 20] = [
    233,   // the connection was closed during the login
    921,   // the database is not recovered yet
    1205,  // chosen as deadlock victim
    1222,  // a lock was not had in time
    6005,  // the server is shutting down
    10053, // transport
    10054, // transport
    10060, // transport
    10928, // too many sessions for now; gatepost says so too
    10929, // the same, of the server as a whole
    17142, // the server is paused
    18401, // the server is being upgraded
    40143, // the service has an error
    40197, // the service has an error
    40501, // the service is busy
    40613, // the database is not available now; gatepost says so when it cannot reach it
    49918, // not enough resources
    49919, // too many create or update operations
    49920, // too many operations
    615,   // the database was moved
];

/// Why a message is not applied, when it is not the message's fault.
#[derive(Debug)]
pub enum Trouble {
    /// Lost connection, full house, deadlock: let the message be delivered again.
    Passing(String),
    /// The deployment is wrong (no such table, not permitted, token refused). The worker cannot go on, and
    /// the message must not be lost over it.
    Lasting(Failure),
}

/// The same for one statement, which may also be refused for what the message says.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Refusal {
    Poison,
    Passing,
    Lasting,
}

pub(crate) fn of_statement(error: &tiberius::error::Error) -> Refusal {
    match error.code() {
        Some(number) if POISON.contains(&number) => Refusal::Poison,
        Some(number) if PASSING.contains(&number) => Refusal::Passing,
        Some(_) => Refusal::Lasting,
        // No answer at all, or the rest of one is missing.
        None => match error {
            tiberius::error::Error::Io { .. } | tiberius::error::Error::Protocol(_) => Refusal::Passing,
            _ => Refusal::Lasting,
        },
    }
}

/// Whether connecting is worth another try.
pub(crate) fn of_connecting(failure: &Failure) -> Refusal {
    match failure.downcast_ref::<tiberius::error::Error>() {
        // A certificate that is not trusted now is not trusted a second later.
        Some(tiberius::error::Error::Io {
            kind: io::ErrorKind::InvalidData | io::ErrorKind::InvalidInput,
            ..
        }) => Refusal::Lasting,
        Some(error) => match of_statement(error) {
            Refusal::Passing => Refusal::Passing,
            Refusal::Poison | Refusal::Lasting => Refusal::Lasting,
        },
        None if failure.is::<io::Error>() => Refusal::Passing,
        None => Refusal::Lasting,
    }
}

/// The server's own words without the driver's.
pub(crate) fn told(error: &tiberius::error::Error) -> String {
    match error {
        // Behind the first sentence tiberius explains how to live with a certificate that is not trusted.
        tiberius::error::Error::Tls(text) => text.split(". ").next().unwrap_or(text).to_owned(),
        tiberius::error::Error::Server(refused) => format!("{} ({})", refused.message(), refused.code()),
        other => other.to_string(),
    }
}

/// The same for whatever went wrong.
pub(crate) fn plainly(failure: Failure) -> Failure {
    match failure.downcast::<tiberius::error::Error>() {
        Ok(error) => told(&error).into(),
        Err(other) => other,
    }
}

#[cfg(test)]
mod tests {
    use std::io;

    use tiberius::error::Error;
    use tiberius::error::IoErrorKind;

    use super::{PASSING, POISON, Refusal, of_connecting, of_statement};

    fn lost(kind: IoErrorKind) -> Error {
        Error::Io {
            kind,
            message: String::new(),
        }
    }

    #[test]
    fn no_number_is_in_both_lists() {
        assert!(POISON.iter().all(|number| !PASSING.contains(number)));
    }

    #[test]
    fn no_answer_is_passing() {
        for kind in [
            IoErrorKind::UnexpectedEof,
            IoErrorKind::ConnectionReset,
            IoErrorKind::TimedOut,
        ] {
            assert_eq!(of_statement(&lost(kind)), Refusal::Passing, "{kind:?}");
            assert_eq!(of_connecting(&lost(kind).into()), Refusal::Passing, "{kind:?}");
        }
    }

    #[test]
    fn what_another_try_does_not_heal_ends_the_worker() {
        assert_eq!(
            of_connecting(&lost(IoErrorKind::InvalidData).into()),
            Refusal::Lasting
        );
        assert_eq!(of_connecting(&Error::Tls(String::new()).into()), Refusal::Lasting);
        assert_eq!(of_connecting(&"token file is missing".into()), Refusal::Lasting);
        assert_eq!(
            of_connecting(&io::Error::from(io::ErrorKind::ConnectionRefused).into()),
            Refusal::Passing
        );
    }
}
