"""What questions are answered from: the titles, words, categories, prices, dates and content vectors of a release.

In: a Release, items told to the running service included. Out: `Catalogue`, made at the first question and kept with
the release; later ones only take in what was told since. Knows nothing about questions.
"""

import logging
import math
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import UTC, datetime
from time import monotonic
from typing import Any

import numpy as np

from recops.attribution import cosines
from recops.serving.assistant.categories import Categories
from recops.serving.assistant.times import us
from recops.serving.assistant.titles import Titles, year_of
from recops.serving.release import NO_TIME, Release
from recops.words import Words

TEXT = "text"  # the encoder whose space questions are put in
BLOCK = 8192  # rows of content vectors that are widened at once
MOST_KEPT = 20_000  # vectors of phrases
ELSEWHERE_S = 1.0  # that an encoder on another server may take for a question

logger = logging.getLogger("recops.serving")
_making = threading.Lock()
_elsewhere = ThreadPoolExecutor(4, "ask-encoder")


def catalogue_of(release: Release) -> "Catalogue":
    """The catalogue of a release, to be used within `used_for`."""
    with _making:
        kept = release.encoders.kept  # a release shares it with those it becomes by new items
        if "catalogue" not in kept:
            kept["catalogue"] = Catalogue(release)
        return kept["catalogue"]


def was_asked(release: Release) -> bool:
    """Whether the catalogue of a release has been made."""
    return "catalogue" in release.encoders.kept


class Catalogue:
    """Arrays are over rows 0..N. `starts` and `ends` int64 are when an item appeared, in µs: from `published_at`, else
    from the year in brackets at the end of its title (then the whole year), else NO_TIME; `prices` NaN where unknown.
    """

    def __init__(self, release: Release) -> None:
        self._lock = threading.RLock()
        bundle = release.bundle
        self._words = None if bundle.words_file is None else Words(bundle.words_file)
        self._new_words: Words | None = None
        self._online: dict[int, Any] = {}
        self._titles_shown = list(release.titles)
        self.titles = Titles(release.titles, bundle.fallback)
        self._vectors: dict[str, np.ndarray] = {}
        self._release: Release | None = None
        self.categories = Categories([])
        self.use(release)

    @contextmanager
    def used_for(self, release: Release, until: float = math.inf) -> Iterator[None]:
        """Holds it for one thread, as that of `release`. Raises TimeoutError where others hold it until the moment
        `until` of the monotonic clock."""
        if not self._lock.acquire(timeout=-1 if math.isinf(until) else max(until - monotonic(), 0.0)):
            raise TimeoutError("other questions are being answered")
        try:
            self.use(release)
            yield
        finally:
            self._lock.release()

    def use(self, release: Release) -> None:
        """Makes it that of `release`, which may know other items than the one before."""
        if release is self._release:
            return
        for row in {*self._online, *release.online}:
            if self._online.get(row) is not release.online.get(row):
                self._take_in(row, release)
        self._online = dict(release.online)
        self._release = release
        self.num_items = release.bundle.num_items
        names = list(release.columns.rows_by_category)
        if names != self.categories.names:
            self.categories = Categories(names)
        self.prices = release.columns.price
        self.has_title = np.array([False, *(title is not None for title in release.titles)])
        self._date(release)

    def _take_in(self, row: int, release: Release) -> None:
        known = self._titles_shown
        known += [None] * (row - len(known))
        is_there = row <= release.bundle.num_items
        title = release.titles[row - 1] if is_there else None
        if title != known[row - 1]:
            self.titles.put(row, title, known[row - 1])
            known[row - 1] = title
        if self._new_words is None:
            self._new_words = Words()
        told = release.online.get(row, {})
        text = told["text"] if "text" in told else self._words.text(row) if self._words else None
        self._new_words.put(row, (title, text, release.bundle.items["categories"][row - 1] if is_there else None))

    def _date(self, release: Release) -> None:
        published = release.columns.published_at
        self.starts, self.ends = published.copy(), np.where(published == NO_TIME, NO_TIME, published + 1)
        for row in np.flatnonzero(published[1:] == NO_TIME) + 1:
            if (year := year_of(release.titles[row - 1])) is not None:
                self.starts[row], self.ends[row] = (us(datetime(y, 1, 1, tzinfo=UTC)) for y in (year, year + 1))
        dated = self.starts[self.starts != NO_TIME]
        self.newest_year = 1970 + int(dated.max() // 31_556_952_000_000) if len(dated) else datetime.now(UTC).year
        timed = published[published != NO_TIME]
        self.newest_us = int(timed.max()) if len(timed) else None
        self.has_prices = bool((~np.isnan(self.prices)).any())
        self.has_dates = bool(len(dated))
        self.knows_available = bool((release.columns.available >= 0).any())

    @property
    def release(self) -> Release:
        assert self._release is not None
        return self._release

    def year(self, row: int) -> int | None:
        start = int(self.starts[row])
        return (
            None
            if start == NO_TIME
            else datetime.fromtimestamp(start // 1_000_000, UTC).year
            if start >= 0
            else _early(start)
        )

    def text(self, row: int) -> str:
        """The text of an item; empty where it has none, or nothing is known of it."""
        words = self._new_words if row in self._online else self._words
        return words.text(row) if words is not None else ""

    @property
    def has_words(self) -> bool:
        return self._words is not None or self._new_words is not None

    def search(self, terms: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
        """Rows and their BM25, of all tables."""
        rows, scores = np.zeros(0, np.int64), np.zeros(0, np.float32)
        if self._words is not None:
            rows, scores = self._words.search(terms)
            is_old = np.isin(rows, list(self._online), invert=True)
            rows, scores = rows[is_old], scores[is_old]
        if self._new_words is not None:
            new_rows, new_scores = self._new_words.search(terms)
            # Few items make every word rare; so that they do not stand above all, the best is held to the best.
            top = scores.max() if len(scores) else np.float32(1)
            new_scores = np.minimum(new_scores, top) if len(scores) else new_scores
            rows, scores = np.concatenate([rows, new_rows]), np.concatenate([scores, new_scores])
        there = rows <= self.num_items
        return rows[there], scores[there]

    def having(self, phrase: str) -> np.ndarray:
        """Rows of all items in whose words a phrase stands; without a table those of title and categories."""
        if self._words is None:
            from recops.serving.assistant.titles import words_of

            items, asked = self.release.bundle.items, f" {' '.join(words_of(phrase))} "
            texts = (
                " ".join(words_of(" ".join([t or "", *(c or ())])))
                for t, c in zip(items["title"], items["categories"], strict=True)
            )
            return np.array([row for row, text in enumerate(texts, 1) if asked in f" {text} "], np.int64)
        rows = self._words.having(phrase)
        rows = rows[np.isin(rows, list(self._online), invert=True)]
        if self._new_words is not None:
            rows = np.concatenate([rows, self._new_words.having(phrase)])
        return rows[rows <= self.num_items]

    def which_have(self, term: str, rows: Sequence[int]) -> set[int]:
        """Those of some rows in which a word stands."""
        new = [row for row in rows if row in self._online]
        found = self._words.which_have(term, [row for row in rows if row not in self._online]) if self._words else set()
        return found | (self._new_words.which_have(term, new) if self._new_words is not None else set())

    @property
    def vectors(self) -> np.ndarray | None:
        """float16 [N+1, D]: the content of the items in the space of `encoded`; None without a text encoder."""
        if self.release.bundle.encoder_folder(TEXT) is None:
            return None
        return self.release.bundle.content.get(TEXT)

    def encoded(self, texts: Sequence[str]) -> np.ndarray | None:
        """float32 [B, D] of phrases of questions; None where the release has no encoder, or it does not answer."""
        encoder: Any = self.release.encoder(TEXT) if self.vectors is not None else None
        if encoder is None or not texts:
            return None
        missing = [text for text in dict.fromkeys(texts) if text not in self._vectors]
        if missing:
            try:
                if getattr(encoder.options, "url", None) is None:
                    made = encoder.query(missing)
                else:
                    made = _elsewhere.submit(encoder.query, missing).result(ELSEWHERE_S)
            except Exception:
                logger.exception("a question could not be encoded")
                return None
            if len(self._vectors) > MOST_KEPT:
                kept = {text: self._vectors[text] for text in texts if text in self._vectors}
                self._vectors = kept
            self._vectors.update(zip(missing, made, strict=True))
        return np.stack([self._vectors[text] for text in texts])

    def meant(self, phrases: Sequence[str]) -> list[list[tuple[str, float]]]:
        """For each phrase the categories that it is near to; none where there is no encoder at hand."""
        encoder: Any = self.release.encoder(TEXT) if phrases and self.vectors is not None else None
        if encoder is None or getattr(encoder.options, "url", None) is not None:
            return [[] for _ in phrases]
        return self.categories.meant(phrases, lambda texts: self.encoded(texts))

    def cosines(self, vector: np.ndarray, rows: np.ndarray) -> np.ndarray:
        """float32 [R]: of a vector of length 1 with the content of some rows; NaN for an item without a title where
        others have one, since little is known of what it is."""
        vectors = self.vectors
        assert vectors is not None
        found = np.empty(len(rows), np.float32)
        for start in range(0, len(rows), BLOCK):
            part = rows[start : start + BLOCK]
            found[start : start + BLOCK] = vectors[part].astype(np.float32) @ vector
        if self.has_title.any():
            found[~self.has_title[rows]] = np.nan
        return found

    def linked(self, items: np.ndarray, rows: np.ndarray) -> np.ndarray | None:
        """How near the model that was trained puts some items to others, float64 [H, R]: by its links of what was
        chosen together (those of content are in `likeness` already), else the cosine of its vectors; None where it has
        neither."""
        scorer = self.release.bundle.scorer
        if (found := scorer.link_shares(items, rows)) is not None:
            return found
        return None if scorer.vectors is None else cosines(scorer.vectors[items], scorer.vectors[rows])


def _early(start_us: int) -> int:
    """The year of a time before 1970."""
    return int(np.datetime64(start_us, "us").astype("datetime64[Y]").astype(int)) + 1970
