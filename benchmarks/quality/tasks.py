"""What a table of published figures is made of: the data and how it is judged, the models, the figures to beat.

In: item sequences, or parts divided elsewhere. Out: `Task` and `Table`, which the runner (__main__.py) takes from the
files `recipes_*.py`. Knows no files and no models.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from recops.data.interactions import Interactions, make_interactions
from recops.evaluation.judging import Judging
from recops.evaluation.protocol import RankedUsers, ranked_lists
from recops.params import EvaluateParams
from recops.runtime import Scorer
from recops.topk import top_k

Candidates = Sequence[np.ndarray]  # U int arrays of item rows, 0 for an item that was never trained on


@dataclass(frozen=True)
class Task:
    """One data set as one protocol judges it. Models are fitted on `train`, chosen on `valid` and told by `test`.

    `metrics` such as `ndcg@10`: the first is the one that models are chosen by. The candidates of a part, in the order
    of its users, are None where the whole catalogue is ranked; those of sampled negatives hold the target too. `whole`
    has the vocabularies of `train`: where it is given, the chosen model is fitted again on it before the test.
    """

    name: str
    train: Interactions
    valid: Judging
    test: Judging
    metrics: tuple[str, ...]
    valid_candidates: Candidates | None = None
    test_candidates: Candidates | None = None
    whole: Interactions | None = None


@dataclass(frozen=True)
class Recipe:
    """One model of a table: `model` is fitted with the settings that `settings` has, by name, as `train.models` does.

    `label` names the row. A model whose fit draws nothing at random is fitted once, whatever seeds are asked for.
    """

    label: str
    model: str
    settings: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    is_random: bool = True


@dataclass(frozen=True)
class Published:
    """The best figures of one model published by others; `metrics` has a value for some of the task's metrics.

    `source` says where they were read, `note` what differs from how the table judges; a figure that cannot be
    compared is shown and never counts as one to beat.
    """

    model: str
    metrics: Mapping[str, float]
    source: str
    note: str = ""
    is_comparable: bool = True


@dataclass(frozen=True)
class Table:
    """`load(data, quick)` makes the task from the folder of all data sets; `quick` asks for a sample of users."""

    name: str
    protocol: str
    load: Callable[[Path, bool], Task]
    recipes: tuple[Recipe, ...]
    published: tuple[Published, ...]


def rank(judging: Judging, scorer: Scorer, k: int, candidates: Candidates | None = None) -> RankedUsers:
    """The best `k` of each user: of the whole catalogue by the rule of `judging`, or of `candidates` alone, each once,
    seen or not. Candidates of row 0 cannot be recommended."""
    if candidates is None:
        return judging.rank(scorer, k)
    assert len(candidates) == len(judging), "candidates are given user by user"
    lists_UK = np.zeros((len(judging), k), np.int32)
    scores_UK = np.full((len(judging), k), -np.inf, np.float32)
    for start in range(0, len(judging), 256):
        users = slice(start, start + 256)
        scores_BN = scorer.scores(judging.asked[users])
        masked_BN = np.full_like(scores_BN, -np.inf)
        for masked, scores, rows in zip(masked_BN, scores_BN, candidates[users], strict=True):
            masked[rows] = scores[rows]
        masked_BN[:, 0] = -np.inf
        lists_UK[users], scores_UK[users] = top_k(masked_BN, k)
    return ranked_lists(
        lists_UK, judging.targets, item_counts=judging.item_counts, scores=scores_UK, histories=judging.histories
    )


def settings(metrics: Sequence[str]) -> EvaluateParams:
    """How published tables are judged: every item is always a candidate. The first metric chooses models."""
    ks = sorted({int(metric.partition("@")[2]) for metric in metrics})
    return EvaluateParams(k=ks, metric=metrics[0], catalogue="all")


def interactions(users: Sequence[str], items: Sequence[str]) -> Interactions:
    """Positives [E] of a log that has an order and no times, in the order given."""
    frame = pl.DataFrame({"user_id": users, "item_id": items}, schema={"user_id": pl.String, "item_id": pl.String})
    return make_interactions(
        frame.with_columns(
            timestamp=pl.lit(None, pl.Datetime("us", "UTC")),
            value=pl.lit(None, pl.Float32),
            weight=pl.lit(1.0, pl.Float32),
            signal=pl.lit("positive"),
        )
    )


def judging(
    train: Interactions,
    user_ids: list[str],
    histories: list[np.ndarray],
    targets: list[np.ndarray],
    metrics: Sequence[str],
    remove_seen: bool = True,
) -> Judging:
    """U users judged by the whole catalogue of `train`. Targets of row 0 were never trained on and count as misses."""
    counts = np.bincount(train.item_idx, minlength=train.num_items + 1)
    return Judging(
        user_ids=user_ids,
        histories=histories,
        targets=targets,
        item_counts=counts,
        fallback=counts.astype(np.float32),
        settings=settings(metrics),
        remove_seen=remove_seen,
        users=train.users.to_idx(user_ids).astype(np.int64),
    )


def leave_last_out(
    name: str, sequences: Mapping[str, Sequence[str]], metrics: tuple[str, ...] = ("ndcg@10", "hit_rate@10")
) -> Task:
    """The last item of each user is the test, the one before it the validation, the rest trains.

    `sequences`: item ids of each user, oldest first. Users with fewer than three train and are not judged. The
    catalogue is what was trained on; items of the history are no candidates; at test it holds the validation item.
    Users stand in the order of the length of their history, so that little of a batch is padding.
    """
    judged = [user for user, items in sequences.items() if len(items) > 2]
    kept = {user: items[:-2] if len(items) > 2 else items for user, items in sequences.items()}
    train = interactions(
        [user for user, items in kept.items() for _ in items], [item for items in kept.values() for item in items]
    )
    judged.sort(key=lambda user: (len(sequences[user]), user))
    rows = train.users.to_idx(judged)
    valid_idx = train.items.to_idx([sequences[user][-2] for user in judged])
    test_idx = train.items.to_idx([sequences[user][-1] for user in judged])
    before = [train.history(row) for row in rows]
    at_test = [np.append(history, item) if item else history for history, item in zip(before, valid_idx, strict=True)]
    return Task(
        name=name,
        train=train,
        valid=judging(train, judged, before, list(valid_idx[:, None]), metrics),
        test=judging(train, judged, at_test, list(test_idx[:, None]), metrics),
        metrics=metrics,
    )
