"""What the service was told, as files that a stage can depend on: immutable Parquet parts and the list of erased users.

In: events of a store in order of arrival. Out: parts `<from>-<to>.parquet` by place, and `Feedback`, the file that says
which of them count. Knows no store.
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from hashlib import sha256
from pathlib import Path
from typing import Any, NamedTuple

import duckdb
import polars as pl

from recops.bundle import canonical_json, write_atomically
from recops.data.sql import text
from recops.errors import CallError
from recops.params import EventKind
from recops.schema import EVENTS, TABLES
from recops.user_hash import user_hash

COLUMNS: dict[str, pl.DataType | type[pl.DataType]] = {
    "place": pl.Int64,
    **dict.fromkeys(EVENTS, pl.String),
    "timestamp": pl.Datetime("us", "UTC"),
    "received_at": pl.Datetime("us", "UTC"),
    "value": pl.Float32,
    "rank": pl.Int32,
    "is_made": pl.Boolean,
}


class Erased(NamedTuple):
    """A user whose events up to `erased_at` (µs UTC) are not to be used; `user_hash` is keyed (recops.user_hash)."""

    user_hash: str
    erased_at: int


@dataclass(frozen=True)
class Feedback:
    """`.recops/feedback.json`: which parts count (file, sha256, rows; those `quarantined` do not), the place of the
    last event in them, the store that counts so, and which users were erased, and how many entries of the store's
    list that is."""

    parts: tuple[Mapping[str, Any], ...] = ()
    store: str = ""
    events_until: int = 0
    erased: tuple[Erased, ...] = ()

    @classmethod
    def read(cls, path: Path) -> "Feedback":
        """Empty where there is no file. Raises CallError for one that cannot be read."""
        try:
            values = json.loads(path.read_text(encoding="utf-8"))
            erased = tuple(Erased(*pair) for pair in values.pop("erased", ()))
            return cls(parts=tuple(values.pop("parts", ())), erased=erased, **values)
        except FileNotFoundError:
            return cls()
        except (ValueError, TypeError) as error:
            raise CallError(f"{path}: not a readable list of feedback: {error}") from None

    def write(self, path: Path) -> None:
        values = {"parts": list(self.parts), "store": self.store, "events_until": self.events_until}
        write_atomically(path, canonical_json({**values, "erased": [list(pair) for pair in self.erased]}))

    def with_part(self, folder: Path, events: Iterable[Mapping[str, Any]], last: int) -> "Feedback":
        """With the events after `events_until` up to the place `last` as one part more; as it is without any."""
        frame = as_frame(events)
        if frame.is_empty():
            return self  # repetitions take places too
        name = f"{self.events_until + 1:012}-{last:012}"
        taken = {part["file"] for part in self.parts}
        file = next(f for f in (f"{name}.parquet", f"{name}-{self.store}.parquet") if f not in taken)
        return replace(self, parts=(*self.parts, write_part(folder / file, frame)), events_until=last)

    def without_erased(self, folder: Path, key: str, erased: tuple[Erased, ...]) -> "Feedback":
        """With a longer list of erased users: parts that hold any of the new ones are written anew without them. They
        take the place of the old ones by `settle`, once this is written: a kill in between costs nothing.

        Raises CallError for a part that is missing or not what it was.
        """
        new = dict(erased[len(self.erased) :])
        parts = []
        for part in self.parts:
            frame = read_part(folder, part)
            kept = frame.filter(~is_erased(frame, key, new))
            parts.append(part if len(kept) == len(frame) else {**part, **write_beside(folder / part["file"], kept)})
        return replace(self, parts=tuple(parts), erased=erased)


def as_frame(events: Iterable[Mapping[str, Any]]) -> pl.DataFrame:
    """Events as a store gives them."""
    rows = ({**event, "context": canonical(event["context"])} for event in events)
    frame = pl.from_dicts(list(rows), schema={**COLUMNS, "timestamp": pl.Int64, "received_at": pl.Int64})
    return frame.cast({name: COLUMNS[name] for name in ("timestamp", "received_at")})


def canonical(context: Any) -> str | None:
    return None if context is None else json.dumps(context, ensure_ascii=False, separators=(",", ":"))


def write_part(path: Path, frame: pl.DataFrame) -> dict[str, Any]:
    """Writes a part, whole or not at all, and returns its entry."""
    entry = write_beside(path, frame)
    _beside(path).replace(path)
    return entry


def write_beside(path: Path, frame: pl.DataFrame) -> dict[str, Any]:
    """Writes what is to become the part `path`, and returns its entry."""
    path.parent.mkdir(parents=True, exist_ok=True)
    new = _beside(path)
    frame.write_parquet(new, compression="zstd")
    return {"file": path.name, "sha256": sha256(new.read_bytes()).hexdigest(), "rows": len(frame)}


def settle(folder: Path, parts: Iterable[Mapping[str, Any]]) -> None:
    """Puts parts in their place that were written beside it; what was written and never named is removed."""
    for part in parts:
        path = folder / part["file"]
        if (new := _beside(path)).is_file():
            new.replace(path) if sha256(new.read_bytes()).hexdigest() == part["sha256"] else new.unlink()


def _beside(path: Path) -> Path:
    return path.with_name(f".{path.name}.new")


def read_part(folder: Path, part: Mapping[str, Any]) -> pl.DataFrame:
    """The events of a part. Raises CallError where the file is missing or not what it was."""
    path = folder / part["file"]
    if not path.is_file():
        raise CallError(f"{path}: missing; put it back, or take its entry out of .recops/feedback.json")
    if sha256(path.read_bytes()).hexdigest() != part["sha256"]:
        raise CallError(f"{path}: is not what was sealed (sha256 differs); put it back as it was")
    return pl.read_parquet(path)


def read_key(path: Path) -> str:
    """The key of the hashes in the list of erased users; empty where nobody was."""
    return path.read_text(encoding="utf-8") if path.is_file() else ""


def is_erased(frame: pl.DataFrame, key: str, erased: Mapping[str, int]) -> pl.Series:
    """bool, for each row: its user was erased after it was received."""
    users = frame["user_id"].unique()
    until = {user: erased[hashed] for user in users if (hashed := user_hash(key, user)) in erased}
    if not until:
        return pl.repeat(False, len(frame), eager=True)
    ends = frame["user_id"].replace_strict(until, default=None, return_dtype=pl.Int64)
    return (frame["received_at"].cast(pl.Int64) <= ends).fill_null(False)


def relation(folder: Path, parts: Iterable[Mapping[str, Any]], keeps_made_ids: bool) -> str | None:
    """SQL of the events of all parts, as a source gives them (protocols.Source); None where there are none. Parts that
    are quarantined are left out.

    An id that was made of the content is left for ingest to make, so that an event that the log holds as well is found
    to be the same; `keeps_made_ids` in a log without times, where the place is the time.
    """
    files = []
    for part in parts:
        if part.get("quarantined"):
            continue
        read_part(folder, part)
        files.append(text(folder / part["file"]))
    if not files:
        return None
    event_id = "event_id" if keeps_made_ids else "CASE WHEN NOT is_made THEN event_id END"
    columns = ", ".join(f"{event_id} AS event_id" if name == "event_id" else f'"{name}"' for name in EVENTS)
    raw = ", ".join(f'"{name}" := "{name}"' for name in EVENTS)
    return (
        f"(SELECT {columns}, parse_filename(filename) AS _file, "
        "row_number() OVER (PARTITION BY filename ORDER BY place) AS _line, "
        f"to_json(struct_pack({raw}))::VARCHAR AS _raw, row_number() OVER (ORDER BY filename, place) AS _row "
        f"FROM read_parquet([{', '.join(files)}], filename = true))"
    )


@dataclass(frozen=True)
class Told:
    """What comes beside the source: events told to the service (feedback.relation; None: none), what their kinds mean,
    and the users that were erased, of whom nothing up to then is used, with the key of their hashes."""

    events: str | None = None
    kinds: Mapping[str, EventKind] = field(default_factory=dict)
    erased: Sequence[Erased] = ()
    key: str = ""


NOTHING_TOLD = Told()


def make_erased(con: duckdb.DuckDBPyConnection, told: Told) -> None:
    """The table `erased`: by the hash of a user, up to which time; only where anybody was."""
    if told.erased:
        con.execute("CREATE TEMP TABLE erased (user_hash VARCHAR, erased_at BIGINT)")
        con.executemany("INSERT INTO erased VALUES (?, ?)", [list(entry) for entry in told.erased])
        con.execute(
            "CREATE OR REPLACE TEMP TABLE erased AS SELECT user_hash, max(erased_at) AS until FROM erased GROUP BY 1"
        )
        con.execute("SET VARIABLE erasures = (SELECT map(list(user_hash), list(until)) FROM erased)")
        con.execute(f"SET VARIABLE erasure_key = {text(told.key)}")


def is_erased_sql(con: duckdb.DuckDBPyConnection, table: str) -> str | None:
    """SQL that is true for a row of an erased user; None where nobody was, or the table has no users."""
    is_any = con.execute("SELECT getvariable('erasures') IS NOT NULL").fetchone()
    if "user_id" not in TABLES[table] or is_any != (True,):
        return None
    # As recops.user_hash.
    key = "getvariable('erasure_key')"
    until = f"getvariable('erasures')[sha256({key} || sha256({key} || user_id))]"
    if table != "events":
        return f"{until} IS NOT NULL"
    return f"coalesce(epoch_us(coalesce(received_at, timestamp)) <= {until}, {until} IS NOT NULL)"
