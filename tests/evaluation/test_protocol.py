"""Ranking of the whole catalogue, what counts as a candidate, and the figures made of the lists."""

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from recops.errors import CallError
from recops.evaluation import protocol
from recops.evaluation.protocol import evaluate, metric_values, rank_users, ranked_lists
from recops.evaluation.segments import segments
from recops.runtime import Scorer

COUNTS = np.array([0, 5, 4, 3, 2, 1])


def scorer(*scores: float, needs_history: bool = False) -> Scorer:
    return Scorer(len(scores), item_scores=np.array([0.0, *scores], np.float32), needs_history=needs_history)


def rank(model: Scorer, histories: list, targets: list, k: int = 3, remove_seen: bool = True, **more):
    arrays = [np.array(h, np.int64) for h in histories]
    return rank_users(
        model, arrays, [np.array(t) for t in targets], k=k, remove_seen=remove_seen, item_counts=COUNTS, **more
    )


def test_the_whole_catalogue_is_ranked_and_seen_items_are_no_candidates():
    model = scorer(0.1, 0.5, 0.3, 0.9, 0.7)
    assert rank(model, [[4, 2]], [[5]]).top_idx.tolist() == [[5, 3, 1]]
    assert rank(model, [[4, 2]], [[5]], remove_seen=False).top_idx.tolist() == [[4, 5, 2]]


def test_equal_scores_are_ranked_by_row_so_that_a_constant_model_gains_nothing():
    ranked = rank(scorer(1, 1, 1, 1, 1), [[], [1]], [[5], [5]])
    assert ranked.top_idx.tolist() == [[1, 2, 3], [2, 3, 4]]
    assert metric_values(ranked, "ndcg@3").tolist() == [0.0, 0.0]


def test_a_list_shorter_than_k_is_padded():
    ranked = rank(scorer(1, 2, 3, 4, 5), [[1, 2, 3, 4]], [[5]])
    assert ranked.top_idx.tolist() == [[5, 0, 0]]
    assert ranked.top_scores.tolist() == [[5.0, -np.inf, -np.inf]]


def test_an_item_first_seen_later_is_no_candidate_yet():
    model = scorer(1, 2, 3, 4, 5)
    first_seen = np.array([0, 10, 10, 20, 30, 40])
    found = rank(model, [[], []], [[3], [5]], first_seen=first_seen, at_time=np.array([30, 19]))
    assert found.top_idx.tolist() == [[4, 3, 2], [2, 1, 0]]


def test_users_without_history_get_what_is_served_to_them():
    model = scorer(1, 2, 3, 4, 5, needs_history=True)
    assert rank(model, [[], [1]], [[5], [5]]).top_idx.tolist() == [[1, 2, 3], [5, 4, 3]]


def test_batches_change_nothing(monkeypatch: pytest.MonkeyPatch):
    model = scorer(1, 2, 3, 4, 5)
    histories, targets = [[n % 5 + 1] for n in range(7)], [[1]] * 7
    times = {"first_seen": np.array([0, 1, 2, 3, 4, 5]), "at_time": np.arange(7)}
    whole = rank(model, histories, targets, **times)
    monkeypatch.setattr(protocol, "SCORES_AT_ONCE", 13)
    assert rank(model, histories, targets, **times).top_idx.tolist() == whole.top_idx.tolist()


def test_targets_count_once_and_unknown_ones_each():
    ranked = ranked_lists([[1, 2]], [[2, 0, 2, 0]], item_counts=[0, 1, 1])
    assert ranked.num_targets.tolist() == [3]
    assert metric_values(ranked, "recall@2").tolist() == [pytest.approx(1 / 3)]


def test_figures_count_who_is_judged_and_are_json():
    ranked = rank(scorer(1, 2, 3, 4, 5), [[1], [1], [1]], [[5], [0], []])
    evaluation = evaluate(ranked, [1, 3], samples=100, seed=1, not_judged={"left out": 4})
    figures = json.loads(json.dumps(evaluation.figures, allow_nan=False))
    assert figures["users"] == {
        "judged": 2,
        "not_judged": {"left out": 4, "no target": 1},
        "targets": 2,
        "unknown_targets": 1,
    }
    assert figures["metrics"]["hit_rate@1"] == {"value": 0.5, "low": 0.0, "high": 1.0, "users": 2}
    assert figures["metrics"]["coverage@1"] == {"value": 0.2}
    assert figures["metrics"]["diversity@3"] == {"value": None, "low": None, "high": None, "users": 0}
    np.testing.assert_equal(evaluation.per_user["hit_rate@1"], [1.0, 0.0, np.nan])
    assert list(figures["metrics"]) == sorted(figures["metrics"], key=lambda m: (m.split("@")[0], int(m.split("@")[1])))


def test_segments_of_users_and_of_target_items():
    # 15 train events: items 1 and 2 hold 9 of them, so they are the head; 5 is in no training event.
    counts = np.array([0, 5, 4, 3, 3, 0])
    histories = [[1] * 5, [1] * 6, [1] * 50, [1]]
    ranked = ranked_lists(
        [[1, 3, 4]] * 4, [[1, 3], [3], [0, 5], []], item_counts=counts, histories=[np.array(h) for h in histories]
    )
    members = {name: mask.tolist() for name, (mask, _) in segments(ranked).items()}
    assert members == {
        "users:cold": [True, False, False, False],
        "users:warm": [False, True, False, False],
        "users:heavy": [False, False, True, False],
        "items:head": [True, False, False, False],
        "items:tail": [True, True, False, False],
        "items:new": [False, False, True, False],
    }
    evaluation = evaluate(ranked, [3], samples=100, seed=1)
    # On the tail, the first user is judged on item 3 alone, which stands at rank 2.
    np.testing.assert_allclose(evaluation.by_segment["items:tail"]["ndcg@3"], [0.63092975, 0.63092975, np.nan, np.nan])
    assert evaluation.figures["segments"]["items:new"]["metrics"]["recall@3"]["value"] == 0.0
    assert evaluation.figures["segments"]["items:new"]["users"] == 1


def test_nobody_to_judge_gives_undefined_figures():
    figures = evaluate(rank(scorer(1, 2, 3, 4, 5), [], []), [3], samples=100, seed=1).figures
    assert figures["users"]["judged"] == 0
    assert figures["metrics"]["ndcg@3"] == {"value": None, "low": None, "high": None, "users": 0}


def test_an_unknown_metric_is_named():
    with pytest.raises(CallError, match=r"no evaluation\.metrics named 'fame'"):
        metric_values(rank(scorer(1, 2, 3, 4, 5), [[]], [[1]]), "fame@3")


@settings(max_examples=30, deadline=None)
@given(
    scores=st.lists(st.sampled_from([0.0, 1.0, 2.0, 3.0]), min_size=5, max_size=5),
    history=st.lists(st.integers(1, 5), max_size=5),
    k=st.integers(1, 5),
)
def test_lists_hold_the_best_candidates_in_order(scores: list[float], history: list[int], k: int):
    ranked = rank(scorer(*scores), [history], [[1]], k=k)
    best = sorted((-score, row) for row, score in enumerate(scores, start=1) if row not in history)
    expected = [row for _, row in best][:k]
    assert ranked.top_idx[0].tolist() == expected + [0] * (k - len(expected))
