"""What is fitted for the benchmark of new items, and chosen on their validation part.

In: `Prepared`. Out: `Parts` to judge on, and models as `Made`. Nothing here looks at a test part.
"""

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.cold_items.data import Prepared
from recops.data.interactions import Interactions, read_interactions
from recops.evaluation.bootstrap import paired_bootstrap
from recops.evaluation.judging import Judging, read_judging
from recops.evaluation.protocol import metric_values
from recops.models.fusion import Fusion
from recops.params import EvaluateParams, TrainParams
from recops.protocols import ServingParts
from recops.release.export import torch_scorer
from recops.runtime import Scorer
from recops.stages.train import fit
from recops.training.loop import new_model

METRICS = ("recall@10", "ndcg@10")
CHOICE = "ndcg@10"
SAMPLES = 1000  # of a bootstrap
MODELS: dict[str, dict[str, Any]] = {
    "spectral": {"num_factors": 128, "degree_exponent": 0.3},
    "two_tower": {"embedding_dim": 64, "epochs": 8, "max_history": 100},
    "ligr": {"embedding_dim": 64, "num_blocks": 1, "epochs": 8, "max_history": 100},
}
QUICK = {"embedding_dim": 16, "epochs": 2}
ID_DROPOUTS = (0.1, 0.5)
NEIGHBOURS = {"num_neighbors": (20, 50, 200), "power": (1.0, 3.0), "link_decay": (None, 5.0, 20.0)}
MAPS = {"content_sharpness": (1.0, 3.0), "content_ridge": (0.03, 0.3)}
WEIGHTS = (1.0, 1.25, 1.5, 2.0, 2.5, 3.0, 4.0)
MOST_LOSS = 0.01  # of the validation figures that a weight of new items may cost
VALIDATION_USERS = 1000


@dataclass(frozen=True)
class Parts:
    """Who is judged on what: of new items (`cold_*`), and of validation's `later_valid`, users with a history alone,
    since all others are served alike whatever the model."""

    train: Interactions
    cold_valid: Judging
    cold_test: Judging
    warm_valid: Judging
    warm_test: Judging
    later_valid: Judging
    later: Judging
    without_history: int

    @cached_property
    def new_valid(self) -> Judging:
        return among_new(self.cold_valid, self.train.num_items)


def read_parts(found: Prepared, max_users: int) -> Parts:
    items = found.project.tables / "items.parquet"
    train = read_interactions(found.cold / "train.parquet", items, found.project.encoded)

    def part(folder: Path, name: Any) -> Judging:
        users = min(max_users, VALIDATION_USERS) if name == "valid" else max_users
        settings = EvaluateParams(k=[10], metric=CHOICE, max_users=users)
        return read_judging(folder, name, train, settings, True, items)

    cold = part(found.cold, "test")
    return Parts(
        train=train,
        cold_valid=with_history(part(found.cold, "valid")),
        cold_test=with_history(cold),
        warm_valid=part(found.warm, "valid"),
        warm_test=part(found.warm, "test"),
        later_valid=with_history(part(found.later, "valid")),
        later=part(found.later, "test"),
        without_history=len(cold) - len(with_history(cold)),
    )


def among_new(judging: Judging, num_trained: int) -> Judging:
    """The same users, to whom the items trained on have not appeared yet, so that they are no candidates."""
    never = np.iinfo(np.int64).max
    first_seen = np.zeros_like(judging.item_counts) if judging.first_seen is None else judging.first_seen.copy()
    first_seen[1 : num_trained + 1] = never
    at_time = np.zeros(len(judging), np.int64) if judging.at_time is None else judging.at_time
    return replace(judging, first_seen=first_seen, at_time=at_time)


def with_history(judging: Judging) -> Judging:
    return judging.of(np.flatnonzero([len(history) > 0 for history in judging.histories]))


@dataclass(frozen=True)
class Made:
    """A fitted model and how good it is on the new items of validation, over the whole catalogue and among them."""

    model: Any
    parts: ServingParts
    settings: dict[str, Any]
    valid: float
    valid_new: float

    @cached_property
    def scorer(self) -> Scorer:
        return torch_scorer(self.parts)


def made(parts: Parts, model: Any, settings: Mapping[str, Any]) -> Made:
    found = model.parts()
    scorer = torch_scorer(found)
    valid, valid_new = parts.cold_valid.mean(scorer, CHOICE), parts.new_valid.mean(scorer, CHOICE)
    return Made(model, found, dict(settings), valid, valid_new)


def fitted(parts: Parts, model: str, settings: Mapping[str, Any]) -> Made:
    params = TrainParams(model=model, seed=1, threads=1, models={model: dict(settings)})
    steered_by = parts.warm_valid if model in MODELS else None
    return made(parts, fit(model, parts.train, params, steered_by, CHOICE)[0], settings)


def at_random(parts: Parts) -> Scorer:
    """Another list for each user: what one list for all would find depends on which items happen to lead it."""
    generator = np.random.default_rng(1)
    vectors = generator.standard_normal((len(parts.train.all_items) + 1, 32), np.float32)

    def draw(histories: np.ndarray) -> np.ndarray:
        return generator.standard_normal((len(histories), 32), np.float32)

    return Scorer(len(vectors) - 1, encode=draw, item_vectors=vectors)


def combinations(grid: Mapping[str, Sequence[Any]], quick: bool) -> list[dict[str, Any]]:
    kept = [values[:1] if quick else values for values in grid.values()]
    return [dict(zip(grid, chosen, strict=True)) for chosen in itertools.product(*kept)]


def nearest(parts: Parts, encoders: Sequence[str], quick: bool) -> tuple[Made, Made]:
    """Content k-NN with the settings that are best over the whole catalogue, and those best among new items."""
    found = [
        fitted(parts, "content_knn", {"content": list(encoders), **chosen})
        for chosen in combinations(NEIGHBOURS, quick)
    ]
    return max(found, key=lambda one: one.valid), max(found, key=lambda one: one.valid_new)


def with_content(parts: Parts, plain: Made, encoders: Sequence[str], quick: bool) -> Made:
    """A model that was fitted without content, with the map from content to vectors that is best on validation."""

    def mapped(**settings: Any) -> Made:
        config = {**plain.settings, "content": list(encoders), **settings}
        kind = type(plain.model)
        model = new_model(kind, kind.Config(**config), parts.train, seed=1)
        model.load_state(plain.model.state())
        return made(parts, model, config)

    def costs_little(one: Made) -> bool:
        (warm, plain_warm), (later, plain_later) = (
            [values_of(part, scorer)[CHOICE] for scorer in (one.scorer, plain.scorer)]
            for part in (parts.warm_valid, parts.later_valid)
        )
        is_kept = paired(warm, plain_warm)["low"] >= -MOST_LOSS * np.nanmean(plain_warm)
        return bool(is_kept and np.nanmean(later) >= (1 - MOST_LOSS) * np.nanmean(plain_later))

    found = max((mapped(**chosen) for chosen in combinations(MAPS, quick)), key=lambda one: one.valid_new)
    best = {key: found.settings[key] for key in MAPS}
    for weight in WEIGHTS[1 : 2 if quick else None]:
        heavier = mapped(**best, new_item_weight=weight)
        if heavier.valid > found.valid and costs_little(heavier):
            found = heavier
    return found


def trained_jointly(parts: Parts, model: str, encoders: Sequence[str], quick: bool) -> Made:
    """A network trained with its projection of content, with the id dropout that is best among new items."""
    settings = settings_of(model, quick) | {"content": list(encoders), "content_fit": "joint"}
    found = [fitted(parts, model, settings | chosen) for chosen in combinations({"id_dropout": ID_DROPOUTS}, quick)]
    return max(found, key=lambda one: one.valid_new)


def settings_of(model: str, quick: bool) -> dict[str, Any]:
    return MODELS[model] | {key: value for key, value in QUICK.items() if quick and key in MODELS[model]}


def fused(parts: Parts, members: Mapping[str, ServingParts]) -> tuple[Made, Made]:
    """Several models together, their weights from the new items of validation, over the whole catalogue and among new
    items; the figures there are cross-fitted."""
    scorers = {name: torch_scorer(part) for name, part in members.items()}

    def weighed(valid: Judging) -> Made:
        model = Fusion(Fusion.Config(members=list(members), edges=[]), 0, 0, seed=1)
        model.attach(members, parts.train)
        cross_fitted = model.blend(scorers, valid).best_metric
        found = model.parts()
        assert found.fusion is not None and cross_fitted is not None
        weights = zip((name for name, _ in found.members), found.fusion.weights[0].tolist(), strict=True)
        return Made(model, found, dict(weights), cross_fitted, cross_fitted)

    return weighed(parts.cold_valid), weighed(parts.new_valid)


def values_of(judging: Judging, scorer: Scorer) -> dict[str, np.ndarray]:
    ranked = judging.rank(scorer, 10)
    return {metric: metric_values(ranked, metric) for metric in METRICS}


def paired(own: np.ndarray, other: np.ndarray) -> dict[str, float]:
    return dict(zip(("difference", "low", "high"), paired_bootstrap(own, other, SAMPLES, seed=0), strict=True))


def random_lists(parts: Parts) -> Made:
    scorer = at_random(parts)
    valid, valid_new = parts.cold_valid.mean(scorer, CHOICE), parts.new_valid.mean(scorer, CHOICE)
    found = Made(None, ServingParts(), {}, valid, valid_new)
    found.__dict__["scorer"] = scorer  # has no parts
    return found
