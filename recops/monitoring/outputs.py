"""What a release answers, before and in a window: scores, categories, popularity, coverage, and who is left to the
fallback.

In: answers as the store logs them, and what the catalogue was. Out: profiles by feature (see features.py). One who asks
often is counted for less: `dependence` takes a user's answers, and a list's items, together. Knows no thresholds.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from recops.monitoring.embedding import Pair
from recops.monitoring.features import (
    COVERAGE_USERS,
    NONE,
    TOP_K,
    Profile,
    categorical_profile,
    numeric_profile,
    share_profile,
)
from recops.monitoring.log import NUM_POPULARITY_BINS, EventLog

FEATURES = ("answer_score", "answer_category", "answer_popularity", "answer_coverage", "fallback_share")
NEW = "new"
MAX_ANSWERS = 20_000  # of more, a seeded sample is looked at
SEED = 0
Answer = Mapping[str, Any]


@dataclass(frozen=True)
class Catalogue:
    """Of the release: categories by item (empty where it knows none), how each item's events spread over the tenths of
    popularity (float64 [10]; items without an event are missing), and how many items it has."""

    categories: Mapping[str, Sequence[str]]
    popularity: Mapping[str, np.ndarray]
    num_items: int


def catalogue_of(items: Mapping[str, Sequence[Any]], log: EventLog, watermark: int | None) -> Catalogue:
    """From the columns of a bundle's items and the log up to `watermark` (µs UTC; None: all of it)."""
    cut = len(log) if watermark is None or log.time is None else log.position(watermark)
    shares = log.popularity_shares(cut)
    known = np.flatnonzero(shares.any(axis=1)).tolist()
    named = zip(items["item_id"], items.get("categories", [None] * len(items["item_id"])), strict=True)
    return Catalogue(
        {item_id: own for item_id, own in named if own},
        {log.item_ids[row]: shares[row] for row in known},
        len(items["item_id"]),
    )


def sampled(answers: Iterable[Answer], release: str) -> list[Answer]:
    """The answers of a release, at most MAX_ANSWERS of them, each with the same chance."""
    chance = np.random.default_rng(SEED)
    kept: list[Answer] = []
    for num, answer in enumerate(answer for answer in answers if answer["release"] == release):
        place = num if num < MAX_ANSWERS else int(chance.integers(0, num + 1))
        if place >= MAX_ANSWERS:
            continue
        kept[place : place + 1] = [answer]
    return kept


def whose(answer: Answer) -> str:
    """One who is not named is somebody else each time."""
    return f"user {answer['user_id']}" if answer["user_id"] is not None else f"request {answer['request_id']}"


def by_users(answers: Sequence[Answer], weights: Sequence[float]) -> dict[str, float]:
    """`dependence`: the weight of a user's answers, averaged over all weight (1 where everybody has a weight of 1)."""
    total: dict[str, float] = {}
    for answer, weight in zip(answers, weights, strict=True):
        total[whose(answer)] = total.get(whose(answer), 0.0) + weight
    weight_U = np.array(list(total.values()), float)
    return {"dependence": round(max(1.0, float((weight_U**2).sum() / max(weight_U.sum(), 1e-9))), 6)}


def output_profiles(
    answers: Sequence[Answer], catalogue: Catalogue, like: Mapping[str, Profile] | None = None
) -> dict[str, Profile]:
    """Profiles of the first ten items of each answer; with `like` on the bins of those.

    Score and coverage look at answers of the model alone, and coverage at a seeded hundred of them; with fewer it is
    left out, as categories are where the catalogue has none. `fallback_share` is of all answers: those of which the
    model knew too little (cold-start), or where it was not there, are not its own.
    """
    get = (lambda name: None) if like is None else like.get
    own = [answer for answer in answers if answer["source"] == "model" and answer["items"]]
    listed = [[item["item_id"] for item in answer["items"][:TOP_K]] for answer in answers]
    lengths = by_users(answers, [float(len(items)) for items in listed])
    shown = Counter(item_id for items in listed for item_id in items)
    best = np.array([max(item["score"] for item in answer["items"]) for answer in own], np.float64)
    features: dict[str, Profile] = {
        "answer_score": {**numeric_profile(np.round(best, 5), get("answer_score")), **by_users(own, [1.0] * len(own))},
        "fallback_share": {
            **share_profile(sum(answer["source"] != "model" for answer in answers), len(answers)),
            **by_users(answers, [1.0] * len(answers)),
        },
    }
    spread, unknown = np.zeros(NUM_POPULARITY_BINS), 0
    for item_id, num in shown.items():
        known = catalogue.popularity.get(item_id)
        if known is None:
            unknown += num
        else:
            spread += num * known
    counts = {f"{b + 1:02d}": round(num) for b, num in enumerate(spread.tolist())} | {NEW: unknown}
    features["answer_popularity"] = {**categorical_profile(counts, get("answer_popularity")), **lengths}
    if catalogue.categories:
        in_category: Counter[str] = Counter()
        for item_id, num in shown.items():
            for name in catalogue.categories.get(item_id) or (NONE,):
                in_category[name] += num
        features["answer_category"] = {**categorical_profile(in_category, get("answer_category")), **lengths}
    if len(own) >= COVERAGE_USERS:
        some = np.random.default_rng(SEED).permutation(len(own))[:COVERAGE_USERS]
        items = {item["item_id"] for row in some.tolist() for item in own[row]["items"][:TOP_K]}
        features["answer_coverage"] = share_profile(len(items), max(catalogue.num_items, len(items)))
    return features


def output_pairs(
    before: Sequence[Answer], window: Sequence[Answer], catalogue: Catalogue, min_answers: int
) -> dict[str, Pair | str]:
    """By feature the profiles of the answers before and in the window, both of one release; or why there are none."""
    if min(len(before), len(window)) < min_answers:
        why = (
            f"{len(before)} answers of the release before and {len(window)} in the window, {min_answers} are asked for"
        )
        return dict.fromkeys(FEATURES, why)
    ours = output_profiles(before, catalogue)
    theirs = output_profiles(window, catalogue, ours)
    return {name: (ours[name], theirs[name]) for name in FEATURES if name in ours and name in theirs}
