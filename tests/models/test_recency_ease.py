"""recency_ease: the links of EASE, read with votes that decay."""

import numpy as np
import polars as pl
import pytest

from recops.data.interactions import make_interactions
from recops.errors import TooLargeError
from recops.models.ease import Ease
from recops.models.recency_ease import RecencyEase
from recops.release.export import torch_scorer

GENERATOR = np.random.default_rng(0)
PAIRS = [(f"u{u:02}", f"i{i}") for u in range(30) for i in GENERATOR.permutation(6)[: 2 + u % 3]]
TRAIN = make_interactions(
    pl.DataFrame(PAIRS, schema=["user_id", "item_id"], orient="row").with_columns(
        timestamp=pl.lit(None, pl.Datetime("us", "UTC")),
        value=pl.lit(None, pl.Float32),
        weight=pl.lit(1.0, pl.Float32),
        signal=pl.lit("positive"),
    )
)


def test_the_last_item_votes_most_and_the_others_by_age() -> None:
    """Ages 1 and 0: e^(-1/5) + .05 = .868731 and 1 + .05 times what EASE gives each item."""
    plain = Ease(Ease.Config(regularization=2.0), TRAIN.num_users, TRAIN.num_items, 0)
    recent = RecencyEase(RecencyEase.Config(regularization=2.0), TRAIN.num_users, TRAIN.num_items, 0)
    for model in (plain, recent):
        model.fit(TRAIN)
    of_first, of_last = torch_scorer(plain.parts()).scores([np.array([2]), np.array([5])])[:, 1:]
    both = torch_scorer(recent.parts()).scores([np.array([2, 5])])[0, 1:]
    np.testing.assert_allclose(both, 0.868731 * of_first + 1.05 * of_last, rtol=1e-4, atol=1e-6)


def test_a_large_catalogue_names_its_own_key() -> None:
    with pytest.raises(TooLargeError, match=r"train\.models\.recency_ease\.max_items: 10 allowed, 11 items found"):
        RecencyEase(RecencyEase.Config(max_items=10), 1, 11, 0)
