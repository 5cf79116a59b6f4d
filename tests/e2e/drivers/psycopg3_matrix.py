"""psycopg 3 through the list of tests/e2e/matrix.rs. Settings come from libpq's environment and STORY_…;
prints one line a step and ends at the first thing that is wrong."""

import datetime
import json
import os
import threading
import time
import urllib.request

import psycopg
from psycopg import errors
from psycopg.types.json import Jsonb

NAME = os.environ["PGAPPNAME"]
ROWS = int(os.environ["STORY_ROWS"])
INSERT = "INSERT INTO parcels (driver, step, n) VALUES (%s, %s, %s)"
# Such a row's xmin is the subtransaction's; the journal names the transaction.
IN_SAVEPOINT = """INSERT INTO parcels (driver, step, n, body)
    VALUES (%s, 'recovery', 4, pg_current_xact_id()::text)"""
LARGE = 5 * 1024 * 1024


def raises(kind, act):
    try:
        act()
    except kind as error:
        return error
    raise AssertionError(f"no {kind.__name__}")


def automatic(**more):
    return psycopg.connect(autocommit=True, **more)


def one(connection, sql, *parameters, **more):
    return connection.execute(sql, parameters, **more).fetchone()[0]


def count(connection, step):
    return one(connection, "SELECT count(*) FROM parcels WHERE driver = %s AND step = %s", NAME, step)


def connect():
    with automatic() as connection:
        assert one(connection, "SELECT current_database()") == "orders"
        assert connection.info.encoding == "utf-8"
        assert connection.pgconn.ssl_in_use


def refused():
    # libpq has no field for the SQLSTATE of a refused connection; its text has the rest.
    told = str(raises(psycopg.OperationalError, lambda: automatic(dbname="nowhere")))
    for part in "no rule permits this identity", "DETAIL:  gatepost session s-", "HINT:  ":
        assert part in told, told


def prepared():
    at = datetime.datetime(2026, 1, 2, 3, 4, 5, 678901, datetime.timezone.utc)
    insert = """INSERT INTO parcels (driver, step, n, body, raw, doc, at, list) VALUES (%s, 'prepared', %s, %s, %s, %s, %s, %s)
        RETURNING n, body, raw, doc, at, list"""
    with automatic() as connection:
        for n in range(1, 101):
            row = (n, None if n % 2 else f"text {n} ☃", bytes([0, 255, n]), {"n": [n, None]}, at, [n, None, -n])
            sent = [NAME, *row[:3], Jsonb(row[3]), *row[4:]]
            with connection.cursor(binary=bool(n % 3)) as cursor:
                assert cursor.execute(insert, sent, prepare=True).fetchone() == row
        assert count(connection, "prepared") == 100


def pipeline():
    with automatic() as connection:
        with connection.pipeline():
            for n in range(1, 26):
                connection.execute(INSERT, [NAME, "pipeline", n])
        with connection.transaction(), connection.cursor() as cursor:
            cursor.executemany(INSERT, [(NAME, "pipeline", n) for n in range(26, 51)])
        # The first that fails takes what follows with it, up to the next Sync.
        with connection.pipeline() as pipe:
            connection.execute(INSERT, [NAME, "pipeline", 1])
            connection.execute(INSERT, [NAME, "pipeline", 99])
            raises(errors.UniqueViolation, pipe.sync)
        assert count(connection, "pipeline") == 50


def copy():
    with automatic() as connection, connection.cursor() as cursor:
        with cursor.copy("COPY parcels (driver, step, n) FROM STDIN") as sink:
            for n in range(1, 5001):
                sink.write_row([NAME, "copy", n])
        with cursor.copy("COPY parcels (driver, step, n) FROM STDIN (FORMAT binary)") as sink:
            sink.set_types(["text", "text", "int4"])
            for n in range(5001, 10001):
                sink.write_row([NAME, "copy", n])

        def half():
            with cursor.copy("COPY parcels (driver, step, n) FROM STDIN") as sink:
                sink.write_row([NAME, "copy", 10001])
                raise KeyError("given up")

        raises(KeyError, half)
        with cursor.copy("COPY (SELECT n FROM parcels WHERE driver = %s AND step = 'copy') TO STDOUT", [NAME]) as source:
            assert sum(int(n) for (n,) in source.rows()) == sum(range(1, 10001))


def large():
    text, raw = "ß" * (LARGE // 2), os.urandom(LARGE)
    with automatic() as connection:
        connection.execute(
            "INSERT INTO parcels (driver, step, n, body, raw) VALUES (%s, 'large', 1, %s, %s)", [NAME, text, raw]
        )
        for binary in False, True:
            query = "SELECT body, raw FROM parcels WHERE driver = %s AND step = 'large'"
            assert connection.execute(query, [NAME], binary=binary).fetchone() == (text, raw)


def stream():
    query = "SELECT i, 'row ' || i FROM generate_series(1, %s) AS i"
    with psycopg.connect() as connection, connection.cursor("parts") as cursor:
        cursor.itersize = 10_000
        assert sum(i for i, _ in cursor.execute(query, [ROWS])) == ROWS * (ROWS + 1) // 2
    with automatic() as connection, connection.cursor() as cursor:
        # Row by row as they come, then left in the middle.
        for i, _ in cursor.stream(query, [ROWS]):
            if i == 1000:
                break
        assert one(connection, "SELECT 7") == 7


def until_asleep(watcher, process, thread):
    asleep = "SELECT wait_event = 'PgSleep' FROM pg_stat_activity WHERE pid = %s"
    while not one(watcher, asleep, process):
        assert thread.is_alive()


def cancel():
    with automatic() as connection, automatic() as watcher:
        process = one(connection, "SELECT pg_backend_pid()")
        for way in connection.cancel, connection.cancel_safe:
            canceled = []
            sleep = lambda: canceled.append(raises(errors.QueryCanceled, lambda: connection.execute("SELECT pg_sleep(30)")))
            thread = threading.Thread(target=sleep)
            thread.start()
            until_asleep(watcher, process, thread)
            way()
            thread.join()
            assert canceled
            # With nothing under way it comes to nothing.
            way()
            connection.execute("SELECT pg_sleep(0.1)")


def recovery():
    with automatic() as connection:
        assert raises(errors.UndefinedTable, lambda: connection.execute("SELECT * FROM nothing")).sqlstate == "42P01"
        connection.execute(INSERT, [NAME, "recovery", 1])
        twice = raises(errors.UniqueViolation, lambda: connection.execute(INSERT, [NAME, "recovery", 1]))
        assert twice.diag.constraint_name == "parcels_once", twice.diag.constraint_name
    with psycopg.connect() as connection:
        connection.execute(INSERT, [NAME, "recovery", 2])
        raises(errors.DivisionByZero, lambda: connection.execute("SELECT 1 / 0"))
        raises(errors.InFailedSqlTransaction, lambda: connection.execute("SELECT 7"))
        connection.rollback()
        connection.execute(INSERT, [NAME, "recovery", 3])
        connection.execute("SAVEPOINT here")
        raises(errors.UniqueViolation, lambda: connection.execute(INSERT, [NAME, "recovery", 1]))
        connection.execute("ROLLBACK TO SAVEPOINT here")
        connection.execute(IN_SAVEPOINT, [NAME])
        connection.commit()
        assert count(connection, "recovery") == 3


def transactions():
    with psycopg.connect() as connection:
        for n, level in enumerate(psycopg.IsolationLevel, 1):
            connection.isolation_level = level
            connection.execute(INSERT, [NAME, "transactions", n])
            assert one(connection, "SHOW transaction_isolation").replace(" ", "_").upper() == level.name
            connection.commit()
        connection.execute(INSERT, [NAME, "transactions", 99])
        connection.rollback()
        connection.read_only = True
        raises(errors.ReadOnlySqlTransaction, lambda: connection.execute(INSERT, [NAME, "transactions", 98]))
        connection.rollback()
        assert count(connection, "transactions") == 4


def token():
    form = os.environ["STORY_TOKEN_FORM"].encode()
    with urllib.request.urlopen(os.environ["STORY_TOKEN_URL"], form) as answer:
        return json.load(answer)["access_token"]


def expiry():
    """A worker whose token ends again and again: what was answered is there, once."""
    done, ends = 0, 0
    while ends < 2:
        try:
            with automatic(password=token()) as connection:
                while True:
                    connection.execute(INSERT, [NAME, "expiry", done + 1])
                    done += 1
                    time.sleep(0.05)
        except psycopg.OperationalError as end:
            assert end.sqlstate in ("57P01", None), end
            assert end.sqlstate is None or "has expired" in str(end), end
            ends += 1
    with automatic() as connection:
        assert done > 1 and count(connection, "expiry") == done
    print("expiry", done)


for step in connect, refused, prepared, pipeline, copy, large, stream, cancel, recovery, transactions, expiry:
    started = time.monotonic()
    step()
    print(f"{step.__name__}: good ({time.monotonic() - started:.2f} s)", flush=True)
