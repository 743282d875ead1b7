"""What of the table of items reaches a model, in the order of the vocabulary."""

from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import polars as pl

from recops.data.interactions import read_catalogue
from recops.data.vocabulary import Vocabulary


def write_items(path: Path, rows: list[tuple]) -> Path:
    types = {
        "item_id": pl.String,
        "published_at": pl.Datetime("us", "UTC"),
        "price": pl.Float32,
        "categories": pl.List(pl.String),
    }
    pl.DataFrame(rows, orient="row", schema=types).write_parquet(path)
    return path


def test_the_catalogue_stands_in_row_order_and_what_is_not_known_is_nan(tmp_path: Path) -> None:
    rows = [
        ("c", datetime(1970, 1, 2, tzinfo=UTC), None, ["red", "blue", "red"]),
        ("zz", datetime(1970, 1, 3, tzinfo=UTC), 7.0, ["blue"]),  # not in the vocabulary
        ("a", None, 2.5, []),
        ("b", datetime(1970, 1, 1, 0, 0, 1, 999_999, tzinfo=UTC), 1.0, ["red"]),
    ]
    found = read_catalogue(write_items(tmp_path / "items.parquet", rows), Vocabulary(["a", "b", "c", "d"]))
    np.testing.assert_array_equal(found.published_at, [np.nan, np.nan, 1, 86_400, np.nan])
    np.testing.assert_array_equal(found.price, np.array([np.nan, 2.5, 1, np.nan, np.nan], np.float32))
    assert found.category_offsets.tolist() == [0, 0, 0, 1, 3, 3]
    assert found.category_idx.tolist() == [1, 0, 1]  # blue, red


def test_a_table_of_nothing_known(tmp_path: Path) -> None:
    found = read_catalogue(write_items(tmp_path / "items.parquet", []), Vocabulary(["a"]))
    assert np.isnan(found.price).all() and np.isnan(found.published_at).all()
    assert found.category_offsets.tolist() == [0, 0, 0] and not len(found.category_idx)
    assert np.isnan(read_catalogue(tmp_path / "none.parquet", Vocabulary(["a"])).price).all()
