"""POST /recommend: whose history, what is shown, in which order. All numbers worked by hand from conftest.py."""

import time

import numpy as np
import pytest

from recops import bundle
from recops.store import refused_in

SCORES = np.array([0, 1, 2, 3, 4, 5, 6], np.float32)


def test_cold_start_scores_the_history_of_the_call(served):
    answer = served.post("/recommend", history=["a", "b"], k=3)
    assert answer["items"] == [
        {"item_id": "c", "rank": 1, "score": 1.25, "title": "C"},
        {"item_id": "d", "rank": 2, "score": 0.125, "title": None},
        {"item_id": "e", "rank": 3, "score": 0.0, "title": "E"},  # e and f tie: the lower row first
    ]
    assert answer["source"] == "cold-start"
    assert answer["variant"] == "default"
    assert answer["release"] == served.state.release.id
    assert len(answer["request_id"]) == 32


def test_known_user_gets_the_stored_history_and_the_calls(served):
    assert served.ids(user_id="u1", k=2) == ["b", "c"]
    answer = served.post("/recommend", user_id="u1", history=["b"], k=1)
    assert (answer["source"], answer["items"][0]["score"]) == ("model", 1.25)


@pytest.mark.parametrize(
    "body", [{"user_id": "nobody"}, {"history": []}, {"history": ["unknown"]}, {"user_id": "u2"}, {"user_id": "u3"}]
)
def test_nothing_usable_gives_the_fallback(served, body):
    answer = served.post("/recommend", **body)
    assert answer["source"] == "fallback"
    assert [i["item_id"] for i in answer["items"]] == ["a", "b", "c", "d", "e", "f"]
    assert answer["items"][0]["score"] == 6.0


def test_fallback_when_only_the_stored_items_are_unknown_still_uses_the_call(served):
    assert served.post("/recommend", user_id="u3", history=["a"])["source"] == "cold-start"


def test_seen_items_are_not_shown_unless_the_release_says_so(serve):
    assert not {"a", "b"} & set(serve().ids(user_id="u1", history=["b"]))
    assert serve(remove_seen=False).ids(user_id="u1", k=2) == ["b", "c"]
    assert "a" in serve(remove_seen=False).ids(user_id="u1")


def test_k_above_the_catalogue_gives_what_there_is(served):
    assert len(served.ids(history=["a"], k=1000)) == 5


def test_model_that_needs_no_history_answers_users_it_knows(serve):
    served = serve(arrays={bundle.SCORES: SCORES}, scoring={"needs_history": False})
    known = served.post("/recommend", user_id="u2", k=1)
    assert (known["source"], known["items"][0]["item_id"]) == ("model", "f")
    assert served.post("/recommend", user_id="nobody", k=1)["source"] == "fallback"


def test_history_with_times_is_put_in_order(serve):
    served = serve(scoring={"link_decay": 1.0})
    older, newer = "2020-01-01T00:00:00Z", 1_600_000_000_000
    events = [{"item_id": "a", "timestamp": newer}, {"item_id": "b", "timestamp": older}]
    # a last: c = .25 + 1 / e, where b last would give 1 + .25 / e.
    score = served.post("/recommend", history=events, k=1)["items"][0]["score"]
    assert score == pytest.approx(0.25 + np.exp(-1), abs=1e-6)
    unordered = [{"item_id": "a", "timestamp": newer}, "b"]
    assert served.post("/recommend", history=unordered, k=1)["items"][0]["score"] > 1


@pytest.mark.parametrize(
    ("request_fields", "expected"),
    [
        ({"exclude": ["a", "b", "unknown"]}, ["c", "d", "e", "f"]),
        ({"filters": {"categories": ["y"]}}, ["b", "c"]),
        ({"filters": {"categories": ["x", "y"]}}, ["a", "b", "c", "f"]),
        ({"filters": {"categories": ["none has this"]}}, []),
        ({"filters": {"price": {"min": 2, "max": 5}}}, ["b", "c", "e"]),
        ({"filters": {"price": {"max": 2.0}}}, ["a", "b"]),
        ({"filters": {"available": True}}, ["a", "c", "e", "f"]),
        ({"filters": {"available": False}}, ["b"]),
        ({"filters": {"published_after": "2020-01-01T00:00:00Z"}}, ["b"]),
        ({"filters": {"published_after": 1577836799999}}, ["a", "b"]),  # a millisecond before 2020
        ({"filters": {"categories": ["x"], "price": {"min": 2}}, "exclude": ["f"]}, ["b"]),
        ({"filters": {}}, ["a", "b", "c", "d", "e", "f"]),
        ({"filters": None, "exclude": None}, ["a", "b", "c", "d", "e", "f"]),
    ],
)
def test_rules(served, request_fields, expected):
    assert served.ids(user_id="nobody", **request_fields) == expected


def test_batch_answers_in_order_and_with_ids_of_their_own(served):
    requests = [{"user_id": "u1", "k": 1}, {"user_id": "nobody", "k": 2}]
    first, second = served.post("/recommend/batch", requests=requests)["responses"]
    assert [first["source"], second["source"]] == ["model", "fallback"]
    assert [len(first["items"]), len(second["items"])] == [1, 2]
    assert first["request_id"] != second["request_id"]


def test_answers_reach_the_store_within_a_second(served):
    answer = served.post("/recommend", user_id="u1", k=1)
    until = time.monotonic() + 1
    while (logged := served.state.store.answer(answer["request_id"])) is None and time.monotonic() < until:
        time.sleep(0.02)
    assert logged is not None
    assert logged["items"] == [{"item_id": "b", "rank": 1, "score": 0.5, "propensity": 1.0}]
    assert (logged["user_id"], logged["release"], logged["source"]) == ("u1", answer["release"], "model")


@pytest.fixture
def vectors(serve):
    """a (1, 0), b (0, 1), c (1, 1), d (2, 0), e none, f (-1, 0); the encoder adds them up."""
    return serve(encoder=True, model="sasrec")


def test_encoder_on_onnx_runtime(vectors):
    # a + b = (1, 1): c scores 2, d 2, e 0, f -1.
    answer = vectors.post("/recommend", user_id="u1", history=["b"])
    assert [(i["item_id"], i["score"]) for i in answer["items"]] == [("c", 2), ("d", 2), ("e", 0), ("f", -1)]
    scores = vectors.post("/score", user_id="u1", history=["b"], item_ids=["d", "unknown", "a"])["scores"]
    assert scores == [
        {"item_id": "d", "score": 2.0},
        {"item_id": "unknown", "score": None},
        {"item_id": "a", "score": 1.0},
    ]


def test_similar_by_vectors(vectors):
    answer = vectors.post("/similar", item_id="a", k=3)
    assert answer["source"] == "vectors"
    found = [(i["item_id"], round(i["score"], 4)) for i in answer["items"]]
    assert found == [("d", 1.0), ("c", 0.7071), ("b", 0.0)]


def test_what_a_user_turned_down_is_not_shown_to_that_user(served):
    store = served.state.store
    store.put_histories(refused_in(served.state.release.id), [("u9", ["a", "gone"], None), ("u1", ["c"], None)])
    assert served.ids(user_id="u9") == ["b", "c", "d", "e", "f"]
    assert served.ids(user_id="u1", k=2) == ["b", "d"]
    assert served.ids(user_id="nobody")[0] == "a"
    store.put_histories(refused_in(served.state.release.id), [])
