"""Hands values to the database in every way that psycopg has: as literals, as text, as binary, and in work that
fails."""

import sys

import psycopg

value, taken, failing, escaped, secret = sys.argv[1:]

with psycopg.connect("", autocommit=True) as connection:
    # As a literal, in a simple Query.
    psycopg.ClientCursor(connection).execute("INSERT INTO orders (customer, cents) VALUES (%s, %s)", (value, 4711))
    # As text and as binary, with and without a prepared statement.
    for template in ("VALUES (%t, %t)", "VALUES (%b, %b)"):
        for prepare in (False, True):
            connection.execute("INSERT INTO orders (customer, cents) " + template, (value, 4711), prepare=prepare)
    # The server's DETAIL says the value.
    for attempt in range(2):
        try:
            connection.execute("INSERT INTO inbox (message_id) VALUES (%s)", (taken,))
        except psycopg.errors.UniqueViolation as error:
            print("unique", taken in error.diag.message_detail)
    # So does its CONTEXT, of a line of COPY.
    try:
        with connection.cursor().copy("COPY orders (customer, cents) FROM STDIN") as copy:
            copy.write(f"{failing}\tnot a number {failing}\n")
    except psycopg.errors.InvalidTextRepresentation as error:
        print("copy", failing in error.diag.context)
    # A backslash that escapes in a plain constant.
    connection.execute("SET standard_conforming_strings = off")
    connection.execute(f"INSERT INTO orders (customer) VALUES ('it\\'s {escaped} ')")
    connection.execute("RESET standard_conforming_strings")
    # What is a secret whatever the rule says.
    for definition in (
        f"ALTER ROLE CURRENT_USER PASSWORD '{secret}'",
        f"CREATE TABLE public.t (a text DEFAULT '{secret}')",
    ):
        try:
            connection.execute(definition)
        except psycopg.Error as error:
            print("refused", error.sqlstate)
    with connection.transaction():
        connection.execute(f"SELECT set_config('my.password', '{secret}', false)")
        connection.execute(f"DO $$ BEGIN PERFORM '{secret}'; END $$")
        connection.execute("INSERT INTO orders (customer) VALUES ('done')")
