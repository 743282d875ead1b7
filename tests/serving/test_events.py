"""POST /events, GET and DELETE /users: what was told counts at once, is there once, and goes when it is to go."""

import time
from datetime import UTC, datetime, timedelta

import httpx
import pytest

from recops.data.ingest import CONTENT
from recops.serving.endpoints import recommend as endpoint
from recops.serving.endpoints.events import made_id
from recops.serving.requests import TellEvent

NOW = datetime.now(UTC)


def event(item_id: str, user_id: str = "new", minutes_ago: float = 1, event: str = "click", **more) -> dict:
    at = (NOW - timedelta(minutes=minutes_ago)).isoformat()
    return {"user_id": user_id, "item_id": item_id, "event": event, "timestamp": at, **more}


def test_the_next_list_knows_what_was_told(serve):
    """`b` leads to c (1) and d (.125), `a` to b (.5) and c (.25)."""
    served = serve()
    assert served.post("/recommend", user_id="new")["source"] == "fallback"
    told = served.post("/events", events=[event("b")])
    assert (told["stored"], told["duplicates"], told["rejected"]) == (1, 0, [])
    after = served.post("/recommend", user_id="new")
    assert after["source"] == "model" and [i["item_id"] for i in after["items"]][:2] == ["c", "d"]
    assert "b" not in [i["item_id"] for i in after["items"]]
    # With the stored history (u1 has seen a) and that of the call.
    assert served.ids(user_id="u1")[:2] == ["b", "c"]
    served.post("/events", events=[event("b", "u1")])
    scores = {i["item_id"]: i["score"] for i in served.post("/recommend", user_id="u1")["items"]}
    assert scores["c"] == 1.25 and scores["d"] == 0.125 and not {"a", "b"} & set(scores)
    assert "c" not in served.ids(user_id="u1", history=["c"])


def test_a_dislike_takes_an_item_away_at_once(serve):
    served = serve()
    served.post("/events", events=[event("b"), event("c", event="dislike"), event("e", event="impression")])
    ids = served.ids(user_id="new")
    assert ids[0] == "d" and not {"b", "c"} & set(ids)
    assert "e" in ids  # was seen, which is neither for nor against it


def test_each_event_is_there_once(serve):
    served = serve()
    two = [event("a", event_id="e1"), event("b")]
    assert served.post("/events", events=[*two, two[1]]) | {"request_id": ""} == {
        "stored": 2,
        "duplicates": 1,
        "rejected": [],
        "request_id": "",
    }
    again = served.post("/events", events=[*two, event("c", event_id="e1")])
    assert (again["stored"], again["duplicates"]) == (0, 3)
    assert [e["item_id"] for e in served.client.get("/users/new").json()["events"]] == ["b", "a"]


def test_what_cannot_be_is_refused_with_a_reason_and_the_rest_is_kept(serve):
    served = serve()
    answer = served.post(
        "/events",
        events=[
            event("a", minutes_ago=-60),
            event("b"),
            event("c", event="wink"),
            event("d", minutes_ago=-2),  # clocks differ
            event("e", minutes_ago=60 * 24 * 365),
        ],
    )
    assert answer["stored"] == 3
    assert [r["index"] for r in answer["rejected"]] == [0, 2]
    assert "in the future; the clocks may differ by 300 s" in answer["rejected"][0]["reason"]
    assert "'wink' is of no known kind: cart, click," in answer["rejected"][1]["reason"]
    assert [e["item_id"] for e in served.client.get("/users/new").json()["events"]] == ["d", "b", "e"]


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"user_id": None}, "events[1].user_id"),
        ({"item_id": " a"}, "events[1].item_id"),
        ({"timestamp": "2026-01-01"}, "events[1].timestamp"),
        ({"timestamp": None}, "events[1].timestamp"),
        ({"value": "3"}, "events[1].value"),
        ({"value": 3.5e38}, "events[1].value"),
        ({"rank": 0}, "events[1].rank"),
        ({"event_id": ""}, "events[1].event_id"),
        ({"context": {"a": {"b": 1}}}, "events[1].context.a"),
        ({"more": 1}, "events[1].more"),
    ],
)
def test_a_wrong_field_is_named_and_nothing_is_stored(served, change, field):
    answer = served.client.post("/events", json={"events": [event("a", "wrong"), {**event("b", "wrong"), **change}]})
    assert answer.status_code == 400 and answer.json()["field"].startswith(field), answer.text
    assert served.client.get("/users/wrong").json()["events"] == []


def test_a_call_holds_at_least_one_event(served):
    for body in ({}, {"events": []}):
        assert served.client.post("/events", json=body).json()["field"] == "events"


def test_a_service_without_a_store_says_so(serve):
    served = serve()
    served.state.events = served.state.store = None
    for method, path, body in (
        ("POST", "/events", {"events": [event("a")]}),
        ("GET", "/users/u1", None),
        ("DELETE", "/users/u1", None),
    ):
        answer = served.client.request(method, path, json=body)
        assert answer.status_code == 503 and "RECOPS_STORE" in answer.json()["message"]


def test_an_event_that_is_not_on_disk_is_not_acknowledged(serve, monkeypatch):
    served = serve()

    def broken(events):
        raise OSError("disk full")

    monkeypatch.setattr(served.state.store, "put_events", broken)
    answer = served.client.post("/events", json={"events": [event("a")]})
    assert answer.status_code == 503 and "nothing was stored" in answer.json()["message"]
    monkeypatch.undo()
    assert served.post("/events", events=[event("a")])["stored"] == 1


def test_a_slow_disk_ends_in_504_and_a_full_queue_in_429(serve, monkeypatch):
    served = serve(settings={"timeout_s": 0.2})
    put = served.state.store.put_events

    def slow(events):
        time.sleep(0.5)
        return put(events)

    monkeypatch.setattr(served.state.store, "put_events", slow)
    assert served.client.post("/events", json={"events": [event("a", event_id="slow")]}).status_code == 504
    monkeypatch.undo()
    while not list(served.state.store.events()):  # the work goes on
        time.sleep(0.05)
    again = served.post("/events", events=[event("a", event_id="slow")])
    assert (again["stored"], again["duplicates"]) == (0, 1)
    served.state.events.max_waiting = 0
    full = served.client.post("/events", json={"events": [event("a")]})
    assert full.status_code == 429 and full.headers["retry-after"] == "1"


def test_calls_at_once_share_transactions_and_lose_nothing(serve):
    served = serve()
    calls = [("POST", "/events", {"json": {"events": [event("a", f"u{n}", event_id=f"e{n % 30}")]}}) for n in range(60)]
    answers = [answer.json() for answer in served.client.at_once(calls)]
    assert sum(a["stored"] for a in answers) == sum(a["duplicates"] for a in answers) == 30
    assert len(list(served.state.store.events())) == 30


def test_what_is_held_about_a_user(serve):
    served = serve()
    served.post("/events", events=[event("b", "u1", 3, event_id="e1", value=2.5, context={"page": "home"}, rank=2)])
    served.post("/events", events=[event(i, "u1", m, event_id=f"e-{i}") for i, m in (("c", 1), ("d", 2))])
    served.post("/recommend", user_id="u1")
    until = time.monotonic() + 5
    while (found := served.client.get("/users/u1").json())["held"]["answers"] == 0 and time.monotonic() < until:
        time.sleep(0.05)
    release = served.state.release.id
    assert found["held"] == {"events": 3, "answers": 1, "histories": {release: 1}, "model": False}
    assert [e["event_id"] for e in found["events"]] == ["e-c", "e-d", "e1"]
    assert found["next"] is None
    last = found["events"][-1]
    assert last["value"] == 2.5 and last["context"] == {"page": "home"} and last["rank"] == 2
    assert last["timestamp"] == (NOW - timedelta(minutes=3)).isoformat(timespec="microseconds")
    page = served.client.get("/users/u1?limit=2").json()
    assert page["next"] == "e-d"
    assert [e["event_id"] for e in served.client.get("/users/u1?limit=2&before=e-d").json()["events"]] == ["e1"]
    # Ids of events that read as a time are ids, so that no page is skipped.
    served.post("/events", events=[event("b", "n", m, event_id=f"{m + 1}") for m in range(3)])
    first = served.client.get("/users/n?limit=2").json()
    assert [e["event_id"] for e in first["events"]] == ["1", "2"] and first["next"] == "2"
    assert [e["event_id"] for e in served.client.get("/users/n?limit=2&before=2").json()["events"]] == ["3"]
    at = httpx.QueryParams({"before": (NOW - timedelta(minutes=2)).isoformat()})
    assert [e["event_id"] for e in served.client.get(f"/users/u1?{at}").json()["events"]] == ["e1"]
    assert served.client.get("/users/nobody").json()["held"]["events"] == 0


@pytest.mark.parametrize(
    ("query", "field"),
    [
        ("limit=0", "limit"),
        ("limit=1001", "limit"),
        ("limit=x", "limit"),
        ("limit=1&limit=2", "limit"),
        ("before=nothing", "before"),
        ("more=1", "more"),
        ("user_id=u2", "user_id"),
        ("limit", None),
        ("before=%00", "before"),
        ("before=%ff", None),
    ],
)
def test_wrong_parameters_are_named(served, query, field):
    answer = served.client.get(f"/users/u1?{query}")
    assert (answer.status_code, answer.json()["field"]) == (400, field), answer.text


def test_ids_may_hold_anything(serve):
    served = serve()
    for user in ("a/b", "ü ☃", "50%", "?x#y", "..", "A" * 512):
        served.post("/events", events=[event("b", user)])
        path = "/users/" + "".join(f"%{byte:02x}" for byte in user.encode())
        assert served.client.get(path).json()["user_id"] == user
        assert served.client.request("DELETE", path).json()["erased"]["events"] == 1
        assert served.client.get(path).json()["events"] == []
    assert served.client.get("/users/" + "A" * 513).json()["field"] == "user_id"
    assert served.client.get("/users/").status_code == 400


def test_an_erased_user_is_unknown_from_then_on(serve):
    served = serve()
    served.post("/events", events=[event("b", "u1")])
    served.post("/recommend", user_id="u1")  # its answer may be on its way into the log
    erased = served.client.request("DELETE", "/users/u1").json()["erased"]
    assert erased["events"] == 1 and erased["histories"] == 1
    assert served.post("/recommend", user_id="u1")["source"] == "fallback"
    time.sleep(0.5)
    held = served.client.get("/users/u1").json()
    assert held["held"] == {"events": 0, "answers": 1, "histories": {}, "model": False}  # of the call after
    served.post("/events", events=[event("a", "u1")])  # who comes back is somebody new
    assert served.ids(user_id="u1")[:2] == ["b", "c"]


def test_a_user_of_the_models_table_is_hidden_once_erased(serve):
    import numpy as np

    table = np.array([[0, 0], [1, 0]], np.float32)
    vectors = np.array([[0, 0], [1, 0], [0, 1], [1, 1], [2, 0], [0, 0], [-1, 0]], np.float32)
    arrays = {"user_vectors.npy": table, "item_vectors.npy": vectors}
    served = serve(arrays=arrays, scoring={"needs_history": True, "num_users": 1})
    served.state.release.bundle.user_row_of["t1"] = 1
    assert served.post("/recommend", user_id="t1")["source"] == "model"
    assert served.client.get("/users/t1").json()["held"]["model"] is True
    served.client.request("DELETE", "/users/t1")
    assert served.post("/recommend", user_id="t1")["source"] == "fallback"
    assert served.client.get("/users/t1").json()["held"]["model"] is False
    served.state.release.bundle.manifest["erasures"] = {"honoured": 1}  # of a release trained without
    assert served.post("/recommend", user_id="t1")["source"] == "model"


def test_made_ids_are_those_of_ingest():
    duckdb = pytest.importorskip("duckdb")
    for value in (None, 0.0, 4.0, 4.5, 0.1, -3.25, 123456.0, 1e-4, 1e-5, 1e7, 123456789.0, -1e15, 1e16, 3e38):
        told = TellEvent.model_construct(
            user_id="ü1", item_id="a|b", event="rating", timestamp=1_600_000_000_123_456, value=value
        )
        query = (
            f"SELECT left(md5({CONTENT}), 24) FROM (SELECT 'ü1' AS user_id, 'a|b' AS item_id, "
            "make_timestamptz(1600000000123456) AS timestamp, 'rating' AS event, ?::FLOAT AS value)"
        )
        assert duckdb.execute(query, [value]).fetchone() == (made_id(told),)


def test_an_answer_that_is_made_while_its_user_is_erased_is_not_kept(serve, monkeypatch):
    """It was made of what is gone. Who comes back after that is a new user, and is logged as one."""
    served = serve()
    store, made = served.state.store, endpoint.recommend

    def erased_meanwhile(*rest):
        monkeypatch.setattr(endpoint, "recommend", made)
        store.erase_user("u1", time.time_ns() // 1000)
        return made(*rest)

    monkeypatch.setattr(endpoint, "recommend", erased_meanwhile)
    in_flight = served.post("/recommend", user_id="u1")
    back = served.post("/recommend", user_id="u1")
    served.state.answers.close()
    assert store.answer(in_flight["request_id"]) is None
    assert store.answer(back["request_id"])["user_id"] == "u1"
