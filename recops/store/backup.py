"""A store as one file, and back: `backup` writes all tables of all tenants as they stood at one moment, while others
write; `restore` puts them into a store on either database.

In: a URL, a file. Out: the file, an SQLite database of the store's own schema, and its checksum beside it. Whoever was
erased after the backup stays erased, decisions made after it stay in the audit log, and no place is given twice.
"""

import sqlite3
import tempfile
import time
from collections.abc import Collection, Iterable, Mapping
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from shutil import copyfile
from typing import Any

from recops.bundle import sha256_file, sync_folder, write_atomically
from recops.errors import CallError, RefusedError
from recops.store import open_store
from recops.store.migrations import MIGRATIONS
from recops.store.sql import NEXT, SqlStore
from recops.store.sqlite import SqliteStore
from recops.store.values import as_json
from recops.user_hash import user_hash

CHECKSUM = ".sha256"
NO_CONTENT = ("secrets", "last_events", "changes")  # what may stand in a store that nobody has used yet


@dataclass(frozen=True)
class ErasedHere:
    """Who else is known to be erased, of a tenant: `key` of the hashes, and the list as a store has it (hash and time).
    `events_until`: the highest place that is known to have been given."""

    tenant: str
    key: str
    erased: Collection[tuple[str, int]]
    events_until: int = 0


def tables() -> dict[str, list[str]]:
    """The tables of a store and their columns, in the order in which they were made."""
    with closing(sqlite3.connect(":memory:")) as con:
        con.executescript("".join(MIGRATIONS))
        names = [name for (name,) in con.execute("SELECT name FROM sqlite_master WHERE type = 'table' ORDER BY rowid")]
        return {name: [row[1] for row in con.execute(f"PRAGMA table_info({name})")] for name in names}


def backup(url: str, file: Path) -> dict[str, int]:
    """Writes the store at `url` to `file`, whole or not at all, readable by its owner only, and returns how many rows
    of each table. Raises CallError for a file that is there already, and a store that cannot be used."""
    if file.exists():
        raise CallError(f"{file}: exists already; name another file")
    if not file.parent.is_dir():
        raise CallError(f"{file.parent}: no such folder")
    counts = {}
    with tempfile.TemporaryDirectory(prefix=f".{file.name}.", dir=file.parent) as folder:
        made = Path(folder) / file.name
        with (
            closing(_opened(url)) as store,
            closing(SqliteStore(made)) as copy,
            store.snapshot() as rows,
            copy._transaction() as con,
        ):
            for name, columns in tables().items():
                counts[name] = _fill(con, name, columns, rows(f"SELECT {', '.join(columns)} FROM {name}"))
        with closing(sqlite3.connect(made)) as con:
            con.execute("PRAGMA journal_mode = DELETE")  # one file
        made.chmod(0o600)
        sync_folder(made)
        write_atomically(_checksum(file), f"{sha256_file(made)}  {file.name}\n")
        made.rename(file)
    sync_folder(file.parent)
    return counts


def check(file: Path) -> str:
    """The sha256 of a backup. Raises RefusedError for one that was altered, CallError without a checksum."""
    if not file.is_file():
        raise CallError(f"{file}: no such file")
    beside = _checksum(file)
    try:
        said = beside.read_text(encoding="utf-8").split()[0]
    except (OSError, IndexError):
        raise CallError(f"{beside}: missing or empty, so that nobody can tell whether {file.name} is whole") from None
    if (found := sha256_file(file)) != said:
        raise RefusedError(f"{file}: altered or cut short (sha256 {found[:12]}…, {beside.name} says {said[:12]}…)")
    return said


def restore(url: str, file: Path, *, force: bool, by: str, known: ErasedHere | None = None) -> dict[str, int]:
    """Puts a backup into the store at `url`, in one transaction, and returns how many rows of each table; `erased`:
    how many users were erased anew, since they were after the backup, by what the store or `known` says.

    Raises RefusedError for a backup that was altered, and for a store that holds anything, unless `force`: then all
    that it holds goes, but its later decisions and erasures. CallError for a backup of a newer schema, and where the
    erasures are of another store, so that nobody can tell who they are.
    """
    digest = check(file)
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder) / file.name
        copyfile(file, source)
        # Opened as a store, it is brought up to this schema, or refused.
        with closing(SqliteStore(source)) as copy, closing(_opened(url)) as store:
            with store._transaction() as con:
                store.take_time(con)
                counts = _replace(store, con, copy, force, known)
                facts = as_json({"file": file.name, "sha256": digest, "rows": counts, "by": by})
                tenants = con.execute("SELECT DISTINCT tenant FROM secrets").fetchall() or [(store.tenant,)]
                for (tenant,) in tenants:
                    _decided(con, tenant, time.time_ns() // 1000, "restored", facts)
            store._forget_deleted()
    return counts


def _opened(url: str) -> SqlStore:
    store = open_store(url)
    assert isinstance(store, SqlStore)
    return store


def _checksum(file: Path) -> Path:
    return file.with_name(file.name + CHECKSUM)


def _replace(store: SqlStore, con: Any, copy: SqliteStore, force: bool, known: ErasedHere | None) -> dict[str, int]:
    is_held = {name: con.execute(f"SELECT 1 FROM {name} LIMIT 1").fetchone() is not None for name in tables()}
    held = [name for name, holds in is_held.items() if holds and name not in NO_CONTENT]
    if held and not force:
        raise RefusedError(f"{store.where}: is not empty ({', '.join(held)}); --force puts the backup in its place")
    keys = dict(copy._read("SELECT tenant, value FROM secrets WHERE name = 'erasure'", ()))
    later = _later(con, copy, keys, known)
    audit = "SELECT tenant, time, what, facts FROM audit ORDER BY tenant, place"
    decided, has = con.execute(audit).fetchall(), set(copy._read(audit, ()))
    counters = {name: con.execute(f"SELECT tenant, last FROM {name}").fetchall() for name in ("last_events", "changes")}
    counts = {}
    for name, columns in tables().items():
        con.execute(f"DELETE FROM {name}")
        counts[name] = _fill(con, name, columns, copy._stream(f"SELECT {', '.join(columns)} FROM {name}", ()))
    for name, before in counters.items():
        for tenant, last in before:
            _at_least(con, name, tenant, last + (name == "changes"))  # a new change, so that workers read all anew
    if known is not None and keys.get(known.tenant) == known.key:
        _at_least(con, "last_events", known.tenant, known.events_until)
    for decision in decided:
        if tuple(decision) not in has:
            _decided(con, *decision)
    for tenant, erased in later.items():
        _erase(con, tenant, keys[tenant], erased)
    return {**counts, "erased": sum(map(len, later.values()))}


def _fill(con: Any, name: str, columns: list[str], rows: Iterable[tuple]) -> int:
    """Puts rows into an empty table, and returns how many it has."""
    marks = ", ".join("?" * len(columns))
    con.cursor().executemany(f"INSERT INTO {name} ({', '.join(columns)}) VALUES ({marks})", rows)
    return con.execute(f"SELECT count(*) FROM {name}").fetchone()[0]


def _decided(con: Any, tenant: str, at: int, what: str, facts: str) -> None:
    con.execute(f"INSERT INTO audit VALUES (?, {NEXT.format('audit')}, ?, ?, ?)", (tenant, tenant, at, what, facts))


def _later(
    con: Any, copy: SqliteStore, keys: Mapping[str, str], known: ErasedHere | None
) -> dict[str, list[tuple[str, int]]]:
    """By tenant, who was erased after the backup: in the store that is there, and by `known`."""
    query = "SELECT tenant, user_hash, erased_at FROM erasures ORDER BY tenant, place"
    before, there = set(copy._read(query, ())), con.execute(query).fetchall()
    own = dict(con.execute("SELECT tenant, value FROM secrets WHERE name = 'erasure'").fetchall())
    tenants = dict.fromkeys(entry[0] for entry in there)
    lists = [(t, own.get(t), [(hashed, at) for of, hashed, at in there if of == t]) for t in tenants]
    if known is not None:
        lists.append((known.tenant, known.key, [(hashed, at) for hashed, at in known.erased]))
    found: dict[str, list[tuple[str, int]]] = {}
    for tenant, key, erased in lists:
        more = [entry for entry in erased if (tenant, *entry) not in before]
        if more and keys.get(tenant) != key:
            raise CallError(
                f"{len(more)} users were erased here whom the backup does not know, and it is of another store, so "
                "that nobody can tell who they are in it"
            )
        found[tenant] = list(dict.fromkeys([*found.get(tenant, []), *more]))
    return {tenant: sorted(erased, key=lambda entry: entry[1]) for tenant, erased in found.items() if erased}


def _erase(con: Any, tenant: str, key: str, erased: list[tuple[str, int]]) -> None:
    """Erases users whose hashes are listed from what was restored, and lists them."""
    until: dict[str, int] = {}
    for hashed, at in erased:
        until[hashed] = max(at, until.get(hashed, at))
        con.execute(f"INSERT INTO erasures VALUES (?, {NEXT.format('erasures')}, ?, ?)", (tenant, tenant, hashed, at))
    for table, bound in (("events", " AND received_at <= ?"), ("answers", " AND time <= ?"), ("histories", "")):
        query = f"SELECT DISTINCT user_id FROM {table} WHERE tenant = ? AND user_id IS NOT NULL"
        for (user_id,) in con.execute(query, (tenant,)).fetchall():
            if (last := until.get(user_hash(key, user_id))) is not None:
                values = (tenant, user_id, last) if bound else (tenant, user_id)
                con.execute(f"DELETE FROM {table} WHERE tenant = ? AND user_id = ?{bound}", values)


def _at_least(con: Any, table: str, tenant: str, last: int) -> None:
    query = f"INSERT INTO {table} VALUES (?, ?) ON CONFLICT (tenant) DO UPDATE SET last = excluded.last"
    found = con.execute(f"SELECT last FROM {table} WHERE tenant = ?", (tenant,)).fetchone()
    con.execute(query, (tenant, max(last, found[0] if found else 0)))
