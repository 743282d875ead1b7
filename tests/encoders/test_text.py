"""Texts by a network whose vectors can be worked by hand, and the same vector for a text whatever stands beside it."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from recops.encoders.text import MAX_CHARACTERS, Text
from tests.encoders.small_encoders import small_text


@pytest.fixture(scope="module")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> Text:
    return small_text(tmp_path_factory.mktemp("text"))


def test_a_text_is_the_mean_of_its_words_at_length_1(encoder: Text) -> None:
    vectors = encoder.encode([{"title": "red green"}, {"title": "blue"}, {"title": "unknown"}])
    half, one = np.array([1, 2, 0]) / np.sqrt(5), [0, 0, 1]
    np.testing.assert_allclose(vectors, [half, one, [0, 0, 0]], atol=1e-6)
    assert vectors.dtype == np.float32


@pytest.mark.parametrize(
    ("item", "text"),
    [
        ({"title": "Heat ", "text": " Two men.", "categories": ["Crime", "Drama"]}, b"Heat. Two men.. Crime, Drama"),
        ({"title": None, "text": "", "categories": ["Crime", None, "Crime"]}, b"Crime"),
        ({"title": "  ", "categories": []}, None),
        ({"item_id": "7"}, None),
        ({"title": "a\ud800b"}, b"a?b"),
    ],
)
def test_content_is_title_text_and_categories(encoder: Text, item: dict, text: bytes | None) -> None:
    assert encoder.content(item) == text


def test_nothing_to_encode_is_a_row_of_zeros(encoder: Text) -> None:
    assert encoder.encode([{"item_id": "1"}, {"title": "red"}]).tolist() == [[0, 0, 0], [1, 0, 0]]
    assert encoder.encode([]).shape == (0, 3)


texts = st.lists(st.lists(st.sampled_from(["red", "green", "blue", "grey"]), min_size=1, max_size=20), min_size=1)


@settings(max_examples=40)
@given(texts)
def test_a_vector_does_not_depend_on_what_is_encoded_with_it(encoder: Text, words: list[list[str]]) -> None:
    contents = [" ".join(some).encode() for some in words]
    together, reasons = encoder.encode_contents(contents)
    alone = np.concatenate([encoder.encode_contents([content])[0] for content in contents])
    assert together.tobytes() == alone.tobytes()
    assert reasons == [None] * len(contents)


def test_a_long_text_is_cut(tmp_path: Path) -> None:
    short = small_text(tmp_path, max_tokens=2)
    assert short.encode([{"title": "red red blue blue"}]).tolist() == [[1, 0, 0]]
    assert len(short.content({"title": "x" * 99_999})) == MAX_CHARACTERS


def test_questions_are_in_the_space_of_the_items(tmp_path: Path) -> None:
    plain = small_text(tmp_path / "plain")
    np.testing.assert_array_equal(plain.query(["red", " ", "blue"]), [[1, 0, 0], [0, 0, 0], [0, 0, 1]])
    prefixed = small_text(tmp_path / "prefixed", query_prefix="green ", prefix="blue ")
    np.testing.assert_allclose(prefixed.query(["red"])[0], np.array([1, 2, 0]) / np.sqrt(5), atol=1e-6)
    np.testing.assert_allclose(prefixed.encode([{"title": "red"}])[0], np.array([1, 0, 4]) / np.sqrt(17), atol=1e-6)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"url": "ftp://somewhere", "model": "m"}, "must start with http"),
        ({"url": "http://somewhere"}, "url needs model"),
        ({"key_env": "KEY"}, "only with url"),
        ({"max_token": 3}, "Extra inputs are not permitted"),
    ],
)
def test_options_that_contradict_each_other(options: dict, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        Text.Options.model_validate(options)
