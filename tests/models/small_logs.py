"""Small logs for tests of models."""

from collections.abc import Sequence

import polars as pl

from recops.data.interactions import Interactions, make_interactions


def positives(rows: Sequence[tuple[str, str]]) -> Interactions:
    """A train part of (user, item) in this order, without times or values, each of weight 1."""
    frame = pl.DataFrame(rows, schema=["user_id", "item_id"], orient="row").with_columns(
        timestamp=pl.lit(None, pl.Datetime("us", "UTC")),
        value=pl.lit(None, pl.Float32),
        signal=pl.lit("positive"),
        weight=pl.lit(1.0),
    )
    return make_interactions(frame)
