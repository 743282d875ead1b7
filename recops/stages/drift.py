"""`recops drift`: what is watched of the served release: the data, a window of the log against the release's reference
profile, its answers, and what followed them."""

import json
from collections.abc import Sequence
from contextlib import closing
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from pathlib import Path
from typing import Any

import polars as pl

from recops.bundle import Bundle, load_bundle, read_pointer, release_folder
from recops.errors import CallError
from recops.monitoring.data_history import data_point, with_point
from recops.monitoring.drift import Pairs, drift_window, microseconds
from recops.monitoring.embedding import FEATURE, user_vector_pair
from recops.monitoring.features import Scoring
from recops.monitoring.log import EventLog, read_log
from recops.monitoring.outcome import outcome_pairs, outcomes, prequential
from recops.monitoring.outputs import catalogue_of, output_pairs, sampled
from recops.monitoring.report import write_drift_report
from recops.stages.project import Project
from recops.store import Store, open_store

HISTORY = "data_history"
WINDOWS_BEFORE = 4  # so many lengths of the window before it are what answers are compared with


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
    """Writes reports/drift/index.html and the store's reports `drift` and `data_history`; returns the verdict, its
    window and release, when it was made, `outcome` (of `prequential`) and `data`, the last points of the history."""
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
    now = datetime.now(UTC)
    with closing(open_store(project.store_url)) as store:
        data = keep_data_point(project, store, now)
        of_answers, outcome = answer_pairs(project, store, bundle, log, microseconds(start), microseconds(end))
        pairs: Pairs = {
            FEATURE: user_vector_pair(log, microseconds(start), microseconds(end), bundle.profile, scoring),
            **of_answers,
        }
        verdict, current = drift_window(
            events, start, end, bundle, project.params.drift, items, history_events, remove_seen, pairs=pairs
        )
        out = project.reports / "drift" / "index.html"
        write_drift_report(out, verdict, bundle.profile, current, pairs, outcome, data)
        found = {**verdict.as_json(), "release": pointer.release, "checked_at": now.isoformat(), "outcome": outcome}
        store.put_report("drift", found)
    return json.loads(json.dumps({**found, "data": data}))


def answer_pairs(
    project: Project, store: Store, bundle: Bundle, log: EventLog, start: int, end: int
) -> tuple[Pairs, dict[str, Any]]:
    """Features of the release's answers and of what followed them, in the window (µs UTC) and in the four lengths of it
    before; and the report of `prequential` on the window's answers. A log without times has no outcome."""
    least, window_us = project.params.drift.min_events, project.params.feedback.window_us
    before = sampled(store.answers(start - WINDOWS_BEFORE * (end - start), start), bundle.id)
    window = sampled(store.answers(start, end), bundle.id)
    watermark = bundle.profile.get("until")
    pairs: Pairs = output_pairs(before, window, catalogue_of(bundle.items, log, watermark), least)
    if log.time is None or not len(log):
        return pairs, prequential([])
    reach = int(log.time[-1]) + 1
    earlier, now = (outcomes(answers, log, window_us, reach, watermark) for answers in (before, window))
    return {**pairs, **outcome_pairs(earlier, now, least)}, prequential(now)


def keep_data_point(project: Project, store: Store, now: datetime) -> Sequence[Any]:
    """Adds the last validation to the store's report `data_history`, once; returns its points, oldest first."""
    points = (store.report(HISTORY) or {"points": []})["points"]
    path = project.reports / "validation.json"
    if not path.is_file():
        return points
    text = path.read_bytes()
    longer = with_point(points, data_point(json.loads(text), sha256(text).hexdigest()[:12], now))
    if len(longer) != len(points) or longer[-1:] != points[-1:]:
        store.put_report(HISTORY, {"points": longer})
    return longer
