//! Where statements begin and of which kind they are.

use crate::sql::Kind;
use crate::sql::Kind::{
    Begin, CloseCursor, Commit, Control, CopyIn, CopyServer, Deallocate, Declare, Definition, Delete,
    Execute, Fetch, Insert, Maintenance, Merge, Notify, Print, Rollback, Savepoint, Select, Set, Unknown,
    Update, Use,
};
use crate::sql::tsql::read;

const TABLE: [(&str, &[Kind]); 56] = [
    ("", &[]),
    (" ; -- x", &[]),
    ("select 1", &[Select]),
    ("select 1; select 2;", &[Select, Select]),
    ("select a from t select b from u", &[Select, Select]),
    ("((select 1)) union select 2; (a)", &[Select, Unknown]),
    ("begin dialog @h from service a to service 'b'", &[Notify]),
    ("select 1 union all select 2 except select 3", &[Select]),
    (
        "select case when a = 1 then 2 else 3 end from t update t set a = 1",
        &[Select, Update],
    ),
    ("with x as (select 1 a) select * from x", &[Select]),
    ("with x as (select 1 a) update x set a = 2", &[Update]),
    (
        ";with x as (select 1 a), y as (select 2 b) insert into t select * from x",
        &[Insert],
    ),
    ("select * into #x from t", &[Definition]),
    (
        "select a from t order by a offset 5 rows fetch next 5 rows only",
        &[Select],
    ),
    (
        "insert into t (a) values (1) insert t select 2",
        &[Insert, Insert],
    ),
    ("insert into t exec p", &[Insert]),
    ("insert into t with (tablock) select 1", &[Insert]),
    ("insert t default values", &[Insert]),
    ("insert bulk t (a int)", &[CopyIn]),
    ("bulk insert t from 'x'", &[CopyServer]),
    ("update t set a = 1 where b = 2 set nocount on", &[Update, Set]),
    ("update statistics t", &[Maintenance]),
    ("delete from t where a = 1 delete t", &[Delete, Delete]),
    (
        "merge t using s on t.a = s.a when matched then update set b = 1 when not matched then insert (a) values (1);",
        &[Merge],
    ),
    ("begin tran insert t values (1) commit", &[Begin, Insert, Commit]),
    (
        "BEGIN TRANSACTION; ROLLBACK TRAN x; SAVE TRAN y",
        &[Begin, Rollback, Savepoint],
    ),
    ("begin select 1 end", &[Select]),
    (
        "begin try select 1 end try begin catch rollback; throw end catch",
        &[Select, Rollback, Control],
    ),
    (
        "if @a = 1 begin update t set a = 1 end else delete t",
        &[Control, Update, Delete],
    ),
    ("if exists (select 1 from t) select 1", &[Control, Select]),
    ("while @i < 3 set @i += 1", &[Control, Set]),
    ("declare @a int = 1 select @a", &[Declare, Select]),
    (
        "declare c cursor for select a from t open c fetch next from c close c deallocate c",
        &[Declare, Fetch, Fetch, CloseCursor, Deallocate],
    ),
    ("set @a = 1 print 'x' raiserror('x', 1, 1)", &[Set, Print, Print]),
    ("use orders select 1", &[Use, Select]),
    ("exec p @a = 1, @b = 2", &[Execute]),
    ("exec ('select 1') select 2", &[Execute, Select]),
    ("exec p 1 exec p 2", &[Execute, Execute]),
    ("sp_who 'active'", &[Execute]),
    ("[dbo].[p] 1", &[Execute]),
    ("execute as user = 'x' revert", &[Set, Set]),
    ("com/**/mit", &[Execute]),
    (
        "create table t (a int, b int) create index i on t (a)",
        &[Definition, Definition],
    ),
    (
        "create procedure p as begin tran; update t set a = 1; commit",
        &[Definition],
    ),
    ("create or alter view v as select 1 a", &[Definition]),
    ("alter table t drop column a", &[Definition]),
    (
        "alter table t add constraint f foreign key (a) references u (a) on delete set null on update cascade",
        &[Definition],
    ),
    (
        "grant select, insert, execute on t to x select 1",
        &[Definition, Select],
    ),
    ("deny select on t to x", &[Definition]),
    ("truncate table t", &[Definition]),
    ("dbcc checkdb", &[Maintenance]),
    ("waitfor delay '0:0:1'", &[Control]),
    ("x: select 1 goto x", &[Unknown, Select, Control]),
    ("select [select], \"insert\", N'update' from t", &[Select]),
    ("insert into t output inserted.a into @x values (1)", &[Insert]),
    (
        "update t set a = (select max(b) from u) output deleted.a from t",
        &[Update],
    ),
];

#[test]
fn kinds_by_their_words() {
    for (text, wanted) in TABLE {
        let statements = read(text).statements;
        let kinds: Vec<_> = statements.iter().map(|statement| statement.kind).collect();
        assert_eq!(kinds, wanted, "{text}");
    }
}

#[test]
fn statements_have_their_own_text() {
    let text = "begin tran\nupdate t set a = 'é' -- x\n;commit";
    let texts: Vec<_> = read(text)
        .statements
        .into_iter()
        .map(|it| text.get(it.range).unwrap())
        .collect();
    assert_eq!(texts, ["begin tran", "update t set a = 'é'", "commit"]);
}
