"""The scorer against sums worked by hand."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from recops import calibration, runtime
from recops.calibration import Fusion
from recops.histories import Histories
from recops.links import Links
from recops.nearest import Nearness
from recops.runtime import Scorer
from recops.topk import widened

# Links of three items: 1 -> {2: .5, 3: .25}, 2 -> {3: 1}, 3 -> {}.
LINKS = {
    "indptr": np.array([0, 0, 2, 3, 3], np.int64),
    "indices": np.array([2, 3, 3], np.int32),
    "weights": np.array([0.5, 0.25, 1.0], np.float32),
}


def test_histories_are_padded_on_the_left_and_cut_at_the_front():
    scorer = Scorer(num_items=9, max_history=3)
    histories = [np.array([1, 2, 3, 4]), np.array([5]), np.array([], np.int64)]
    assert scorer.pad(histories).tolist() == [[2, 3, 4], [0, 0, 5], [0, 0, 0]]
    assert scorer.pad([np.array([5])]).tolist() == [[5]]
    assert scorer.pad([np.array([], np.int64)]).tolist() == [[0]]
    assert scorer.pad([]).shape == (0, 1)


def mean_of_events(vectors: np.ndarray):
    return lambda item_idx_BL: vectors[item_idx_BL].sum(1) / np.maximum((item_idx_BL > 0).sum(1, keepdims=True), 1)


def full_scorer(rank=None, fallback=None, needs_history=True) -> Scorer:
    vectors = np.array([[0, 0], [1, 0], [0, 1], [2, 2]], np.float32)
    return Scorer(
        num_items=3,
        encode=mean_of_events(vectors),
        item_vectors=vectors,
        rank=rank,
        links=Links(**LINKS),
        item_scores=np.array([0, 10, 20, 30], np.float32),
        fallback=fallback,
        needs_history=needs_history,
    )


def test_scores_are_the_sum_of_the_parts():
    # History 1, 2: user (.5, .5); products .5, .5, 2; votes 0, .5, 1.25; item scores 10, 20, 30.
    scores = full_scorer().scores([np.array([1, 2])])
    assert scores.tolist() == [[-math.inf, 10.5, 21.0, 33.25]]


def test_a_ranker_takes_the_place_of_the_product():
    def rank(users, vectors):
        return np.full((len(users), len(vectors)), 7, np.float32)

    scores = full_scorer(rank).scores([np.array([1, 2])])
    assert scores.tolist() == [[-math.inf, 17.0, 27.5, 38.25]]


def test_an_empty_history_gets_the_fallback_where_the_model_needs_one():
    fallback = np.array([0, 3, 2, 1], np.float32)
    histories = [np.array([], np.int64), np.array([3])]
    scores = full_scorer(fallback=fallback).scores(histories)
    assert scores.tolist() == [[-math.inf, 3, 2, 1], [-math.inf, 12, 22, 38]]
    assert full_scorer(fallback=fallback, needs_history=False).scores(histories[:1]).tolist() == [
        [-math.inf, 10, 20, 30]
    ]


def test_a_table_of_users_speaks_for_those_it_holds():
    table = np.array([[0, 0], [1, 0], [0, 2]], np.float32)
    vectors = np.array([[0, 0], [1, 2], [3, 4]], np.float32)
    scorer = Scorer(2, user_table=table, item_vectors=vectors, fallback=np.array([0, 9, 8], np.float32))
    someone = Histories([np.array([1]), np.array([], np.int64), np.array([2])], users=np.array([1, 2, 0]))
    assert scorer.scores(someone)[:, 1:].tolist() == [[1, 3], [4, 8], [9, 8]]
    assert scorer.scores([np.array([1])])[:, 1:].tolist() == [[9, 8]]


def test_a_table_beside_an_encoder_speaks_for_those_without_a_history():
    """User 1 is told by attributes, of user 2 nothing is known, user 3 came after the table was made."""
    scorer = Scorer(
        2,
        encode=lambda item_idx: item_idx.sum(1, keepdims=True).astype(np.float32),
        user_table=np.array([[0], [5], [0]], np.float32),
        item_vectors=np.array([[0], [1], [2]], np.float32),
        fallback=np.array([0, 9, 8], np.float32),
    )
    nothing = np.array([], np.int64)
    someone = Histories([np.array([2]), nothing, nothing, nothing, nothing], users=np.array([1, 1, 2, 3, 0]))
    assert scorer.answers(someone).tolist() == [True, True, False, False, False]
    assert scorer.scores(someone)[:, 1:].tolist() == [[2, 4], [5, 10], [9, 8], [9, 8], [9, 8]]
    assert scorer.scores([nothing])[:, 1:].tolist() == [[9, 8]]


def test_user_vectors_come_back_in_the_order_asked():
    def encode(item_idx):
        return item_idx.sum(1, keepdims=True).astype(np.float32)

    scorer = Scorer(9, encode=encode, item_vectors=np.zeros((10, 1), np.float32))
    histories = [np.arange(1, 2 + n % 7) for n in range(300)]
    vectors = scorer.user_vectors(histories)
    assert vectors is not None and vectors[:, 0].tolist() == [h.sum() for h in histories]


def test_a_model_with_time_is_given_ages_padded_like_the_items():
    seen = []

    def encode(item_idx, age_s):
        seen.append((item_idx.tolist(), age_s.tolist()))
        return np.zeros((len(item_idx), 1), np.float32)

    scorer = Scorer(3, encode=encode, item_vectors=np.zeros((4, 1), np.float32), uses_time=True, max_history=2)
    scorer.scores(Histories([np.array([1]), np.array([1, 2, 3])], [np.array([50]), np.array([30, 20, -5])]))
    scorer.scores([np.array([1])])
    assert seen == [([[0, 1], [2, 3]], [[0, 50], [20, 0]]), ([[1]], [[0]])]


# Two members over items 1..4 for a history of item 4: scores of 1, 2, 3 are 1, 2, 3 and 30, 10, 20.
def fused(weights, edges=(), calibration="zscore", **second):
    first = Scorer(4, item_scores=np.array([0, 1, 2, 3, 99], np.float32), needs_history=False)
    other = Scorer(4, item_scores=np.array([0, 30, 10, 20, -7], np.float32), **{"needs_history": False, **second})
    fusion = Fusion(np.array(weights, np.float32), edges, calibration)
    return Scorer(4, members=(first, other), fusion=fusion, needs_history=False)


def test_members_are_standardised_over_what_was_not_seen_and_then_weighed():
    step = math.sqrt(1.5)  # of three scores one apart, in deviations
    scores = fused([[1, 2]]).scores([np.array([4])])[0]
    np.testing.assert_allclose(scores[1:4], [-step + 2 * step, -2 * step, step], rtol=1e-6)


def test_members_are_standardised_over_the_best_of_each_where_they_retrieve(monkeypatch):
    monkeypatch.setattr(calibration, "RETRIEVED", 1)
    # The best of the first is item 3 (3 and 20), of the other item 1 (1 and 30): over these two, mean 2 and 25.
    scores = fused([[1, 2]], calibration="candidates").scores([np.array([4])])[0]
    np.testing.assert_allclose(scores[1:4], [-1 + 2 * 1, 0 + 2 * -3, 1 + 2 * -1], rtol=1e-6)


def test_members_by_rank():
    scores = fused([[1, 2]], calibration="rank").scores([np.array([4])])[0]
    expected = [1 / 63 + 2 / 61, 1 / 62 + 2 / 63, 1 / 61 + 2 / 62]
    np.testing.assert_allclose(scores[1:4], expected, rtol=1e-6)


def test_weights_go_by_the_length_of_the_history():
    scores = fused([[1, 0], [0, 1]], edges=(2,)).scores([np.array([4]), np.array([4, 4])])
    assert np.argsort(scores[:, 1:4]).tolist() == [[0, 1, 2], [1, 2, 0]]


def test_a_member_without_an_answer_gives_its_weight_to_the_others():
    step = math.sqrt(1.5)
    scorer = fused([[1, 3]], needs_history=True)
    scores = scorer.scores([np.array([], np.int64)])[0]
    spread = np.array([1, 2, 3, 99], np.float64)
    np.testing.assert_allclose(scores[1:], 4 * (spread - spread.mean()) / spread.std(), rtol=1e-5)
    # Links that nothing leads from to item 1 leave it to the other member alone.
    links = Links(np.array([0, 0, 0, 0, 0, 2]), np.array([2, 3], np.int32), np.array([1, 3], np.float32))
    first = Scorer(4, item_scores=np.array([0, 1, 2, 3, 99], np.float32), needs_history=False)
    scorer = Scorer(4, members=(first, Scorer(4, links=links)), fusion=Fusion(np.array([[1, 3]], np.float32)))
    scores = scorer.scores([np.array([4])])[0]
    np.testing.assert_allclose(scores[1:4], [4 * -step, 0 - 3, step + 3], rtol=1e-5)


def test_a_member_that_says_the_same_of_all_says_nothing():
    flat = Scorer(3, item_scores=np.array([0, 5, 5, 5], np.float32), needs_history=False)
    other = Scorer(3, item_scores=np.array([0, 1, 2, 3], np.float32), needs_history=False)
    scorer = Scorer(3, members=(flat, other), fusion=Fusion(np.array([[9, 1]], np.float32)), needs_history=False)
    np.testing.assert_allclose(scorer.scores([np.array([1])])[0, 2:], [-1, 1], rtol=1e-6)
    assert scorer.score_items([np.array([1])], np.array([3])).tolist() == [[1]]


def test_no_histories_give_no_scores():
    assert full_scorer().scores([]).shape == (0, 4)


@settings(deadline=None)
@given(st.lists(st.integers(1, 3), max_size=6), st.lists(st.integers(1, 3), max_size=5), st.booleans())
def test_scores_of_some_items_are_those_of_all(history, rows, with_ranker):
    def rank(users, vectors):
        return (users @ vectors.T) ** 2

    scorer = full_scorer(rank if with_ranker else None, fallback=np.array([0, 3, 2, 1], np.float32))
    history, rows = np.array(history, np.int64), np.array(rows, np.int64)
    np.testing.assert_allclose(scorer.score_items([history], rows)[0], scorer.scores([history])[0][rows], rtol=1e-6)


def test_a_member_without_weight_for_someone_does_not_answer_them():
    """Short histories go to the links alone, which say nothing of an empty one."""
    links = Links(np.array([0, 0, 1, 1]), np.array([2], np.int32), np.array([1], np.float32))
    popular = Scorer(2, item_scores=np.array([0, 1, 2], np.float32), needs_history=False)
    fusion = Fusion(np.array([[0, 1], [1, 1]], np.float32), (2,))
    scorer = Scorer(
        2, members=(popular, Scorer(2, links=links)), fusion=fusion, fallback=np.array([0, 5, 4], np.float32)
    )
    empty = np.zeros(0, np.int64)
    assert scorer.answers([empty, np.array([1]), np.array([1, 1])]).tolist() == [False, True, True]
    assert scorer.scores([empty])[0, 1:].tolist() == [5, 4]


def test_scores_of_what_was_said_already_are_the_same():
    scorer = fused([[1, 2]])
    asked = [np.array([4]), np.array([1, 2])]
    said = scorer.said(asked)
    assert said[:, :, 1:].tolist() == [[[1, 2, 3, 99]] * 2, [[30, 10, 20, -7]] * 2]
    np.testing.assert_array_equal(scorer.scores(asked, said), scorer.scores(asked))
    alone = full_scorer()
    np.testing.assert_array_equal(alone.scores(asked[1:], alone.said(asked[1:])), alone.scores(asked[1:]))
    assert alone.said(asked[1:], np.array([3])).tolist() == [[[33.25]]]


def test_what_a_scorer_does_not_know_in_a_history_is_left_out():
    """Rows beyond its own, with their ages; alone, in a fusion, and where nothing else is left."""
    links = Links(np.array([0, 0, 2, 3]), np.array([1, 2, 1], np.int32), np.array([1.0, 2.0, 4.0], np.float32))
    popular = Scorer(3, item_scores=np.array([0, 3, 2, 1], np.float32), needs_history=False)
    small = Scorer(1, links=Links(np.array([0, 0, 1]), np.array([1], np.int32), np.array([5.0], np.float32)))
    both = Scorer(3, members=(popular, small), fusion=Fusion(np.array([[1.0, 1.0]], np.float32)))
    histories = Histories([np.array([1, 3]), np.array([3])], ages=[np.array([7, 5]), np.array([5])])
    known = histories.up_to(2)
    assert [rows.tolist() for rows in known.items] == [[1], []]
    assert known.ages is not None and [age.tolist() for age in known.ages] == [[7], []]
    assert histories.up_to(3) is histories
    two = Scorer(2, links=links, fallback=np.array([0, 9, 8], np.float32))
    assert two.scores(histories)[:, 1:].tolist() == [[1, 2], [9, 8]]
    assert small.answers(histories).tolist() == [True, False]
    assert np.isnan(both.calibrated(histories)[1]).tolist() == [[True, False, True, True], [True] * 4]
    assert two.scores(histories).shape == (2, 3) and widened(two.scores(histories), 4)[0, 3:].tolist() == [-np.inf] * 2


def test_some_rows_of_a_model_of_links_and_vectors_with_new_items(monkeypatch):
    """As `spectral`: no link leads to an item that was added, and some of them are scored as in the whole catalogue."""
    monkeypatch.setattr(runtime, "PROJECTED_AT_ONCE", 2)
    scorer = Scorer(
        num_items=3,
        encode=lambda history_BL: np.ones((len(history_BL), 1), np.float32),
        item_vectors=np.array([[0], [1], [2], [3]], np.float32),
        links=Links(**LINKS),
        project=lambda content_MC: content_MC[:, :1] * 10,
        content=("text",),
    )
    known = {"text": np.zeros((4, 2), np.float16)}
    wider = scorer.with_items({"text": np.array([[0.5, 0], [0.25, 0], [1, 0]], np.float16)}, known)
    history = [np.array([1, 5], np.int64)]
    whole = wider.scores(history)[0]
    assert whole[1:].tolist() == [1.0, 2.5, 3.25, 5.0, 2.5, 10.0]
    rows = np.array([6, 2, 4, 1])
    assert wider.score_items(history, rows)[0].tolist() == whole[rows].tolist()


@pytest.mark.parametrize("how", ["zscore", "candidates", "rank"])
def test_items_added_to_a_fusion_leave_the_scores_of_the_others(how):
    """However many there are, and whatever they score."""
    links = Scorer(num_items=3, links=Links(**LINKS))
    content = Scorer(
        num_items=3,
        encode=lambda history_BL: np.ones((len(history_BL), 1), np.float32),
        item_vectors=np.array([[0], [1], [5], [3]], np.float32),
        project=lambda content_MC: content_MC[:, :1],
        content=("text",),
    )
    fusion = Fusion(np.array([[1, 2]], np.float32), calibration=how)
    scorer = Scorer(num_items=3, members=(links, content), fusion=fusion)
    known = {"text": np.zeros((4, 1), np.float16)}
    wider = scorer.with_items({"text": np.array([[100], [200], [5]], np.float16)}, known)
    again = wider.with_items({"text": np.array([[-100]], np.float16)}, {"text": np.zeros((7, 1), np.float16)})
    history = [np.array([1], np.int64)]
    before, after = scorer.scores(history)[0], again.scores(history)[0]
    np.testing.assert_array_equal(after[:4], before)
    assert after[5] >= after[4] >= after[6] > after[7] and len(after) == 8


def test_links_of_all_members_count_alike_and_those_of_content_apart():
    def links(weights: dict[tuple[int, int], float]) -> Links:
        rows = [[pair for pair in weights if pair[0] == row] for row in range(6)]
        return Links(
            np.cumsum([0, *map(len, rows)]).astype(np.int64),
            np.array([to for some in rows for _, to in some], np.int32),
            np.array([weights[pair] for some in rows for pair in some], np.float32),
        )

    strong, weak = (
        Scorer(5, links=links({(1, 2): 8.0, (1, 3): 4.0})),
        Scorer(5, links=links({(1, 3): 0.1, (1, 4): 0.05})),
    )
    of_content = Scorer(5, links=links({(1, 5): 2.0}), nearness=Nearness(1, 1.0, np.zeros(1, np.float32), (1,)))
    one, rows = np.array([1]), np.array([2, 3, 4, 5])
    np.testing.assert_allclose(strong.link_shares(one, rows), [[1, 0.5, 0, 0]])
    assert strong.link_shares(one, of_content=True) is None and of_content.link_shares(one) is None
    assert strong.link_shares(np.array([4]), rows).tolist() == [[0, 0, 0, 0]]
    against = Scorer(5, links=links({(1, 2): -0.25, (1, 3): -0.5}))
    assert against.link_shares(one, rows).tolist() == [[-0.5, -1, 0, 0]]
    both = Scorer(5, members=(of_content, strong, weak), fusion=Fusion(np.array([[1, 9, 1]], np.float32)))
    np.testing.assert_allclose(both.link_shares(one, rows), [[0.5, 0.75, 0.25, 0]], rtol=1e-6)
    np.testing.assert_allclose(both.link_shares(one), [[0, 0, 0.5, 0.75, 0.25, 0]], rtol=1e-6)
    assert both.link_shares(one, of_content=True).tolist() == [[0, 0, 0, 0, 0, 1]]
