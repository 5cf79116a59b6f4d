"""psycopg2: the simple query protocol throughout. See psycopg3_story.py."""

import io
import os
import sys

import psycopg2
from psycopg2.extras import execute_batch, execute_values

MARK = sys.argv[1]


def mark(what):
    return f"{MARK}-{what}"


def connect(what):
    return psycopg2.connect("", options=f"-c gatepost.correlation_id={mark(what)}")


def correlate(cursor, what):
    cursor.execute("SET LOCAL gatepost.correlation_id = %s", [mark(what)])


def insert(cursor, what):
    cursor.execute("INSERT INTO orders (customer) VALUES (%s)", [mark(what)])


connection = connect("startup")
with connection, connection.cursor() as cursor:
    insert(cursor, "startup")
with connection, connection.cursor() as cursor:
    correlate(cursor, "local")
    insert(cursor, "local")
    cursor.execute("SELECT count(*) FROM orders")
    assert cursor.fetchone()[0] >= 2
try:
    with connection, connection.cursor() as cursor:
        correlate(cursor, "check")
        insert(cursor, "check")
        cursor.execute("SELECT pg_current_xact_id_if_assigned()::text")
        print("aborted", mark("check"), cursor.fetchone()[0])
        cursor.execute("INSERT INTO orders (customer, cents) VALUES ('x', 0)")
except psycopg2.errors.CheckViolation:
    pass
with connection, connection.cursor() as cursor:
    correlate(cursor, "copy")
    cursor.copy_expert("COPY orders (customer) FROM STDIN", io.StringIO(f"{mark('copy')}\n" * 1000))
with connection, connection.cursor() as cursor:
    correlate(cursor, "values")
    execute_values(cursor, "INSERT INTO orders (customer) VALUES %s", [[mark("values")]] * 30)
with connection, connection.cursor() as cursor:
    correlate(cursor, "batch")
    execute_batch(cursor, "INSERT INTO orders (customer) VALUES (%s)", [[mark("batch")]] * 30, page_size=10)
with connection, connection.cursor() as cursor:
    correlate(cursor, "savepoint")
    insert(cursor, "savepoint")
    cursor.execute("SAVEPOINT here")
    cursor.execute("DELETE FROM orders WHERE customer = %s", [mark("local")])
    cursor.execute("ROLLBACK TO SAVEPOINT here")
with connection, connection.cursor("by_parts") as cursor:
    cursor.execute("SELECT id FROM orders")
    assert len(cursor.fetchmany(500)) == 500
connection.close()

connection = connect("autocommit")
connection.autocommit = True
with connection.cursor() as cursor:
    insert(cursor, "autocommit")
    cursor.execute(
        f"INSERT INTO orders (customer) VALUES ('{mark('comment')}') /*correlation_id='{mark('comment')}'*/"
    )
    try:
        cursor.execute("SELECT * FROM nothing_of_this_name")
        raise SystemExit("that table exists?")
    except psycopg2.errors.UndefinedTable:
        pass
    cursor.execute("PREPARE one AS SELECT $1::int")
    cursor.execute("EXECUTE one(7)")
    assert cursor.fetchone() == (7,)
    sink = io.StringIO()
    cursor.copy_expert("COPY (SELECT customer FROM orders) TO STDOUT", sink)
    assert mark("comment") in sink.getvalue()
connection.close()
