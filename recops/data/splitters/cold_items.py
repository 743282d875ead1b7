"""One moment for everybody, and after it only items that nobody had met before: how new items fare without training.

In: the log in stable time order, with timestamps. Out: the part of each row. A model that knows items by what was
learned of them alone cannot recommend a single one of those judged here; one with content can.
"""

import numpy as np
import polars as pl

from recops.data.splitters import _rows
from recops.data.splitters.global_time import cuts, times_of
from recops.params import SplitParams


class ColdItems:
    """Cuts as `global_time` does, so that `train` is the same. `valid` are the positives from the first cut (included)
    to the second of items whose first event of any kind lies there, `test` those after it of items first seen after it.

    All other positives from the first cut on, repeats with `remove_seen` among them, are `context`: not judged, but
    history of whoever is judged later. What is not positive is `unused` there. Raises CallError for a log without
    timestamps or with too few moments.
    """

    def split(self, events: pl.DataFrame, *, remove_seen: bool, params: SplitParams) -> pl.Series:
        time = times_of(events, "cold_items")
        positive = (events["signal"] == "positive").to_numpy()
        valid_from, test_from = cuts(np.sort(time[positive]), params)
        item = _rows.codes(events["item_id"])
        first_seen = np.full(int(item.max(initial=-1)) + 1, np.iinfo(np.int64).max)
        np.minimum.at(first_seen, item, time)

        judged = positive
        if remove_seen:
            judged = _rows.first_of_pair(_rows.codes(events["user_id"]), item, positive)
        part = np.where(time < valid_from, _rows.TRAIN, np.where(positive, _rows.CONTEXT, _rows.UNUSED))
        part[judged & (time < test_from) & (first_seen[item] >= valid_from)] = _rows.VALID
        part[judged & (first_seen[item] >= test_from)] = _rows.TEST
        return _rows.as_parts(part)
