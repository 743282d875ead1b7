"""From a request to a list: whose history, what may be shown, the best k. Runs in the event loop; touches no files.

In: a Release, a parsed request, the stored history of its user and the rules of the service. Out: plain dicts.
`source` says what a list was made from: `model` (a user the release knows, with the call's history added), `cold-start`
(the call's history alone, or without any what the release knows of the user's attributes) or `fallback` (nothing
usable: most popular, or what a model that needs no history says).
"""

import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np

from recops.attribution import Account
from recops.histories import Histories
from recops.serving.listing import best, listed, moved
from recops.serving.occasion import Occasion
from recops.serving.reasons import Reasons
from recops.serving.release import Release
from recops.serving.requests import Recommend, Score, Similar, Who
from recops.serving.ruleset import NO_RULES, Rules


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


def occasion_of(release: Release, someone: Person, stored: Stored | None) -> Occasion:
    """What the rules are told of a list for `someone`."""
    return Occasion(release, someone.history, tuple(stored.refused) if stored is not None else ())


def recommend(
    release: Release,
    request: Recommend,
    stored: Stored | None,
    rules: Rules = NO_RULES,
    request_id: str | None = None,
) -> dict[str, Any]:
    """`items`, best first (fewer than k where the catalogue or the rules leave fewer), and `source`.

    `propensities`: how probable it was that each item stands at its rank, None where no chance is at work. Without a
    `request_id`, which decides what chance does, there is none.
    """
    someone = person(release, request, stored)
    account = Account(release.bundle.scorer, someone.asked) if request.explain else None
    scores = release.bundle.scorer.scores(someone.asked)[0] if account is None else account.scores.copy()
    occasion = occasion_of(release, someone, stored)
    for is_hidden in rules.hidden(request, occasion).values():
        scores[is_hidden] = -np.inf
    movers, propensities = rules.moving(request), None
    if movers:
        found = listed(scores, request.k, movers, occasion, request_id)
        rows, propensities = found.rows, found.propensities
    else:
        rows = best(scores, request.k)
    items = shown(release, rows, scores)
    if (ratings := release.bundle.scorer.ratings) is not None:
        # Clipped only here, so that what lies above the scale keeps its order.
        clipped = ratings.clipped(scores[rows]).tolist()
        items = [{**item, "score": value} for item, value in zip(items, clipped, strict=True)]
    if account is not None:
        reasons = Reasons(release, account, rows)
        items = [{**item, "reasons": reasons.of(place)} for place, item in enumerate(items)]
        moves = moved(scores, request.k, movers, occasion, request_id, rows.tolist())
        items = [{**item, "moved": moves_of} if moves_of else item for item, moves_of in zip(items, moves, strict=True)]
    return {
        "items": items,
        "source": someone.source,
        "propensities": None if propensities is None else propensities.tolist(),
    }


def shown(release: Release, rows: np.ndarray, scores: np.ndarray) -> list[dict[str, Any]]:
    """A list as answers show it."""
    ids, titles = release.ids, release.titles
    return [
        {"item_id": ids[row - 1], "rank": rank, "score": score, "title": titles[row - 1]}
        for rank, (row, score) in enumerate(zip(rows.tolist(), scores.take(rows).tolist(), strict=True), start=1)
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


def similar(release: Release, request: Similar, rules: Rules = NO_RULES) -> dict[str, Any] | None:
    """Items nearest to one item that may be shown, without itself; None for an unknown item.

    `source` says by what: `links` (of what was chosen together, else of content; scores are shares of the strongest),
    `vectors` (cosine of item vectors) or `categories` (Jaccard). Where the filters leave no neighbour the next of these
    that has any is taken, or the list is empty.
    """
    row = release.row_of.get(request.item_id)
    if row is None:
        return None
    is_hidden = np.zeros(release.bundle.num_items + 1, bool)
    is_hidden[[0, row]] = True
    for mask in rules.hidden(request, Occasion(release)).values():
        is_hidden |= mask
    for source, near in NEARNESS:
        if (found := near(release, row)) is not None:
            scores = np.where(is_hidden, -np.inf, found)
            if len(rows := best(scores, request.k)):
                return {"items": shown(release, rows, scores), "source": source}
    return {"items": [], "source": "categories"}


def _by_links(release: Release, row: int, of_content: bool = False) -> np.ndarray | None:
    links = release.bundle.scorer.link_shares(np.array([row]), of_content=of_content)
    return None if links is None else np.where(links[0] != 0, links[0], -np.inf).astype(np.float32)


def _by_vectors(release: Release, row: int) -> np.ndarray | None:
    if release.item_vectors is None or not release.item_vectors[row].any():
        return None
    scores = release.item_vectors @ release.item_vectors[row]
    scores /= release.vector_norms * release.vector_norms[row]
    return scores


def _by_categories(release: Release, row: int) -> np.ndarray | None:
    columns = release.columns
    own = [columns.rows_by_category[c] for c in dict.fromkeys(release.bundle.items["categories"][row - 1] or ())]
    if not own:
        return None
    scores = np.full(release.bundle.num_items + 1, -np.inf, np.float32)
    shared = np.bincount(np.concatenate(own), minlength=len(scores))
    found = np.flatnonzero(shared)
    union = columns.num_categories[found] + len(own) - shared[found]
    scores[found] = shared[found] / union
    return scores


# By what items are near to each other, the first that says anything.
NEARNESS = (
    ("links", _by_links),
    ("links", partial(_by_links, of_content=True)),
    ("vectors", _by_vectors),
    ("categories", _by_categories),
)
