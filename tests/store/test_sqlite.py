"""The SQLite store: what is kept, all or nothing, by many threads and processes."""

import multiprocessing
import os
import sqlite3
import subprocess
import sys
import threading
from contextlib import closing

import pytest

from recops.errors import CallError
from recops.store import open_store
from recops.store.sqlite import MIGRATIONS, micros

ROWS = [("u2", ["b"], None), ("u1", ["a", "b", "a"], [1, 2, 3]), ("ü3", [], None)]


def answer(request_id: str, time: str | int = "2026-01-01T00:00:00Z", **more) -> dict:
    items = [{"item_id": "a", "rank": 1, "score": 0.5}]
    facts = {"user_id": "u1", "items": items, "release": "r", "variant": "main", "source": "model"}
    return {"request_id": request_id, "time": time, **facts, **more}


@pytest.fixture
def url(tmp_path) -> str:
    return f"sqlite:///{tmp_path}/state/store.sqlite"


@pytest.fixture
def store(url):
    store = open_store(url)
    yield store
    store.close()


def test_histories_are_kept_by_release(store):
    assert store.num_histories("r1") is None
    assert store.put_histories("r1", iter(ROWS)) == 3
    assert store.put_histories("r2", [("u1", ["z"], None)]) == 1
    assert store.history("r1", "u1") == ["a", "b", "a"]
    assert store.history("r1", "ü3") == []
    assert store.history("r1", "nobody") is None
    assert store.history("r3", "u1") is None
    assert list(store.history_rows("r1")) == [("u1", ["a", "b", "a"]), ("u2", ["b"]), ("ü3", [])]
    store.drop_release("r1")
    assert store.num_histories("r1") is None
    assert store.history("r2", "u1") == ["z"]


def test_putting_histories_replaces_the_former_ones(store):
    store.put_histories("r", ROWS)
    assert store.put_histories("r", ROWS) == 3
    assert store.put_histories("r", ROWS[:1]) == store.num_histories("r") == 1
    assert list(store.history_rows("r")) == [("u2", ["b"])]
    assert store.put_histories("r", []) == 0
    assert store.num_histories("r") == 0


@pytest.mark.parametrize("last", [("u2", ["c"], None), ("u9", ["a"], [1, 2]), (None, ["a"], None), "interrupt"])
def test_histories_are_all_or_nothing(store, last):
    store.put_histories("r", ROWS)

    def rows():
        yield from [("u1", ["x"], None), ("u2", ["x"], None)]
        if last == "interrupt":
            raise KeyboardInterrupt
        yield last

    with pytest.raises(KeyboardInterrupt if last == "interrupt" else CallError):
        store.put_histories("r", rows())
    assert store.history("r", "u1") == ["a", "b", "a"]
    assert store.num_histories("r") == 3
    store.put_report("works", "still")


def test_answers_are_logged_once(store):
    store.log_answers([answer("q1"), answer("q2", user_id=None)])
    store.log_answers([answer("q1", release="other")])
    store.log_answers([])
    assert store.answer("q1") == answer("q1", "2026-01-01T00:00:00.000000+00:00")
    assert store.answer("q2")["user_id"] is None
    assert store.answer("q3") is None


def test_answers_in_a_window_of_time(store):
    second = 1_000_000
    store.log_answers([answer(f"q{t}", t * second) for t in (3, 1, 2)])
    assert [a["request_id"] for a in store.answers()] == ["q1", "q2", "q3"]
    assert [a["request_id"] for a in store.answers(since=2 * second)] == ["q2", "q3"]
    assert [a["request_id"] for a in store.answers("1970-01-01T01:00:01+01:00", "1970-01-01T00:00:03Z")] == ["q1", "q2"]
    assert list(store.answers(until=0)) == []


def test_writing_while_reading(store):
    store.log_answers([answer(f"q{i}", i) for i in range(10)])
    for number, read in enumerate(store.answers()):
        store.log_answers([answer(f"more{number}", 100)])
        assert read["request_id"] == f"q{number}"
    assert len(list(store.answers())) == 20


def test_a_wrong_answer_is_named(store):
    wrong = answer("q1")
    del wrong["source"]
    with pytest.raises(CallError, match=r"'q1'.*source"):
        store.log_answers([answer("q0"), wrong])
    assert store.answer("q0") is None


@pytest.mark.parametrize("time", ["yesterday", "2026-01-01T00:00:00"])
def test_times_need_a_form_and_a_zone(time):
    with pytest.raises(CallError, match=time):
        micros(time)


def test_the_latest_report_of_each_kind(store):
    assert store.report("drift") is None
    store.put_report("drift", {"verdict": "none"})
    store.put_report("drift", {"verdict": "drift", "psi": [0.25]})
    store.put_report("validation", None)
    assert store.report("drift") == {"verdict": "drift", "psi": [0.25]}


def test_everything_is_there_after_opening_anew(store, url):
    store.put_histories("r", ROWS)
    store.log_answers([answer("q1")])
    with closing(open_store(url)) as again:
        assert again.history("r", "u1") == ["a", "b", "a"]
        assert again.answer("q1") == store.answer("q1")


def test_tenants_see_nothing_of_each_other(store, url):
    with closing(open_store(url, tenant="other")) as other:
        store.put_histories("r", ROWS)
        store.log_answers([answer("q1")])
        store.put_report("drift", 1)
        assert (
            other.history("r", "u1") is other.num_histories("r") is other.answer("q1") is other.report("drift") is None
        )
        assert [*other.history_rows("r"), *other.answers()] == []
        other.put_histories("r", [])
        other.drop_release("r")
    assert store.num_histories("r") == 3


def test_every_table_has_a_tenant(store, url):
    with closing(sqlite3.connect(url.removeprefix("sqlite:///"))) as con:
        tables = [name for (name,) in con.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
        for table in set(tables) - {"schema_version"}:
            assert "tenant" in [column for _, column, *_ in con.execute(f"PRAGMA table_info({table})")], table
        assert con.execute("PRAGMA journal_mode").fetchone() == ("wal",)


def test_a_newer_schema_is_refused(store, url):
    with closing(sqlite3.connect(url.removeprefix("sqlite:///"))) as con, con:
        con.execute(f"INSERT INTO schema_version VALUES ({len(MIGRATIONS) + 1})")
    with pytest.raises(CallError, match="newer than this recops"):
        open_store(url)


def test_an_older_schema_is_brought_up_step_by_step(url, monkeypatch):
    with closing(open_store(url)) as store:
        store.put_report("drift", 1)
    more = ("CREATE TABLE a (tenant TEXT);", "ALTER TABLE a ADD COLUMN b TEXT;")
    monkeypatch.setattr("recops.store.sqlite.MIGRATIONS", (*MIGRATIONS, *more))
    for _ in range(2):
        with closing(open_store(url)) as store:
            assert store.report("drift") == 1
    with closing(sqlite3.connect(url.removeprefix("sqlite:///"))) as con:
        versions = [version for (version,) in con.execute("SELECT version FROM schema_version")]
        assert versions == list(range(1, len(MIGRATIONS) + 3))


def test_a_failing_step_leaves_the_schema_as_it_was(url, monkeypatch):
    open_store(url).close()
    with monkeypatch.context() as broken:
        broken.setattr(
            "recops.store.sqlite.MIGRATIONS", (*MIGRATIONS, "CREATE TABLE a (b TEXT); CREATE TABLE a (b TEXT);")
        )
        with pytest.raises(CallError, match="already exists"):
            open_store(url)
    monkeypatch.setattr("recops.store.sqlite.MIGRATIONS", (*MIGRATIONS, "CREATE TABLE a (b TEXT);"))
    open_store(url).close()


def test_what_is_no_store(tmp_path):
    (tmp_path / "file").write_text("no database, but long enough to be looked at as one " * 10)
    with pytest.raises(CallError, match="not usable as a store"):
        open_store(f"sqlite:///{tmp_path}/file")
    for url in ("postgresql://localhost/x", "sqlite:///", "store.sqlite"):
        with pytest.raises(CallError, match="only sqlite"):
            open_store(url)


def test_many_threads(store):
    store.put_histories("r", ROWS)

    def work(thread: int) -> None:
        for i in range(20):
            store.log_answers([answer(f"{thread}-{i}")])
            assert store.history("r", "u1") == ["a", "b", "a"]

    threads = [threading.Thread(target=work, args=(i,)) for i in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(list(store.answers())) == 120


def _log(url: str, process: int, ready) -> None:
    ready.wait()
    with closing(open_store(url)) as store:
        for i in range(20):
            store.log_answers([answer(f"{process}-{i}")])
        store.put_histories(f"r{process}", ((f"u{i}", ["a"], None) for i in range(200)))


def test_many_processes_open_and_write_at_once(url):
    context = multiprocessing.get_context("fork")
    ready = context.Barrier(4)
    processes = [context.Process(target=_log, args=(url, i, ready)) for i in range(4)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    assert [process.exitcode for process in processes] == [0] * 4
    with closing(open_store(url)) as store:
        assert len(list(store.answers())) == 80
        assert [store.num_histories(f"r{i}") for i in range(4)] == [200] * 4


def test_a_forked_process_uses_a_connection_of_its_own(store):
    store.log_answers([answer("before")])
    child = os.fork()
    if child == 0:
        try:
            store.log_answers([answer("in the child")])
        finally:
            os._exit(0)
    os.waitpid(child, 0)
    assert store.answer("in the child") is not None


def test_the_store_loads_no_heavy_library(url):
    code = (
        "import sys; from recops.store import open_store; open_store(sys.argv[1]).close();"
        "print(sorted({'pandas', 'polars', 'torch', 'pyarrow'} & set(sys.modules)))"
    )
    run = subprocess.run([sys.executable, "-c", code, url], capture_output=True, text=True, check=True)
    assert run.stdout == "[]\n"


def test_the_error_that_ended_a_transaction_is_the_one_told(store):
    """A full disk makes SQLite roll back by itself; a second ROLLBACK then would hide why."""
    store._connection().execute("PRAGMA max_page_count = 40")
    with pytest.raises(sqlite3.OperationalError, match="full"):
        store.put_histories("r", ((f"u{n}", ["item"] * 100, None) for n in range(2000)))
    assert store.num_histories("r") is None
    assert store.put_histories("r", ROWS) == 3


def test_items_are_changed_by_column_and_come_by_change(store, url):
    assert (store.last_change(), store.items_since(0), store.put_items([])) == (0, (0, []), 0)
    assert store.put_items([{"item_id": "b", "title": "B", "price": 2.5}, {"item_id": "a"}]) == 1
    assert store.put_items(iter([{"item_id": "b", "price": None, "categories": ["x"]}])) == store.last_change() == 2
    changed = {"item_id": "b", "title": "B", "price": None, "categories": ["x"]}
    assert store.items_since(0) == (2, [{"item_id": "a"}, changed])
    assert store.items_since(1) == (2, [changed]) and store.items_since(2) == (2, [])
    other = open_store(url, tenant="other")
    assert (other.last_change(), other.items_since(0)) == (0, (0, []))
    other.close()


def test_a_call_with_a_wrong_item_changes_nothing(store):
    store.put_items([{"item_id": "a", "title": "A"}])
    for wrong in ({"title": "no id"}, {"item_id": ""}, {"item_id": 3}):
        with pytest.raises(CallError, match="has no item_id"):
            store.put_items([{"item_id": "a", "title": "changed"}, wrong])
    assert store.items_since(0) == (1, [{"item_id": "a", "title": "A"}])


def test_vectors_are_kept_by_encoder_and_content(store):
    store.put_item_vectors("e1", {b"k1": b"v1", b"k2": b"v2"})
    store.put_item_vectors("e1", {b"k1": b"other"})  # the same content has the same vector
    store.put_item_vectors("e2", {})
    assert store.item_vectors("e1", [b"k1", b"k3"]) == {b"k1": b"v1"}
    assert store.item_vectors("e2", [b"k1"]) == {}
