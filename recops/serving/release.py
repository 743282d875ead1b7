"""A release in memory: its bundle and what the service works out once at load, for filters and for similar items.

In: a verified bundle. Out: `Release`, read-only, shared by all requests. Knows nothing about requests.
"""

from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import cached_property
from typing import Any

import numpy as np

from recops.bundle import Bundle
from recops.errors import BundleError
from recops.runtime import Scorer

NO_TIME = np.iinfo(np.int64).min


def epoch_us(value: str | int) -> int:
    """Microseconds since 1970 UTC of ISO text (UTC where it names no zone) or of a number that is already that."""
    if not isinstance(value, str):
        return int(value)
    moment = datetime.fromisoformat(value)
    moment = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
    return round((moment - datetime(1970, 1, 1, tzinfo=UTC)).total_seconds() * 1_000_000)


@dataclass(frozen=True)
class Columns:
    """The catalogue as arrays over rows 0..N (row 0 is no item). A null is NaN, NO_TIME or -1."""

    price: np.ndarray  # float64
    published_at: np.ndarray  # int64, microseconds UTC
    available: np.ndarray  # int8: 1, 0 or -1
    rows_by_category: dict[str, np.ndarray]  # int64 rows
    num_categories: np.ndarray  # int64

    @classmethod
    def of(cls, items: dict[str, list[Any]]) -> "Columns":
        """Raises ValueError or TypeError for values of a wrong type."""
        by_category: dict[str, list[int]] = {}
        for row, categories in enumerate(items["categories"], start=1):
            for category in dict.fromkeys(categories or ()):
                by_category.setdefault(category, []).append(row)
        times = [NO_TIME if t is None else epoch_us(t) for t in items["published_at"]]
        return cls(
            price=np.array([np.nan, *(np.nan if p is None else p for p in items["price"])], np.float64),
            published_at=np.array([NO_TIME, *times], np.int64),
            available=np.array([-1, *(-1 if a is None else bool(a) for a in items["available"])], np.int8),
            rows_by_category={name: np.array(rows, np.int64) for name, rows in by_category.items()},
            num_categories=np.array([0, *(len(set(c or ())) for c in items["categories"])], np.int64),
        )


class Release:
    """What one worker serves from. `record` holds the facts of the promotion, empty where there is none."""

    def __init__(self, bundle: Bundle, record: dict[str, Any]) -> None:
        self.bundle = bundle
        self.record = record
        self.id = bundle.id
        self.titles = bundle.items["title"]
        self.ids = bundle.items["item_id"]
        self.row_of = bundle.row_of
        self.remove_seen = bool(bundle.manifest.get("remove_seen", True))
        try:
            self.columns = Columns.of(bundle.items)
        except (ValueError, TypeError, KeyError) as error:
            raise BundleError(f"{bundle.folder}: items are not usable: {error}") from None
        scorer = bundle.scorer
        self.item_vectors = scorer.vectors
        self.uses_time = scorer.asks_time

    @cached_property
    def everybody(self) -> list[Scorer | None]:
        """Each model that knows users by a table alone, with the mean of its users as user 1; None for the others."""
        return [
            None
            if part.user_table is None or part.encode is not None or len(part.user_table) < 2
            else replace(part, user_table=np.stack([part.user_table[0], part.user_table[1:].mean(0)]))
            for part in self.bundle.scorer.parts
        ]

    @cached_property
    def vector_norms(self) -> np.ndarray:
        """float32 [N+1]; 1 where a vector is zero, so that its cosine is 0."""
        assert self.item_vectors is not None
        norms = np.linalg.norm(self.item_vectors, axis=1)
        return np.where(norms > 0, norms, 1).astype(np.float32)
