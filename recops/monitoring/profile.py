"""The reference profile of a release: what inputs and scores looked like when it was trained.

In: the events a release was trained from, the catalogue, its scorer. Out: one JSON value, the bundle's
`profile.json`, the same bytes for the same input. Reading it needs nothing but a JSON parser.

Why it holds several windows: a share of new users, a popularity mix or a volume depends on how long one looks (in a
month more users are new than in an hour), so a short current window must not be held against years of log. The
profile therefore looks at the end of the log as drift will look at what follows: for several lengths it takes up to
8 adjacent windows that end where the log ends, each judged by what was known *before* it. Drift compares with the
length nearest to its own. All windows lie in the later half of the events, so that something was known.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from recops.monitoring.features import HOUR_US, Scoring, Span, volume_profile, window_features
from recops.monitoring.log import EventLog, read_log

PROFILE_VERSION = 1
WINDOW_HOURS = (6, 24, 7 * 24, 28 * 24, 91 * 24, 365 * 24)
NUM_PLACEMENTS = 8
MIN_EVENTS = 500  # a length with fewer events in all its windows is not kept, unless there is no other
VOLUME_HOURS = 28 * 24


def reference_profile(
    events: Path | pl.DataFrame,
    items: Path | pl.DataFrame | None = None,
    scoring: Scoring | None = None,
    history_events: Collection[str] | None = None,
) -> dict[str, Any]:
    """The profile of a log: `version`, `since`, `until` (microseconds UTC, until excluded), `num_events`, `windows`.

    `events` has the columns of the events table (or of the split's), `items` item_id and categories. Without
    `scoring` there are no score features. A log without timestamps gives one window, the last fifth of its rows, with
    `hours` null and no volume. An empty log gives no windows, and nothing will ever be judged against it.
    """
    log = read_log(events, history_events)
    head = {"version": PROFILE_VERSION, "num_events": len(log), "num_untimed": log.num_untimed}
    if len(log) == 0:
        return {**head, "since": None, "until": None, "windows": []}
    categories = item_categories(log, items)
    if log.time is None:
        span = Span(len(log) - max(len(log) // 5, 1), len(log), len(log) - max(len(log) // 5, 1))
        features = window_features(log, [span], categories, scoring)
        window = {"hours": None, "num_events": span.end - span.start, "features": features}
        return {**head, "since": None, "until": None, "windows": [window]}
    since, until = int(log.time[0]), int(log.time[-1]) + 1
    earliest = int(log.time[len(log) // 2])
    windows = []
    for hours, spans in window_spans(log, earliest, until):
        features = window_features(log, spans, categories, scoring)
        start = max(earliest, until - HOUR_US * int(max(hours * NUM_PLACEMENTS, VOLUME_HOURS)))
        volume = volume_profile(log, start, until)
        if volume is not None:
            features["events_per_hour"] = volume
        windows.append({"hours": hours, "num_events": sum(s.end - s.start for s in spans), "features": features})
    return {**head, "since": since, "until": until, "windows": windows}


def window_spans(log: EventLog, earliest: int, until: int) -> list[tuple[float, list[Span]]]:
    """The lengths (hours) that fit between `earliest` and `until` and their windows, in order of time.

    Where none fits or none holds enough events, the whole stretch is the one window.
    """
    found = []
    for hours in WINDOW_HOURS:
        length = hours * HOUR_US
        num = min(NUM_PLACEMENTS, (until - earliest) // length)
        starts = [until - length * (i + 1) for i in reversed(range(num))]
        spans = [Span(log.position(s), log.position(s + length), log.position(s)) for s in starts]
        if sum(s.end - s.start for s in spans) >= MIN_EVENTS:
            found.append((float(hours), spans))
    if not found:
        start = log.position(earliest)
        found.append((round((until - earliest) / HOUR_US, 3), [Span(start, len(log), start)]))
    return found


def nearest_window(profile: Mapping[str, Any], hours: float | None) -> Mapping[str, Any] | None:
    """The window of the profile whose length is nearest (as a ratio) to `hours`; None for an empty profile."""
    windows = profile["windows"]
    if not windows:
        return None
    if hours is None or windows[0]["hours"] is None:
        return windows[-1]
    return min(windows, key=lambda w: (abs(np.log(max(w["hours"], 1e-6) / max(hours, 1e-6))), w["hours"]))


def item_categories(log: EventLog, items: Path | pl.DataFrame | None) -> Sequence[Sequence[str]] | None:
    """For each of `log.item_ids` its categories, empty where unknown; None when the catalogue names none at all."""
    if items is None:
        return None
    frame = items if isinstance(items, pl.DataFrame) else pl.read_parquet(items, columns=["item_id", "categories"])
    if "categories" not in frame.columns or frame["categories"].list.len().fill_null(0).sum() == 0:
        return None
    of = dict(zip(frame["item_id"].to_list(), frame["categories"].to_list(), strict=True))
    return [[c for c in of.get(item_id) or () if c is not None] for item_id in log.item_ids]
