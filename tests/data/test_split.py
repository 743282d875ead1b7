"""The split stage's files: what is in them, that every row is counted, and that the same log gives the same bytes."""

import hashlib
import json
from datetime import UTC, datetime, timedelta
from pathlib import Path

import polars as pl
import pytest

from recops.data.interactions import SPLIT_COLUMNS
from recops.data.split import split_events
from recops.errors import CallError
from recops.params import EventKind, SplitParams

KINDS = {
    "rating": EventKind(signal="positive", min_value=3.0, weight=2.0),
    "click": EventKind(signal="positive"),
    "impression": EventKind(signal="exposure"),
    "open": EventKind(signal="ignored"),
}
ROWS = [
    ("u", "a", "rating", 5.0),
    ("u", "z", "rating", 2.5),  # below min_value
    ("u", "b", "click", None),
    ("u", "c", "rating", 3.0),  # at min_value: validation
    ("u", "d", "impression", None),
    ("u", "d", "rating", 4.0),  # test
    ("v", "a", "open", None),
    ("v", "b", "rating", None),  # no value: a negative
    ("v", "c", "click", None),
]
START = datetime(2024, 1, 1, tzinfo=UTC)


def write_events(path: Path, rows: list[tuple], times: bool = True) -> Path:
    frame = pl.DataFrame(
        [(*row, START + timedelta(hours=n) if times else None) for n, row in enumerate(rows)],
        orient="row",
        schema={
            "user_id": pl.String,
            "item_id": pl.String,
            "event": pl.String,
            "value": pl.Float32,
            "timestamp": pl.Datetime("us", "UTC"),
        },
    )
    frame.with_columns(event_id=pl.int_range(pl.len()).cast(pl.String)).write_parquet(path)
    return path


def test_every_row_is_in_a_part_or_counted_with_its_reason(tmp_path: Path):
    out = tmp_path / "split"
    facts = split_events(write_events(tmp_path / "events.parquet", ROWS), out, SplitParams(), KINDS, True)
    assert json.loads((out / "split.json").read_text(encoding="utf-8")) == facts
    train, valid, test = (pl.read_parquet(out / f"{part}.parquet") for part in ("train", "valid", "test"))
    assert tuple(train.columns) == SPLIT_COLUMNS
    assert train.select("user_id", "item_id", "signal", "weight").rows() == [
        ("u", "a", "positive", 2.0),
        ("u", "z", "negative", 2.0),
        ("u", "b", "positive", 1.0),
        ("v", "b", "negative", 2.0),
        ("v", "c", "positive", 1.0),
    ]
    assert valid["item_id"].to_list() == ["c"] and test["item_id"].to_list() == ["d"]
    assert facts["unused"] == {
        "of an ignored kind": 1,
        "positive after the cut, item seen before": 0,
        "not positive, after the cut": 1,
    }
    assert facts["rows"] == len(ROWS) == sum(p["rows"] for p in facts["parts"].values()) + sum(facts["unused"].values())
    assert facts["parts"]["train"]["to"] == facts["data_watermark"] == "2024-01-01T08:00:00.000000+00:00"


def test_first_seen_covers_the_whole_log(tmp_path: Path):
    split_events(write_events(tmp_path / "events.parquet", ROWS), tmp_path / "split", SplitParams(), KINDS, True)
    seen = pl.read_parquet(tmp_path / "split" / "first_seen.parquet")
    hours = [(time - START) / timedelta(hours=1) for time in seen["timestamp"]]
    assert dict(zip(seen["item_id"], hours, strict=True)) == {"a": 0, "b": 2, "c": 3, "d": 4, "z": 1}


def test_the_same_log_gives_the_same_bytes_and_replaces_an_older_split(tmp_path: Path):
    rows = [(f"u{n % 91}", f"i{n * n % 57}", "click", None) for n in range(5000)]
    events = write_events(tmp_path / "events.parquet", rows)

    def digests() -> dict[str, str]:
        split_events(events, tmp_path / "split", SplitParams(), KINDS, True)
        return {p.name: hashlib.sha256(p.read_bytes()).hexdigest() for p in (tmp_path / "split").iterdir()}

    first = digests()
    (tmp_path / "split" / "old.txt").touch()
    assert digests() == first
    assert sorted(p.name for p in tmp_path.iterdir()) == ["events.parquet", "split"]


def test_a_log_without_times_has_no_watermark(tmp_path: Path):
    events = write_events(tmp_path / "events.parquet", ROWS, times=False)
    facts = split_events(events, tmp_path / "split", SplitParams(), KINDS, True)
    assert facts["data_watermark"] is None and facts["parts"]["train"]["to"] is None


def test_an_unexplained_kind_is_refused_by_name(tmp_path: Path):
    events = write_events(tmp_path / "events.parquet", [*ROWS, ("u", "a", "swipe", None)])
    with pytest.raises(CallError, match=r"ingest.events does not explain: swipe \(1 rows\)"):
        split_events(events, tmp_path / "split", SplitParams(), KINDS, True)


def test_a_split_without_anybody_to_judge_leaves_nothing_behind(tmp_path: Path):
    events = write_events(tmp_path / "events.parquet", [("u", "a", "click", None)])
    with pytest.raises(CallError, match="leaves no positives for valid, test"):
        split_events(events, tmp_path / "split", SplitParams(), KINDS, True)
    assert [p.name for p in tmp_path.iterdir()] == ["events.parquet"]


def test_a_window_leaves_what_is_older_out_and_counts_it(tmp_path: Path):
    rows = [(f"u{n % 4}", f"i{n}", "click", None) for n in range(48)]  # one an hour
    split = SplitParams(name="global_time", window_days=1)
    facts = split_events(write_events(tmp_path / "events.parquet", rows), tmp_path / "split", split, KINDS, True)
    assert facts["unused"]["before split.window_days"] == 24
    assert facts["rows"] == 48 == sum(p["rows"] for p in facts["parts"].values()) + sum(facts["unused"].values())
    train = pl.read_parquet(tmp_path / "split" / "train.parquet")
    assert train["item_id"][0] == "i24"


def test_a_window_needs_times(tmp_path: Path):
    events = write_events(tmp_path / "events.parquet", ROWS, times=False)
    with pytest.raises(CallError, match=r"split\.window_days"):
        split_events(events, tmp_path / "split", SplitParams(window_days=1), KINDS, True)
