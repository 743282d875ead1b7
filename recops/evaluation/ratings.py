"""How far predicted ratings are from given ones: RMSE and MAE, with intervals over users.

In: the train part, events with values, a scorer whose scores are ratings. Out: figures. What a scorer cannot answer (a
user or an item that was never trained on) gets the damped means of what is known, and all predictions lie within the
values seen in training: `Scorer.predictions` does both, here as when served. Knows no models.
"""

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import polars as pl

from recops.data.interactions import Interactions
from recops.errors import CallError
from recops.histories import Histories
from recops.runtime import RatingScale, Scorer

BATCH = 256
# Events at the mean that a user or an item is credited with before its own mean is believed.
_DAMPING = 5.0


@dataclass(frozen=True)
class Ratings:
    """E events to predict, by user, and what answers those that a scorer cannot."""

    asked: Histories  # U users with the history that they were trained on
    user: np.ndarray  # int64 [E], 0..U-1, rising
    item_idx: np.ndarray  # int64 [E], 0 for an item that was never trained on
    value: np.ndarray  # float64 [E]
    fallback: np.ndarray  # float32 [N+1]: damped means of items
    scale: RatingScale

    def __len__(self) -> int:
        return len(self.value)


def damped_means(train: Interactions) -> tuple[float, np.ndarray, np.ndarray]:
    """The mean value, what each user differs from it [U+1], and what each item differs from both [N+1].

    Row 0 is 0: nobody is at the mean. Without events the mean is 0. Values must be known.
    """
    mean = float(train.value.mean(dtype=np.float64)) if len(train) else 0.0

    def differences(rows: np.ndarray, rest_E: np.ndarray, num_rows: int) -> np.ndarray:
        return np.bincount(rows, rest_E, num_rows + 1) / (np.bincount(rows, minlength=num_rows + 1) + _DAMPING)

    item_N = differences(train.item_idx, train.value - mean, train.num_items)
    user_U = differences(train.user_idx, train.value - mean - item_N[train.item_idx], train.num_users)
    return mean, user_U, item_N


def means_for_unknown(train: Interactions) -> tuple[np.ndarray, RatingScale]:
    """What somebody unknown gives each item (float32 [N+1], row 0 is 0), and the scale with what each user gives an
    unknown item. A train part without events has a scale of 0 alone."""
    mean, user_U, item_N = damped_means(train)
    lowest, highest = (float(train.value.min()), float(train.value.max())) if len(train) else (0.0, 0.0)
    fallback = (mean + item_N).astype(np.float32)
    fallback[0] = 0
    return fallback, RatingScale(lowest, highest, (mean + user_U).astype(np.float32))


def check_values(value: np.ndarray, where: str) -> None:
    """Raises CallError where a value [E] is NaN, naming `where` (what asks for them) and how many there are."""
    num_missing = int(np.isnan(value).sum())
    if num_missing:
        raise CallError(
            f"{where} predicts ratings: it needs a value for every event, {num_missing} of {len(value)} have none; "
            "take a model that ranks (train.task: ranking), or ignore events of that kind (ingest.events)"
        )


def ratings_of(frame: pl.DataFrame, train: Interactions) -> Ratings:
    """The positives of `frame` (SPLIT_COLUMNS) as events to predict; an empty frame gives none.

    Raises CallError where an event of `frame` or of the train part has no value.
    """
    frame = frame.filter(pl.col("signal") == "positive").sort("user_id", maintain_order=True)
    value = frame["value"].cast(pl.Float64).fill_null(float("nan")).to_numpy()
    check_values(np.concatenate([value, train.value]), "train.task rating")
    trained_E = train.users.to_idx(frame["user_id"].to_list()).astype(np.int64)
    first_U = np.flatnonzero(frame["user_id"].is_first_distinct().to_numpy())
    users = trained_E[first_U]
    fallback, scale = means_for_unknown(train)
    return Ratings(
        asked=Histories([train.history(user) for user in users], users=users),
        user=np.repeat(np.arange(len(first_U)), np.diff(np.append(first_U, len(frame)))),
        item_idx=train.items.to_idx(frame["item_id"].to_list()).astype(np.int64),
        value=value,
        fallback=fallback,
        scale=scale,
    )


def predictions(scorer: Scorer, ratings: Ratings) -> np.ndarray:
    """float64 [E]: what the scorer says, as it is served (`Scorer.predictions`)."""
    scorer = replace(scorer, fallback=ratings.fallback, ratings=ratings.scale)
    found = np.empty(len(ratings))
    every_row = np.arange(scorer.num_items + 1)
    for start in range(0, len(ratings.asked), BATCH):
        predicted_BN = scorer.predictions(ratings.asked[slice(start, start + BATCH)], every_row)
        events = slice(*np.searchsorted(ratings.user, (start, start + BATCH)))
        found[events] = predicted_BN[ratings.user[events] - start, ratings.item_idx[events]]
    return found


def rating_figures(
    predicted: np.ndarray, ratings: Ratings, *, samples: int, seed: int, kept: np.ndarray | None = None
) -> dict[str, Any]:
    """`rmse` and `mae` over all events, or those `kept` (bool [E]), each with value, low and high (95 %, users
    resampled with all their events), and the numbers of events and users. Without events the figures are NaN.

    One user is off by 1 and by 3, the other by nothing, once; the mean square is (1 + 9 + 0) / 3:

    >>> some = Ratings(Histories([]), np.array([0, 0, 1]), np.ones(3), np.array([1.0, 4, 2]), np.ones(1), None)
    >>> found = rating_figures(np.array([2.0, 1, 2]), some, samples=10, seed=1)
    >>> round(found["rmse"]["value"] ** 2, 4), round(found["mae"]["value"], 4)
    (3.3333, 1.3333)
    """
    rows = slice(None) if kept is None else kept
    error_E = predicted[rows] - ratings.value[rows]
    totals_U3 = user_totals(error_E, ratings.user[rows])
    totals_U3 = totals_U3[totals_U3[:, 2] > 0]
    num_users = len(totals_U3)
    generator = np.random.default_rng(seed)
    drawn = [totals_U3.sum(0)]
    for _ in range(samples if num_users else 0):
        times_U = np.bincount(generator.integers(0, num_users, num_users), minlength=num_users)
        drawn.append(times_U @ totals_U3)
    drawn_S3 = np.stack(drawn)
    with np.errstate(invalid="ignore"):
        means_S2 = drawn_S3[:, :2] / drawn_S3[:, 2:]
    figures: dict[str, Any] = {"events": len(error_E), "users": num_users}
    for name, values_S in (("rmse", np.sqrt(means_S2[:, 0])), ("mae", means_S2[:, 1])):
        low, high = np.percentile(values_S[1:], [2.5, 97.5]) if len(values_S) > 1 else (np.nan, np.nan)
        figures[name] = {"value": float(values_S[0]), "low": float(low), "high": float(high)}
    return figures


def user_totals(error_E: np.ndarray, user_E: np.ndarray) -> np.ndarray:
    """Of each user 0..max the sum of squared errors, of absolute errors, and the number of events: float64 [U, 3]."""
    num_users = int(user_E.max(initial=-1)) + 1
    columns = (error_E**2, np.abs(error_E), np.ones(len(error_E)))
    return np.stack([np.bincount(user_E, column, num_users) for column in columns], 1)
