"""psycopg 3 with all that commits. Every step runs under a correlation id of its own, which its rows bear
as well. Prints `step mark` for each, and `unnamed mark count` where records are partial: so many commits in
the write-ahead log are named by none of them."""

import sys

import psycopg
from psycopg import errors

MAJOR = int(sys.argv[1])
INSERT = "INSERT INTO work (mark, n) VALUES (%s, %s)"


def session(what, **more):
    mark = f"psycopg3-{what}"
    print("step", mark)
    return psycopg.connect(options=f"-c gatepost.correlation_id={mark}", **more), mark


def automatic(what):
    return session(what, autocommit=True)


def unnamed(mark, count):
    print("unnamed", mark, count)


def late(mark):
    """The intent of a string of statements cannot name the transaction yet."""
    print("late", mark)


def raises(kind, act):
    try:
        act()
    except kind as error:
        return error
    raise SystemExit(f"{act} raised nothing")


def blocks():
    connection, mark = session("blocks")
    with connection:
        for _ in range(5):
            connection.execute(INSERT, [mark, None])
            connection.commit()
        connection.execute(INSERT, [mark, None])
        connection.rollback()
        raises(errors.CheckViolation, lambda: connection.execute(INSERT, [mark, 13]))
        raises(errors.InFailedSqlTransaction, lambda: connection.execute(INSERT, [mark, None]))
        # The server answers this COMMIT with ROLLBACK.
        connection.commit()
        connection.execute("SELECT count(*) FROM work")
        connection.commit()
        for level in psycopg.IsolationLevel:
            connection.isolation_level = level
            connection.execute(INSERT, [mark, None])
            connection.commit()


def singles():
    connection, mark = automatic("singles")
    with connection:
        for _ in range(10):
            connection.execute(INSERT, [mark, None], prepare=True)
        connection.execute("DEALLOCATE ALL")
        for _ in range(10):
            connection.execute(INSERT, [mark, None])
        connection.execute(f"INSERT INTO work (mark) VALUES ('{mark}')")
        connection.execute("SELECT writes(%s)", [mark])
        connection.execute("UPDATE work SET n = NULL WHERE mark = %s", [mark])
        connection.execute("UPDATE work SET n = NULL WHERE false")
        connection.execute("SELECT 1 FROM work WHERE mark = %s FOR UPDATE", [mark])
        connection.execute("WITH w AS (INSERT INTO work (mark) VALUES (%s) RETURNING 1) SELECT count(*) FROM w", [mark])
        raises(errors.CheckViolation, lambda: connection.execute(INSERT, [mark, 13]))
        raises(errors.DivisionByZero, lambda: connection.execute("INSERT INTO work (mark) SELECT (1 / 0)::text"))
        connection.execute("CREATE TEMP TABLE t (a int)")
        # Else gatepost drops it, in a transaction of its own, before it lends the connection again.
        connection.execute("DROP TABLE t")


def pipeline():
    connection, mark = automatic("pipeline")
    with connection:
        with connection.pipeline():
            for _ in range(20):
                connection.execute(INSERT, [mark, None])
        # Blocks whose BEGIN, work and COMMIT are sent before the first answer.
        with connection.pipeline():
            for _ in range(5):
                with connection.transaction():
                    connection.execute(INSERT, [mark, None])
                    connection.execute("SELECT count(*) FROM work")
        with connection.pipeline() as pipe:
            connection.execute("BEGIN")
            connection.execute(INSERT, [mark, None])
            connection.execute("COMMIT AND CHAIN")
            connection.execute(INSERT, [mark, None])
            connection.execute("COMMIT")
            connection.execute(INSERT, [mark, None])
            pipe.sync()
            connection.execute("BEGIN")
            connection.execute(INSERT, [mark, None])
            connection.execute("ROLLBACK AND CHAIN")
            connection.execute(INSERT, [mark, None])
            connection.execute("COMMIT")
        # The first that fails takes what follows with it, up to the next Sync.
        with connection.pipeline() as pipe:
            connection.execute(INSERT, [mark, None])
            connection.execute(INSERT, [mark, 13])
            connection.execute(INSERT, [mark, None])
            raises(errors.CheckViolation, pipe.sync)
            connection.execute(INSERT, [mark, None])
        # A COMMIT of what nobody began.
        with connection.pipeline():
            connection.execute(INSERT, [mark, None])
            connection.execute("COMMIT")
            connection.execute(INSERT, [mark, None])


def copies():
    connection, mark = automatic("copies")
    with connection, connection.cursor() as cursor:
        for options in "", " (FORMAT binary)":
            with cursor.copy(f"COPY work (mark) FROM STDIN{options}") as sink:
                sink.set_types(["text"])
                for _ in range(100):
                    sink.write_row([mark])
        with cursor.copy("COPY (INSERT INTO work (mark) VALUES (%s) RETURNING 1) TO STDOUT", [mark]) as source:
            assert len(list(source.rows())) == 1
        with cursor.copy("COPY work TO STDOUT") as source:
            assert sum(1 for _ in source.rows()) > 200

        def half():
            with cursor.copy("COPY work (mark) FROM STDIN") as sink:
                sink.write_row([mark])
                raise KeyError("given up")

        raises(KeyError, half)
        with connection.transaction():
            with cursor.copy("COPY work (mark) FROM STDIN") as sink:
                sink.write_row([mark])
        bad = "COPY work (mark, n) FROM STDIN"

        def refused():
            with cursor.copy(bad) as sink:
                sink.write_row([mark, 13])

        raises(errors.CheckViolation, refused)


def cursors():
    connection, mark = session("cursors")
    with connection:
        connection.execute(INSERT, [mark, None])
        with connection.cursor("by_parts") as cursor:
            cursor.itersize = 10
            assert len(cursor.execute("SELECT generate_series(1, 50)").fetchmany(20)) == 20
            connection.execute(INSERT, [mark, None])
            assert len(cursor.fetchall()) == 30
        connection.commit()
        # Reads in parts alone: nothing to commit.
        with connection.cursor("reads") as cursor:
            assert len(cursor.execute("SELECT generate_series(1, 50)").fetchall()) == 50
        connection.commit()


def savepoints():
    connection, mark = session("savepoints")
    with connection:
        with connection.transaction():
            connection.execute(INSERT, [mark, None])
            with connection.transaction():
                connection.execute(INSERT, [mark, None])
            raises(errors.CheckViolation, lambda: nested(connection, mark))
        # All that was written is rolled back to the savepoint; the transaction has a number all the same.
        with connection.transaction():
            with connection.transaction(force_rollback=True):
                connection.execute(INSERT, [mark, None])
        # The first write stands behind a savepoint, so that its row bears another number.
        with connection.transaction():
            with connection.transaction():
                connection.execute(INSERT, [mark, None])


def nested(connection, mark):
    with connection.transaction():
        connection.execute(INSERT, [mark, 13])


def two_phases():
    connection, mark = session("two-phases")
    # COMMIT PREPARED ends another transaction than its own: its record bears the name, not the number.
    unnamed(mark, 0)
    with connection:
        for n, end in enumerate((connection.tpc_commit, connection.tpc_rollback)):
            xid = connection.xid(1, f"{mark}-{n}", "branch")
            connection.tpc_begin(xid)
            connection.execute(INSERT, [mark, None])
            connection.tpc_prepare()
            end()
    # By another session than the one that prepared, and by hand.
    first, mark = automatic("prepared")
    second, ending = automatic("ended")
    unnamed(ending, 0)
    with first, second:
        for gid, end in (("it''s", "COMMIT"), ("other", "ROLLBACK")):
            first.execute("BEGIN")
            first.execute(INSERT, [mark, None])
            first.execute(f"PREPARE TRANSACTION '{gid}'")
            second.execute(f"{end} PREPARED '{gid}'")
        first.execute("BEGIN")
        raises(errors.CheckViolation, lambda: first.execute(INSERT, [mark, 13]))
        # Answered with ROLLBACK.
        first.execute("PREPARE TRANSACTION 'failed'")
        raises(errors.UndefinedObject, lambda: second.execute("COMMIT PREPARED 'failed'"))


def deferred():
    connection, mark = automatic("deferred")
    with connection:
        connection.execute(INSERT, [mark, 1])
        raises(errors.UniqueViolation, lambda: connection.execute(INSERT, [mark, 1]))

        def at_commit():
            with connection.transaction():
                connection.execute(INSERT, [mark, 1])

        raises(errors.UniqueViolation, at_commit)
        with connection.transaction():
            connection.execute(INSERT, [mark, 1])
            connection.execute("DELETE FROM work WHERE mark = %s AND n = 1", [mark])


def strings():
    """Several statements in one message."""
    connection, mark = automatic("strings")
    late(mark)
    insert = f"INSERT INTO work (mark) VALUES ('{mark}')"
    with connection:
        connection.execute(f"{insert}; {insert}")
        connection.execute(f"BEGIN; {insert}; COMMIT")
        connection.execute(f"{insert}; SELECT 1 -- {mark}")
        raises(errors.DivisionByZero, lambda: connection.execute(f"{insert}; SELECT 1 / 0"))
        connection.execute(f"BEGIN; {insert}; ROLLBACK")
        connection.execute(f"BEGIN; {insert}")
        connection.execute(f"{insert}; COMMIT")


def inner_commits():
    """Strings that commit in their middle."""
    connection, mark = automatic("inner-commits")
    late(mark)
    insert = f"INSERT INTO work (mark) VALUES ('{mark}')"
    with connection:
        for text in (
            f"{insert}; COMMIT; {insert}",
            f"{insert}; COMMIT; {insert}; COMMIT",
            f"BEGIN; {insert}; COMMIT; BEGIN; {insert}; ROLLBACK; {insert}",
            f"BEGIN; {insert}; ROLLBACK; {insert}; SELECT 7",
            f"BEGIN; {insert}; COMMIT AND CHAIN; {insert}; COMMIT",
            f"BEGIN; {insert}; SAVEPOINT a; {insert}; ROLLBACK TO a; COMMIT; {insert}",
        ):
            connection.execute(text)
        raises(errors.DivisionByZero, lambda: connection.execute(f"{insert}; COMMIT; {insert}; SELECT 1 / 0"))


def own_commits():
    """What commits by itself: records are partial, and name the last transaction at most."""
    connection, mark = automatic("do")
    with connection:
        insert = f"INSERT INTO work (mark) VALUES ('{mark}')"
        connection.execute(f"DO $$ BEGIN {insert}; COMMIT; {insert}; END $$")
        unnamed(mark, 1)
        connection.execute(f"DO $$ BEGIN {insert}; END $$")
        connection.execute("DO $$ BEGIN NULL; END $$")
    connection, mark = automatic("call")
    with connection:
        connection.execute("CALL commits(%s)", [mark])
        connection.execute("CALL commits(%s)", [mark], prepare=True)
        connection.execute("CALL ends_with_commit(%s)", [mark])
        unnamed(mark, 3)
    connection, mark = automatic("concurrently")
    with connection:
        table = f"index_{MAJOR}"
        connection.execute(f"CREATE TABLE {table} (a int)")
        connection.execute(f"CREATE INDEX CONCURRENTLY i_{table} ON {table} (a)")
        connection.execute(f"REINDEX INDEX CONCURRENTLY i_{table}")
        connection.execute(f"DROP INDEX CONCURRENTLY i_{table}")
        connection.execute(f"VACUUM {table}")
        connection.execute(f"ANALYZE {table}")
    # The first phases of CREATE, REINDEX and DROP INDEX CONCURRENTLY: the last phase's number is known.
    unnamed(mark, 9)
    connection, mark = automatic("notify")
    with connection:
        connection.execute("NOTIFY somebody, 'x'")
        connection.execute("SELECT pg_notify('somebody', 'y')")
        unnamed(mark, 2)
        with connection.transaction():
            connection.execute("NOTIFY somebody, 'z'")
        unnamed(mark, 1)
        # With a write beside it the number is known.
        with connection.transaction():
            connection.execute("NOTIFY somebody, 'z'")
            connection.execute(INSERT, [mark, None])
    connection, mark = session("held")
    with connection:
        connection.execute(f"DECLARE h CURSOR WITH HOLD FOR SELECT writes('{mark}')")
        connection.commit()
        unnamed(mark, 1)


def chains():
    connection, mark = automatic("chains")
    with connection:
        connection.execute("BEGIN")
        for end in "COMMIT", "ROLLBACK", "COMMIT":
            connection.execute(INSERT, [mark, None])
            connection.execute(f"{end} AND CHAIN")
        connection.execute("COMMIT AND CHAIN")
        connection.execute(INSERT, [mark, None])
        connection.execute("COMMIT")
        connection.execute(INSERT, [mark, None])


def probes():
    """The client takes gatepost's prepared question away, or puts another in its place."""
    connection, mark = automatic("probes")
    # The driver's own would be taken as well.
    connection.prepare_threshold = None
    forge = """DO $$ DECLARE s text; BEGIN
        FOR s IN SELECT name FROM pg_prepared_statements WHERE NOT from_sql LOOP
            EXECUTE format('DEALLOCATE %I', s);
            EXECUTE format('PREPARE %I AS SELECT 4242::text::xid8', s);
        END LOOP; END $$"""
    with connection:
        for away in "DEALLOCATE ALL", "DISCARD ALL", forge, "DISCARD PLANS", forge:
            connection.execute(INSERT, [mark, None])
            connection.execute(away)
            connection.execute(INSERT, [mark, None])
            with connection.transaction():
                connection.execute(INSERT, [mark, None])
                if away == forge:
                    connection.execute(away)
                connection.execute(INSERT, [mark, None])
    # DO may commit by itself; these did not.
    unnamed(mark, 0)


for step in (
    blocks, singles, pipeline, copies, cursors, savepoints, two_phases, deferred, strings, inner_commits,
    own_commits, chains, probes,
):
    step()
