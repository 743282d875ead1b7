"""One moment for everybody: what came before it trains, what came after it judges. The split nearest to production.

In: the log in stable time order, with timestamps. Out: the part of each row.
"""

import math

import numpy as np
import polars as pl

from recops.data.splitters import _rows
from recops.errors import CallError
from recops.params import SplitParams


class GlobalTime:
    """`train` is strictly before the first cut, `valid` from it (included) to the second, `test` from there (included).

    The cuts are the timestamps of the positives that leave `test_fraction` of all positives to the test and
    `valid_fraction` to the validation; events at the very moment of a cut fall on its later side, so ties can make
    these parts larger. Rows that are not positives and come at or after the first cut are `unused`; with `remove_seen`
    so are later positives of an item that the user had before. `min_user_events` is not used: how many events a user
    will have is not known at the cut. Raises CallError for a log without timestamps or with too few moments.
    """

    def split(self, events: pl.DataFrame, *, remove_seen: bool, params: SplitParams) -> pl.Series:
        time = times_of(events, "global_time")
        positive = (events["signal"] == "positive").to_numpy()
        valid_from, test_from = cuts(np.sort(time[positive]), params)

        judged = positive
        if remove_seen:
            judged = _rows.first_of_pair(_rows.codes(events["user_id"]), _rows.codes(events["item_id"]), positive)
        part = np.where(time < valid_from, _rows.TRAIN, np.where(time < test_from, _rows.VALID, _rows.TEST))
        part[(time >= valid_from) & ~judged] = _rows.UNUSED
        return _rows.as_parts(part)


def times_of(events: pl.DataFrame, splitter: str) -> np.ndarray:
    """Microseconds of each row, int64 [E]. Raises CallError where one has none, in the name of the splitter."""
    missing = events["timestamp"].null_count()
    if missing:
        raise CallError(
            f"events: column timestamp is empty in {missing} of {len(events)} rows, which split.name: {splitter} "
            "cannot use; use leave_last_out for an ordered log, random for an unordered one"
        )
    return events["timestamp"].cast(pl.Int64).to_numpy()


def cuts(time: np.ndarray, params: SplitParams) -> tuple[int, int]:
    """When validation and test begin (microseconds), from the sorted times of all positives."""
    # Counted from the start and rounded up, so that a longer log never moves a cut back.
    first_test = math.ceil(round(len(time) * (1 - params.test_fraction), 6))
    first_valid = math.ceil(round(len(time) * (1 - params.test_fraction - params.valid_fraction), 6))
    if first_valid < first_test < len(time):
        valid_from, test_from = int(time[first_valid]), int(time[first_test])
        if time[0] < valid_from < test_from:
            return valid_from, test_from
    raise CallError(
        f"events: {len(time)} positives at {len(np.unique(time))} different times cannot be cut into train, valid and "
        f"test by split.valid_fraction {params.valid_fraction} and split.test_fraction {params.test_fraction}; "
        "use larger fractions, or split.name: leave_last_out"
    )
