"""Where ranking and rating differ for the stages: who is judged on what, what somebody unknown gets, and which models.

In: a project and its train part. Out: a `Judge`, which a stage asks alike; fallbacks for export and gate. Everything
else of a stage is the same for both tasks (`train.task`).
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Literal

import numpy as np

from recops import plugins
from recops.data.impressions import read_impressions
from recops.data.interactions import Interactions, read_interactions
from recops.errors import CallError
from recops.evaluation.judging import Judging, read_judging
from recops.evaluation.rating_judging import read_rated, read_rating_judging
from recops.evaluation.ratings import means_for_unknown
from recops.models.most_popular import MostPopular
from recops.params import Params, TrainParams, checked
from recops.protocols import Judge, Recommender
from recops.runtime import RatingScale
from recops.stages.project import Project


def task_of(kind: type[Recommender]) -> str:
    """`ranking` or `rating`: what the scores of a model are."""
    return getattr(kind, "task", "ranking")


def check_models(params: Params) -> None:
    """Raises CallError where the task is rating and `train.model` or a baseline ranks, naming those that can."""
    if params.train.task == "ranking":
        return
    known = plugins.names("models")
    able = ", ".join(name for name in known if task_of(plugins.load("models", name)) == "rating")
    keys = [("train.model", params.train.model), *(("train.baselines", name) for name in params.train.baselines)]
    for key, name in keys:
        kind = params.train.models.get(name, {}).get("model", name)
        if kind not in known or task_of(plugins.load("models", kind)) != "rating":
            raise CallError(f"{key}: {name} predicts no ratings, and train.task is rating; those that do are {able}")


def model_config(name: str, params: TrainParams, remove_seen: bool = True) -> tuple[type[Recommender], Any]:
    """The class of a model and its hyper-parameters from `train.models.<name>`. Raises CallError naming a wrong key.

    A key `model` there says which model the name stands for, so that one can be used twice with other settings; else
    it is the model of that name. A model that can learn repeats does so where seen items may be shown again, unless it
    is told otherwise.
    """
    settings = dict(params.models.get(name, {}))
    kind = plugins.load("models", settings.pop("model", name))
    if "learn_repeats" in kind.Config.model_fields:
        settings = {"learn_repeats": not remove_seen, **settings}
    return kind, checked(kind.Config, settings, f"train.models.{name}")


def read_train(project: Project) -> Interactions:
    """The train part. Raises CallError where the task is rating and a positive has no value."""
    path = project.split / "train.parquet"
    if project.params.train.task == "rating":
        read_rated(path)
    return read_interactions(path, project.tables / "items.parquet", project.encoded)


def read_part(project: Project, part: Literal["valid", "test"], train: Interactions, with_items: bool = False) -> Judge:
    """Who is judged on a part. `with_items` also reads the catalogue, for figures of variety (ranking only)."""
    params = project.params
    settings, remove_seen = params.evaluate, params.recommend.remove_seen
    if params.train.task == "rating":
        return read_rating_judging(project.split, part, train, settings, remove_seen)
    items = project.tables / "items.parquet" if with_items else None
    return read_judging(project.split, part, train, settings, remove_seen, items)


def validation_users(project: Project, train: Interactions, params: TrainParams, names: Sequence[str]) -> Judge:
    """Whom the models `names` are fitted to: with what these users were shown, where one of them learns from it."""
    valid = read_part(project, "valid", train)
    if not isinstance(valid, Judging) or not len(valid):
        return valid
    configs = [model_config(name, params, valid.remove_seen)[1] for name in names]
    if all(getattr(config, "learn_from", None) != "impressions" for config in configs):
        return valid
    part, events = project.split / "valid.parquet", project.tables / "events.parquet"
    shown = read_impressions(events, project.params.kinds, part, valid.user_ids, train.items)
    return replace(valid, impressions=shown)


def for_unknown(params: Params, train: Interactions, num_items: int) -> tuple[np.ndarray, RatingScale | None]:
    """What a model of `num_items` that was fitted on `train` is served with: float32 [N+1] scores for those that it
    cannot answer (what is popular, or the means of ratings), and the scale of ratings where it predicts them."""
    if params.train.task == "rating":
        return means_for_unknown(train)
    popular = MostPopular(MostPopular.Config(), train.num_users, train.num_items, params.train.seed)
    popular.fit(train)
    fallback = popular.parts().item_scores
    assert fallback is not None
    return np.pad(fallback, (0, num_items - train.num_items)), None


def best(values: dict[str, float], lower_is_better: bool, preferred: str) -> str:
    """The name of the best value; of equal ones the preferred, else the first. NaN is worse than all.

    >>> best({"a": 0.9, "b": 0.8, "c": 0.8}, True, "c"), best({"a": 0.9, "b": 0.8}, False, "b")
    ('c', 'a')
    """
    sign = -1 if lower_is_better else 1

    def rank(name: str) -> tuple[float, bool]:
        value = sign * values[name]
        return (-np.inf if np.isnan(value) else value, name == preferred)

    return max(values, key=rank)
