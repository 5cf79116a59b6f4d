//! What well-known system procedures do. Everything not named here is the client's own code: it may
//! write, end the transaction, and leave state behind.

use crate::sql::kind::Kind;
use crate::sql::tsql::name::Name;
use crate::sql::tsql::pins::{Pin, Pins};

/// What a call of one procedure means, whatever its arguments.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Meaning {
    pub kind: Kind,
    /// Writes nothing and ends nothing. Where [`Self::runs_text`] holds, the text decides.
    pub plain_read: bool,
    /// May end the transaction that it runs in. Where [`Self::runs_text`] holds, the text decides.
    pub may_end_transaction: bool,
    /// One of its arguments is a text, or the handle of one, which is to be read by itself (the text of
    /// sp_executesql is its first; of sp_cursoropen the second; of sp_prepare, sp_prepexec and
    /// sp_cursorprepare the third; of sp_cursorprepexec the fourth).
    pub runs_text: bool,
    pub pins: Pins,
    /// What it attempts that is always refused.
    pub escape: Option<&'static str>,
}

/// What a procedure of the client's own means.
pub const UNKNOWN: Meaning = Meaning {
    kind: Kind::Execute,
    plain_read: false,
    may_end_transaction: true,
    runs_text: false,
    pins: Pins::of(Pin::Procedure),
    escape: None,
};

/// Reads the catalogue, or describes a statement without running it.
const DESCRIBES: Meaning = Meaning {
    kind: Kind::Execute,
    plain_read: true,
    may_end_transaction: false,
    runs_text: false,
    pins: Pins::NONE,
    escape: None,
};

/// Leaves state behind and touches no table.
const fn leaves(pin: Pin) -> Meaning {
    Meaning {
        plain_read: false,
        pins: Pins::of(pin),
        ..DESCRIBES
    }
}

/// Runs or keeps a text.
const fn runs(pins: Pins) -> Meaning {
    Meaning {
        plain_read: false,
        may_end_transaction: true,
        runs_text: true,
        pins,
        ..DESCRIBES
    }
}

const fn refused(what: &'static str) -> Meaning {
    Meaning {
        escape: Some(what),
        ..UNKNOWN
    }
}

/// The meaning of the procedure of this name: of one part or several, with or without brackets. `None`
/// for everything that is not one of the system's.
pub fn known(name: &str) -> Option<Meaning> {
    by_name(&Name::parse(name)?)
}

/// The name and the meaning of a procedure that an RPC request calls by number (MS-TDS 2.2.6.6).
pub fn known_id(id: u16) -> Option<(&'static str, Meaning)> {
    let name = match id {
        1 => "sp_cursor",
        2 => "sp_cursoropen",
        3 => "sp_cursorprepare",
        4 => "sp_cursorexecute",
        5 => "sp_cursorprepexec",
        6 => "sp_cursorunprepare",
        7 => "sp_cursorfetch",
        8 => "sp_cursoroption",
        9 => "sp_cursorclose",
        10 => "sp_executesql",
        11 => "sp_prepare",
        12 => "sp_execute",
        13 => "sp_prepexec",
        14 => "sp_prepexecrpc",
        15 => "sp_unprepare",
        _ => return None,
    };
    Some((name, by_folded(name)?))
}

/// A system procedure under a qualified name could be the client's own: what it leaves behind and what
/// is refused counts all the same, what it is harmless in does not.
pub(super) fn by_name(name: &Name) -> Option<Meaning> {
    let meaning = by_folded(&name.folded())?;
    if name.may_be_systems() {
        return Some(meaning);
    }
    (meaning.escape.is_some() || !meaning.pins.is_empty()).then(|| Meaning {
        plain_read: false,
        may_end_transaction: true,
        pins: meaning.pins.with(Pin::Procedure),
        ..meaning
    })
}

/// The meaning by the procedure's own name, folded.
pub(super) fn by_folded(name: &str) -> Option<Meaning> {
    let handle = Pins::of(Pin::PreparedHandle);
    let cursor = Pins::of(Pin::Cursor);
    Some(match name {
        "sp_executesql" => runs(Pins::of(Pin::DynamicSql)),
        "sp_prepexec" | "sp_prepexecrpc" | "sp_execute" => runs(handle),
        // Nothing runs yet.
        "sp_prepare" => Meaning {
            runs_text: true,
            ..leaves(Pin::PreparedHandle)
        },
        "sp_unprepare" | "sp_cursorunprepare" | "sp_cursorclose" => Meaning {
            kind: Kind::Deallocate,
            ..DESCRIBES
        },
        "sp_cursoropen" | "sp_cursorexecute" => Meaning {
            kind: Kind::Declare,
            ..runs(cursor)
        },
        "sp_cursorprepexec" => Meaning {
            kind: Kind::Declare,
            ..runs(cursor.with(Pin::PreparedHandle))
        },
        "sp_cursorprepare" => Meaning {
            runs_text: true,
            ..leaves(Pin::PreparedHandle)
        },
        "sp_cursorfetch" | "sp_cursoroption" => Meaning {
            kind: Kind::Fetch,
            ..leaves(Pin::Cursor)
        },
        // Updates and deletes rows through a cursor.
        "sp_cursor" => Meaning {
            kind: Kind::Update,
            ..leaves(Pin::Cursor)
        },
        "sp_set_session_context" => Meaning {
            kind: Kind::Set,
            ..leaves(Pin::SessionContext)
        },
        "sp_getapplock" | "sp_releaseapplock" => Meaning {
            kind: Kind::Lock,
            ..leaves(Pin::AppLock)
        },
        "sp_setapprole" | "sp_unsetapprole" => Meaning {
            kind: Kind::Set,
            ..leaves(Pin::AppRole)
        },
        "sp_getbindtoken" | "sp_bindsession" => Meaning {
            may_end_transaction: true,
            ..leaves(Pin::BoundSession)
        },
        "sp_xml_preparedocument" => leaves(Pin::XmlDocument),
        "sp_trace_create"
        | "sp_trace_setevent"
        | "sp_trace_setfilter"
        | "sp_trace_setstatus"
        | "sp_trace_generateevent" => leaves(Pin::Trace),
        // Not to be called by a client's text at all: gatepost resets, and knows when it does.
        "sp_reset_connection" => refused("sp_reset_connection"),
        _ if DESCRIBING.contains(&name) => DESCRIBES,
        _ => {
            let found = REFUSED.iter().find(|refused| **refused == name)?;
            refused(found)
        }
    })
}

/// Procedures that only look: those by which drivers and tools ask for the catalogue.
const DESCRIBING: [&str; 37] = [
    "sp_column_privileges",
    "sp_columns",
    "sp_columns_100",
    "sp_columns_90",
    "sp_columns_ex",
    "sp_databases",
    "sp_datatype_info",
    "sp_datatype_info_100",
    "sp_datatype_info_90",
    "sp_describe_cursor",
    "sp_describe_first_result_set",
    "sp_describe_parameter_encryption",
    "sp_describe_undeclared_parameters",
    "sp_fkeys",
    "sp_help",
    "sp_helpconstraint",
    "sp_helpdb",
    "sp_helpindex",
    "sp_helprotect",
    "sp_helptext",
    "sp_helpuser",
    "sp_lock",
    "sp_oledb_ro_usrname",
    "sp_pkeys",
    "sp_server_info",
    "sp_special_columns",
    "sp_special_columns_100",
    "sp_sproc_columns",
    "sp_sproc_columns_100",
    "sp_sproc_columns_90",
    "sp_statistics",
    "sp_statistics_100",
    "sp_stored_procedures",
    "sp_table_privileges",
    "sp_tables",
    "sp_who",
    "sp_who2",
];

/// Procedures that change a login, a user, or what either is a member of; and with the login's name or
/// password, who it is.
const REFUSED: [&str; 25] = [
    "sp_addalias",
    "sp_addlinkedsrvlogin",
    "sp_addlogin",
    "sp_addremotelogin",
    "sp_addrolemember",
    "sp_addsrvrolemember",
    "sp_adduser",
    "sp_change_users_login",
    "sp_changedbowner",
    "sp_defaultdb",
    "sp_defaultlanguage",
    "sp_denylogin",
    "sp_dropalias",
    "sp_droplinkedsrvlogin",
    "sp_droplogin",
    "sp_dropremotelogin",
    "sp_droprolemember",
    "sp_dropsrvrolemember",
    "sp_dropuser",
    "sp_grantdbaccess",
    "sp_grantlogin",
    "sp_migrate_user_to_contained",
    "sp_password",
    "sp_revokedbaccess",
    "sp_revokelogin",
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn procedures_are_known_by_every_spelling_of_their_name() {
        for name in [
            "sp_executesql",
            "SP_ExecuteSQL",
            "[sp_executesql]",
            "sys.sp_executesql",
            "[sys].[sp_executesql]",
            "master..sp_executesql;1",
            "\"sp_executesql\"",
        ] {
            assert!(known(name).is_some_and(|meaning| meaning.runs_text), "{name}");
        }
        for name in [
            "apply_order",
            "dbo.apply_order",
            "sp_mine",
            "",
            "a b",
            "xp_cmdshell",
        ] {
            assert_eq!(known(name), None, "{name}");
        }
    }

    #[test]
    fn a_qualified_name_is_harmless_in_nothing() {
        assert!(known("sp_who").unwrap().plain_read);
        assert_eq!(known("dbo.sp_who"), None);
        let lock = known("dbo.sp_getapplock").unwrap();
        assert!(lock.may_end_transaction && lock.pins.contains(Pin::AppLock));
        assert!(known("x.y.sp_password").unwrap().escape.is_some());
    }

    #[test]
    fn meanings() {
        let pins = |name: &str| known(name).unwrap().pins;
        assert!(pins("sp_setapprole").poisons());
        assert!(pins("sp_prepexec").contains(Pin::PreparedHandle));
        assert!(pins("sp_cursoropen").contains(Pin::Cursor));
        assert_eq!(
            known("sp_reset_connection").unwrap().escape,
            Some("sp_reset_connection")
        );
        assert!(!known("sp_set_session_context").unwrap().may_end_transaction);
        assert!(known("sp_columns_100").unwrap().plain_read);
        assert!(DESCRIBING.is_sorted() && REFUSED.is_sorted());
    }

    #[test]
    fn numbers_have_names() {
        assert_eq!(known_id(10).unwrap().0, "sp_executesql");
        assert_eq!((0..=20).filter(|id| known_id(*id).is_some()).count(), 15);
    }
}
