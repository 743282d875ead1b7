"""Finds the catalogue's categories in a question: by name, plural or stem, else by what they mean.

In: the names. Out: names. What they mean is told by a text encoder: a word of the question whose vector is near that of
a category's name stands for it.
"""

import re
from collections.abc import Callable, Sequence

import numpy as np

from recops.serving.assistant.english import EMPTY_NAMES
from recops.serving.assistant.question import plain

# Cosine from which a word stands for a category, and from which it leans towards one (docs/decisions.md: how chosen).
SAME, NEAR = 0.72, 0.46
MOST_NAMES = 400  # categories of which vectors are made
LONGEST = 5  # words of a name
_WORD = re.compile(r"[^\W_]+")


def stem(word: str) -> str:
    """Without the ending of a plural: comedies, dramas, churches."""
    if len(word) > 4 and word.endswith("ies"):
        return word[:-3] + "y"
    if len(word) > 4 and word.endswith(("sses", "xes", "ches", "shes", "zes")):
        return word[:-2]
    if len(word) > 3 and word.endswith("s") and not word.endswith(("ss", "us", "is")):
        return word[:-1]
    return word


def key(words: Sequence[str]) -> str:
    return "".join(stem(word) for word in words)


class Categories:
    """The names of a catalogue's categories."""

    def __init__(self, names: Sequence[str]) -> None:
        self.names = list(names)
        self._by_key: dict[str, list[str]] = {}
        for name in self.names:
            for text in {name, re.split(r"\s*[>|]\s*", name)[-1]}:  # a path is also known by its last part
                words = _WORD.findall(plain(text))
                if words and len(words) <= LONGEST and not (len(words) == 1 and words[0] in EMPTY_NAMES):
                    self._by_key.setdefault(key(words), []).append(name)
        self._vectors: np.ndarray | None = None

    def named(self, words: Sequence[str]) -> tuple[str, ...]:
        """The categories that these words are the name of; several where names differ in their writing alone."""
        if len(words) == 1 and words[0] in EMPTY_NAMES:
            return ()
        return tuple(dict.fromkeys(self._by_key.get(key(words), ())))

    def meant(
        self, phrases: Sequence[str], encode: Callable[[list[str]], np.ndarray | None]
    ) -> list[list[tuple[str, float]]]:
        """For each phrase the categories near it, best first, with the cosine; those below NEAR are left out."""
        if not self.names or len(self.names) > MOST_NAMES or not phrases:
            return [[] for _ in phrases]
        if self._vectors is None:
            self._vectors = encode([name.replace("-", " ") for name in self.names])
        asked = encode(list(phrases))
        if self._vectors is None or asked is None:
            return [[] for _ in phrases]
        cosines_PC = asked @ self._vectors.T
        return [
            [
                (self.names[c], float(cosines_C[c]))
                for c in np.argsort(-cosines_C, kind="stable")
                if cosines_C[c] >= NEAR
            ]
            for cosines_C in cosines_PC
        ]
