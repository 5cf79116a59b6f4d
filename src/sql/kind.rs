//! What a statement does to the transaction that it runs in, read from its leading words.

use crate::sql::lexer::Token;

/// The kind of one statement. The names are those of the commands in PostgreSQL's reference, also for
/// what the statements of other servers share with them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kind {
    /// No statement: white space, comments, a lone semicolon.
    Empty,
    /// `SELECT`, `VALUES`, `TABLE`: reads, unless a function in it writes.
    Select,
    /// `WITH`: may hold data-modifying parts.
    With,
    Insert,
    Update,
    Delete,
    Merge,
    Begin,
    /// `COMMIT`, `END`, with or without `AND CHAIN`.
    Commit,
    /// `ROLLBACK`, `ABORT`.
    Rollback,
    RollbackTo,
    Savepoint,
    Release,
    PrepareTransaction,
    /// `COMMIT PREPARED`, `ROLLBACK PREPARED`: end another transaction than the current one.
    EndPrepared,
    /// `SET`, `RESET`, also `SET LOCAL` and `SET TRANSACTION`.
    Set,
    Show,
    CopyIn,
    CopyOut,
    /// `COPY` from or to a file or program of the server.
    CopyServer,
    Call,
    Do,
    Prepare,
    Execute,
    Deallocate,
    Discard,
    Listen,
    Notify,
    Lock,
    Declare,
    /// `DECLARE … WITH HOLD`: its query runs inside the COMMIT, behind every probe.
    DeclareHeld,
    Fetch,
    CloseCursor,
    Explain,
    /// DDL that runs inside a transaction.
    Definition,
    /// Commands that open and commit transactions of their own (`VACUUM`, `CREATE DATABASE`,
    /// `… CONCURRENTLY`).
    Maintenance,
    /// Transact-SQL's `USE`: another database for the connection.
    Use,
    /// Transact-SQL's `PRINT`, `RAISERROR`.
    Print,
    /// Transact-SQL's `IF`, `WHILE`, `RETURN`, `GOTO`, `THROW`, `WAITFOR`.
    Control,
    Unknown,
}

impl Kind {
    pub const ALL: [Self; 40] = [
        Self::Empty,
        Self::Select,
        Self::With,
        Self::Insert,
        Self::Update,
        Self::Delete,
        Self::Merge,
        Self::Begin,
        Self::Commit,
        Self::Rollback,
        Self::RollbackTo,
        Self::Savepoint,
        Self::Release,
        Self::PrepareTransaction,
        Self::EndPrepared,
        Self::Set,
        Self::Show,
        Self::CopyIn,
        Self::CopyOut,
        Self::CopyServer,
        Self::Call,
        Self::Do,
        Self::Prepare,
        Self::Execute,
        Self::Deallocate,
        Self::Discard,
        Self::Listen,
        Self::Notify,
        Self::Lock,
        Self::Declare,
        Self::DeclareHeld,
        Self::Fetch,
        Self::CloseCursor,
        Self::Explain,
        Self::Definition,
        Self::Maintenance,
        Self::Use,
        Self::Print,
        Self::Control,
        Self::Unknown,
    ];

    /// Its place in [`Self::ALL`].
    pub const fn index(self) -> usize {
        self as usize
    }

    /// The name in audit records and metrics.
    pub const fn label(self) -> &'static str {
        match self {
            Self::Empty => "empty",
            Self::Select => "select",
            Self::With => "with",
            Self::Insert => "insert",
            Self::Update => "update",
            Self::Delete => "delete",
            Self::Merge => "merge",
            Self::Begin => "begin",
            Self::Commit => "commit",
            Self::Rollback => "rollback",
            Self::RollbackTo => "rollback_to",
            Self::Savepoint => "savepoint",
            Self::Release => "release",
            Self::PrepareTransaction => "prepare_transaction",
            Self::EndPrepared => "end_prepared",
            Self::Set => "set",
            Self::Show => "show",
            Self::CopyIn => "copy_in",
            Self::CopyOut => "copy_out",
            Self::CopyServer => "copy_server",
            Self::Call => "call",
            Self::Do => "do",
            Self::Prepare => "prepare",
            Self::Execute => "execute",
            Self::Deallocate => "deallocate",
            Self::Discard => "discard",
            Self::Listen => "listen",
            Self::Notify => "notify",
            Self::Lock => "lock",
            Self::Declare => "declare",
            Self::DeclareHeld => "declare_with_hold",
            Self::Fetch => "fetch",
            Self::CloseCursor => "close",
            Self::Explain => "explain",
            Self::Definition => "definition",
            Self::Maintenance => "maintenance",
            Self::Use => "use",
            Self::Print => "print",
            Self::Control => "control",
            Self::Unknown => "unknown",
        }
    }

    /// Can this statement change nothing that a commit would keep, whatever it calls? Only
    /// statements that run no user code and touch no table qualify; a `SELECT` does not, because a
    /// function in it may write.
    pub const fn is_inert(self) -> bool {
        matches!(
            self,
            Self::Empty
                | Self::Begin
                | Self::Commit
                | Self::Rollback
                | Self::RollbackTo
                | Self::Savepoint
                | Self::Release
                | Self::Set
                | Self::Use
                | Self::Show
                | Self::Prepare
                | Self::Deallocate
                | Self::Discard
                | Self::Listen
                | Self::CloseCursor
        )
    }

    /// Does it run without taking a snapshot? A probe (which takes one) right behind it would make a
    /// REPEATABLE READ transaction see too early a state, so the probe waits until the COMMIT.
    pub const fn takes_no_snapshot(self) -> bool {
        self.is_inert() || matches!(self, Self::Lock | Self::Notify)
    }

    /// Does it begin, end or divide the client's own transaction?
    pub const fn controls_transaction(self) -> bool {
        matches!(
            self,
            Self::Begin
                | Self::Commit
                | Self::Rollback
                | Self::RollbackTo
                | Self::Savepoint
                | Self::Release
                | Self::PrepareTransaction
        )
    }

    /// May it commit by itself before the client's message group ends, or assign a transaction id
    /// that a probe behind it cannot see? Such work gets its intent first and a `partial` record.
    pub const fn may_commit_itself(self) -> bool {
        matches!(
            self,
            Self::Call
                | Self::DeclareHeld
                | Self::Do
                | Self::EndPrepared
                | Self::Maintenance
                | Self::Notify
                | Self::Unknown
        )
    }

    /// Could it have made code that a later statement runs: a function, a trigger, an operator?
    pub const fn may_make_code(self) -> bool {
        matches!(
            self,
            Self::Call | Self::Definition | Self::Do | Self::Maintenance | Self::Unknown
        )
    }

    /// Could it have replaced or removed gatepost's prepared probe? Then the probe is prepared anew.
    pub const fn may_touch_probe(self) -> bool {
        matches!(
            self,
            Self::Do
                | Self::Call
                | Self::Prepare
                | Self::Deallocate
                | Self::Discard
                | Self::Execute
                | Self::Unknown
        )
    }
}

/// The kind of a statement by its tokens, comments left out.
pub(super) fn classify(words: &[Token<'_>]) -> Kind {
    let Some(first) = words.iter().find(|token| token.bytes != b"(") else {
        return if words.is_empty() {
            Kind::Empty
        } else {
            Kind::Unknown
        };
    };
    let second = |word: &str| words.get(1).is_some_and(|token| token.is(word));
    let verb = first.bytes.to_ascii_lowercase();
    match verb.as_slice() {
        // As a NOTIFY it gets its transaction id inside the COMMIT, behind every probe.
        b"select" | b"with" if words.iter().any(|token| token.names("pg_notify")) => Kind::Notify,
        b"select" | b"values" | b"table" => Kind::Select,
        b"with" => Kind::With,
        b"insert" => Kind::Insert,
        b"update" => Kind::Update,
        b"delete" => Kind::Delete,
        b"merge" => Kind::Merge,
        b"begin" | b"start" => Kind::Begin,
        b"commit" | b"rollback" if second("prepared") => Kind::EndPrepared,
        b"commit" | b"end" => Kind::Commit,
        b"rollback" | b"abort" if words.iter().skip(1).take(3).any(|token| token.is("to")) => {
            Kind::RollbackTo
        }
        b"rollback" | b"abort" => Kind::Rollback,
        b"savepoint" => Kind::Savepoint,
        b"release" => Kind::Release,
        b"prepare" if second("transaction") => Kind::PrepareTransaction,
        b"prepare" => Kind::Prepare,
        b"execute" => Kind::Execute,
        b"deallocate" => Kind::Deallocate,
        b"discard" => Kind::Discard,
        b"set" | b"reset" => Kind::Set,
        b"show" => Kind::Show,
        b"copy" => copy(words),
        b"call" => Kind::Call,
        b"do" => Kind::Do,
        b"listen" | b"unlisten" => Kind::Listen,
        b"notify" => Kind::Notify,
        b"lock" => Kind::Lock,
        b"declare" if has_pair(words, "with", "hold") => Kind::DeclareHeld,
        b"declare" => Kind::Declare,
        b"fetch" | b"move" => Kind::Fetch,
        b"close" => Kind::CloseCursor,
        b"explain" => Kind::Explain,
        b"vacuum" | b"cluster" | b"checkpoint" | b"reindex" | b"analyze" | b"analyse" => Kind::Maintenance,
        b"create" | b"drop" | b"alter" => definition(words),
        b"truncate" | b"comment" | b"grant" | b"revoke" | b"security" | b"refresh" | b"import"
        | b"reassign" => Kind::Definition,
        _ => Kind::Unknown,
    }
}

/// Do these two words stand one behind the other?
fn has_pair(words: &[Token<'_>], first: &str, second: &str) -> bool {
    let pairs = words.iter().zip(words.iter().skip(1));
    pairs
        .into_iter()
        .any(|(one, two)| one.is(first) && two.is(second))
}

/// `COPY … FROM STDIN`, `TO STDOUT`, or a file of the server.
fn copy(words: &[Token<'_>]) -> Kind {
    let mut depth = 0_usize;
    for pair in words.windows(2) {
        let [word, next] = pair else { continue };
        match word.bytes {
            b"(" => depth += 1,
            b")" => depth = depth.saturating_sub(1),
            _ if depth > 0 => {}
            _ if word.is("from") && next.is("stdin") => return Kind::CopyIn,
            _ if word.is("to") && next.is("stdout") => return Kind::CopyOut,
            // The grammar takes these the other way round as well.
            _ if word.is("from") && next.is("stdout") => return Kind::CopyIn,
            _ if word.is("to") && next.is("stdin") => return Kind::CopyOut,
            _ => {}
        }
    }
    Kind::CopyServer
}

/// DDL, told apart from what cannot run inside a transaction block.
fn definition(words: &[Token<'_>]) -> Kind {
    const OWN_TRANSACTIONS: [&str; 4] = ["database", "tablespace", "system", "subscription"];
    let own = words
        .get(1)
        .is_some_and(|token| OWN_TRANSACTIONS.iter().any(|word| token.is(word)));
    // `CONCURRENTLY` stands among the first words for indexes, and late in DETACH PARTITION.
    if own || words.iter().any(|token| token.is("concurrently")) {
        Kind::Maintenance
    } else {
        Kind::Definition
    }
}
