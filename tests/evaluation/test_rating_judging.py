"""Who is judged by ratings, by which figures and in which segments; worked by hand."""

from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from recops.data.interactions import read_interactions
from recops.errors import CallError
from recops.evaluation.rating_judging import RatingJudging, read_rating_judging
from recops.params import EvaluateParams
from recops.runtime import Scorer


def write(path: Path, *rows: tuple[str, str, float | None]) -> None:
    schema = {"user_id": pl.String, "item_id": pl.String, "value": pl.Float32}
    times = [datetime(2024, 1, 1, tzinfo=UTC) + timedelta(hours=n) for n in range(len(rows))]
    pl.DataFrame(rows, schema=schema, orient="row").with_columns(
        pl.Series("timestamp", times, dtype=pl.Datetime("us", "UTC")),
        event=pl.lit("rating"),
        signal=pl.lit("positive"),
        weight=pl.lit(1.0, pl.Float32),
    ).write_parquet(path)


@pytest.fixture
def judging(tmp_path: Path) -> RatingJudging:
    """ann has six ratings to learn from, bob one; a has most of them. dan was never trained on, nor was z."""
    write(tmp_path / "train.parquet", *[("ann", "a", 4.0)] * 5, ("ann", "b", 2.0), ("bob", "a", 3.0))
    write(tmp_path / "test.parquet", ("ann", "b", 4.0), ("bob", "z", 3.0), ("ann", "a", 2.0), ("dan", "a", 3.0))
    return read(tmp_path)


def read(folder: Path, **settings: int) -> RatingJudging:
    train = read_interactions(folder / "train.parquet")
    return read_rating_judging(folder, "test", train, EvaluateParams(bootstrap_samples=100, **settings), True)


def exact(judging: RatingJudging) -> Scorer:
    """Says 3 for ann and a, 3 for ann and b, 9 for bob."""
    return Scorer(
        num_items=2,
        user_table=np.array([[0], [3], [9]], np.float32),
        item_vectors=np.array([[0], [1], [1]], np.float32),
    )


def test_the_figures_and_their_segments(judging: RatingJudging) -> None:
    found = judging.evaluate(exact(judging))
    scale, fallback = judging.ratings.scale, judging.ratings.fallback
    assert (scale.lowest, scale.highest) == (2, 4)
    # ann is off by 1 twice; the rest are means: of bob, and of a.
    errors = [1, 1, float(scale.user_means[2]) - 3, float(fallback[1]) - 3]
    assert found["metrics"]["rmse"]["value"] == pytest.approx(np.sqrt(np.mean(np.square(errors))))
    assert found["metrics"]["mae"]["value"] == pytest.approx(np.mean(np.abs(errors)))
    assert found["metrics"]["rmse"]["users"] == 3
    segments = {name: (part["users"], part["metrics"]["rmse"]["value"]) for name, part in found["segments"].items()}
    assert segments["users:heavy"] == (1, 1.0)
    assert segments["users:cold"] == (2, pytest.approx(np.sqrt((errors[2] ** 2 + errors[3] ** 2) / 2)))
    assert segments["users:warm"] == (0, None)
    assert segments["items:head"] == (2, pytest.approx(np.sqrt((1 + errors[3] ** 2) / 2)))
    assert segments["items:tail"] == (1, 1.0)
    assert segments["items:new"] == (1, pytest.approx(abs(errors[2])))
    assert found["users"] == {"judged": 3, "not_judged": {}, "targets": 4, "unknown_targets": 1}


def test_one_figure_over_all_and_no_other_name(judging: RatingJudging) -> None:
    figures = judging.evaluate(exact(judging))["metrics"]
    for name in ("rmse", "mae"):
        assert judging.mean(exact(judging), name) == figures[name]["value"]
    with pytest.raises(CallError, match=r"evaluate.metric: .*rmse or mae, found 'ndcg@10'"):
        judging.mean(exact(judging), "ndcg@10")
    assert judging.lower_is_better and len(judging) == 3


def test_a_sample_says_whom_it_leaves_out(judging: RatingJudging, tmp_path: Path) -> None:
    some = read(tmp_path, max_users=2)
    assert len(some) == 2 and some.not_judged == {"left out by evaluate.max_users": 1}
    assert set(some.user_ids) < {"ann", "bob", "dan"}
    assert some.fingerprint() != judging.fingerprint() == read(tmp_path).fingerprint()


def test_a_rating_without_value_is_told_by_file_column_and_kind(judging: RatingJudging, tmp_path: Path) -> None:
    write(tmp_path / "test.parquet", ("ann", "b", None), ("bob", "z", float("nan")), ("ann", "a", 2.0))
    with pytest.raises(CallError, match=r"test.parquet: column value: 2 of 3 rows .* \(kinds: rating\)"):
        read(tmp_path)
