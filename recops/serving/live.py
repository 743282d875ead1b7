"""What a user's stored history and the events told since come to: the same as if the model had been trained on both.

In: what the store holds of a user, and what the release says of kinds of event. Out: a `Stored`. Knows no HTTP.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from operator import itemgetter
from typing import Any

from recops.schema import EVENT_SIGNALS
from recops.serving.retrieval import Stored
from recops.store import Known, Store


@dataclass(frozen=True)
class Kinds:
    """What each kind of event means to a release: `events` as `ingest.events` in its params.yaml has them."""

    events: dict[str, dict[str, Any]]

    @classmethod
    def of(cls, manifest: dict[str, Any]) -> "Kinds":
        """A model of ratings knows only the kinds it was trained on; of others those not named mean what is usual."""
        params = manifest.get("params") or {}
        named = params.get("ingest", {}).get("events", {})
        is_rating = params.get("train", {}).get("task") == "rating"
        usual = {} if is_rating else {kind: {"signal": signal} for kind, signal in EVENT_SIGNALS.items()}
        return cls({**usual, **named})

    @cached_property
    def negative(self) -> frozenset[str]:
        """Kinds that turn an item down for good."""
        return frozenset(kind for kind, meaning in self.events.items() if meaning["signal"] == "negative")

    def is_positive(self, kind: str, value: float | None) -> bool:
        meaning = self.events.get(kind)
        if meaning is None or meaning["signal"] != "positive":
            return False
        lowest = meaning.get("min_value")
        return lowest is None or (value is not None and value >= lowest)


def stored_history(store: Store, release: str, kinds: Kinds, user_id: str, uses_time: bool) -> Stored | None:
    """What the store holds of a user at a release, events told since included; None for a user it does not know.

    `times` where the model asks for them. Events stand where their own times put them, however late they arrived; in a
    history without times they come last.
    """
    return stored_histories(store, release, kinds, [user_id], uses_time)[0]


def stored_histories(
    store: Store, release: str, kinds: Kinds, user_ids: Sequence[str], uses_time: bool
) -> list[Stored | None]:
    """`stored_history` of each, read together."""
    found = store.known_of(release, user_ids, uses_time)
    return [None if known is None else combined(known, kinds, uses_time) for known in found]


def combined(known: Known, kinds: Kinds, uses_time: bool) -> Stored:
    item_ids, times, refused = known.item_ids, known.times if uses_time else None, known.refused
    if not known.events:
        return Stored(item_ids, times, refused)
    turned_down = {event.item_id for event in known.events if event.event in kinds.negative}
    refused = [*refused, *sorted(turned_down)]
    told = [(e.timestamp, e.item_id) for e in known.events if kinds.is_positive(e.event, e.value)]
    told.sort(key=itemgetter(0))
    if known.times is None:
        before: list[tuple[int | None, str]] = [(None, item_id) for item_id in item_ids]
        together = [*before, *told]
    else:
        together = sorted([*zip(known.times, item_ids, strict=True), *told], key=itemgetter(0))
    gone = {*turned_down, *known.refused} if turned_down or known.refused else frozenset()
    together = [(at, item_id) for at, item_id in together if item_id not in gone]
    return Stored([item_id for _, item_id in together], [at for at, _ in together] if uses_time else None, refused)
