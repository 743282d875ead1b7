"""From a request to a list: whose history, what may be shown, the best k. Runs in the event loop; touches no files.

In: a Release, a parsed request, the stored history of its user and the rules of the service. Out: plain dicts.
`source` says what a list was made from: `model` (a user the release knows, with the call's history added), `cold-start`
(the call's history alone, or without any what the release knows of the user's attributes) or `fallback` (nothing
usable: most popular, or what a model that needs no history says).
"""

from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import accumulate, chain, repeat
from typing import Any

import numpy as np

from recops.attribution import Account
from recops.histories import Histories
from recops.serving.best import Hidden, best, num_left, of_scores
from recops.serving.listing import listed, moved
from recops.serving.occasion import Occasion, now_us
from recops.serving.reasons import Reasons
from recops.serving.release import Release
from recops.serving.requests import Recommend, Score, Similar, Who
from recops.serving.ruleset import NO_RULES, Rules
from recops.serving.tracing import span


@dataclass(frozen=True)
class Stored:
    """What the store holds of a user at a release: item ids, oldest first, and their times in µs where it has them."""

    item_ids: list[str]
    times: Sequence[int | None] | None = None
    refused: list[str] = field(default_factory=list)  # not to be recommended to the user


@dataclass(frozen=True, slots=True)
class Person:
    """Whose list it is: what a scorer is given, as one of many, and what it came from."""

    together: Histories
    place: int
    source: str

    @property
    def asked(self) -> Histories:
        """Of one."""
        return self.together[self.place : self.place + 1]

    @property
    def history(self) -> np.ndarray:
        """int64 rows, oldest first."""
        return self.together.items[self.place]


def person(release: Release, who: Who, stored: Stored | None, moment: int | None = None) -> Person:
    """`stored` is None for a user that the store does not know. `moment`: of the call, in µs; None: now.

    An event without a time counts as of then: those of the call are what has just happened.
    """
    return people_of(release, [(who, stored)], [moment])[0]


def people_of(
    release: Release, whom: Sequence[tuple[Who, Stored | None]], moments: Sequence[int | None]
) -> list[Person]:
    """`person` of each."""
    scorer = release.bundle.scorer
    users = [release.user_row(who.user_id) for who, _ in whom]
    calls = [who.history_events() for who, _ in whom]
    known = [[] if stored is None else stored.item_ids for _, stored in whom]
    both = [one for stored_ids, (ids, _) in zip(known, calls, strict=True) for one in (stored_ids, ids)]
    ends = [0, *accumulate(map(len, both))]  # twice a person: of the stored history, and of the call's
    events = np.fromiter(map(release.row_of.get, chain.from_iterable(both), repeat(0)), np.int64, ends[-1])
    is_kept, kept_ends = events > 0, ends
    if not is_kept.all():
        kept_ends = np.concatenate([[0], np.cumsum(is_kept)])[ends].tolist()
        events = events[is_kept]
    histories = [events[kept_ends[n] : kept_ends[n + 2]] for n in range(0, len(both), 2)]
    ages = asked_at = None
    if release.uses_time:
        asked_at = np.array([now_us() if moment is None else moment for moment in moments], np.int64)
        ages = []
        for place, ((_, stored), now) in enumerate(zip(whom, asked_at.tolist(), strict=True)):
            before = [None] * len(known[place]) if stored is None or stored.times is None else stored.times
            at = np.array([now if t is None else t for t in (*before, *calls[place][1])], np.int64)
            own = is_kept[ends[2 * place] : ends[2 * place + 2]]
            ages.append(np.maximum(now - at[own], 0) // 1_000_000)
    asked = Histories(histories, ages, np.array(users, np.int64), asked_at)
    tables = [part.user_table for part in scorer.parts if part.user_table is not None and part.encode is None]
    longest = max(map(len, tables), default=0)  # others may know more users, by attributes
    people = []
    for place, is_answered in enumerate(scorer.answers(asked).tolist()):
        is_known = kept_ends[2 * place + 1] > kept_ends[2 * place] or 0 < users[place] < longest
        if not is_answered:
            source = "fallback"
        elif is_known or (whom[place][1] is not None and not scorer.needs_history):
            source = "model"
        else:
            source = "cold-start" if len(histories[place]) or scorer.needs_history else "fallback"
        people.append(Person(asked, place, source))
    return people


def occasion_of(release: Release, someone: Person, stored: Stored | None, moment: int | None = None) -> Occasion:
    """What the rules are told of a list for `someone`."""
    refused = tuple(stored.refused) if stored is not None else ()
    return Occasion(release, someone.history, refused, now_us() if moment is None else moment)


@dataclass(frozen=True, slots=True)
class List:
    """`rows` int64 [K] and `scores` float32 [K], best first; `propensities` float64 [K]: how probable it was that each
    item stands at its rank, and `drew_from` int64, the rows that chance could have put there; None where no chance is
    at work. `num_candidates`: items that might have stood in the list. `account` and `moves`, what the rules moved,
    where reasons are asked for."""

    someone: Person
    rows: np.ndarray
    scores: np.ndarray
    num_candidates: int
    propensities: np.ndarray | None = None
    account: Account | None = None
    moves: list[list[dict[str, Any]]] | None = None
    drew_from: np.ndarray | None = None


def recommend(
    release: Release,
    request: Recommend,
    stored: Stored | None,
    rules: Rules = NO_RULES,
    request_id: str | None = None,
) -> dict[str, Any]:
    """`items`, best first (fewer than k where the catalogue or the rules leave fewer), `source`, `propensities`, and
    `num_candidates`.

    `request_id` decides what chance does; without one there is none.
    """
    return next(recommend_many(release, [(request, stored)], rules, [request_id]))


def recommend_many(
    release: Release,
    requests: Sequence[tuple[Recommend, Stored | None]],
    rules: Rules = NO_RULES,
    request_ids: Sequence[str | None] | None = None,
) -> Iterator[dict[str, Any]]:
    """`recommend` of each in turn; the model is asked once for as many of them as it takes."""
    for found in lists(release, requests, rules, request_ids):
        items = shown(release, found.rows, found.scores)
        if found.account is not None:
            reasons = Reasons(release, found.account, found.rows)
            items = [{**item, "reasons": reasons.of(place)} for place, item in enumerate(items)]
        if found.moves is not None:
            items = [{**one, "moved": moves} if moves else one for one, moves in zip(items, found.moves, strict=True)]
        propensities = None if found.propensities is None else found.propensities.tolist()
        yield {
            "items": items,
            "source": found.someone.source,
            "propensities": propensities,
            "num_candidates": found.num_candidates,
        }


def lists(
    release: Release,
    requests: Sequence[tuple[Recommend, Stored | None]],
    rules: Rules = NO_RULES,
    request_ids: Sequence[str | None] | None = None,
    moments: Sequence[int] | None = None,
) -> Iterator[List]:
    """For each request its list, as of its moment (µs) where one is given. Those that no rule moves and that need no
    reasons are looked for together; for the others the whole catalogue is scored."""
    at = [None] * len(requests) if moments is None else moments
    people = people_of(release, requests, at)
    asking = [
        (request, someone, occasion_of(release, someone, stored, moment), rules.moving(request))
        for (request, stored), someone, moment in zip(requests, people, at, strict=True)
    ]
    is_plain = [not request.explain and not movers for request, _, _, movers in asking]
    plain = people[0].together[np.flatnonzero(is_plain)] if people else Histories([])
    num_candidates: deque[int] = deque()  # of those whose lists are being made

    def wanted() -> Iterator[tuple[Hidden, int]]:
        # One after the other, since the masks of rules are as long as the catalogue.
        for (request, _, occasion, _), plainly in zip(asking, is_plain, strict=True):
            if plainly:
                hidden = _hidden(rules, request, occasion)
                num_candidates.append(num_left(hidden, release.bundle.scorer.num_items))
                yield hidden, request.k

    found = best(release, plain, wanted())
    ratings = release.bundle.scorer.ratings
    for place, (request, someone, occasion, _) in enumerate(asking):
        if is_plain[place]:
            rows, scores = next(found)
            made = List(someone, rows, scores, num_candidates.popleft())
        else:
            request_id = None if request_ids is None else request_ids[place]
            made = _moved(release, request, someone, occasion, rules, request_id)
        # Clipped only here, so that what lies above the scale keeps its order.
        yield made if ratings is None else replace(made, scores=ratings.clipped(made.scores))


def _hidden(rules: Rules, request: Recommend, occasion: Occasion) -> Hidden:
    with span("rules"):
        return list(rules.hidden(request, occasion).values())


def _moved(
    release: Release, request: Recommend, someone: Person, occasion: Occasion, rules: Rules, request_id: str | None
) -> List:
    """A list that rules move, or whose reasons are asked for."""
    account = Account(release.bundle.scorer, someone.asked) if request.explain else None
    scores = release.bundle.scorer.scores(someone.asked)[0] if account is None else account.scores.copy()
    hidden = _hidden(rules, request, occasion)
    num_candidates = num_left(hidden, release.bundle.scorer.num_items)
    for one in hidden:
        scores[one] = -np.inf
    movers = rules.moving(request)
    if not movers:
        return List(someone, *of_scores(scores, (), request.k), num_candidates, account=account)
    with span("reordering"):
        found = listed(scores, request.k, movers, occasion, request_id)
        moves = None
        if account is not None:
            moves = moved(scores, request.k, movers, occasion, request_id, found.rows.tolist())
    scores_K = scores[found.rows]
    return List(someone, found.rows, scores_K, num_candidates, found.propensities, account, moves, found.drew_from)


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
    scorer = release.bundle.scorer
    rows = np.array(list(map(release.row_of.get, request.item_ids, repeat(0))), np.int64)
    known = rows[rows > 0]
    answer = scorer.score_items if scorer.ratings is None else scorer.predictions
    values = answer(someone.asked, known)[0].tolist()
    if len(known) < len(rows):
        found = iter(values)
        values = [next(found) if row else None for row in rows.tolist()]
    scores = [{"item_id": i, "score": value} for i, value in zip(request.item_ids, values, strict=True)]
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
    hidden = [np.array([0, row]), *rules.hidden(request, Occasion(release)).values()]
    for source, near in NEARNESS:
        if (found := near(release, row)) is not None:
            rows, scores = of_scores(found, hidden, request.k)
            if len(rows):
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
