"""A random share of each part: for logs that are declared unordered, where there is no last event to hold out.

In: the log in any order. Out: the part of each row. It says nothing about the future: training data may be later than
what it is judged on, and every report marks it so.
"""

import hashlib

import numpy as np
import polars as pl

from recops.data.splitters import _rows
from recops.params import SplitParams


class Random:
    """Every (user, item) pair falls into one part, drawn from its ids and `params.seed` alone, so that neither the
    order of rows nor other rows change it. With `remove_seen` only the first positive of a judged pair is judged, the
    rest is `unused`. Rows that are not positives are `train` or, in a judged pair, `unused`. Users with fewer than
    `params.min_user_events` positives are all `train`. An empty log gives an empty answer.

    `params.pairs: undirected`: items are users, and (a, b) says the same as (b, a). Both then fall into one part, which
    is `train` where either of the two has too few.
    """

    def split(self, events: pl.DataFrame, *, remove_seen: bool, params: SplitParams) -> pl.Series:
        user, item = _rows.codes(events["user_id"]), _rows.codes(events["item_id"])
        positive = (events["signal"] == "positive").to_numpy()
        is_undirected = params.pairs == "undirected"
        share = _share(_undirected(events) if is_undirected else events, params.seed)
        part = np.full(len(share), _rows.TRAIN, dtype=np.uint8)
        part[share < params.test_fraction + params.valid_fraction] = _rows.VALID
        part[share < params.test_fraction] = _rows.TEST

        num_users = int(user.max(initial=-1)) + 1
        enough = np.bincount(user[positive], minlength=num_users) >= params.min_user_events
        part[~enough[user]] = _rows.TRAIN
        if is_undirected:
            few = events["user_id"].filter(pl.Series(~enough[user])).unique()
            part[events["item_id"].is_in(few.to_list()).to_numpy()] = _rows.TRAIN
        judged = _rows.first_of_pair(user, item, positive) if remove_seen else positive
        part[(part != _rows.TRAIN) & ~judged] = _rows.UNUSED
        return _rows.as_parts(part)


def _undirected(events: pl.DataFrame) -> pl.DataFrame:
    """The ids of each pair in the order of the alphabet."""
    low, high = pl.min_horizontal("user_id", "item_id"), pl.max_horizontal("user_id", "item_id")
    return events.select(low.alias("user_id"), high.alias("item_id"))


def _share(events: pl.DataFrame, seed: int) -> np.ndarray:
    """A number in [0, 1) for each row (float64 [E]), the same for the same user, item and seed."""
    mixed = np.full(len(events), np.uint64(seed & 0xFFFF_FFFF_FFFF_FFFF))
    for column in ("user_id", "item_id"):
        ids = events[column].cast(pl.Categorical)
        known = ids.unique()
        digests = [hashlib.blake2b(id_.encode(), digest_size=8).digest() for id_ in known.cast(pl.String)]
        hashes = np.zeros(int((rows := known.to_physical().to_numpy()).max(initial=0)) + 1, dtype=np.uint64)
        hashes[rows] = np.frombuffer(b"".join(digests), dtype="<u8")
        mixed = _mix(mixed ^ hashes[ids.to_physical().to_numpy()])
    return (mixed >> np.uint64(11)) * 2.0**-53


def _mix(x: np.ndarray) -> np.ndarray:
    """The finaliser of splitmix64 on uint64 [E]: every bit of the input changes half of the output's."""
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))
