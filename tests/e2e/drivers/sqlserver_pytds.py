"""python-tds through the steps of sqlserver_steps.py. It knows no TDS 8.0."""

import pytds
from pytds.tds_base import Column
from pytds.tds_types import IntType, NVarCharType, NVarCharMaxType, VarBinaryMaxType

import sqlserver_steps as at


class Pytds(at.Steps):
    def open(self, automatic=False, **more):
        if at.STRICT:
            raise at.Cannot("has no strict encryption")
        if at.TOKEN:
            credential = {"access_token_callable": lambda: at.TOKEN}
        else:
            credential = {"user": at.USER, "password": at.PASSWORD}
        # Without this last one it tries a refused login again and again until its time is over, and then says only that.
        return pytds.connect(
            dsn=at.HOST, port=at.PORT, database=at.DATABASE, cafile=at.CA, appname=at.NAME, autocommit=automatic,
            login_timeout=at.PATIENCE, **credential, **more, disable_connect_retry=True,
        )

    def told(self, error):
        number = getattr(error, "msg_no", None)
        return number or None, f"{type(error).__name__}: {error}"

    def binary(self, raw):
        return pytds.Binary(raw)

    def call(self, connection):
        with connection.cursor() as cursor:
            # Not by get_proc_outputs, which fails unless outputs come first.
            *_, shipped = cursor.callproc("dbo.ship", (at.NAME, 21, pytds.output(param_type=int)))
            return shipped, cursor.get_proc_return_status()

    def load(self, connection, rows):
        columns = [
            Column("driver", type=NVarCharType(size=40)), Column("step", type=NVarCharType(size=40)),
            Column("n", type=IntType()), Column("body", type=NVarCharMaxType()), Column("raw", type=VarBinaryMaxType()),
        ]
        with connection.cursor() as cursor:
            cursor.copy_to(data=rows, table_or_view="parcels", schema="dbo", columns=columns)

    def hurried(self, seconds):
        return self.open(True, timeout=seconds)

    def reset(self):
        with at.contextlib.closing(self.open(True, pooling=True)) as first:
            number = self.marked(first)
        with at.contextlib.closing(self.open(True, pooling=True)) as second:
            *values, now = self.state(second)
            return [*values, now == number]


at.run(Pytds())
