"""What came of what was shown: answers and the events that named them, by variant and user.

In: the answers of a store with their events. Out: figures for each variant, one a user first, so that a user who comes
often counts as one. Knows no HTTP.
"""

import math
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from recops.serving.live import Kinds
from recops.serving.traffic.sequential import Difference, Moments, difference
from recops.store import OF_SHADOW, SHADOW, LiveEvent

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

    answers: int = 0
    anonymous: int = 0  # answers to calls that name nobody: of the served release alone, so that no figure counts them
    events: int = 0  # that named an answer
    releases: set[str] = field(default_factory=set)
    _overlaps: list[float] = field(default_factory=lambda: [0.0, 0.0])
    _users: dict[str, list[float]] = field(default_factory=lambda: defaultdict(lambda: [0.0] * (len(METRICS) + 1)))

    def add(self, answer: dict[str, Any], events: list[LiveEvent], kinds: Kinds) -> None:
        self.answers += 1
        self.events += len(events)
        self.releases.add(answer["release"])
        if not answer["user_id"]:
            self.anonymous += 1
            return
        ranks = {item["item_id"]: item["rank"] for item in answer["items"]}
        chosen = {e.item_id for e in events if e.item_id in ranks and kinds.is_positive(e.event, e.value)}
        bought = any(e.item_id in ranks and e.event == BOUGHT for e in events)
        figures = (
            float(bool(chosen)),
            float(bought),
            ndcg([ranks[item_id] for item_id in chosen]),
            float(answer["source"] == "fallback"),
            float(not ranks),
        )
        sums = self._users[answer["user_id"]]
        for place, value in enumerate((*figures, 1.0)):
            sums[place] += value

    def add_overlap(self, items: set[str], shown: set[str]) -> None:
        """Of a shadow's answer: the share of its items that were shown."""
        if items:
            self._overlaps[0] += len(items & shown) / len(items)
            self._overlaps[1] += 1

    @property
    def overlap(self) -> float | None:
        """Mean share of a shadow's items that were shown; None of what is no shadow."""
        total, num = self._overlaps
        return total / num if num else None

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


def outcomes(answers: Iterable[tuple[dict[str, Any], list[LiveEvent]]], kinds: Kinds) -> dict[str, Outcome]:
    """By variant; `answers` by time, shadows after what was shown."""
    found: dict[str, Outcome] = defaultdict(Outcome)
    shown: dict[str, set[str]] = {}  # of one moment, which is that of its shadows too
    at = None
    for answer, events in answers:
        outcome, items = found[answer["variant"]], {item["item_id"] for item in answer["items"]}
        outcome.add(answer, events, kinds)
        if not str(answer["variant"]).startswith(SHADOW):
            shown, at = {} if at != answer["time"] else shown, answer["time"]
            shown[answer["request_id"]] = items
        elif (seen := shown.get(answer["request_id"].partition(OF_SHADOW)[0])) is not None:
            outcome.add_overlap(items, seen)
    return dict(found)


def compared(control: Outcome, challenger: Outcome, num: int = 1) -> dict[str, Difference]:
    """By metric: challenger - control, to be looked at as often as one likes; `num` of them, together at 95 %."""
    return {
        metric: difference(control.moments(metric), challenger.moments(metric), SCALE, 0.05 / num) for metric in METRICS
    }
