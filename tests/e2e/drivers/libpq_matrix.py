"""libpq 18 itself, function by function, through the list of tests/e2e/matrix.rs: protocol 3.2 and direct TLS,
which libpq's environment asks for. The library is the one inside psycopg's wheel."""

import json
import os
import struct
import tempfile
import time
import urllib.request

from psycopg import pq
from psycopg.pq import ExecStatus, PipelineStatus, TransactionStatus

NAME = os.environ["PGAPPNAME"].encode()
ROWS = int(os.environ["STORY_ROWS"])
INSERT = b"INSERT INTO parcels (driver, step, n) VALUES ($1, $2, $3)"
# Such a row's xmin is the subtransaction's; the journal names the transaction.
IN_SAVEPOINT = b"""INSERT INTO parcels (driver, step, n, body)
    VALUES ($1, 'recovery', 4, pg_current_xact_id()::text)"""
LARGE = 5 * 1024 * 1024


def session(settings=b""):
    connection = pq.PGconn.connect(settings)
    assert connection.status == pq.ConnStatus.OK, connection.get_error_message()
    return connection


def texts(*values):
    return [value if value is None else str(value).encode() for value in values]


def good(result, status=ExecStatus.TUPLES_OK):
    assert result.status == status, (result.status, result.error_message)
    return result


def run(connection, sql, *values):
    return connection.exec_params(sql, texts(*values)) if values else connection.exec_(sql)


def one(connection, sql, *values):
    return good(run(connection, sql, *values)).get_value(0, 0)


def done(connection, sql, *values):
    return good(run(connection, sql, *values), ExecStatus.COMMAND_OK)


def insert(connection, step, n):
    return connection.exec_params(INSERT, [NAME, step, str(n).encode()])


def raised(result, state):
    assert result.status == ExecStatus.FATAL_ERROR, result.status
    assert result.error_field(pq.DiagnosticField.SQLSTATE) == state, result.error_message
    return result


def count(connection, step):
    query = b"SELECT count(*) FROM parcels WHERE driver = $1 AND step = $2"
    return int(good(connection.exec_params(query, [NAME, step])).get_value(0, 0))


def connect():
    assert pq.version() >= 180000, pq.version()
    # Traced from the start, so that the key that cancels is seen: 32 bytes since protocol 3.2.
    with tempfile.TemporaryFile() as trace:
        connection = pq.PGconn.connect_start(b"")
        connection.trace(trace.fileno())
        while (wanted := connection.connect_poll()) != pq.PollingStatus.OK:
            assert wanted != pq.PollingStatus.FAILED, connection.get_error_message()
        connection.untrace()
        trace.seek(0)
        (key,) = [line for line in trace if b"BackendKeyData" in line]
    length = int(key.split(b"\t")[2])
    assert length == 4 + 4 + 32, key
    assert connection.full_protocol_version == 30002
    assert connection.ssl_in_use
    assert one(connection, b"SELECT current_database()") == b"orders"


def refused():
    connection = pq.PGconn.connect(b"dbname=nowhere")
    told = connection.get_error_message()
    for part in "no rule permits this identity", "DETAIL:  gatepost session s-", "HINT:  ":
        assert part in told, told


def prepared():
    connection = session()
    sql = b"""INSERT INTO parcels (driver, step, n, body, raw, doc, at, list) VALUES ($1, 'prepared', $2, $3, $4, $5, $6, $7)
        RETURNING n, raw"""
    good(connection.prepare(b"ship", sql), ExecStatus.COMMAND_OK)
    assert connection.describe_prepared(b"ship").nparams == 7
    for n in range(1, 101):
        body = None if n % 2 else f"text {n} ☃".encode()
        raw, doc, at, numbers = bytes([0, 255, n]), b'{"n": [null]}', b"2026-01-02 03:04:05.678901+00", b"{1,NULL}"
        sent = [NAME, struct.pack("!i", n), body, raw, doc, at, numbers]
        got = good(connection.exec_prepared(b"ship", sent, param_formats=[0, 1, 0, 1, 0, 0, 0], result_format=1))
        assert (got.get_value(0, 0), got.get_value(0, 1)) == (struct.pack("!i", n), raw)
    # A message of its own since libpq 17.
    connection.send_close_prepared(b"ship")
    good(connection.get_result(), ExecStatus.COMMAND_OK)
    assert connection.get_result() is None
    raised(connection.exec_prepared(b"ship", []), b"26000")
    assert count(connection, b"prepared") == 100


def pipeline():
    connection = session()
    connection.enter_pipeline_mode()

    def send(numbers):
        for n in numbers:
            connection.send_query_params(INSERT, [NAME, b"pipeline", str(n).encode()])
        connection.pipeline_sync()

    def results():
        """Up to the next Sync: a None follows each statement's."""
        seen = []
        while (result := connection.get_result()) is None or result.status != ExecStatus.PIPELINE_SYNC:
            if result is not None:
                seen.append(result.status)
        return seen

    # Several groups are on their way before the first answer; the second fails in its middle.
    send(range(1, 26))
    send([98, 1, 99])
    send(range(26, 51))
    assert results() == [ExecStatus.COMMAND_OK] * 25
    assert results() == [ExecStatus.COMMAND_OK, ExecStatus.FATAL_ERROR, ExecStatus.PIPELINE_ABORTED]
    assert results() == [ExecStatus.COMMAND_OK] * 25
    assert connection.pipeline_status == PipelineStatus.ON
    connection.exit_pipeline_mode()
    assert count(connection, b"pipeline") == 50


def copy():
    connection = session()
    into = b"COPY parcels (driver, step, n) FROM STDIN"
    good(connection.exec_(into), ExecStatus.COPY_IN)
    for n in range(1, 10_001):
        connection.put_copy_data(b"%s\tcopy\t%d\n" % (NAME, n))
    connection.put_copy_end()
    assert good(connection.get_result(), ExecStatus.COMMAND_OK).command_tuples == 10_000
    assert connection.get_result() is None
    good(connection.exec_(into), ExecStatus.COPY_IN)
    connection.put_copy_data(b"%s\tcopy\t10001\n" % NAME)
    connection.put_copy_end(b"given up")
    raised(connection.get_result(), b"57014")
    assert connection.get_result() is None
    good(connection.exec_(b"COPY (SELECT n FROM parcels WHERE driver = '%s' AND step = 'copy') TO STDOUT" % NAME), ExecStatus.COPY_OUT)
    total = 0
    while (line := connection.get_copy_data(0))[0] > 0:
        total += int(bytes(line[1]))
    assert total == 50_005_000
    good(connection.get_result(), ExecStatus.COMMAND_OK)


def large():
    connection = session()
    body, raw = "ß".encode() * (LARGE // 2), os.urandom(LARGE)
    into = b"INSERT INTO parcels (driver, step, n, body, raw) VALUES ($1, 'large', 1, $2, $3)"
    good(connection.exec_params(into, [NAME, body, raw], param_formats=[0, 0, 1]), ExecStatus.COMMAND_OK)
    query = b"SELECT body, raw FROM parcels WHERE driver = $1 AND step = 'large'"
    got = good(connection.exec_params(query, [NAME], result_format=1))
    assert (got.get_value(0, 0), got.get_value(0, 1)) == (body, raw)


def stream():
    connection = session()
    connection.send_query_params(b"SELECT i, 'row ' || i FROM generate_series(1, $1::int) AS i", texts(ROWS))
    connection.set_chunked_rows_mode(10_000)
    total, parts = 0, 0
    while (part := connection.get_result()) is not None:
        if part.status == ExecStatus.TUPLES_CHUNK:
            parts += 1
            total += sum(int(part.get_value(row, 0)) for row in range(part.ntuples))
        else:
            good(part)
    assert (total, parts) == (ROWS * (ROWS + 1) // 2, -(-ROWS // 10_000))


def cancel():
    connection, watcher = session(), session()
    process = connection.backend_pid
    server = one(connection, b"SELECT pg_backend_pid()").decode()
    asleep = b"SELECT count(*) FROM pg_stat_activity WHERE pid = $1 AND wait_event = 'PgSleep'"
    assert process > 0

    def in_clear():
        # The older function: it always goes without TLS.
        connection.get_cancel().cancel()

    def in_tls():
        canceler = connection.cancel_conn()
        canceler.blocking()
        assert canceler.status == pq.ConnStatus.OK, canceler.get_error_message()

    for way in in_clear, in_tls:
        connection.send_query(b"SELECT pg_sleep(30)")
        while one(watcher, asleep, server) != b"1":
            connection.consume_input()
            assert connection.is_busy()
        way()
        raised(connection.get_result(), b"57014")
        assert connection.get_result() is None
        # With nothing under way it comes to nothing.
        way()
        good(run(connection, b"SELECT pg_sleep(0.1)"))


def recovery():
    connection = session()
    raised(run(connection, b"SELECT * FROM nothing"), b"42P01")
    good(insert(connection, b"recovery", 1), ExecStatus.COMMAND_OK)
    twice = raised(insert(connection, b"recovery", 1), b"23505")
    assert twice.error_field(pq.DiagnosticField.CONSTRAINT_NAME) == b"parcels_once"
    done(connection, b"BEGIN")
    good(insert(connection, b"recovery", 2), ExecStatus.COMMAND_OK)
    raised(run(connection, b"SELECT 1 / 0"), b"22012")
    assert connection.transaction_status == TransactionStatus.INERROR
    raised(run(connection, b"SELECT 7"), b"25P02")
    done(connection, b"ROLLBACK")
    done(connection, b"BEGIN")
    good(insert(connection, b"recovery", 3), ExecStatus.COMMAND_OK)
    done(connection, b"SAVEPOINT here")
    raised(insert(connection, b"recovery", 1), b"23505")
    done(connection, b"ROLLBACK TO SAVEPOINT here")
    good(connection.exec_params(IN_SAVEPOINT, [NAME]), ExecStatus.COMMAND_OK)
    done(connection, b"COMMIT")
    assert connection.transaction_status == TransactionStatus.IDLE
    assert count(connection, b"recovery") == 3


def transactions():
    connection = session()
    for n, level in enumerate((b"read uncommitted", b"read committed", b"repeatable read", b"serializable"), 1):
        done(connection, b"BEGIN ISOLATION LEVEL " + level)
        good(insert(connection, b"transactions", n), ExecStatus.COMMAND_OK)
        assert one(connection, b"SHOW transaction_isolation") == level
        done(connection, b"COMMIT")
    done(connection, b"BEGIN")
    good(insert(connection, b"transactions", 99), ExecStatus.COMMAND_OK)
    done(connection, b"ROLLBACK")
    done(connection, b"BEGIN READ ONLY")
    raised(insert(connection, b"transactions", 98), b"25006")
    done(connection, b"ROLLBACK")
    assert count(connection, b"transactions") == 4


def token():
    form = os.environ["STORY_TOKEN_FORM"].encode()
    with urllib.request.urlopen(os.environ["STORY_TOKEN_URL"], form) as answer:
        return json.load(answer)["access_token"].encode()


def expiry():
    """A worker whose token ends again and again: what was answered is there, once."""
    rows = 0
    for _ in range(2):
        connection = pq.PGconn.connect(b"password=" + token())
        while (result := insert(connection, b"expiry", rows + 1)).status == ExecStatus.COMMAND_OK:
            rows += 1
            time.sleep(0.05)
        assert connection.status == pq.ConnStatus.BAD
        told = connection.get_error_message()
        state = result.error_field(pq.DiagnosticField.SQLSTATE)
        assert state in (b"57P01", None), result.error_message
        assert state is None or "new token" in told, told
    assert rows > 1 and count(session(), b"expiry") == rows
    print("expiry", rows)


for step in connect, refused, prepared, pipeline, copy, large, stream, cancel, recovery, transactions, expiry:
    started = time.monotonic()
    step()
    print(f"{step.__name__}: good ({time.monotonic() - started:.2f} s)", flush=True)
