"""Columns learnt from four items, worked by hand, and nothing learnt from any other."""

from datetime import UTC, datetime
from math import log1p, sqrt
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from recops.encoders.attributes import Attributes
from recops.errors import CallError
from tests.encoders.small_encoders import made


def day(number: int) -> datetime:
    return datetime(1970, 1, 1 + number, tzinfo=UTC)


# Bread in all: no column. Sweet in two of four. The colours as words, with one of one item. The size as a number.
ITEMS = [
    {"item_id": "1", "categories": ["bread", "sweet"], "price": 0.0, "attributes": '{"colour": "red", "size": "1"}'},
    {"item_id": "2", "categories": ["bread", "sweet"], "price": None, "attributes": '{"colour": "red", "size": 3}'},
    {"item_id": "3", "categories": ["bread"], "price": 2.0, "attributes": '{"colour": "blue", "audio": "a.wav"}'},
    {"item_id": "4", "categories": ["bread"], "published_at": day(10), "attributes": '{"colour": 4}'},
]


def fitted(folder: Path, items: list[dict], **options: Any) -> Any:
    settings = Attributes.fit(Attributes.Options(**options), items)
    return made("attributes", folder, settings["dim"], None, settings, **options)


def test_columns_are_what_differs_between_items() -> None:
    found = Attributes.fit(Attributes.Options(), ITEMS)
    assert found["columns"] == [
        ["category", "", "sweet"],
        ["number", "attributes.size", ""],
        ["number", "price", ""],
        ["word", "attributes.colour", "red"],
    ]
    np.testing.assert_allclose(found["mean"], [0.5, 2, log1p(2) / 2, 0.5])
    np.testing.assert_allclose(found["std"], [0.5, 1, log1p(2) / 2, 0.5])
    assert found["dim"] == 4


def test_every_column_is_standardised_and_a_missing_number_is_the_mean(tmp_path: Path) -> None:
    encoder = fitted(tmp_path, ITEMS)
    vectors = encoder.encode([*ITEMS[:3], {"item_id": "9"}, {"item_id": "8", "categories": ["bread", "new"]}])
    expected = [[1, -1, -1, 1], [1, 1, 0, 1], [-1, 0, 1, -1], [0, 0, 0, 0], [0, 0, 0, 0]]
    np.testing.assert_allclose(vectors, expected, atol=1e-6)
    assert vectors.dtype == np.float32


def test_rare_values_and_too_many(tmp_path: Path) -> None:
    all_of_them = Attributes.fit(Attributes.Options(min_items=1), ITEMS)["columns"]
    assert [column[2] for column in all_of_them if column[0] == "word"] == ["4", "blue", "red"]
    one = Attributes.fit(Attributes.Options(min_items=1, max_values=1), ITEMS)["columns"]
    assert [column[2] for column in one if column[0] == "word"] == ["red"]


def test_time_of_publication(tmp_path: Path) -> None:
    items = [{"published_at": day(0)}, {"published_at": day(2)}, {"published_at": None, "price": 1}]
    encoder = fitted(tmp_path, items)
    np.testing.assert_allclose(encoder.encode([{"published_at": day(3)}]), [[2]], atol=1e-6)


def test_a_list_is_a_word_for_each_and_truth_is_a_word(tmp_path: Path) -> None:
    items = [{"attributes": '{"tags": ["a", "b", "a"], "new": true}'}, {"attributes": '{"tags": ["b", ["c"]]}'}]
    columns = Attributes.fit(Attributes.Options(min_items=1), items)["columns"]
    assert columns == [["word", "attributes.new", "true"], ["word", "attributes.tags", "a"]]


@pytest.mark.parametrize("attributes", ["[1]", "7", "null", "{", '{"a": {"b": 1}}', '{"a": null}', "[" * 100_000, None])
def test_attributes_that_are_none_count_for_nothing(tmp_path: Path, attributes: str | None) -> None:
    encoder = fitted(tmp_path, ITEMS)
    assert not encoder.encode([{"item_id": "9", "attributes": attributes}]).any()


@pytest.mark.parametrize("number", ["1e400", "nan", "-inf", "1" + "0" * 400])
def test_numbers_that_are_none_are_words(number: str) -> None:
    items = [{"attributes": f'{{"a": "{number}"}}'}, {"attributes": '{"a": 2}'}, {"attributes": '{"a": 3}'}]
    assert all(kind == "word" for kind, _, _ in Attributes.fit(Attributes.Options(min_items=1), items)["columns"])


def test_values_far_from_all_seen_stay_finite_as_float16(tmp_path: Path) -> None:
    items = [{"attributes": '{"a": 1}'}, {"attributes": '{"a": 2}'}]
    encoder = fitted(tmp_path, items)
    assert np.isfinite(encoder.encode([{"attributes": '{"a": 1e90}'}]).astype(np.float16)).all()


def test_nothing_that_differs_is_told() -> None:
    with pytest.raises(CallError, match=r"encode\.encoders: attributes has nothing to encode: .* 2 items of the train"):
        Attributes.fit(Attributes.Options(), [{"item_id": "1", "price": 3}, {"item_id": "2", "price": 3}])


def test_a_number_far_from_0_keeps_its_deviation() -> None:
    """20,000 and 20,001 days: mean and deviation .5, though the squares are large."""
    found = Attributes.fit(Attributes.Options(), [{"attributes": '{"a": 20000}'}, {"attributes": '{"a": 20001}'}])
    np.testing.assert_allclose([found["mean"][0], found["std"][0]], [20000.5, sqrt(0.25)], rtol=1e-6)
