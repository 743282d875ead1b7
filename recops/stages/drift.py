"""`recops drift`: a window of the log against the reference profile of the served release."""

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import polars as pl

from recops.bundle import load_bundle, read_pointer, release_folder
from recops.errors import CallError
from recops.monitoring.drift import Pairs, drift_window, microseconds
from recops.monitoring.embedding import FEATURE, user_vector_pair
from recops.monitoring.features import Scoring
from recops.monitoring.log import read_log
from recops.monitoring.report import write_drift_report
from recops.stages.project import Project
from recops.store import open_store


def parse_time(text: str, name: str) -> datetime:
    """An ISO time, UTC where it names no zone. Raises CallError naming the option."""
    try:
        time = datetime.fromisoformat(text)
    except ValueError:
        raise CallError(f"{name}: expected an ISO time such as 2016-09-01, found {text!r}") from None
    return time if time.tzinfo else time.replace(tzinfo=UTC)


def log_end(events: Path) -> datetime:
    """The moment after the newest event. Raises CallError for a log without times."""
    newest = pl.scan_parquet(events).select(pl.col("timestamp").max()).collect().item()
    if newest is None:
        raise CallError(f"{events}: no times, so there is no window to compare")
    return newest + timedelta(microseconds=1)


def newest_window(project: Project) -> str:
    """ISO start of the last `drift.window_days` days of the log."""
    window = timedelta(days=project.params.drift.window_days)
    return (log_end(project.tables / "events.parquet") - window).isoformat()


def drift(project: Project, since: str, until: str | None) -> dict[str, Any]:
    """Writes reports/drift/index.html and the store's report `drift`; returns the verdict, its window and release, and
    when it was made."""
    pointer = read_pointer(project.releases)
    if pointer is None:
        raise CallError(f"{project.releases}: nothing is released yet; run: recops run")
    bundle = load_bundle(release_folder(project.releases, pointer.release))
    events, items = project.tables / "events.parquet", project.tables / "items.parquet"
    start, end = parse_time(since, "--since"), parse_time(until, "--until") if until else log_end(events)
    history_events = [kind for kind, meaning in project.params.kinds.items() if meaning.signal == "positive"]
    remove_seen = bundle.manifest["remove_seen"]
    scoring = Scoring(bundle.scorer, bundle.items["item_id"], bundle.user_ids, remove_seen)
    log = read_log(events, history_events)
    pairs: Pairs = {
        FEATURE: user_vector_pair(log, microseconds(start), microseconds(end), bundle.profile, scoring),
    }
    verdict, current = drift_window(
        events, start, end, bundle, project.params.drift, items, history_events, remove_seen, pairs=pairs
    )
    write_drift_report(project.reports / "drift" / "index.html", verdict, bundle.profile, current, pairs)
    result = {**verdict.as_json(), "release": pointer.release, "checked_at": datetime.now(UTC).isoformat()}
    open_store(project.store_url).put_report("drift", result)
    return json.loads(json.dumps(result))
