//! What a SQL Server said, told apart by its number. Its text is in the language of the server and is
//! for people only.

/// An error of the server or of the driver. Holds no text of ours.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Failure {
    #[error("error {number}, state {state}: {text}")]
    Server {
        number: u32,
        state: u8,
        /// The severity; from 20 on the server closes the connection.
        class: u8,
        text: String,
    },
    /// What came could not be understood, or nothing came.
    #[error("{0}")]
    Driver(String),
    #[error("the connection was closed")]
    Closed,
}

/// From this severity on the server closes the connection.
const FATAL: u8 = 20;

/// What a number means for us.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::credential) enum Meaning {
    /// There is no such thing, or we may not see it: the server does not say which.
    NotThere,
    AlreadyThere,
    /// A login that has sessions is not dropped.
    LoggedIn,
    /// A user that owns something, or granted something on, is not dropped.
    Owns,
    NotAllowed,
    WrongSecret,
    /// Whoever logs in is known, and not let in.
    NotAdmitted,
    /// No such database, or no user in it.
    NoDatabase,
    /// Worth trying again: a deadlock, a lock, a database that is moving.
    Again,
    /// There is no such session (any more).
    NoSession,
    /// Babelfish has one number for all that it has not mapped: the catalogue has to tell.
    Unsaid,
    Other,
}

/// By the numbers of `sys.messages`, and those of Azure SQL.
pub(in crate::credential) const fn meaning(number: u32) -> Meaning {
    match number {
        15_007 | 15_008 | 15_014 | 15_151 | 15_410 => Meaning::NotThere,
        15_023 | 15_025 => Meaning::AlreadyThere,
        15_434 => Meaning::LoggedIn,
        15_136 | 15_138 | 15_183 | 15_184 | 15_284 | 15_421 => Meaning::Owns,
        229 | 230 | 262 | 297 | 300 | 6_102 | 15_247 => Meaning::NotAllowed,
        18_456 => Meaning::WrongSecret,
        18_452 | 18_470 | 18_486 | 18_487 | 18_488 | 40_532 | 40_615 | 40_914 => Meaning::NotAdmitted,
        911 | 916 | 4_060 | 4_064 => Meaning::NoDatabase,
        1_205 | 1_222 | 10_928 | 10_929 | 40_197 | 40_501 | 40_613 | 49_918 | 49_919 | 49_920 => {
            Meaning::Again
        }
        6_106 => Meaning::NoSession,
        33_557_097 => Meaning::Unsaid,
        _ => Meaning::Other,
    }
}

impl Failure {
    pub(in crate::credential) const fn meaning(&self) -> Meaning {
        match self {
            Self::Server { number, .. } => meaning(*number),
            Self::Driver(_) | Self::Closed => Meaning::Other,
        }
    }

    /// The number of a login that is known and not let in, as a word.
    pub(in crate::credential) const fn code(&self) -> &'static str {
        match self {
            Self::Server { number, .. } => match *number {
                18_452 => "18452",
                18_470 => "18470",
                18_486 => "18486",
                18_487 => "18487",
                18_488 => "18488",
                40_532 => "40532",
                40_615 => "40615",
                40_914 => "40914",
                _ => "no number of ours",
            },
            Self::Driver(_) | Self::Closed => "no number",
        }
    }

    pub(in crate::credential) const fn ends_connection(&self) -> bool {
        match self {
            Self::Server { class, .. } => *class >= FATAL,
            Self::Driver(_) | Self::Closed => true,
        }
    }

    /// Of a statement with a secret in it: what the server quotes of it is not passed on.
    pub(in crate::credential) fn without_text(self) -> Self {
        match self {
            Self::Server {
                number, state, class, ..
            } => Self::Server {
                number,
                state,
                class,
                text: "(its text is kept back, the statement holds a secret)".to_owned(),
            },
            other @ (Self::Driver(_) | Self::Closed) => other,
        }
    }
}

impl From<tiberius::error::Error> for Failure {
    fn from(error: tiberius::error::Error) -> Self {
        if let tiberius::error::Error::Server(token) = error {
            return Self::Server {
                number: token.code(),
                state: token.state(),
                class: token.class(),
                text: token.message().to_owned(),
            };
        }
        Self::Driver(error.to_string())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn server(number: u32, class: u8) -> Failure {
        Failure::Server {
            number,
            state: 1,
            class,
            text: String::new(),
        }
    }

    #[test]
    fn numbers_are_told_apart() {
        let table = [
            (15_151, Meaning::NotThere),
            (15_025, Meaning::AlreadyThere),
            (15_434, Meaning::LoggedIn),
            (15_138, Meaning::Owns),
            (229, Meaning::NotAllowed),
            (18_456, Meaning::WrongSecret),
            (18_470, Meaning::NotAdmitted),
            (4_060, Meaning::NoDatabase),
            (1_205, Meaning::Again),
            (40_613, Meaning::Again),
            (33_557_097, Meaning::Unsaid),
            (1, Meaning::Other),
        ];
        for (number, expected) in table {
            assert_eq!(meaning(number), expected, "{number}");
        }
    }

    #[test]
    fn only_what_is_fatal_ends_the_connection() {
        assert!(!server(15_151, 16).ends_connection());
        assert!(server(596, 21).ends_connection());
        assert!(Failure::Closed.ends_connection());
    }

    #[test]
    fn a_secret_does_not_leave_through_an_error() {
        let said = Failure::Server {
            number: 102,
            state: 1,
            class: 15,
            text: "Incorrect syntax near 'hunter2'".to_owned(),
        };
        let kept = said.without_text().to_string();
        assert!(!kept.contains("hunter2") && kept.contains("102"), "{kept}");
    }
}
