"""psycopg 3: extended protocol throughout; parameters in messages of their own."""
import os
import psycopg

connection = psycopg.connect(options="-c gatepost.correlation_id=psycopg3-startup")
with connection.transaction():
    connection.execute("SET LOCAL gatepost.correlation_id = 'psycopg3-block'")
    connection.execute("INSERT INTO orders (customer, cents) VALUES (%s, %s)", ["psycopg3-block", 1])
    connection.execute("UPDATE orders SET cents = cents + 1 WHERE customer = %s", ["psycopg3-block"])
connection.autocommit = True
connection.execute("INSERT INTO orders (customer, cents) VALUES (%s, %s)", ["psycopg3-startup", 1])
comment = "/*correlation_id='psycopg3-comment'*/"
connection.execute(f"INSERT INTO orders (customer, cents) VALUES (%s, %s) {comment}", ["psycopg3-comment", 1])
for index in range(8):  # prepared by the driver after five
    connection.execute("INSERT INTO orders (customer, cents) VALUES (%s, %s)", ["psycopg3-startup", index + 1])
try:
    with connection.transaction():
        connection.execute("SET LOCAL gatepost.correlation_id = 'psycopg3-aborted'")
        connection.execute("INSERT INTO orders (customer, cents) VALUES (%s, %s)", ["psycopg3-aborted", 1])
        print(connection.execute("SELECT pg_current_xact_id()::text").fetchone()[0])
        connection.execute("INSERT INTO orders (customer, cents) VALUES (%s, %s)", ["psycopg3-aborted", -1])
except psycopg.errors.CheckViolation as refused:
    assert refused.sqlstate == "23514", refused
connection.close()
