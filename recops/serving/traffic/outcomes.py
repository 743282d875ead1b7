"""What came of what was shown: answers and the events that named them, by variant and user.

In: the answers of a store with their events. Out: figures for each variant, one a user first, so that a user who comes
often counts as one. Knows no HTTP.
"""

import json
import math
from array import array
from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from recops.serving.live import Kinds
from recops.serving.traffic.sequential import Difference, Moments, difference
from recops.store import Followed, LiveEvent

# Figures of one user, each the mean over the user's answers.
METRICS = {
    "hit_rate": "answers of which at least one item was then chosen",
    "conversion_rate": "answers of which at least one item was then bought",
    "ndcg": "where what was then chosen stood, 1 where it stood first; 0 where nothing was",
    "fallback_share": "answers of which the model said nothing",
    "empty_share": "answers without any item",
}
LOWER_IS_BETTER = ("fallback_share", "empty_share")
# The size of a difference that is looked for, where its interval is shortest.
SCALE = 0.02
BOUGHT = "purchase"


@dataclass
class Outcome:
    """Sums of one variant over its users."""

    anonymous: int = 0  # answers to calls that name nobody: of the served release alone, so that no figure counts them
    releases: set[str] = field(default_factory=set)
    _of_nobody: int = 0  # events
    _instead: Counter[str] = field(default_factory=Counter)  # answers by user
    # Sum of the shares of a shadow's items that were shown, and how many, by user.
    _overlaps: dict[str | None, list[float]] = field(default_factory=lambda: defaultdict(lambda: [0.0, 0.0]))
    # Sums of each metric, events and answers.
    _users: dict[str, "array[float]"] = field(
        default_factory=lambda: defaultdict(lambda: array("d", bytes(8 * (len(METRICS) + 2))))
    )

    def add(self, one: Followed, kinds: Kinds) -> None:
        """An answer, or what has followed one that was added before."""
        num_events = len(one.events) - len(one.before)
        if one.is_new:
            self.releases.add(one.release)
            self._add_overlap(one)
        if not one.user_id:
            self.anonymous += one.is_new
            self._of_nobody += num_events
            return
        sums = self._users[one.user_id]
        if one.is_new:
            for place, value in enumerate((*_figures(one, one.events, kinds), num_events, 1.0)):
                sums[place] += value
        else:
            was, now = _figures(one, one.before, kinds), _figures(one, one.events, kinds)
            for place, (before, after) in enumerate(zip((*was, 0.0), (*now, num_events), strict=True)):
                sums[place] += after - before

    def _add_overlap(self, one: Followed) -> None:
        """Of a shadow's answer: the share of its items that were shown."""
        if one.shown_json is not None and (items := {item["item_id"] for item in one.items}):
            shown = {item["item_id"] for item in json.loads(one.shown_json)}
            sums = self._overlaps[one.user_id]
            sums[0] += len(items & shown) / len(items)
            sums[1] += 1

    def add_instead(self, user_id: str) -> None:
        """An answer that the served release gave to a user of this challenger."""
        self._instead[user_id] += 1

    @property
    def instead(self) -> int:
        """Answers that the served release gave to users of the challenger: in no figure."""
        return self._instead.total()

    def forget(self, is_gone: Callable[[str], bool]) -> None:
        """Takes users out who were erased; who came back since is added anew."""
        for user_id in [user_id for user_id in {*self._users, *self._instead} if is_gone(user_id)]:
            for held in (self._users, self._instead, self._overlaps):
                held.pop(user_id, None)

    @property
    def answers(self) -> int:
        return self.anonymous + round(sum(sums[-1] for sums in self._users.values()))

    @property
    def events(self) -> int:
        """That named an answer."""
        return self._of_nobody + round(sum(sums[-2] for sums in self._users.values()))

    @property
    def overlap(self) -> float | None:
        """Mean share of a shadow's items that were shown; None of what is no shadow."""
        num = sum(sums[1] for sums in self._overlaps.values())
        return math.fsum(sums[0] for sums in self._overlaps.values()) / num if num else None

    @property
    def users(self) -> int:
        return len(self._users)

    def moments(self, metric: str) -> Moments:
        """Of a metric over users."""
        place = list(METRICS).index(metric)
        means = [sums[place] / sums[-1] for sums in self._users.values()]
        return Moments.of(len(means), math.fsum(means), math.fsum(mean * mean for mean in means))


def ndcg(ranks: list[int]) -> float:
    """Of the items that were chosen, by where they stood (from 1); 0 of none.

    >>> ndcg([1, 2]), round(ndcg([3]), 6)
    (1.0, 0.5)
    """
    ideal = sum(1 / math.log2(place + 1) for place in range(1, len(ranks) + 1))
    return sum(1 / math.log2(rank + 1) for rank in ranks) / ideal if ranks else 0.0


def _figures(one: Followed, events: Sequence[LiveEvent], kinds: Kinds) -> tuple[float, ...]:
    """Of one answer, as METRICS has them."""
    is_fallback, is_empty = float(one.source == "fallback"), float(one.items_json == "[]")
    if not events:
        return 0.0, 0.0, 0.0, is_fallback, is_empty
    ranks = {item["item_id"]: item["rank"] for item in one.items}
    chosen = {e.item_id for e in events if e.item_id in ranks and kinds.is_positive(e.event, e.value)}
    bought = any(e.item_id in ranks and e.event == BOUGHT for e in events)
    return float(bool(chosen)), float(bought), ndcg([ranks[item_id] for item_id in chosen]), is_fallback, is_empty


def compared(control: Outcome, challenger: Outcome, num: int = 1) -> dict[str, Difference]:
    """By metric: challenger - control, to be looked at as often as one likes; `num` of them, together at 95 %."""
    return {
        metric: difference(control.moments(metric), challenger.moments(metric), SCALE, 0.05 / num) for metric in METRICS
    }
