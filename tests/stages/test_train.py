"""Making a model from the settings."""

import polars as pl
import pytest

from recops.data.interactions import SPLIT_COLUMNS, make_interactions
from recops.errors import CallError
from recops.params import TrainParams
from recops.stages.train import make_model


@pytest.fixture
def train():
    row = {"user_id": "u", "item_id": "i", "timestamp": 0, "event": "click", "value": None}
    frame = pl.DataFrame([{**row, "signal": "positive", "weight": 1.0}]).select(SPLIT_COLUMNS)
    return make_interactions(frame.with_columns(pl.col("value").cast(pl.Float32)))


@pytest.mark.parametrize(
    ("settings", "remove_seen", "learns"),
    [
        ({}, True, False),
        ({}, False, True),
        ({"learn_repeats": True}, True, True),
        ({"learn_repeats": False}, False, False),
    ],
)
def test_repeats_are_learnt_where_they_may_be_shown(train, settings, remove_seen, learns):
    model = make_model("sasrec", train, TrainParams(models={"sasrec": settings}), remove_seen)
    assert model.config.learn_repeats is learns


def test_a_wrong_hyper_parameter_is_named(train):
    with pytest.raises(CallError, match=r"train\.models\.ease\.lambda"):
        make_model("ease", train, TrainParams(models={"ease": {"lambda": 1}}), True)
