"""Items told to the running service: read from the store, encoded once, put into the served release.

In: the store, and a release as it was loaded. Out: the release with what was told since. A vector is made by the first
worker that needs it and kept in the store for the others. Knows nothing about HTTP.
"""

import json
from collections.abc import Collection, Mapping
from datetime import datetime
from typing import Any

import numpy as np

from recops.encoders.content.chunk import Counts, encode_chunk
from recops.protocols import Item
from recops.serving.release import Release
from recops.store import Store


class OnlineItems:
    """`change` is the last one read from the store. Not for several threads at once."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._told: dict[str, dict[str, Any]] = {}
        self._made: dict[str, dict[str, np.ndarray]] = {}  # vectors in use, by digest of the encoder and item id
        self.change = 0

    def refresh(self) -> bool:
        """Reads what is new in the store; whether there was anything."""
        if self._store.last_change() == self.change:
            return False
        self.change, items = self._store.items_since(self.change)
        for item in items:
            self._told[item["item_id"]] = item
            for made in self._made.values():
                made.pop(item["item_id"], None)
        return True

    def forget_all_but(self, encoders: Collection[str]) -> None:
        """Of the vectors in use, those of other encoders than these (their digests)."""
        self._made = {encoder: made for encoder, made in self._made.items() if encoder in encoders}

    def applied(self, base: Release, encodes: bool = True) -> Release:
        """`base`, as it was loaded, with all that was told: items that it has are changed, others added where a model
        of it knows content and an encoder can read any of theirs. Raises CallError where a server that encodes does not
        answer. Not `encodes`: without those that would have to be encoded first."""
        if not self._told:
            return base
        changed = {base.row_of[item_id]: item for item_id, item in self._told.items() if item_id in base.row_of}
        # By id, so that rows, which settle ties, are those of a worker that was told in another order.
        new = [self._told[item_id] for item_id in sorted(self._told) if item_id not in base.row_of]
        if not encodes:
            made = [self._made.get(facts["sha256"], {}) for facts in base.bundle.encoders]
            new = [item for item in new if all(item["item_id"] in of for of in made)]
        if not new or not base.asked_encoders:
            return base.with_items(changed, [], {})
        vectors = self._vectors(base, new)
        known = np.logical_or.reduce([vectors[name].any(1) for name in base.asked_encoders])
        kept = np.flatnonzero(known)
        return base.with_items(changed, [new[i] for i in kept], {name: found[kept] for name, found in vectors.items()})

    def _vectors(self, release: Release, told: list[dict[str, Any]]) -> dict[str, np.ndarray]:
        """float16 [M, D] of each encoder of the release; zeros where it is not at hand, or says nothing."""
        encoders = {facts["name"]: release.encoder(facts["name"]) for facts in release.bundle.encoders}
        made = {encoder.sha256: self._made.get(encoder.sha256, {}) for encoder in encoders.values() if encoder}
        self._made.update(made)
        found = {}
        for facts in release.bundle.encoders:
            encoder = encoders[facts["name"]]
            if encoder is None:
                found[facts["name"]] = np.zeros((len(told), facts["dim"]), np.float16)
                continue
            own = made[encoder.sha256]
            new = [item for item in told if item["item_id"] not in own]
            for start in range(0, len(new), encoder.chunk_size):
                some = new[start : start + encoder.chunk_size]
                vectors = np.zeros((len(some), encoder.dim), np.float16)
                # One that learns from the items is another in each release, and quick: nothing would be used again.
                kept = None if hasattr(encoder, "fit") else _Kept(self._store)
                encode_chunk(encoder, [_as_item(item) for item in some], vectors, kept, Counts())
                own.update(zip((item["item_id"] for item in some), vectors, strict=True))
            found[facts["name"]] = np.stack([own[item["item_id"]] for item in told])
        return found


class _Kept:
    """The vectors in the store, as `encode_chunk` asks for them."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def get(self, encoder: str, keys: Collection[bytes]) -> dict[bytes, np.ndarray]:
        found = self._store.item_vectors(encoder, keys)
        return {key: np.frombuffer(vector, np.float16) for key, vector in found.items()}

    def put(self, encoder: str, vectors: Mapping[bytes, np.ndarray]) -> None:
        self._store.put_item_vectors(encoder, {key: vector.tobytes() for key, vector in vectors.items()})


def _as_item(told: Mapping[str, Any]) -> Item:
    """As encoders know an item: times are datetimes, attributes JSON text."""
    item = dict(told)
    if item.get("published_at") is not None:
        item["published_at"] = datetime.fromisoformat(item["published_at"])
    if item.get("attributes") is not None:
        item["attributes"] = json.dumps(item["attributes"])
    return item
