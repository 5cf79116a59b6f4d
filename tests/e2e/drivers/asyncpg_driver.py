"""asyncpg: named prepared statements, Describe and Flush between."""
import asyncio
import os
import ssl
import asyncpg


async def main():
    context = ssl.create_default_context(cafile=os.environ["PGSSLROOTCERT"])
    settings = {"gatepost.correlation_id": "asyncpg-startup"}
    connection = await asyncpg.connect(ssl=context, server_settings=settings)
    insert = "INSERT INTO orders (customer, cents) VALUES ($1, $2)"
    async with connection.transaction():
        await connection.execute("SET LOCAL gatepost.correlation_id = 'asyncpg-block'")
        await connection.execute(insert, "asyncpg-block", 1)
        await connection.execute("UPDATE orders SET cents = cents + 1 WHERE customer = $1", "asyncpg-block")
    await connection.execute(insert, "asyncpg-startup", 1)
    await connection.execute(f"{insert} /*correlation_id='asyncpg-comment'*/", "asyncpg-comment", 1)
    await connection.executemany(insert, [("asyncpg-startup", n + 1) for n in range(20)])
    try:
        async with connection.transaction():
            await connection.execute("SET LOCAL gatepost.correlation_id = 'asyncpg-aborted'")
            await connection.execute(insert, "asyncpg-aborted", 1)
            print(await connection.fetchval("SELECT pg_current_xact_id()::text"))
            await connection.execute(insert, "asyncpg-aborted", -1)
    except asyncpg.CheckViolationError as refused:
        assert refused.sqlstate == "23514", refused
    await connection.close()


asyncio.run(main())
