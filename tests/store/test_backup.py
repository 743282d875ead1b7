"""A store comes back from its backup, on either database, and nobody who was erased since comes back with it."""

import shutil
import sqlite3
import threading
import time
from contextlib import closing
from pathlib import Path

import pytest

from recops.bundle import sha256_file
from recops.errors import CallError, RefusedError
from recops.store import open_store
from recops.store.backup import ErasedHere, backup, check, restore, tables
from recops.store.migrations import MIGRATIONS
from recops.user_hash import user_hash


def event(name: str, user_id: str) -> dict:
    return {"event_id": name, "user_id": user_id, "item_id": "a", "timestamp": 1, "event": "click", "context": {"x": 1}}


def answer(request_id: str, user_id: str) -> dict:
    row = {"request_id": request_id, "time": 5, "user_id": user_id, "items": [], "release": "r1"}
    return {**row, "variant": "main", "source": "model"}


def told(store) -> None:
    """Something of every table."""
    for user in ("u1", "u2"):
        store.put_events([event(f"e-{user}", user)])
        store.log_answers([answer(f"q-{user}", user)])
    store.put_histories("r1", [("u1", ["a"], [1]), ("u2", ["b"], None)], events_until=1)
    store.put_report("drift", {"verdict": "ok"})
    store.put_items([{"item_id": "new", "title": "ü"}])
    store.put_item_vectors("e", {b"c": b"\x00v"})
    store.erase_user("u0", 7, "me")


def content(store) -> dict[str, list[tuple]]:
    with store.snapshot() as rows:
        return {name: sorted(rows(f"SELECT {', '.join(columns)} FROM {name}")) for name, columns in tables().items()}


@pytest.fixture
def made(store, url, tmp_path) -> Path:
    told(store)
    counts = backup(url, tmp_path / "b.sqlite")
    assert counts == {name: len(rows) for name, rows in content(store).items()} and min(counts.values()) > 0
    return tmp_path / "b.sqlite"


@pytest.fixture(params=["sqlite", "postgres"])
def other(request, tmp_path) -> str:
    """Another store, on each database."""
    return (
        f"sqlite:///{tmp_path}/other.sqlite" if request.param == "sqlite" else request.getfixturevalue("new_database")()
    )


def test_all_comes_back_on_either_database(store, made, other):
    assert made.stat().st_mode & 0o777 == 0o600 and [p.name for p in made.parent.glob(".b*")] == []
    with closing(open_store(other)) as found:
        found.erasure_key()  # a store that was opened and not used is empty
        assert restore(other, made, force=False, by="me")["events"] == 2
        before, after = content(store), content(found)
        assert {name: rows for name, rows in after.items() if before[name] != rows}.keys() == {"audit"}
        last = found.decisions()[-1]
        assert (last["what"], last["facts"]["by"], last["facts"]["sha256"]) == ("restored", "me", check(made))
        assert found.item_vectors("e", [b"c"]) == {b"c": b"\x00v"} and found.erasure_key() == store.erasure_key()
        with pytest.raises(RefusedError, match=r"is not empty \(histories.*--force"):
            restore(other, made, force=False, by="me")


def test_what_was_erased_and_decided_since_stays_so(store, url, made):
    key = store.erasure_key()
    assert store.erase_user("u1", 99, "me")["events"] == 1
    store.log_decision("promoted", {"release": "r2"})
    store.put_events([event("later", "u3")])
    last, change, decisions = store.last_place(), store.last_change(), store.decisions()
    # Somebody whom only the project knows to be erased, after a store was lost.
    known = ErasedHere("main", key, [(user_hash(key, "u2"), time.time_ns() // 1000)], events_until=70)
    counts = restore(url, made, force=True, by="me", known=known)
    assert counts["erased"] == 2
    for user in ("u1", "u2", "u3"):
        assert store.held_of(user) == {"events": 0, "answers": 0, "histories": {}}
    assert [entry.user_hash for entry in store.erasures()] == [user_hash(key, user) for user in ("u0", "u1", "u2")]
    assert store.decisions()[:-1] == decisions
    # No place is given twice: what is sealed goes by places.
    assert last < store.last_place() == 70 and store.last_change() > change
    assert restore(url, made, force=True, by="me")["erased"] == 2 and len(store.erasures()) == 3


def test_erasures_of_another_store_are_not_forgotten(url, made, store, other):
    with closing(open_store(other)) as found:
        found.erase_user("u1", 99, "me")
        with pytest.raises(CallError, match="1 users were erased here whom the backup does not know"):
            restore(other, made, force=True, by="me")
        assert len(found.erasures()) == 1


def test_a_backup_is_of_one_moment_while_events_arrive(store, url, tmp_path):
    stop = threading.Event()

    def arrive() -> None:
        with closing(open_store(url)) as own:
            n = 0
            while not stop.is_set():
                own.put_events([event(f"{n}-{i}", "u") for i in range(5)])
                n += 1

    writer = threading.Thread(target=arrive)
    writer.start()
    try:
        while store.last_place() < 20:
            pass
        counts = backup(url, tmp_path / "b.sqlite")
    finally:
        stop.set()
        writer.join()
    with closing(sqlite3.connect(tmp_path / "b.sqlite")) as con:
        ((last,),) = con.execute("SELECT last FROM last_events").fetchall()
    assert counts["events"] == last >= 20 and last % 5 == 0


def test_what_was_altered_or_is_newer_or_has_no_checksum_is_refused(made, tmp_path):
    url, copy = f"sqlite:///{tmp_path}/other.sqlite", tmp_path / "copy.sqlite"
    with pytest.raises(CallError, match="exists already"):
        backup(url, made)
    with pytest.raises(CallError, match="no such file"):
        restore(url, tmp_path / "none", force=False, by="me")
    shutil.copy(made, copy)
    with pytest.raises(CallError, match=r"copy.sqlite.sha256: missing or empty"):
        restore(url, copy, force=False, by="me")
    shutil.copy(f"{made}.sha256", f"{copy}.sha256")
    with copy.open("r+b") as file:
        file.truncate(5000)
    with pytest.raises(RefusedError, match="altered or cut short"):
        restore(url, copy, force=False, by="me")
    with closing(sqlite3.connect(made)) as con, con:
        con.execute(f"INSERT INTO schema_version VALUES ({len(MIGRATIONS) + 1})")
    Path(f"{made}.sha256").write_text(f"{sha256_file(made)}  b.sqlite\n")
    with pytest.raises(CallError, match="newer than this recops knows"):
        restore(url, made, force=False, by="me")
    with closing(open_store(url)) as found:
        assert found.decisions() == []
