"""Fits the chosen model again on everything up to now, as it is released (DESIGN section 7).

What was learnt from validation is kept: the epoch that was best, and the weights of an ensemble. Nothing of the new fit
is judged, since there is nothing left that it has not seen: the metrics of a release stay those of the evaluated fit.
"""

import json
import shutil

import polars as pl
from safetensors.numpy import load_file

from recops.data.dislikes import without_turned_down
from recops.data.interactions import Interactions, make_interactions, with_facts
from recops.data.split import recent, with_signal
from recops.errors import RefusedError, TooLargeError
from recops.protocols import Recommender
from recops.stages.project import Project
from recops.stages.train import unfitted_model
from recops.training.distributed import fit_by_workers


def whole_log(project: Project) -> Interactions:
    """Every positive of the log (of its last `split.window_days`), whatever part it lies in."""
    path = project.tables / "events.parquet"
    events = pl.read_parquet(path, columns=["user_id", "item_id", "timestamp", "event", "value"])
    params = project.params
    events, kinds = recent(events, params.split.window_days, path), params.kinds
    whole = make_interactions(without_turned_down(with_signal(events, kinds, path), kinds, is_past=True))
    return with_facts(whole, project.tables / "items.parquet", project.encoded)


def refit(project: Project, name: str) -> tuple[Recommender, Interactions]:
    """The model that the stage `train` fitted, fitted again, and what on. Goes on from its checkpoint when killed."""
    whole = whole_log(project)
    model = _fit_again(project, name, whole)
    shutil.rmtree(project.state / "refit", ignore_errors=True)
    return model, whole


def _fit_again(project: Project, name: str, whole: Interactions) -> Recommender:
    params, folder = project.params, project.model / name
    model = unfitted_model(folder, whole, params.train.seed)
    if hasattr(model, "attach"):
        state = load_file(folder / "state.safetensors")
        known = [member for member in model.config.members if (project.model / member).is_dir()]
        members = {}
        for member in known:
            try:
                members[member] = _fit_again(project, member, whole).parts()
            except (TooLargeError, RefusedError) as error:
                print(f"{name}: released without {member}: {error}")
        weights = state["weights"][:, [known.index(member) for member in members]]
        if not members or not weights.any(1).all():
            raise RefusedError(f"{name}: none of the members that have any weight could be fitted on the whole log")
        model.attach(members, whole)
        model.load_state({**state, "weights": weights})
        return model
    best_epoch = json.loads((folder / "fit.json").read_text(encoding="utf-8"))["best_epoch"]
    fit_by_workers(
        model,
        whole,
        None,
        workers=params.train.workers,
        launcher=params.train.launcher,
        folder=project.state / "refit" / name,
        progress=True,
        seed=params.train.seed,
        threads=params.train.threads,
        judged_by=f"refit {best_epoch}",
        last_epoch=best_epoch,
        compiled=params.train.compile,
    )
    return model
