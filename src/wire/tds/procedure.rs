//! The procedures that mean something to gatepost, by number or by name (2.2.6.6).

use crate::wire::tds::utf16::Utf16;

/// A procedure of the system that takes statements, keeps them, or changes the session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Procedure {
    Cursor,
    CursorOpen,
    CursorPrepare,
    CursorExecute,
    CursorPrepExec,
    CursorUnprepare,
    CursorFetch,
    CursorOption,
    CursorClose,
    ExecuteSql,
    Prepare,
    Execute,
    PrepExec,
    PrepExecRpc,
    Unprepare,
    SetSessionContext,
    ResetConnection,
    /// Any other: only its name is known.
    Other,
}

/// Number, name. The last two have no number.
const KNOWN: [(u16, &str, Procedure); 17] = [
    (1, "sp_cursor", Procedure::Cursor),
    (2, "sp_cursoropen", Procedure::CursorOpen),
    (3, "sp_cursorprepare", Procedure::CursorPrepare),
    (4, "sp_cursorexecute", Procedure::CursorExecute),
    (5, "sp_cursorprepexec", Procedure::CursorPrepExec),
    (6, "sp_cursorunprepare", Procedure::CursorUnprepare),
    (7, "sp_cursorfetch", Procedure::CursorFetch),
    (8, "sp_cursoroption", Procedure::CursorOption),
    (9, "sp_cursorclose", Procedure::CursorClose),
    (10, "sp_executesql", Procedure::ExecuteSql),
    (11, "sp_prepare", Procedure::Prepare),
    (12, "sp_execute", Procedure::Execute),
    (13, "sp_prepexec", Procedure::PrepExec),
    (14, "sp_prepexecrpc", Procedure::PrepExecRpc),
    (15, "sp_unprepare", Procedure::Unprepare),
    (0, "sp_set_session_context", Procedure::SetSessionContext),
    (0, "sp_reset_connection", Procedure::ResetConnection),
];

/// How a call names its procedure.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Named<'a> {
    Number(u16),
    /// As the client wrote it: perhaps with database, schema, brackets, `;1`.
    Name(Utf16<'a>),
}

impl Named<'_> {
    pub fn procedure(self) -> Procedure {
        let found = match self {
            Self::Number(0) => None,
            Self::Number(number) => KNOWN.iter().find(|(known, ..)| *known == number),
            Self::Name(name) => {
                let object = object(&name.lossy());
                KNOWN
                    .iter()
                    .find(|(_, known, _)| known.eq_ignore_ascii_case(&object))
            }
        };
        found.map_or(Procedure::Other, |(.., procedure)| *procedure)
    }
}

impl Procedure {
    /// Which parameter, from 0, holds a statement. The name of the procedure that `sp_prepexecrpc` calls counts.
    pub(super) const fn statement(self) -> Option<usize> {
        match self {
            Self::ExecuteSql => Some(0),
            Self::CursorOpen | Self::PrepExecRpc => Some(1),
            Self::CursorPrepare | Self::Prepare | Self::PrepExec => Some(2),
            Self::CursorPrepExec => Some(3),
            Self::Cursor
            | Self::CursorExecute
            | Self::CursorUnprepare
            | Self::CursorFetch
            | Self::CursorOption
            | Self::CursorClose
            | Self::Execute
            | Self::Unprepare
            | Self::SetSessionContext
            | Self::ResetConnection
            | Self::Other => None,
        }
    }

    /// Does its first parameter hold the handle of what was prepared or opened before?
    pub(super) const fn takes_handle(self) -> bool {
        matches!(
            self,
            Self::Execute
                | Self::Unprepare
                | Self::PrepExec
                | Self::PrepExecRpc
                | Self::Cursor
                | Self::CursorExecute
                | Self::CursorPrepExec
                | Self::CursorUnprepare
                | Self::CursorFetch
                | Self::CursorOption
                | Self::CursorClose
        )
    }
}

/// The last part of a name, without quotes, spaces around it, and the number behind a semicolon.
fn object(name: &str) -> String {
    let mut part = String::new();
    let mut quote = None;
    let mut chars = name.chars().peekable();
    while let Some(char) = chars.next() {
        match quote {
            // Doubled, it stands for itself.
            Some(end) if char == end && chars.next_if_eq(&end).is_some() => part.push(end),
            Some(end) if char == end => quote = None,
            Some(_) => part.push(char),
            None => match char {
                '[' => quote = Some(']'),
                '"' => quote = Some('"'),
                '.' => part.clear(),
                ';' => break,
                char => part.push(char),
            },
        }
    }
    part.trim().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::tds::utf16;

    fn named(name: &str) -> Procedure {
        let mut bytes = vec![];
        utf16::put(&mut bytes, name);
        Named::Name(Utf16::new(&bytes)).procedure()
    }

    #[test]
    fn names_are_known_however_they_are_written() {
        for name in [
            "sp_executesql",
            "SP_ExecuteSQL",
            "sys.sp_executesql",
            "master..sp_executesql",
            "[master].[sys].[sp_executesql]",
            "\"sp_executesql\"",
            " sp_executesql ",
            "sp_executesql;1",
            "[a.b]]c].sp_executesql",
        ] {
            assert_eq!(named(name), Procedure::ExecuteSql, "{name}");
        }
        for name in [
            "",
            "executesql",
            "sp_executesql2",
            "[sp_executesql.x]",
            "sp_executesql.x",
            "[sp_execute]]sql]",
        ] {
            assert_eq!(named(name), Procedure::Other, "{name}");
        }
    }

    #[test]
    fn numbers_are_known() {
        assert_eq!(Named::Number(10).procedure(), Procedure::ExecuteSql);
        assert_eq!(Named::Number(15).procedure(), Procedure::Unprepare);
        assert_eq!(Named::Number(0).procedure(), Procedure::Other);
        assert_eq!(Named::Number(16).procedure(), Procedure::Other);
    }
}
