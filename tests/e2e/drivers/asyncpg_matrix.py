"""asyncpg through the list of tests/e2e/matrix.rs: the extended protocol, binary both ways. See
psycopg3_matrix.py."""

import asyncio
import contextlib
import datetime
import io
import json
import os
import ssl
import time
import urllib.request

import asyncpg

NAME = os.environ["PGAPPNAME"]
ROWS = int(os.environ["STORY_ROWS"])
INSERT = "INSERT INTO parcels (driver, step, n) VALUES ($1, $2, $3)"
# Such a row's xmin is the subtransaction's; the journal names the transaction.
IN_SAVEPOINT = """INSERT INTO parcels (driver, step, n, body)
    VALUES ($1, 'recovery', 4, pg_current_xact_id()::text)"""
LARGE = 5 * 1024 * 1024


async def raises(kind, act):
    try:
        await act
    except kind as error:
        return error
    raise AssertionError(f"no {kind.__name__}")


@contextlib.asynccontextmanager
async def session(**more):
    trust = ssl.create_default_context(cafile=os.environ["PGSSLROOTCERT"])
    settings = {"application_name": NAME}
    connection = await asyncpg.connect(ssl=trust, server_settings=settings, **more)
    try:
        yield connection
    finally:
        await connection.close()


async def count(connection, step):
    return await connection.fetchval("SELECT count(*) FROM parcels WHERE driver = $1 AND step = $2", NAME, step)


async def connect():
    async with session() as connection:
        assert await connection.fetchval("SELECT current_database()") == "orders"
        assert connection.get_settings().server_encoding == "UTF8"


async def refused():
    async def nowhere():
        async with session(database="nowhere"):
            pass

    error = await raises(asyncpg.InsufficientPrivilegeError, nowhere())
    assert error.sqlstate == "42501" and error.detail.startswith("gatepost session s-") and error.hint, error


async def prepared():
    at = datetime.datetime(2026, 1, 2, 3, 4, 5, 678901, datetime.timezone.utc)
    async with session() as connection:
        await connection.set_type_codec("jsonb", schema="pg_catalog", encoder=json.dumps, decoder=json.loads)
        statement = await connection.prepare(
            """INSERT INTO parcels (driver, step, n, body, raw, doc, at, list) VALUES ($1, 'prepared', $2, $3, $4, $5, $6, $7)
            RETURNING n, body, raw, doc, at, list"""
        )
        for n in range(1, 101):
            row = (n, None if n % 2 else f"text {n} ☃", bytes([0, 255, n]), {"n": [n, None]}, at, [n, None, -n])
            assert tuple(await statement.fetchrow(NAME, *row)) == row
        assert await count(connection, "prepared") == 100


async def pipeline():
    async with session() as connection:
        await connection.executemany(INSERT, [(NAME, "pipeline", n) for n in range(1, 26)])
        async with connection.transaction():
            await connection.executemany(INSERT, [(NAME, "pipeline", n) for n in range(26, 51)])
        # One batch is one transaction: nothing of it stays.
        batch = [(NAME, "pipeline", 99), (NAME, "pipeline", 1)]
        await raises(asyncpg.UniqueViolationError, connection.executemany(INSERT, batch))
        assert await count(connection, "pipeline") == 50


async def copy():
    async with session() as connection:
        records = [(NAME, "copy", n) for n in range(1, 5001)]
        columns = ["driver", "step", "n"]
        await connection.copy_records_to_table("parcels", records=records, columns=columns)
        lines = "".join(f"{NAME}\tcopy\t{n}\n" for n in range(5001, 10_001)).encode()
        await connection.copy_to_table("parcels", source=io.BytesIO(lines), columns=columns)
        again = connection.copy_records_to_table("parcels", records=records[:1], columns=columns)
        await raises(asyncpg.UniqueViolationError, again)
        sink = io.BytesIO()
        query = "SELECT n FROM parcels WHERE driver = $1 AND step = 'copy'"
        await connection.copy_from_query(query, NAME, output=sink)
        assert sum(map(int, sink.getvalue().split())) == sum(range(1, 10_001))


async def large():
    text, raw = "ß" * (LARGE // 2), os.urandom(LARGE)
    async with session() as connection:
        insert = "INSERT INTO parcels (driver, step, n, body, raw) VALUES ($1, 'large', 1, $2, $3)"
        await connection.execute(insert, NAME, text, raw)
        query = "SELECT body, raw FROM parcels WHERE driver = $1 AND step = 'large'"
        assert tuple(await connection.fetchrow(query, NAME)) == (text, raw)


async def stream():
    query = "SELECT i, 'row ' || i FROM generate_series(1, $1::int) AS i"
    async with session() as connection, connection.transaction():
        total = 0
        async for i, _ in connection.cursor(query, ROWS, prefetch=10_000):
            total += i
        assert total == ROWS * (ROWS + 1) // 2


async def cancel():
    async with session() as connection, session() as watcher:
        process = await connection.fetchval("SELECT pg_backend_pid()")
        asleep = "SELECT wait_event = 'PgSleep' FROM pg_stat_activity WHERE pid = $1"
        # This driver cancels when the task that waits is cancelled, or has waited long enough.
        task = asyncio.create_task(connection.execute("SELECT pg_sleep(30)"))
        while not await watcher.fetchval(asleep, process):
            assert not task.done(), task
        task.cancel()
        await raises(asyncio.CancelledError, task)
        await connection.execute("SELECT pg_sleep(0.1)")
        await raises(asyncio.TimeoutError, connection.execute("SELECT pg_sleep(30)", timeout=0.2))
        await connection.execute("SELECT pg_sleep(0.1)")
        # It is the same connection, and nothing sleeps behind it.
        assert await connection.fetchval("SELECT pg_backend_pid()") == process
        assert not await watcher.fetchval(asleep, process)


async def recovery():
    async with session() as connection:
        missing = await raises(asyncpg.UndefinedTableError, connection.fetch("SELECT * FROM nothing"))
        assert missing.sqlstate == "42P01"
        await connection.execute(INSERT, NAME, "recovery", 1)
        twice = await raises(asyncpg.UniqueViolationError, connection.execute(INSERT, NAME, "recovery", 1))
        assert (twice.sqlstate, twice.constraint_name) == ("23505", "parcels_once")
        block = connection.transaction()
        await block.start()
        await connection.execute(INSERT, NAME, "recovery", 2)
        await raises(asyncpg.DivisionByZeroError, connection.fetch("SELECT 1 / 0"))
        await raises(asyncpg.InFailedSQLTransactionError, connection.fetch("SELECT 7"))
        await block.rollback()
        async with connection.transaction():
            await connection.execute(INSERT, NAME, "recovery", 3)
            inner = connection.transaction()
            await inner.start()
            await raises(asyncpg.UniqueViolationError, connection.execute(INSERT, NAME, "recovery", 1))
            await inner.rollback()
            async with connection.transaction():
                await connection.execute(IN_SAVEPOINT, NAME)
        assert await count(connection, "recovery") == 3


async def transactions():
    async with session() as connection:
        levels = "read_uncommitted", "read_committed", "repeatable_read", "serializable"
        for n, level in enumerate(levels, 1):
            async with connection.transaction(isolation=level):
                await connection.execute(INSERT, NAME, "transactions", n)
                assert await connection.fetchval("SHOW transaction_isolation") == level.replace("_", " ")
        block = connection.transaction()
        await block.start()
        await connection.execute(INSERT, NAME, "transactions", 99)
        await block.rollback()
        block = connection.transaction(readonly=True)
        await block.start()
        write = connection.execute(INSERT, NAME, "transactions", 98)
        await raises(asyncpg.ReadOnlySQLTransactionError, write)
        await block.rollback()
        assert await count(connection, "transactions") == 4


def token():
    form = os.environ["STORY_TOKEN_FORM"].encode()
    with urllib.request.urlopen(os.environ["STORY_TOKEN_URL"], form) as answer:
        return json.load(answer)["access_token"]


async def expiry():
    """A worker whose token ends again and again: what was answered is there, once."""
    done, ends = 0, 0
    while ends < 2:
        try:
            async with session(password=token) as connection:
                while True:
                    await connection.execute(INSERT, NAME, "expiry", done + 1)
                    done += 1
                    await asyncio.sleep(0.05)
        except asyncpg.AdminShutdownError as end:
            assert end.sqlstate == "57P01" and "has expired" in str(end) and "new token" in end.hint, end
            ends += 1
        except asyncpg.InvalidAuthorizationSpecificationError as slow:
            assert "token expired" in str(slow), slow
        except (asyncpg.InterfaceError, asyncpg.ConnectionDoesNotExistError, ConnectionError):
            # The word came while nobody was listening.
            ends += 1
        except asyncpg.InternalClientError as busy:
            # Likewise, and the driver had read it but not yet the end of the connection: nothing was sent.
            assert "another operation (2)" in str(busy), busy
            ends += 1
    async with session() as connection:
        assert done > 1 and await count(connection, "expiry") == done
    print("expiry", done)


async def main():
    for step in connect, refused, prepared, pipeline, copy, large, stream, cancel, recovery, transactions, expiry:
        started = time.monotonic()
        await step()
        print(f"{step.__name__}: good ({time.monotonic() - started:.2f} s)", flush=True)


asyncio.run(main())
