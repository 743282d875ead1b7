"""Whether a file names a user: Parquet, SQLite and JSON by their fields, everything else by its bytes.

In: a path and an id. Out: how often it is named. An id that could be anything, such as 383, counts only where a user
would stand: in a column or under a key whose name has `user` in it, or in a line that has.
"""

import json
import re
import sqlite3
import tempfile
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import duckdb

from recops.data.sql import name, text
from recops.errors import CallError

LONGEST_JSON = 256_000_000  # bytes that are read as JSON; longer ones as lines


class Name:
    """An id and how it is looked for."""

    def __init__(self, user_id: str) -> None:
        if not user_id:
            raise CallError("user: an empty id names nobody")
        self.user_id = user_id
        self.is_distinct = len(user_id) >= 4 and not user_id.isdigit()
        word = re.escape(user_id.encode())
        # As a word of its own; a byte of 128 and more is part of a letter.
        self.pattern = re.compile(rb"(?<![0-9A-Za-z_\x80-\xff])" + word + rb"(?![0-9A-Za-z_\x80-\xff])")

    def counts(self, where: str) -> bool:
        """Whether it would be this user in a column or under a key of that name."""
        return self.is_distinct or "user" in where.lower()

    def in_text(self, value: bytes) -> int:
        if self.is_distinct:
            return len(self.pattern.findall(value))
        return sum(b"user" in line.lower() and self.pattern.search(line) is not None for line in value.splitlines())


def named_in(path: Path, user: Name) -> int:
    """How often a file names the user; 0 where it does not. Raises OSError where it cannot be read."""
    with path.open("rb") as file:
        start = file.read(16)
    try:
        if start.startswith(b"PAR1"):
            return _in_parquet(path, user)
        if start.startswith(b"SQLite format 3"):
            return _in_sqlite(path, user)
        if start[:1] in (b"{", b"[") and path.stat().st_size <= LONGEST_JSON:
            return sum(_in_json(json.loads(path.read_bytes()), "", user))
    except (duckdb.Error, sqlite3.Error, ValueError):
        pass  # not what it looks like: by its bytes then
    return user.in_text(path.read_bytes())


def _in_parquet(path: Path, user: Name) -> int:
    wanted, rows = text(user.user_id), f"read_parquet({text(path)})"
    with duckdb.connect() as con:
        columns = con.execute(f"DESCRIBE FROM {rows}").fetchall()
        tests = []
        for column, kind, *_ in columns:
            if "VARCHAR" not in kind:
                continue
            if kind == "VARCHAR" and user.counts(column):
                tests.append(f"{name(column)} = {wanted}")
            if kind == "VARCHAR" and column in ("raw", "context", "attributes") and user.is_distinct:
                tests.append(f"contains({name(column)}, {wanted})")
            if kind == "VARCHAR[]" and user.counts(column):
                tests.append(f"list_contains({name(column)}, {wanted})")
        if not tests:
            return 0
        found = con.execute(f"SELECT count(*) FROM {rows} WHERE {' OR '.join(tests)}").fetchone()
        return 0 if found is None else int(found[0])


def _in_sqlite(path: Path, user: Name) -> int:
    found = 0
    with closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as con:
        con.text_factory = bytes
        tables = [table.decode() for (table,) in con.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
        for table in tables:
            rows = con.execute(f"SELECT * FROM {name(table)}")
            columns = [description[0] for description in rows.description]
            for row in rows:
                for column, value in zip(columns, row, strict=True):
                    if isinstance(value, bytes):
                        is_id = user.counts(column) and value == user.user_id.encode()
                        found += is_id or (len(value) > len(user.user_id) and user.in_text(value) > 0)
        return found or (_freed(con, path, user.user_id.encode()) if user.is_distinct else 0)


def _freed(con: sqlite3.Connection, path: Path, user_id: bytes) -> int:
    """How much oftener the file holds the bytes than a copy without the pages that were freed."""
    if not (held := path.read_bytes().count(user_id)):
        return 0
    with tempfile.TemporaryDirectory() as folder:
        con.execute("VACUUM INTO ?", (f"{folder}/copy",))
        return max(held - Path(folder, "copy").read_bytes().count(user_id), 0)


def _in_json(value: Any, where: str, user: Name) -> Iterator[bool]:
    if isinstance(value, dict):
        for key, inner in value.items():
            yield user.counts(where) and key == user.user_id
            yield from _in_json(inner, f"{where}.{key}", user)
    elif isinstance(value, list):
        for inner in value:
            yield from _in_json(inner, where, user)
    elif isinstance(value, str):
        if user.counts(where) and value == user.user_id:
            yield True
        elif len(value) > len(user.user_id) and user.is_distinct:
            yield user.in_text(value.encode("utf-8", "surrogatepass")) > 0
