"""The store on SQLite: one file, write-ahead log, several processes at once.

Each thread has its own connection. `synchronous=FULL`: what a call has written survives a power cut as well as a kill
(NORMAL would lose the last transactions in a power cut). Knows nothing about models or HTTP.
"""

import fcntl
import json
import os
import sqlite3
import threading
from collections.abc import Collection, Iterable, Iterator, Mapping
from contextlib import closing, contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from recops.errors import CallError
from recops.store import HistoryRow, Moment

# One entry a schema version; an entry, once released, is never edited: a change is a new entry.
MIGRATIONS = (
    """
    CREATE TABLE histories (
        tenant TEXT NOT NULL, release TEXT NOT NULL, user_id TEXT NOT NULL,
        item_ids TEXT NOT NULL, timestamps TEXT,
        PRIMARY KEY (tenant, release, user_id)
    ) WITHOUT ROWID;
    CREATE TABLE history_sets (
        tenant TEXT NOT NULL, release TEXT NOT NULL, num_users INTEGER NOT NULL,
        PRIMARY KEY (tenant, release)
    ) WITHOUT ROWID;
    CREATE TABLE answers (
        tenant TEXT NOT NULL, request_id TEXT NOT NULL, time INTEGER NOT NULL, user_id TEXT,
        items TEXT NOT NULL, release TEXT NOT NULL, variant TEXT, source TEXT,
        PRIMARY KEY (tenant, request_id)
    );
    CREATE INDEX answers_by_time ON answers (tenant, time, request_id);
    CREATE TABLE reports (
        tenant TEXT NOT NULL, kind TEXT NOT NULL, body TEXT NOT NULL,
        PRIMARY KEY (tenant, kind)
    );
    """,
    """
    CREATE TABLE changes (tenant TEXT NOT NULL PRIMARY KEY, last INTEGER NOT NULL) WITHOUT ROWID;
    CREATE TABLE items (
        tenant TEXT NOT NULL, item_id TEXT NOT NULL, change INTEGER NOT NULL, body TEXT NOT NULL,
        PRIMARY KEY (tenant, item_id)
    ) WITHOUT ROWID;
    CREATE INDEX items_by_change ON items (tenant, change);
    CREATE TABLE item_vectors (
        tenant TEXT NOT NULL, encoder TEXT NOT NULL, content BLOB NOT NULL, vector BLOB NOT NULL,
        PRIMARY KEY (tenant, encoder, content)
    ) WITHOUT ROWID;
    """,
)
ANSWER_COLUMNS = ("request_id", "time", "user_id", "items", "release", "variant", "source")
_SELECT_ANSWERS = f"SELECT {', '.join(ANSWER_COLUMNS)} FROM answers WHERE tenant = ?"
_WAIT_S = 30.0  # for another process' transaction, before "database is locked"
_MAX_LOG_BYTES = 64_000_000  # the log is cut back to this after a large transaction
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)


class SqliteStore:
    """A Store (see recops.store) in the SQLite file `path`."""

    def __init__(self, path: str | Path, tenant: str = "main") -> None:
        self.path, self.tenant = Path(path), tenant
        self._local = threading.local()
        self._lock = threading.Lock()
        self._connections: list[sqlite3.Connection] = []
        self.path.parent.mkdir(parents=True, exist_ok=True)
        try:
            self._migrate()
        except (sqlite3.DatabaseError, CallError) as error:
            self.close()
            if isinstance(error, CallError):
                raise
            raise CallError(f"{self.path}: not usable as a store: {error}") from None

    def put_histories(self, release: str, rows: Iterable[HistoryRow]) -> int:
        def encoded() -> Iterator[tuple[str, str, str, str, str | None]]:
            for user_id, item_ids, timestamps in rows:
                if timestamps is not None and len(timestamps) != len(item_ids):
                    raise CallError(f"user {user_id!r}: {len(item_ids)} items but {len(timestamps)} timestamps")
                times = None if timestamps is None else _json([int(t) for t in timestamps])
                yield self.tenant, release, user_id, _json(list(item_ids)), times

        with self._transaction() as con:
            con.execute("DELETE FROM histories WHERE tenant = ? AND release = ?", (self.tenant, release))
            try:
                num_users = con.executemany("INSERT INTO histories VALUES (?, ?, ?, ?, ?)", encoded()).rowcount
            except sqlite3.IntegrityError as error:
                raise CallError(
                    f"histories of release {release[:12]}: a user stands twice or has no id ({error})"
                ) from None
            num_users = max(num_users, 0)
            con.execute("INSERT OR REPLACE INTO history_sets VALUES (?, ?, ?)", (self.tenant, release, num_users))
        return num_users

    def num_histories(self, release: str) -> int | None:
        query = "SELECT num_users FROM history_sets WHERE tenant = ? AND release = ?"
        found = self._connection().execute(query, (self.tenant, release)).fetchone()
        return None if found is None else found[0]

    def history(self, release: str, user_id: str) -> list[str] | None:
        query = "SELECT item_ids FROM histories WHERE tenant = ? AND release = ? AND user_id = ?"
        found = self._connection().execute(query, (self.tenant, release, user_id)).fetchone()
        return None if found is None else json.loads(found[0])

    def history_times(self, release: str, user_id: str) -> list[int] | None:
        query = "SELECT timestamps FROM histories WHERE tenant = ? AND release = ? AND user_id = ?"
        found = self._connection().execute(query, (self.tenant, release, user_id)).fetchone()
        return None if found is None or found[0] is None else json.loads(found[0])

    def history_rows(self, release: str) -> Iterator[tuple[str, list[str]]]:
        query = "SELECT user_id, item_ids FROM histories WHERE tenant = ? AND release = ? ORDER BY user_id"
        for user_id, item_ids in self._stream(query, (self.tenant, release)):
            yield user_id, json.loads(item_ids)

    def drop_release(self, release: str) -> None:
        with self._transaction() as con:
            for table in ("histories", "history_sets"):
                con.execute(f"DELETE FROM {table} WHERE tenant = ? AND release = ?", (self.tenant, release))

    def log_answers(self, answers: Iterable[dict[str, Any]]) -> None:
        rows = []
        for answer in answers:
            if wrong := set(answer) ^ set(ANSWER_COLUMNS):
                raise CallError(
                    f"answer {answer.get('request_id')!r}: missing or unknown keys {', '.join(sorted(wrong))}"
                )
            values = {**answer, "time": micros(answer["time"]), "items": _json(answer["items"])}
            rows.append((self.tenant, *(values[column] for column in ANSWER_COLUMNS)))
        if rows:
            with self._transaction() as con:
                columns = ", ".join(("tenant", *ANSWER_COLUMNS))
                con.executemany(f"INSERT OR IGNORE INTO answers ({columns}) VALUES (?, ?, ?, ?, ?, ?, ?, ?)", rows)

    def answer(self, request_id: str) -> dict[str, Any] | None:
        found = (
            self._connection().execute(f"{_SELECT_ANSWERS} AND request_id = ?", (self.tenant, request_id)).fetchone()
        )
        return None if found is None else _answer(found)

    def answers(self, since: Moment | None = None, until: Moment | None = None) -> Iterator[dict[str, Any]]:
        query = _SELECT_ANSWERS
        values: list[str | int] = [self.tenant]
        for bound, comparison in ((since, ">="), (until, "<")):
            if bound is not None:
                query += f" AND time {comparison} ?"
                values.append(micros(bound))
        for row in self._stream(f"{query} ORDER BY time, request_id", values):
            yield _answer(row)

    def put_items(self, items: Iterable[Mapping[str, Any]]) -> int:
        told = list(items)
        if not told:
            return self.last_change()
        with self._transaction() as con:
            bump = "INSERT INTO changes VALUES (?, 1) ON CONFLICT DO UPDATE SET last = last + 1 RETURNING last"
            (change,) = con.execute(bump, (self.tenant,)).fetchone()
            for item in told:
                if not isinstance(item_id := item.get("item_id"), str) or not item_id:
                    raise CallError(f"item {dict(item)!r}: has no item_id")
                query = "SELECT body FROM items WHERE tenant = ? AND item_id = ?"
                found = con.execute(query, (self.tenant, item_id)).fetchone()
                body = {**(json.loads(found[0]) if found else {}), **item}
                con.execute(
                    "INSERT OR REPLACE INTO items VALUES (?, ?, ?, ?)", (self.tenant, item_id, change, _json(body))
                )
        return change

    def last_change(self) -> int:
        found = self._connection().execute("SELECT last FROM changes WHERE tenant = ?", (self.tenant,)).fetchone()
        return 0 if found is None else found[0]

    def items_since(self, change: int) -> tuple[int, list[dict[str, Any]]]:
        # A change that comes in between is seen in full, and its items once more by the next call.
        last = self.last_change()
        query = "SELECT body FROM items WHERE tenant = ? AND change > ? ORDER BY change, item_id"
        rows = self._connection().execute(query, (self.tenant, change)).fetchall()
        return last, [json.loads(body) for (body,) in rows]

    def put_item_vectors(self, encoder: str, vectors: Mapping[bytes, bytes]) -> None:
        rows = [(self.tenant, encoder, content, vector) for content, vector in vectors.items()]
        if rows:
            with self._transaction() as con:
                con.executemany("INSERT OR IGNORE INTO item_vectors VALUES (?, ?, ?, ?)", rows)

    def item_vectors(self, encoder: str, contents: Collection[bytes]) -> dict[bytes, bytes]:
        query = "SELECT vector FROM item_vectors WHERE tenant = ? AND encoder = ? AND content = ?"
        con = self._connection()
        found = {content: con.execute(query, (self.tenant, encoder, content)).fetchone() for content in contents}
        return {content: row[0] for content, row in found.items() if row is not None}

    def put_report(self, kind: str, body: Any) -> None:
        with self._transaction() as con:
            con.execute("INSERT OR REPLACE INTO reports VALUES (?, ?, ?)", (self.tenant, kind, _json(body)))

    def report(self, kind: str) -> Any | None:
        query = "SELECT body FROM reports WHERE tenant = ? AND kind = ?"
        found = self._connection().execute(query, (self.tenant, kind)).fetchone()
        return None if found is None else json.loads(found[0])

    def close(self) -> None:
        with self._lock:
            for con in self._connections:
                con.close()
            self._connections.clear()

    def _connect(self) -> sqlite3.Connection:
        # Threads share no connection; the check is off so that `close` may close them all.
        con = sqlite3.connect(self.path, timeout=_WAIT_S, isolation_level=None, check_same_thread=False)
        con.execute("PRAGMA synchronous = FULL")
        con.execute(f"PRAGMA journal_size_limit = {_MAX_LOG_BYTES}")
        return con

    def _connection(self) -> sqlite3.Connection:
        """This thread's connection; a new one in a process that was forked off."""
        if getattr(self._local, "pid", None) != os.getpid():
            self._local.con, self._local.pid = self._connect(), os.getpid()
            with self._lock:
                self._connections.append(self._local.con)
        return self._local.con

    @contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        con = self._connection()
        con.execute("BEGIN IMMEDIATE")
        try:
            yield con
        except BaseException:
            # SQLite has rolled back by itself after an error such as a full disk.
            if con.in_transaction:
                con.execute("ROLLBACK")
            raise
        con.execute("COMMIT")

    def _stream(self, query: str, values: Iterable[Any]) -> Iterator[tuple]:
        """Rows on a connection of their own, so that writing while reading disturbs neither."""
        with closing(self._connect()) as con:
            yield from con.execute(query, tuple(values))

    def _migrate(self) -> None:
        # The lock file: SQLite does not wait when two processes both switch a new file to the write-ahead log.
        with self.path.with_name(f".{self.path.name}.lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            con = self._connection()
            con.execute("PRAGMA journal_mode = WAL")
            con.execute("CREATE TABLE IF NOT EXISTS schema_version (version INTEGER NOT NULL)")
            (version,) = con.execute("SELECT coalesce(max(version), 0) FROM schema_version").fetchone()
            if version > len(MIGRATIONS):
                raise CallError(
                    f"{self.path}: schema {version} is newer than this recops knows ({len(MIGRATIONS)}); upgrade recops"
                )
            for number, script in enumerate(MIGRATIONS[version:], start=version + 1):
                try:
                    con.executescript(f"BEGIN IMMEDIATE;{script}INSERT INTO schema_version VALUES ({number});COMMIT;")
                except sqlite3.Error:
                    if con.in_transaction:
                        con.execute("ROLLBACK")
                    raise


def micros(moment: Moment) -> int:
    """Microseconds since the epoch in UTC. Raises CallError for text that is no ISO time, or a time without zone.

    >>> micros("1970-01-01T00:00:01+00:00"), micros(5)
    (1000000, 5)
    """
    if isinstance(moment, int):
        return moment
    try:
        time = datetime.fromisoformat(moment) if isinstance(moment, str) else moment
    except ValueError:
        raise CallError(f"time {moment!r}: neither ISO 8601 nor microseconds") from None
    if time.tzinfo is None:
        raise CallError(f"time {moment!r}: has no zone")
    return (time - _EPOCH) // _MICROSECOND


def _answer(row: tuple) -> dict[str, Any]:
    answer = dict(zip(ANSWER_COLUMNS, row, strict=True))
    answer["time"] = (_EPOCH + answer["time"] * _MICROSECOND).isoformat(timespec="microseconds")
    answer["items"] = json.loads(answer["items"])
    return answer


def _json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
