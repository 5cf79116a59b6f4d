"""psycopg2 with all that commits, by simple queries, and by function calls for its large objects. Prints
what psycopg3_complete.py prints."""

import io

import psycopg2
import psycopg2.extras
from psycopg2 import errors

INSERT = "INSERT INTO work (mark, n) VALUES (%s, %s)"


def session(what, automatic=False):
    mark = f"psycopg2-{what}"
    print("step", mark)
    connection = psycopg2.connect(options=f"-c gatepost.correlation_id={mark}")
    connection.autocommit = automatic
    return connection, connection.cursor(), mark


def unnamed(mark, count):
    print("unnamed", mark, count)


def raises(kind, act):
    try:
        act()
    except kind:
        return
    raise SystemExit(f"{act} raised nothing")


def blocks():
    connection, cursor, mark = session("blocks")
    for _ in range(5):
        cursor.execute(INSERT, [mark, None])
        connection.commit()
    cursor.execute(INSERT, [mark, None])
    connection.rollback()
    raises(errors.CheckViolation, lambda: cursor.execute(INSERT, [mark, 13]))
    connection.commit()
    cursor.execute("SAVEPOINT a")
    cursor.execute(INSERT, [mark, None])
    cursor.execute("ROLLBACK TO SAVEPOINT a")
    cursor.execute(INSERT, [mark, None])
    cursor.execute("RELEASE SAVEPOINT a")
    connection.commit()
    psycopg2.extras.execute_values(cursor, "INSERT INTO work (mark) VALUES %s", [(mark,)] * 250)
    psycopg2.extras.execute_batch(cursor, INSERT, [(mark, None)] * 250)
    connection.commit()
    connection.close()


def singles():
    connection, cursor, mark = session("singles", automatic=True)
    print("late", mark)
    for _ in range(10):
        cursor.execute(INSERT, [mark, None])
    # Several statements in each message.
    psycopg2.extras.execute_batch(cursor, INSERT, [(mark, None)] * 250)
    cursor.copy_expert("COPY work (mark) FROM STDIN", io.StringIO(f"{mark}\n" * 100))
    raises(errors.CheckViolation, lambda: cursor.copy_expert("COPY work (mark, n) FROM STDIN", io.StringIO(f"{mark}\t13\n")))
    cursor.copy_expert("COPY work TO STDOUT", io.StringIO())
    raises(errors.CheckViolation, lambda: cursor.execute(INSERT, [mark, 13]))
    cursor.execute(INSERT, [mark, 2])
    raises(errors.UniqueViolation, lambda: cursor.execute(INSERT, [mark, 2]))
    connection.close()


def large_objects():
    connection, _, mark = session("large-objects")
    # Function calls: nobody knows what they do, but in a block the number is asked for.
    unnamed(mark, 0)
    for _ in range(3):
        large = connection.lobject(0, "wb")
        large.write(b"x" * 10_000)
        large.close()
        connection.commit()
    connection.lobject(0, "wb").write(b"y")
    connection.rollback()
    connection.close()


def two_phases():
    connection, cursor, mark = session("two-phases")
    unnamed(mark, 0)
    for n, end in enumerate((connection.tpc_commit, connection.tpc_rollback)):
        connection.tpc_begin(connection.xid(2, f"{mark}-{n}", "branch"))
        cursor.execute(INSERT, [mark, None])
        connection.tpc_prepare()
        end()
    # In one phase after all.
    connection.tpc_begin(connection.xid(2, f"{mark}-one", "branch"))
    cursor.execute(INSERT, [mark, None])
    connection.tpc_commit()
    connection.close()


def own_commits():
    connection, cursor, mark = session("call", automatic=True)
    cursor.execute("CALL commits(%s)", [mark])
    cursor.execute("NOTIFY somebody")
    unnamed(mark, 2)
    connection.close()


for step in blocks, singles, large_objects, two_phases, own_commits:
    step()
