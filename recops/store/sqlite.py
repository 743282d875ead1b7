"""The store on SQLite: one file, write-ahead log, several processes at once.

Each thread has its own connection. `synchronous=FULL`: what a call has written survives a power cut as well as a kill
(NORMAL would lose the last transactions in a power cut). What is deleted is overwritten.
"""

import fcntl
import os
import sqlite3
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

from recops.errors import CallError
from recops.store.sql import SqlStore

_WAIT_S = 30.0  # for another process' transaction, before "database is locked"
_MAX_LOG_BYTES = 64_000_000  # the log is cut back to this after a large transaction


class SqliteStore(SqlStore):
    """A Store (see recops.store) in the SQLite file `path`."""

    broken = sqlite3.Error
    contradicted = sqlite3.IntegrityError
    is_remote = False
    find = "instr"

    def __init__(self, path: str | Path, tenant: str = "main") -> None:
        self.path, self.tenant = Path(path), tenant
        self.where = str(self.path)
        self._local = threading.local()
        self._lock = threading.Lock()
        self._connections: list[sqlite3.Connection] = []
        self._file: tuple[int, int] | None = None  # that was opened: device and inode
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._migrate()
        except (sqlite3.DatabaseError, OSError, CallError) as error:
            self.close()
            if isinstance(error, CallError):
                raise
            raise CallError(f"{self.path}: not usable as a store: {error}") from None

    def close(self) -> None:
        with self._lock:
            for con in self._connections:
                con.close()
            self._connections.clear()

    def _connect(self) -> sqlite3.Connection:
        self._look_for_file()
        # Threads share no connection; the check is off so that `close` may close them all.
        con = sqlite3.connect(self.path, timeout=_WAIT_S, isolation_level=None, check_same_thread=False)
        con.execute("PRAGMA synchronous = FULL")
        con.execute(f"PRAGMA journal_size_limit = {_MAX_LOG_BYTES}")
        con.execute("PRAGMA secure_delete = ON")
        return con

    def _look_for_file(self) -> None:
        """Raises OperationalError where the file that was opened is no longer there: what is written into one that
        was taken away or replaced would be gone with the last connection."""
        if self._file is not None and self._file != _file_at(self.path):
            raise sqlite3.OperationalError(
                f"{self.path}: the file was taken away or replaced since it was opened; put it back or start anew"
            )

    def _connection(self) -> sqlite3.Connection:
        """This thread's connection; a new one in a process that was forked off."""
        if getattr(self._local, "pid", None) != os.getpid():
            self._local.con, self._local.pid = self._connect(), os.getpid()
            with self._lock:
                self._connections.append(self._local.con)
        return self._local.con

    def _read(self, query: str, values: Sequence[Any]) -> list[tuple]:
        return self._connection().execute(query, values).fetchall()

    @contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        con = self._connection()
        self._look_for_file()
        con.execute("BEGIN IMMEDIATE")
        try:
            yield con
        except BaseException:
            # SQLite has rolled back by itself after an error such as a full disk.
            if con.in_transaction:
                con.execute("ROLLBACK")
            raise
        con.execute("COMMIT")

    def _stream(self, query: str, values: Sequence[Any]) -> Iterator[tuple]:
        """On a connection of its own, so that writing while reading disturbs neither."""
        with closing(self._connect()) as con:
            yield from con.execute(query, tuple(values))

    @contextmanager
    def snapshot(self) -> Iterator[Callable[[str], Iterable[tuple]]]:
        with closing(self._connect()) as con:
            con.execute("BEGIN")
            yield con.execute

    def _forget_deleted(self) -> None:
        """What was deleted stands in the write-ahead log until that is emptied; readers in the way leave it for the
        next time."""
        self._connection().execute("PRAGMA wal_checkpoint(TRUNCATE)")

    def _migrate(self) -> None:
        # The lock file: SQLite does not wait when two processes both switch a new file to the write-ahead log.
        with self.path.with_name(f".{self.path.name}.lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            con = self._connection()
            con.execute("PRAGMA journal_mode = WAL")
            for number, script in self._missing_scripts(con):
                try:
                    con.executescript(f"BEGIN IMMEDIATE;{script}INSERT INTO schema_version VALUES ({number});COMMIT;")
                except sqlite3.Error:
                    if con.in_transaction:
                        con.execute("ROLLBACK")
                    raise
            self._file = _file_at(self.path)


def _file_at(path: Path) -> tuple[int, int] | None:
    try:
        found = path.stat()
    except FileNotFoundError:
        return None
    return found.st_dev, found.st_ino
