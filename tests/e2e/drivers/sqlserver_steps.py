"""What the programs of SQL Server's Python drivers share: where they connect, the list of steps, and how each
result is told. Arguments: names of steps, which run in that order, each on connections of its own.

    GATEPOST_TEST_HOST, _PORT, _DATABASE   where to; the host as the certificate has it
    GATEPOST_TEST_CA                       the authority that signed the certificate, PEM
    GATEPOST_TEST_TLS                      7.4 (TLS inside the login) or strict (TDS 8.0)
    GATEPOST_TEST_NAME                     application name, and whose rows they are
    GATEPOST_TEST_TOKEN                    an access token (FEDAUTH); or
    GATEPOST_TEST_USER, _PASSWORD          what goes into the login itself
    GATEPOST_TEST_LONG                     a statement that takes at least 20 s: WAITFOR DELAY '00:00:20'
    GATEPOST_TEST_SCHEMA                   where `ddl` makes its table (dbo)
    GATEPOST_TEST_ROWS, _BIG               rows of `rows` (100000), bytes of `big` (20 MiB)

One line of JSON a result: {"step", "ok", "values", "error_number", "error_text"}. `ok` says that it went as it should, so
`refused` is ok when the login failed; a number that a driver does not tell is null. The tables are in
sqlserver_schema.sql."""

import contextlib
import json
import os
import sys
import time

env = os.environ
HOST, PORT = env["GATEPOST_TEST_HOST"], int(env["GATEPOST_TEST_PORT"])
DATABASE, CA = env["GATEPOST_TEST_DATABASE"], env["GATEPOST_TEST_CA"]
NAME = env["GATEPOST_TEST_NAME"]
STRICT = env.get("GATEPOST_TEST_TLS", "7.4") == "strict"
TOKEN = env.get("GATEPOST_TEST_TOKEN")
USER, PASSWORD = env.get("GATEPOST_TEST_USER", ""), env.get("GATEPOST_TEST_PASSWORD", "")
SCHEMA = env.get("GATEPOST_TEST_SCHEMA", "dbo")
ROWS = int(env.get("GATEPOST_TEST_ROWS", "100000"))
BIG = int(env.get("GATEPOST_TEST_BIG", str(20 * 1024 * 1024)))
BULK = 10_000
# How long a login may take on a slow machine.
PATIENCE = 30


class Cannot(Exception):
    """The driver has no way to do this step."""


class Told(Exception):
    """What the server or the driver said, when that is the step's result."""

    def __init__(self, values, error):
        super().__init__(values)
        self.values, self.error = values, error


class Steps:
    """The list, by the DB-API. A driver's program says how it connects and where it has ways of its own."""

    # How a parameter is marked, in the driver's own style.
    mark = "%s"

    def open(self, automatic=False):
        raise NotImplementedError

    def told(self, error):
        """The server's number, None when the driver does not tell it, and the driver's whole text."""
        raise NotImplementedError

    def session(self, automatic=False):
        return contextlib.closing(self.open(automatic))

    def do(self, connection, sql, *parameters):
        with contextlib.closing(connection.cursor()) as cursor:
            cursor.execute(sql, *([parameters] if parameters else []))

    def row(self, connection, sql, *parameters):
        with contextlib.closing(connection.cursor()) as cursor:
            cursor.execute(sql, *([parameters] if parameters else []))
            row = cursor.fetchone()
            assert cursor.fetchone() is None
            return list(row)

    def binary(self, raw):
        """Bytes as the driver takes them for a parameter."""
        return raw

    def insert(self, connection, step, n, body=None, raw=None):
        columns, values = "driver, step, n", [NAME, step, n]
        for column, value in ("body", body), ("raw", raw and self.binary(raw)):
            if value is not None:
                columns += f", {column}"
                values.append(value)
        marks = ", ".join([self.mark] * len(values))
        self.do(connection, f"INSERT INTO dbo.parcels ({columns}) VALUES ({marks})", *values)

    def count(self, connection, step):
        query = f"SELECT COUNT(*) FROM dbo.parcels WHERE driver = {self.mark} AND step = {self.mark}"
        return self.row(connection, query, NAME, step)[0]

    def raises(self, act):
        try:
            act()
        except Cannot:
            raise
        except Exception as error:
            return error
        raise AssertionError("no error")

    def connect(self):
        with self.session(True) as connection:
            values = self.row(connection, "SELECT 42, N'hi äöü 😀', @@SPID")
            assert values[:2] == [42, "hi äöü 😀"], values
            return values

    def refused(self):
        raise Told([], self.raises(lambda: self.open().close()))

    def ddl(self):
        table = f"{SCHEMA}.ddl_" + "".join(c if c.isalnum() else "_" for c in NAME)
        with self.session(True) as connection:
            self.do(connection, f"CREATE TABLE {table} (n int NOT NULL PRIMARY KEY, body nvarchar(50) NULL)")
            self.do(connection, f"INSERT INTO {table} VALUES (1, N'äöü')")
            values = self.row(connection, f"SELECT n, body FROM {table}")
            self.do(connection, f"DROP TABLE {table}")
            assert values == [1, "äöü"], values
            return values

    def prepared(self):
        with self.session() as connection:
            for n in range(1, 101):
                self.insert(connection, "prepared", n, f"text {n} äöü 😀", bytes([0, 255, n]))
            connection.commit()
            query = f"SELECT body, raw FROM dbo.parcels WHERE driver = {self.mark} AND step = 'prepared' AND n = 100"
            body, raw = self.row(connection, query, NAME)
            assert (body, bytes(raw)) == ("text 100 äöü 😀", bytes([0, 255, 100])), (body, raw)
            return [self.count(connection, "prepared")]

    def rollback(self):
        with self.session() as connection:
            self.insert(connection, "rollback", 1)
            within = self.count(connection, "rollback")
            connection.rollback()
            return [within, self.count(connection, "rollback")]

    def call(self, connection):
        """dbo.ship with 21: what it handed out, and what it returned."""
        raise NotImplementedError

    def procedure(self):
        with self.session(True) as connection:
            shipped, returned = self.call(connection)
            values = [shipped, returned, self.count(connection, "procedure")]
            assert values == [42, 7, 1], values
            return values

    def rows(self):
        count = total = 0
        query = f"SELECT n, CAST(CONCAT(N'row ', n) AS nvarchar(40)) FROM dbo.numbers WHERE n < {ROWS}"
        with self.session(True) as connection, contextlib.closing(connection.cursor()) as cursor:
            cursor.execute(query)
            while part := cursor.fetchmany(1000):
                count += len(part)
                total += sum(row[0] for row in part)
        assert total == ROWS * (ROWS - 1) // 2, total
        return [count]

    def big(self):
        raw, body = bytes(range(256)) * (BIG // 256), "xäöü" * (BIG // 8)
        with self.session(True) as connection:
            self.insert(connection, "big", 1, body, raw)
            query = f"""SELECT DATALENGTH(raw), DATALENGTH(body), raw, body FROM dbo.parcels
                WHERE driver = {self.mark} AND step = 'big'"""
            values = self.row(connection, query, NAME)
            assert bytes(values[2]) == raw and values[3] == body
            return values[:2]

    def load(self, connection, rows):
        raise Cannot("has no bulk load")

    def bulk(self):
        with self.session(True) as connection:
            rows = [(NAME, "bulk", n, f"row {n} äöü", None) for n in range(1, BULK + 1)]
            self.load(connection, rows)
            # The load may be done by a connection of its own.
            values = [self.count(connection, "bulk")]
            query = f"SELECT body FROM dbo.parcels WHERE driver = {self.mark} AND step = 'bulk' AND n = 77"
            assert self.row(connection, query, NAME) == ["row 77 äöü"]
            return values

    def hurried(self, seconds):
        """A connection whose statements the driver ends after so long."""
        raise Cannot("has no way to cancel")

    def cancel(self):
        with contextlib.closing(self.hurried(2)) as connection:
            started = time.monotonic()
            error = self.raises(lambda: self.row(connection, env["GATEPOST_TEST_LONG"]))
            waited = time.monotonic() - started
            raise Told([self.row(connection, "SELECT 7")[0], round(waited * 1000)], error)

    def recovery(self):
        with self.session(True) as connection:
            syntax = self.raises(lambda: self.do(connection, "SELECT 1 +"))
            self.insert(connection, "recovery", 1)
            twice = self.raises(lambda: self.insert(connection, "recovery", 1))
            self.insert(connection, "recovery", 2)
            return [self.told(syntax)[0], self.told(twice)[0], self.count(connection, "recovery")]

    def transactions(self):
        with self.session() as connection:
            self.insert(connection, "transactions", 1)
            self.do(connection, "SAVE TRANSACTION here")
            self.insert(connection, "transactions", 2)
            self.do(connection, "ROLLBACK TRANSACTION here")
            self.insert(connection, "transactions", 3)
            connection.commit()
            query = f"SELECT COUNT(*), SUM(n) FROM dbo.parcels WHERE driver = {self.mark} AND step = 'transactions'"
            values = self.row(connection, query, NAME)
            assert values == [2, 4], values
            return values

    def error(self):
        with self.session(True) as connection:
            zero = self.raises(lambda: self.row(connection, "SELECT 1 / 0"))
            stated = self.raises(lambda: self.do(connection, "THROW 50001, N'stated äöü', 1;"))
            raise Told([self.told(zero)[0], self.row(connection, "SELECT 7")[0]], stated)

    def idle(self):
        """Ready; then, at a line on standard input, one statement: the line itself, or SELECT 43 for an empty one."""
        with self.session(True) as connection:
            tell("idle", True, ["ready"])
            line = sys.stdin.readline().strip()
            return self.row(connection, line or "SELECT 43")

    def reset(self):
        raise Cannot("has no pool")

    def marked(self, connection):
        """Leaves state behind in a session, and returns its number."""
        self.do(connection, "SET LOCK_TIMEOUT 1234")
        self.do(connection, "CREATE TABLE #mark (n int)")
        self.do(connection, "EXEC sp_set_session_context N'mark', N'kept'")
        values = self.state(connection)
        assert values[:3] == [1234, 1, "kept"], values
        return values[3]

    def state(self, connection):
        query = """SELECT @@LOCK_TIMEOUT, CASE WHEN OBJECT_ID('tempdb..#mark') IS NULL THEN 0 ELSE 1 END,
            CAST(SESSION_CONTEXT(N'mark') AS nvarchar(40)), @@SPID"""
        return self.row(connection, query)

    def correlation(self):
        given = f"correlation of {NAME}"
        with self.session(True) as connection:
            self.do(connection, f"EXEC sp_set_session_context N'correlation_id', N'{given}'")
            self.insert(connection, "correlation", 1, given)
            return [given]


LIST = (
    "connect refused ddl prepared rollback procedure rows big bulk cancel recovery transactions error idle reset "
    "correlation"
).split()


def tell(step, ok, values, number=None, text=None):
    result = {"step": step, "ok": ok, "values": values, "error_number": number, "error_text": text}
    print(json.dumps(result, ensure_ascii=False), flush=True)


def run(steps):
    sys.stdout.reconfigure(encoding="utf-8")
    for name in sys.argv[1:]:
        assert name in LIST, name
        try:
            tell(name, True, getattr(steps, name)())
        except Told as result:
            tell(name, True, result.values, *steps.told(result.error))
        except Cannot as reason:
            tell(name, False, [], None, f"this driver {reason}")
        except Exception as error:
            tell(name, False, [], *steps.told(error))
