"""From a request to a list: whose history, what may be shown, the best k. Runs in the event loop; touches no files.

In: a Release, a parsed request and the stored history of its user. Out: plain dicts. `source` says what a list was
made from: `model` (a user the release knows, with the call's history added), `cold-start` (the call's history alone,
or without any what the release knows of the user's attributes)
or `fallback` (nothing usable: most popular, or what a model that needs no history says).
"""

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from recops.attribution import Account
from recops.histories import Histories
from recops.serving.best import Best, best, of_scores
from recops.serving.reasons import Reasons
from recops.serving.release import Release
from recops.serving.requests import RULES, Recommend, Score, Similar, Who


@dataclass(frozen=True)
class Stored:
    """What the store holds of a user at a release: item ids, oldest first, and their times in µs where it has them."""

    item_ids: list[str]
    times: list[int] | None = None
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
    user = release.bundle.user_row_of.get(who.user_id, 0) if who.user_id is not None else 0
    known = [] if stored is None else stored.item_ids
    ids, times = who.history_events()
    rows = np.array([get(item_id, 0) for item_id in (*known, *ids)], np.int64)
    kept = np.flatnonzero(rows)
    ages = asked_at = None
    if release.uses_time:
        now = time.time_ns() // 1000
        before = [None] * len(known) if stored is None or stored.times is None else stored.times
        at = [now if t is None else t for t in (*before, *times)]
        ages = [np.array([max(now - at[place], 0) // 1_000_000 for place in kept], np.int64)]
        asked_at = np.array([now])
    asked = Histories([rows[kept]], ages, np.array([user]), asked_at)
    tables = [part.user_table for part in scorer.parts if part.user_table is not None and part.encode is None]
    in_table = user > 0 and any(user < len(table) for table in tables)  # others may know more users, by attributes
    is_known = bool(rows[: len(known)].any()) or in_table or (stored is not None and not scorer.needs_history)
    if not scorer.answers(asked)[0]:
        return Person(asked, "fallback")
    return Person(asked, "model" if is_known else "cold-start" if len(kept) or scorer.needs_history else "fallback")


def recommend(release: Release, request: Recommend, stored: Stored | None) -> dict[str, Any]:
    """`items`, best first (fewer than k where the catalogue or the rules leave fewer), and `source`."""
    return next(recommend_many(release, [(request, stored)]))


def recommend_many(release: Release, requests: Sequence[tuple[Recommend, Stored | None]]) -> Iterator[dict[str, Any]]:
    """`recommend` of each in turn; the model is asked once for as many of them as it takes."""
    for someone, account, (rows, scores) in lists(release, requests):
        items = shown(release, rows, scores)
        if account is not None:
            found = Reasons(release, account, rows)
            items = [{**item, "reasons": found.of(place)} for place, item in enumerate(items)]
        yield {"items": items, "source": someone.source}


def lists(
    release: Release, requests: Sequence[tuple[Recommend, Stored | None]]
) -> Iterator[tuple[Person, Account | None, Best]]:
    """For each request whose list it is, the account where reasons are asked for, and rows and scores of the list."""
    people = [person(release, *one) for one in requests]
    asking = list(zip(requests, people, strict=True))
    plain = [someone.asked for (request, _), someone in asking if not request.explain]

    def kept_away(request: Recommend, stored: Stored | None, someone: Person) -> list[np.ndarray]:
        return list(hidden(release, request, someone, stored).values())

    # One after the other, since the masks of rules are as long as the catalogue.
    wanted = ((kept_away(*one, someone), one[0].k) for one, someone in asking if not one[0].explain)
    found = best(release, Histories.joined(plain), wanted)
    ratings = release.bundle.scorer.ratings
    for (request, stored), someone in asking:
        account = Account(release.bundle.scorer, someone.asked) if request.explain else None
        if account is None:
            rows, scores = next(found)
        else:
            rows, scores = of_scores(account.scores.copy(), kept_away(request, stored, someone), request.k)
        # Clipped only here, so that what lies above the scale keeps its order.
        yield someone, account, (rows, scores if ratings is None else ratings.clipped(scores))


def hidden(release: Release, request: Recommend, someone: Person, stored: Stored | None) -> dict[str, np.ndarray]:
    """Items that are not shown, by what keeps them away: `seen`, `disliked` (rows), or the field of a rule (a mask,
    bool [N+1])."""
    found = {}
    if release.remove_seen:
        found["seen"] = someone.history
    if stored is not None:
        found["disliked"] = release.bundle.rows(stored.refused)
    for name, rule in RULES.items():
        allowed = rule.allowed(request, release)
        if allowed is not None:
            found[name if rule.where == "request" else f"{rule.where}.{name}"] = ~allowed
    return found


def shown(release: Release, rows: np.ndarray, scores: np.ndarray) -> list[dict[str, Any]]:
    """Rows and scores as answers show them, in their order."""
    ids, titles = release.ids, release.titles
    return [
        {"item_id": ids[row - 1], "rank": rank, "score": score, "title": titles[row - 1]}
        for rank, (row, score) in enumerate(zip(rows.tolist(), scores.tolist(), strict=True), start=1)
    ]


def score(release: Release, request: Score, stored: Stored | None) -> dict[str, Any]:
    """A score for each item asked for, in that order; null for an item the catalogue does not know.

    Of a model of ratings the score is a predicted rating.
    """
    someone = person(release, request, stored)
    scorer, get = release.bundle.scorer, release.row_of.get
    rows = [get(item_id, 0) for item_id in request.item_ids]
    known = np.array([row for row in rows if row], np.int64)
    answer = scorer.score_items if scorer.ratings is None else scorer.predictions
    values = answer(someone.asked, known)[0].tolist()
    if len(values) < len(rows):
        found = iter(values)
        values = [next(found) if row else None for row in rows]
    scores = [{"item_id": i, "score": value} for i, value in zip(request.item_ids, values, strict=True)]
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
    return {"items": shown(release, *of_scores(scores, [np.array([0, row])], request.k)), "source": source}


def _category_overlap(release: Release, row: int, scores: np.ndarray) -> None:
    columns = release.columns
    own = [columns.rows_by_category[c] for c in dict.fromkeys(release.bundle.items["categories"][row - 1] or ())]
    if not own:
        return
    shared = np.bincount(np.concatenate(own), minlength=len(scores))
    found = np.flatnonzero(shared)
    union = columns.num_categories[found] + len(own) - shared[found]
    scores[found] = shared[found] / union
