"""What a user turned down: no positive of theirs, known from when it was said, and a short watch is none of it."""

from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import polars as pl

from recops.data.interactions import read_interactions
from recops.data.split import split_events
from recops.evaluation.judging import read_judging
from recops.params import EvaluateParams, EventKind, SplitParams
from recops.runtime import Scorer

KINDS = {
    "click": EventKind(signal="positive"),
    "play": EventKind(signal="positive", min_value=0.5),
    "dislike": EventKind(signal="negative"),
}
START = datetime(2024, 1, 1, tzinfo=UTC)
# By user u: a is clicked and disliked later, b only disliked, c watched for a moment; d and e are the judged ones.
# v dislikes what it chose last, at that very moment, so that the one before is its test.
LOG = [
    ("u", "a", "click", None),
    ("u", "f", "click", None),
    ("u", "a", "dislike", None),
    ("u", "b", "dislike", None),
    ("u", "c", "play", 0.1),
    *[("w", item, "click", None) for item in "abcdefg"],
    ("v", "a", "click", None),
    ("u", "d", "click", None),
    ("u", "e", "play", 0.9),
    ("u", "g", "dislike", None),
    ("v", "b", "click", None),
    ("v", "c", "click", None),
    ("v", "e", "dislike", None),
    ("v", "e", "click", None),
]


def make(tmp_path: Path) -> Path:
    times = [START + timedelta(hours=n) for n in range(len(LOG))]
    rows = [(*row, time) for row, time in zip(LOG, times, strict=True)]
    schema = {"user_id": pl.String, "item_id": pl.String, "event": pl.String, "value": pl.Float32}
    frame = pl.DataFrame(rows, orient="row", schema={**schema, "timestamp": pl.Datetime("us", "UTC")})
    frame.write_parquet(tmp_path / "events.parquet")
    split_events(tmp_path / "events.parquet", tmp_path / "split", SplitParams(), KINDS, True)
    return tmp_path / "split"


def test_what_is_turned_down_never_trains_as_a_positive_and_is_no_target(tmp_path: Path) -> None:
    split = make(tmp_path)
    train = pl.read_parquet(split / "train.parquet").filter(pl.col("signal") == "positive")
    assert train.filter(user_id="u")["item_id"].to_list() == ["f"]
    test = dict(pl.read_parquet(split / "test.parquet").select("user_id", "item_id").iter_rows())
    assert test == {"u": "e", "v": "c", "w": "g"}


def test_it_is_no_candidate_from_when_it_was_said(tmp_path: Path) -> None:
    split = make(tmp_path)
    train = read_interactions(split / "train.parquet")
    judging = read_judging(split, "test", train, EvaluateParams(catalogue="all"), remove_seen=True)
    ids = np.array(["", *train.items.ids])
    refused = {user: ids[rows].tolist() for user, rows in zip(judging.user_ids, judging.refused or [], strict=True)}
    assert refused == {"w": [], "u": ["a", "b"], "v": []}
    alike = Scorer(train.num_items, item_scores=np.ones(train.num_items + 1, np.float32), needs_history=False)
    lists = {user: set(ids[row]) for user, row in zip(judging.user_ids, judging.rank(alike, 10).top_idx, strict=True)}
    assert not {"a", "b"} & lists["u"] and "c" in lists["u"]
    assert judging.of(np.array([0])).fingerprint() != judging.of(np.array([1])).fingerprint()
