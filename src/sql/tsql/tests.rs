//! Tables of Transact-SQL, by what is to be told of each.

use crate::sql::Kind;
use crate::sql::tsql::{Effect, Implicit, Pin, PlanOnly, Step, Tracked, read, read_inner};

mod escapes;
mod hostile;
mod kinds;

/// tedious' first batch, and again after a reset.
const TEDIOUS: &str = "set textsize 2147483647
set quoted_identifier on
set arithabort off
set numeric_roundabort off
set ansi_warnings on
set ansi_padding on
set ansi_nulls on
set concat_null_yields_null on
set cursor_close_on_commit off
set implicit_transactions off
set language us_english
set dateformat mdy
set datefirst 7
set transaction isolation level read committed";

/// FreeTDS' (pymssql).
const FREETDS: &str = "SET ARITHABORT ON;SET CONCAT_NULL_YIELDS_NULL ON;SET ANSI_NULLS ON;\
SET ANSI_NULL_DFLT_ON ON;SET ANSI_PADDING ON;SET ANSI_WARNINGS ON;SET ANSI_NULL_DFLT_ON ON;\
SET CURSOR_CLOSE_ON_COMMIT ON;SET QUOTED_IDENTIFIER ON;SET TEXTSIZE 2147483647";

fn pins(text: &str) -> Vec<Pin> {
    read(text).pins.iter().collect()
}

#[test]
fn plain_reads_are_proven() {
    let plain = [
        "select 1",
        "select * from dbo.orders o with (nolock) where o.id = @p1 order by o.id",
        "select a from t (nolock) where b in (1, 2)",
        "SELECT TOP (10) [o].[Id], COUNT(*) OVER (PARTITION BY x) FROM [dbo].[Orders] AS [o] ORDER BY 1 OFFSET @p ROWS FETCH NEXT @q ROWS ONLY",
        "with x (a, b) as (select 1, 2) select * from x",
        "declare @a int = 1; set @a = 2; select @a, @@version; print 'x'",
        "set nocount on; select 1",
        "set transaction isolation level read committed",
        "select case when a = 1 then isnull(b, '') else upper(c) end from t cross join u",
        "select * from openjson(@j) with (a int '$.a') for json path",
        "select 'insert into t', [commit], \"exec\" from t -- commit",
        "select /* commit */ cast(a as varchar(10)) from t union all (select b from u)",
        "(select 1) union (select 2)",
        "select {fn round(1, 2)}, {ts '2020-01-01 00:00:00'}",
        "select * from a.b.c",
        "select session_context(N'x'), object_id('sp_password')",
        "",
    ];
    for text in plain {
        assert!(read(text).plain_read, "{text}");
    }
    let unproven = [
        "select * into t from u",
        "insert into t values (1)",
        "select 1 commit",
        "select 1; exec p",
        "select dbo.f(1)",
        "select [f](1)",
        "select * from f(1)",
        "select * from t, u cross apply f(t.a)",
        "select dbo.len(1)",
        "select geography::Parse('x')",
        "select x.value('a', 'int') from t",
        "select * from s.d.dbo.t",
        "select * from s.d..t",
        "select * from openquery(s, 'delete t')",
        "select * from openrowset('x', 'y', 'z')",
        "select * from opendatasource('x', 'y').d.s.t",
        "select next value for s",
        "select 1 {call p}",
        "select 1; sp_mine",
        "sp_who",
        "[select] 1",
        "com/**/mit",
        "select 1 -- x\rdelete t",
        "select\u{2003}1",
        "if 1 = 1 select 1",
        "declare c cursor for select 1",
        "select 1 fetch next from c",
        "use orders select 1",
        "set implicit_transactions on; select 1",
        "set showplan_all on",
        "set noexec off; select 1",
        "set context_info 0x1",
        "select 1 throw 50000, 'x', 1",
        "receive top(1) * from q",
        "waitfor delay '0:0:1'",
        "select 1 where update(a)",
        "x: select 1",
        "set x.y = 1",
        "select 0x1begin",
    ];
    for text in unproven {
        assert!(!read(text).plain_read, "{text}");
    }
}

#[test]
fn setting_the_correlation_id_writes_nothing() {
    for plain in [
        "exec sp_set_session_context N'correlation_id', N'x'",
        "exec @rc = sys.sp_set_session_context @key = N'correlation_id', @value = @v, @read_only = 1;",
        "sp_set_session_context N'correlation_id', null",
    ] {
        assert!(read(plain).plain_read, "{plain}");
    }
    for more in [
        "exec sp_set_session_context N'correlation_id', N'b' delete t",
        "exec sp_set_session_context N'correlation_id', N'b'; exec p",
        "delete t exec sp_set_session_context N'correlation_id', N'b'",
        "exec dbo.sp_set_session_context N'correlation_id', N'b'",
        "exec sp_set_session_context N'tenant', N'b'",
        "if 1 = 1 exec sp_set_session_context N'correlation_id', N'b'",
    ] {
        assert!(!read(more).plain_read, "{more}");
    }
}

#[test]
fn transactions_are_followed_where_the_batch_is_straight() {
    use Step::{Begin, Commit, Rollback, RollbackToSave, Save, Work};
    let table: [(&str, &[Step]); 15] = [
        ("begin tran", &[Begin]),
        ("BEGIN/**/TRANSACTION t1 WITH MARK 'x'", &[Begin]),
        ("begin tran insert t values (1) commit", &[Begin, Work, Commit]),
        (
            "begin tran; update t set a = 1; update t set a = 2; commit tran t1",
            &[Begin, Work, Commit],
        ),
        ("commit work", &[Commit]),
        (
            "COMMIT TRANSACTION @t WITH (DELAYED_DURABILITY = ON) select 1",
            &[Commit, Work],
        ),
        ("if_ 1", &[]),
        ("rollback", &[Rollback]),
        ("rollback work;", &[Rollback]),
        ("rollback tran select 1", &[Rollback, Work]),
        (
            "save tran s; delete t; rollback tran s",
            &[Save, Work, RollbackToSave],
        ),
        ("begin tran begin tran commit", &[Begin, Begin, Commit]),
        ("begin begin tran; select 1 end", &[Begin, Work]),
        ("select 1 commit", &[Work, Commit]),
        ("COMMIT TRAN;BEGIN TRAN", &[Commit, Begin]),
    ];
    for (text, steps) in table {
        let wanted = if steps.is_empty() {
            Effect::UNKNOWN
        } else {
            Effect::Steps(steps.to_vec())
        };
        assert_eq!(read(text).transaction, wanted, "{text}");
    }
    let depth = |text: &str, depth| read(text).transaction.depth_after(depth, false);
    assert_eq!(depth("begin tran begin tran commit", 0), Some(1));
    assert_eq!(depth("commit", 0), None);
    assert_eq!(depth("rollback", 3), Some(0));
    assert_eq!(depth("select 1", 2), Some(2));
    assert_eq!(read("select 1").transaction.depth_after(0, true), None);
    assert_eq!(read("select 1 commit").transaction.depth_after(0, true), None);
}

#[test]
fn what_decides_elsewhere_is_unclear() {
    let unclear = [
        ("if @@trancount > 0 commit", false, true),
        ("if @a = 1 begin tran", true, false),
        (
            "begin try begin tran; commit end try begin catch rollback end catch",
            true,
            true,
        ),
        ("exec p", true, true),
        ("exec sp_executesql N'commit'", true, true),
        ("exec ('commit')", true, true),
        ("exec @p", true, true),
        ("{call p}", true, true),
        ("{? = call p (?)}", true, true),
        ("p", true, true),
        ("select 1; p", true, true),
        ("x: p", true, true),
        ("dbo.sp_who", true, true),
        ("rollback tran x", true, true),
        ("save tran @x; rollback tran @x", true, true),
        ("begin distributed tran", true, true),
        ("select 1 -- x\rcommit", true, true),
        ("set noexec on; commit", false, true),
        ("create procedure p as commit", false, true),
        ("return commit", false, true),
    ];
    for (text, may_begin, may_end) in unclear {
        assert_eq!(
            read(text).transaction,
            Effect::Unclear { may_begin, may_end },
            "{text}"
        );
    }
    let untouched = [
        "select 1",
        "insert into t values ('commit')",
        "if 1 = 1 delete t",
        "select [commit], \"rollback\" from t",
        "exec sp_who",
        "exec sp_set_session_context N'a', N'b'",
        "create procedure p as select 1",
        "/* commit */ select 1 -- commit",
        "execute as user = 'x'",
        "grant execute on p to x",
        "begin try select 1 end try begin catch select 2 end catch",
    ];
    for text in untouched {
        assert_eq!(read(text).transaction, Effect::Untouched, "{text}");
    }
}

#[test]
fn state_that_stays_behind_pins() {
    use Pin::*;
    let table: [(&str, &[Pin]); 48] = [
        ("select 1", &[]),
        ("create table #t (a int)", &[TempTable]),
        ("select * into #t from u", &[TempTable]),
        ("select * into tempdb..[#t] from u", &[TempTable]),
        ("create table \"##t\" (a int)", &[GlobalTempTable]),
        ("declare @t table (a int)", &[]),
        ("declare c cursor for select 1", &[Cursor]),
        ("declare c cursor local fast_forward for select 1", &[]),
        ("declare @c cursor set @c = cursor for select 1", &[]),
        ("exec sp_getapplock 'a', 'Exclusive'", &[AppLock]),
        ("exec sys.sp_setapprole 'a', 'b'", &[AppRole]),
        ("execute as login = 'x'", &[ExecuteAs]),
        ("exec/**/as user = 'x'", &[ExecuteAs]),
        ("create procedure p with execute as owner as select 1", &[]),
        ("setuser 'x'", &[SetUser]),
        ("set context_info 0x01", &[ContextInfo]),
        ("exec sp_set_session_context N'tenant', 5", &[SessionContext]),
        ("exec sp_set_session_context @k, 5", &[SessionContext]),
        ("exec sp_set_session_context N'correlation_id', N'x'", &[]),
        (
            "exec sp_set_session_context N'correlation_id', N'x', 1",
            &[SessionContext],
        ),
        (
            "exec sp_set_session_context @key = N'correlation_id', @value = N'x', @read_only = 0",
            &[],
        ),
        ("use orders", &[Database]),
        ("select 1 option (use hint ('x'))", &[]),
        ("set deadlock_priority low", &[Setting]),
        ("set datefirst @x", &[Setting]),
        ("if 1 = 0 set nocount on", &[Setting]),
        ("set nocount on", &[]),
        ("set showplan_xml on", &[PlanOnly]),
        ("set fmtonly off", &[]),
        ("set statistics io, time on", &[Statistics]),
        ("set identity_insert t on", &[IdentityInsert]),
        ("dbcc traceon (1204)", &[TraceFlag]),
        ("dbcc checkdb", &[]),
        (
            "open symmetric key k decryption by certificate c",
            &[SymmetricKey],
        ),
        ("insert bulk t (a int)", &[Bulk]),
        ("select 1; p", &[Unreadable]),
        ("begin dialog @h from service a to service 'b'", &[ServiceBroker]),
        ("waitfor (receive top(1) * from q)", &[ServiceBroker]),
        ("exec sp_bindsession @t", &[BoundSession]),
        ("exec sp_trace_create @a", &[Trace]),
        ("exec sp_xml_preparedocument @h output, @x", &[XmlDocument]),
        ("exec sp_prepare @h output, N'', N'select 1'", &[PreparedHandle]),
        ("begin distributed tran", &[Distributed]),
        ("exec (@s)", &[DynamicSql]),
        ("exec sp_executesql N'select 1'", &[DynamicSql]),
        ("exec dbo.apply_order 1", &[Procedure]),
        ("select 1 -- a\rselect 2", &[Unreadable]),
        ("update t set a = 1", &[]),
    ];
    for (text, wanted) in table {
        assert_eq!(pins(text), wanted, "{text}");
    }
    for text in ["exec sp_setapprole 'a'", "execute as user = 'x'", "setuser"] {
        assert!(read(text).poisons(), "{text}");
    }
    let inner = read_inner("create table #t (a int) set nocount on create table ##u (a int)");
    assert_eq!(inner.pins.iter().collect::<Vec<_>>(), [GlobalTempTable]);
    assert_eq!(inner.settings, []);
}

#[test]
fn drivers_first_batches_pin_nothing() {
    for (text, settings) in [(TEDIOUS, 14), (FREETDS, 10)] {
        let reading = read(text);
        assert!(reading.pins.is_empty(), "{:?}", reading.pins);
        assert_eq!(reading.settings.len(), settings);
        assert_eq!(reading.transaction, Effect::Untouched);
        assert_eq!(reading.statements.len(), settings);
        assert!(
            reading
                .statements
                .iter()
                .all(|statement| statement.kind == Kind::Set)
        );
        let again: Vec<_> = reading.settings.iter().map(super::Setting::sql).collect();
        assert_eq!(read(&again.join("\n")).settings, reading.settings);
    }
    assert_eq!(read(TEDIOUS).implicit, Some(Implicit::Off));
}

#[test]
fn settings_are_written_as_they_can_be_set_again() {
    let sql = |text: &str| {
        let reading = read(text);
        let settings: Vec<_> = reading.settings.iter().map(super::Setting::sql).collect();
        settings.join("; ")
    };
    let table = [
        ("set lock_timeout -1", "SET LOCK_TIMEOUT -1"),
        (
            "set ansi_nulls, quoted_identifier off",
            "SET ANSI_NULLS OFF; SET QUOTED_IDENTIFIER OFF",
        ),
        (
            "set language [British English]",
            "SET LANGUAGE N'British English'",
        ),
        ("set language N'it''s'", "SET LANGUAGE N'it''s'"),
        ("SET DATEFORMAT dmy", "SET DATEFORMAT N'dmy'"),
        (
            "set transaction isolation level repeatable read;",
            "SET TRANSACTION ISOLATION LEVEL REPEATABLE READ",
        ),
        ("use [a]]b]", "USE [a]]b]"),
        ("set rowcount 0", "SET ROWCOUNT 0"),
        ("set textsize 1e3", ""),
        ("update t set nocount = 1, language = 'x'", ""),
        ("update t set textsize = 5", ""),
    ];
    for (text, wanted) in table {
        assert_eq!(sql(text), wanted, "{text}");
    }
    let defaults = read("set ansi_defaults on");
    assert_eq!(defaults.settings.len(), 7);
    assert_eq!(defaults.implicit, Some(Implicit::On));
    assert_eq!(
        read("if 1 = 0 set implicit_transactions on").implicit,
        Some(Implicit::Perhaps)
    );
    assert_eq!(Tracked::IsolationLevel.name(), "TRANSACTION ISOLATION LEVEL");
}

#[test]
fn plan_only_options_are_followed() {
    let after = |text: &str, before: PlanOnly| read(text).suppresses_probe(before);
    let none = PlanOnly::NONE;
    let on = after("set fmtonly on", none);
    assert!(!on.is_empty());
    assert_eq!(after("set fmtonly on select 1 set fmtonly off", none), none);
    assert_eq!(after("select 1", on), on);
    assert_eq!(after("set fmtonly off", on), none);
    assert_eq!(after("set noexec off", on), on);
    assert_eq!(after("if 1 = 0 set fmtonly off", on), on);
    assert_eq!(after("if 1 = 0 set fmtonly on", none), on);
}

#[test]
fn what_asks_for_the_last_statement_is_noticed() {
    for text in [
        "select @@identity",
        "SELECT SCOPE_IDENTITY()",
        "if @@ROWCOUNT = 0 select 1",
    ] {
        assert!(read(text).asks_for_last, "{text}");
    }
    assert!(!read("select '@@identity', @identity").asks_for_last);
}

#[test]
fn lists_are_in_order() {
    assert!(super::plain::lists_are_sorted());
    assert!(super::statements::keywords_are_sorted());
}

mod correlations {
    use crate::domain::correlation::CorrelationSource;
    use crate::sql::correlation::Setting;
    use crate::sql::tsql::correlation::{Key, Value, key, parameter_place};
    use crate::sql::tsql::read;

    fn set(text: &str) -> Option<Value> {
        let mut sets = read(text).sets;
        let last = sets.pop();
        assert!(sets.is_empty());
        last.map(|set| set.value)
    }

    fn known(text: &str) -> Option<String> {
        match set(text) {
            Some(Value::Known(id)) if id.source == CorrelationSource::Set => Some(id.id.to_string()),
            _ => None,
        }
    }

    #[test]
    fn ids_are_read_from_calls() {
        for text in [
            "exec sp_set_session_context N'correlation_id', N'a''b'",
            "EXECUTE sys.sp_set_session_context @key = N'gatepost.correlation_id', @value = N'a''b';",
            "exec [sys].[sp_set_session_context] @value='a''b',@key='correlation_id'",
            "sp_set_session_context 'Correlation_Id ', 'a''b'",
            "exec @rc = sp_set_session_context correlation_id, N'a''b', @read_only = 0 select 1",
            "{call sp_set_session_context N'correlation_id', N'a''b'}",
        ] {
            let found = known(text);
            assert_eq!(found.as_deref(), Some("a'b"), "{text}");
        }
        assert_eq!(
            known("exec sp_set_session_context 'correlation_id', 17").as_deref(),
            Some("17")
        );
        assert_eq!(
            set("exec sp_set_session_context 'correlation_id', NULL"),
            Some(Value::None)
        );
        assert_eq!(
            set("exec sp_set_session_context 'correlation_id', ''"),
            Some(Value::None)
        );
        assert_eq!(
            set("exec sp_set_session_context @key = 'correlation_id', @value = @id"),
            Some(Value::Variable("@id".into()))
        );
        assert_eq!(set("exec sp_set_session_context 'other', 'x'"), None);
        assert_eq!(
            set("select 'exec sp_set_session_context ''correlation_id'', ''x'''"),
            None
        );
    }

    #[test]
    fn questions_are_read_from_calls() {
        let reading = read("exec sp_set_session_context N'gatepost.outcome_of', N'm-1'");
        assert_eq!(reading.escape, None);
        assert!(reading.plain_read);
        let set = reading.sets[0].bound(None);
        assert_eq!(set.setting, Setting::OutcomeOf);
        assert_eq!(set.value.unwrap().id.as_ref(), "m-1");
        let forged = read("exec sp_set_session_context N'gatepost.outcomes', N'{}'");
        assert!(forged.escape.is_some());
    }

    #[test]
    fn a_parameter_is_filled_in() {
        let sets = read("exec sp_set_session_context N'correlation_id', @C").sets;
        assert_eq!(
            parameter_place("@a decimal(10, 2) = 1, @b int, @c nvarchar(9) OUTPUT", "@C"),
            Some(2)
        );
        assert_eq!(parameter_place("@a int", "@c"), None);
        let bound = sets[0].bound(Some("x")).value;
        assert_eq!(bound.unwrap().id.as_ref(), "x");
        assert_eq!(sets[0].bound(None).value, None);
    }

    #[test]
    fn comments_carry_ids_too() {
        let reading = read("select 1 /*correlation_id='order%3A17',traceparent='00-aa-bb-01'*/");
        let ids: Vec<_> = reading.comments.iter().map(|it| it.id.to_string()).collect();
        assert_eq!(ids, ["order:17", "00-aa-bb-01"]);
        assert!(read("select '/*correlation_id=''x''*/'").comments.is_empty());
    }

    #[test]
    fn keys_have_owners() {
        assert_eq!(
            key("gatepost.correlation_id"),
            Key::Setting(Setting::CorrelationId)
        );
        assert_eq!(key("CORRELATION_ID  "), Key::Setting(Setting::CorrelationId));
        assert_eq!(key("Gatepost.Outcome_Of"), Key::Setting(Setting::OutcomeOf));
        // Somebody's own, as far as we know.
        assert_eq!(key("outcome_of"), Key::Own);
        assert_eq!(key("gatepost.outcomes"), Key::Reserved);
        assert_eq!(key("Gatepost.subject"), Key::Reserved);
        assert_eq!(key("\u{ff47}atepost.subject"), Key::Reserved);
        assert_eq!(key("tenant"), Key::Own);
    }
}
