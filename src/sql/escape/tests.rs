//! Every way we know to spell an attempt, and whether the fence sees it. What it does not see is run
//! against real servers in `tests/e2e/escapes.rs`.

use crate::sql::read;

/// Seen, and refused before the server hears of it.
const SEEN: &[&str] = &[
    // Plainly, in every form of the grammar.
    "set role postgres",
    "SET ROLE NONE",
    "SET LOCAL ROLE x",
    "set session role x",
    "set role to x",
    "set role = default",
    "set session authorization x",
    "set session authorization default",
    "set local session authorization default",
    "set session session authorization x",
    "set session_authorization = x",
    "set session_authorization to 'x'",
    "set local session_authorization to x",
    // By name in quotes: settings are found without regard to case.
    "set \"role\" = 'x'",
    "set \"ROLE\" = 'x'",
    "set local \"Role\" to x",
    "set \"SESSION_authorization\" = x",
    r#"set U&"r\006fle" = 'x'"#,
    r#"set U&"\+000072ole" to x"#,
    r#"set u&"r!006fle" uescape '!' = 'x'"#,
    // With comments and white space anywhere.
    "/**/set/**/role/**/x",
    "/* a /* nested */ comment */ set role x",
    "-- a line\rset role x",
    "-- a line\nset\t\u{c}role x",
    "set--x\nrole--y\nx",
    ";;set role x",
    // Behind, between and inside other statements.
    "select 1; set role x",
    "begin; set local role x; commit",
    "select ';'; set role x; select ';'",
    "select $$;$$; set role x",
    "select begin atomic from (select 1 as begin) s; set role x",
    "create function f() returns int begin atomic select 1 as case; end; set role x",
    "create function f(begin atomic) returns int language sql as 'select 1'; set role x",
    "create rule r as on insert to t do also (select 1); set role x",
    // As a function.
    "select set_config('role', 'x', false)",
    "select set_config('ROLE', 'x', false)",
    "select SET_CONFIG ( 'role' , 'x' , true )",
    "select pg_catalog.\"set_config\"('session_authorization', 'x', false)",
    r#"select pg_catalog.U&"set\005fconfig"('role', 'x', false)"#,
    r#"select U&"set!005fconfig" uescape '!' ('role', 'x', false)"#,
    "select set_config(E'r\\157le', 'x', false)",
    "select set_config(U&'r\\006fle', 'x', false)",
    "select set_config(N'role', 'x', false)",
    "select set_config($$role$$, 'x', false)",
    "select set_config($a$role$a$, 'x', false)",
    "select set_config('ro'\n'le', 'x', false)",
    "select set_config('ro' -- and\n 'le', 'x', false)",
    "select set_config('role'::text, 'x', false)",
    "select set_config(lower('ROLE'), 'x', false)",
    "select set_config(setting_name => 'role', new_value => 'x', is_local => false)",
    "select set_config(new_value => 'x', is_local => false, setting_name => E'r\\157le')",
    "select * from set_config('role', 'x', false)",
    "with x as (select set_config('role', 'x', false)) select * from x",
    "insert into t select set_config('role', 'x', false)",
    "prepare p as select set_config('role', 'x', false)",
    "explain analyze select set_config('role', 'x', false)",
    "declare c cursor for select set_config('role', 'x', false)",
    "copy (select set_config('role', 'x', false)) to stdout",
    "values (set_config('role', 'x', false))",
    "create view v as select set_config('role', 'x', false)",
    // Where the escapes of one constant, or of the next, are misread.
    "select E'a'\n'\\'', set_config('role', 'x', false) --'",
    "select '\\' /*', set_config('role', 'x', false) --*/'",
    "select '\\'' , set_config('role', 'x', false) --'",
    // Through the view of the settings.
    "update pg_settings set setting = 'x' where name = 'role'",
    "update only pg_catalog.pg_settings as s set setting = 'x' where name like 'rol%'",
    "with u as (update pg_settings set setting = 'x' returning 1) select 1",
    // The login itself.
    "alter role current_user password 'x'",
    "/**/alter/**/role current_user password 'x'",
    "ALTER USER current_user SET search_path = x",
    "alter user current_user valid until 'infinity'",
    "alter role session_user rename to x",
    "alter role all set search_path = x",
    "alter role all in database orders set role = x",
    "alter group g add user x",
    "alter user mapping password 'x'",
    "select 1; ALTER USER current_user SET search_path = x",
    "grant x to current_user",
    "grant \"gp_e2e_x\" to postgres with admin option",
    "revoke x from current_user",
    "revoke admin option for x from y",
    // For whoever calls it, or connects, later.
    "create function f() returns int language sql set role = 'x' as 'select 1'",
    "create or replace procedure p() language sql set session authorization x as 'select 1'",
    "create function f() returns int language sql set \"ROLE\" to x as 'select 1'",
    "alter function f() set role to x",
    "alter routine f() set session_authorization to x",
    "alter database orders set role = 'x'",
    // What stays in the server's process.
    "load 'x'",
    // Texts of which only the server knows where a constant ends.
    "set client_encoding = 'SJIS'",
    "set client_encoding to gbk",
    "set local client_encoding = 'Shift_JIS_2004'",
    "set names 'big5'",
    "set client_encoding = E'\\x53JIS'",
    "select set_config('client_encoding', 'GB18030', false)",
];

/// Not seen: the server's fence has to hold.
const UNSEEN: &[&str] = &[
    "do $$ begin set role x; end $$",
    "do $$ begin execute 'set ' || 'role x'; end $$",
    "do $$ begin perform set_config('role', 'x', false); end $$",
    "do $$ begin alter role current_user password 'x'; end $$",
    "select set_config('ro' || 'le', 'x', false)",
    "select set_config(concat('ro', 'le'), 'x', false)",
    "select set_config($1, $2, false)",
    "select set_config(name, 'x', false) from settings",
    "prepare p (text) as select set_config($1, 'x', false)",
    "execute p ('role')",
    "create function f() returns text language sql as $$ select set_config('role', 'x', false) $$",
    "call p()",
    "select f()",
    "create view v as select * from pg_settings",
    "copy t from program 'psql'",
];

/// Looks like one, and is none.
const ALLOWED: &[&str] = &[
    "set local gatepost.correlation_id = 'x'",
    "set session characteristics as transaction read only",
    "set myapp.role = 'x'",
    "set client_encoding = 'UTF8'",
    "set names 'latin1'",
    "alter table role add column a int",
    "alter user mapping for x server s options (set a 'b')",
    "select set_config('work_mem', '1MB', true)",
    "select set_config('app.user', E'O\\'Brien', true)",
    "select set_config('request.claims', $1, true)",
    "select 'set role x'",
    "select $$ set role x; $$",
    "select 1 -- ; set role x",
    "select 1 /* ; set role x */",
    "reset role",
    "reset session authorization",
    "select role from users",
    "update users set role = 'admin' where name = 'x'",
    "insert into users (role) values ('role')",
    "select * from pg_settings where name = 'role'",
    "create function f() returns int begin atomic update users set role = 1; select 1; end",
    "create function f() returns int language sql set search_path = 'x' as 'select 1'",
    "create table users (role text)",
    "grant select on t to x",
    "revoke all on schema s from public",
    "alter default privileges grant select on tables to x",
    "select E'it\\'s', 'C:\\temp'",
    "comment on role x is 'y'",
];

#[test]
fn attempts_are_seen_in_every_spelling() {
    for text in SEEN {
        for lenient in [false, true] {
            assert!(read(text.as_bytes(), lenient).escape.is_some(), "{text}");
        }
    }
    assert!(SEEN.len() + UNSEEN.len() > 80);
}

#[test]
fn what_is_none_passes_and_so_does_what_cannot_be_seen() {
    for text in ALLOWED.iter().chain(UNSEEN) {
        assert_eq!(read(text.as_bytes(), false).escape, None, "{text}");
    }
}

/// However much stands before it.
#[test]
fn length_hides_nothing() {
    let values = "1, ".repeat(20_000);
    for text in [
        format!("select {values} set_config('role', 'x', false)"),
        format!("{} set role x", "select 1;".repeat(20_000)),
        format!("/*{values}*/ set role x"),
        format!("set {} role x", "/* */".repeat(20_000)),
    ] {
        assert!(read(text.as_bytes(), false).escape.is_some());
    }
}

/// The second byte of a character that looks like a backslash.
#[test]
fn characters_of_two_bytes_hide_nothing() {
    let text = b"select E'\x83\\', set_config('role', 'x', false) --'";
    assert!(read(text, false).escape.is_some());
}
