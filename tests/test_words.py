"""The words of the items: what is found and in which order, the same bytes for the same items."""

import sqlite3

import pytest

from recops.words import Words, write_words

ROWS = [
    ("Red mug", "A mug of stoneware for coffee", ["Kitchen"]),
    ("Blue bowl", None, ["Kitchen", "Café"]),
    (None, "Mugs, mugs and mugs", None),
    ('"Quoted" AND (odd) * title:x', "nul\x00inside \ud83d half", []),
]


@pytest.fixture
def words(tmp_path):
    write_words(tmp_path / "words.sqlite", ROWS)
    found = Words(tmp_path / "words.sqlite")
    yield found
    found.close()


def test_stems_and_accents_are_forgiven(words):
    assert words.search(["mug"])[0].tolist() == [3, 1]
    assert words.search(["MUGS"])[0].tolist() == [3, 1]
    assert words.search(["cafe"])[0].tolist() == [2]


def test_more_and_rarer_words_count_more(words):
    rows, scores = words.search(["mug", "coffee"])
    assert rows[0] == 1
    assert (scores[:-1] >= scores[1:]).all()
    assert words.search(["mug", "coffee"], k=1)[0].tolist() == [1]


def test_none_is_found_for_nothing(words):
    assert len(words.search([])[0]) == len(words.search(["zebra"])[0]) == 0
    assert words.having("").tolist() == words.having("...").tolist() == []
    assert words.which_have("mug", []) == set()


@pytest.mark.parametrize(
    "text", ['"', "a AND", "*", "title:x", "NEAR(a b)", "a\x00b", "(", "-x", "'; DROP TABLE words"]
)
def test_no_word_is_a_command(words, text):
    words.search([text])
    words.having(text)
    words.which_have(text, [1, 2])
    assert len(words) == 4


def test_phrases_stand_together(words):
    assert words.having("red mug").tolist() == [1]
    assert words.having("mug red").tolist() == []
    assert words.which_have("kitchen", [1, 2, 3]) == {1, 2}


def test_text_and_what_is_missing(words):
    assert words.text(1) == "A mug of stoneware for coffee"
    assert words.text(2) == words.text(99) == ""
    assert words.text(4) == "nul inside ? half"


def test_the_same_items_are_the_same_bytes_and_the_file_is_never_written(tmp_path):
    for name in ("a", "b"):
        write_words(tmp_path / name, ROWS * 50)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()
    found = Words(tmp_path / "a")
    with pytest.raises(sqlite3.OperationalError):
        found.put(1, ROWS[0])
    found.close()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a", "b"]


def test_items_come_and_change_in_memory():
    words = Words()
    words.put(7, ROWS[0])
    assert words.search(["mug"])[0].tolist() == [7]
    words.put(7, ROWS[1])
    assert words.search(["mug"])[0].tolist() == []
    assert words.search(["bowl"])[0].tolist() == [7]
    words.close()
