"""What each item of a history carries, against sums worked by hand and against asking the scorer again."""

import doctest

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from benchmarks.made import made_log
from recops import attribution
from recops.attribution import MOST, NOISE, Account, shares
from recops.calibration import Fusion
from recops.histories import Histories
from recops.links import Links
from recops.models.ease import Ease
from recops.release.export import torch_scorer
from recops.reranking import ItemFacts, Reranker
from recops.runtime import Scorer

# 1 -> {3: .5, 4: .25}, 2 -> {3: 1, 4: -.5}; items 1..4, 5 and 6 linked to by none.
LINKS = {
    "indptr": np.array([0, 0, 2, 4, 4, 4, 4, 4], np.int64),
    "indices": np.array([3, 4, 3, 4], np.int32),
    "weights": np.array([0.5, 0.25, 1.0, -0.5], np.float32),
}
ROWS = np.array([3, 4, 5])


def account(scorer: Scorer, *history: int, **known) -> Account:
    return Account(scorer, Histories([np.array(history, np.int64)], **known))


def linear(**options) -> Scorer:
    return Scorer(6, links=Links(**LINKS, **options))


def test_doctests():
    assert doctest.testmod(attribution).failed == 0


def test_of_ease_the_losses_are_its_weights_and_the_shares_their_parts():
    """B = -P / diag(P) with P = (X'X + 2 I)^-1, worked out here again."""
    users, items = [1, 1, 1, 2, 2, 3, 3, 3, 4, 4, 4, 5, 5], [1, 2, 3, 1, 3, 2, 3, 4, 1, 2, 4, 3, 4]
    log = made_log(np.array(users), np.array(items), num_items=4)
    model = Ease(Ease.Config(regularization=2), log.num_users, log.num_items, seed=0)
    model.fit(log)
    seen = np.array([[1, 1, 1, 0], [1, 0, 1, 0], [0, 1, 1, 1], [1, 1, 0, 1], [0, 0, 1, 1]], np.float64)
    inverse = np.linalg.inv(seen.T @ seen + 2 * np.eye(4))
    weights = -inverse / np.diag(inverse)
    np.fill_diagonal(weights, 0)
    about = account(torch_scorer(model.parts(), 4), 1, 3, 2)
    losses = about.losses(np.array([1, 2, 3]), np.array([4]))
    np.testing.assert_allclose(losses[:, 0], weights[:3, 3], atol=1e-6)
    speaking = np.maximum(weights[:3, 3], 0)
    assert (speaking > 0).sum() == 2  # one of the three speaks against item 4
    np.testing.assert_allclose(shares(losses, about.deviation)[:, 0], speaking / speaking.sum(), atol=1e-5)


def test_the_events_before_one_that_is_left_out_move_up():
    """Votes 1 and e^-1; without item 2 the vote of item 1 is 1, without item 1 that of item 2 stays."""
    step = np.exp(-1)
    losses = account(linear(decay=1.0), 1, 2).losses(np.array([1, 2]), ROWS)
    expected = [[step * 0.5, step * 0.25, 0], [1 + step * 0.5 - 0.5, -0.5 + step * 0.25 - 0.25, 0]]
    np.testing.assert_allclose(losses, expected, atol=1e-6)


def test_all_events_of_an_item_are_left_out_together():
    losses = account(linear(), 1, 2, 1).losses(np.array([1, 2]), ROWS)
    np.testing.assert_allclose(losses, [[1.0, 0.5, 0], [1.0, -0.5, 0]])


def test_the_only_item_of_a_history_is_held_against_what_is_said_of_all():
    """Scores of items 2 to 6 are 0, .5, .25, 0, 0: their mean is .15."""
    losses = account(linear(), 1).losses(np.array([1]), ROWS)
    np.testing.assert_allclose(losses, [[0.35, 0.1, -0.15]], atol=1e-6)


def encoder(item_idx: np.ndarray) -> np.ndarray:
    """A mean of made-up vectors with more weight on the end, no linear function of the history."""
    vectors = np.where(item_idx[:, :, None] > 0, np.stack([item_idx, item_idx**2 % 5], 2) + 1.0, 0)
    weights = 1 / np.arange(item_idx.shape[1], 0, -1)[None, :, None] * (item_idx[:, :, None] > 0)
    return ((vectors * weights).sum(1) / np.maximum(weights.sum(1), 1e-9)).astype(np.float32)


VECTORS = np.random.default_rng(3).normal(size=(7, 2)).astype(np.float32)


@settings(deadline=None)
@given(
    st.lists(st.integers(1, 6), min_size=2, max_size=9),
    st.sampled_from(["links", "network"]),
    st.sampled_from([None, 2]),
    st.sampled_from([2, 200]),
)
def test_of_one_model_a_loss_is_what_the_scorer_says_less_without_the_item(history, kind, window, max_history):
    links = Links(**LINKS, decay=2.0, floor=0.1, window=window)
    parts = {"links": links} if kind == "links" else {"encode": encoder, "item_vectors": VECTORS}
    scorer = Scorer(6, max_history=max_history, **parts)
    rows, whole = np.arange(1, 7), np.array(history)
    items = np.unique(whole)
    if len(items) == 1:
        return
    losses = account(scorer, *history).losses(items, rows)
    before = scorer.scores([whole])[0, rows]
    for item, lost in zip(items, losses, strict=True):
        after = scorer.scores([whole[whole != item]])[0, rows]
        np.testing.assert_allclose(lost, before - after, atol=1e-5)


def fused(calibration="zscore", **options) -> Scorer:
    popular = Scorer(6, item_scores=np.array([0, 1, 2, 3, 4, 5, 6], np.float32), needs_history=False)
    network = Scorer(6, encode=encoder, item_vectors=VECTORS)
    fusion = Fusion(np.array([[1, 2, 4]], np.float32), (), calibration)
    return Scorer(6, members=(linear(), network, popular), fusion=fusion, needs_history=False, **options)


@pytest.mark.parametrize("calibration", ["zscore", "candidates", "rank"])
def test_parts_add_up_to_the_score(calibration):
    scorer = fused(calibration)
    about = account(scorer, 1, 2)
    np.testing.assert_array_equal(about.scores, scorer.scores([np.array([1, 2])])[0])
    assert np.isnan(about.said[0, 5:]).all()  # items that no link leads to
    assert about.weights[:, 5].tolist() == pytest.approx([0, 7 * 2 / 6, 7 * 4 / 6])
    np.testing.assert_allclose(about.weights.sum(0), 7, rtol=1e-6)
    total = np.nansum(about.weights * about.calibrated, axis=0)
    np.testing.assert_allclose(total[1:], about.scores[1:], rtol=1e-5)


def test_calibration_is_that_of_the_whole_history():
    """Of links to 3 and 4 alone the judged scores are 1.5 and -.25: deviation .875. Item 1 adds .5 to item 3."""
    scorer = Scorer(6, members=(linear(),), fusion=Fusion(np.array([[3]], np.float32)))
    losses = account(scorer, 1, 2).losses(np.array([1, 2]), ROWS)
    np.testing.assert_allclose(losses, 3 / 0.875 * np.array([[0.5, 0.25, 0], [1, -0.5, 0]]), atol=1e-5)


def test_by_rank_what_falls_behind_is_lost():
    """Scores of 3 and 4 are 1.5 and -.25, ranks 1 and 2. Without item 2 they are .5, ahead of 4 still, and .25."""
    scorer = Scorer(6, members=(linear(),), fusion=Fusion(np.array([[1]], np.float32), (), "rank"))
    losses = account(scorer, 1, 2).losses(np.array([2]), np.array([3, 4]))
    np.testing.assert_allclose(losses, [[1 / 61 - 1 / 62, 0]], atol=1e-7)


def test_a_table_of_users_loses_nothing_and_neither_does_the_fallback():
    table = np.array([[0, 0], [1, 2]], np.float32)
    scorer = Scorer(6, user_table=table, item_vectors=VECTORS, fallback=np.arange(7, dtype=np.float32))
    known, unknown = (account(scorer, 1, 2, users=np.array([user])) for user in (1, 0))
    assert known.is_answered and not unknown.is_answered
    for about in (known, unknown):
        assert not about.losses(np.array([1, 2]), ROWS).any()
    assert unknown.scores[1:].tolist() == [1, 2, 3, 4, 5, 6]


def test_what_a_reranker_adds_for_an_item_of_the_history_is_lost_with_it():
    """It adds ten times the share of the last events that have the category: 3 has that of item 1."""
    facts = ItemFacts(
        offsets=np.zeros(8, np.int64),
        event_times=np.zeros(0, np.int64),
        published=np.full(7, np.nan),
        prices=np.full(7, np.nan, np.float32),
        category_offsets=np.array([0, 0, 1, 1, 2, 2, 2, 2], np.int64),  # of items 1 and 3
        category_idx=np.array([0, 0], np.int32),
    )

    def network(features_BCF, fade_BC):
        return (np.nan_to_num(features_BCF[:, :, 0]) * 10 * fade_BC).astype(np.float32)

    reranker = Reranker(network, features=("content",), members=(0,), facts=facts, candidates=6)
    plain = Scorer(6, members=(linear(),), fusion=Fusion(np.array([[1]], np.float32)))
    scorer = Scorer(6, members=plain.members, fusion=plain.fusion, reranker=reranker)
    about, before = account(scorer, 1, 2), account(plain, 1, 2)
    np.testing.assert_allclose((about.scores - about.stage_one)[1:], [0, 0, 5, 0, 0, 0], atol=1e-5)
    items = np.array([1, 2])
    added = about.losses(items, ROWS) - before.losses(items, ROWS)
    # Half of the events have the category; without item 1 none, without item 2 all.
    np.testing.assert_allclose(added, [[5, 0, 0], [-5, 0, 0]], atol=1e-5)


def test_of_a_long_history_the_latest_and_the_nearest_are_left_out(monkeypatch):
    monkeypatch.setattr(attribution, "MOST", 4)
    links = Links(np.array([0, 0, 0, 1, *[1] * 9]), np.array([11], np.int32), np.array([1.0], np.float32))
    scorer = Scorer(11, links=links)
    about = account(scorer, *range(1, 11))
    assert about.chosen(np.array([11])).tolist() == [10, 9, 8, 2]  # 2 is linked to 11; of the others the latest
    assert account(scorer, 1, 2, 2, 3).chosen(np.array([11])).tolist() == [3, 2, 1]
    assert account(Scorer(11, item_scores=np.ones(12)), *range(1, 11)).chosen(ROWS).tolist() == [10, 9, 8, 7]
    monkeypatch.setattr(attribution, "ROWS_LOOKED_AT", 1)
    assert about.chosen(np.array([1, 11])).tolist() == [10, 9, 8, 7]
    monkeypatch.setattr(attribution, "LOOKED_AT", 8)
    assert about.chosen(np.array([11])).tolist() == [10, 9, 8, 7]  # 2 is too long ago


def test_a_network_looks_at_as_many_events_whatever_the_length():
    vectors = np.zeros((900, 2), np.float32)
    scorer = Scorer(899, encode=encoder, item_vectors=vectors, max_history=400)
    numbers = [len(account(scorer, *range(1, 1 + length)).chosen(np.array([1]))) for length in (3, 40, 100, 800)]
    assert numbers == [3, 16, 10, 4]
    assert len(account(Scorer(899, item_scores=vectors[:, 0]), *range(1, 801)).chosen(np.array([1]))) == MOST


def test_rounding_is_no_reason():
    losses = np.array([[NOISE * 0.9], [-3.0]])
    assert shares(losses, 1.0).tolist() == [[0], [0]]
    assert shares(losses, 0.1).tolist() == [[1], [0]]


def test_nobody_and_nothing_asked():
    about = account(linear())
    assert about.losses(about.chosen(ROWS), ROWS).shape == (0, 3)
    assert account(linear(), 1).losses(np.array([1]), np.array([], np.int64)).shape == (1, 0)
