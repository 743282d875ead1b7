"""Validation on a real log: planted faults are found, clean resamples pass, the first import is judged leniently."""

import json
import os
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from recops.data.ingest import ingest
from recops.data.split import split_events
from recops.data.validation import Verdict, read_suite, validate, validate_split, verdict_table
from recops.errors import CallError
from recops.params import Params

SUITES = Path(__file__).resolve().parents[2] / "expectations"
KINDS = list(Params().ingest.events)
NOW = datetime(2016, 10, 20, tzinfo=UTC)  # three days after the last rating


@pytest.fixture(scope="module")
def whole_log(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("log")
    ingest(Params().source, Params().ingest, folder, folder)
    return folder


@pytest.fixture(scope="module")
def log(whole_log: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The events of every fifth user, and the whole catalogue: small, since it is judged some fifty times."""
    folder = tmp_path_factory.mktemp("small")
    for name in ("items", "users", "rejected"):
        (folder / f"{name}.parquet").write_bytes((whole_log / f"{name}.parquet").read_bytes())
    events = pl.read_parquet(whole_log / "events.parquet")
    events.filter(pl.col("user_id").cast(pl.Int64) % 5 == 4).write_parquet(folder / "events.parquet")
    return folder


@pytest.fixture(scope="module")
def events(log: Path) -> pl.DataFrame:
    return pl.read_parquet(log / "events.parquet")


def judge(tables: dict[str, Path], out: Path, accepted: dict | None = None, **changed) -> Verdict:
    settings = {"now": NOW, "live": False, "kinds": KINDS, "docs": False} | changed
    return validate(tables, SUITES, accepted, out, **settings)


def all_tables(folder: Path) -> dict[str, Path]:
    return {name: folder / f"{name}.parquet" for name in ("events", "items", "users", "rejected")}


@pytest.fixture(scope="module")
def accepted(log: Path, tmp_path_factory: pytest.TempPathFactory) -> dict:
    verdict = judge(all_tables(log), tmp_path_factory.mktemp("accepted"))
    assert verdict.ok and not verdict.warned
    return json.loads(json.dumps(verdict.profile))


def names(results: list) -> set[str]:
    return {result.rule for result in results}


def change(events: pl.DataFrame, row: int, column: str, value) -> pl.DataFrame:
    dtype = events.schema[column]
    changed = pl.when(pl.int_range(pl.len()) == row).then(pl.lit(value, dtype=dtype)).otherwise(pl.col(column))
    return events.with_columns(changed.alias(column))


def in_order(events: pl.DataFrame) -> pl.DataFrame:
    return events.sort("timestamp", maintain_order=True)


def garble(events: pl.DataFrame) -> pl.DataFrame:
    """UTF-8 read as Latin-1 in every fiftieth item id."""
    damaged = pl.when(pl.int_range(pl.len()) % 50 == 0).then(pl.lit("caf\u00c3\u00a9")).otherwise(pl.col("item_id"))
    return events.with_columns(damaged.alias("item_id"))


def robot(events: pl.DataFrame) -> pl.DataFrame:
    is_robot = pl.int_range(pl.len()) % 3 == 0
    return events.with_columns(user_id=pl.when(is_robot).then(pl.lit("robot")).otherwise("user_id"))


FAULTS: dict[str, tuple[Callable[[pl.DataFrame], pl.DataFrame], str, str]] = {
    "null id": (lambda e: change(e, 5, "user_id", None), "null_user_ids", "stop"),
    "duplicate event": (lambda e: pl.concat([e[:1], e]), "duplicate_event_ids", "stop"),
    "future time": (
        lambda e: in_order(change(e, 5, "timestamp", NOW + timedelta(days=30))),
        "future_timestamps",
        "stop",
    ),
    "out-of-range value": (lambda e: change(e, 5, "value", 50.0), "ratings_out_of_range", "stop"),
    "renamed column": (lambda e: e.rename({"item_id": "product"}), "type.item_id", "stop"),
    "retyped column": (lambda e: e.with_columns(pl.col("timestamp").cast(pl.Int64)), "type.timestamp", "stop"),
    "empty file": (lambda e: e[:0], "num_rows", "stop"),
    "half the volume": (lambda e: e[::2], "volume_ratio", "stop"),
    "unknown event type": (lambda e: change(e, 5, "event", "teleport"), "unknown_events", "stop"),
    "broken encoding": (garble, "damaged_id_share", "stop"),
    "one broken id": (lambda e: change(e, 5, "item_id", "caf\ufffd"), "damaged_ids", "warn"),
    "early time": (lambda e: change(e, 0, "timestamp", datetime(1970, 1, 1)), "early_timestamps", "warn"),
    "stale data": (lambda e: e.filter(pl.col("timestamp") < datetime(2016, 1, 1, tzinfo=UTC)), "stale_days", "stop"),
    "robot": (robot, "top_user_share", "stop"),
    "retries": (lambda e: e[np.arange(len(e)) // 5 * 5].with_columns(e["event_id"]), "repeat_share", "stop"),
    "out of order": (lambda e: pl.concat([e[1:], e[:1]]), "out_of_order", "stop"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_planted_fault_is_found(fault, events, log, accepted, tmp_path):
    plant, rule, action = FAULTS[fault]
    plant(events).write_parquet(tmp_path / "events.parquet")
    verdict = judge({"events": tmp_path / "events.parquet", "items": log / "items.parquet"}, tmp_path, accepted)
    assert rule in names(verdict.stopped if action == "stop" else verdict.warned)
    assert verdict.ok == (action == "warn")
    (result,) = [result for result in verdict.stopped + verdict.warned if result.rule == rule]
    assert result.action == action
    if fault == "null id":  # shown with the row and the reason
        assert (result.column, result.observed, result.expected) == ("user_id", 1, "at most 0")
        assert [row["event_id"] for row in result.examples] == [events["event_id"][5]]
        shown = verdict_table(verdict)[0]
        assert shown[:5] == ("stop", "events", "null_user_ids", "1", "at most 0")
        assert events["event_id"][5] in shown[5]


def test_clean_resamples_are_not_stopped(whole_log, tmp_path):
    """Users of the whole log drawn with replacement; at most one of twenty may be stopped."""
    accepted = judge({"events": whole_log / "events.parquet"}, tmp_path).profile
    events = pl.read_parquet(whole_log / "events.parquet")
    users = events["user_id"].unique(maintain_order=True)
    stopped = []
    for seed in range(20):
        drawn = np.random.default_rng(seed).integers(len(users), size=len(users))
        copies = pl.DataFrame({"user_id": users[drawn], "copy": [f"-{copy}" for copy in range(len(users))]})
        resample = events.join(copies, on="user_id", how="inner", maintain_order="left_right")
        resample = resample.with_columns(pl.col("user_id", "event_id") + pl.col("copy")).drop("copy")
        resample.write_parquet(tmp_path / "events.parquet")
        verdict = judge({"events": tmp_path / "events.parquet"}, tmp_path, accepted)
        if not verdict.ok:
            stopped.append(names(verdict.stopped))
    assert len(stopped) <= 1, stopped


@pytest.fixture(scope="module")
def messy(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A shop's log as it comes: a quarter of the rows without customer, broken ones, repeated ids and one robot."""
    folder = tmp_path_factory.mktemp("messy")
    n = 2000
    rows = np.arange(n)
    times = [datetime(2010, 12, 1, 8, 0) + timedelta(minutes=int(row) // 4) for row in rows]
    pl.DataFrame(
        {
            "event_id": [f"e{row - row % 100 // 99}" for row in rows],
            "user_id": [f"u{row % 60 if row % 2 else 0}" for row in rows],
            "item_id": [f"i{row // 2 % 40}" for row in rows],
            "timestamp": pl.Series(times, dtype=pl.Datetime("us", "UTC")),
            "received_at": pl.Series([None] * n, dtype=pl.Datetime("us", "UTC")),
            "event": ["purchase"] * n,
            "value": pl.Series(rows % 12, dtype=pl.Float32),
            "request_id": pl.Series([None] * n, dtype=pl.String),
            "rank": pl.Series([None] * n, dtype=pl.Int32),
            "session_id": pl.Series([None] * n, dtype=pl.String),
            "context": pl.Series([None] * n, dtype=pl.String),
        }
    ).write_parquet(folder / "events.parquet")
    pl.DataFrame(
        {
            "table": ["events"] * 900,
            "file": ["shop.csv"] * 900,
            "line": rows[:900],
            "reason": ["missing user_id"] * 700 + ["broken row"] * 100 + ["cancellation"] * 100,
            "raw": ["..."] * 900,
        }
    ).write_parquet(folder / "rejected.parquet")
    return {name: folder / f"{name}.parquet" for name in ("events", "rejected")}


def test_quantity_and_repetition_only_warn_on_a_first_import(messy, tmp_path):
    verdict = judge(messy, tmp_path)
    assert verdict.ok
    assert {"duplicate_event_ids", "top_user_share", "missing_id_share", "broken_share"} <= names(verdict.warned)
    (missing,) = [r for r in verdict.warned if r.rule == "missing_id_share"]
    assert missing.observed == pytest.approx(700 / 2900)
    assert {"volume_ratio", "stale_days"} <= names(verdict.skipped)


def test_what_was_accepted_is_accepted_again(messy, tmp_path):
    accepted = json.loads(json.dumps(judge(messy, tmp_path).profile))
    assert judge(messy, tmp_path, accepted).ok


def test_more_of_the_same_mess_stops_later(messy, tmp_path):
    accepted = judge(messy, tmp_path).profile
    rejected = pl.read_parquet(messy["rejected"])
    pl.concat([rejected] * 3).write_parquet(tmp_path / "rejected.parquet")
    verdict = judge(messy | {"rejected": tmp_path / "rejected.parquet"}, tmp_path, accepted)
    assert names(verdict.stopped) == {"missing_id_share", "broken_share"}


def test_a_log_read_with_the_wrong_mapping_is_unusable_at_once(messy, tmp_path):
    pl.read_parquet(messy["events"])[:50].write_parquet(tmp_path / "events.parquet")
    verdict = judge({**messy, "events": tmp_path / "events.parquet"}, tmp_path)
    assert names(verdict.stopped) == {"kept_share"}  # 50 of 950 rows


def test_freshness_against_now_is_for_live_sources_only(log, tmp_path):
    tables, later = {"events": log / "events.parquet"}, NOW + timedelta(days=10)
    assert "age_days" in names(judge(tables, tmp_path, now=later, live=False).skipped)
    assert names(judge(tables, tmp_path, now=later, live=True).stopped) == {"age_days"}
    assert judge(tables, tmp_path, now=NOW, live=True).ok


def test_a_log_without_times_is_judged_without_them(events, tmp_path):
    untimed = events.with_columns(timestamp=pl.lit(None, dtype=events.schema["timestamp"]))
    untimed.write_parquet(tmp_path / "events.parquet")
    tables = {"events": tmp_path / "events.parquet"}
    verdict = judge(tables, tmp_path, order="ordered")
    assert verdict.ok
    assert {"null_timestamps", "out_of_order", "repeat_share", "age_days"} <= names(verdict.skipped)
    assert "null_timestamps" in names(judge(tables, tmp_path, order="time").stopped)


def test_damaged_titles_and_a_lost_catalogue(log, accepted, tmp_path):
    items = pl.read_parquet(log / "items.parquet")
    change(items, 0, "title", "Am\u00c3\u00a9lie").write_parquet(tmp_path / "items.parquet")
    verdict = judge({"items": tmp_path / "items.parquet"}, tmp_path, accepted)
    assert verdict.ok and names(verdict.warned) == {"damaged_texts"}
    items[:100].with_columns(title=pl.lit("Am\u00c3\u00a9lie")).write_parquet(tmp_path / "items.parquet")
    verdict = judge({"items": tmp_path / "items.parquet"}, tmp_path, accepted)
    assert names(verdict.stopped) == {"volume_ratio", "damaged_share"}


def test_orphans_warn_and_an_id_that_changed_its_spelling_stops(events, log, accepted, tmp_path):
    events.with_columns(item_id="i" + pl.col("item_id")).write_parquet(tmp_path / "events.parquet")
    tables = {"events": tmp_path / "events.parquet", "items": log / "items.parquet"}
    verdict = judge(tables, tmp_path, accepted)
    assert names(verdict.stopped) == {"most_items_orphans"} and "orphan_item_share" in names(verdict.warned)


def test_a_file_cut_short_is_unreadable_and_stops(log, tmp_path):
    (tmp_path / "events.parquet").write_bytes((log / "events.parquet").read_bytes()[:1000])
    verdict = judge({"events": tmp_path / "events.parquet"}, tmp_path)
    assert {"unreadable", "type.user_id", "num_rows"} <= names(verdict.stopped)
    assert str(tmp_path) not in json.dumps(verdict.to_json())


def test_same_tables_give_the_same_bytes_and_readable_docs(log, events, tmp_path):
    for run in ("a", "b"):
        judge(all_tables(log), tmp_path / run, docs=True)
    files = [tmp_path / run / "validation.json" for run in ("a", "b")]
    assert files[0].read_bytes() == files[1].read_bytes()
    content = json.loads(files[0].read_text())
    assert content["ok"] is True and content["profile"]["events"]["num_rows"] == len(events)
    assert sorted(path.name for path in (tmp_path / "a").iterdir()) == ["data_docs", "validation.json"]
    assert os.environ["GX_ANALYTICS_ENABLED"] == "false"
    index = (tmp_path / "a" / "data_docs" / "index.html").read_text()
    assert "null_user_ids" in index and "http" not in index


def test_mistakes_in_the_call_say_what_to_do(log, tmp_path):
    with pytest.raises(CallError, match=r"nothing\.parquet: no such file.*recops ingest"):
        judge({"events": tmp_path / "nothing.parquet"}, tmp_path)
    suites = tmp_path / "suites"
    suites.mkdir()
    with pytest.raises(CallError, match=r"events\.json: no such file"):
        validate({"events": log / "events.parquet"}, suites, None, tmp_path, now=None, live=False, kinds=[])
    rule = {"type": "expect_column_values_to_be_between", "kwargs": {"column": "x", "max_value": 0}}
    mistakes = [
        ({"metric": "max(rank)", "action": "halt", "why": "w"}, r"rule x: needs .*meta.action stop or warn"),
        ({"metric": "max(rnak)", "action": "stop", "why": "w"}, 'x: .*"rnak" not found'),
        ({"metric": "max($today)", "action": "stop", "why": "w"}, r"unknown setting \$today"),
        ({"metric": "max(user_id)", "action": "stop", "why": "w"}, "rule x: "),
    ]
    for meta, message in mistakes:
        (suites / "events.json").write_text(json.dumps({"expectations": [{**rule, "meta": meta}]}))
        with pytest.raises(CallError, match=message):
            validate({"events": log / "events.parquet"}, suites, None, tmp_path, now=None, live=False, kinds=[])
    (suites / "events.json").write_text(json.dumps({"expectations": [{**rule, "meta": mistakes[0][0]}] * 2}))
    with pytest.raises(CallError, match="rule x"):
        read_suite(suites / "events.json")


@pytest.fixture(scope="module")
def parts(log: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folders = {}
    for name in ("leave_last_out", "global_time"):
        folders[name] = tmp_path_factory.mktemp("split") / name
        params = Params().split.model_copy(update={"name": name})
        split_events(log / "events.parquet", folders[name], params, Params().ingest.events, True)
    return folders


@pytest.mark.parametrize("name", ["leave_last_out", "global_time"])
def test_our_splits_leak_nothing(name, parts, tmp_path):
    verdict = validate_split(parts[name], SUITES, tmp_path, split=name, docs=False)
    assert verdict.ok and not verdict.warned
    assert ("across_the_cut" in names(verdict.passed)) == (name == "global_time")


def planted(folder: Path, tmp_path: Path, **changed: pl.DataFrame) -> Path:
    for part in ("train", "valid", "test"):
        changed.get(part, pl.read_parquet(folder / f"{part}.parquet")).write_parquet(tmp_path / f"{part}.parquet")
    return tmp_path


def test_a_leak_between_parts_stops(parts, tmp_path):
    train, test = (pl.read_parquet(parts["leave_last_out"] / f"{part}.parquet") for part in ("train", "test"))
    folder = planted(parts["leave_last_out"], tmp_path, train=pl.concat([train, test[:1]]))
    verdict = validate_split(folder, SUITES, tmp_path / "out", docs=False)
    assert "leaked_rows" in names(verdict.stopped)
    (leak,) = [r for r in verdict.stopped if r.rule == "leaked_rows"]
    assert leak.examples[0]["user_id"] == test["user_id"][0]


def test_a_part_that_knows_the_future_stops(parts, tmp_path):
    valid = pl.read_parquet(parts["global_time"] / "valid.parquet")
    train = pl.read_parquet(parts["global_time"] / "train.parquet")
    late = train[:1].with_columns(timestamp=valid["timestamp"].max(), item_id=pl.lit("new"))
    folder = planted(parts["global_time"], tmp_path, train=pl.concat([train, late]))
    assert names(validate_split(folder, SUITES, tmp_path / "out", split="global_time", docs=False).stopped) >= {
        "across_the_cut"
    }
    early = valid.with_columns(timestamp=pl.lit(datetime(1996, 1, 1), dtype=valid.schema["timestamp"]))
    folder = planted(parts["leave_last_out"], tmp_path, valid=early)
    assert "before_train" in names(validate_split(folder, SUITES, tmp_path / "out", docs=False).stopped)


def test_parts_that_are_empty_or_not_positive_stop(parts, tmp_path):
    valid, test = (pl.read_parquet(parts["leave_last_out"] / f"{part}.parquet") for part in ("valid", "test"))
    negative = test.with_columns(signal=pl.lit("negative", dtype=test.schema["signal"]))
    folder = planted(parts["leave_last_out"], tmp_path, valid=valid[:0], test=negative)
    verdict = validate_split(folder, SUITES, tmp_path / "out", docs=False)
    assert names(verdict.stopped) == {"valid_rows", "judged_non_positives"}
