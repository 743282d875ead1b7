"""The log of answers, and what followed them, in SQL that both databases read."""

import json
from abc import ABC, abstractmethod
from collections.abc import Collection, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager
from itertools import groupby
from operator import itemgetter
from typing import Any

from recops.errors import CallError
from recops.store import OF_SHADOW, SHADOW, Followed, LiveEvent, Moment
from recops.store.values import as_json, iso, micros
from recops.user_hash import user_hash

ANSWER_COLUMNS = ("request_id", "time", "user_id", "items", "release", "variant", "source")
_SELECT_ANSWERS = f"SELECT {', '.join(ANSWER_COLUMNS)} FROM answers WHERE tenant = ?"
# Without per cent signs, which one of the databases takes for places of values.
_IS_SHADOW = f"substr(coalesce({{0}}, ''), 1, {len(SHADOW)}) = '{SHADOW}'"
_SHOWN = f" AND NOT {_IS_SHADOW}"
# Of an answer `a`, and of an event `e` that named it.
_FOLLOWED = "a.request_id, a.time, a.user_id, a.items, a.release, a.variant, a.source"
_OF_ANSWER = ("request_id", "time", "user_id", "items_json", "release", "variant", "source", "shown_json")
_EVENT_OF_ANSWER = "e.place, e.item_id, e.event, e.value, e.timestamp"


class Answers(ABC):
    """The part of an SqlStore that keeps answers."""

    tenant: str
    find: str  # the database's function that finds a text in a text

    @abstractmethod
    def _first(self, query: str, values: Sequence[Any]) -> tuple | None: ...

    @abstractmethod
    def _read(self, query: str, values: Sequence[Any]) -> list[tuple]: ...

    @abstractmethod
    def _transaction(self) -> AbstractContextManager[Any]:
        """A connection with `execute` and `cursor`; all that is written through it, or nothing."""

    @abstractmethod
    def _stream(self, query: str, values: Sequence[Any]) -> Iterator[tuple]:
        """Rows as they stood at the first, while others write."""

    @abstractmethod
    def _take_turn(self, con: Any, num: int = 0) -> int:
        """Places for so many answers or events, of which the last is returned. No other transaction that calls this
        goes on before this one has ended, so that a place is never seen before those in front of it."""

    @abstractmethod
    def erasure_key(self) -> str: ...

    def log_answers(self, answers: Iterable[dict[str, Any]]) -> None:
        rows = []
        for answer in answers:
            if wrong := set(answer) ^ set(ANSWER_COLUMNS):
                raise CallError(
                    f"answer {answer.get('request_id')!r}: missing or unknown keys {', '.join(sorted(wrong))}"
                )
            values = {**answer, "time": micros(answer["time"]), "items": as_json(answer["items"])}
            rows.append((self.tenant, *(values[column] for column in ANSWER_COLUMNS)))
        if rows:
            with self._transaction() as con:
                first = self._take_turn(con, len(rows)) - len(rows) + 1
                rows = [(*row, place) for place, row in enumerate(self._not_erased_since(con, rows), first)]
                columns = ("tenant", *ANSWER_COLUMNS, "place")
                query = f"INSERT INTO answers ({', '.join(columns)}) VALUES ({', '.join('?' * len(columns))})"
                con.cursor().executemany(f"{query} ON CONFLICT DO NOTHING", rows)

    def _not_erased_since(self, con: Any, rows: list[tuple]) -> list[tuple]:
        """Without answers to users who were erased after they were answered: they are logged a little later."""
        at, user = (1 + ANSWER_COLUMNS.index(name) for name in ("time", "user_id"))
        query = "SELECT user_hash, erased_at FROM erasures WHERE tenant = ? AND erased_at >= ? ORDER BY place"
        erased = dict(con.execute(query, (self.tenant, min(row[at] for row in rows))).fetchall())
        if not erased:
            return rows
        key = self.erasure_key()
        return [row for row in rows if row[user] is None or erased.get(user_hash(key, row[user]), -1) < row[at]]

    def answer(self, request_id: str) -> dict[str, Any] | None:
        found = self._first(f"{_SELECT_ANSWERS} AND request_id = ?", (self.tenant, request_id))
        return None if found is None else _answer(found)

    def answers_of(self, user_id: str, limit: int) -> list[dict[str, Any]]:
        query = f"{_SELECT_ANSWERS} AND user_id = ?{_SHOWN.format('variant')} ORDER BY time DESC, request_id LIMIT ?"
        return [_answer(row) for row in self._read(query, (self.tenant, user_id, limit))]

    def answers_by(self, release: str) -> tuple[int, int]:
        query = "SELECT count(*), count(DISTINCT user_id) FROM answers WHERE tenant = ? AND release = ?"
        found = self._first(query + _SHOWN.format("variant"), (self.tenant, release))
        assert found is not None
        return found[0], found[1]

    def answers(self, since: Moment | None = None, until: Moment | None = None) -> Iterator[dict[str, Any]]:
        query = _SELECT_ANSWERS + _SHOWN.format("variant")
        values: list[str | int] = [self.tenant]
        for bound, comparison in ((since, ">="), (until, "<")):
            if bound is not None:
                query += f" AND time {comparison} ?"
                values.append(micros(bound))
        for row in self._stream(f"{query} ORDER BY time, request_id", values):
            yield _answer(row)

    def answers_with_events(
        self, since: Moment, until: Moment, window_us: int
    ) -> Iterator[tuple[dict[str, Any], list[LiveEvent]]]:
        query = (
            f"SELECT {', '.join(f'a.{column}' for column in ANSWER_COLUMNS)}, {_EVENT_OF_ANSWER} FROM answers a "
            "LEFT JOIN events e ON e.tenant = a.tenant AND e.request_id = a.request_id AND e.timestamp <= a.time + ? "
            f"WHERE a.tenant = ? AND a.time >= ? AND a.time < ?{_SHOWN.format('a.variant')} "
            "ORDER BY a.time, a.request_id"
        )
        num = len(ANSWER_COLUMNS)
        rows = self._stream(query, (window_us, self.tenant, micros(since), micros(until)))
        for _, some in groupby(rows, itemgetter(0)):
            same = list(some)
            yield _answer(same[0][:num]), [event for _, event in _events_of(same, num)]

    def followed(
        self, since: int, window_us: int, until: int, after: int = 0, shadows: Collection[str] = ()
    ) -> Iterator[Followed]:
        is_shadow = _IS_SHADOW.format("a.variant")
        shown = f"substr(a.request_id, 1, {self.find}(a.request_id, '{OF_SHADOW}') - 1)"
        # A plus keeps a database from looking by that column: places of events are no way to those of an answer.
        if not after:
            which, values = "a.time >= ? AND +a.place <= ? ORDER BY a.time, a.request_id", [since, until]
        else:
            which = "a.place > ? AND a.place <= ? AND +a.time >= ? ORDER BY a.place, a.request_id"
            values = [after, until, since]
        query = (
            f"SELECT {_FOLLOWED}, s.items, {_EVENT_OF_ANSWER} FROM answers a LEFT JOIN answers s "
            f"ON s.tenant = a.tenant AND s.request_id = CASE WHEN {is_shadow} THEN {shown} END LEFT JOIN events e "
            f"ON e.tenant = a.tenant AND e.request_id = CASE WHEN {is_shadow} THEN {shown} ELSE a.request_id END "
            f"AND e.timestamp <= a.time + ? AND +e.place <= ? WHERE a.tenant = ? AND {which}"
        )
        yield from self._followed(query, (window_us, until, self.tenant, *values), after, is_new=True)
        if not after:
            return
        query = (
            f"SELECT {_FOLLOWED}, NULL, {_EVENT_OF_ANSWER} FROM (SELECT DISTINCT request_id AS named FROM events "
            "WHERE tenant = ? AND place > ? AND place <= ?) n JOIN answers a ON a.request_id = n.named || ? "
            "JOIN events e ON e.tenant = a.tenant AND e.request_id = n.named AND e.timestamp <= a.time + ? "
            "AND +e.place <= ? WHERE a.tenant = ? AND +a.place <= ? AND +a.time >= ? ORDER BY a.request_id"
        )
        for of in ("", *(OF_SHADOW + name for name in shadows)):
            named = (self.tenant, after, until, of, window_us, until, self.tenant, after, since)
            yield from self._followed(query, named, after, is_new=False)

    def _followed(self, query: str, values: Sequence[Any], after: int, is_new: bool) -> Iterator[Followed]:
        for _, some in groupby(self._stream(query, values), itemgetter(0)):
            same = list(some)
            events = _events_of(same, len(_OF_ANSWER))
            before = [] if is_new else [event for place, event in events if place <= after]
            told = [event for _, event in events]
            answer = dict(zip(_OF_ANSWER, same[0], strict=False))
            yield Followed(**answer, is_new=is_new, events=told, before=before)


def _answer(row: tuple) -> dict[str, Any]:
    answer = dict(zip(ANSWER_COLUMNS, row, strict=True))
    answer["time"] = iso(answer["time"])
    answer["items"] = json.loads(answer["items"])
    return answer


def _events_of(rows: list[tuple], start: int) -> list[tuple[int, LiveEvent]]:
    """The events of one answer with their places, in order of arrival; they stand in the columns from `start` on."""
    found = [(row[start], LiveEvent(*row[start + 1 :])) for row in rows if row[start] is not None]
    return sorted(found, key=itemgetter(0)) if len(found) > 1 else found
