"""Votes of links against sums worked by hand."""

import math

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from recops.links import Links

# Links of three items: 1 -> {2: .5, 3: .25}, 2 -> {3: 1}, 3 -> {}.
LINKS = {
    "indptr": np.array([0, 0, 2, 3, 3], np.int64),
    "indices": np.array([2, 3, 3], np.int32),
    "weights": np.array([0.5, 0.25, 1.0], np.float32),
}


def test_links_vote_alike_without_decay():
    votes = Links(**LINKS).votes(np.array([1, 2]), 4)
    assert votes.tolist() == [0, 0, 0.5, 1.25]
    assert votes.dtype == np.float32


def test_links_vote_by_age():
    # 2 is the last event (age 0), 1 the one before: weights 1 + .1 and exp(-1/2) + .1.
    votes = Links(**LINKS, decay=2.0, floor=0.1).votes(np.array([1, 2]), 4)
    older = math.exp(-0.5) + 0.1
    np.testing.assert_allclose(votes, [0, 0, 0.5 * older, 0.25 * older + 1.1], rtol=1e-6)


def test_links_count_a_repeated_event_each_time_and_only_the_window():
    assert Links(**LINKS).votes(np.array([1, 1]), 4).tolist() == [0, 0, 1.0, 0.5]
    assert Links(**LINKS, window=1).votes(np.array([1, 2]), 4).tolist() == [0, 0, 0, 1.0]


def test_links_of_nothing_are_zero():
    assert Links(**LINKS).votes(np.array([], np.int64), 4).tolist() == [0, 0, 0, 0]
    assert Links(**LINKS).votes(np.array([3]), 4).tolist() == [0, 0, 0, 0]


@settings(deadline=None)
@given(
    st.lists(st.lists(st.integers(1, 3), max_size=5), max_size=4),
    st.lists(st.integers(0, 3), max_size=5),
    st.sampled_from([None, 1.5]),
    st.sampled_from([None, 2]),
)
def test_votes_for_some_rows_are_those_of_all(histories, rows, decay, window):
    links, rows = Links(**LINKS, decay=decay, floor=0.1, window=window), np.array(rows, np.int64)
    arrays = [np.array(history, np.int64) for history in histories]
    expected = np.array([links.votes(history, 4)[rows] for history in arrays]).reshape(len(arrays), len(rows))
    np.testing.assert_allclose(links.votes_for(arrays, rows), expected, rtol=1e-6)
    items = np.array([item for history in histories for item in history], np.int64)
    np.testing.assert_array_equal(links.between(items)[:, rows], links.between(items, rows))
