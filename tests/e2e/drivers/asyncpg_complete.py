"""asyncpg with all that commits, by extended messages with prepared statements. Prints what
psycopg3_complete.py prints."""

import asyncio
import os
import ssl

import asyncpg

INSERT = "INSERT INTO work (mark, n) VALUES ($1, $2)"


async def session(what):
    mark = f"asyncpg-{what}"
    print("step", mark)
    trust = ssl.create_default_context(cafile=os.environ["PGSSLROOTCERT"])
    settings = {"options": f"-c gatepost.correlation_id={mark}"}
    return await asyncpg.connect(ssl=trust, server_settings=settings), mark


def unnamed(mark, count):
    print("unnamed", mark, count)


async def raises(kind, waiting):
    try:
        await waiting
    except kind:
        return
    raise SystemExit(f"{kind} was not raised")


async def singles():
    connection, mark = await session("singles")
    print("late", mark)
    for _ in range(10):
        await connection.execute(INSERT, mark, None)
    await connection.executemany(INSERT, [(mark, None)] * 20)
    await connection.copy_records_to_table("work", records=[(mark, None)] * 50, columns=["mark", "n"])
    await raises(asyncpg.CheckViolationError, connection.execute(INSERT, mark, 13))
    await raises(asyncpg.CheckViolationError, connection.executemany(INSERT, [(mark, None), (mark, 13), (mark, None)]))
    await connection.execute(INSERT, mark, 3)
    await raises(asyncpg.UniqueViolationError, connection.execute(INSERT, mark, 3))
    # Simple queries.
    await connection.execute(f"INSERT INTO work (mark) VALUES ('{mark}')")
    await connection.execute(f"INSERT INTO work (mark) VALUES ('{mark}'); INSERT INTO work (mark) VALUES ('{mark}')")
    await connection.fetch("SELECT writes($1)", mark)
    await connection.close()


async def blocks():
    connection, mark = await session("blocks")
    for isolation in "read_committed", "repeatable_read", "serializable":
        async with connection.transaction(isolation=isolation):
            await connection.execute(INSERT, mark, None)
            async with connection.transaction():
                await connection.execute(INSERT, mark, None)
    transaction = connection.transaction()
    await transaction.start()
    await connection.execute(INSERT, mark, None)
    await transaction.rollback()

    async def failing():
        async with connection.transaction():
            await connection.execute(INSERT, mark, 13)

    await raises(asyncpg.CheckViolationError, failing())
    async with connection.transaction():
        rows = [row async for row in connection.cursor("INSERT INTO work (mark) SELECT $1 FROM generate_series(1, 120) RETURNING 1", mark, prefetch=50)]
        assert len(rows) == 120
    async with connection.transaction():
        statement = await connection.prepare("SELECT generate_series(1, 100)")
        cursor = await statement.cursor()
        assert len(await cursor.fetch(10)) == 10
        await connection.execute(INSERT, mark, None)
        assert len(await cursor.fetch(200)) == 90
    await connection.close()


async def two_phases():
    connection, mark = await session("two-phases")
    unnamed(mark, 0)
    for end in "COMMIT", "ROLLBACK":
        await connection.execute("BEGIN")
        await connection.execute(INSERT, mark, None)
        await connection.execute("PREPARE TRANSACTION 'asyncpg'")
        await connection.execute(f"{end} PREPARED 'asyncpg'")
    await connection.close()


async def own_commits():
    connection, mark = await session("call")
    await connection.execute("CALL commits($1)", mark)
    await connection.execute("CALL ends_with_commit($1)", mark)
    unnamed(mark, 2)
    await connection.close()


async def main():
    for step in singles, blocks, two_phases, own_commits:
        await step()


asyncio.run(main())
