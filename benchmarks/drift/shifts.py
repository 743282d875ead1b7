"""What is planted into a window without a shift: in its events, or in the answers that were given in it."""

from collections.abc import Callable, Sequence

import numpy as np
import polars as pl

from benchmarks.drift.drawn import Halves
from recops.monitoring.outputs import Answer


def some(num: int, share: float, chance: np.random.Generator) -> pl.Series:
    return pl.Series(chance.random(num) < share)


def catalogue_change(drawn: Halves, share: float, chance: np.random.Generator) -> pl.DataFrame:
    """A share of the window's items have new ids, as after an import that numbers them anew."""
    items = drawn.window["item_id"].unique().sort()
    is_new = pl.col("item_id").is_in(items.filter(some(len(items), share, chance)).to_list())
    renamed = pl.when(is_new).then("new" + pl.col("item_id")).otherwise("item_id")
    return drawn.window.with_columns(renamed.alias("item_id"))


def season(drawn: Halves, times: float, chance: np.random.Generator) -> pl.DataFrame:
    """A tenth of the items, alike by the release's vectors, is wanted so many times as often by those who come."""
    window = drawn.window
    weight = np.where(window["item_id"].is_in(drawn.in_season).to_numpy(), times, 1.0)
    return window[np.sort(chance.choice(len(window), len(window), p=weight / weight.sum()))]


def bots(drawn: Halves, share: float, chance: np.random.Generator) -> pl.DataFrame:
    """Five new users add a share of events, all on the same twenty items, at times when others come."""
    window = drawn.window
    num = round(len(window) * share)
    items = window["item_id"].unique().sort()
    targets = items[chance.integers(0, len(items), 20)]
    added = window[chance.integers(0, len(window), num)].with_columns(
        user_id=pl.Series([f"bot{n}" for n in chance.integers(0, 5, num)]),
        item_id=targets[chance.integers(0, 20, num)],
    )
    return pl.concat([window, added])


def broken_field(drawn: Halves, share: float, chance: np.random.Generator) -> pl.DataFrame:
    """The value is lost in a share of events."""
    lost = some(len(drawn.window), share, chance)
    return drawn.window.with_columns(pl.when(lost).then(None).otherwise("value").alias("value"))


def popularity_shock(drawn: Halves, share: float, chance: np.random.Generator) -> pl.DataFrame:
    """One item that few had takes a share of all events."""
    counts = drawn.window["item_id"].value_counts().sort("count", "item_id")
    hit = counts["item_id"][int(chance.integers(0, len(counts) // 2))]
    moved = some(len(drawn.window), share, chance)
    return drawn.window.with_columns(pl.when(moved).then(pl.lit(hit)).otherwise("item_id").alias("item_id"))


Shift = Callable[[Halves, float, np.random.Generator], pl.DataFrame]
SHIFTS: dict[str, tuple[Shift, tuple[float, ...]]] = {
    "catalogue change": (catalogue_change, (0.05, 0.2, 0.5)),
    "season": (season, (1.5, 3.0, 10.0)),
    "bot traffic": (bots, (0.1, 0.3, 1.0)),
    "broken field": (broken_field, (0.1, 0.3, 1.0)),
    "popularity shock": (popularity_shock, (0.05, 0.1, 0.3)),
}


def fallback(answers: Sequence[Answer], share: float, chance: np.random.Generator) -> list[Answer]:
    """The model is not there for a share of answers: they are those of somebody without a history."""
    popular = max(answers, key=lambda answer: answer["source"] == "fallback")["items"]
    lost = chance.random(len(answers)) < share
    return [
        {**answer, "items": popular, "source": "fallback"} if gone else answer
        for answer, gone in zip(answers, lost.tolist(), strict=True)
    ]


def wrong_lists(answers: Sequence[Answer], share: float, chance: np.random.Generator) -> list[Answer]:
    """A share of users get the list of somebody else: nothing but what follows can tell."""
    wrong = np.flatnonzero(chance.random(len(answers)) < share)
    others = dict(zip(wrong.tolist(), chance.permutation(wrong).tolist(), strict=True))
    return [{**answer, "items": answers[others.get(place, place)]["items"]} for place, answer in enumerate(answers)]


AnswerShift = Callable[[Sequence[Answer], float, np.random.Generator], list[Answer]]
ANSWER_SHIFTS: dict[str, tuple[AnswerShift, tuple[float, ...]]] = {
    "model lost": (fallback, (0.05, 0.2, 0.5)),
    "lists of others": (wrong_lists, (0.3, 0.6, 1.0)),
}
