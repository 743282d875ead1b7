"""Who is judged on a part of the split by the ratings given there: the counterpart of judging.py for `task: rating`.

In: the folder of the split stage, the train part as Interactions. Out: `RatingJudging`, which a stage asks what it asks
`Judging`. A user's history is the train part alone: a rating model knows its users from there. Knows no models.
"""

import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np
import polars as pl

from recops.data.interactions import Interactions
from recops.errors import CallError
from recops.evaluation.judging import drawn
from recops.evaluation.ratings import Ratings, predictions, rating_figures, ratings_of
from recops.evaluation.segments import ITEM_CLASSES, item_classes, user_segments
from recops.params import RATING_METRICS, EvaluateParams
from recops.runtime import Scorer


@dataclass(frozen=True)
class RatingJudging:
    """The ratings of one part, by user; metrics are rmse and mae."""

    ratings: Ratings
    user_ids: list[str]
    item_counts: np.ndarray  # int64 [N+1], of the train part
    settings: EvaluateParams
    remove_seen: bool
    not_judged: dict[str, int]
    lower_is_better: ClassVar[bool] = True

    def __len__(self) -> int:
        return len(self.user_ids)

    def mean(self, scorer: Scorer, metric: str) -> float:
        """`rmse` or `mae` over all ratings; NaN where there are none. Raises CallError for other names."""
        if metric not in RATING_METRICS:
            raise CallError(f"evaluate.metric: ratings are judged by {' or '.join(RATING_METRICS)}, found {metric!r}")
        figures = rating_figures(predictions(scorer, self.ratings), self.ratings, samples=0, seed=0)
        return figures[metric]["value"]

    def evaluate(self, scorer: Scorer) -> dict[str, Any]:
        """What `Judging.evaluate` gives: `metrics`, `segments` and `users`, JSON values only."""
        predicted = predictions(scorer, self.ratings)
        found = self._figures(predicted, np.ones(len(self.ratings), bool))
        return {
            "metrics": found["metrics"],
            "segments": {name: self._figures(predicted, kept) for name, kept in self.segments()},
            "users": {
                "judged": len(self),
                "not_judged": self.not_judged,
                "targets": len(self.ratings),
                "unknown_targets": int((self.ratings.item_idx == 0).sum()),
            },
        }

    def segments(self) -> Iterator[tuple[str, np.ndarray]]:
        """Which ratings belong to each segment: bool [E]."""
        ratings = self.ratings
        for name, is_inside_U in user_segments(np.array([len(history) for history in ratings.asked])).items():
            yield name, is_inside_U[ratings.user]
        class_E = item_classes(self.item_counts)[ratings.item_idx]
        for name in ITEM_CLASSES:
            yield f"items:{name}", class_E == name

    def _figures(self, predicted: np.ndarray, kept: np.ndarray) -> dict[str, Any]:
        settings = self.settings
        found = rating_figures(
            predicted, self.ratings, samples=settings.bootstrap_samples, seed=settings.seed, kept=kept
        )
        metrics = {
            name: {key: value if np.isfinite(value) else None for key, value in found[name].items()}
            | {"users": found["users"]}
            for name in RATING_METRICS
        }
        return {"users": found["users"], "metrics": metrics}

    def fingerprint(self) -> str:
        """Hex digest of who is judged on what: figures of two judgings with the same one can be compared."""
        settings = {**self.settings.model_dump(), "users": self.user_ids}
        digest = hashlib.sha256(json.dumps(settings, sort_keys=True).encode())
        ratings = self.ratings
        for array in (ratings.user, ratings.item_idx, ratings.value, ratings.fallback, ratings.scale.user_means):
            digest.update(np.ascontiguousarray(array).tobytes())
        return digest.hexdigest()


def read_rating_judging(
    split: Path, part: Literal["valid", "test"], train: Interactions, settings: EvaluateParams, remove_seen: bool
) -> RatingJudging:
    """The users with a positive in `part`; `settings.max_users` judges a seeded sample.

    Raises CallError naming the file where a positive has no value.
    """
    frame = read_rated(split / f"{part}.parquet")
    user_ids = frame["user_id"].unique().sort()
    kept = user_ids.gather(drawn(len(user_ids), settings.max_users, settings.seed))
    trained = int((train.users.to_idx(user_ids.to_list()) > 0).sum())
    not_judged = {
        "trained on, no target in this part": train.num_users - trained,
        "left out by evaluate.max_users": len(user_ids) - len(kept),
    }
    return RatingJudging(
        ratings=ratings_of(frame.filter(pl.col("user_id").is_in(kept.implode())), train),
        user_ids=kept.to_list(),
        item_counts=np.bincount(train.item_idx, minlength=train.num_items + 1),
        settings=settings,
        remove_seen=remove_seen,
        not_judged={reason: count for reason, count in not_judged.items() if count},
    )


def read_rated(path: Path) -> pl.DataFrame:
    """The positives of a file of the split stage. Raises CallError where one has no value."""
    frame = pl.read_parquet(path).filter(pl.col("signal") == "positive")
    num_missing = int((frame["value"].is_null() | frame["value"].is_nan()).sum())
    if num_missing:
        kinds = ", ".join(sorted(frame.filter(pl.col("value").is_null() | pl.col("value").is_nan())["event"].unique()))
        raise CallError(
            f"{path}: column value: {num_missing} of {len(frame)} rows that count as positive have none (kinds: "
            f"{kinds}), and train.task is rating; name their column of values in source.options, call events of that "
            "kind ignored in ingest.events, or set train.task: ranking"
        )
    return frame
