"""Vectors that were made before, by what they were made from: the reason why only new or changed items are encoded.

One SQLite file below the project's state folder, where DVC does not delete it; what was put is on disk when `put`
returns, so that a run that was killed goes on from there.
"""

import sqlite3
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from types import TracebackType
from typing import TypeVar

import numpy as np

T = TypeVar("T")

SCHEMA = (
    "CREATE TABLE IF NOT EXISTS vectors (encoder TEXT, key BLOB, vector BLOB, PRIMARY KEY (encoder, key)) WITHOUT ROWID"
)


class VectorCache:
    """A context. Keys are digests of contents, `encoder` is the digest of the encoder, vectors are float16 [D].

    A file that is no database, or a damaged one, is thrown away: it held nothing that cannot be made again.
    """

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self._path = path
        self._db = sqlite3.connect(path, timeout=30)
        self._or_anew(self._create)

    def _or_anew(self, work: Callable[[], T]) -> T:
        """What `work` gives; where the file turns out to be damaged, what it gives of an empty one. A file that is
        locked, or cannot be written, is not damaged."""
        try:
            return work()
        except sqlite3.DatabaseError as error:
            # Extended codes hold the primary one in their lowest byte.
            if getattr(error, "sqlite_errorcode", 0) & 0xFF not in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB):
                raise
        self._db.close()
        self._path.unlink()
        self._db = sqlite3.connect(self._path, timeout=30)
        self._create()
        return work()

    def _create(self) -> None:
        self._db.execute(SCHEMA)
        self._db.execute("CREATE TEMP TABLE IF NOT EXISTS asked (key BLOB PRIMARY KEY)")
        self._db.execute("CREATE TEMP TABLE IF NOT EXISTS used (encoder TEXT, key BLOB, PRIMARY KEY (encoder, key))")

    def __enter__(self) -> "VectorCache":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self._db.close()

    def get(self, encoder: str, keys: Collection[bytes]) -> dict[bytes, np.ndarray]:
        """The vectors there are for `keys`."""
        return self._or_anew(lambda: self._get(encoder, keys))

    def _get(self, encoder: str, keys: Collection[bytes]) -> dict[bytes, np.ndarray]:
        with self._db:
            self._db.execute("DELETE FROM asked")
            self._db.executemany("INSERT OR IGNORE INTO asked VALUES (?)", [(key,) for key in keys])
            self._db.execute("INSERT OR IGNORE INTO used SELECT ?, key FROM asked", (encoder,))
            chosen = "SELECT key, vector FROM vectors JOIN asked USING (key) WHERE encoder = ?"
            found = self._db.execute(chosen, (encoder,))
            return {key: np.frombuffer(vector, np.float16) for key, vector in found}

    def put(self, encoder: str, vectors: Mapping[bytes, np.ndarray]) -> None:
        rows = [(encoder, key, vector.astype(np.float16).tobytes()) for key, vector in vectors.items()]
        self._or_anew(lambda: self._put(rows))

    def _put(self, rows: list[tuple[str, bytes, bytes]]) -> None:
        with self._db:
            self._db.executemany("INSERT OR REPLACE INTO vectors VALUES (?, ?, ?)", rows)
            # Also where it was not asked for: what is put into a file begun anew is no leftover.
            self._db.executemany("INSERT OR IGNORE INTO used VALUES (?, ?)", [row[:2] for row in rows])

    def drop_unused(self, encoder: str) -> int:
        """Forgets the vectors of `encoder` that were not asked for since this was opened: of items that have changed
        or are gone. Returns how many."""
        return self._or_anew(lambda: self._drop_unused(encoder))

    def _drop_unused(self, encoder: str) -> int:
        with self._db:
            gone = "DELETE FROM vectors WHERE encoder = ? AND key NOT IN (SELECT key FROM used WHERE encoder = ?)"
            return self._db.execute(gone, (encoder, encoder)).rowcount
