"""From a request to a list: whose history, what may be shown, the best k. Runs in the event loop; touches no files.

In: a Release, a parsed request and the stored history of its user. Out: plain dicts. `source` says what a list was
made from: `model` (a user the release knows, with the call's history added), `cold-start` (the call's history alone,
or without any what the release knows of the user's attributes)
or `fallback` (nothing usable: most popular, or what a model that needs no history says).
"""

import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from recops.attribution import Account
from recops.histories import Histories
from recops.serving.reasons import Reasons
from recops.serving.release import Release
from recops.serving.requests import RULES, Recommend, Score, Similar, Who
from recops.topk import top_k


@dataclass(frozen=True)
class Stored:
    """What the store holds of a user at a release: item ids, oldest first, and their times in µs where it has them."""

    item_ids: list[str]
    times: Sequence[int | None] | None = None
    refused: list[str] = field(default_factory=list)  # not to be recommended to the user


@dataclass(frozen=True)
class Person:
    """Whose list it is: what a scorer is given, and what it came from."""

    asked: Histories  # of one
    source: str

    @property
    def history(self) -> np.ndarray:
        """int64 rows, oldest first."""
        return self.asked.items[0]


def person(release: Release, who: Who, stored: Stored | None) -> Person:
    """`stored` is None for a user that the store does not know.

    An event without a time counts as of now: those of the call are what has just happened.
    """
    get, scorer = release.row_of.get, release.bundle.scorer
    user = release.user_row(who.user_id)
    known = [] if stored is None else stored.item_ids
    ids, times = who.history_events()
    rows = [get(item_id, 0) for item_id in (*known, *ids)]
    kept = [place for place, row in enumerate(rows) if row]
    ages = asked_at = None
    if release.uses_time:
        now = time.time_ns() // 1000
        before = [None] * len(known) if stored is None or stored.times is None else stored.times
        at = [now if t is None else t for t in (*before, *times)]
        ages = [np.array([max(now - at[place], 0) // 1_000_000 for place in kept], np.int64)]
        asked_at = np.array([now])
    asked = Histories([np.array([rows[place] for place in kept], np.int64)], ages, np.array([user]), asked_at)
    tables = [part.user_table for part in scorer.parts if part.user_table is not None and part.encode is None]
    in_table = user > 0 and any(user < len(table) for table in tables)  # others may know more users, by attributes
    is_known = any(rows[: len(known)]) or in_table or (stored is not None and not scorer.needs_history)
    if not scorer.answers(asked)[0]:
        return Person(asked, "fallback")
    return Person(asked, "model" if is_known else "cold-start" if kept or scorer.needs_history else "fallback")


def recommend(release: Release, request: Recommend, stored: Stored | None) -> dict[str, Any]:
    """`items`, best first (fewer than k where the catalogue or the rules leave fewer), and `source`."""
    someone = person(release, request, stored)
    account = Account(release.bundle.scorer, someone.asked) if request.explain else None
    scores = release.bundle.scorer.scores(someone.asked)[0] if account is None else account.scores.copy()
    for is_hidden in hidden(release, request, someone, stored).values():
        scores[is_hidden] = -np.inf
    items = ranked(release, scores, request.k)
    if (ratings := release.bundle.scorer.ratings) is not None:
        # Clipped only here, so that what lies above the scale keeps its order.
        shown = ratings.clipped(np.array([item["score"] for item in items], np.float32)).tolist()
        items = [{**item, "score": value} for item, value in zip(items, shown, strict=True)]
    if account is not None:
        found = Reasons(release, account, release.bundle.rows([item["item_id"] for item in items]))
        items = [{**item, "reasons": found.of(place)} for place, item in enumerate(items)]
    return {"items": items, "source": someone.source}


def hidden(release: Release, request: Recommend, someone: Person, stored: Stored | None) -> dict[str, np.ndarray]:
    """Items that are not shown, bool [N+1], by what keeps them away: `seen`, `disliked`, or the field of a rule."""
    found = {}
    if release.remove_seen:
        found["seen"] = _mask(release, someone.history)
    if stored is not None:
        found["disliked"] = _mask(release, release.bundle.rows(stored.refused))
    for name, rule in RULES.items():
        allowed = rule.allowed(request, release)
        if allowed is not None:
            found[name if rule.where == "request" else f"{rule.where}.{name}"] = ~allowed
    return found


def _mask(release: Release, rows: np.ndarray) -> np.ndarray:
    mask = np.zeros(release.bundle.num_items + 1, bool)
    mask[rows] = True
    return mask


def ranked(release: Release, scores: np.ndarray, k: int) -> list[dict[str, Any]]:
    """The best k as answers show them; items scored -inf are left out."""
    rows_BK, best_BK = top_k(scores[None], min(k, release.bundle.num_items))
    ids, titles = release.ids, release.titles
    return [
        {"item_id": ids[row - 1], "rank": rank, "score": score, "title": titles[row - 1]}
        for rank, (row, score) in enumerate(zip(rows_BK[0].tolist(), best_BK[0].tolist(), strict=True), start=1)
        if row
    ]


def score(release: Release, request: Score, stored: Stored | None) -> dict[str, Any]:
    """A score for each item asked for, in that order; null for an item the catalogue does not know.

    Of a model of ratings the score is a predicted rating.
    """
    someone = person(release, request, stored)
    scorer, rows = release.bundle.scorer, release.bundle.rows(request.item_ids)
    answer = scorer.score_items if scorer.ratings is None else scorer.predictions
    values = iter(answer(someone.asked, rows)[0].tolist())
    known = release.row_of
    scores = [{"item_id": i, "score": next(values) if i in known else None} for i in request.item_ids]
    return {"scores": scores, "source": someone.source}


def similar(release: Release, request: Similar) -> dict[str, Any] | None:
    """Items nearest to one item, without itself; None for an unknown item.

    `source` says by what: `links` (of what was chosen together, else of content; scores are shares of the strongest),
    `vectors` (cosine of item vectors) or `categories` (Jaccard). An item without neighbours gets the next of these that
    has any, or an empty list.
    """
    row = release.row_of.get(request.item_id)
    if row is None:
        return None
    scores = np.full(release.bundle.num_items + 1, -np.inf, np.float32)
    source = "categories"
    kinds = (release.bundle.scorer.link_shares(np.array([row]), of_content=kind) for kind in (False, True))
    if (links := next((found[0] for found in kinds if found is not None and found.any()), None)) is not None:
        scores[links != 0] = links[links != 0]
        source = "links"
    elif release.item_vectors is not None and release.item_vectors[row].any():
        scores = release.item_vectors @ release.item_vectors[row]
        scores /= release.vector_norms * release.vector_norms[row]
        source = "vectors"
    else:
        _category_overlap(release, row, scores)
    scores[[0, row]] = -np.inf
    return {"items": ranked(release, scores, request.k), "source": source}


def _category_overlap(release: Release, row: int, scores: np.ndarray) -> None:
    columns = release.columns
    own = [columns.rows_by_category[c] for c in dict.fromkeys(release.bundle.items["categories"][row - 1] or ())]
    if not own:
        return
    shared = np.bincount(np.concatenate(own), minlength=len(scores))
    found = np.flatnonzero(shared)
    union = columns.num_categories[found] + len(own) - shared[found]
    scores[found] = shared[found] / union
