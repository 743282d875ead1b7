"""The gate's rule by hand, and judging models of different catalogues on ids."""

import json
import math
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest

from recops.errors import CallError
from recops.params import GateParams
from recops.release.gate import Decision, Judged, decide, judge_bundle, judge_ratings, judge_scorer
from recops.runtime import RatingScale, Scorer

PARAMS = GateParams(margin=0.01, guard_margin=0.05, guard_segments=["s"], min_users=200, guard_min_users=50)


def judged(values, segment=None) -> Judged:
    values = np.asarray(values, np.float64)
    segment = values if segment is None else np.asarray(segment, np.float64)
    return Judged("ndcg@10", [f"u{i:04d}" for i in range(len(values))], values, {"s": segment})


def test_the_first_release_passes():
    decision = decide(judged([0.1]), None, PARAMS)
    assert decision.verdict == "promote"
    assert decision.reasons == ["nothing is served yet: this is the first release"]


def test_an_equal_or_better_model_passes_and_the_figures_say_how():
    same = decide(judged([0.5] * 200), judged([0.5] * 200), PARAMS)
    assert same.verdict == "promote"
    better = decide(judged([0.6] * 200), judged([0.5] * 200), PARAMS)
    assert better.verdict == "promote"
    figures = better.figures
    assert figures["users"] == 200
    for key, value in {"candidate": 0.6, "champion": 0.5, "difference": 0.1, "low": 0.1, "high": 0.1}.items():
        assert figures[key] == pytest.approx(value)
    assert figures["allowed"] == pytest.approx(-0.005)
    assert "at least the -0.0050 allowed" in better.reasons[0]
    json.dumps(better.to_json(), allow_nan=False)


@pytest.mark.parametrize(("loss", "verdict"), [(0.004, "promote"), (0.006, "keep")])
def test_the_margin_is_a_share_of_the_champions_mean(loss, verdict):
    assert decide(judged([0.5 - loss] * 200), judged([0.5] * 200), PARAMS).verdict == verdict


def test_the_lower_end_of_the_interval_decides_not_the_mean():
    # On average as good, but every user wins or loses half: the mean's standard error is .5 / sqrt(400) = .025.
    decision = decide(judged([1.0, 0.0] * 200), judged([0.5] * 400), PARAMS)
    assert decision.figures["difference"] == 0
    assert decision.figures["low"] == pytest.approx(-1.96 * 0.025, abs=0.01)
    assert decision.verdict == "keep"
    assert "below the -0.0050 allowed" in decision.reasons[0]


@pytest.mark.parametrize(
    ("gain", "in_segment", "verdict", "words"),
    [
        (-0.5, -0.5, "promote", "at most the +0.0050 allowed"),
        (0.004, 0.004, "promote", "at most the +0.0050 allowed"),
        (0.006, 0.006, "keep", "above the +0.0050 allowed"),
        (0.0, 0.03, "keep", "s: difference +0.0300, above the +0.0250 allowed"),
    ],
)
def test_of_an_error_less_is_better(gain, in_segment, verdict, words):
    before = np.full(200, 0.5)
    segment = np.where(np.arange(200) < 60, before, np.nan)
    candidate = replace(judged(before + gain, segment + in_segment), metric="squared error", lower_is_better=True)
    champion = replace(judged(before, segment), metric="squared error", lower_is_better=True)
    decision = decide(candidate, champion, PARAMS)
    assert decision.verdict == verdict and words in " ".join(decision.reasons)


def test_an_error_is_bounded_by_the_upper_end_of_its_interval():
    """Nobody knows whether it is better: every user wins or loses half."""
    candidate = replace(judged([1.0, 0.0] * 200), lower_is_better=True)
    assert decide(candidate, replace(judged([0.5] * 400), lower_is_better=True), PARAMS).verdict == "keep"


def test_ratings_are_judged_by_the_squared_error_of_each_user():
    """ann has rated a twice in training, bob nothing; a is the head. What is not known gets 3 (user) or 2 (item a)."""
    scale = RatingScale(1, 5, np.array([3, 4], np.float32))
    scorer = Scorer(
        num_items=2,
        user_table=np.array([[0], [1]], np.float32),
        item_vectors=np.array([[0], [9], [2]], np.float32),
        fallback=np.array([0, 2, 1], np.float32),
        ratings=scale,
    )
    found = judge_ratings(
        scorer,
        ["a", "b"],
        {"ann": ["a", "b", "new"], "bob": ["a", "new"]},
        {"ann": [4.0, 4.0, 4.0], "bob": [5.0, 3.0]},
        user_table=["ann"],
        item_counts={"a": 5, "b": 1},
        histories={"ann": ["a"] * 6},
    )
    # ann: 9 is clipped to 5, 2 as it is, 4 her mean; bob: 2 of the item, 3 of anybody.
    assert found.user_ids == ["ann", "bob"] and found.lower_is_better
    assert found.values.tolist() == pytest.approx([(1 + 4 + 0) / 3, (9 + 0) / 2])
    assert found.segments["items:head"].tolist() == [1, 9]
    assert found.segments["items:tail"][0] == 4 and np.isnan(found.segments["items:tail"][1])
    assert found.segments["items:new"].tolist() == [0, 0]
    assert np.isnan(found.segments["users:cold"][0]) and found.segments["users:cold"][1] == 4.5


def test_users_are_paired_by_id_and_those_known_to_one_only_are_left_out():
    values = np.linspace(0, 1, 300)
    champion = judged(values)
    order = np.random.default_rng(0).permutation(300)[:250]
    shuffled = Judged("ndcg@10", [champion.user_ids[i] for i in order], values[order], {"s": values[order]})
    figures = decide(shuffled, champion, PARAMS).figures
    assert (figures["low"], figures["high"]) == (0, 0)
    assert (figures["users"], figures["not_judged"]) == (250, 50)


def test_a_user_without_a_value_is_left_out():
    values = np.full(250, 0.5)
    values[:50] = np.nan
    figures = decide(judged(values), judged(np.full(250, 0.5)), PARAMS).figures
    assert (figures["users"], figures["not_judged"], figures["difference"]) == (200, 50, 0)


@pytest.mark.parametrize("num_users", [0, 199])
def test_too_few_users_decide_nothing(num_users):
    decision = decide(judged([0.0] * num_users), judged([1.0] * num_users), PARAMS)
    assert decision.verdict == "undecided"
    assert decision.reasons == [f"{num_users} users judged, gate.min_users is 200: a person may promote"]
    json.dumps(decision.to_json(), allow_nan=False)


def in_segment(value: float, num_users: int) -> list[float]:
    return [value] * num_users + [math.nan] * (400 - num_users)


@pytest.mark.parametrize(
    ("candidate", "num_users", "verdict", "reason"),
    [
        (0.46, 50, "promote", None),
        (0.50, 50, "promote", None),
        (0.44, 50, "keep", "s: difference -0.0400, below the -0.0240 allowed"),
        (0.00, 49, "promote", "s: 49 users, too few to judge (gate.guard_min_users)"),
        (0.00, 0, "promote", "s: 0 users, too few to judge (gate.guard_min_users)"),
    ],
)
def test_a_guard_segment_has_a_margin_of_its_own(candidate, num_users, verdict, reason):
    decision = decide(
        judged([0.6] * 400, in_segment(candidate, num_users)), judged([0.5] * 400, in_segment(0.48, num_users)), PARAMS
    )
    assert decision.verdict == verdict
    assert decision.reasons[1:] == ([reason] if reason else [])
    assert decision.figures["segments"]["s"]["users"] == num_users


def test_an_unknown_guard_segment_is_named():
    with pytest.raises(CallError, match="no segment 'users:odd'; there are s"):
        decide(judged([1.0] * 200), judged([1.0] * 200), PARAMS.model_copy(update={"guard_segments": ["users:odd"]}))


def test_the_decision_is_the_same_each_time():
    rng = np.random.default_rng(1)
    a, b = judged(rng.random(300)), judged(rng.random(300))
    first: Decision = decide(a, b, PARAMS, samples=200, seed=7)
    assert first == decide(a, b, PARAMS, samples=200, seed=7)
    assert first != decide(a, b, PARAMS, samples=200, seed=8)


COUNTS = {"a": 10, "b": 3, "c": 2, "d": 1}
HISTORIES = {"u1": ["a"], "u2": ["b", "a"]}
TARGETS = {"u2": ["c"], "u1": ["b"], "u3": ["a"], "u4": ["zz"]}


def judge(item_ids: str, *scores: float, **more) -> Judged:
    item_scores = np.array([0, *scores], np.float32)
    scorer = Scorer(num_items=len(item_ids), item_scores=item_scores, needs_history=False)
    arguments = {"metric": "ndcg@2", "remove_seen": True, "item_counts": COUNTS, **more}
    return judge_scorer(scorer, list(item_ids), item_scores, HISTORIES, TARGETS, **arguments)


def test_each_user_is_judged_by_id():
    # Lists of two: u1 without a: b, c. u2 without a, b: c, d. u3, u4, of whom nothing is known: a, b.
    found = judge("abcd", 4, 3, 2, 1)
    assert found.user_ids == ["u1", "u2", "u3", "u4"]
    assert found.values.tolist() == [1, 1, 1, 0]
    # Target of u1 second: 1 / log2(3).
    np.testing.assert_allclose(judge("abcd", 4, 2, 3, 1).values, [1 / math.log2(3), 1, 1, 0])


def test_another_catalogue_is_judged_on_the_same_targets():
    # This model does not know c, the target of u2, which is a miss; it knows zz, the target of u4.
    assert judge("abdz", 4, 3, 2, 1).values.tolist() == [1, 0, 1, 0]
    scorer = Scorer(num_items=2, item_scores=np.array([0, 1, 2], np.float32), needs_history=False)
    arguments = {"metric": "ndcg@2", "remove_seen": True, "item_counts": COUNTS}
    found = judge_scorer(scorer, ["a", "zz"], np.zeros(3, np.float32), HISTORIES, TARGETS, **arguments)
    assert found.values.tolist() == [0, 0, 1 / math.log2(3), 1]


def test_segments_hold_for_every_model_alike():
    a, b = judge("abcd", 4, 3, 2, 1), judge("bd", 2, 1)
    # a has 10 of 16 events and is the head; zz was never trained on.
    for segment, users in {
        "items:head": [2],
        "items:tail": [0, 1],
        "items:new": [3],
        "users:cold": [0, 1, 2, 3],
    }.items():
        assert np.flatnonzero(~np.isnan(a.segments[segment])).tolist() == users, segment
        assert np.flatnonzero(~np.isnan(b.segments[segment])).tolist() == users, segment
    assert a.segments["items:tail"][:2].tolist() == [1, 1]


def test_seen_items_stay_where_repeats_are_the_point():
    assert judge("abcd", 4, 3, 2, 1, remove_seen=False).values.tolist() == pytest.approx([1 / math.log2(3), 0, 1, 0])


def test_an_item_first_seen_later_is_no_candidate():
    times = dict.fromkeys(TARGETS, 100)
    # Without b and c, u1 misses and u2 gets d, a being seen; u3 is as before.
    found = judge("abcd", 4, 3, 2, 1, first_seen={"a": 5, "b": 101, "c": 101, "d": 100}, at_time=times)
    assert found.values.tolist() == [0, 0, 1, 0]


def test_the_scorer_is_told_when_each_user_asks():
    asked = []

    class Watched(Scorer):
        def scores(self, histories):
            asked.append(histories.at)
            return super().scores(histories)

    scorer = Watched(num_items=1, item_scores=np.array([0, 1], np.float32), needs_history=False)
    at = {user: n for n, user in enumerate(sorted(TARGETS))}
    arguments = {"metric": "ndcg@1", "remove_seen": True, "item_counts": COUNTS, "asked_at": at}
    judge_scorer(scorer, ["a"], np.ones(2, np.float32), HISTORIES, TARGETS, **arguments)
    assert [some.tolist() for some in asked] == [[0, 1, 2, 3]]


def test_users_without_history_get_the_fallback_of_a_bundle():
    scorer = Scorer(num_items=2, item_scores=np.array([0, 5, 0], np.float32), needs_history=True)
    fallback = np.array([0, 0, 1], np.float32)
    bundle = SimpleNamespace(scorer=scorer, items={"item_id": ["a", "b"]}, fallback=fallback, user_ids=[])
    arguments = {"metric": "ndcg@1", "remove_seen": False, "item_counts": COUNTS}
    found = judge_bundle(bundle, {"u1": ["b"]}, {"u1": ["a"], "u2": ["b"]}, **arguments)
    assert found.values.tolist() == [1, 1]


def test_no_users_are_judged_without_targets():
    scorer = Scorer(num_items=1, item_scores=np.zeros(2, np.float32))
    found = judge_scorer(
        scorer, ["a"], np.zeros(2, np.float32), {}, {}, metric="ndcg@10", remove_seen=True, item_counts={}
    )
    assert len(found.values) == len(found.user_ids) == 0
