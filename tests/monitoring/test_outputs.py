"""What a release answers: told feature by feature, one who asks often counted for less."""

from typing import Any

import numpy as np
import pytest

from recops.monitoring import outputs
from recops.monitoring.drift import compare
from recops.monitoring.log import EventLog
from recops.monitoring.outputs import Catalogue, by_users, catalogue_of, output_pairs, output_profiles, sampled
from recops.params import DriftParams

IDS = [f"i{n:02d}" for n in range(40)]
TENTHS = {item_id: np.eye(10)[n // 4] for n, item_id in enumerate(IDS)}
CATALOGUE = Catalogue({item_id: ["books" if n % 2 else "toys"] for n, item_id in enumerate(IDS)}, TENTHS, len(IDS))
EVENTS = {"hours": 24.0, "num_events": 900, "since": None, "until": None, "features": {}}
REFERENCE = {"windows": [{"hours": 24.0, "num_events": 900, "features": {}}]}


def answer(num: int, items: list[str], scores: list[float] | None = None, **other: Any) -> dict[str, Any]:
    scores = scores or [1.0 - 0.01 * rank for rank in range(len(items))]
    listed = [{"item_id": i, "rank": n, "score": s} for n, (i, s) in enumerate(zip(items, scores, strict=True), 1)]
    return {
        "request_id": f"q{num}",
        "user_id": f"u{num}",
        "items": listed,
        "release": "one",
        "source": "model",
        **other,
    }


def answers(seed: int, num: int = 600, ids: list[str] | None = None, **other: Any) -> list[dict[str, Any]]:
    chance = np.random.default_rng(seed)
    chosen = [chance.choice(ids or IDS, 10, replace=False).tolist() for _ in range(num)]
    return [answer(n, items, sorted(chance.random(10), reverse=True), **other) for n, items in enumerate(chosen)]


def drifted(before: list[dict[str, Any]], window: list[dict[str, Any]]) -> set[str]:
    pairs = output_pairs(before, window, CATALOGUE, 500)
    return set(compare(REFERENCE, EVENTS, DriftParams(), pairs).features)


def test_answers_like_those_before_are_quiet_and_each_change_is_named():
    before = answers(0)
    assert drifted(before, answers(1)) == set()
    assert drifted(before, answers(1, source="fallback")) >= {"fallback_share"}
    assert "answer_category" in drifted(before, answers(1, ids=IDS[1::2]))
    assert {"answer_popularity", "answer_coverage"} <= drifted(before, answers(1, ids=IDS[:12]))
    assert "answer_popularity" in drifted(before, answers(1, ids=[*IDS[:10], *(f"x{n}" for n in range(10))]))
    lower = [{**one, "items": [{**i, "score": i["score"] / 2} for i in one["items"]]} for one in answers(1)]
    assert drifted(before, lower) == {"answer_score"}


def test_a_small_log_by_hand():
    some = [
        answer(0, ["i00", "i01", "i04"], [0.5, 0.9, 0.1]),
        answer(1, ["i00"], source="cold-start"),
        answer(2, ["unknown"], user_id=None, source="fallback"),
        answer(3, [], source="model"),
    ]
    found = output_profiles(some, CATALOGUE)
    assert (found["fallback_share"]["count"], found["fallback_share"]["n"]) == (2, 4)
    assert found["answer_score"]["edges"] == [0.9]  # the best, wherever rules put it
    assert found["answer_popularity"]["counts"] == {"01": 3, "02": 1, "new": 1}
    assert found["answer_category"]["counts"] == {"toys": 3, "(none)": 1, "books": 1}
    assert "answer_coverage" not in found  # of fewer than 100 answers


def test_who_asks_often_counts_for_less():
    robot = [answer(n, ["i00"], user_id="robot") for n in range(50)]
    people = [answer(n, ["i00"]) for n in range(50)]
    unnamed = [answer(n, ["i00"], user_id=None) for n in range(50)]
    assert by_users(people, [1.0] * 50) == by_users(unnamed, [1.0] * 50) == {"dependence": 1.0}
    assert by_users([*robot, *people], [1.0] * 100)["dependence"] == pytest.approx((50**2 + 50) / 100)
    before, window = ([*answers(s, 420), *answers(s + 2, 180, source="fallback")] for s in (0, 1))
    more = [{**one, "source": "fallback"} for one in window[:100]]
    loud = [{**one, "user_id": "robot"} for one in more]
    assert "fallback_share" in drifted(before, [*more, *window[100:]])
    assert "fallback_share" not in drifted(before, [*loud, *window[100:]])


def test_too_few_answers_and_those_of_others_judge_nothing():
    pairs = output_pairs(answers(0), answers(1, num=10), CATALOGUE, 500)
    assert set(pairs) == set(outputs.FEATURES)
    assert pairs["answer_score"] == "600 answers of the release before and 10 in the window, 500 are asked for"
    assert sampled(answers(0, release="two"), "one") == []


def test_a_sample_of_many_is_even(monkeypatch):
    monkeypatch.setattr(outputs, "MAX_ANSWERS", 200)
    kept = sampled((answer(n, ["i00"]) for n in range(2000)), "one")
    places = [int(one["request_id"][1:]) for one in kept]
    assert len(set(places)) == 200
    assert 800 < np.mean(places) < 1200


def test_popularity_is_as_of_the_watermark():
    log = EventLog(
        time=np.array([1, 2, 3, 4]),
        user=np.zeros(4, np.int32),
        item=np.array([0, 0, 1, 2], np.int32),
        kind=np.zeros(4, np.int32),
        value=np.full(4, np.nan, np.float32),
        in_history=np.ones(4, bool),
        user_ids=["u"],
        item_ids=["a", "b", "c"],
        kinds=["click"],
        num_untimed=0,
    )
    found = catalogue_of({"item_id": ["a", "b", "c"], "categories": [["x"], None, []]}, log, 4)
    assert set(found.popularity) == {"a", "b"}
    assert found.popularity["a"].sum() == pytest.approx(1)
    assert (dict(found.categories), found.num_items) == ({"a": ["x"]}, 3)
