"""Features of the second stage by hand, and that they see nothing later than the request."""

from dataclasses import fields, replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from recops.calibration import Fusion
from recops.histories import Histories
from recops.reranking import DAY_S, FEATURES, ItemFacts, Reranker, num_columns
from recops.runtime import Scorer

NAN = float("nan")
START = 4 * DAY_S  # Monday, the fifth of January 1970


def facts(events: list[tuple[int, float]] = (), num_items: int = 4, **known) -> ItemFacts:
    """Of events (item row, days after START)."""
    ordered = sorted((item, round(START + days * DAY_S)) for item, days in events)
    found = ItemFacts(
        offsets=np.searchsorted([item for item, _ in ordered], np.arange(num_items + 2)).astype(np.int64),
        event_times=np.array([time for _, time in ordered], np.int64),
        published=np.full(num_items + 1, NAN),
        prices=np.full(num_items + 1, NAN, np.float32),
        category_offsets=np.zeros(num_items + 2, np.int64),
        category_idx=np.zeros(0, np.int32),
    )
    return replace(found, **known)


def reranker(known: ItemFacts, *features: str, network=None, **settings) -> Reranker:
    return Reranker(network, features or tuple(FEATURES), (), known, **settings)


def someone(*items: int, days_ago: tuple[float, ...] | None = None, at_day: float | None = None) -> Histories:
    ages = None if days_ago is None else [np.array([round(days * DAY_S) for days in days_ago], np.int64)]
    at = None if at_day is None else np.array([round((START + at_day * DAY_S) * 1_000_000)])
    return Histories([np.array(items, np.int64)], ages, at=at)


def feature(name: str, known: ItemFacts, who: Histories, rows: tuple[int, ...] = (1, 2, 3, 4), **settings):
    """Float [C, columns] of one user."""
    scores_BN = np.array([[-np.inf, 4.0, 3.0, 2.0, 1.0]], np.float32)
    described = reranker(known, name, **settings).described(who, np.array([rows]), scores_BN, np.zeros((0, 1, 5)))
    return described[0]


def test_counts_are_of_events_before_the_request() -> None:
    known = facts([(1, 0), (1, 1), (1, 40), (2, 39.5), (3, 50)])
    at_40 = someone(at_day=40)
    assert np.expm1(feature("popularity", known, at_40))[:, 0].round(3).tolist() == [2, 1, 0, 0]
    assert np.expm1(feature("trend", known, at_40, trend_days=39.25))[:, 0].round(3).tolist() == [1, 1, 0, 0]
    # Long after the log has ended the days are counted back from its end.
    at_900 = someone(at_day=900)
    assert np.expm1(feature("popularity", known, at_900))[:, 0].round(3).tolist() == [3, 1, 1, 0]
    assert np.expm1(feature("trend", known, at_900, trend_days=11))[:, 0].round(3).tolist() == [1, 1, 1, 0]


def test_recency_is_the_age_since_published_or_first_seen() -> None:
    published = np.array([NAN, NAN, START, START + 90 * DAY_S, NAN])
    known = facts([(1, 6), (1, 8), (2, 9), (3, 2)], published=published)
    days = np.expm1(feature("recency", known, someone(at_day=9.5)))[:, 0]
    np.testing.assert_allclose(days, [3, 9, 7, NAN], rtol=1e-3)  # at the last event before, on the ninth


def test_a_log_that_ended_long_ago_tells_new_items_from_old_ones_as_it_did() -> None:
    known = facts([(1, 0), (2, 9)], published=np.array([NAN, NAN, NAN, START + 20 * DAY_S, START + 5_000 * DAY_S]))
    soon, late = (np.expm1(feature("recency", known, someone(at_day=at)))[:, 0] for at in (9.5, 3_650))
    np.testing.assert_allclose(soon, [9, 0, NAN, NAN], atol=1e-3)
    np.testing.assert_allclose(late, [9, 0, 0, NAN], atol=1e-3)


def test_content_is_the_share_of_the_last_events_with_the_same_categories() -> None:
    # Categories: item 1 has 0; 2 has 0 and 1; 3 has 2; 4 none.
    known = facts(category_offsets=np.array([0, 0, 1, 3, 4, 4]), category_idx=np.array([0, 0, 1, 2], np.int32))
    found = feature("content", known, someone(3, 1, 2), content_window=2)[:, 0]
    np.testing.assert_allclose(found, [1, 0.75, 0, NAN])  # the last two, 1 and 2: twice 0, once 1
    assert np.isnan(feature("content", known, someone())).all()


def test_seen_and_how_long_ago() -> None:
    who = someone(1, 2, 1, 3, days_ago=(9, 5, 3, 1), at_day=10)
    assert np.expm1(feature("seen", facts(), who))[:, 0].round(4).tolist() == [2, 1, 0 + 1, 0]
    since = np.expm1(feature("since_seen", facts(), who))
    np.testing.assert_allclose(since, [[3, 1], [5, 2], [1, 0], [NAN, NAN]], rtol=1e-5)
    untimed = np.expm1(feature("since_seen", facts(), someone(1, 2)))
    np.testing.assert_allclose(untimed, [[NAN, 1], [NAN, 0], [NAN, NAN], [NAN, NAN]], rtol=1e-5)


def test_price_is_relative_to_those_of_the_history() -> None:
    known = facts(prices=np.array([NAN, 2, 4, NAN, 12], np.float32))
    np.testing.assert_allclose(np.exp(feature("price", known, someone(1, 2, 3)))[:, 0], [2 / 3, 4 / 3, NAN, 4])
    assert np.isnan(feature("price", known, someone(3))).all()


def test_context_is_the_same_for_all_candidates() -> None:
    who = someone(1, 2, days_ago=(3, 2), at_day=1.25)  # Tuesday, six in the morning
    np.testing.assert_allclose(feature("history_length", facts(), who), np.log(3) * np.ones((4, 1)), rtol=1e-6)
    np.testing.assert_allclose(feature("idle", facts(), who), np.log(3) * np.ones((4, 1)), rtol=1e-6)
    np.testing.assert_allclose(feature("hour", facts(), who), [[1, 0]] * 4, atol=1e-6)
    angle = 2 * np.pi * 1.25 / 7 + 2 * np.pi * START / (7 * DAY_S)
    np.testing.assert_allclose(feature("weekday", facts(), who), [[np.sin(angle), np.cos(angle)]] * 4, atol=1e-6)
    untimed = someone(1, 2)
    for name in ("idle", "hour", "weekday", "recency", "trend"):
        assert np.isnan(feature(name, facts(), untimed)).all(), name


def test_rank_counts_better_candidates_and_hardly_minds_the_last_bits() -> None:
    found = np.exp(feature("rank", facts(), someone()))[:, 0]
    np.testing.assert_allclose(found, [1, 2, 3, 4], rtol=1e-5)
    ranker = reranker(facts(), "rank")
    close = np.array([[-np.inf, 4, 3, 3 + 1e-6, 1], [-np.inf, 4, 3 + 1e-6, 3, 1]], np.float32)
    first, second = ranker.described(
        Histories([np.array([1])] * 2), np.array([[1, 2, 3, 4]] * 2), close, np.zeros((0, 2, 5))
    )
    np.testing.assert_allclose(first, second, atol=2e-5)


def test_member_scores_stand_in_the_column_of_their_name() -> None:
    member_MBN = np.arange(10, dtype=np.float32).reshape(2, 1, 5)
    two = Reranker(None, ("scores", "blend"), (1, -1, 0), facts())
    found = two.described(someone(), np.array([[2, 4]]), member_MBN[0] * 10, member_MBN)
    np.testing.assert_array_equal(found[0], [[7, NAN, 2, 20], [9, NAN, 4, 40]])
    assert num_columns(two.features, 3) == found.shape[2]


def test_as_many_columns_as_are_said() -> None:
    ranker = reranker(facts())
    found = ranker.described(someone(1), np.array([[1, 2]]), np.zeros((1, 5), np.float32), np.zeros((0, 1, 5)))
    assert found.shape[2] == num_columns(tuple(FEATURES), 0)


@settings(max_examples=30, deadline=None)
@given(
    st.lists(st.tuples(st.integers(1, 4), st.integers(0, 60)), min_size=1, max_size=25),
    st.integers(1, 60),
)
def test_later_events_change_nothing_earlier(events: list[tuple[int, int]], at_day: int) -> None:
    who = someone(1, 3, days_ago=(2, 1), at_day=at_day)
    before = [event for event in events if event[1] < at_day]
    scores_BN = np.array([[-np.inf, 1, 2, 3, 4]], np.float32)
    whole, cut = (
        reranker(facts(log)).described(who, np.array([[1, 2, 3, 4]]), scores_BN, np.zeros((0, 1, 5)))
        for log in (events, before)
    )
    if before:
        np.testing.assert_array_equal(whole, cut)
    else:  # a log without any event has no times
        known = ~np.isnan(cut)
        np.testing.assert_array_equal(whole[known], cut[known])


def test_candidates_are_the_best_outside_the_history_and_the_last_of_them_are_faded() -> None:
    num_items = 12
    scores_BN = np.array([[9, *range(num_items, 0, -1)]], np.float32)  # row 1 is best; row 0 is none
    ranker = reranker(facts(num_items=num_items), "blend", candidates=8)
    rows_BC, fade_BC = ranker.best(someone(2), scores_BN)
    assert rows_BC.tolist() == [[1, 3, 4, 5, 6, 7, 8, 9]]
    # Scores 12, 10, …, 4; the ninth has 3; six of eight are adjusted in full, the seventh has score 5.
    np.testing.assert_allclose(fade_BC, [[1, 1, 1, 1, 1, 1, 1, 0.5]])
    keeps_seen = replace(ranker, remove_seen=False)
    assert keeps_seen.best(someone(2), scores_BN)[0].tolist() == [[1, 2, 3, 4, 5, 6, 7, 8]]
    few = replace(ranker, candidates=50).best(someone(2), scores_BN)
    assert few[0].tolist() == [[1, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 0]]
    assert few[1].tolist() == [[1.0] * 11 + [0.0]]


def test_scores_without_any_difference_are_left_alone() -> None:
    ranker = reranker(facts(num_items=12), "blend", candidates=3)
    assert not ranker.best(someone(), np.ones((1, 13), np.float32))[1].any()


def test_a_scorer_adjusts_its_candidates_and_leaves_all_others() -> None:
    member = Scorer(4, item_scores=np.array([0, 4, 3, 2, 1], np.float32), needs_history=False)
    fused = Scorer(4, members=(member,), fusion=Fusion(np.ones((1, 1), np.float32)), needs_history=False)
    lifts_third = reranker(facts(), "seen", candidates=4, network=lambda f, fade: f[:, :, 0] * 0 + [[0, 0, 9, 0]])
    before = fused.scores([np.array([], np.int64)])
    after = replace(fused, reranker=lifts_third).scores([np.array([], np.int64)])
    np.testing.assert_allclose(after[0, 1:] - before[0, 1:], [0, 0, 9, 0], atol=1e-6)
    assert replace(fused, reranker=lifts_third).asks_time and not fused.asks_time
    assert replace(fused, reranker=lifts_third).score_items([np.array([], np.int64)], np.array([3]))[0, 0] > 8


def test_nobody_gives_nothing() -> None:
    ranker = reranker(facts(), network=lambda f, fade: f[:, :, 0])
    scores_BN = np.zeros((0, 5), np.float32)
    ranker.adjust(Histories([]), scores_BN, np.zeros((0, 0, 5), np.float32))
    assert {f.name for f in fields(ItemFacts)} == set(vars(facts()))


def test_unknown_request_time_is_the_end_of_the_log() -> None:
    known = facts([(1, 0), (2, 3)])
    np.testing.assert_array_equal(
        feature("recency", known, someone()), feature("recency", known, someone(at_day=3 + 1 / DAY_S))
    )
    with pytest.raises(KeyError):
        feature("no such feature", known, someone())
