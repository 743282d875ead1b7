"""Judges the bundle and the champion for the gate, on events that neither was fitted on (DESIGN section 7).

A bundle that was fitted again on everything (`train.refit`) is judged by its evaluated fit, which lies in model/, since
the bundle has seen the test part. Where both were fitted on the very same train and validation parts, the test part is
unseen by both. Else events later than everything either was fitted on judge them; where those are of too few users or
there are no times, the champion's recipe is fitted anew on the candidate's train part and judged in its place.
"""

from datetime import datetime
from typing import Any

import polars as pl
import yaml

from recops.bundle import Bundle, load_bundle, read_manifest, release_folder
from recops.data.interactions import Interactions
from recops.errors import RecopsError
from recops.evaluation.judging import CONTEXT, before_first, refused_items
from recops.params import Params, checked
from recops.protocols import Recommender
from recops.release.export import cut_links, torch_scorer
from recops.release.gate import Judged, judge_bundle, judge_ratings, judge_scorer
from recops.release.releases import read_record
from recops.stages.export import FITTED_ON
from recops.stages.project import Project
from recops.stages.task import for_unknown, read_train, validation_users
from recops.stages.train import fit, load_model


class IncomparableError(RecopsError):
    """Candidate and champion cannot be judged by the same figure; a person decides."""


def judge_both(project: Project, champion: str | None) -> tuple[Judged, Judged | None]:
    """Candidate and champion on the same users; None for the champion before the first release.

    Raises IncomparableError where their tasks differ, or the champion's recipe cannot be fitted on what there is now.
    """
    if reason := incomparable(project, champion):
        raise IncomparableError(reason)
    users = test_users(project)
    if champion is None:
        return judge_candidate(project, users), None
    folder = release_folder(project.releases, champion)
    manifest, own = read_manifest(folder), read_manifest(project.bundle)
    is_same = all(manifest["inputs"].get(name) == own["inputs"][name] for name in FITTED_ON)
    if is_same and not manifest.get("refit"):
        return judge_candidate(project, users), judge(project, load_bundle(folder), users)
    # What is judged of the candidate ends where its evaluated fit does.
    ends = moment(manifest["fitted_until"]), moment(own["evaluated_until" if own.get("refit") else "fitted_until"])
    if ends[0] is not None and ends[1] is not None:
        later = test_users(project, after=max(ends[0], ends[1]))
        if len(later["targets"]) >= project.params.gate.min_users:
            return judge_candidate(project, later), judge(project, load_bundle(folder), later)
    return judge_candidate(project, users), judge_recipe(project, champion, users)


def incomparable(project: Project, champion: str | None) -> str | None:
    """Why candidate and champion have no metric in common; None where they have."""
    if champion is None:
        return None
    tasks = [task_in(read_manifest(folder)) for folder in (project.bundle, release_folder(project.releases, champion))]
    if tasks[0] == tasks[1]:
        return None
    return (
        f"train.task is {tasks[0]} and the champion's was {tasks[1]}: they cannot be compared; a person may promote: "
        "recops promote candidate"
    )


def task_in(manifest: dict[str, Any]) -> str:
    """What the scores of a bundle are; one made before there were two tasks ranks."""
    return ((manifest.get("params") or {}).get("train") or {}).get("task", "ranking")


def moment(text: str | None) -> datetime | None:
    """The time that a manifest names; None for a log without times."""
    return datetime.fromisoformat(text) if text else None


def test_users(project: Project, after: datetime | None = None) -> dict[str, Any]:
    """Arguments of judge_bundle from the test part: by user id what came before and what came next.

    With `after` only targets later than that; a user's history then still ends before the first of them.
    """
    targets = part(project, "test")
    if after is not None:
        targets = targets.filter(pl.col("timestamp") > after)
    asked = targets.group_by("user_id").agg(first=pl.col("timestamp").cast(pl.Int64).min())
    earlier = pl.concat([part(project, "train"), part(project, "valid")])
    if (project.split / CONTEXT).exists():
        known = pl.concat([earlier, part(project, "context")]).join(asked, on="user_id")
        earlier = before_first(known).drop("first")
    timed = targets["timestamp"].null_count() == 0 and project.params.evaluate.catalogue == "at_time"
    grouped = targets.group_by("user_id", maintain_order=True).agg("item_id", pl.col("timestamp").cast(pl.Int64).max())
    first_seen = pl.read_parquet(project.split / "first_seen.parquet")
    histories = earlier.join(grouped.select("user_id"), on="user_id", how="semi").group_by(
        "user_id", maintain_order=True
    )
    past = list(histories.agg("item_id", pl.col("timestamp").cast(pl.Int64)).iter_rows())
    first: dict[str, int] = {}
    if earlier["timestamp"].null_count() == targets["timestamp"].null_count() == 0:
        first = dict(asked.iter_rows())
    counts = part(project, "train")["item_id"].value_counts()
    if project.params.train.task == "rating":
        rated = targets.group_by("user_id", maintain_order=True).agg("value")
        return {
            "histories": {user: items for user, items, _ in past},
            "targets": {user: items for user, items, _ in grouped.iter_rows()},
            "values": dict(rated.iter_rows()),
            "item_counts": dict(counts.iter_rows()),
        }
    return {
        "histories": {user: items for user, items, _ in past},
        "ages": {user: [(first[user] - at) // 1_000_000 for at in times] for user, _, times in past} if first else None,
        "asked_at": first or None,
        "targets": {user: items for user, items, _ in grouped.iter_rows()},
        "item_counts": dict(counts.iter_rows()),
        "first_seen": dict(first_seen.select("item_id", pl.col("timestamp").cast(pl.Int64)).iter_rows())
        if timed
        else None,
        "refused": refused_items(project.split, asked),
        "at_time": {user: time for user, _, time in grouped.iter_rows()} if timed else None,
    }


def part(project: Project, name: str) -> pl.DataFrame:
    """user_id, item_id, timestamp and value of the positives of one part, in the order of the log."""
    rows = pl.scan_parquet(project.split / f"{name}.parquet").filter(pl.col("signal") == "positive")
    return rows.select("user_id", "item_id", "timestamp", "value").collect()


def judge(project: Project, bundle: Bundle, users: dict[str, Any]) -> Judged:
    """A bundle on those users, by the metric of the settings."""
    params = project.params
    if params.train.task == "rating":
        return judge_ratings(bundle.scorer, bundle.items["item_id"], user_table=bundle.user_ids, **users)
    return judge_bundle(bundle, metric=params.evaluate.metric, remove_seen=params.recommend.remove_seen, **users)


def judge_candidate(project: Project, users: dict[str, Any]) -> Judged:
    """bundle/, or where that was fitted on everything the fit that was evaluated."""
    bundle = load_bundle(project.bundle)
    if not bundle.manifest.get("refit"):
        return judge(project, bundle, users)
    train = read_train(project)
    model = load_model(project.model / bundle.manifest["model"], train, project.params.train.seed)
    return _judge_model(project, model, train, project.params.export.max_links, users)


def judge_recipe(project: Project, champion: str, users: dict[str, Any]) -> Judged:
    """The champion's model and hyper-parameters, fitted on the candidate's train part. Raises IncomparableError where
    that is refused: the catalogue has outgrown the model, a log that it learns from is gone, or its parameters are none
    any more."""
    params = project.params
    settings = yaml.safe_load(read_record(project.releases, champion)["params"]) or {}
    name = read_manifest(release_folder(project.releases, champion))["model"]
    train = read_train(project)
    folder = project.state / "checkpoints" / "champion"
    try:
        recipe = checked(Params, settings, "params")
        valid = validation_users(project, train, recipe.train, [name])
        model, _ = fit(name, train, recipe.train, valid, params.evaluate.metric, folder)
    except RecopsError as error:
        raise IncomparableError(
            f"the champion's recipe ({name}) cannot be fitted on this data, so they cannot be compared: {error}; a "
            "person may promote: recops promote candidate"
        ) from error
    return _judge_model(project, model, train, recipe.export.max_links, users)


def _judge_model(
    project: Project, model: Recommender, train: Interactions, max_links: int, users: dict[str, Any]
) -> Judged:
    """A model fitted on the train part, as it would be served."""
    params = project.params
    parts = cut_links(model.parts(), max_links)
    fallback, ratings = for_unknown(params, train, parts.num_items)
    scorer = torch_scorer(parts, fallback, ratings)
    item_ids = train.all_items.ids[: parts.num_items]
    if ratings is not None:
        return judge_ratings(scorer, item_ids, user_table=train.users.ids, **users)
    return judge_scorer(
        scorer,
        item_ids,
        fallback,
        user_table=train.all_users.ids,
        metric=params.evaluate.metric,
        remove_seen=params.recommend.remove_seen,
        **users,
    )
