"""asyncpg: the extended protocol with its own statement cache. See psycopg3_story.py."""

import asyncio
import os
import sys
import ssl

import asyncpg

MARK = sys.argv[1]
INSERT = "INSERT INTO orders (customer) VALUES ($1)"


def mark(what):
    return f"{MARK}-{what}"


def settings(what):
    return {
        "ssl": ssl.create_default_context(cafile=os.environ["PGSSLROOTCERT"]),
        "server_settings": {"gatepost.correlation_id": mark(what)},
    }


async def correlate(connection, what, reach="LOCAL"):
    await connection.execute(f"SET {reach} gatepost.correlation_id = '{mark(what)}'")


async def explicit(connection):
    await connection.execute(INSERT, mark("startup"))
    async with connection.transaction():
        await correlate(connection, "local")
        await connection.execute(INSERT, mark("local"))
        assert await connection.fetchval("SELECT count(*) FROM orders") >= 2
    try:
        async with connection.transaction():
            await correlate(connection, "check")
            await connection.execute(INSERT, mark("check"))
            xid = await connection.fetchval("SELECT pg_current_xact_id_if_assigned()::text")
            print("aborted", mark("check"), xid)
            await connection.execute("INSERT INTO orders (customer, cents) VALUES ('x', 0)")
    except asyncpg.CheckViolationError:
        pass
    async with connection.transaction(isolation="serializable"):
        await correlate(connection, "copy")
        records = [(mark("copy"),)] * 1000
        await connection.copy_records_to_table("orders", records=records, columns=["customer"])
    async with connection.transaction():
        await correlate(connection, "many")
        await connection.executemany(INSERT, [(mark("many"),)] * 50)
    async with connection.transaction():
        await correlate(connection, "cursor")
        seen = [record async for record in connection.cursor("SELECT id FROM orders", prefetch=100)]
        assert len(seen) > 1000
        await connection.execute(INSERT, mark("cursor"))
    async with connection.transaction():
        await correlate(connection, "savepoint")
        await connection.execute(INSERT, mark("savepoint"))
        try:
            async with connection.transaction():
                await connection.execute("INSERT INTO orders (customer, cents) VALUES ('x', 0)")
        except asyncpg.CheckViolationError:
            pass


async def automatic(connection):
    await connection.execute(INSERT, mark("autocommit"))
    await correlate(connection, "prepared", reach="SESSION")
    statement = await connection.prepare(INSERT + " RETURNING id")
    for _ in range(10):
        assert await statement.fetchval(mark("prepared")) > 0
    await correlate(connection, "together", reach="SESSION")
    await connection.executemany(INSERT, [(mark("together"),)] * 20)
    await correlate(connection, "copied", reach="SESSION")
    await connection.copy_records_to_table("orders", records=[(mark("copied"),)], columns=["customer"])
    try:
        await connection.fetch("SELECT * FROM nothing_of_this_name")
        raise SystemExit("that table exists?")
    except asyncpg.UndefinedTableError:
        pass


async def main():
    connection = await asyncpg.connect(**settings("startup"))
    await explicit(connection)
    await connection.close()
    async with asyncpg.create_pool(min_size=2, max_size=4, **settings("autocommit")) as pool:
        async with pool.acquire() as connection:
            await automatic(connection)
        async with pool.acquire() as connection:
            assert await connection.fetchval("SELECT 7") == 7


asyncio.run(main())
