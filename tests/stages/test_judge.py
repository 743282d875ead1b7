"""On which events candidate and champion are judged; worked by hand with two users and three items."""

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from recops.bundle import Pointer, write_pointer
from recops.data.interactions import read_interactions
from recops.models.most_popular import MostPopular
from recops.protocols import FitReport, ServingParts
from recops.release.export import export_bundle
from recops.stages import judge
from recops.stages.project import Project, open_project
from recops.stages.promote import decide
from recops.stages.train import save_model
from tests.release.small_bundles import facts, items


def day(number: int) -> datetime:
    return datetime(2024, 1, number, tzinfo=UTC)


def part(project: Project, name: str, *rows: tuple[str, str, int | None]) -> None:
    """Rows of user, item and day of January; one more, negative, that must not count."""
    columns = {
        "user_id": [user for user, _, _ in rows] + ["x"],
        "item_id": [item for _, item, _ in rows] + ["c"],
        "timestamp": [None if at is None else day(at) for _, _, at in rows] + [None],
        "signal": ["positive"] * len(rows) + ["negative"],
        "event": "click",
        "value": None,
        "weight": 1.0,
    }
    schema = {"timestamp": pl.Datetime("us", "UTC"), "value": pl.Float32, "weight": pl.Float32}
    project.split.mkdir(parents=True, exist_ok=True)
    pl.DataFrame(columns, schema_overrides=schema).write_parquet(project.split / f"{name}.parquet")


def bundle(
    folder: Path,
    scores: tuple[float, ...],
    train: str,
    until: int | None,
    refit: bool = False,
    model: str = "most_popular",
) -> None:
    """Recommends a, b, c by their scores; fitted on the train part of that hash, which ends on that day."""
    item_scores = np.array([0, *scores], np.float32)
    inputs = {"train.parquet": train, "valid.parquet": "same"}
    more = {"inputs": inputs, "fitted_until": None if until is None else day(until).isoformat(), "model": model}
    if refit:
        more |= {"refit": True, "evaluated_until": day(4).isoformat()}
    parts = ServingParts(item_scores=item_scores, needs_history=False)
    given = facts(**more)
    export_bundle(
        parts, folder, items=items("a", "b", "c"), fallback=item_scores, profile={}, facts=given, opset=20, max_links=1
    )


@pytest.fixture
def project(tmp_path: Path) -> Project:
    """u had a, then b, then c; v had b, then a, and c on the tenth."""
    params = "evaluate: {metric: ndcg@10, k: [10], catalogue: all}\ngate: {min_users: 1}\n"
    (tmp_path / "params.yaml").write_text(params)
    project = open_project(tmp_path)
    part(project, "train", ("u", "a", 1), ("v", "b", 2))
    part(project, "valid", ("u", "b", 3), ("v", "a", 4))
    part(project, "test", ("u", "c", 5), ("v", "c", 10))
    seen = {"item_id": ["a", "b", "c"], "timestamp": [day(1), day(2), day(5)]}
    pl.DataFrame(seen).write_parquet(project.split / "first_seen.parquet")
    return project


def compare(project: Project, champion_train: str, champion_until: int | None, until: int | None = 4) -> Any:
    bundle(project.bundle, (1, 2, 3), "new", until)
    bundle(project.releases / "main" / "old", (3, 2, 1), champion_train, champion_until)
    return judge.judge_both(project, "old")


def test_the_users_of_the_test_part(project: Project) -> None:
    users = judge.test_users(project)
    assert users["histories"] == {"u": ["a", "b"], "v": ["b", "a"]}
    assert users["targets"] == {"u": ["c"], "v": ["c"]}
    assert users["item_counts"] == {"a": 1, "b": 1}
    assert judge.test_users(project, after=day(5))["targets"] == {"v": ["c"]}


def test_before_the_first_release_nobody_is_compared_with(project: Project) -> None:
    bundle(project.bundle, (1, 2, 3), "new", 4)
    candidate, champion = judge.judge_both(project, None)
    assert champion is None
    assert candidate.values.tolist() == [1.0, 1.0]  # c is all that is left, and was next


def test_the_same_train_part_has_the_same_test_part(project: Project) -> None:
    candidate, champion = compare(project, "new", 4)
    assert candidate.user_ids == champion.user_ids == ["u", "v"]


def test_another_train_part_is_judged_on_what_came_after_both(project: Project) -> None:
    candidate, champion = compare(project, "other", 6)
    assert candidate.user_ids == champion.user_ids == ["v"]


@pytest.mark.parametrize(("champion_until", "until"), [(11, 4), (None, None), (4, None)])
def test_with_nothing_later_the_recipe_is_fitted_anew(
    project: Project, monkeypatch: pytest.MonkeyPatch, champion_until: int | None, until: int | None
) -> None:
    fitted = []
    monkeypatch.setattr(judge, "judge_recipe", lambda project, champion, users: fitted.append((champion, users)))
    candidate, _ = compare(project, "other", champion_until, until)
    assert candidate.user_ids == ["u", "v"]
    assert [(champion, list(users["targets"])) for champion, users in fitted] == [("old", ["u", "v"])]


def test_a_candidate_that_has_seen_the_test_part_is_judged_by_its_evaluated_fit(project: Project) -> None:
    """The bundle puts c first, which was next; the fit on the train part knows a and b alone."""
    bundle(project.bundle, (1, 2, 3), "new", 10, refit=True)
    train = read_interactions(project.split / "train.parquet")
    model = MostPopular(MostPopular.Config(), train.num_users, train.num_items, 1)
    model.fit(train)
    save_model(model, FitReport(), project.model / "most_popular")
    candidate, _ = judge.judge_both(project, None)
    assert candidate.values.tolist() == [0.0, 0.0]


def test_a_champion_that_has_seen_the_test_part_is_not_judged_on_it(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither where both have the same train part, nor where the candidate's evaluated fit ends earlier."""
    fitted = []
    monkeypatch.setattr(judge, "judge_recipe", lambda project, champion, users: fitted.append(list(users["targets"])))
    bundle(project.bundle, (1, 2, 3), "new", 4)
    bundle(project.releases / "main" / "old", (3, 2, 1), "new", 10, refit=True)
    judge.judge_both(project, "old")
    assert fitted == [["u", "v"]]
    # One that was fitted on everything until the sixth is judged on what came after.
    bundle(project.releases / "main" / "old", (3, 2, 1), "new", 6, refit=True)
    candidate, champion = judge.judge_both(project, "old")
    assert candidate.user_ids == champion.user_ids == ["v"] and len(fitted) == 1


@pytest.mark.parametrize(
    ("recipe", "reason"),
    [
        ("train: {models: {ease: {max_items: 1}}}\n", "max_items"),
        ("train: {gone_since: 1}\n", "params.train.gone_since"),  # written by a version that had it
    ],
)
def test_a_champion_whose_recipe_cannot_be_fitted_any_more_is_for_a_person(
    project: Project, recipe: str, reason: str
) -> None:
    bundle(project.bundle, (1, 2, 3), "new", 4)
    bundle(project.releases / "main" / "old", (3, 2, 1), "other", 11, model="ease")
    (project.releases / "main" / "old.json").write_text(json.dumps({"params": recipe}))
    write_pointer(project.releases, Pointer("old"), expected=None)
    decision = decide(project)
    assert decision["verdict"] == "undecided"
    assert "recipe (ease) cannot be fitted on this data" in decision["reasons"][0]
    assert reason in decision["reasons"][0]
