"""Stage train: fits the model and its baselines on the train part; early stopping looks at the validation part.

Each model ends as `model/<name>/`: its state (safetensors), its config and its learning curve (JSON). Checkpoints lie
in the project's state folder, since DVC deletes a stage's outputs before it runs.
"""

import json
import shutil
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from safetensors.numpy import load_file, save_file

from recops import plugins
from recops.bundle import canonical_json, write_atomically
from recops.data.interactions import Interactions
from recops.errors import CallError, RefusedError, TooLargeError
from recops.evaluation.judging import Judging
from recops.params import TrainParams, checked
from recops.protocols import EnsembleRecommender, FitReport, Judge, Recommender
from recops.release.export import torch_scorer
from recops.stages.project import Project
from recops.stages.task import check_models, model_config, read_train, validation_users
from recops.training.distributed import fit_by_workers
from recops.training.loop import new_model


def make_model(name: str, train: Interactions, params: TrainParams, remove_seen: bool) -> Recommender:
    """An unfitted model with the settings of `model_config`."""
    kind, config = model_config(name, params, remove_seen)
    return new_model(kind, config, train, params.seed)


@dataclass(frozen=True)
class _ValidMetric:
    """How good a model is on the validation users; no closure, so that it can be sent to a worker."""

    valid: Judge
    metric: str

    def __call__(self, fitted: Recommender) -> float:
        return self.valid.mean(torch_scorer(fitted.parts()), self.metric)


def fit(
    name: str,
    train: Interactions,
    params: TrainParams,
    valid: Judge | None,
    metric: str,
    checkpoints: Path | None = None,
    progress: bool = False,
    fitted: dict[str, tuple[Recommender, FitReport]] | None = None,
) -> tuple[Recommender, FitReport]:
    """One fitted model; `valid` (validation users) steers early stopping of models trained by gradient, and the weights
    of an ensemble. What was fitted is kept in `fitted` by name, and what stands there is not fitted again."""
    fitted = {} if fitted is None else fitted
    if name in fitted:
        return fitted[name]
    model = make_model(name, train, params, valid is None or valid.remove_seen)
    if hasattr(model, "blend"):
        report = _fit_ensemble(model, train, params, valid, metric, checkpoints, progress, fitted)  # type: ignore[arg-type]
    else:
        report = fit_by_workers(
            model,
            train,
            _ValidMetric(valid, metric) if valid is not None and len(valid) else None,
            workers=params.workers,
            launcher=params.launcher,
            folder=checkpoints / name if checkpoints else None,
            progress=progress,
            seed=params.seed,
            threads=params.threads,
            judged_by="" if valid is None else f"{metric} {valid.fingerprint()}",
            lower_is_better=valid is not None and valid.lower_is_better,
            compiled=params.compile,
        )
    fitted[name] = (model, report)
    return model, report


def _fit_ensemble(
    model: EnsembleRecommender,
    train: Interactions,
    params: TrainParams,
    valid: Judge | None,
    metric: str,
    checkpoints: Path | None,
    progress: bool,
    fitted: dict[str, tuple[Recommender, FitReport]],
) -> FitReport:
    """Fits the members, then what weighs them. A member that cannot be fitted on this data is left out."""
    members, left_out = {}, {}
    for member in model.config.members:
        if hasattr(model_config(member, params)[0], "blend"):
            raise CallError(f"train.models: the member {member} is an ensemble itself; name what it is made of")
        try:
            members[member] = fit(member, train, params, valid, metric, checkpoints, progress, fitted)[0].parts()
        except (TooLargeError, RefusedError) as error:
            left_out[member] = str(error)
    if not members:
        raise RefusedError("; ".join(f"{member}: {reason}" for member, reason in left_out.items()))
    model.attach(members, train)
    report = FitReport()
    if valid is not None and len(valid):
        assert isinstance(valid, Judging), "an ensemble ranks"
        report = model.blend({n: torch_scorer(part) for n, part in members.items()}, valid)
    report.left_out = left_out
    return report


def train(project: Project) -> dict[str, Any]:
    """Writes model/<name>/ for the model, its members if it has any, and each baseline. Returns the learning curves."""
    params = project.params
    known = plugins.names("models")
    for name, settings in params.train.models.items():
        if settings.get("model", name) not in known:
            raise CallError(
                f"train.models.{name}: no such model; there are {', '.join(known)}; "
                "a name of your own needs a key `model` that names one of them"
            )
    check_models(params)
    interactions = read_train(project)
    names = list(dict.fromkeys([*params.train.baselines, params.train.model]))
    valid = validation_users(project, interactions, params.train, names)
    checkpoints = project.state / "checkpoints"
    fitted: dict[str, tuple[Recommender, FitReport]] = {}
    for name in names:
        fit(name, interactions, params.train, valid, params.evaluate.metric, checkpoints, True, fitted)
    # What an earlier call left, where DVC did not delete it, would be loaded as a member that was left out now.
    shutil.rmtree(project.model, ignore_errors=True)
    for name, (model, report) in fitted.items():
        save_model(model, report, project.model / name)
        for member, reason in report.left_out.items():
            print(f"{name}: without {member}: {reason}")
        if report.note:
            print(f"{name}: {report.note}")
    shutil.rmtree(checkpoints, ignore_errors=True)
    return {name: asdict(report) for name, (_, report) in fitted.items()}


def save_model(model: Recommender, report: FitReport, folder: Path) -> None:
    """Writes the state and config of a fitted model. Durations stay out: the same fit gives the same bytes."""
    folder.mkdir(parents=True, exist_ok=True)
    save_file(dict(model.state()), folder / "state.safetensors")
    kind = type(model).__module__.rpartition(".")[2]
    write_atomically(folder / "config.json", canonical_json({"model": kind, **model.config.model_dump()}))
    epochs = [{key: value for key, value in epoch.items() if key != "seconds"} for epoch in report.epochs]
    curve: dict[str, Any] = {"epochs": epochs, "best_epoch": report.best_epoch, "best_metric": report.best_metric}
    for key in ("left_out", "figures", "note"):
        if getattr(report, key):
            curve[key] = getattr(report, key)
    write_atomically(folder / "fit.json", canonical_json(curve))


def fitted_models(project: Project) -> list[str]:
    """Names of the models that the stage fitted: the configured one first, then its members, then the baselines."""
    found = sorted(folder.name for folder in project.model.iterdir() if folder.is_dir())
    train = project.params.train
    return sorted(found, key=lambda name: (name != train.model, name in train.baselines))


def unfitted_model(folder: Path, train: Interactions, seed: int) -> Recommender:
    """A new model with the settings of the one that `save_model` wrote, and what that one settled while fitting."""
    settings = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    kind = plugins.load("models", settings.pop("model"))
    return new_model(kind, checked(kind.Config, settings, f"{folder}"), train, seed)


def load_model(folder: Path, train: Interactions, seed: int) -> Recommender:
    """The model that `save_model` wrote, fitted on the same train part; members lie in folders beside it."""
    model = unfitted_model(folder, train, seed)
    if hasattr(model, "attach"):
        fitted = [member for member in model.config.members if (folder.parent / member).is_dir()]
        model.attach({m: load_model(folder.parent / m, train, seed).parts() for m in fitted}, train)
    model.load_state(load_file(folder / "state.safetensors"))
    return model
