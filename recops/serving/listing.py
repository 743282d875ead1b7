"""From scores to a list, with the rules that move items: adjust > order > place > explore (protocols.py).

In: what each item is scored, -inf where it may not be shown, and the rules of the call. Out: rows, and how probable
each was at its rank. A list is full whenever enough items may be shown and the caps leave as many. Knows no rule by
name.

Pinned items are put first, so that orderings count them; the other ranks are filled one after the other from the best
candidates, and from the rest of the catalogue by score once those are used up. Where chance is at work, the list goes
on to as many items as may be drawn, under the same caps, so that whatever is drawn holds them too.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from recops.protocols import Preference
from recops.serving.best import of_scores
from recops.serving.occasion import Occasion
from recops.serving.ruleset import MOVERS

CANDIDATES_PER_RANK, LEAST_CANDIDATES, MOST_CANDIDATES = 10, 100, 2000  # that orderings choose from

Movers = Sequence[tuple[str, Any]]


@dataclass(frozen=True)
class Listed:
    """`rows` int64 [K], best first; `propensities` float64 [K] and the rows that chance `drew_from`, int64, both None
    without chance; `keys` [N+1], what it was ordered by."""

    rows: np.ndarray
    propensities: np.ndarray | None
    drew_from: np.ndarray | None
    keys: np.ndarray = field(repr=False)

    def rank(self, row: int) -> int:
        """Of any item that may be shown: those that the list lacks follow it by key, of equal ones the lower row."""
        if len(found := np.flatnonzero(self.rows == row)):
            return int(found[0]) + 1
        before = (self.keys > self.keys[row]) | ((self.keys == self.keys[row]) & (np.arange(len(self.keys)) < row))
        before[self.rows] = False
        return len(self.rows) + int(before.sum()) + 1


def listed(scores: np.ndarray, k: int, movers: Movers, occasion: Occasion, request_id: str | None) -> Listed:
    """The list of at most `k`. `request_id` decides chance: the same one gives the same list; None: no chance."""
    steps: dict[str, list[tuple[Any, Any]]] = {}
    for name, value in movers:
        steps.setdefault(MOVERS[name].step, []).append((MOVERS[name], value))
    keys = scores
    for rule, value in steps.get("adjust", ()):
        keys = np.asarray(rule.adjusted(value, keys.astype(np.float64, copy=False), occasion))
    pinned = {
        rank: row
        for rule, value in steps.get("place", ())
        for rank, row in rule.places(value, occasion).items()
        if rank <= k and keys[row] > -np.inf
    }
    free = keys
    if pinned:
        free = keys.copy()
        free[list(pinned.values())] = -np.inf
    exploring = steps.get("explore", ()) if request_id is not None else ()
    num_shown = k - len(pinned)
    num_asked = max([num_shown, *(rule.num_candidates(value) for rule, value in exploring)])
    rows = _filled(free, num_shown, num_asked, list(pinned.values()), steps.get("order", ()), occasion)
    num_shown = min(num_shown, len(rows))
    propensities = drew_from = None
    for rule, value in exploring:
        assert request_id is not None
        drew_from, utilities = rows, -np.sort(-free[rows].astype(np.float64))
        places, propensities = rule.explored(value, utilities, num_shown, _chance(request_id))
        rows = rows[places]
    rows = rows[:num_shown]
    for rank in sorted(pinned):
        place = min(rank - 1, len(rows))
        rows = np.insert(rows, place, pinned[rank])
        propensities = None if propensities is None else np.insert(propensities, place, 1.0)
    return Listed(rows, propensities, drew_from, keys)


def best(keys: np.ndarray, num: int) -> np.ndarray:
    """int64 rows of the best `num`, best first, ties by lower row; rows of -inf are left out. `keys`: [N+1]."""
    return of_scores(keys, (), num)[0]


def _chance(request_id: str) -> np.random.Generator:
    return np.random.default_rng(int.from_bytes(hashlib.sha256(request_id.encode()).digest()[:16]))


def _filled(
    keys: np.ndarray,
    num_ordered: int,
    num: int,
    pinned: list[int],
    rules: Sequence[tuple[Any, Any]],
    occasion: Occasion,
) -> np.ndarray:
    """`num` rows, as far as there are: the first `num_ordered` by the orderings, then by key. int64."""
    if not rules:
        return best(keys, num)
    wanted = min(max(CANDIDATES_PER_RANK * num_ordered, LEAST_CANDIDATES), max(MOST_CANDIDATES, 2 * num_ordered))
    candidates = best(keys, wanted)
    found = (rule.preference(value, candidates, occasion) for rule, value in rules)
    preferences = [one for one in found if one is not None]
    for row in pinned:
        for one in preferences:
            one.take(row)
    chosen: list[int] = []
    if any(one.weighs for one in preferences):
        chosen = _ordered(keys[candidates], candidates, num_ordered, preferences)
    return np.array(_completed(keys, chosen, num, preferences), np.int64)


def _ordered(keys: np.ndarray, rows: np.ndarray, num: int, preferences: list[Preference]) -> list[int]:
    """The best by all preferences, one after the other; of equal ones the one with the better key."""
    if not len(rows):
        return []
    low, high = float(keys.min()), float(keys.max())
    values = (keys.astype(np.float64) - low) / (high - low or 1.0)
    closing = [one.closed for one in preferences if one.closed is not None]
    is_gone = np.zeros(len(rows), bool)
    chosen: list[int] = []
    for _ in range(min(num, len(rows))):
        weighed = values
        for one in preferences:
            weighed = one.weighed(weighed)
        for closed in closing:
            is_gone |= closed[rows]
        weighed = np.where(is_gone, -np.inf, weighed)
        best = int(weighed.argmax())
        if is_gone[best]:
            break
        is_gone[best] = True
        chosen.append(int(rows[best]))
        for one in preferences:
            one.take(chosen[-1])
    return chosen


def _completed(keys: np.ndarray, chosen: list[int], num: int, preferences: list[Preference]) -> list[int]:
    """`chosen` and the best others by key that are not closed."""
    closing = [one for one in preferences if one.closed is not None]
    left = keys.copy()
    left[chosen] = -np.inf
    while len(chosen) < num:
        for one in closing:
            left[one.closed] = -np.inf
        missing = num - len(chosen)
        rows = best(left, max(missing, LEAST_CANDIDATES) if closing else missing)
        if not len(rows):
            break
        for row in rows.tolist():
            if len(chosen) == num or any(one.closed is not None and one.closed[row] for one in closing):
                continue
            chosen.append(row)
            left[row] = -np.inf
            for one in closing:
                one.take(row)
    return chosen


def moved(
    scores: np.ndarray, k: int, movers: Movers, occasion: Occasion, request_id: str | None, rows: Sequence[int]
) -> list[list[dict[str, Any]]]:
    """For each row the rules that moved it, in their order: `rule`, and its rank `from` before and `to` after it."""
    found: list[list[dict[str, Any]]] = [[] for _ in rows]
    before = listed(scores, k, (), occasion, request_id)
    for place, (name, _) in enumerate(movers, start=1):
        after = listed(scores, k, movers[:place], occasion, request_id)
        for told, row in zip(found, rows, strict=True):
            was, stands = before.rank(row), after.rank(row)
            if was != stands:
                told.append({"rule": name, "from": was, "to": stands})
        before = after
    return found
