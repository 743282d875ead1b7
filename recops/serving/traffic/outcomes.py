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
from recops.store import LiveEvent

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
    events: int = 0  # that named an answer
    _users: dict[str, list[float]] = field(default_factory=lambda: defaultdict(lambda: [0.0] * (len(METRICS) + 1)))

    def add(self, answer: dict[str, Any], events: list[LiveEvent], kinds: Kinds) -> None:
        """Somebody without an id counts as a user of one answer."""
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
        sums = self._users[f"user {answer['user_id']}" if answer["user_id"] else f"call {answer['request_id']}"]
        for place, value in enumerate((*figures, 1.0)):
            sums[place] += value
        self.answers += 1
        self.events += len(events)

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
    """By variant."""
    found: dict[str, Outcome] = defaultdict(Outcome)
    for answer, events in answers:
        found[answer["variant"]].add(answer, events, kinds)
    return dict(found)


def compared(control: Outcome, challenger: Outcome) -> dict[str, Difference]:
    """By metric: challenger - control, to be looked at as often as one likes."""
    return {metric: difference(control.moments(metric), challenger.moments(metric), SCALE) for metric in METRICS}
