"""psycopg2: simple protocol throughout; values are written into the text."""
# This file has the driver's name, so its folder must not be where Python looks first.
import sys
sys.path.pop(0)
import psycopg2

connection = psycopg2.connect("", options="-c gatepost.correlation_id=psycopg2-startup")
with connection, connection.cursor() as cursor:
    cursor.execute("SET LOCAL gatepost.correlation_id = 'psycopg2-block'")
    cursor.execute("INSERT INTO orders (customer, cents) VALUES (%s, %s)", ["psycopg2-block", 1])
    cursor.execute("UPDATE orders SET cents = cents + 1 WHERE customer = %s", ["psycopg2-block"])
connection.autocommit = True
with connection.cursor() as cursor:
    cursor.execute("INSERT INTO orders (customer, cents) VALUES (%s, %s)", ["psycopg2-startup", 1])
    comment = "/*correlation_id='psycopg2-comment'*/"
    cursor.execute(f"INSERT INTO orders (customer, cents) VALUES (%s, %s) {comment}", ["psycopg2-comment", 1])
connection.autocommit = False
try:
    with connection, connection.cursor() as cursor:
        cursor.execute("SET LOCAL gatepost.correlation_id = 'psycopg2-aborted'")
        cursor.execute("INSERT INTO orders (customer, cents) VALUES (%s, %s)", ["psycopg2-aborted", 1])
        cursor.execute("SELECT pg_current_xact_id()::text")
        print(cursor.fetchone()[0])
        cursor.execute("INSERT INTO orders (customer, cents) VALUES (%s, %s)", ["psycopg2-aborted", -1])
except psycopg2.errors.CheckViolation as refused:
    assert refused.pgcode == "23514", refused
connection.close()
