"""What is particular to the store on SQLite."""

import sqlite3
from contextlib import closing

import pytest

from recops.errors import CallError
from recops.store import open_store

ROWS = [("u2", ["b"], None), ("u1", ["a", "b", "a"], [1, 2, 3])]


@pytest.fixture
def path(tmp_path):
    return tmp_path / "state" / "store.sqlite"


@pytest.fixture
def store(path):
    with closing(open_store(f"sqlite:///{path}")) as store:
        yield store


def test_it_writes_ahead(store, path):
    with closing(sqlite3.connect(path)) as con:
        assert con.execute("PRAGMA journal_mode").fetchone() == ("wal",)


def test_what_is_no_store(tmp_path):
    (tmp_path / "file").write_text("no database, but long enough to be looked at as one " * 10)
    with pytest.raises(CallError, match="not usable as a store"):
        open_store(f"sqlite:///{tmp_path}/file")
    wrong = ("mysql://localhost/x", "sqlite:///", "store.sqlite", "postgresql://", "postgresql:shop:secret@db/x")
    for url in (*wrong, "my:secret://x"):
        with pytest.raises(CallError, match="expected sqlite:///PATH or postgresql://") as caught:
            open_store(url)
        assert "secret" not in str(caught.value)


def test_an_erased_user_is_in_no_file_any_more(store, path):
    event = {"user_id": "someone@example.org", "item_id": "a", "timestamp": 1, "received_at": 1, "event": "click"}
    store.put_events([{**event, "event_id": f"e{n}"} for n in range(50)])
    store.put_histories("r", [("someone@example.org", ["a"], None)])
    assert any(b"someone@example" in file.read_bytes() for file in path.parent.iterdir())
    store.erase_user("someone@example.org", 2)
    assert not [file for file in path.parent.iterdir() if b"someone@example" in file.read_bytes()]


def test_the_error_that_ended_a_transaction_is_the_one_told(store):
    """A full disk makes SQLite roll back by itself; a second ROLLBACK then would hide why."""
    store._connection().execute("PRAGMA max_page_count = 40")
    with pytest.raises(sqlite3.OperationalError, match="full"):
        store.put_histories("r", ((f"u{n}", ["item"] * 100, None) for n in range(2000)))
    assert store.num_histories("r") is None
    assert store.put_histories("r", ROWS) == 2


def test_nothing_is_written_into_a_file_that_was_taken_away(store, path):
    """It would be acknowledged, and gone once the last process has closed it."""
    event = {"event_id": "e1", "user_id": "u", "item_id": "a", "timestamp": 1, "event": "click"}
    kept = path.with_name("kept")
    path.rename(kept)
    with pytest.raises(sqlite3.OperationalError, match="taken away or replaced"):
        store.put_events([event])
    kept.rename(path)
    assert store.put_events([event]) == [True]
    path.rename(kept)
    path.write_bytes(kept.read_bytes())  # another one in its place
    with pytest.raises(sqlite3.OperationalError, match="taken away or replaced"):
        store.put_events([event])


def test_a_folder_that_cannot_be_made_is_no_traceback(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(CallError, match="not usable as a store"):
        open_store(f"sqlite:///{tmp_path}/file/store.sqlite")
