"""Features of one window of the log as small JSON profiles: what a drift test compares.

In: an `EventLog`, spans of positions in it, the catalogue's categories and a scorer. Out: by feature name a profile,
one of three kinds:

- numeric: `edges` (M values of the reference: its different values, or 100 quantiles where it has more), `counts`
  [2M+1] (below the first edge, at it, between it and the second, at that, …, above the last), `nulls`, `n`, `mean`.
  KS distances are taken on these bins: exact for up to 100 different values, else never more than 1/100 too small.
  `dependence` (1 where it is missing): so many of the values count as one when a test asks how sure it may be.
- categorical: `counts` by name for the 50 most frequent of the reference, `other`, `n`. Null is a name, "(none)".
- share: `count` of `n`; it may carry `dependence` as well.

A current window is profiled with the edges and names of its reference, so that the two lie on the same bins.
Knows no thresholds and reads no files.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from recops.histories import Histories
from recops.monitoring.log import NUM_POPULARITY_BINS, EventLog
from recops.runtime import Scorer
from recops.topk import top_k

Profile = dict[str, Any]
NUM_BINS = 100
NUM_NAMES = 50
NONE = "(none)"
HOUR_US = 3_600_000_000
SCORED_USERS = 500
COVERAGE_USERS = 100  # a coverage depends on the number of lists, so it is always taken over this many
TOP_K = 10
LONGEST_HISTORY = 1000  # longer ones count as this long
SCORE_BATCH = 64


@dataclass(frozen=True)
class Span:
    """Events `start` to `end` (positions, end excluded) as seen by who knew the log up to position `cut`."""

    start: int
    end: int
    cut: int


@dataclass(frozen=True)
class Scoring:
    """A release as far as drift asks it: its scorer, the item ids of its rows 1..N and the user ids of its table of
    users, where it has one."""

    scorer: Scorer
    item_ids: Sequence[str]
    user_ids: Sequence[str] = ()
    remove_seen: bool = True
    seed: int = 0


def numeric_profile(values: np.ndarray, like: Mapping[str, Any] | None = None) -> Profile:
    """Profile of numbers; NaN counts as null. With `like`, on the bins of that profile. Empty in: counts of zero."""
    values = np.asarray(values, np.float64)
    known = values[~np.isnan(values)]
    if like is not None:
        edges = np.asarray(like["edges"], np.float64)
    else:
        distinct = np.unique(known)
        if len(distinct) > NUM_BINS:
            # Quantiles that are values themselves, so that one that occurs often is an edge.
            distinct = np.unique(np.quantile(known, np.arange(1, NUM_BINS + 1) / NUM_BINS, method="inverted_cdf"))
        edges = distinct
    bins = np.searchsorted(edges, known, side="left") + np.searchsorted(edges, known, side="right")
    counts = np.bincount(bins, minlength=2 * len(edges) + 1)
    return {
        "kind": "numeric",
        "edges": edges.tolist(),
        "counts": counts.tolist(),
        "nulls": len(values) - len(known),
        "n": len(values),
        "mean": round(float(known.mean()), 6) if len(known) else None,
    }


def categorical_profile(counts: Mapping[str, int], like: Mapping[str, Any] | None = None) -> Profile:
    """Profile of names with how often each occurs; with `like`, names it does not hold fall under `other`."""
    if like is not None:
        kept = list(like["counts"])
    else:
        kept = sorted((name for name in counts if counts[name]), key=lambda name: (-counts[name], name))[:NUM_NAMES]
    chosen = {name: int(counts.get(name, 0)) for name in kept}
    total = int(sum(counts.values()))
    return {"kind": "categorical", "counts": chosen, "other": total - sum(chosen.values()), "n": total}


def share_profile(count: int, n: int) -> Profile:
    """Profile of a share: `count` of `n`."""
    return {"kind": "share", "count": int(count), "n": int(n)}


def volume_profile(log: EventLog, since: int, until: int, like: Mapping[str, Any] | None = None) -> Profile | None:
    """Events an hour, as a multiple of what the reference expects of that hour. None for a log without times.

    Traffic has a daily and a weekly rhythm, so raw hourly counts of a night would differ from those of a week. Where
    the reference is dense enough (10 events an hour), an hour is divided by the mean of the same hour of the week
    (3 weeks or more) or of the day (3 days or more), else by the overall mean. A reference hour is held against the
    mean of the *other* hours of its cell, so that it does not explain itself. Hours count from `since`; a last part
    of an hour is scaled up when it is at least half an hour (or all there is), and left out otherwise.

    A busy hour is followed by a busy hour, so hours are far from independent: with r the correlation of neighbouring
    reference hours, `dependence` is (1 + r) / (1 - r). Without it, ordinary weeks of MovieLens-1M were called drift.
    """
    if log.time is None or until <= since:
        return None
    inside = log.time[log.position(since) : log.position(until)]
    num_hours, rest = divmod(until - since, HOUR_US)
    counts = np.bincount((inside - since) // HOUR_US, minlength=num_hours + 1).astype(np.float64)
    if rest and (rest >= HOUR_US // 2 or num_hours == 0):
        counts[num_hours] *= HOUR_US / rest
    else:
        counts = counts[:num_hours]
    # 1970-01-01 was a Thursday; which day a cycle of 168 starts on does not matter.
    hours = since // HOUR_US + np.arange(len(counts))
    if like is not None:
        means = np.asarray(like["expected"])
        expected = means[hours % len(means)]
    else:
        dense = counts.mean() >= 10
        cycle = 168 if dense and len(counts) >= 504 else 24 if dense and len(counts) >= 72 else 1
        cells = hours % cycle
        sums, sizes = np.bincount(cells, counts, cycle), np.bincount(cells, minlength=cycle)
        means = sums / np.maximum(sizes, 1)
        others = np.maximum(sizes[cells] - 1, 1)
        expected = (sums[cells] - counts) / others if cycle > 1 else means[cells]
    floor = max(float(means.mean()) * 0.01, 1e-9)
    ratios = np.round(counts / np.maximum(expected, floor), 6)
    return {
        **numeric_profile(ratios, like),
        "dependence": like["dependence"] if like is not None else dependence(np.log1p(ratios)),
        "expected": np.round(means, 6).tolist(),
        "per_hour": round(float(counts.mean()), 6),
    }


def dependence(values: np.ndarray) -> float:
    """(1 + r) / (1 - r) for the correlation r of neighbouring values, between 1 and 7; 1 for constant values.

    r is capped at .75, so that a day on which every hour is out of the ordinary can still be called drift.
    """
    centred = values - values.mean()
    variance = float((centred**2).sum())
    correlation = float((centred[1:] * centred[:-1]).sum()) / variance if variance > 1e-12 else 0.0
    correlation = min(max(correlation, 0.0), 0.75)
    return round((1 + correlation) / (1 - correlation), 6)


def window_features(
    log: EventLog,
    spans: Sequence[Span],
    categories: Sequence[Sequence[str]] | None,
    scoring: Scoring | None,
    known_items: np.ndarray | None = None,
    known_users: np.ndarray | None = None,
    like: Mapping[str, Profile] | None = None,
) -> dict[str, Profile]:
    """Profiles of the events in `spans` taken together (not of their volume, see `volume_profile`).

    `categories` holds for each of `log.item_ids` its categories; None leaves the category mix out. `known_users`
    [U] and `known_items` [N] (bool) are known besides those with an event before the cut. Scores are those of users
    active in the last span, with their history at its end. A feature the log or the reference lacks is left out.

    What an event is, is its user's doing: one keen newcomer can bring hundreds of events, a wholesaler buys hundreds of
    each, an evening at one genre rates a hundred films of it. The `dependence` is the number of events of a user,
    averaged over events (sum of squares over sum). Without it, weeks and days without any shift were called drift.
    """
    chosen = np.concatenate([np.arange(s.start, s.end) for s in spans]) if spans else np.zeros(0, np.int64)
    cuts = np.repeat([s.cut for s in spans], [s.end - s.start for s in spans])
    user, item = log.user[chosen], log.item[chosen]
    new_user, new_item = log.first_by_user[user] >= cuts, log.first_by_item[item] >= cuts
    if known_users is not None:
        new_user &= ~known_users[user]
    if known_items is not None:
        new_item &= ~known_items[item]
    popularity = np.zeros(NUM_POPULARITY_BINS)
    for span in spans:
        seen = np.bincount(log.item[span.start : span.end], minlength=len(log.item_ids))
        popularity += seen @ log.popularity_shares(span.cut)
    kinds = np.bincount(log.kind[chosen], minlength=len(log.kinds))

    per_user = np.bincount(user).astype(np.float64)
    by_users = {"dependence": round(float((per_user**2).sum() / max(len(chosen), 1)), 6)} if len(chosen) else {}

    def get(name: str) -> Profile | None:
        return None if like is None else like[name]

    def wanted(name: str) -> bool:
        return like is None or name in like

    features: dict[str, Profile] = {
        "new_user_share": {**share_profile(new_user.sum(), len(chosen)), **by_users},
        "new_item_share": {**share_profile(new_item.sum(), len(chosen)), **by_users},
    }
    if wanted("event_kind"):
        counts = {name: int(n) for name, n in zip(log.kinds, kinds, strict=True)}
        features["event_kind"] = {**categorical_profile(counts, get("event_kind")), **by_users}
    if wanted("item_popularity") and popularity.any():
        counts = {f"{b + 1:02d}": round(n) for b, n in enumerate(popularity.tolist())}
        features["item_popularity"] = {**categorical_profile(counts, get("item_popularity")), **by_users}
    if wanted("history_length"):
        lengths = np.minimum(log.history_length[chosen], LONGEST_HISTORY)
        features["history_length"] = {**numeric_profile(lengths, get("history_length")), **by_users}
    if wanted("category") and categories is not None:
        features["category"] = {**categorical_profile(category_counts(item, categories), get("category")), **by_users}
    values = log.value[chosen]
    if wanted("value") and (like is not None or not np.isnan(values).all()):
        features["value"] = {**numeric_profile(values, get("value")), **by_users}
    if scoring is not None and spans:
        for name, profile in score_features(log, spans[-1], scoring, like).items():
            if wanted(name):
                features[name] = profile
    return features


def category_counts(item: np.ndarray, categories: Sequence[Sequence[str]]) -> dict[str, int]:
    """How many of the events on `item` fall in each category; an event counts once in each of its item's."""
    counts: dict[str, int] = {}
    per_item = np.bincount(item, minlength=len(categories))
    for row in np.flatnonzero(per_item).tolist():
        for name in categories[row] or (NONE,):
            counts[name] = counts.get(name, 0) + int(per_item[row])
    return counts


def sampled_histories(log: EventLog, span: Span, scoring: Scoring) -> Histories | None:
    """A seeded sample of at most 500 of the span's users, as the release is asked for them; None where there are none.

    A user's history is what stands in the log before the span's end, as far as the release knows the items; users
    without any are left out where the model needs one.
    """
    row_of = {item_id: row for row, item_id in enumerate(scoring.item_ids, start=1)}
    rows = np.array([row_of.get(item_id, 0) for item_id in log.item_ids], np.int64)
    users = np.random.default_rng(scoring.seed).permutation(np.unique(log.user[span.start : span.end]))
    user_row_of = {user_id: row for row, user_id in enumerate(scoring.user_ids, start=1)}
    histories: list[np.ndarray] = []
    ages: list[np.ndarray] = []
    own_rows: list[int] = []
    for user in users.tolist():
        positions = log.history_positions(user, span.end)
        positions = positions[rows[log.item[positions]] > 0]
        history, own_row = rows[log.item[positions]], user_row_of.get(log.user_ids[user], 0)
        if not scoring.scorer.answers(Histories([history], users=np.array([own_row])))[0]:
            continue
        histories.append(history)
        own_rows.append(own_row)
        if log.time is not None:
            ages.append((log.time[span.end - 1] - log.time[positions]) // 1_000_000)
        if len(histories) == SCORED_USERS:
            break
    if not histories:
        return None
    return Histories(
        histories,
        ages if log.time is not None else None,
        np.array(own_rows),
        None if log.time is None else np.full(len(histories), log.time[span.end - 1]),
    )


def score_features(
    log: EventLog, span: Span, scoring: Scoring, like: Mapping[str, Profile] | None = None
) -> dict[str, Profile]:
    """Best score, mean score of the top 10, and top-10 coverage over `sampled_histories`.

    Fewer than 100 users: no coverage; none: no features.
    """
    asked = sampled_histories(log, span, scoring)
    if asked is None:
        return {}
    best, lists = [], []
    for start in range(0, len(asked), SCORE_BATCH):
        batch = asked[start : start + SCORE_BATCH]
        scores_BN = scoring.scorer.scores(batch)
        if scoring.remove_seen:
            for scores, history in zip(scores_BN, batch, strict=True):
                scores[history] = -np.inf
        rows_BK, best_BK = top_k(scores_BN, TOP_K)
        best.append(np.where(rows_BK > 0, best_BK, np.nan))
        lists.append(rows_BK)
    scores_UK, rows_UK = np.concatenate(best).astype(np.float64), np.concatenate(lists)
    has_any = ~np.isnan(scores_UK[:, 0])
    mean_U = np.full(len(scores_UK), np.nan)
    mean_U[has_any] = np.nanmean(scores_UK[has_any], axis=1)
    get = (lambda name: None) if like is None else like.get
    features = {
        "top_score": numeric_profile(np.round(scores_UK[:, 0], 5), get("top_score")),
        "list_score": numeric_profile(np.round(mean_U, 5), get("list_score")),
    }
    if len(rows_UK) >= COVERAGE_USERS:
        shown = np.unique(rows_UK[:COVERAGE_USERS])
        features["top_k_coverage"] = share_profile((shown > 0).sum(), len(scoring.item_ids))
    return features
