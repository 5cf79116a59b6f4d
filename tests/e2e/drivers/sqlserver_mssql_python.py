"""mssql-python (Microsoft's ODBC Driver 18 inside) through the steps of sqlserver_steps.py. ODBC's errors are text: it
tells no numbers. It sets the application's name itself: MSSQL-Python."""

import os
import types

import sqlserver_steps as at

# The driver takes its authorities from OpenSSL's own place.
os.environ["SSL_CERT_FILE"] = at.CA

import mssql_python


class Provider:
    """Whoever gives out tokens, as azure-identity's credentials do."""

    def get_token(self, *_scopes, **_more):
        # It must not look over. Who decides that is gatepost.
        return types.SimpleNamespace(token=at.TOKEN, expires_on=2**31 - 1)


class MssqlPython(at.Steps):
    mark = "?"

    def open(self, automatic=False):
        text = f"Server=tcp:{at.HOST},{at.PORT};Database={at.DATABASE};TrustServerCertificate=no;"
        text += f"Encrypt={'strict' if at.STRICT else 'yes'};PacketSize=8000;"
        if at.TOKEN:
            return mssql_python.connect(text, autocommit=automatic, timeout=at.PATIENCE, token_provider=Provider())
        text += f"UID={at.USER};PWD={{{at.PASSWORD.replace('}', '}}')}}};"
        return mssql_python.connect(text, autocommit=automatic, timeout=at.PATIENCE)

    def told(self, error):
        return None, f"{type(error).__name__}: {error}"

    def call(self, connection):
        # It binds no output parameters.
        query = """SET NOCOUNT ON; DECLARE @shipped int, @returned int;
            EXEC @returned = dbo.ship ?, ?, @shipped OUTPUT; SELECT @shipped, @returned"""
        return self.row(connection, query, at.NAME, 21)

    def load(self, connection, rows):
        # By a connection of its own, which Microsoft's Rust driver makes.
        with connection.cursor() as cursor:
            cursor.bulkcopy("dbo.parcels", rows)

    def hurried(self, seconds):
        connection = self.open(True)
        connection.timeout = seconds
        return connection

    def reset(self):
        # Pooling is on unless switched off.
        with at.contextlib.closing(self.open(True)) as first:
            number = self.marked(first)
        with at.contextlib.closing(self.open(True)) as second:
            *values, now = self.state(second)
            return [*values, now == number]


at.run(MssqlPython())
