"""The store on a PostgreSQL server (12 or later), for services on several machines. Needs `recops[postgres]`.

Connections come from a pool. What a call has written survives a kill and a power cut of the server, unless that runs
with `fsync` or `synchronous_commit` off.
"""

import logging
import os
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any
from urllib.parse import urlsplit

from recops.errors import CallError
from recops.store.migrations import for_postgres
from recops.store.sql import SqlStore

try:
    import psycopg
    import psycopg_pool
except ImportError as error:
    raise CallError(f"a store on PostgreSQL needs the package {error.name}: pip install 'recops[postgres]'") from None

logger = logging.getLogger("recops.store")

CONNECT_S = 5.0
STATEMENT_S = 60  # writes of a whole release's histories are many statements
MAX_CONNECTIONS = 8  # of a process
# A server that is gone without a word is noticed within 20 s.
ALIVE = {"keepalives_idle": 10, "keepalives_interval": 5, "keepalives_count": 2, "tcp_user_timeout": 20_000}
_MIGRATING = 7_204_617  # the number of the lock that one process holds while it brings the schema up to date


class PostgresStore(SqlStore):
    """A Store (see recops.store) in the database that `url` names; `open_store` checks the URL."""

    broken = psycopg.Error
    contradicted = psycopg.IntegrityError
    is_remote = True
    find = "strpos"

    def __init__(self, url: str, tenant: str = "main") -> None:
        self.url, self.tenant = url, tenant
        self.where = without_password(url)
        self._lock = threading.Lock()
        self._pools: dict[int, psycopg_pool.ConnectionPool] = {}
        try:
            self._migrate()
        except (psycopg.Error, psycopg_pool.PoolTimeout, CallError) as error:
            self.close()
            if isinstance(error, CallError):
                raise
            raise CallError(f"{self.where}: not usable as a store: {str(error).strip()}") from None

    def close(self) -> None:
        with self._lock:
            if (pool := self._pools.pop(os.getpid(), None)) is not None:
                pool.close()

    def _pool(self) -> psycopg_pool.ConnectionPool:
        """This process' pool: connections do not survive a fork."""
        with self._lock:
            if os.getpid() not in self._pools:
                self._pools[os.getpid()] = psycopg_pool.ConnectionPool(
                    self.url,
                    min_size=1,
                    max_size=MAX_CONNECTIONS,
                    timeout=CONNECT_S,
                    kwargs={
                        "autocommit": True,
                        "connect_timeout": int(CONNECT_S),
                        **ALIVE,
                        "options": f"-c statement_timeout={STATEMENT_S}s",
                        "application_name": "recops",
                    },
                    open=True,
                )
            return self._pools[os.getpid()]

    def _read(self, query: str, values: Sequence[Any]) -> list[tuple]:
        try:
            with self._pool().connection() as con:
                return con.execute(translated(query), values).fetchall()
        except psycopg_pool.PoolTimeout:
            raise
        except psycopg.OperationalError as error:
            logger.warning("%s: a query is asked again: %s", self.where, str(error).strip())
            # The server may have been restarted, and every connection in the pool be dead.
            self._pool().check()
            with self._pool().connection() as con:
                return con.execute(translated(query), values).fetchall()

    @contextmanager
    def _transaction(self) -> Iterator["_Connection"]:
        try:
            with self._pool().connection() as con, con.transaction():
                yield _Connection(con)
        except psycopg_pool.PoolTimeout:
            raise
        except psycopg.OperationalError:
            self._pool().check()  # where the server was restarted, the next one finds no dead connection
            raise

    def _stream(self, query: str, values: Sequence[Any]) -> Iterator[tuple]:
        with self._pool().connection() as con, con.transaction(), con.cursor("stream") as cursor:
            cursor.execute(translated(query), values)
            yield from cursor

    @contextmanager
    def snapshot(self) -> Iterator[Callable[[str], Iterable[tuple]]]:
        with self._pool().connection() as con, con.transaction():
            con.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ READ ONLY")

            def rows(query: str) -> Iterator[tuple]:
                with con.cursor("snapshot") as cursor:
                    cursor.execute(translated(query))
                    yield from cursor

            yield rows

    def take_time(self, con: "_Connection") -> None:
        con.execute("SET LOCAL statement_timeout = 0")

    def _migrate(self) -> None:
        # Asked once without the pool, whose message about a server that is not there says only that it waited.
        with psycopg.connect(self.url, connect_timeout=int(CONNECT_S)) as con:
            con.execute(f"SELECT pg_advisory_xact_lock({_MIGRATING})")
            for number, script in self._missing_scripts(_Connection(con)):
                con.execute(for_postgres(script))
                con.execute("INSERT INTO schema_version VALUES (%s)", (number,))


class _Connection:
    """Takes the queries of SqlStore, whose values stand as `?`."""

    def __init__(self, con: psycopg.Connection) -> None:
        self._con = con

    def execute(self, query: str, values: Sequence[Any] = ()) -> psycopg.Cursor:
        return self._con.execute(translated(query), values)

    def cursor(self) -> "_Connection":
        return self

    def executemany(self, query: str, rows: Iterable[Sequence[Any]]) -> None:
        self._con.cursor().executemany(translated(query), rows)


def translated(query: str) -> Any:
    return query.replace("?", "%s")


def without_password(url: str) -> str:
    """The URL as messages may show it.

    >>> without_password("postgresql://me:secret@db:5432/recops")
    'postgresql://me@db:5432/recops'
    """
    parts = urlsplit(url)
    user, at, host = parts.netloc.rpartition("@")
    return parts._replace(netloc=f"{user.partition(':')[0]}{at}{host}", query="").geturl()
