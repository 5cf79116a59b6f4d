"""psycopg2 through the list of tests/e2e/matrix.rs: the simple query protocol throughout. See
psycopg3_matrix.py."""

import datetime
import io
import json
import os
import threading
import time
import urllib.request

import psycopg2
from psycopg2 import errors
from psycopg2.extras import Json, execute_batch, execute_values

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


class Session:
    def __init__(self, autocommit=True, **more):
        self.connection = psycopg2.connect("", **more)
        self.connection.autocommit = autocommit
        self.cursor = self.connection.cursor()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.connection.close()

    def run(self, sql, *parameters):
        self.cursor.execute(sql, parameters)

    def one(self, sql, *parameters):
        self.run(sql, *parameters)
        return self.cursor.fetchone()[0]

    def count(self, step):
        return self.one("SELECT count(*) FROM parcels WHERE driver = %s AND step = %s", NAME, step)


def connect():
    with Session() as session:
        assert session.one("SELECT current_database()") == "orders"
        assert session.connection.info.ssl_in_use


def refused():
    told = str(raises(psycopg2.OperationalError, lambda: psycopg2.connect("dbname=nowhere")))
    for part in "no rule permits this identity", "DETAIL:  gatepost session s-", "HINT:  ":
        assert part in told, told


def prepared():
    at = datetime.datetime(2026, 1, 2, 3, 4, 5, 678901, datetime.timezone.utc)
    with Session() as session:
        # This driver writes parameters into the text; the server's own PREPARE takes them apart again.
        session.run(
            """PREPARE ship (text, int, text, bytea, jsonb, timestamptz, int[]) AS
            INSERT INTO parcels (driver, step, n, body, raw, doc, at, list) VALUES ($1, 'prepared', $2, $3, $4, $5, $6, $7)
            RETURNING n, body, raw, doc, at, list"""
        )
        for n in range(1, 101):
            row = (n, None if n % 2 else f"text {n} ☃ ' \\ %", bytes([0, 255, n]), {"n": [n, None]}, at, [n, None, -n])
            session.run("EXECUTE ship (%s, %s, %s, %s, %s, %s, %s)", NAME, *row[:3], Json(row[3]), *row[4:])
            got = session.cursor.fetchone()
            assert (*got[:2], bytes(got[2]), *got[3:]) == row, got
        session.run("DEALLOCATE ship")
        assert session.count("prepared") == 100


def pipeline():
    """Not a pipeline, which this driver has not: batches in one message."""
    rows = [(NAME, "pipeline", n) for n in range(1, 51)]
    with Session() as session:
        execute_batch(session.cursor, INSERT, rows[:25], page_size=10)
        execute_values(session.cursor, "INSERT INTO parcels (driver, step, n) VALUES %s", rows[25:])
        # One message is one transaction: nothing of it stays.
        raises(errors.UniqueViolation, lambda: execute_batch(session.cursor, INSERT, [(NAME, "pipeline", 99), rows[0]]))
        assert session.count("pipeline") == 50


def copy():
    with Session() as session:
        lines = "".join(f"{NAME}\tcopy\t{n}\n" for n in range(1, 10_001))
        session.cursor.copy_expert("COPY parcels (driver, step, n) FROM STDIN", io.StringIO(lines))
        bad = io.StringIO(f"{NAME}\tcopy\t10001\n{NAME}\tcopy\tmany\n")
        raises(
            errors.InvalidTextRepresentation,
            lambda: session.cursor.copy_expert("COPY parcels (driver, step, n) FROM STDIN", bad),
        )
        sink = io.StringIO()
        session.cursor.copy_expert("COPY (SELECT n FROM parcels WHERE step = 'copy' AND driver = 'psycopg2') TO STDOUT", sink)
        assert sum(map(int, sink.getvalue().split())) == sum(range(1, 10_001))


def large():
    text, raw = "ß" * (LARGE // 2), os.urandom(LARGE)
    with Session() as session:
        session.run(
            "INSERT INTO parcels (driver, step, n, body, raw) VALUES (%s, 'large', 1, %s, %s)", NAME, text, raw
        )
        session.run("SELECT body, raw FROM parcels WHERE driver = %s AND step = 'large'", NAME)
        body, back = session.cursor.fetchone()
        assert (body, bytes(back)) == (text, raw)


def stream():
    with Session(autocommit=False) as session, session.connection.cursor("parts") as cursor:
        cursor.itersize = 10_000
        cursor.execute("SELECT i, 'row ' || i FROM generate_series(1, %s) AS i", [ROWS])
        assert sum(i for i, _ in cursor) == ROWS * (ROWS + 1) // 2


def cancel():
    with Session() as session, Session() as watcher:
        process = session.one("SELECT pg_backend_pid()")
        canceled = []
        sleep = lambda: canceled.append(raises(errors.QueryCanceled, lambda: session.run("SELECT pg_sleep(30)")))
        thread = threading.Thread(target=sleep)
        thread.start()
        while not watcher.one("SELECT wait_event = 'PgSleep' FROM pg_stat_activity WHERE pid = %s", process):
            assert thread.is_alive()
        session.connection.cancel()
        thread.join()
        assert canceled
        # With nothing under way it comes to nothing.
        session.connection.cancel()
        session.run("SELECT pg_sleep(0.1)")


def recovery():
    with Session() as session:
        assert raises(errors.UndefinedTable, lambda: session.run("SELECT * FROM nothing")).pgcode == "42P01"
        session.run(INSERT, NAME, "recovery", 1)
        twice = raises(errors.UniqueViolation, lambda: session.run(INSERT, NAME, "recovery", 1))
        assert twice.diag.constraint_name == "parcels_once"
    with Session(autocommit=False) as session:
        session.run(INSERT, NAME, "recovery", 2)
        raises(errors.DivisionByZero, lambda: session.run("SELECT 1 / 0"))
        raises(errors.InFailedSqlTransaction, lambda: session.run("SELECT 7"))
        session.connection.rollback()
        session.run(INSERT, NAME, "recovery", 3)
        session.run("SAVEPOINT here")
        raises(errors.UniqueViolation, lambda: session.run(INSERT, NAME, "recovery", 1))
        session.run("ROLLBACK TO SAVEPOINT here")
        session.run(IN_SAVEPOINT, NAME)
        session.connection.commit()
        assert session.count("recovery") == 3


def transactions():
    with Session(autocommit=False) as session:
        for n, level in enumerate(("READ UNCOMMITTED", "READ COMMITTED", "REPEATABLE READ", "SERIALIZABLE"), 1):
            session.connection.set_session(isolation_level=level)
            session.run(INSERT, NAME, "transactions", n)
            assert session.one("SHOW transaction_isolation").upper() == level
            session.connection.commit()
        session.run(INSERT, NAME, "transactions", 99)
        session.connection.rollback()
        session.connection.set_session(readonly=True)
        raises(errors.ReadOnlySqlTransaction, lambda: session.run(INSERT, NAME, "transactions", 98))
        session.connection.rollback()
        assert session.count("transactions") == 4


def token():
    form = os.environ["STORY_TOKEN_FORM"].encode()
    with urllib.request.urlopen(os.environ["STORY_TOKEN_URL"], form) as answer:
        return json.load(answer)["access_token"]


def expiry():
    """A worker whose token ends again and again: what was answered is there, once."""
    done, ends = 0, 0
    while ends < 2:
        try:
            with Session(password=token()) as session:
                while True:
                    session.run(INSERT, NAME, "expiry", done + 1)
                    done += 1
                    time.sleep(0.05)
        except psycopg2.OperationalError as end:
            assert end.pgcode in ("57P01", None), end
            assert end.pgcode is None or "has expired" in str(end), end
            ends += 1
    with Session() as session:
        assert done > 1 and session.count("expiry") == done
    print("expiry", done)


for step in connect, refused, prepared, pipeline, copy, large, stream, cancel, recovery, transactions, expiry:
    started = time.monotonic()
    step()
    print(f"{step.__name__}: good ({time.monotonic() - started:.2f} s)", flush=True)
