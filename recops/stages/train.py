"""Stage train: fits the model and its baselines on the train part; early stopping looks at the validation part.

Each model ends as `model/<name>/`: its state (safetensors), its config and its learning curve (JSON). Checkpoints lie
in the project's state folder, since DVC deletes a stage's outputs before it runs.
"""

import json
import shutil
from dataclasses import asdict
from pathlib import Path
from typing import Any

from safetensors.numpy import load_file, save_file

from recops import plugins
from recops.bundle import canonical_json, write_atomically
from recops.data.interactions import Interactions, read_interactions
from recops.errors import CallError
from recops.evaluation.judging import Judging, read_judging
from recops.params import TrainParams, checked
from recops.protocols import FitReport, Recommender
from recops.release.export import torch_scorer
from recops.stages.project import Project
from recops.training.loop import fit_model


def make_model(name: str, train: Interactions, params: TrainParams, remove_seen: bool) -> Recommender:
    """An unfitted model with its hyper-parameters from `train.models.<name>`. Raises CallError naming a wrong key.

    A model that can learn repeats does so where seen items may be shown again, unless it is told otherwise.
    """
    kind = plugins.load("models", name)
    settings = params.models.get(name, {})
    if "learn_repeats" in kind.Config.model_fields:
        settings = {"learn_repeats": not remove_seen, **settings}
    config = checked(kind.Config, settings, f"train.models.{name}")
    return kind(config, train.num_users, train.num_items, params.seed)


def fit(
    name: str,
    train: Interactions,
    params: TrainParams,
    valid: Judging | None,
    metric: str,
    checkpoints: Path | None = None,
    progress: bool = False,
) -> tuple[Recommender, FitReport]:
    """One fitted model; `valid` (validation users) steers early stopping of models trained by gradient."""
    model = make_model(name, train, params, valid is None or valid.remove_seen)

    def valid_metric(fitted: Recommender) -> float:
        assert valid is not None
        return valid.mean(torch_scorer(fitted.parts(), train.num_items), metric)

    report = fit_model(
        model,
        train,
        valid_metric if valid is not None and len(valid) else None,
        folder=checkpoints / name if checkpoints else None,
        progress=progress,
        seed=params.seed,
        threads=params.threads,
        judged_by="" if valid is None else f"{metric} {valid.fingerprint()}",
    )
    return model, report


def train(project: Project) -> dict[str, Any]:
    """Writes model/<name>/ for the model and each baseline. Returns the learning curves by model."""
    params = project.params
    if unknown := sorted(set(params.train.models) - set(plugins.names("models"))):
        raise CallError(f"train.models.{unknown[0]}: no such model; there are {', '.join(plugins.names('models'))}")
    interactions = read_interactions(project.split / "train.parquet")
    valid = read_judging(project.split, "valid", interactions, params.evaluate, params.recommend.remove_seen)
    reports = {}
    for name in dict.fromkeys([*params.train.baselines, params.train.model]):
        model, report = fit(
            name, interactions, params.train, valid, params.evaluate.metric, project.state / "checkpoints", True
        )
        save_model(model, report, project.model / name)
        reports[name] = asdict(report)
    shutil.rmtree(project.state / "checkpoints", ignore_errors=True)
    return reports


def save_model(model: Recommender, report: FitReport, folder: Path) -> None:
    """Writes the state and config of a fitted model. Durations stay out: the same fit gives the same bytes."""
    folder.mkdir(parents=True, exist_ok=True)
    save_file(dict(model.state()), folder / "state.safetensors")
    write_atomically(folder / "config.json", canonical_json(model.config.model_dump()))
    epochs = [{key: value for key, value in epoch.items() if key != "seconds"} for epoch in report.epochs]
    curve = {"epochs": epochs, "best_epoch": report.best_epoch, "best_metric": report.best_metric}
    write_atomically(folder / "fit.json", canonical_json(curve))


def load_model(name: str, folder: Path, train: Interactions, seed: int) -> Recommender:
    """The model that `save_model` wrote, fitted on the same train part."""
    kind = plugins.load("models", name)
    config = checked(kind.Config, json.loads((folder / "config.json").read_text(encoding="utf-8")), f"{folder}")
    model = kind(config, train.num_users, train.num_items, seed)
    model.load_state(load_file(folder / "state.safetensors"))
    return model
