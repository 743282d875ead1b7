"""Each user's last positive is the test, the one before it the validation: the split of the SASRec paper.

In: the log in stable time order. Out: the part of each row. Needs an order, but no timestamps. It does not keep one
user's training data from being later than another user's test event: `global_time` does.
"""

import numpy as np
import polars as pl

from recops.data.splitters import _rows
from recops.params import SplitParams


class LeaveLastOut:
    """For a user with at least `params.min_user_events` positives: the last one that can be judged is `test`, the last
    such before it `valid`, and what comes before that `train`. With `remove_seen` a positive can be judged only if its
    item is none of the user's earlier positives, since items already seen are never recommended. A user's first
    positive is never judged: nothing would be known about the user.

    Whatever else a user has after the own `valid` row (or after `test`, where there is no `valid`) is `unused`. Users
    with fewer positives, or none that can be judged, are all `train`. An empty log gives an empty answer.
    """

    def split(self, events: pl.DataFrame, *, remove_seen: bool, params: SplitParams) -> pl.Series:
        user = _rows.codes(events["user_id"])
        positive = (events["signal"] == "positive").to_numpy()
        rows = np.arange(len(user))
        num_users = int(user.max(initial=-1)) + 1

        candidate = positive.copy()
        if remove_seen:
            candidate &= _rows.first_of_pair(user, _rows.codes(events["item_id"]), positive)
        enough = np.bincount(user[positive], minlength=num_users) >= params.min_user_events
        first_row = _last_row(user[::-1], rows[::-1], positive[::-1], num_users)
        candidate &= enough[user] & (rows != first_row[user])

        test_row = _last_row(user, rows, candidate, num_users)
        valid_row = _last_row(user, rows, candidate & (rows != test_row[user]), num_users)
        cut_row = np.where(valid_row >= 0, valid_row, test_row)

        part = np.full(len(user), _rows.TRAIN, dtype=np.uint8)
        part[(rows > cut_row[user]) & (cut_row[user] >= 0)] = _rows.UNUSED
        part[valid_row[valid_row >= 0]] = _rows.VALID
        part[test_row[test_row >= 0]] = _rows.TEST
        return _rows.as_parts(part)


def _last_row(user: np.ndarray, rows: np.ndarray, mask: np.ndarray, num_users: int) -> np.ndarray:
    """For each user the row that comes last among those in `mask` (in the order given), -1 for none."""
    last = np.full(num_users, -1, dtype=np.int64)
    last[user[mask]] = rows[mask]  # of repeated indices numpy keeps the last assignment
    return last
