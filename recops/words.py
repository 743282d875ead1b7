"""The words of the items: a full-text table in SQLite (FTS5) that ranks by BM25.

In: title, text and categories of each item. Out: a file whose bytes are the same for the same items, and `Words`, which
searches it. Robertson, Zaragoza: "The Probabilistic Relevance Framework: BM25 and Beyond" (2009). Words are stemmed
(Porter) and lose their accents. Knows nothing about questions or users.
"""

import re
import sqlite3
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np

# Title, text, categories joined by a line end; None for what an item has not.
Row = tuple[str | None, str | None, Sequence[str] | None]
MOST_FOUND = 1000  # items a search tells
MOST_TERMS = 32  # of one search
MAX_CHARACTERS = 100_000  # of one text that is indexed
WEIGHTS = (2.0, 1.0, 1.0)  # of a word in title, text, categories
_TABLE = (
    "CREATE VIRTUAL TABLE words USING fts5(title, text, categories, tokenize = 'porter unicode61 remove_diacritics 2')"
)
_WORD = re.compile(r"\w+")


def write_words(path: Path, rows: Iterable[Row]) -> None:
    """Writes the table of items to the new file `path`; the first has the rowid 1."""
    connection = sqlite3.connect(path, isolation_level=None)
    try:
        connection.execute("PRAGMA page_size = 4096")
        connection.execute("PRAGMA journal_mode = OFF")
        _fill(connection, enumerate(rows, start=1))
        connection.execute("INSERT INTO words (words) VALUES ('optimize')")
        connection.execute("VACUUM")  # pages in one order, nothing left of what was there before
    finally:
        connection.close()


def _fill(connection: sqlite3.Connection, rows: Iterable[tuple[int, Row]]) -> None:
    connection.execute(_TABLE)
    connection.execute("BEGIN")
    connection.executemany("INSERT INTO words (rowid, title, text, categories) VALUES (?, ?, ?, ?)", _values(rows))
    connection.execute("COMMIT")


def _values(rows: Iterable[tuple[int, Row]]) -> Iterable[tuple[int, str, str, str]]:
    for rowid, (title, text, categories) in rows:
        yield rowid, _clean(title), _clean(text), _clean("\n".join(categories or ()))


def _clean(text: str | None) -> str:
    # A lone surrogate, which JSON may bring, has no UTF-8; NUL ends a text in SQLite.
    return (text or "")[:MAX_CHARACTERS].encode("utf-8", "replace").decode().replace("\x00", " ")


class Words:
    """Searches the table in `path`, or one in memory. One thread at a time; nothing is written to the file."""

    def __init__(self, path: Path | None = None) -> None:
        if path is None:
            self._connection = sqlite3.connect(":memory:", isolation_level=None, check_same_thread=False)
            self._connection.execute(_TABLE)
        else:
            # Immutable: no locks and no look at the file's state; a release never changes.
            self._connection = sqlite3.connect(
                f"{path.resolve().as_uri()}?mode=ro&immutable=1", uri=True, check_same_thread=False
            )
            self._connection.execute("PRAGMA query_only = 1")

    def put(self, row: int, item: Row) -> None:
        """Adds an item, or replaces it (in memory only)."""
        self._connection.execute("DELETE FROM words WHERE rowid = ?", (row,))
        self._connection.executemany(
            "INSERT INTO words (rowid, title, text, categories) VALUES (?, ?, ?, ?)", _values([(row, item)])
        )

    def search(self, terms: Sequence[str], k: int = MOST_FOUND) -> tuple[np.ndarray, np.ndarray]:
        """The items that have most of any of `terms`: rows int64 [K] and their BM25 float32 [K], best first (K <= k).
        Empty without terms, and where no item has any."""
        if not terms:
            return np.zeros(0, np.int64), np.zeros(0, np.float32)
        found = self._connection.execute(
            "SELECT rowid, -bm25(words, ?, ?, ?) AS score FROM words WHERE words MATCH ? ORDER BY score DESC, rowid "
            "LIMIT ?",
            (*WEIGHTS, " OR ".join(map(_quoted, terms[:MOST_TERMS])), k),
        ).fetchall()
        return np.array([row for row, _ in found], np.int64), np.array([score for _, score in found], np.float32)

    def having(self, phrase: str) -> np.ndarray:
        """int64 rows of all items in whose title, text or categories these words stand one after the other."""
        if not (terms := _WORD.findall(phrase)):
            return np.zeros(0, np.int64)
        asked = _quoted(" ".join(terms[:MOST_TERMS]))
        return np.array(
            [row for (row,) in self._connection.execute("SELECT rowid FROM words WHERE words MATCH ?", (asked,))],
            np.int64,
        )

    def which_have(self, term: str, rows: Sequence[int]) -> set[int]:
        """Those of some rows in which a word stands."""
        if not _WORD.search(term) or not rows:
            return set()
        places = ", ".join("?" * len(rows))
        found = self._connection.execute(
            f"SELECT rowid FROM words WHERE words MATCH ? AND rowid IN ({places})", (_quoted(term), *map(int, rows))
        )
        return {row for (row,) in found}

    def text(self, row: int) -> str:
        """The text of an item; empty where it has none."""
        found = self._connection.execute("SELECT text FROM words WHERE rowid = ?", (int(row),)).fetchone()
        return found[0] if found else ""

    def __len__(self) -> int:
        return self._connection.execute("SELECT count(*) FROM words").fetchone()[0]

    def close(self) -> None:
        self._connection.close()


def _quoted(words: str) -> str:
    return '"' + words.replace('"', " ").replace("\x00", " ") + '"'
