"""Stored histories and events told since, together; worked by hand."""

import pytest

from recops.serving.live import Kinds, combined
from recops.serving.retrieval import Stored
from recops.store import Known, LiveEvent

USUAL = Kinds.of({})


def told(item_id: str, at: int, event: str = "click", value: float | None = None) -> LiveEvent:
    return LiveEvent(item_id, event, value, at)


def test_without_events_a_history_is_what_was_stored():
    known = Known(["a", "b"], [1, 2], ["z"], [])
    assert combined(known, USUAL, True) == Stored(["a", "b"], [1, 2], ["z"])
    assert combined(known, USUAL, False) == Stored(["a", "b"], None, ["z"])


def test_events_stand_where_their_times_put_them():
    known = Known(["a", "b"], [10, 20], [], [told("late", 15), told("d", 30), told("c", 25), told("same", 20)])
    assert combined(known, USUAL, True) == Stored(["a", "late", "b", "same", "c", "d"], [10, 15, 20, 20, 25, 30], [])
    assert combined(known, USUAL, False).times is None


def test_after_a_history_without_times_events_come_last():
    known = Known(["a", "b"], None, [], [told("d", 30), told("c", 25)])
    assert combined(known, USUAL, True) == Stored(["a", "b", "c", "d"], [None, None, 25, 30], [])


def test_only_what_is_positive_counts_and_what_was_turned_down_is_gone():
    events = [
        told("seen", 1, "impression"),
        told("b", 2, "dislike"),
        told("c", 3, "purchase"),
        told("c", 4, "return"),
        told("d", 5),
    ]
    known = Known(["a", "b"], [0, 0], ["z"], [*events, told("z", 6)])
    assert combined(known, USUAL, False) == Stored(["a", "d"], None, ["z", "b", "c"])


@pytest.mark.parametrize(("value", "counts"), [(None, False), (3.5, False), (4.0, True)])
def test_a_low_value_is_no_positive(value, counts):
    kinds = Kinds.of({"params": {"ingest": {"events": {"rating": {"signal": "positive", "min_value": 4}}}}})
    assert kinds.is_positive("rating", value) == counts
    assert kinds.is_positive("click", None)  # not named: as usual
    assert not kinds.is_positive("wink", None)
    assert combined(Known([], None, [], [told("a", 1, "rating", value)]), kinds, False).item_ids == ["a"] * counts


def test_a_model_of_ratings_knows_its_own_kinds_alone():
    params = {"ingest": {"events": {"rating": {"signal": "positive"}}}, "train": {"task": "rating"}}
    kinds = Kinds.of({"params": params})
    assert set(kinds.events) == {"rating"} and not kinds.is_positive("click", None)
