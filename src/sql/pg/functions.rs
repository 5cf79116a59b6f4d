//! Which of the server's own functions write, run code of others, or are marked volatile and do neither.
//!
//! What is immutable or stable counts as harmless unless it is named in [`RUNS_CODE`] or [`WRITES`]; what is
//! volatile does not unless it is named in [`HARMLESS`]. A function that a later version brings is so judged by
//! its own marking, which the server's authors keep for their own functions.

/// They run queries or code whose name they are handed in a value, where nobody sees it: a query as text, a
/// relation, a type whose input checks a domain. Functions that take a `cstring` or an `internal` do the same
/// and are found by that.
pub const RUNS_CODE: [&str; 22] = [
    "cursor_to_xml",
    "cursor_to_xmlschema",
    "database_to_xml",
    "database_to_xml_and_xmlschema",
    "database_to_xmlschema",
    "pg_input_error_info",
    "pg_input_is_valid",
    "pg_logical_slot_get_binary_changes",
    "pg_logical_slot_get_changes",
    "pg_logical_slot_peek_binary_changes",
    "pg_logical_slot_peek_changes",
    "query_to_xml",
    "query_to_xml_and_xmlschema",
    "query_to_xmlschema",
    "satisfies_hash_partition",
    "schema_to_xml",
    "schema_to_xml_and_xmlschema",
    "schema_to_xmlschema",
    "table_to_xml",
    "table_to_xml_and_xmlschema",
    "ts_rewrite",
    "ts_stat",
];

/// They write or take a transaction id, or change what a later statement does, and run no code of others.
/// `pg_current_xact_id` is marked stable, and takes an id all the same.
pub const WRITES: [&str; 24] = [
    "lo_create",
    "lo_creat",
    "lo_from_bytea",
    "lo_get",
    "lo_lseek",
    "lo_lseek64",
    "lo_open",
    "lo_close",
    "lo_put",
    "lo_tell",
    "lo_tell64",
    "lo_truncate",
    "lo_truncate64",
    "lo_unlink",
    "loread",
    "lowrite",
    "nextval",
    "pg_current_xact_id",
    "pg_export_snapshot",
    "pg_logical_emit_message",
    "pg_notify",
    "set_config",
    "setval",
    "txid_current",
];

/// Marked volatile because their answer changes, or for what they do to locks and time; they write nothing.
pub const HARMLESS: [&str; 46] = [
    "clock_timestamp",
    "currval",
    "gen_random_uuid",
    "lastval",
    "pg_advisory_lock",
    "pg_advisory_lock_shared",
    "pg_advisory_unlock",
    "pg_advisory_unlock_all",
    "pg_advisory_unlock_shared",
    "pg_advisory_xact_lock",
    "pg_advisory_xact_lock_shared",
    "pg_blocking_pids",
    "pg_column_compression",
    "pg_column_size",
    "pg_conf_load_time",
    "pg_current_wal_flush_lsn",
    "pg_current_wal_insert_lsn",
    "pg_current_wal_lsn",
    "pg_database_size",
    "pg_get_wal_replay_pause_state",
    "pg_indexes_size",
    "pg_is_in_backup",
    "pg_is_in_recovery",
    "pg_is_wal_replay_paused",
    "pg_isolation_test_session_is_blocked",
    "pg_last_wal_receive_lsn",
    "pg_last_wal_replay_lsn",
    "pg_last_xact_replay_timestamp",
    "pg_relation_size",
    "pg_safe_snapshot_blocking_pids",
    "pg_sequence_last_value",
    "pg_sleep",
    "pg_sleep_for",
    "pg_sleep_until",
    "pg_table_size",
    "pg_tablespace_size",
    "pg_total_relation_size",
    "pg_try_advisory_lock",
    "pg_try_advisory_lock_shared",
    "pg_try_advisory_xact_lock",
    "pg_try_advisory_xact_lock_shared",
    "random",
    "random_normal",
    "timeofday",
    "uuidv4",
    "uuidv7",
];

/// Extensions whose own functions in C that are not volatile count as the server's. Each comes with PostgreSQL
/// itself or, for `vector`, is of the same kind: types, their operators and indexes, and nothing that runs a
/// query. Members in other languages do not count: whoever owns an extension can add to it, but only a
/// superuser can make a function in C.
pub const TRUSTED_EXTENSIONS: [&str; 14] = [
    "btree_gin",
    "btree_gist",
    "citext",
    "cube",
    "fuzzystrmatch",
    "hstore",
    "intarray",
    "isn",
    "ltree",
    "pg_trgm",
    "pgcrypto",
    "seg",
    "unaccent",
    "vector",
];
