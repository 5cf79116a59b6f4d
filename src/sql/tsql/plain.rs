//! Is a text *proven* to write nothing and to end no transaction? Then it needs neither intent nor
//! question for the transaction's id. What cannot be proven counts as a write.
//!
//! The proof rests on this: Transact-SQL functions cannot change tables, so built-in functions and
//! views are harmless. A function of the client's own could be of the CLR and reach outside; it is
//! called with its schema's name before it (or, where it gives a table, with its own name alone), so
//! only calls of the server's own functions by their own names count as proven. What a computed column
//! or a view calls is not looked at.

use crate::sql::tsql::lexer::{LOWERED_BYTES, Token, TokenKind};
use crate::sql::tsql::settings::{Set, Tracked, set_at};

/// Words that a plain read has none of, sorted. Most are reserved, so outside of quotes they are what they
/// say; the rest begin statements and are no likely names.
pub(super) const NEVER: [&str; 63] = [
    "add",
    "alter",
    "atomic",
    "authorization",
    "backup",
    "begin",
    "break",
    "bulk",
    "call",
    "checkpoint",
    "close",
    "commit",
    "continue",
    "conversation",
    "create",
    "cursor",
    "dbcc",
    "deallocate",
    "delete",
    "deny",
    "dialog",
    "disable",
    "distributed",
    "drop",
    "dump",
    "enable",
    "exec",
    "execute",
    "goto",
    "grant",
    "if",
    "insert",
    "into",
    "kill",
    "load",
    "merge",
    "move",
    "open",
    "opendatasource",
    "openquery",
    "openrowset",
    "openxml",
    "predict",
    "raiserror",
    "readtext",
    "receive",
    "reconfigure",
    "restore",
    "return",
    "revert",
    "revoke",
    "rollback",
    "save",
    "securityaudit",
    "send",
    "setuser",
    "shutdown",
    "throw",
    "truncate",
    "update",
    "updatetext",
    "waitfor",
    "while",
];

/// Words before a parenthesis that call nothing, or one of the server's own functions that change nothing,
/// sorted.
const BEFORE_PARENTHESIS: [&str; 299] = [
    "abs",
    "acos",
    "all",
    "and",
    "any",
    "app_name",
    "applock_mode",
    "applock_test",
    "apply",
    "approx_count_distinct",
    "as",
    "ascii",
    "asin",
    "assemblyproperty",
    "atan",
    "atn2",
    "avg",
    "between",
    "bigint",
    "binary",
    "binary_checksum",
    "bit",
    "bit_count",
    "by",
    "case",
    "cast",
    "ceiling",
    "char",
    "charindex",
    "checksum",
    "checksum_agg",
    "choose",
    "coalesce",
    "col_length",
    "col_name",
    "collate",
    "columnproperty",
    "columns",
    "compress",
    "concat",
    "concat_ws",
    "connectionproperty",
    "contains",
    "convert",
    "cos",
    "cot",
    "count",
    "count_big",
    "crypt_gen_random",
    "cube",
    "cume_dist",
    "current_request_id",
    "current_timestamp",
    "current_timezone",
    "current_timezone_id",
    "current_transaction_id",
    "cursor_status",
    "database_principal_id",
    "databasepropertyex",
    "datalength",
    "date",
    "date_bucket",
    "dateadd",
    "datediff",
    "datediff_big",
    "datefromparts",
    "datename",
    "datepart",
    "datetime",
    "datetime2",
    "datetime2fromparts",
    "datetimefromparts",
    "datetimeoffset",
    "datetimeoffsetfromparts",
    "datetrunc",
    "day",
    "db_id",
    "db_name",
    "dec",
    "decimal",
    "decompress",
    "degrees",
    "dense_rank",
    "difference",
    "distinct",
    "else",
    "eomonth",
    "error_line",
    "error_message",
    "error_number",
    "error_procedure",
    "error_severity",
    "error_state",
    "escape",
    "except",
    "exists",
    "exp",
    "file_id",
    "file_idex",
    "file_name",
    "filegroup_id",
    "filegroup_name",
    "first",
    "first_value",
    "float",
    "floor",
    "forceseek",
    "format",
    "formatmessage",
    "freetext",
    "from",
    "generate_series",
    "get_bit",
    "getansinull",
    "getdate",
    "getutcdate",
    "greatest",
    "group",
    "grouping",
    "grouping_id",
    "has_dbaccess",
    "has_perms_by_name",
    "hashbytes",
    "having",
    "hint",
    "host_id",
    "host_name",
    "ident_current",
    "ident_incr",
    "ident_seed",
    "iif",
    "in",
    "index",
    "index_col",
    "indexkey_property",
    "indexproperty",
    "int",
    "intersect",
    "is",
    "is_member",
    "is_rolemember",
    "is_srvrolemember",
    "isdate",
    "isjson",
    "isnull",
    "isnumeric",
    "join",
    "json_array",
    "json_arrayagg",
    "json_contains",
    "json_modify",
    "json_object",
    "json_objectagg",
    "json_path_exists",
    "json_query",
    "json_value",
    "lag",
    "last_value",
    "lead",
    "least",
    "left",
    "left_shift",
    "len",
    "like",
    "log",
    "log10",
    "lower",
    "ltrim",
    "max",
    "min",
    "min_active_rowversion",
    "money",
    "month",
    "nchar",
    "newid",
    "next",
    "not",
    "ntile",
    "nullif",
    "numeric",
    "nvarchar",
    "object_definition",
    "object_id",
    "object_name",
    "object_schema_name",
    "objectproperty",
    "objectpropertyex",
    "offset",
    "on",
    "openjson",
    "option",
    "or",
    "order",
    "original_db_name",
    "original_login",
    "over",
    "parse",
    "parsename",
    "partition",
    "patindex",
    "percent",
    "percent_rank",
    "percentile_cont",
    "percentile_disc",
    "pi",
    "pivot",
    "power",
    "quotename",
    "radians",
    "rand",
    "rank",
    "real",
    "replace",
    "replicate",
    "reverse",
    "right",
    "right_shift",
    "rollup",
    "round",
    "row_number",
    "rowcount_big",
    "rtrim",
    "schema_id",
    "schema_name",
    "scope_identity",
    "select",
    "serverproperty",
    "session_context",
    "session_id",
    "sets",
    "sign",
    "sin",
    "smalldatetimefromparts",
    "some",
    "soundex",
    "space",
    "sql_variant_property",
    "sqrt",
    "square",
    "stats_date",
    "stdev",
    "stdevp",
    "str",
    "string_agg",
    "string_escape",
    "string_split",
    "stuff",
    "substring",
    "sum",
    "suser_id",
    "suser_name",
    "suser_sid",
    "suser_sname",
    "switchoffset",
    "sysdatetime",
    "sysdatetimeoffset",
    "system_user",
    "sysutcdatetime",
    "table",
    "tablesample",
    "tan",
    "then",
    "time",
    "timefromparts",
    "tinyint",
    "todatetimeoffset",
    "top",
    "translate",
    "trigger_nestlevel",
    "trim",
    "try_cast",
    "try_convert",
    "try_parse",
    "type_id",
    "type_name",
    "typeproperty",
    "unicode",
    "union",
    "unpivot",
    "upper",
    "user",
    "user_id",
    "user_name",
    "values",
    "var",
    "varbinary",
    "varchar",
    "varp",
    "vector",
    "vector_distance",
    "vector_norm",
    "vector_normalize",
    "when",
    "where",
    "with",
    "within",
    "xact_state",
    "xml",
    "year",
];

/// Hints in parentheses behind a table's name, without WITH.
const OLD_HINTS: [&str; 7] = [
    "nolock",
    "readcommitted",
    "readpast",
    "readuncommitted",
    "repeatableread",
    "rowlock",
    "updlock",
];

/// `{fn …}`, `{d '…'}` and the like are values; `{call …}` is none.
const ODBC_VALUES: [&str; 5] = ["d", "fn", "guid", "t", "ts"];

/// Dots of a name that reaches another server.
const REMOTE_DOTS: usize = 3;

/// Is this (in lower case) one of the server's own functions that change nothing?
pub(super) fn is_servers_own(name: &str) -> bool {
    BEFORE_PARENTHESIS.binary_search(&name).is_ok()
}

/// Judges a text whose tokens are all here and can be read for sure.
pub(super) fn is_plain_read(words: &[Token<'_>]) -> bool {
    let mut begins = words.iter().filter(|token| token.kind != TokenKind::Semicolon);
    let begins_well = begins.next().is_none_or(|first| {
        first.is_any(&["select", "with", "declare", "set", "print"]) || first.kind == TokenKind::Open
    });
    let mut dots = 0;
    begins_well
        && (0..words.len()).all(|at| {
            let dotted = words.get(at).is_some_and(|token| token.symbol('.'));
            let part = words.get(at).is_some_and(|token| token.name().is_some());
            dots = match (dotted, part) {
                (true, _) => dots + 1,
                (false, true) => dots,
                (false, false) => 0,
            };
            // Two names side by side are two names.
            if part && at > 0 && words.get(at - 1).is_some_and(|token| token.name().is_some()) {
                dots = 0;
            }
            dots < REMOTE_DOTS && is_harmless(words, at)
        })
}

fn is_harmless(words: &[Token<'_>], at: usize) -> bool {
    let Some(token) = words.get(at) else { return false };
    let before = at.checked_sub(1).and_then(|at| words.get(at));
    let next = words.get(at + 1);
    match token.kind {
        TokenKind::Word => {
            let mut space = [0; LOWERED_BYTES];
            let word = token.lowered(&mut space);
            if NEVER.binary_search(&word).is_ok() {
                return false;
            }
            let sequence = word == "next" && next.is_some_and(|next| next.is("value"));
            let clause = word == "fetch" && !before.is_some_and(|before| before.is_any(&["row", "rows"]));
            let database = word == "use" && !next.is_some_and(|next| next.is_any(&["hint", "plan"]));
            let sets = word == "set" && !sets_harmlessly(words, at);
            !(sequence || clause || database || sets) && calls_harmlessly(words, at, Some(word))
        }
        TokenKind::Bracketed | TokenKind::Quoted => calls_harmlessly(words, at, None),
        TokenKind::Symbol if token.symbol('{') => next.is_some_and(|next| next.is_any(&ODBC_VALUES)),
        // `::` calls a method of a CLR type; a lone colon makes a label.
        TokenKind::Symbol => !token.symbol(':'),
        TokenKind::Strange => false,
        TokenKind::Variable => !calls(next),
        TokenKind::Text
        | TokenKind::Number
        | TokenKind::Comment
        | TokenKind::Semicolon
        | TokenKind::Open
        | TokenKind::Close => true,
    }
}

fn calls(next: Option<&Token<'_>>) -> bool {
    next.is_some_and(|next| next.kind == TokenKind::Open)
}

/// `SET @x = …`, or an option that has nothing to do with tables or transactions.
fn sets_harmlessly(words: &[Token<'_>], at: usize) -> bool {
    match set_at(words, at) {
        Set::Variable => true,
        Set::Tracked(settings) => settings
            .iter()
            .all(|setting| setting.option != Tracked::ImplicitTransactions),
        Set::PlanOnly { .. } | Set::Pinned(_) | Set::Clause => false,
    }
}

/// Is the name at `at` either not called, or that of a function of the server's own?
fn calls_harmlessly(words: &[Token<'_>], at: usize, word: Option<&str>) -> bool {
    let before = at.checked_sub(1).and_then(|at| words.get(at));
    if !calls(words.get(at + 1)) {
        return true;
    }
    // `AS t (a, b)`, `WITH t (a, b) AS`: a list of columns. `IN`, `VALUES` and the like are no names.
    let columns = before.is_some_and(|before| before.is_any(&["as", "with"]));
    let hint = words.get(at + 2).is_some_and(|hint| hint.is_any(&OLD_HINTS))
        && words
            .get(at + 3)
            .is_some_and(|close| close.kind == TokenKind::Close);
    let qualified = before.is_some_and(|before| before.symbol('.'));
    let own = word.is_some_and(is_servers_own);
    hint || columns || (own && !qualified)
}

#[cfg(test)]
pub(super) fn lists_are_sorted() -> bool {
    NEVER.is_sorted() && BEFORE_PARENTHESIS.is_sorted()
}
