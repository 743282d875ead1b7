"""What the encoders say about the catalogue itself: items that look like one and the same, and categories for items
without any.

In: the table of items and what the encoder of texts says of them. Out: proposals for a person to look through. Changes
nothing: `ingest.merges` takes the pairs that were found right, and a guessed category is marked as one.

Shapes: N items, D width, C categories.
"""

import re
from collections import Counter
from collections.abc import Iterator, Sequence

import numpy as np
import polars as pl

MAX_COMPARED = 100_000  # items; all pairs of more take too long
PAIRS_SCHEMA = {
    "item_id": pl.String,
    "into": pl.String,
    "similarity": pl.Float64,
    "title": pl.String,
    "into_title": pl.String,
}
_BLOCK_CELLS = 8_000_000
_LEAST_SIMILARITY = 0.9
_MOST_WITH_A_TITLE = 3  # what more items are called says nothing about them ("thrown away")
_PRICE_RATIO = 1.25
_NEIGHBORS = 10
_TEMPERATURE = 0.05
_WORD = re.compile(r"[^\W\d_]+|\d+(?:[.,]\d+)*")


def near_duplicates(items: pl.DataFrame, vectors_ND: np.ndarray) -> pl.DataFrame:
    """Pairs that look like the same thing under two ids: columns of PAIRS_SCHEMA, the likest first.

    What the encoder finds alike must also have the same words in any order, but for one letter in a word of four or
    more, the same numbers, and prices within a quarter of each other where both are known: a size, a colour or a year
    makes another product. `into` is the item that stands first in the table. Without titles there are none.
    """
    titles, prices = items["title"].to_list(), items["price"].to_list()
    num_with = Counter(titles)
    words = [_words(title) for title in titles]
    found = []
    # Only within a group can two be the same: of "Product 1" to "Product 100000" all are alike, and none is compared.
    groups: dict[tuple, list[int]] = {}
    for row, title in enumerate(titles):
        if title and num_with[title] <= _MOST_WITH_A_TITLE:
            groups.setdefault(_must_agree(words[row]), []).append(row)
    for rows in groups.values():
        for first, second, similarity in _alike(vectors_ND[rows]) if len(rows) > 1 else ():
            a, b = rows[first], rows[second]
            if _same_words(words[a], words[b]) and _near_prices(prices[a], prices[b]):
                found.append((items["item_id"][b], items["item_id"][a], round(similarity, 4), titles[b], titles[a]))
    found.sort(key=lambda pair: (-pair[2], pair[1], pair[0]))
    return pl.DataFrame(found, schema=PAIRS_SCHEMA, orient="row")


def _alike(vectors_ND: np.ndarray) -> Iterator[tuple[int, int, float]]:
    """(row, later row, cosine) of items alike; vectors have length 1, or 0 where there is nothing to encode."""
    vectors_ND = vectors_ND.astype(np.float32)
    block_size = max(1, _BLOCK_CELLS // max(len(vectors_ND), 1))
    for start in range(0, len(vectors_ND), block_size):
        similar_BN = vectors_ND[start : start + block_size] @ vectors_ND[start:].T
        rows, columns = np.nonzero(np.triu(similar_BN, 1) >= _LEAST_SIMILARITY)
        for row, column in zip(rows.tolist(), columns.tolist(), strict=True):
            yield start + row, start + column, float(similar_BN[row, column])


def _words(title: str | None) -> Counter[str]:
    return Counter(_WORD.findall((title or "").lower()))


def _must_agree(words: Counter[str]) -> tuple[int, tuple[str, ...]]:
    """What is equal of any two titles with the same words: how many may be spelt in another way, and the others."""
    others = sorted(word for word in words.elements() if not _may_be_misspelt(word))
    return words.total() - len(others), tuple(others)


def _may_be_misspelt(word: str) -> bool:
    return len(word) >= 4 and word.isalpha()


def _same_words(a: Counter[str], b: Counter[str]) -> bool:
    """Whether two titles have the same words, but for spelling; numbers must agree to the digit."""
    only_a, only_b = list((a - b).elements()), list((b - a).elements())
    if len(only_a) != len(only_b):
        return False
    for word in only_a:
        match = next((other for other in only_b if _same_but_a_letter(word, other)), None)
        if match is None:
            return False
        only_b.remove(match)
    return True


def _same_but_a_letter(a: str, b: str) -> bool:
    """One letter more, less, other, or two that changed places, in a word of at least four.

    >>> _same_but_a_letter("holder", "hodler"), _same_but_a_letter("red", "bed"), _same_but_a_letter("1994", "1995")
    (True, False, False)
    """
    if not (_may_be_misspelt(a) and _may_be_misspelt(b)) or abs(len(a) - len(b)) > 1:
        return False
    i = next((i for i, (x, y) in enumerate(zip(a, b, strict=False)) if x != y), min(len(a), len(b)))
    swapped = a[i : i + 2] == b[i : i + 2][::-1] and a[i + 2 :] == b[i + 2 :]
    return swapped or a[i + 1 :] == b[i + 1 :] or a[i:] == b[i + 1 :] or a[i + 1 :] == b[i:]


def _near_prices(a: float | None, b: float | None) -> bool:
    return not a or not b or max(a, b) <= _PRICE_RATIO * min(a, b)


def guessed_by_neighbours(items: pl.DataFrame, vectors_ND: np.ndarray, least_share: float) -> dict[str, list[str]]:
    """Categories of items that have none but a text, from the ten items most like it that have some: those that at
    least `least_share` of these have, each counted by its likeness. Items of which nothing can be said are left out."""
    categories = [list(dict.fromkeys(entry or ())) for entry in items["categories"].to_list()]
    has_text = vectors_ND.any(1)
    known = np.flatnonzero(has_text & np.array([bool(entry) for entry in categories], bool))
    unknown = np.flatnonzero(has_text & np.array([not entry for entry in categories], bool))
    if not len(known):
        return {}
    found = {}
    vectors_ND = vectors_ND.astype(np.float32)
    block_size = max(1, _BLOCK_CELLS // len(known))
    for start in range(0, len(unknown), block_size):
        rows = unknown[start : start + block_size]
        for row, similar in zip(rows, vectors_ND[rows] @ vectors_ND[known].T, strict=True):
            nearest = np.argsort(-similar, kind="stable")[:_NEIGHBORS]
            weights = np.maximum(similar[nearest], 0)
            votes: Counter[str] = Counter()
            for place, weight in zip(known[nearest], weights.tolist(), strict=True):
                for category in categories[place]:
                    votes[category] += weight
            total = float(weights.sum())
            if kept := [c for c, vote in votes.most_common() if total > 0 and vote >= least_share * total]:
                found[items["item_id"][int(row)]] = kept
    return found


def guessed_by_name(
    items: pl.DataFrame, vectors_ND: np.ndarray, names: Sequence[str], names_CD: np.ndarray, least_certainty: float
) -> dict[str, list[str]]:
    """For each item that has a text and no category the name most like it, if that is at least so certain: the softmax
    of the cosines, sharpened as pre-trained encoders of texts need it. `names_CD` is what the encoder says of names."""
    similar_NC = vectors_ND.astype(np.float32) @ names_CD.T.astype(np.float32) / _TEMPERATURE
    certain_NC = np.exp(similar_NC - similar_NC.max(1, keepdims=True))
    certain_N = 1 / certain_NC.sum(1)
    best_N, has_text, categories = similar_NC.argmax(1), vectors_ND.any(1), items["categories"].to_list()
    return {
        items["item_id"][row]: [names[best_N[row]]]
        for row in np.flatnonzero(has_text & (certain_N >= least_certainty)).tolist()
        if not categories[row]
    }
