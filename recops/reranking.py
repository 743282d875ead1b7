"""The second stage of retrieve and rank: what is known of each user's best items, and how that changes their scores.

In: who asks, the scores of stage one, and facts of the items as arrays. Out: features [B, C, F] and adjusted scores.
The one place that computes these features: learning, evaluation and service all come here. Knows neither how the
network was fitted nor any file; free of torch.

A candidate's score is that of stage one plus what the network says, which fades out towards the last candidate: an
item does not jump by slipping in among the candidates, and one that is none keeps the score it had. What time
decides is taken as of the request: events at its second or later count for nothing.

Shapes: B batch, C candidates, F feature columns, M members, N items (row 0 is padding), E events of all items.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from recops.histories import Histories

DAY_S = 86_400
_FADED = 0.25  # share of the candidates, the last ones, whose adjustment is faded out
_LEAST_FADE = 0.02  # of the spread of the candidates' scores, that fading takes at least
_RANK_WIDTH = 0.02  # of the deviation of the candidates' scores: nearer ones share their rank
_USERS_AT_ONCE = 128


@dataclass(frozen=True)
class ItemFacts:
    """What stage two knows of the catalogue, by item row. Times are whole seconds since 1970.

    The events of row i are `offsets[i]:offsets[i + 1]`; `event_times` is empty for a log without times.
    """

    offsets: np.ndarray  # int64 [N+2]
    event_times: np.ndarray  # int64 [E], rising within an item
    published: np.ndarray  # float64 [N+1], NaN where unknown
    prices: np.ndarray  # float32 [N+1], NaN where unknown
    category_offsets: np.ndarray  # int64 [N+2]
    category_idx: np.ndarray  # int32 [P]

    def check(self, num_items: int) -> None:
        """Raises ValueError for arrays that do not fit together, or a catalogue of `num_items`."""
        integers = dict.fromkeys(("offsets", "event_times", "category_offsets"), np.int64)
        for name, kind in {**integers, "published": np.float64, "prices": np.float32, "category_idx": np.int32}.items():
            if getattr(self, name).ndim != 1 or getattr(self, name).dtype != kind:
                raise ValueError(f"rerank_{name}: expected one row of {np.dtype(kind)}")
        for name, rows in (("published", 1), ("prices", 1), ("offsets", 2), ("category_offsets", 2)):
            if len(getattr(self, name)) != num_items + rows:
                raise ValueError(f"rerank_{name}: does not fit a catalogue of {num_items} items")
        for offsets, values in ((self.offsets, self.event_times), (self.category_offsets, self.category_idx)):
            total = len(values) if len(values) or values is self.category_idx else offsets[-1]  # a log without times
            if offsets[0] != 0 or offsets[-1] != total or (np.diff(offsets) < 0).any():
                raise ValueError("rerank_*: offsets and values do not fit together")
        # Every category is that of an item, so that there are no more of them than pairs.
        if not 0 <= self.category_idx.min(initial=0) <= self.category_idx.max(initial=0) <= len(self.category_idx):
            raise ValueError("rerank_category_idx: names categories that are not there")
        falls = np.flatnonzero(np.diff(self.event_times) < 0) + 1  # only where the next item begins
        if not np.isin(falls, self.offsets).all():
            raise ValueError("rerank_event_times: times of an item do not rise")

    def with_items(self, num_items: int) -> "ItemFacts":
        """The same with so many more items at the end, of which nothing is known."""
        return ItemFacts(
            offsets=np.pad(self.offsets, (0, num_items), "edge"),
            event_times=self.event_times,
            published=np.pad(self.published, (0, num_items), constant_values=np.nan),
            prices=np.pad(self.prices, (0, num_items), constant_values=np.nan),
            category_offsets=np.pad(self.category_offsets, (0, num_items), "edge"),
            category_idx=self.category_idx,
        )

    @cached_property
    def all_times(self) -> np.ndarray:
        """int64 [E], rising."""
        return np.sort(self.event_times)

    @cached_property
    def num_categories(self) -> int:
        return int(self.category_idx.max(initial=-1)) + 1

    def count_before(self, rows_BC: np.ndarray, time_B: np.ndarray) -> np.ndarray:
        """Events of each item before a time: int64 [B, C]; all of them for a log without times."""
        low, high = self.offsets[rows_BC], self.offsets[rows_BC + 1]
        if not len(self.event_times):
            return high - low
        start = low
        while (is_open := low < high).any():
            middle = (low + high) // 2
            before = is_open & (self.event_times[np.minimum(middle, len(self.event_times) - 1)] < time_B[:, None])
            low, high = np.where(before, middle + 1, low), np.where(is_open & ~before, middle, high)
        return low - start

    def known_until(self, time_B: np.ndarray) -> np.ndarray:
        """The second after the last event before each time, int64 [B]; the time itself where there is none.

        A log that ends long before a request must not look like one in which nothing is popular any more.
        """
        place = np.searchsorted(self.all_times, time_B)
        known = np.minimum(self.all_times[np.maximum(place - 1, 0)] + 1, time_B) if len(self.all_times) else time_B
        return np.where(place > 0, known, time_B)

    def categories_of(self, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Category of each pair of an item and one of its categories, and the item's place among `rows`."""
        starts, counts = self.category_offsets[rows], np.diff(self.category_offsets)[rows]
        first = np.repeat(starts - np.concatenate(([0], np.cumsum(counts)[:-1])), counts)
        return self.category_idx[first + np.arange(counts.sum())], np.repeat(np.arange(len(rows)), counts)


@dataclass(frozen=True)
class Asked:
    """Whom and what the features are computed for; `None` where the log has no times."""

    histories: "Histories"
    rows_BC: np.ndarray  # int64, 0 where a user has fewer candidates
    stage_BC: np.ndarray  # float32, scores of stage one
    member_MBC: np.ndarray  # float32, calibrated, NaN where a member cannot say
    facts: ItemFacts
    content_window: int
    trend_days: float

    @cached_property
    def at_B(self) -> np.ndarray | None:
        """int64 seconds of the request: the end of the log where the caller does not say."""
        if not len(self.facts.all_times):
            return None if self.histories.at is None else self.histories.at // 1_000_000
        if self.histories.at is None:
            return np.full(len(self.rows_BC), self.facts.all_times[-1] + 1)
        return self.histories.at // 1_000_000

    @cached_property
    def counted_BC(self) -> np.ndarray:
        """Events of each candidate before the request."""
        at_B = np.zeros(len(self.rows_BC), np.int64) if self.at_B is None else self.at_B
        return self.facts.count_before(self.rows_BC, at_B)

    @cached_property
    def unknown_BC(self) -> np.ndarray:
        return np.full(self.rows_BC.shape, np.nan)

    def of_user(self, value_B: Sequence[float] | np.ndarray) -> np.ndarray:
        """The same for each candidate of a user."""
        return np.repeat(np.asarray(value_B, np.float64)[:, None], self.rows_BC.shape[1], axis=1)

    def each(self) -> Iterator[tuple[int, np.ndarray, np.ndarray]]:
        """Number, candidate rows and history of each user."""
        for b, history in enumerate(self.histories):
            yield b, self.rows_BC[b], history


def _scores(asked: Asked) -> np.ndarray:
    return np.moveaxis(asked.member_MBC, 0, 2)


def _blend(asked: Asked) -> np.ndarray:
    return asked.stage_BC


def _rank(asked: Asked) -> np.ndarray:
    """Log of 1 + the number of better candidates, each counted by how surely it is better: scores that differ in their
    last bits, as those of two runtimes do, have all but the same rank."""
    found = asked.unknown_BC.copy()
    for b, (scores, rows) in enumerate(zip(asked.stage_BC, asked.rows_BC, strict=True)):
        own = scores[rows > 0].astype(np.float64)
        width = _RANK_WIDTH * max(float(own.std()), 1e-9) if len(own) else 1.0
        better = 1 / (1 + np.exp(np.clip((own[:, None] - own) / width, -60, 60)))
        found[b, rows > 0] = np.log(better.sum(1) + 0.5)  # itself counts one half
    return found


def _popularity(asked: Asked) -> np.ndarray:
    return np.log1p(asked.counted_BC)


def _trend(asked: Asked) -> np.ndarray:
    if asked.at_B is None or not len(asked.facts.event_times):
        return asked.unknown_BC
    start_B = asked.facts.known_until(asked.at_B) - int(asked.trend_days * DAY_S)
    return np.log1p(asked.counted_BC - asked.facts.count_before(asked.rows_BC, start_B))


def _recency(asked: Asked) -> np.ndarray:
    if asked.at_B is None:
        return asked.unknown_BC
    born = asked.facts.published[asked.rows_BC]
    if len(asked.facts.event_times):
        first = np.minimum(asked.facts.offsets[asked.rows_BC], len(asked.facts.event_times) - 1)
        born = np.fmin(born, np.where(asked.counted_BC > 0, asked.facts.event_times[first], np.nan))
    # As old as when the log ended: else a release that is asked long after it finds all items equally old.
    days = np.maximum(asked.facts.known_until(asked.at_B)[:, None] - born, 0) / DAY_S
    return np.log1p(np.where(born <= asked.at_B[:, None], days, np.nan))


def _content(asked: Asked) -> np.ndarray:
    """Over the candidate's categories, the mean share of the user's last events that have them."""
    found = asked.unknown_BC.copy()
    for b, rows, history in asked.each():
        last = history[-asked.content_window :]
        if len(last):
            had, _ = asked.facts.categories_of(last)
            share = np.bincount(had, minlength=asked.facts.num_categories) / len(last)
            categories, place = asked.facts.categories_of(rows)
            counts = np.bincount(place, minlength=len(rows))
            total = np.bincount(place, share[categories], minlength=len(rows))
            found[b] = np.where(counts > 0, total / np.maximum(counts, 1), np.nan)
    return found


def _seen(asked: Asked) -> np.ndarray:
    found = np.zeros(asked.rows_BC.shape)
    for b, rows, history in asked.each():
        had = np.sort(history)
        found[b] = np.log1p(np.searchsorted(had, rows, side="right") - np.searchsorted(had, rows, side="left"))
    return found


def _since_seen(asked: Asked) -> np.ndarray:
    """Days, and events, since the candidate last stood in the history."""
    found = np.full((*asked.rows_BC.shape, 2), np.nan)
    for b, rows, history in asked.each():
        if len(history):
            had, events_ago = np.unique(history[::-1], return_index=True)
            place = np.minimum(np.searchsorted(had, rows), len(had) - 1)
            ago = events_ago[place]
            if asked.histories.ages is not None:
                found[b, :, 0] = np.log1p(np.maximum(asked.histories.ages[b][::-1][ago], 0) / DAY_S)
            found[b, :, 1] = np.log1p(ago)
            found[b, had[place] != rows] = np.nan
    return found


def _price(asked: Asked) -> np.ndarray:
    """Log of the price over the mean price of the history."""
    prices = np.where(asked.facts.prices > 0, asked.facts.prices, np.nan).astype(np.float64)
    found = asked.unknown_BC.copy()
    for b, rows, history in asked.each():
        paid = prices[history]
        if not np.isnan(paid).all():
            found[b] = np.log(prices[rows] / np.nanmean(paid))
    return found


def _history_length(asked: Asked) -> np.ndarray:
    return asked.of_user(np.log1p([len(history) for history in asked.histories]))


def _idle(asked: Asked) -> np.ndarray:
    if asked.histories.ages is None:
        return asked.unknown_BC
    last = [max(float(age[-1]), 0.0) if len(age) else np.nan for age in asked.histories.ages]
    return asked.of_user(np.log1p(np.array(last) / DAY_S))


def _hour(asked: Asked) -> np.ndarray:
    return _turn(asked, DAY_S)


def _weekday(asked: Asked) -> np.ndarray:
    return _turn(asked, 7 * DAY_S)


def _turn(asked: Asked, period_s: int) -> np.ndarray:
    if asked.at_B is None:
        return np.stack([asked.unknown_BC] * 2, axis=2)
    angle = 2 * np.pi * (asked.at_B % period_s) / period_s
    return np.stack([asked.of_user(np.sin(angle)), asked.of_user(np.cos(angle))], axis=2)


# By name: float [B, C], or [B, C, columns]. NaN is what is not known; the network takes it for the mean.
FEATURES: dict[str, Callable[[Asked], np.ndarray]] = {
    "scores": _scores,
    "blend": _blend,
    "rank": _rank,
    "popularity": _popularity,
    "trend": _trend,
    "recency": _recency,
    "content": _content,
    "seen": _seen,
    "since_seen": _since_seen,
    "price": _price,
    "history_length": _history_length,
    "idle": _idle,
    "hour": _hour,
    "weekday": _weekday,
}


def num_columns(features: Sequence[str], num_members: int) -> int:
    """Columns that the features have together."""
    wide = {"scores": num_members, "since_seen": 2, "hour": 2, "weekday": 2}
    return sum(wide.get(name, 1) for name in features)


@dataclass(frozen=True)
class Reranker:
    """Adjusts the scores of each user's best items. `members` says for each column of the feature `scores` which
    member of the scorer it holds, -1 for one that is not there."""

    # features float32 [B, C, F], fade float32 [B, C] -> what to add, float32 [B, C]; a torch module in `ServingParts`
    network: Any
    features: tuple[str, ...]
    members: tuple[int, ...]
    facts: ItemFacts
    candidates: int = 200
    remove_seen: bool = True
    content_window: int = 10
    trend_days: float = 30.0

    def check(self, num_members: int, num_items: int) -> None:
        """Raises ValueError for what does not fit together, or a scorer of so many members and items."""
        if unknown := set(self.features) - set(FEATURES):
            raise ValueError(f"features {', '.join(sorted(unknown))} are not known")
        if not all(-1 <= member < num_members for member in self.members) or self.candidates < 1:
            raise ValueError("the reranker names members that are not there, or no candidates")
        self.facts.check(num_items)

    def adjust(self, histories: "Histories", scores_BN: np.ndarray, member_MBN: np.ndarray) -> None:
        """Changes `scores_BN` [B, N+1] of stage one in place; `member_MBN` is what its members say, calibrated."""
        for start in range(0, len(histories), _USERS_AT_ONCE):
            part = slice(start, start + _USERS_AT_ONCE)
            some = histories[part]
            rows_BC, fade_BC = self.best(some, scores_BN[part])
            if rows_BC.size:
                change_BC = self.network(self.described(some, rows_BC, scores_BN[part], member_MBN[:, part]), fade_BC)
                for scores, rows, change in zip(scores_BN[part], rows_BC, change_BC, strict=True):
                    scores[rows[rows > 0]] += change[rows > 0]

    def best(self, histories: "Histories", scores_BN: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The candidates of each user, rising, padded on the right with 0, and how far each is adjusted: int64 and
        float32 [B, C]. With `remove_seen` items of the history are none."""
        num = min(self.candidates, scores_BN.shape[1] - 1)
        rows_BC, fade_BC = np.zeros((len(scores_BN), num), np.int64), np.zeros((len(scores_BN), num), np.float32)
        for b, history in enumerate(histories):
            scores = scores_BN[b].copy()
            scores[0] = -np.inf
            if self.remove_seen:
                scores[history] = -np.inf
            rows, fade = np.flatnonzero(np.isfinite(scores)), np.float32(1)
            if len(rows) > num:
                order = np.argsort(-scores[rows], kind="stable")[: num + 1]
                top = scores[rows[order]]
                width = max(top[int(num * (1 - _FADED))] - top[num], _LEAST_FADE * (top[0] - top[num]), 1e-12)
                rows = np.sort(rows[order[:num]])
                fade = np.clip((scores[rows] - top[num]) / width, 0, 1)
            rows_BC[b, : len(rows)], fade_BC[b, : len(rows)] = rows, fade
        return rows_BC, fade_BC

    def described(
        self, histories: "Histories", rows_BC: np.ndarray, scores_BN: np.ndarray, member_MBN: np.ndarray
    ) -> np.ndarray:
        """Features of some items of each user: float32 [B, C, F], NaN where unknown."""
        there = np.take_along_axis(member_MBN, rows_BC[None], 2)
        return self.features_of(histories, rows_BC, np.take_along_axis(scores_BN, rows_BC, 1), there)

    def features_of(
        self, histories: "Histories", rows_BC: np.ndarray, stage_BC: np.ndarray, member_MBC: np.ndarray
    ) -> np.ndarray:
        """`described`, where the scores of stage one and of its members are those of the items alone."""
        known_MBC = np.full((len(self.members), *rows_BC.shape), np.nan, np.float32)
        for column, member in enumerate(self.members):
            if member >= 0:
                known_MBC[column] = member_MBC[member]
        asked = Asked(
            histories,
            rows_BC,
            stage_BC,
            known_MBC,
            self.facts,
            self.content_window,
            self.trend_days,
        )
        columns = [FEATURES[name](asked) for name in self.features]
        return np.concatenate([c if c.ndim == 3 else c[:, :, None] for c in columns], axis=2).astype(np.float32)
