"""The durable log of a project: histories by release, answers given, items told online, and reports for the service.

In: a URL. Out: a `Store`, the one interface whatever database lies behind it. Knows nothing about models or HTTP, and
is free of dataframe libraries, since the service imports it. A `tenant` (default `main`) stands in every table.
"""

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from datetime import datetime
from typing import Any, Protocol

from recops.errors import CallError

HistoryRow = tuple[str, Sequence[str], Sequence[int] | None]  # user_id, item_ids oldest first, timestamps in µs UTC
Moment = int | str | datetime  # µs since the epoch in UTC, or ISO 8601 text, or a datetime, both with a zone


def refused_in(release: str) -> str:
    """The name under which a store holds, as `histories`, the items that are not to be recommended to each user."""
    return f"{release}/refused"


class Store(Protocol):
    """What every store does. Safe for many threads of a process, and for many processes at once.

    A call that returned has its data on disk. Times come back as ISO 8601 text in UTC.
    """

    def put_histories(self, release: str, rows: Iterable[HistoryRow]) -> int:
        """Replaces all histories of a release in one transaction and returns how many users it holds.

        All or nothing: when `rows` raises, or the process dies, the release's former histories stand. A user given
        twice raises CallError. Doing it again with the same rows changes nothing.
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

    def history_rows(self, release: str) -> Iterator[tuple[str, list[str]]]:
        """Every user's history, ordered by user id, read as it stood at the first row; empty for an unknown release."""
        ...

    def drop_release(self, release: str) -> None:
        """Removes a release's histories; answers given with it stay."""
        ...

    def log_answers(self, answers: Iterable[dict[str, Any]]) -> None:
        """Appends answers: request_id, time, user_id or None, items [{item_id, rank, score}], release, variant, source.

        A `request_id` already logged is left as it is. Raises CallError naming a key that is missing or unknown.
        """
        ...

    def answer(self, request_id: str) -> dict[str, Any] | None:
        """One answer as logged, or None."""
        ...

    def answers(self, since: Moment | None = None, until: Moment | None = None) -> Iterator[dict[str, Any]]:
        """Answers with since <= time < until, by time and then request id."""
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

    def report(self, kind: str) -> Any | None:
        """The latest report of a kind, or None."""
        ...

    def close(self) -> None:
        """Closes every connection; the store cannot be used afterwards."""
        ...


def open_store(url: str, tenant: str = "main") -> Store:
    """The store at `sqlite:///PATH` (four slashes for an absolute path), made or brought up to date where needed.

    Raises CallError for another kind of URL, a file that is no database, or one written by a newer recops.
    """
    kind, separator, path = url.partition(":///")
    if kind != "sqlite" or not separator or not path:
        raise CallError(f"store {url!r}: only sqlite:///PATH is known")
    from recops.store.sqlite import SqliteStore

    return SqliteStore(path, tenant)
