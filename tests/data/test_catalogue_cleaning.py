"""Items that look like one, and categories for items without any: proposals that numbers, sizes and prices can veto."""

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from recops.data import catalogue_cleaning
from recops.data.catalogue_cleaning import (
    PAIRS_SCHEMA,
    _same_but_a_letter,
    _same_words,
    _words,
    guessed_by_name,
    guessed_by_neighbours,
    near_duplicates,
)


def catalogue(*rows: tuple[str, str | None, float | None]) -> pl.DataFrame:
    ids, titles, prices = zip(*rows, strict=True)
    return pl.DataFrame(
        {"item_id": ids, "title": titles, "price": prices, "categories": [None] * len(rows)},
        schema={"item_id": pl.String, "title": pl.String, "price": pl.Float32, "categories": pl.List(pl.String)},
    )


def alike(items: pl.DataFrame) -> np.ndarray:
    return np.tile(np.array([[1, 0]], np.float16), (len(items), 1))


def pairs(*rows: tuple[str, str | None, float | None]) -> list[tuple[str, str]]:
    items = catalogue(*rows)
    found = near_duplicates(items, alike(items))
    assert found.schema == pl.Schema(PAIRS_SCHEMA)
    return found.select("item_id", "into").rows()


def test_the_same_words_at_about_the_same_price_are_one_item() -> None:
    assert pairs(("a", "Umbrella WHITE/RED", 4.0), ("b", "umbrella red, white", 5.0)) == [("b", "a")]
    assert pairs(("a", "Candle holder", None), ("b", "Candle hodler", 5.0)) == [("b", "a")]


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (("Voucher £30.00", 5.0), ("Voucher £20.00", 5.0)),
        (("Filler pad 45x45cm", 5.0), ("Filler pad 45x30cm", 5.0)),
        (("Hamlet (1996)", None), ("Hamlet (2000)", None)),
        (("Bowl small", 5.0), ("Bowl large", 5.0)),
        (("Bag red", 5.0), ("Bag bed", 5.0)),
        (("Tray", 5.0), ("Tray", 7.0)),
        (("Rose rose bowl", 5.0), ("Rose bowl", 5.0)),
        ((None, 5.0), (None, 5.0)),
    ],
)
def test_another_number_size_or_price_is_another_item(one: tuple, other: tuple) -> None:
    assert pairs(("a", *one), ("b", *other)) == []


word = st.sampled_from(["red", "bed", "45", "4.5", "chair", "chairs", "hcair", "table", "x²", "rose"])
title = st.none() | st.lists(word, max_size=4).map(" ".join)


@given(st.lists(title, max_size=8))
def test_all_that_have_the_same_words_are_found(titles: list[str | None]) -> None:
    rows = [(str(n), title, None) for n, title in enumerate([*titles, None])]
    asked = [n for n, title in enumerate(titles) if title and titles.count(title) <= 3]
    expected = [(b, a) for a in asked for b in asked if a < b and _same_words(_words(titles[a]), _words(titles[b]))]
    assert sorted(pairs(*rows)) == sorted((str(b), str(a)) for b, a in expected)


def test_only_those_that_may_be_the_same_are_compared(monkeypatch: pytest.MonkeyPatch) -> None:
    compared = []
    monkeypatch.setattr(catalogue_cleaning, "_same_words", lambda a, b: compared.append((a, b)))
    assert pairs(*((f"i{n}", f"Product {n}", None) for n in range(50))) == []
    assert compared == []


def test_what_many_items_are_called_says_nothing() -> None:
    assert len(pairs(*((f"i{n}", "thrown away", None) for n in range(3)))) == 3
    assert pairs(*((f"i{n}", "thrown away", None) for n in range(4))) == []


def test_only_what_the_encoder_finds_alike_is_compared() -> None:
    items = catalogue(("a", "Bowl", 5.0), ("b", "Bowl", 5.0), ("c", "Bowl", 5.0))
    vectors = np.array([[1, 0], [0, 1], [0, 0]], np.float16)
    assert near_duplicates(items, vectors).is_empty()
    assert near_duplicates(items.clear(), vectors[:0]).is_empty()


@given(st.text(st.characters(categories=["Ll"]), min_size=5, max_size=9), st.data())
def test_one_letter_is_forgiven_in_both_directions(word: str, data: st.DataObject) -> None:
    place = data.draw(st.integers(0, len(word) - 2))
    for changed in (
        word[:place] + word[place + 1 :],
        word[:place] + "q" + word[place + 1 :],
        word[:place] + word[place + 1] + word[place] + word[place + 2 :],
    ):
        assert _same_but_a_letter(word, changed) and _same_but_a_letter(changed, word)
    assert not _same_but_a_letter(word, word[:-2] + "qqqq")


def test_categories_come_from_the_likest_items() -> None:
    """By hand: cosines .8 to two of x, .6 to one of x and y: x has all of the votes, y .6 of 2.2."""
    items = catalogue(("a", "A", None), ("b", "B", None), ("c", "C", None), ("new", "N", None), ("mute", None, None))
    items = items.with_columns(categories=pl.Series([["x"], ["x"], ["x", "y"], [], None]))
    vectors = np.array([[0.8, 0.6], [0.8, -0.6], [0.6, 0.8], [1, 0], [0, 0]], np.float16)
    assert guessed_by_neighbours(items, vectors, 0.5) == {"new": ["x"]}
    assert guessed_by_neighbours(items, vectors, 0.25) == {"new": ["x", "y"]}
    assert guessed_by_neighbours(items, vectors, 1.0) == {"new": ["x"]}
    assert guessed_by_neighbours(items.with_columns(categories=pl.Series([[]] * 5)), vectors, 0.5) == {}


def test_a_name_is_chosen_where_it_is_clearly_ahead() -> None:
    items = catalogue(("bag", "Bag", None), ("between", "Between", None), ("own", "Own", None), ("mute", None, None))
    items = items.with_columns(categories=pl.Series([None, None, ["mine"], None]))
    vectors = np.array([[1, 0], [0.7, 0.71], [0, 1], [0, 0]], np.float16)
    names = np.array([[1, 0], [0, 1]], np.float32)
    # .71 against .7 is as good as even: 1 / (1 + exp(-.01 / .05)) = .55.
    assert guessed_by_name(items, vectors, ["bags", "toys"], names, 0.6) == {"bag": ["bags"]}
    assert guessed_by_name(items, vectors, ["bags", "toys"], names, 0.54) == {"bag": ["bags"], "between": ["toys"]}
    assert guessed_by_name(items, vectors, ["bags"], names[:1], 1.0) == {"bag": ["bags"], "between": ["bags"]}
