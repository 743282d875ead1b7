"""Logs that benchmarks make up. In: who had which item. Out: `Interactions` without times or values."""

import numpy as np

from recops.data.interactions import Interactions
from recops.data.vocabulary import Vocabulary


def made_log(user_idx: np.ndarray, item_idx: np.ndarray, num_items: int) -> Interactions:
    """Of E events by user rows (rising from 1 without a gap) and item rows (1..num_items), each user's in order."""
    num_users = int(user_idx[-1])
    return Interactions(
        user_idx=user_idx.astype(np.int32),
        item_idx=item_idx.astype(np.int32),
        timestamp=None,
        value=np.full(len(user_idx), np.nan, np.float32),
        weight=np.ones(len(user_idx), np.float32),
        offsets=np.searchsorted(user_idx, np.arange(num_users + 2)).astype(np.int64),
        users=Vocabulary(f"{user:07d}" for user in range(num_users)),
        items=Vocabulary(f"{item:07d}" for item in range(num_items)),
    )
