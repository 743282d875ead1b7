"""What a store does, in SQL that SQLite and PostgreSQL both read. How to connect is for sqlite.py and postgres.py.

Knows nothing about models or HTTP.
"""

import json
import secrets
import time
from abc import abstractmethod
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Any

from recops.errors import CallError
from recops.schema import EVENTS
from recops.store import Erasure, HistoryRow, Known, LiveEvent, Moment, refused_in
from recops.store.answers import Answers
from recops.store.migrations import MIGRATIONS
from recops.store.values import as_json, iso, micros
from recops.user_hash import user_hash

EVENT_COLUMNS = tuple(EVENTS)
_STORED = (*EVENT_COLUMNS, "is_made")  # of an event, beside tenant and place
_SELECT_EVENTS = f"SELECT place, {', '.join(_STORED)} FROM events WHERE tenant = ?"
# Of tenant and release: events that the histories do not hold.
_SINCE = "place > coalesce((SELECT events_until FROM history_sets WHERE tenant = ? AND release = ?), 0)"
NEXT = "(SELECT coalesce(max(place), 0) + 1 FROM {} WHERE tenant = ?)"
_AT_ONCE = 512  # rows, or users, of one statement
MAX_LIVE = 2_000  # events of a user that a call looks at, the newest


class SqlStore(Answers):
    """A Store (see recops.store) for one `tenant`; every method of that protocol stands here."""

    tenant: str
    where: str  # what an error names
    broken: type[Exception]  # what the database raises
    contradicted: type[Exception]  # what it raises for a row that stands twice, or lacks an id
    is_remote: bool

    @abstractmethod
    def _read(self, query: str, values: Sequence[Any]) -> list[tuple]:
        """All rows of a query."""

    @abstractmethod
    def snapshot(self) -> AbstractContextManager[Callable[[str], Iterable[tuple]]]:
        """What gives the rows of a query, of all queries as they stood at one moment, while others write."""

    def take_time(self, con: Any) -> None:
        """Lets a transaction take as long as it needs, where the database would end it."""

    @abstractmethod
    def close(self) -> None: ...

    def _first(self, query: str, values: Sequence[Any]) -> tuple | None:
        return next(iter(self._read(query, values)), None)

    def put_histories(self, release: str, rows: Iterable[HistoryRow], events_until: int = 0) -> int:
        num_users = 0

        def encoded() -> Iterator[tuple[str, str, str, str, str | None]]:
            nonlocal num_users
            for user_id, item_ids, timestamps in rows:
                if timestamps is not None and len(timestamps) != len(item_ids):
                    raise CallError(f"user {user_id!r}: {len(item_ids)} items but {len(timestamps)} timestamps")
                times = None if timestamps is None else as_json([int(t) for t in timestamps])
                num_users += 1
                yield self.tenant, release, user_id, as_json(list(item_ids)), times

        with self._transaction() as con:
            con.execute("DELETE FROM histories WHERE tenant = ? AND release = ?", (self.tenant, release))
            try:
                con.cursor().executemany("INSERT INTO histories VALUES (?, ?, ?, ?, ?)", encoded())
            except self.contradicted as error:
                raise CallError(
                    f"histories of release {release[:12]}: a user stands twice or has no id ({error})"
                ) from None
            con.execute("DELETE FROM history_sets WHERE tenant = ? AND release = ?", (self.tenant, release))
            values = (self.tenant, release, num_users, events_until)
            con.execute(
                "INSERT INTO history_sets (tenant, release, num_users, events_until) VALUES (?, ?, ?, ?)", values
            )
        return num_users

    def num_histories(self, release: str) -> int | None:
        query = "SELECT num_users FROM history_sets WHERE tenant = ? AND release = ?"
        found = self._first(query, (self.tenant, release))
        return None if found is None else found[0]

    def history(self, release: str, user_id: str) -> list[str] | None:
        query = "SELECT item_ids FROM histories WHERE tenant = ? AND release = ? AND user_id = ?"
        found = self._first(query, (self.tenant, release, user_id))
        return None if found is None else json.loads(found[0])

    def history_times(self, release: str, user_id: str) -> list[int] | None:
        query = "SELECT timestamps FROM histories WHERE tenant = ? AND release = ? AND user_id = ?"
        found = self._first(query, (self.tenant, release, user_id))
        return None if found is None or found[0] is None else json.loads(found[0])

    def known(self, release: str, user_id: str, with_times: bool = False) -> Known | None:
        return self.known_of(release, [user_id], with_times)[0]

    def known_of(self, release: str, user_ids: Sequence[str], with_times: bool = False) -> list[Known | None]:
        return [
            known
            for start in range(0, len(user_ids), _AT_ONCE)
            for known in self._known_of(release, user_ids[start : start + _AT_ONCE], with_times)
        ]

    def _known_of(self, release: str, user_ids: Sequence[str], with_times: bool) -> Iterator[Known | None]:
        refused = refused_in(release)
        among = f"user_id IN ({', '.join('?' * len(user_ids))})"
        query = (
            "SELECT release, user_id, item_ids, timestamps FROM histories "
            f"WHERE tenant = ? AND release IN (?, ?) AND {among}"
        )
        rows = self._read(query, (self.tenant, release, refused, *user_ids))
        # Decoded in one go, which is cheaper.
        ids = json.loads(f"[{','.join(row[2] for row in rows)}]")
        held = {(row[0], row[1]): (items, row[3]) for row, items in zip(rows, ids, strict=True)}
        told = user_ids
        if len(user_ids) > 1:
            query = f"SELECT DISTINCT user_id FROM events WHERE tenant = ? AND {among} AND {_SINCE}"
            told = [row[0] for row in self._read(query, (self.tenant, *user_ids, self.tenant, release))]
        live = {user_id: self._live(release, user_id) for user_id in told}
        for user_id in user_ids:
            own, no, events = held.get((release, user_id)), held.get((refused, user_id)), live.get(user_id, [])
            if own is None and no is None and not events:
                yield None
                continue
            item_ids, times = ([], None) if own is None else own
            wanted = json.loads(times) if times is not None and (with_times or events) else None
            yield Known(item_ids, wanted, [] if no is None else no[0], events)

    def _live(self, release: str, user_id: str) -> list[LiveEvent]:
        """The newest MAX_LIVE events that the user's history does not hold, in order of arrival."""
        query = (
            f"SELECT item_id, event, value, timestamp FROM events WHERE tenant = ? AND user_id = ? AND {_SINCE} "
            "ORDER BY place DESC LIMIT ?"
        )
        rows = self._read(query, (self.tenant, user_id, self.tenant, release, MAX_LIVE))
        return [LiveEvent(*row) for row in reversed(rows)]

    def users_with_history(self, release: str) -> Iterator[str]:
        query = "SELECT user_id FROM histories WHERE tenant = ? AND release = ? ORDER BY user_id"
        for (user_id,) in self._stream(query, (self.tenant, release)):
            yield user_id

    def users_told_of(self, release: str) -> Iterator[str]:
        query = f"SELECT user_id FROM events WHERE tenant = ? AND {_SINCE} GROUP BY user_id ORDER BY min(place)"
        for (user_id,) in self._stream(query, (self.tenant, self.tenant, release)):
            yield user_id

    def drop_release(self, release: str) -> None:
        with self._transaction() as con:
            for table in ("histories", "history_sets"):
                for of in (release, refused_in(release)):
                    con.execute(f"DELETE FROM {table} WHERE tenant = ? AND release = ?", (self.tenant, of))

    def put_events(self, events: Sequence[Mapping[str, Any]]) -> list[bool]:
        stored: list[bool] = []
        if not events:
            return stored
        columns = ("tenant", "place", *_STORED)
        with self._transaction() as con:
            last = self._take_turn(con, len(events))
            now = max(time.time_ns() // 1000, self._last_erasure(con) + 1)  # after the erasures that went before
            for start in range(0, len(events), _AT_ONCE):
                some = events[start : start + _AT_ONCE]
                values: list[Any] = []
                for place, event in enumerate(some, start=last - len(events) + start + 1):
                    values += [self.tenant, place, *(_event_value(event, column, now) for column in _STORED)]
                row = f"({', '.join('?' * len(columns))})"
                query = (
                    f"INSERT INTO events ({', '.join(columns)}) VALUES {', '.join([row] * len(some))} "
                    "ON CONFLICT DO NOTHING RETURNING event_id"
                )
                new = {event_id for (event_id,) in con.execute(query, values).fetchall()}
                for event in some:
                    stored.append(event["event_id"] in new)
                    new.discard(event["event_id"])
        return stored

    def last_place(self) -> int:
        found = self._first("SELECT last FROM last_events WHERE tenant = ?", (self.tenant,))
        return 0 if found is None else found[0]

    def events(self, after: int = 0, until: int | None = None) -> Iterator[dict[str, Any]]:
        query = f"{_SELECT_EVENTS} AND place > ?"
        values: list[Any] = [self.tenant, after]
        if until is not None:
            query += " AND place <= ?"
            values.append(until)
        for row in self._stream(f"{query} ORDER BY place", values):
            yield _event(row)

    def events_of(self, user_id: str, limit: int, before: str | int | None = None) -> list[dict[str, Any]]:
        query = f"{_SELECT_EVENTS} AND user_id = ?"
        values: list[Any] = [self.tenant, user_id]
        if isinstance(before, str):
            place = "SELECT timestamp, place FROM events WHERE tenant = ? AND user_id = ? AND event_id = ?"
            found = self._first(place, (self.tenant, user_id, before))
            if found is None:
                raise CallError(f"before: the user has no event {before!r}")
            query, values = f"{query} AND (timestamp, place) < (?, ?)", [*values, *found]
        elif before is not None:
            query, values = f"{query} AND timestamp < ?", [*values, before]
        rows = self._read(f"{query} ORDER BY timestamp DESC, place DESC LIMIT ?", [*values, limit])
        return [_event(row) for row in rows]

    def held_of(self, user_id: str) -> dict[str, Any]:
        releases = self._read(
            "SELECT release, item_ids FROM histories WHERE tenant = ? AND user_id = ? ORDER BY release",
            (self.tenant, user_id),
        )
        counts = {
            table: self._read(f"SELECT count(*) FROM {table} WHERE tenant = ? AND user_id = ?", (self.tenant, user_id))
            for table in ("events", "answers")
        }
        return {
            "events": counts["events"][0][0],
            "answers": counts["answers"][0][0],
            "histories": {release: len(json.loads(item_ids)) for release, item_ids in releases},
        }

    def erase_user(self, user_id: str, now: Moment, by: str = "") -> dict[str, int]:
        hashed, deleted = user_hash(self.erasure_key(), user_id), {}
        with self._transaction() as con:
            self._take_turn(con)  # what arrives at the same time is erased, or comes after
            # Also where clocks differ, or this has waited: nothing that is erased here was received later.
            query = "SELECT max(received_at) FROM events WHERE tenant = ? AND user_id = ?"
            (received_at,) = con.execute(query, (self.tenant, user_id)).fetchone()
            erased_at = max(micros(now), received_at or 0, self._last_erasure(con))
            for table in ("events", "answers", "histories"):
                done = con.execute(f"DELETE FROM {table} WHERE tenant = ? AND user_id = ?", (self.tenant, user_id))
                deleted[table] = done.rowcount
            values = (self.tenant, self.tenant, hashed, erased_at)
            con.execute(f"INSERT INTO erasures VALUES (?, {NEXT.format('erasures')}, ?, ?)", values)
            self._log_decision(con, "erased", {"user_hash": hashed, "deleted": deleted, "by": by}, erased_at)
        self._forget_deleted()
        return deleted

    def _last_erasure(self, con: Any) -> int:
        """When anybody was last erased, 0 where nobody was: times on the list never go back."""
        query = "SELECT erased_at FROM erasures WHERE tenant = ? ORDER BY place DESC LIMIT 1"
        found = con.execute(query, (self.tenant,)).fetchone()
        return 0 if found is None else found[0]

    def _forget_deleted(self) -> None:
        """Takes what was deleted out of the files as well, where the database does not do that by itself."""

    def erasure_key(self) -> str:
        query = "SELECT value FROM secrets WHERE tenant = ? AND name = 'erasure'"
        found = self._first(query, (self.tenant,))
        if found is None:
            with self._transaction() as con:
                made = (self.tenant, secrets.token_hex(32))
                con.execute("INSERT INTO secrets VALUES (?, 'erasure', ?) ON CONFLICT DO NOTHING", made)
            found = self._first(query, (self.tenant,))
        assert found is not None
        return found[0]

    def erasures(self, after: int = 0) -> list[Erasure]:
        query = "SELECT place, user_hash, erased_at FROM erasures WHERE tenant = ? AND place > ? ORDER BY place"
        return [Erasure(*row) for row in self._read(query, (self.tenant, after))]

    def log_decision(self, what: str, facts: Mapping[str, Any], now: Moment | None = None, once: bool = False) -> None:
        at = time.time_ns() // 1000 if now is None else micros(now)
        with self._transaction() as con:
            self._take_turn(con)
            query = "SELECT 1 FROM audit WHERE tenant = ? AND time = ? AND what = ? AND facts = ?"
            if once and con.execute(query, (self.tenant, at, what, as_json(facts))).fetchone():
                return
            self._log_decision(con, what, facts, at)

    def _log_decision(self, con: Any, what: str, facts: Mapping[str, Any], at: int) -> None:
        values = (self.tenant, self.tenant, at, what, as_json(facts))
        con.execute(f"INSERT INTO audit VALUES (?, {NEXT.format('audit')}, ?, ?, ?)", values)

    def _take_turn(self, con: Any, num: int = 0) -> int:
        query = (
            "INSERT INTO last_events VALUES (?, ?) ON CONFLICT (tenant) DO UPDATE "
            "SET last = last_events.last + excluded.last RETURNING last"
        )
        return con.execute(query, (self.tenant, num)).fetchone()[0]

    def decisions(self, after: int = 0) -> list[dict[str, Any]]:
        query = "SELECT place, time, what, facts FROM audit WHERE tenant = ? AND place > ? ORDER BY place"
        rows = self._read(query, (self.tenant, after))
        return [{"place": p, "time": iso(t), "what": what, "facts": json.loads(facts)} for p, t, what, facts in rows]

    def put_items(self, items: Iterable[Mapping[str, Any]]) -> int:
        told = list(items)
        if not told:
            return self.last_change()
        with self._transaction() as con:
            bump = (
                "INSERT INTO changes VALUES (?, 1) ON CONFLICT (tenant) DO UPDATE SET last = changes.last + 1 "
                "RETURNING last"
            )
            (change,) = con.execute(bump, (self.tenant,)).fetchone()
            for item in told:
                if not isinstance(item_id := item.get("item_id"), str) or not item_id:
                    raise CallError(f"item {dict(item)!r}: has no item_id")
                query = "SELECT body FROM items WHERE tenant = ? AND item_id = ?"
                found = con.execute(query, (self.tenant, item_id)).fetchone()
                body = {**(json.loads(found[0]) if found else {}), **item}
                con.execute(
                    "INSERT INTO items VALUES (?, ?, ?, ?) ON CONFLICT (tenant, item_id) "
                    "DO UPDATE SET change = excluded.change, body = excluded.body",
                    (self.tenant, item_id, change, as_json(body)),
                )
        return change

    def last_change(self) -> int:
        found = self._first("SELECT last FROM changes WHERE tenant = ?", (self.tenant,))
        return 0 if found is None else found[0]

    def items_since(self, change: int) -> tuple[int, list[dict[str, Any]]]:
        # A change that comes in between is seen in full, and its items once more by the next call.
        last = self.last_change()
        query = "SELECT body FROM items WHERE tenant = ? AND change > ? ORDER BY change, item_id"
        return last, [json.loads(body) for (body,) in self._read(query, (self.tenant, change))]

    def put_item_vectors(self, encoder: str, vectors: Mapping[bytes, bytes]) -> None:
        rows = [(self.tenant, encoder, content, vector) for content, vector in vectors.items()]
        if rows:
            with self._transaction() as con:
                query = "INSERT INTO item_vectors VALUES (?, ?, ?, ?) ON CONFLICT DO NOTHING"
                con.cursor().executemany(query, rows)

    def item_vectors(self, encoder: str, contents: Collection[bytes]) -> dict[bytes, bytes]:
        query = "SELECT vector FROM item_vectors WHERE tenant = ? AND encoder = ? AND content = ?"
        found = {content: self._first(query, (self.tenant, encoder, content)) for content in contents}
        return {content: bytes(row[0]) for content, row in found.items() if row is not None}

    def put_report(self, kind: str, body: Any) -> None:
        with self._transaction() as con:
            self._put_report(con, kind, body)

    def change_report(self, kind: str, change: Callable[[Any | None], Any], what: str, facts: Mapping[str, Any]) -> Any:
        at = time.time_ns() // 1000
        with self._transaction() as con:
            self._take_turn(con)
            query = "SELECT body FROM reports WHERE tenant = ? AND kind = ?"
            found = con.execute(query, (self.tenant, kind)).fetchone()
            before = None if found is None else json.loads(found[0])
            body = change(before)
            if body != before:
                self._put_report(con, kind, body)
                self._log_decision(con, what, facts, at)
        return body

    def _put_report(self, con: Any, kind: str, body: Any) -> None:
        query = "INSERT INTO reports VALUES (?, ?, ?) ON CONFLICT (tenant, kind) DO UPDATE SET body = excluded.body"
        con.execute(query, (self.tenant, kind, as_json(body)))

    def report(self, kind: str) -> Any | None:
        found = self._first("SELECT body FROM reports WHERE tenant = ? AND kind = ?", (self.tenant, kind))
        return None if found is None else json.loads(found[0])

    def _missing_scripts(self, con: Any) -> list[tuple[int, str]]:
        """Versions and scripts that the database lacks. Raises CallError where it is newer than this recops."""
        con.execute("CREATE TABLE IF NOT EXISTS schema_version (version INTEGER NOT NULL)")
        (version,) = con.execute("SELECT coalesce(max(version), 0) FROM schema_version").fetchone()
        if version > len(MIGRATIONS):
            raise CallError(
                f"{self.where}: schema {version} is newer than this recops knows ({len(MIGRATIONS)}); upgrade recops"
            )
        return list(enumerate(MIGRATIONS[version:], start=version + 1))


def _event_value(event: Mapping[str, Any], column: str, now: int) -> Any:
    value = event.get(column)
    if column == "received_at":
        return now if value is None else value
    if column == "is_made":
        return int(bool(value))
    return as_json(value) if column == "context" and value is not None else value


def _event(row: tuple) -> dict[str, Any]:
    event = dict(zip(("place", *_STORED), row, strict=True))
    return {
        **event,
        "is_made": bool(event["is_made"]),
        "context": None if event["context"] is None else json.loads(event["context"]),
    }
