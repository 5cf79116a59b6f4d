"""pymssql (FreeTDS inside) through the steps of sqlserver_steps.py. It knows no access tokens and no TDS 8.0, and puts
parameters into the text of the statement. A password of more than 128 characters it leaves out."""

import os
import tempfile

import sqlserver_steps as at

# FreeTDS finds the authority in a file of settings only.
settings = tempfile.NamedTemporaryFile("w", suffix=".conf")
settings.write(f"[global]\nca file = {at.CA}\ncheck certificate hostname = yes\n")
settings.flush()
os.environ["FREETDSCONF"] = settings.name

import pymssql


class Pymssql(at.Steps):
    def open(self, automatic=False, **more):
        if at.STRICT:
            raise at.Cannot("has no strict encryption")
        if at.TOKEN:
            raise at.Cannot("has no access tokens")
        return pymssql.connect(
            server=at.HOST, port=at.PORT, user=at.USER, password=at.PASSWORD, database=at.DATABASE, appname=at.NAME,
            encryption="require", tds_version="7.4", login_timeout=at.PATIENCE, autocommit=automatic, **more,
        )

    def told(self, error):
        number, text = None, error.args[-1] if error.args else ""
        # (number, text), and for a refused connection that pair inside another.
        if isinstance(text, tuple):
            number, text = text
        elif len(error.args) == 2:
            number = error.args[0]
        if isinstance(text, bytes):
            text = text.decode()
        return number, f"{type(error).__name__}: {text}"

    def call(self, connection):
        with connection.cursor() as cursor:
            *_, shipped = cursor.callproc("dbo.ship", (at.NAME, 21, pymssql.output(int)))
            cursor.nextset()
            return shipped, cursor.returnvalue

    def load(self, connection, rows):
        connection.bulk_copy("dbo.parcels", rows)

    def hurried(self, seconds):
        return self.open(True, timeout=seconds)


at.run(Pymssql())
