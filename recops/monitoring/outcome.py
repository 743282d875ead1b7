"""Prequential evaluation: each answer is judged by what its user went on to choose, as soon as that is known.

In: answers as the store logs them, and the log. Out: `Outcome`s, figures by segment with the delay of the labels, and
profiles of the kind `mean` for the drift tests. What follows an answer within `feedback.window` is put down to it,
whether or not an event names the answer, so that what was chosen elsewhere counts against the list too.

An answer whose window is not over is judged by what has come so far; drift is judged on those whose window is over,
since what comes fast is not what comes late. Answers that nothing followed are counted and not judged, as users
without a target are in `recops evaluate`. Answers to nobody by name cannot be judged.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from recops.evaluation.segments import ITEM_CLASSES, item_classes, user_segments
from recops.monitoring.embedding import Pair
from recops.monitoring.features import TOP_K
from recops.monitoring.log import EventLog
from recops.monitoring.outputs import Answer
from recops.store.values import micros

FEATURES = ("hit_rate", "ndcg")
DISCOUNTS = 1.0 / np.log2(np.arange(2, TOP_K + 2))
IDEAL = np.concatenate(([np.nan], np.cumsum(DISCOUNTS)))
DAY_US = 86_400_000_000
Z = 1.959964


@dataclass(frozen=True)
class Outcome:
    """What came of one answer: `hit` (0 or 1) and `ndcg` over the first ten items, NaN where nothing followed; the same
    two by class of item chosen, for the classes that were; seconds until the first choice; earlier events known."""

    user_id: str
    at: int
    is_over: bool
    hit: float
    ndcg: float
    delay_s: float
    num_earlier: int
    by_class: Mapping[str, tuple[float, float]] = field(default_factory=dict)

    @property
    def is_judged(self) -> bool:
        return not np.isnan(self.hit)


def judged(listed: Sequence[str], chosen: set[str]) -> tuple[float, float]:
    """Hit and NDCG of a list whose user went on to choose these.

    >>> judged(["a", "b", "c"], {"b"})
    (1.0, 0.6309297535714575)
    """
    hits = np.array([item_id in chosen for item_id in listed[:TOP_K]], bool)
    return float(hits.any()), float(hits @ DISCOUNTS[: len(hits)] / IDEAL[min(len(chosen), TOP_K)])


def outcomes(
    answers: Sequence[Answer], log: EventLog, window_us: int, now: int, watermark: int | None
) -> list[Outcome]:
    """Of the answers to users with a name, in their order. `now` (µs UTC) is how far the log is known to reach;
    `watermark` the end of what the release was trained on, by which items are head, tail or new. The log has
    times.
    """
    assert log.time is not None
    cut = len(log) if watermark is None else log.position(watermark)
    counts = np.bincount(log.item[:cut], minlength=len(log.item_ids))
    classes = item_classes(np.concatenate(([0], counts)))[1:] if len(counts) else np.zeros(0, "<U4")
    row_of = {user_id: row for row, user_id in enumerate(log.user_ids)}
    order, starts = log.by_user
    found = []
    for answer in answers:
        if answer["user_id"] is None:
            continue
        at, row = micros(answer["time"]), row_of.get(answer["user_id"])
        own = order[starts[row] : starts[row + 1]] if row is not None else order[:0]
        own = own[log.in_history[own]]
        times = log.time[own]
        first, last = np.searchsorted(times, [at, min(at + window_us, now - 1)], side="right")
        items = log.item[own[first:last]]
        listed = [item["item_id"] for item in answer["items"]]
        hit = ndcg = delay = float("nan")
        by_class = {}
        if len(items):
            hit, ndcg = judged(listed, {log.item_ids[item] for item in items.tolist()})
            delay = (int(times[first]) - at) / 1e6
            for name in ITEM_CLASSES:
                some = {log.item_ids[item] for item in items.tolist() if classes[item] == name}
                if some:
                    by_class[name] = judged(listed, some)
        is_over = at + window_us < now
        found.append(Outcome(answer["user_id"], at, is_over, hit, ndcg, delay, int(first), by_class))
    return found


def mean_by_user(values: Sequence[float], users: Sequence[str]) -> dict[str, Any]:
    """Profile of a mean: `mean`, its standard `error` with a user's answers taken together, `n`."""
    if not values:
        return {"kind": "mean", "mean": 0.0, "error": 0.0, "n": 0}
    array = np.array(values, np.float64)
    _, rows = np.unique(np.array(users, str), return_inverse=True)
    apart = np.bincount(rows, array - array.mean())
    correction = len(apart) / max(len(apart) - 1, 1)
    error = float(np.sqrt((apart**2).sum() * correction)) / len(array)
    return {"kind": "mean", "mean": round(float(array.mean()), 6), "error": round(error, 6), "n": len(array)}


def figures(values: Sequence[tuple[float, float]], users: Sequence[str]) -> dict[str, Any]:
    """`answers`, and hit rate and NDCG with 95 % intervals over users; None where nothing was judged."""
    entry: dict[str, Any] = {"answers": len(values)}
    for place, name in enumerate(FEATURES):
        found = mean_by_user([value[place] for value in values], users)
        low, high = (np.clip(found["mean"] + sign * Z * found["error"], 0, 1) for sign in (-1, 1))
        value = {"value": found["mean"], "low": round(float(low), 6), "high": round(float(high), 6)}
        entry[name] = value if found["n"] else None
    return entry


def prequential(found: Sequence[Outcome]) -> dict[str, Any]:
    """The report: figures over all judged answers, by segment and by day of the answer, and of the labels `pending`
    (answers whose window is not over), `no_outcome` (over, and nothing followed) and `delay_s` (median, and what nine
    in ten are within; None without any)."""
    known = [one for one in found if one.is_judged]

    def of(some: Sequence[Outcome]) -> dict[str, Any]:
        return figures([(one.hit, one.ndcg) for one in some], [one.user_id for one in some])

    segments = {}
    members = user_segments(np.array([one.num_earlier for one in known], np.int64))
    for name, mask in members.items():
        segments[name] = of([one for one, is_member in zip(known, mask, strict=True) if is_member])
    for name in ITEM_CLASSES:
        some = [one for one in known if name in one.by_class]
        segments[f"items:{name}"] = figures([one.by_class[name] for one in some], [one.user_id for one in some])
    delays = [one.delay_s for one in known]
    days = sorted({one.at // DAY_US for one in known})
    return {
        **of(known),
        "pending": sum(not one.is_over for one in found),
        "no_outcome": sum(one.is_over and not one.is_judged for one in found),
        "delay_s": {"median": float(np.median(delays)), "p90": float(np.quantile(delays, 0.9))} if delays else None,
        "segments": segments,
        "days": [
            {"day": str(np.datetime64(day, "D")), **of([one for one in known if one.at // DAY_US == day])}
            for day in days
        ],
    }


def outcome_pairs(before: Sequence[Outcome], window: Sequence[Outcome], min_answers: int) -> dict[str, Pair | str]:
    """Hit rate and NDCG of answers whose window is over, before and in the window; or why they are not compared."""
    sides = [[one for one in side if one.is_over and one.is_judged] for side in (before, window)]
    if min(map(len, sides)) < min_answers:
        why = f"{len(sides[0])} judged answers before and {len(sides[1])} in the window, {min_answers} are asked for"
        return dict.fromkeys(FEATURES, why)
    users = [[one.user_id for one in side] for side in sides]
    return {
        "hit_rate": (
            mean_by_user([one.hit for one in sides[0]], users[0]),
            mean_by_user([one.hit for one in sides[1]], users[1]),
        ),
        "ndcg": (
            mean_by_user([one.ndcg for one in sides[0]], users[0]),
            mean_by_user([one.ndcg for one in sides[1]], users[1]),
        ),
    }
