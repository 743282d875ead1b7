"""What the benchmark of new items withholds, on a split small enough to know."""

from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import polars as pl

from benchmarks.cold_items.__main__ import by_length
from benchmarks.cold_items.chosen import among_new
from benchmarks.cold_items.data import withhold
from recops.evaluation.judging import Judging
from recops.params import EvaluateParams
from recops.runtime import Scorer


def part(rows: list[str], hours: list[int]) -> pl.DataFrame:
    return pl.DataFrame(
        {
            "user_id": [row[0] for row in rows],
            "item_id": [row[1] for row in rows],
            "timestamp": [datetime(2024, 1, 1, tzinfo=UTC) + timedelta(hours=hour) for hour in hours],
            "signal": ["positive" if row[2:] != "-" else "negative" for row in rows],
        }
    )


def test_the_last_item_of_each_user_is_withheld_and_stays_in_the_history(tmp_path: Path) -> None:
    """All events of it; of users with too few none; where nobody else had it, it is not judged."""
    split, warm = tmp_path / "split", tmp_path / "warm"
    split.mkdir()
    rows = ["ua", "ub", "uc", "uc", "ud-", "va", "vb", "wc", "wa", "wb", "wd"]
    part(rows, list(range(len(rows)))).write_parquet(split / "train.parquet")
    part(["ve"], [20]).write_parquet(split / "context.parquet")
    pl.DataFrame({"item_id": ["a"]}).write_parquet(split / "first_seen.parquet")
    withhold(split, warm)

    def pairs(path: Path) -> list[str]:
        return pl.read_parquet(path).select(pl.col("user_id") + pl.col("item_id")).to_series().to_list()

    assert pairs(split / "train.parquet") == ["ua", "ub", "ud", "va", "vb", "wc", "wa", "wb"]
    assert pairs(split / "context.parquet") == ["uc", "wd", "ve"]
    assert sorted(pairs(warm / "valid.parquet") + pairs(warm / "test.parquet")) == ["uc"]


def judging(histories: list[list[int]]) -> Judging:
    return Judging(
        user_ids=[f"u{n}" for n in range(len(histories))],
        histories=[np.array(history, np.int64) for history in histories],
        targets=[np.array([4])] * len(histories),
        item_counts=np.array([0, 3, 1, 1, 0, 0]),
        fallback=np.zeros(6, np.float32),
        settings=EvaluateParams(),
        remove_seen=True,
        refused=[np.array([5])] * len(histories),
    )


def test_among_new_items_nothing_that_was_trained_on_is_a_candidate() -> None:
    scorer = Scorer(5, item_scores=np.arange(6, dtype=np.float32), needs_history=False)
    assert judging([[1]]).rank(scorer, 3).top_idx.tolist() == [[4, 3, 2]]
    assert among_new(judging([[1]]), 3).rank(scorer, 3).top_idx.tolist() == [[4, 0, 0]]


def test_users_stand_with_those_of_about_the_same_history() -> None:
    knows = Scorer(5, item_scores=np.array([0, 0, 0, 0, 1, 0], np.float32), needs_history=False)
    does_not = Scorer(3, item_scores=np.zeros(4, np.float32), needs_history=False)
    found = by_length(judging([[], [], [1], [2], [1, 2], [1] * 4, [1] * 30]), knows, does_not)
    assert {label: row["users"] for label, row in found.items()} == {"0": 2, "1": 2, "2-4": 2}
    assert all((row["with"], row["without"], row["difference"]) == (1, 0, 1) for row in found.values())
