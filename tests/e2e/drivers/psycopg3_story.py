"""psycopg 3 as an ordinary program uses it. Connection settings come from libpq's environment; MARK
begins every correlation id. Prints what the journal must say beside the rows themselves."""

import os
import sys

import psycopg

MARK = sys.argv[1]
XID = "SELECT pg_current_xact_id_if_assigned()::text"


def mark(what):
    return f"{MARK}-{what}"


def correlate(connection, what, local=True):
    connection.execute(f"SET {'LOCAL ' if local else ''}gatepost.correlation_id = '{mark(what)}'")


def insert(connection, what, **more):
    connection.execute("INSERT INTO orders (customer) VALUES (%s)", [mark(what)], **more)


def connect(what):
    return psycopg.connect(options=f"-c gatepost.correlation_id={mark(what)}")


with connect("startup") as connection:
    insert(connection, "startup")
    connection.commit()

    with connection.transaction():
        correlate(connection, "local")
        insert(connection, "local")
        connection.execute("SELECT count(*) FROM orders").fetchone()

    try:
        with connection.transaction():
            correlate(connection, "check")
            insert(connection, "check")
            print("aborted", mark("check"), connection.execute(XID).fetchone()[0])
            connection.execute("INSERT INTO orders (customer, cents) VALUES ('x', -1)")
    except psycopg.errors.CheckViolation:
        pass

    with connection.transaction():
        correlate(connection, "savepoint")
        insert(connection, "savepoint")
        try:
            with connection.transaction():
                connection.execute("INSERT INTO orders (customer, cents) VALUES ('x', -1)")
        except psycopg.errors.CheckViolation:
            pass

    with connection.transaction(), connection.cursor() as cursor:
        correlate(connection, "copy")
        with cursor.copy("COPY orders (customer) FROM STDIN") as copy:
            for _ in range(1000):
                copy.write_row([mark("copy")])

    with connection.transaction(), connection.cursor() as cursor:
        correlate(connection, "many")
        cursor.executemany("INSERT INTO orders (customer) VALUES (%s)", [[mark("many")]] * 50)
        assert cursor.rowcount == 50

    with connection.transaction(), connection.cursor("by_parts") as cursor:
        correlate(connection, "cursor")
        cursor.execute("SELECT id FROM orders")
        assert len(cursor.fetchmany(500)) == 500
        insert(connection, "cursor")

    with connection.transaction(), connection.pipeline():
        correlate(connection, "pipeline")
        for _ in range(20):
            insert(connection, "pipeline")

with connect("autocommit") as connection:
    connection.autocommit = True
    insert(connection, "autocommit")
    trace = f"00-{MARK.encode().hex():0<32.32}-00f067aa0ba902b7-01"
    connection.execute(f"INSERT INTO orders (customer) VALUES ('{trace}') /*traceparent='{trace}'*/")
    correlate(connection, "prepared", local=False)
    for _ in range(10):
        insert(connection, "prepared", prepare=True)
    assert connection.execute("SELECT 1", prepare=True).fetchone() == (1,)
    with connection.cursor() as cursor, cursor.copy("COPY (SELECT customer FROM orders) TO STDOUT") as copy:
        assert sum(len(block) for block in copy) > 1000
    correlate(connection, "copied", local=False)
    with connection.cursor() as cursor, cursor.copy("COPY orders (customer) FROM STDIN") as copy:
        copy.write_row([mark("copied")])
    try:
        connection.execute("SELECT * FROM nothing_of_this_name")
        raise SystemExit("that table exists?")
    except psycopg.errors.UndefinedTable:
        pass
    correlate(connection, "piped", local=False)
    with connection.pipeline():
        for _ in range(5):
            insert(connection, "piped")
