"""Whether a file names a user, by what kind of file it is; ids that could be anything count only where users stand."""

import json
import sqlite3
from contextlib import closing
from pathlib import Path

import polars as pl
import pytest

from recops.data.naming import Name, named_in
from recops.errors import CallError

ANNA, SEVEN = Name("anna-1"), Name("383")


def test_parquet_by_its_columns(tmp_path: Path) -> None:
    path = tmp_path / "5f3a"  # as in DVC's cache, where names say nothing
    pl.DataFrame(
        {"user_id": ["anna-1", "383", "anna-12"], "item_id": ["383", "anna-1", "x"], "users": [["anna-1"], [], ["383"]]}
    ).write_parquet(path)
    assert named_in(path, ANNA) == 2 and named_in(path, SEVEN) == 2
    pl.DataFrame({"raw": ["1,anna-1,2", None], "n": [383, 1]}).write_parquet(path)
    assert named_in(path, ANNA) == 1 and named_in(path, SEVEN) == 0


def test_sqlite_by_its_columns_and_its_freed_pages(tmp_path: Path) -> None:
    path = tmp_path / "db"
    with closing(sqlite3.connect(path)) as con, con:
        con.execute("CREATE TABLE t (user_id TEXT, body TEXT, n INTEGER)")
        con.executemany("INSERT INTO t VALUES (?, ?, ?)", [("anna-1", "x", 383), ("u", '{"user":"383"}', 1)])
    assert named_in(path, ANNA) == 1 and named_in(path, SEVEN) == 1
    with closing(sqlite3.connect(path)) as con, con:
        con.execute("PRAGMA secure_delete = OFF")
        con.execute("DELETE FROM t")
    assert named_in(path, ANNA) == 1  # the page still holds it
    with closing(sqlite3.connect(path, isolation_level=None)) as con:
        con.execute("VACUUM")
    assert named_in(path, ANNA) == 0


def test_json_by_its_keys(tmp_path: Path) -> None:
    path = tmp_path / "bundle.json"
    path.write_text(
        json.dumps({"users": ["383", "anna-1"], "items": ["383"], "vocab": {"383": 1}, "note": "of anna-1."})
    )
    assert named_in(path, SEVEN) == 1 and named_in(path, ANNA) == 2
    path.write_text(json.dumps({"by_user": {"383": 1, "384": 2}}))
    assert named_in(path, SEVEN) == 1
    path.write_text('{"users": ["383"')  # cut short: by its lines
    assert named_in(path, SEVEN) == 1


@pytest.mark.parametrize(
    ("text", "anna", "seven"),
    [
        ("user anna-1 came, user 383 too\nanna-12 and 3830\n", 1, 1),
        ("383 rows\nanna-1,", 1, 0),
        ("ünanna-1 user_383 xanna-1", 0, 0),
        ("", 0, 0),
    ],
)
def test_text_by_words(tmp_path: Path, text: str, anna: int, seven: int) -> None:
    path = tmp_path / "log"
    path.write_text(text)
    assert (named_in(path, ANNA), named_in(path, SEVEN)) == (anna, seven)


def test_what_only_looks_like_a_table_is_searched_by_its_bytes(tmp_path: Path) -> None:
    for start in (b"PAR1", b"SQLite format 3\0"):
        (tmp_path / "broken").write_bytes(start + b" anna-1 ")
        assert named_in(tmp_path / "broken", ANNA) == 1


def test_an_empty_id_names_nobody() -> None:
    with pytest.raises(CallError, match="empty id"):
        Name("")
