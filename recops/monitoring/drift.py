"""Judges a window of events against the reference profile of a release.

In: a profile (the bundle's `profile.json`), the log, the span of the window. Out: `DriftVerdict`, one result a
feature and drift test. A result counts as drift when its effect size reaches its threshold *and* its p-value holds
after Benjamini-Hochberg over all tests of the window: with a million events any difference is significant, with few
events any difference is large. Knows neither what is done about drift (decisions.py) nor how it is shown (report.py).
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

import numpy as np
import polars as pl

from recops import plugins
from recops.bundle import Bundle
from recops.errors import CallError
from recops.monitoring.features import HOUR_US, Profile, Scoring, Span, volume_profile, window_features
from recops.monitoring.log import read_log
from recops.monitoring.profile import PROFILE_VERSION, item_categories, nearest_window
from recops.params import DriftParams
from recops.protocols import DriftResult

SOCKET = "monitoring.drift_tests"
Pairs = Mapping[str, tuple[Profile, Profile] | str]  # by feature: reference and window, or why there is nothing


@dataclass(frozen=True)
class DriftVerdict:
    """What came of one window. `features` are those that drifted; `skipped` says why a feature was not judged.

    `since` and `until` are ISO times; `reference_hours` is the length of the reference windows compared with (None
    for a log without times). `too_few_events` judges nothing: it is neither drift nor the absence of it.
    """

    verdict: Literal["none", "drift", "too_few_events"]
    num_events: int
    since: str | None
    until: str | None
    hours: float | None
    reference_hours: float | None
    features: tuple[str, ...] = ()
    results: tuple[DriftResult, ...] = ()
    skipped: dict[str, str] = field(default_factory=dict)
    reason: str = ""

    def as_json(self) -> dict[str, Any]:
        """The verdict as a JSON value; the same window gives the same value."""
        value = asdict(self)
        return {**value, "features": list(self.features), "results": [asdict(r) for r in self.results]}


def read_verdict(value: Mapping[str, Any]) -> DriftVerdict:
    """The verdict that `as_json` gave; keys it does not have are left out."""
    names = {f.name for f in fields(DriftVerdict)}
    known = {key: part for key, part in value.items() if key in names}
    results = tuple(DriftResult(**result) for result in value["results"])
    return DriftVerdict(**{**known, "features": tuple(value["features"]), "results": results})


def compare(
    reference: Mapping[str, Any], current: Mapping[str, Any], params: DriftParams, pairs: Pairs | None = None
) -> DriftVerdict:
    """The verdict on `current` (of `window_profile`) against a release's profile (of `reference_profile`).

    `pairs` are features that bring their own reference, or why they could not be made. Features are judged in the order
    of their names, by every drift test made for their kind.
    """
    window = nearest_window(reference, current["hours"])
    head: dict[str, Any] = {
        "num_events": current["num_events"],
        "since": current["since"],
        "until": current["until"],
        "hours": current["hours"],
        "reference_hours": window["hours"] if window else None,
    }
    if window is None:
        return DriftVerdict("too_few_events", reason="the release's reference profile holds no events", **head)
    if current["num_events"] < params.min_events:
        reason = f"{current['num_events']} events in the window, drift.min_events asks for {params.min_events}"
        return DriftVerdict("too_few_events", reason=reason, **head)
    tests = [plugins.load(SOCKET, name)() for name in plugins.names(SOCKET)]
    made = {name: pair for name, pair in (pairs or {}).items() if not isinstance(pair, str)}
    ours = window["features"] | {name: pair[0] for name, pair in made.items()}
    theirs = current["features"] | {name: pair[1] for name, pair in made.items()}
    skipped = {name: "not in the reference profile" for name in sorted(theirs.keys() - ours.keys())}
    skipped |= {name: "not in the current window" for name in sorted(ours.keys() - theirs.keys())}
    skipped |= {name: why for name, why in (pairs or {}).items() if isinstance(why, str)}
    results = [
        test.compare(name, ours[name], theirs[name], params)
        for name in sorted(ours.keys() & theirs.keys())
        for test in tests
        if ours[name]["kind"] in test.kinds
    ]
    adjusted = benjamini_hochberg([r.p_value for r in results])
    results = [
        replace(r, p_value=p, drifted=r.statistic >= r.threshold and p is not None and p <= params.p_value)
        for r, p in zip(results, adjusted, strict=True)
    ]
    drifted = tuple(sorted({r.feature for r in results if r.drifted}))
    verdict: Literal["none", "drift"] = "drift" if len(drifted) >= params.min_features else "none"
    reason = f"{len(drifted)} of {len({r.feature for r in results})} features drifted"
    return DriftVerdict(verdict, features=drifted, results=tuple(results), skipped=skipped, reason=reason, **head)


def benjamini_hochberg(p_values: Sequence[float | None]) -> list[float | None]:
    """p-values adjusted for their number, in the same order: compare them with the false discovery rate wanted.

    >>> benjamini_hochberg([0.01, None, 0.04, 0.03])
    [0.03, None, 0.04, 0.04]
    """
    known = [(p, i) for i, p in enumerate(p_values) if p is not None]
    adjusted: list[float | None] = [None] * len(p_values)
    smallest = 1.0
    for rank, (p, i) in reversed(list(enumerate(sorted(known), start=1))):
        smallest = min(smallest, p * len(known) / rank)
        adjusted[i] = smallest
    return adjusted


def microseconds(moment: datetime) -> int:
    """Microseconds since 1970 UTC. Raises CallError for a time without zone."""
    if moment.tzinfo is None:
        raise CallError(f"{moment.isoformat()}: a time without zone; write {moment.isoformat()}Z for UTC")
    delta = moment - datetime(1970, 1, 1, tzinfo=UTC)
    return (delta.days * 86_400 + delta.seconds) * 1_000_000 + delta.microseconds


def window_profile(
    events: Path | pl.DataFrame,
    since: datetime,
    until: datetime,
    reference: Mapping[str, Any],
    items: Path | pl.DataFrame | None = None,
    scoring: Scoring | None = None,
    history_events: Collection[str] | None = None,
    known_users: Collection[str] = (),
) -> dict[str, Any]:
    """Profile of the events from `since` (included) to `until` (excluded), on the bins of the reference.

    `events` is the whole log, so that histories and what was known before the window can be told; a log that holds
    less makes its users and items look newer than they are, which `known_users` can mend. Known is what had an event
    before the window and before the reference ends: what the release could know, so that a release that grows old
    sees its share of unknown items grow. For a window after the reference, the release's own items (`scoring`) are
    known as well. Raises CallError for times without zone, an empty span, or a log without timestamps.
    """
    start_us, end_us = microseconds(since), microseconds(until)
    if end_us <= start_us:
        raise CallError(f"the window is empty: since {since.isoformat()} is not before until {until.isoformat()}")
    hours = round((end_us - start_us) / HOUR_US, 6)
    window = nearest_window(reference, hours)
    log = read_log(events, history_events)
    if len(log) and log.time is None:
        raise CallError("the log has no timestamps: which events lie in the window cannot be told")
    current: dict[str, Any] = {
        "version": PROFILE_VERSION,
        "since": since.astimezone(UTC).isoformat(),
        "until": until.astimezone(UTC).isoformat(),
        "hours": hours,
        "num_events": 0,
        "features": {},
    }
    if len(log) == 0 or window is None:
        return current
    start, end = log.position(start_us), log.position(end_us)
    current["num_events"] = end - start
    if start == end:
        return current
    watermark = reference["until"]
    cut = start if watermark is None else min(start, log.position(watermark))
    is_known_user = is_known_item = None
    if known_users:
        is_known_user = np.array([user_id in known_users for user_id in log.user_ids], bool)
    if scoring is not None and (watermark is None or start_us >= watermark):
        catalogue = set(scoring.item_ids)
        is_known_item = np.array([item_id in catalogue for item_id in log.item_ids], bool)
    like = window["features"]
    features = window_features(
        log,
        [Span(start, end, cut)],
        item_categories(log, items) if "category" in like else None,
        scoring if "top_score" in like else None,
        known_items=is_known_item,
        known_users=is_known_user,
        like=like,
    )
    if "events_per_hour" in like:
        volume = volume_profile(log, start_us, end_us, like["events_per_hour"])
        if volume is not None:
            features["events_per_hour"] = volume
    return {**current, "features": features}


def drift_window(
    events: Path | pl.DataFrame,
    since: datetime,
    until: datetime,
    bundle: Bundle,
    params: DriftParams,
    items: Path | pl.DataFrame | None = None,
    history_events: Collection[str] | None = None,
    remove_seen: bool = True,
    known_users: Collection[str] = (),
    pairs: Pairs | None = None,
) -> tuple[DriftVerdict, dict[str, Any]]:
    """Verdict and profile of a window against a release. Arguments as `window_profile` and `compare`; `history_events`
    and `remove_seen` must be those the release's profile was made with, else its scores are not comparable."""
    scoring = Scoring(bundle.scorer, bundle.items["item_id"], bundle.user_ids, remove_seen)
    current = window_profile(events, since, until, bundle.profile, items, scoring, history_events, known_users)
    return compare(bundle.profile, current, params, pairs), current
