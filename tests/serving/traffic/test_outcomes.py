"""What came of what was shown, worked by hand."""

import json
import math
from contextlib import closing

import pytest

from recops.serving.live import Kinds
from recops.serving.traffic.outcomes import METRICS, Outcome, compared, ndcg
from recops.store import Followed, LiveEvent, open_store

KINDS = Kinds.of({})


def items_of(items: str) -> list[dict]:
    return [{"item_id": item, "rank": rank, "score": 1.0} for rank, item in enumerate(items, start=1)]


def answer(user_id: str | None, items: str = "abc", *events: LiveEvent, source: str = "model", **more) -> Followed:
    shown = json.dumps(items_of(items))
    return Followed("q", 0, user_id, shown, "r", "default", source, events=events, **more)


def told(item_id: str, event: str = "click") -> LiveEvent:
    return LiveEvent(item_id, event, None, 0)


def test_each_user_counts_once():
    """u1: a hit of two answers; u2: no hit of one. Mean .25, variance .125."""
    found = Outcome()
    found.add(answer("u1", "abc", told("a"), told("a"), told("z")), KINDS)
    found.add(answer("u1", "abc", told("b", "impression"), source="fallback"), KINDS)
    found.add(answer("u2", ""), KINDS)
    assert (found.users, found.answers, found.events) == (2, 3, 4)
    hits = found.moments("hit_rate")
    assert (hits.num, hits.mean, hits.variance) == (2, 0.25, pytest.approx(0.125))
    assert found.moments("conversion_rate").mean == 0
    assert found.moments("ndcg").mean == 0.25
    assert found.moments("fallback_share").mean == 0.25 and found.moments("empty_share").mean == 0.5


def test_what_follows_later_changes_the_answer_that_it_names():
    """A hit at rank 3, which rank 1 joins and then a purchase: the same as if all had been there at once."""
    later, at_once = Outcome(), Outcome()
    first, second, third = told("c"), told("a"), told("a", "purchase")
    later.add(answer("u1", "abc", first), KINDS)
    later.add(answer("u1", "abc", first, second, before=[first], is_new=False), KINDS)
    later.add(answer("u1", "abc", first, second, third, before=[first, second], is_new=False), KINDS)
    at_once.add(answer("u1", "abc", first, second, third), KINDS)
    for found in (later, at_once):
        assert (found.users, found.answers, found.events) == (1, 1, 3)
        assert found.moments("hit_rate").mean == found.moments("conversion_rate").mean == 1
        assert found.moments("ndcg").mean == pytest.approx(1.5 / (1 + 1 / math.log2(3)))


def test_calls_that_name_nobody_are_in_no_figure():
    """Challengers answer only users, so that what nobody is answered says nothing about them."""
    found = Outcome()
    for n in range(3):
        found.add(answer(None, "abc", *[told("c", "purchase")] * (n == 0)), KINDS)
    assert (found.users, found.answers, found.anonymous, found.events) == (0, 3, 3, 1)
    assert found.moments("conversion_rate").num == 0


def test_a_shadow_is_held_against_what_was_shown():
    """Of two shadow answers one shares 2 of 3 items with what was shown, the other none; one has lost its like."""
    found, shown = Outcome(), json.dumps(items_of("abc"))
    for user, items, shown_json in (("u1", "bcd", shown), ("u2", "xyz", shown), ("u3", "abc", None)):
        found.add(answer(user, items, told("b"), shown_json=shown_json), KINDS)
    assert Outcome().overlap is None and found.overlap == pytest.approx((2 / 3 + 0) / 2)
    assert found.moments("hit_rate").mean == pytest.approx(2 / 3)


def test_who_was_erased_is_forgotten():
    found = Outcome()
    for user in ("u1", "u2"):
        found.add(answer(user, "abc", told("a")), KINDS)
    found.forget(lambda user_id: user_id == "u1")
    assert (found.users, found.answers, found.events) == (1, 1, 1)


def test_ndcg_of_what_followed():
    assert ndcg([]) == 0 and ndcg([1]) == 1 and ndcg([2, 1]) == 1
    assert ndcg([2, 3]) == pytest.approx((1 / math.log2(3) + 0.5) / (1 + 1 / math.log2(3)))


def test_variants_are_compared_by_every_metric():
    sides = [Outcome(), Outcome()]
    for n in range(2000):
        sides[0].add(answer(f"u{n}", "abc", *[told("a")] * (n % 10 == 0)), KINDS)
        sides[1].add(answer(f"v{n}", "abc", *[told("a")] * (n % 5 == 0)), KINDS)
    found = compared(*sides)
    assert set(found) == set(METRICS)
    assert found["hit_rate"].value == pytest.approx(0.1) and found["hit_rate"].low > 0
    assert found["empty_share"].value == 0 and -0.01 < found["empty_share"].low < 0 < found["empty_share"].high < 0.01
    assert found["hit_rate"].low > compared(*sides, num=3)["hit_rate"].low  # three at once are surer, and wider


def test_answers_and_the_events_that_name_them(tmp_path):
    """Of a store: by request id, within the window, late ones as soon as they are there."""
    facts = {"user_id": "u1", "items": items_of("abc"), "source": "model", "release": "r", "time": 1000}
    event = {"user_id": "u1", "event": "click", "received_at": 1}
    with closing(open_store(f"sqlite:///{tmp_path}/store.sqlite")) as store:
        store.log_answers([{**facts, "request_id": q, "variant": v} for q, v in (("q1", "default"), ("q2", "b"))])
        store.log_answers([{**facts, "request_id": "later", "variant": "default", "time": 9000}])
        told = [("e1", "q1", "a", 1500), ("e2", "q1", "b", 2001), ("e3", None, "a", 1500), ("e4", "else", "a", 1500)]
        for event_id, request_id, item_id, at in told:
            store.put_events(
                [{**event, "event_id": event_id, "request_id": request_id, "item_id": item_id, "timestamp": at}]
            )

        def found(window_us: int) -> list[int]:
            return [len(events) for _, events in store.answers_with_events(0, 9000, window_us)]

        assert found(1000) == [1, 0] and found(1001) == [2, 0]
        store.put_events([{**event, "event_id": "e5", "request_id": "q2", "item_id": "c", "timestamp": 1999}])
        assert found(1000) == [1, 1]
