"""A release in memory: its bundle, what the service works out at load for filters and similar items, and what was told
of items since.

In: a verified bundle. Out: `Release`, read-only, shared by all requests. Knows nothing about requests.
"""

import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from recops.bundle import Bundle
from recops.errors import BundleError
from recops.plugins import load
from recops.protocols import Encoder
from recops.runtime import Scorer
from recops.serving.attributes import Attributes
from recops.serving.erased import ErasedUsers

NO_TIME = np.iinfo(np.int64).min
ATTRIBUTES = "attributes"  # a column of the bundle's items only where some have any


def epoch_us(value: str | int) -> int:
    """Microseconds since 1970 UTC of ISO text (UTC where it names no zone) or of a number that is already that."""
    if not isinstance(value, str):
        return int(value)
    moment = datetime.fromisoformat(value)
    moment = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
    return (moment - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(microseconds=1)


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


class Encoders:
    """The encoders of a bundle, each made when it is first asked for: most workers never need one. Safe for threads.

    `source` is the folder that the files which items name lie in; without it only addresses can be read.
    """

    def __init__(self, bundle: Bundle, threads: int = 1, source: Path | None = None) -> None:
        self._bundle, self._threads, self._source = bundle, threads, source
        self._made: dict[str, Encoder | None] = {}
        self.kept: dict[str, Any] = {}  # what else is made once for all forms of a release
        self._lock = threading.Lock()

    def get(self, name: str) -> Encoder | None:
        """None where the bundle does not hold the encoder."""
        with self._lock:
            if name not in self._made:
                folder = self._bundle.encoder_folder(name)
                made = None if folder is None else load("encoders", name)(folder, self._threads, self._source)
                self._made[name] = made
            return self._made[name]


class Release:
    """What one worker serves from. `record` holds the facts of the promotion, empty where there is none.

    `online` are the columns that were told of items after export, by row: those of a row beyond the bundle's own are
    all that is known of the item.
    """

    def __init__(
        self,
        bundle: Bundle,
        record: dict[str, Any],
        encoders: Encoders | None = None,
        online: Mapping[int, Mapping[str, Any]] | None = None,
        erased: ErasedUsers | None = None,
    ) -> None:
        self.bundle = bundle
        self.record = record
        self.encoders = encoders or Encoders(bundle)
        self.online = online or {}
        self.erased = erased or ErasedUsers()
        self.id = bundle.id
        self.titles = bundle.items["title"]
        self.ids = bundle.items["item_id"]
        self.row_of = bundle.row_of
        self.remove_seen = bool(bundle.manifest.get("remove_seen", True))
        try:
            self.columns = Columns.of(bundle.items)
            self.attributes = Attributes(bundle.items.get(ATTRIBUTES) or [None] * bundle.num_items)
        except (ValueError, TypeError, KeyError) as error:
            raise BundleError(f"{bundle.folder}: items are not usable: {error}") from None
        scorer = bundle.scorer
        self.item_vectors = scorer.vectors
        self.uses_time = scorer.asks_time

    def user_row(self, user_id: str | None) -> int:
        """Row of the models' tables of users; 0 for nobody, for users they do not have, and for those erased since."""
        row = 0 if user_id is None else self.bundle.user_row_of.get(user_id, 0)
        is_hidden = row and self.erased.hides(str(user_id), self.bundle.manifest.get("erasures", {}).get("honoured", 0))
        return 0 if is_hidden else row

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

    def encoder(self, name: str) -> Encoder | None:
        """Made when it is first asked for; None where the bundle does not hold it."""
        return self.encoders.get(name)

    @cached_property
    def asked_encoders(self) -> list[str]:
        """Encoders whose vectors its models score by, and that are at hand for items that come later."""
        asked = dict.fromkeys(name for part in self.bundle.scorer.parts for name in part.content)
        return [name for name in asked if self.bundle.encoder_folder(name) is not None]

    def not_recommendable(self, item_ids: Sequence[str]) -> dict[str, str]:
        """Why items have no row, by id; those that have one are left out."""
        if any(part.content for part in self.bundle.scorer.parts):
            read = ", ".join(self.asked_encoders)
            why = f"no encoder of the release ({read}) could read anything of it" if read else "no encoder is at hand"
        else:
            why = "no model of the release knows the content of items (encode.encoders, and a model with content)"
        return {item_id: why for item_id in item_ids if item_id not in self.row_of}

    def with_items(
        self,
        changed: Mapping[int, Mapping[str, Any]],
        new: Sequence[Mapping[str, Any]],
        vectors: Mapping[str, np.ndarray],
    ) -> "Release":
        """The same release with other columns of the rows `changed`, and M `new` items, each with `item_id`, at the
        end; `vectors` [M, D] are what each encoder of the bundle says of them. Columns that are not given are null.

        A changed item keeps its place in every list: what is scored is what was trained on.
        """
        bundle = self.bundle
        if not changed and not new:
            return self
        scorer = bundle.scorer.with_items(vectors, bundle.content) if new else bundle.scorer
        assert scorer.num_items == bundle.num_items + len(new), "no model of the release knows content"
        items, told = {}, dict(bundle.items)
        if any(item.get(ATTRIBUTES) for item in (*changed.values(), *new)):
            told.setdefault(ATTRIBUTES, [None] * bundle.num_items)
        for column, values in told.items():
            items[column] = [*values, *(item.get(column) for item in new)]
            for row, item in changed.items():
                if column in item:
                    items[column][row - 1] = item[column]
        wider = replace(
            bundle,
            items=items,
            scorer=scorer,
            fallback=np.pad(bundle.fallback, (0, len(new))),
            content={name: np.concatenate([bundle.content[name], vectors[name]]) for name in vectors},
        )
        if not new:
            wider = replace(wider, content=bundle.content)
        online = {**changed, **dict(enumerate(new, start=bundle.num_items + 1))}
        return Release(wider, self.record, self.encoders, online, self.erased)
