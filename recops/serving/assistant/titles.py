"""Finds items by how people write their titles: 'heat', 'The Matrix', 'Se7en', 'pulp ficton'.

In: titles by row. Out: rows. A title is known by several forms: without the year in brackets, with its article in
front ('Matrix, The'), without it, as it is written, by what stands in brackets beside it, and by what stands before a
colon. Knows nothing about questions beyond their words.
"""

import re
from collections.abc import Sequence
from difflib import SequenceMatcher

import numpy as np

from recops.serving.assistant.english import ARTICLES
from recops.serving.assistant.question import plain

LONGEST = 14  # words of a form
LIKENESS = 0.72  # Dice coefficient of trigrams from which a misspelt title is recognised
CLOSE, RATIO = 20, 0.88  # how many of the nearest are compared letter by letter, and from what share of equal ones
LEAST_CHARACTERS = 5  # of what may be misspelt
_YEAR = re.compile(r"\(\s*((?:18|19|20|21)\d\d)(?:\s*[-–]\s*(?:\d{4})?)?\s*\)\s*$")
_BRACKETS = re.compile(r"\(([^()]*)\)")
_AKA = re.compile(r"^\s*a\.?k\.?a\.?\s+", re.I)
_WORD = re.compile(r"[^\W_]+")


def year_of(title: str | None) -> int | None:
    """The year in brackets at the end of a title."""
    found = _YEAR.search(title or "")
    return int(found.group(1)) if found else None


def words_of(text: str) -> list[str]:
    return _WORD.findall(plain(text).replace("&", " and "))


def forms(title: str) -> tuple[list[str], list[str]]:
    """What a title is called, as words with spaces: its whole names, and shorter ones that others may bear as well."""
    bare = _YEAR.sub("", title).strip()
    names = [
        _BRACKETS.sub(" ", bare),
        *(re.sub(r"^\s*a\.?k\.?a\.?\s+", "", n, flags=re.I) for n in _BRACKETS.findall(bare)),
    ]
    whole: dict[str, None] = {}
    short: dict[str, None] = {}
    for name in names:
        front, comma, article = name.strip().rpartition(",")
        if comma and article.strip().lower().rstrip("'") in ARTICLES:
            name = f"{article.strip()} {front}"
        words = words_of(name)
        if not words or len(words) > LONGEST:
            continue
        whole[" ".join(words)] = None
        if words[0] in ARTICLES and len(words) > 1:
            whole[" ".join(words[1:])] = None
        before, colon, _ = name.partition(":")
        if colon and (start := words_of(before)):
            short[" ".join(start)] = None
            if start[0] in ARTICLES and len(start) > 1:
                short[" ".join(start[1:])] = None
    if 0 < len(written := words_of(bare)) <= LONGEST:
        whole[" ".join(written)] = None
    return list(whole), [form for form in short if form not in whole]


class Titles:
    """Rows by the forms of their titles. Of several items with one title the most chosen is meant."""

    def __init__(self, titles: Sequence[str | None], popularity: np.ndarray) -> None:
        """`titles` of rows 1..N; `popularity` is float [N+1 or less]."""
        self._popularity = popularity
        self._rows: dict[str, list[int]] = {}
        self._short: dict[str, list[int]] = {}
        self._trigrams: dict[str, list[int]] | None = None
        self._names: list[tuple[str, int]] = []  # of the trigrams: how many they have, and the row
        self._sizes: list[int] = []
        for row, title in enumerate(titles, start=1):
            self._add(row, title)

    def put(self, row: int, title: str | None, before: str | None) -> None:
        """An item that is new, or whose title was `before`."""
        for form in (form for kind in forms(before or "") for form in kind):
            for table in (self._rows, self._short):
                if row in table.get(form, ()):
                    table[form].remove(row)
        self._add(row, title)
        self._trigrams = None

    def _add(self, row: int, title: str | None) -> None:
        if not title:
            return
        whole, short = forms(title)
        for form in whole:
            self._rows.setdefault(form, []).append(row)
        for form in short:
            self._short.setdefault(form, []).append(row)

    def named(self, words: Sequence[str]) -> list[int]:
        """All rows that these words are a whole title of, most chosen first."""
        return sorted(self._rows.get(" ".join(words), ()), key=self._order)

    def shortened(self, words: Sequence[str]) -> list[int]:
        """The same for the part before a colon."""
        return sorted(self._short.get(" ".join(words), ()), key=self._order)

    def meant(self, words: Sequence[str]) -> list[int]:
        """Both, most chosen first: 'Star Wars' is the first of several films rather than one that few know. One word
        alone must be the whole title."""
        found = dict.fromkeys((*self.named(words), *(self.shortened(words) if len(words) > 1 else ())))
        return sorted(found, key=self._order)

    def _order(self, row: int) -> tuple[float, int]:
        return (-float(self._popularity[row]) if row < len(self._popularity) else 0.0, row)

    def nearest(self, words: Sequence[str]) -> int | None:
        """The row whose title is nearest to words that may be misspelt; None where none is near."""
        text = " ".join(words)
        if len(text) < LEAST_CHARACTERS:
            return None
        if self._trigrams is None:
            self._learn()
        assert self._trigrams is not None
        asked = _trigrams(text)
        found = [np.array(self._trigrams[t], np.int64) for t in asked if t in self._trigrams]
        if not found:
            return None
        shared = np.bincount(np.concatenate(found), minlength=len(self._names))
        dice = 2 * shared / (len(asked) + np.array(self._sizes))
        if (best := dice.max()) < LIKENESS:
            # One letter changes much of a short name's trigrams.
            close = [i for i in np.argsort(-dice, kind="stable")[:CLOSE] if _is_close(text, self._names[i][0])]
            return min((self._names[i][1] for i in close), key=self._order, default=None)
        rows = [self._names[i][1] for i in np.flatnonzero(dice == best)]
        return min(rows, key=self._order)

    def _learn(self) -> None:
        self._names = [(form, row) for form, rows in self._rows.items() for row in rows[:1]]
        grams = [_trigrams(form) for form, _ in self._names]
        self._sizes = [len(g) for g in grams]
        self._trigrams = {}
        for place, some in enumerate(grams):
            for gram in some:
                self._trigrams.setdefault(gram, []).append(place)


def _is_close(text: str, name: str) -> bool:
    return abs(len(text) - len(name)) <= 2 and SequenceMatcher(None, text, name, autojunk=False).ratio() >= RATIO


def _trigrams(text: str) -> set[str]:
    padded = f"  {text} "
    return {padded[i : i + 3] for i in range(len(padded) - 2)}
