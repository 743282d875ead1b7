"""The durable log of a project: histories by release, events and items told online, answers given, who was erased,
what was decided, and reports for the service.

In: a URL. Out: a `Store`, the one interface whatever database lies behind it. Knows nothing about models or HTTP, and
is free of dataframe libraries, since the service imports it. A `tenant` (default `main`) stands in every table.
"""

import json
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, NamedTuple, Protocol

from recops.errors import CallError

# What a challenger in shadow answered is logged as `shadow:NAME`, under `REQUEST_ID~NAME` and the time of what was
# shown.
SHADOW, OF_SHADOW = "shadow:", "~"

HistoryRow = tuple[str, Sequence[str], Sequence[int] | None]  # user_id, item_ids oldest first, timestamps in µs UTC
Moment = int | str | datetime  # µs since the epoch in UTC, or ISO 8601 text, or a datetime, both with a zone


class LiveEvent(NamedTuple):
    """An event that was told to the service, as a call looks at it; `timestamp` in µs UTC."""

    item_id: str
    event: str
    value: float | None
    timestamp: int


@dataclass(frozen=True)
class Known:
    """What is held of a user for a release: the history it was promoted with (`item_ids`, oldest first, and their
    times), what the user refused, and the events that arrived since, in order of arrival."""

    item_ids: list[str]
    times: list[int] | None
    refused: list[str]
    events: list[LiveEvent]


class Followed(NamedTuple):
    """An answer and what followed: the events that named it up to the last look (`before`) and up to this one.
    `is_new`: no look has seen the answer. Of a shadow `events` are those of what was shown instead, whose items are
    `shown_json`."""

    request_id: str
    time: int  # µs UTC
    user_id: str | None
    items_json: str
    release: str
    variant: str | None
    source: str | None
    is_new: bool = True
    events: Sequence[LiveEvent] = ()
    before: Sequence[LiveEvent] = ()
    shown_json: str | None = None

    @property
    def items(self) -> list[dict[str, Any]]:
        return json.loads(self.items_json)


class Erasure(NamedTuple):
    """An entry of the list of erased users. What arrived up to `erased_at` (µs UTC) is gone; the id is not kept."""

    place: int  # from 1
    user_hash: str
    erased_at: int


def refused_in(release: str) -> str:
    """The name under which a store holds, as `histories`, the items that are not to be recommended to each user."""
    return f"{release}/refused"


class Store(Protocol):
    """What every store does. Safe for many threads of a process, and for many processes at once.

    A call that returned has its data on disk. Times come back as ISO 8601 text in UTC. `is_remote`: what is asked
    goes to another machine, or may, and so may not be answered for long.
    """

    is_remote: bool

    def put_histories(self, release: str, rows: Iterable[HistoryRow], events_until: int = 0) -> int:
        """Replaces all histories of a release in one transaction and returns how many users it holds.

        `events_until`: the place of the last told event that the histories already hold. All or nothing: when `rows`
        raises, or the process dies, the release's former histories stand. A user given twice raises CallError. Doing it
        again with the same rows changes nothing.
        """
        ...

    def num_histories(self, release: str) -> int | None:
        """Users whose history is held for a release; None when none were ever put for it."""
        ...

    def history(self, release: str, user_id: str) -> list[str] | None:
        """Item ids of one user, oldest first; None for a user the release does not know."""
        ...

    def history_times(self, release: str, user_id: str) -> list[int] | None:
        """Times in µs UTC of the events of `history`; None for a log without times and for a user not known."""
        ...

    def known(self, release: str, user_id: str, with_times: bool = False) -> Known | None:
        """What a call needs of one user; None for somebody of whom nothing is held. Times of the history are given
        where they were asked for, or events arrived since; of those at most the 2,000 newest."""
        ...

    def known_of(self, release: str, user_ids: Sequence[str], with_times: bool = False) -> list[Known | None]:
        """`known` of each, read together."""
        ...

    def users_with_history(self, release: str) -> Iterator[str]:
        """All whose history is held, ordered by id, as it stood at the first; empty for an unknown release."""
        ...

    def users_told_of(self, release: str) -> Iterator[str]:
        """Users of whom events were told that the histories of the release do not hold, in the order of the first."""
        ...

    def drop_release(self, release: str) -> None:
        """Removes a release's histories, and what its users refused; answers given with it stay."""
        ...

    def log_answers(self, answers: Iterable[dict[str, Any]]) -> None:
        """Appends answers: request_id, time, user_id or None, items [{item_id, rank, score}], release, variant, source.

        A `request_id` already logged is left as it is; an answer to a user who was erased after it is not kept. Raises
        CallError naming a key that is missing or unknown.
        """
        ...

    def answer(self, request_id: str) -> dict[str, Any] | None:
        """One answer as logged, or None."""
        ...

    def answers_of(self, user_id: str, limit: int) -> list[dict[str, Any]]:
        """A user's answers that were shown, newest first."""
        ...

    def answers_by(self, release: str) -> tuple[int, int]:
        """How many answers of a release were shown, and to how many users. Reads the whole log of answers."""
        ...

    def answers(self, since: Moment | None = None, until: Moment | None = None) -> Iterator[dict[str, Any]]:
        """Answers that were shown with since <= time < until, by time and then request id."""
        ...

    def put_events(self, events: Sequence[Mapping[str, Any]]) -> list[bool]:
        """Appends events in one transaction: columns of the events table, times in µs UTC, `received_at` now where it
        is not given, `is_made` where the id was made of the content. Says of each whether it is new; one whose
        `event_id` is there already changes nothing.

        Places count up in the order of arrival, and are seen in that order, whoever writes at the same time.
        """
        ...

    def last_place(self) -> int:
        """The highest place an event or an answer was ever given, 0 where there was none."""
        ...

    def events(self, after: int = 0, until: int | None = None) -> Iterator[dict[str, Any]]:
        """Events whose place is > `after` and <= `until`, by place: `place`, `is_made` and the events table's columns,
        times in µs UTC, `context` as a JSON value."""
        ...

    def events_of(self, user_id: str, limit: int, before: str | int | None = None) -> list[dict[str, Any]]:
        """A user's events as `events` gives them, newest first by their own time; only those before an event id or a
        time (µs). Raises CallError for an event id that the user does not have."""
        ...

    def held_of(self, user_id: str) -> dict[str, Any]:
        """How much is held about a user: `events`, `answers`, and the length of `histories` by release."""
        ...

    def erase_user(self, user_id: str, now: Moment, by: str = "") -> dict[str, int]:
        """Deletes a user's events, answers and histories, of all releases, and puts a keyed hash of the id on the list
        and, with who did it, in the audit log, in one transaction. Returns how many rows went, by table. Without any it
        is listed as well: there may be data of the user elsewhere."""
        ...

    def erasure_key(self) -> str:
        """The key of `user_hash`, made when it is first asked for."""
        ...

    def erasures(self, after: int = 0) -> list[Erasure]:
        """The list of erased users after a place, by place."""
        ...

    def log_decision(self, what: str, facts: Mapping[str, Any], now: Moment | None = None, once: bool = False) -> None:
        """Appends to the audit log, from which nothing is ever taken. `once`: not where this very entry, its time
        included, stands there already."""
        ...

    def decisions(self, after: int = 0) -> list[dict[str, Any]]:
        """The audit log after a place, by place: `place`, `time`, `what`, `facts`."""
        ...

    def answers_with_events(
        self, since: Moment, until: Moment, window_us: int
    ) -> Iterator[tuple[dict[str, Any], list[LiveEvent]]]:
        """Answers that were shown with since <= time < until, by time, each with the events that name its `request_id`
        and lie at most `window_us` after it, in order of arrival. What arrives late is there the next time."""
        ...

    def followed(
        self, since: int, window_us: int, until: int, after: int = 0, shadows: Collection[str] = ()
    ) -> Iterator[Followed]:
        """What came, up to the place `until`, of answers since a time (µs), shadows included, in no order; events as of
        `answers_with_events`. `after` a place: only of answers that have come since, or that events have named since,
        those of the challengers `shadows` included."""
        ...

    def put_items(self, items: Iterable[Mapping[str, Any]]) -> int:
        """Adds or changes items, all or none: `item_id` and any columns of the items table as JSON values. A column
        that is not given stays as it was, one that is None is taken away. Returns the number of this change.

        Raises CallError for an item without an id. Without items nothing changes.
        """
        ...

    def last_change(self) -> int:
        """The number of the last change, 0 where there was none. Cheap: workers ask it again and again."""
        ...

    def items_since(self, change: int) -> tuple[int, list[dict[str, Any]]]:
        """The last change, and the items told after `change`, each whole, in the order of their last change."""
        ...

    def put_item_vectors(self, encoder: str, vectors: Mapping[bytes, bytes]) -> None:
        """Keeps what an encoder (by digest) made of contents (by digest), so that one worker alone has the work."""
        ...

    def item_vectors(self, encoder: str, contents: Collection[bytes]) -> dict[bytes, bytes]:
        """Those of the vectors that are kept."""
        ...

    def put_report(self, kind: str, body: Any) -> None:
        """Keeps `body` (JSON) as the latest report of a kind, such as `drift` or `validation`."""
        ...

    def change_report(self, kind: str, change: Callable[[Any | None], Any], what: str, facts: Mapping[str, Any]) -> Any:
        """Puts what `change` makes of a report (None: there is none), with nobody changing it meanwhile, and returns
        it. Where that is another one, `what` and `facts` stand in the audit log. What it raises changes nothing."""
        ...

    def report(self, kind: str) -> Any | None:
        """The latest report of a kind, or None."""
        ...

    def close(self) -> None:
        """Closes every connection; the store cannot be used afterwards."""
        ...


def open_store(url: str, tenant: str = "main") -> Store:
    """The store at `sqlite:///PATH` (four slashes for an absolute path) or `postgresql://USER:PASSWORD@HOST/DATABASE`,
    made or brought up to date where needed.

    Raises CallError for another kind of URL, a file that is no database, a server that does not answer, or a schema
    written by a newer recops.
    """
    kind, _, path = url.partition("://")
    if kind == "sqlite" and path.startswith("/") and len(path) > 1:
        from recops.store.sqlite import SqliteStore

        return SqliteStore(path[1:], tenant)
    if kind in ("postgresql", "postgres") and path:
        from recops.store.postgres import PostgresStore

        return PostgresStore(url, tenant)
    # No more of it than how it begins: what follows may be a password.
    raise CallError(f"store {kind.partition(':')[0]}: expected sqlite:///PATH or postgresql://HOST/DATABASE")
