"""A store on either database: what is kept, all or nothing, by many threads and processes."""

import hashlib
import json
import multiprocessing
import os
import subprocess
import sys
import threading
import time
from contextlib import closing

import pytest

from recops.errors import CallError
from recops.store import Known, open_store, refused_in
from recops.store.migrations import MIGRATIONS
from recops.store.values import micros
from recops.user_hash import user_hash

ROWS = [("u2", ["b"], None), ("u1", ["a", "b", "a"], [1, 2, 3]), ("ü3", [], None)]


def answer(request_id: str, time: str | int = "2026-01-01T00:00:00Z", **more) -> dict:
    items = [{"item_id": "a", "rank": 1, "score": 0.5}]
    facts = {"user_id": "u1", "items": items, "release": "r", "variant": "main", "source": "model"}
    return {"request_id": request_id, "time": time, **facts, **more}


def test_histories_are_kept_by_release(store):
    assert store.num_histories("r1") is None
    assert store.put_histories("r1", iter(ROWS)) == 3
    assert store.put_histories("r2", [("u1", ["z"], None)]) == 1
    assert store.history("r1", "u1") == ["a", "b", "a"]
    assert store.history("r1", "ü3") == []
    assert store.history("r1", "nobody") is None
    assert store.history("r3", "u1") is None
    assert list(store.users_with_history("r1")) == ["u1", "u2", "ü3"]
    store.drop_release("r1")
    assert store.num_histories("r1") is None
    assert store.history("r2", "u1") == ["z"]


def test_putting_histories_replaces_the_former_ones(store):
    store.put_histories("r", ROWS)
    assert store.put_histories("r", ROWS) == 3
    assert store.put_histories("r", ROWS[:1]) == store.num_histories("r") == 1
    assert list(store.users_with_history("r")) == ["u2"]
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
        assert [*other.users_with_history("r"), *other.answers()] == []
        other.put_histories("r", [])
        other.drop_release("r")
    assert store.num_histories("r") == 3


def test_every_table_has_a_tenant(store, url, sql):
    if url.startswith("sqlite"):
        tables = [name for (name,) in sql(url, "SELECT name FROM sqlite_master WHERE type = 'table'")]
        columns = {table: [c for _, c, *_ in sql(url, f"PRAGMA table_info({table})")] for table in tables}
    else:
        query = "SELECT table_name, column_name FROM information_schema.columns WHERE table_schema = 'public'"
        columns = {}
        for table, column in sql(url, query):
            columns.setdefault(table, []).append(column)
    assert len(columns) > 10
    for table in set(columns) - {"schema_version"}:
        assert "tenant" in columns[table], table


def test_a_newer_schema_is_refused_and_stays(store, url, sql):
    store.put_report("drift", 1)
    sql(url, f"INSERT INTO schema_version VALUES ({len(MIGRATIONS) + 1})")
    with pytest.raises(CallError, match="newer than this recops"):
        open_store(url)
    assert sql(url, "SELECT body FROM reports") == [("1",)]


def test_an_older_schema_is_brought_up_step_by_step(url, sql, monkeypatch):
    """From each version there was: what stood in it is there afterwards."""
    with monkeypatch.context() as old:
        old.setattr("recops.store.sql.MIGRATIONS", MIGRATIONS[:1])
        open_store(url).close()
    sql(url, "INSERT INTO reports VALUES ('main', 'drift', '1')")
    sql(url, "INSERT INTO history_sets VALUES ('main', 'r', 7)")
    for _ in range(2):
        with closing(open_store(url)) as store:
            assert store.report("drift") == 1
            assert store.num_histories("r") == 7
            assert store.events_of("u1", 10) == []
    versions = [version for (version,) in sql(url, "SELECT version FROM schema_version ORDER BY version")]
    assert versions == list(range(1, len(MIGRATIONS) + 1))


def test_a_failing_step_leaves_the_schema_as_it_was(url, monkeypatch):
    open_store(url).close()
    with monkeypatch.context() as broken:
        broken.setattr(
            "recops.store.sql.MIGRATIONS", (*MIGRATIONS, "CREATE TABLE a (b TEXT); CREATE TABLE a (b TEXT);")
        )
        with pytest.raises(CallError, match="already exists"):
            open_store(url)
    monkeypatch.setattr("recops.store.sql.MIGRATIONS", (*MIGRATIONS, "CREATE TABLE a (b TEXT);"))
    open_store(url).close()


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


def event(event_id: str, user_id: str = "u1", timestamp: int = 1000, **more) -> dict:
    facts = {"user_id": user_id, "item_id": "a", "timestamp": timestamp, "received_at": 2000, "event": "click"}
    return {"event_id": event_id, **facts, **more}


def test_each_event_is_kept_once(store, url):
    assert store.put_events([]) == [] and store.last_place() == 0
    assert store.put_events([event("e1"), event("e2", value=2.5, rank=3, context={"page": "ä"}), event("e1")]) == [
        True,
        True,
        False,
    ]
    assert store.put_events([event("e2", item_id="other"), event("e3", is_made=True)]) == [False, True]
    found = list(store.events())
    assert [e["event_id"] for e in found] == ["e1", "e2", "e3"]
    assert [e["place"] for e in found] == [1, 2, 5] and store.last_place() == 5
    assert found[1] == {
        **dict.fromkeys(("request_id", "session_id")),
        **event("e2", value=2.5, rank=3, context={"page": "ä"}, place=2, is_made=False),
    }
    assert [e["is_made"] for e in found] == [False, False, True]
    assert [e["event_id"] for e in store.events(after=1, until=2)] == ["e2"]
    with closing(open_store(url, tenant="other")) as other:
        assert other.put_events([event("e1")]) == [True] and other.last_place() == 1
    assert len(list(store.events())) == 3


def test_many_events_in_one_call(store):
    """More than one statement holds, with a repetition that falls into the next one."""
    events = [event(f"e{n % 1100}", timestamp=n) for n in range(1200)]
    assert store.put_events(events) == [True] * 1100 + [False] * 100
    assert [e["place"] for e in store.events()] == list(range(1, 1101))


def test_events_of_a_user_come_page_by_page_newest_first(store):
    times = {"e1": 30, "e2": 10, "e3": 20, "e4": 20}
    store.put_events([event(name, timestamp=at) for name, at in times.items()] + [event("x", "u2")])
    assert [e["event_id"] for e in store.events_of("u1", 10)] == ["e1", "e4", "e3", "e2"]
    assert [e["event_id"] for e in store.events_of("u1", 2)] == ["e1", "e4"]
    assert [e["event_id"] for e in store.events_of("u1", 2, "e4")] == ["e3", "e2"]
    assert [e["event_id"] for e in store.events_of("u1", 2, 20)] == ["e2"]
    assert store.events_of("u3", 10) == []
    with pytest.raises(CallError, match="no event 'x'"):
        store.events_of("u1", 2, "x")


def test_what_a_call_needs_of_a_user(store):
    assert store.known("r1", "u1") is None
    store.put_events([event("e1", timestamp=5), event("e2", event="dislike", value=1.5, timestamp=3)])
    store.put_histories("r1", [("u1", ["a", "b"], [1, 2])], events_until=1)
    store.put_histories("r1/refused", [("u1", ["z"], None), ("u2", ["y"], None)])
    live = [("a", "dislike", 1.5, 3)]
    assert store.known("r1", "u1") == Known(["a", "b"], [1, 2], ["z"], live)
    assert store.known("r1", "u2") == Known([], None, ["y"], [])
    many = [*(f"nobody {n}" for n in range(600)), "u2", "u1"]
    assert store.known_of("r1", many) == [*[None] * 600, store.known("r1", "u2"), store.known("r1", "u1")]
    assert store.known_of("r1", []) == []
    # Of a release that holds none of the events, and of one that has no histories at all, every event counts.
    store.put_histories("r2", [("u1", ["a"], None)])
    assert store.known("r2", "u1") == Known(["a"], None, [], [("a", "click", None, 5), *live])
    assert store.known("r3", "u1") == Known([], None, [], [("a", "click", None, 5), *live])
    store.put_histories("r1", [("u1", ["a", "b"], [1, 2])], events_until=2)
    assert store.known("r1", "u1") == Known(["a", "b"], None, ["z"], [])
    assert store.known("r1", "u1", with_times=True) == Known(["a", "b"], [1, 2], ["z"], [])


def test_an_erased_user_is_gone_and_listed(store):
    for user in ("u1", "u2"):
        store.put_events([event(f"{user}-1", user), event(f"{user}-2", user)])
        store.log_answers([answer(f"q-{user}", user_id=user)])
    store.put_histories("r1", [("u1", ["a"], None), ("u2", ["a", "b"], None)])
    assert store.held_of("u1") == {"events": 2, "answers": 1, "histories": {"r1": 1}}
    assert store.erase_user("u1", 5077, "me") == {"events": 2, "answers": 1, "histories": 1}
    assert store.held_of("u1") == {"events": 0, "answers": 0, "histories": {}}
    assert store.held_of("u2") == {"events": 2, "answers": 1, "histories": {"r1": 2}}
    assert store.known("r1", "u1") is None
    (erased,) = store.erasures()
    assert erased == (1, user_hash(store.erasure_key(), "u1"), 5077)
    assert store.erase_user("nobody", 5078) == {"events": 0, "answers": 0, "histories": 0}
    assert [e.place for e in store.erasures()] == [1, 2] and store.erasures(1)[0].erased_at == 5078
    decisions = store.decisions()
    assert [d["what"] for d in decisions] == ["erased", "erased"]
    assert decisions[0]["facts"] == {
        "user_hash": erased.user_hash,
        "deleted": {"events": 2, "answers": 1, "histories": 1},
        "by": "me",
    }
    assert "u1" not in json.dumps(decisions)
    assert store.put_events([event("u1-1", "u1")]) == [True]  # a user who comes back is a new one
    assert len(list(store.events(after=5))) == 1


def test_an_erasure_takes_all_before_it_and_nothing_after_it_whatever_clocks_say(store):
    """Another machine's clock, 1 h ahead, said when the event was received; this one's says when it is erased, and
    later when the user is back."""
    ahead = time.time_ns() // 1000 + 3_600_000_000
    store.put_events([event("e1", received_at=ahead)])
    store.erase_user("u1", ahead - 3_600_000_000)
    assert store.erasures()[0].erased_at >= ahead
    store.erase_user("u2", 5)
    assert store.erasures()[1].erased_at >= store.erasures()[0].erased_at
    store.put_events([event("e2", received_at=None)])
    (back,) = store.events()
    assert back["received_at"] > store.erasures()[1].erased_at


def test_what_users_refused_goes_with_the_release(store):
    for name in ("r1", refused_in("r1"), "r2"):
        store.put_histories(name, ROWS)
    store.drop_release("r1")
    assert [store.num_histories(name) for name in ("r1", refused_in("r1"), "r2")] == [None, None, 3]


def test_the_key_of_erasures_is_made_once(store, url):
    assert len(store.erasure_key()) == 64
    with closing(open_store(url)) as again, closing(open_store(url, tenant="other")) as other:
        assert again.erasure_key() == store.erasure_key() != other.erasure_key()
    # Worked by hand: SHA-256 of "k" and the hex SHA-256 of "kü".
    inner = hashlib.sha256("kü".encode()).hexdigest()
    assert user_hash("k", "ü") == hashlib.sha256(f"k{inner}".encode()).hexdigest()


def test_decisions_are_appended(store):
    assert store.decisions() == []
    store.log_decision("promoted", {"release": "r1"}, "2026-01-01T00:00:00Z")
    store.log_decision("rolled back", {"release": "r0"})
    first, second = store.decisions()
    assert first == {
        "place": 1,
        "time": "2026-01-01T00:00:00.000000+00:00",
        "what": "promoted",
        "facts": {"release": "r1"},
    }
    assert second["place"] == 2 and second["time"] > first["time"] and store.decisions(1) == [second]
    store.log_decision("promoted", {"release": "r1"}, "2026-01-01T00:00:00Z", once=True)
    store.log_decision("promoted", {"release": "r2"}, "2026-01-01T00:00:00Z", once=True)
    assert [entry["facts"]["release"] for entry in store.decisions()] == ["r1", "r0", "r2"]


def test_answers_of_a_user_and_of_a_release(store):
    assert store.answers_of("u1", 2) == [] and store.answers_by("r") == (0, 0)
    store.log_answers([answer(f"q{n}", n) for n in range(3)])
    store.log_answers([answer("q2~x", 9, variant="shadow:x"), answer("q4", 4, user_id=None, variant=None)])
    assert [found["request_id"] for found in store.answers_of("u1", 2)] == ["q2", "q1"]
    assert store.answers_by("r") == (4, 1) and store.answers_by("other") == (0, 0)


def _tell(url: str, process: int, ready) -> None:
    ready.wait()
    with closing(open_store(url)) as store:
        for i in range(30):
            store.put_events([event(f"{process}-{i}"), event(f"shared-{i}", user_id="shared")])


def test_who_has_seen_an_event_has_seen_all_before_it(url):
    """Four writers and one that follows them by place: it misses nothing, and nothing is there twice."""
    context = multiprocessing.get_context("fork")
    ready = context.Barrier(5)
    processes = [context.Process(target=_tell, args=(url, i, ready)) for i in range(4)]
    for process in processes:
        process.start()
    with closing(open_store(url)) as store:
        ready.wait()
        seen: list[dict] = []
        while any(process.is_alive() for process in processes):
            seen += store.events(after=seen[-1]["place"] if seen else 0)
        for process in processes:
            process.join()
        seen += store.events(after=seen[-1]["place"] if seen else 0)
        assert [process.exitcode for process in processes] == [0] * 4
        assert seen == list(store.events())
        assert len({e["event_id"] for e in seen}) == len(seen) == 150


def test_what_nobody_was_shown_is_read_only_where_it_is_asked_for(store) -> None:
    items = [{"item_id": "a", "rank": 1, "score": 1.0, "propensity": 1.0}]
    facts = {"user_id": "u1", "items": items, "release": "r", "source": "model", "time": 10}
    store.log_answers(
        [
            {**facts, "request_id": "q2~b", "variant": "shadow:b"},
            {**facts, "request_id": "q1~b", "variant": "shadow:b"},
            {**facts, "request_id": "q2", "variant": None},
            {**facts, "request_id": "q1", "variant": "default"},
            {**facts, "request_id": "q3~b", "variant": "shadow:b", "time": 11},
        ]
    )
    event = {"user_id": "u1", "item_id": "a", "timestamp": 12, "event": "click"}
    rest = dict.fromkeys(("value", "rank", "session_id", "context"))
    store.put_events([{**event, **rest, "event_id": "e1", "request_id": "q1"}])
    assert [a["request_id"] for a in store.answers()] == ["q1", "q2"]
    assert [a["request_id"] for a, _ in store.answers_with_events(0, 99, 99)] == ["q1", "q2"]
    found = {one.request_id: [e.item_id for e in one.events] for one in store.followed(0, 99, store.last_place())}
    assert found == {"q1": ["a"], "q2": [], "q1~b": ["a"], "q2~b": [], "q3~b": []}
    is_shadow = {one.request_id: one.shown_json is not None for one in store.followed(0, 99, store.last_place())}
    assert is_shadow == {"q1": False, "q2": False, "q1~b": True, "q2~b": True, "q3~b": False}


def test_a_report_is_changed_by_one_at_a_time_and_the_change_is_told(store) -> None:
    assert store.change_report("t", lambda before: {"was": before}, "set", {"by": "x"}) == {"was": None}
    assert store.change_report("t", lambda before: before, "set", {"by": "y"}) == {"was": None}

    def refuse(before):
        raise CallError("no")

    with pytest.raises(CallError, match="no"):
        store.change_report("t", refuse, "set", {})
    assert store.report("t") == {"was": None}
    assert [(d["what"], d["facts"]) for d in store.decisions()] == [("set", {"by": "x"})]
