"""Cancelling through libpq: it reaches the one query that it is meant for. Argument: how protocols are
negotiated, for the connection string."""

import os
import socket
import struct
import sys
import threading

import psycopg

NEGOTIATION = sys.argv[1]
SLEEPING = "SELECT count(*) FROM pg_stat_activity WHERE query LIKE 'SELECT pg_sleep%%' AND state = 'active'"


class Sleeper:
    """A session that runs one long query."""

    def __init__(self):
        self.connection = psycopg.connect(NEGOTIATION, autocommit=True)
        self.ended = None
        self.thread = threading.Thread(target=self.sleep, daemon=True)
        self.thread.start()

    def sleep(self):
        try:
            self.connection.execute("SELECT pg_sleep(80)")
            self.ended = "slept"
        except psycopg.errors.QueryCanceled as canceled:
            self.ended = canceled.sqlstate

    def join(self):
        self.thread.join(30)
        assert self.ended == "57014", self.ended
        assert self.connection.execute("SELECT 7").fetchone() == (7,)


watcher = psycopg.connect(NEGOTIATION, autocommit=True)


def until_sleeping(count):
    while watcher.execute(SLEEPING).fetchone()[0] != count:
        pass


def wrong_key(process):
    """The right process with a key of somebody else, as a stranger would guess it."""
    with socket.create_connection((os.environ["PGHOST"], os.environ["PGPORT"])) as stranger:
        stranger.sendall(struct.pack("!iiiI", 16, 80877102, process, 0x12345678))
        assert stranger.recv(1) == b""


one, two = Sleeper(), Sleeper()
until_sleeping(2)
wrong_key(one.connection.info.backend_pid)
assert watcher.execute(SLEEPING).fetchone()[0] == 2
one.connection.cancel()
one.join()
assert two.ended is None
assert watcher.execute(SLEEPING).fetchone()[0] == 1
two.connection.cancel_safe()
two.join()
# With nothing running, a cancel comes to nothing; also for whoever has the connection next.
one.connection.cancel_safe()
assert one.connection.execute("SELECT 7").fetchone() == (7,)
print(watcher.info.full_protocol_version)
