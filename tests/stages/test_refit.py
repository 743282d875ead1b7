"""What is released is fitted on everything, along the path that was evaluated."""

import json

import numpy as np
import polars as pl
import pytest

from recops.data.interactions import make_interactions
from recops.models.sasrec import Sasrec
from recops.stages.project import Project, open_project
from recops.stages.refit import refit, whole_log
from recops.stages.train import fit, save_model
from recops.training.loop import fit_model

MODELS = """
train:
  threads: 1
  models:
    sasrec: {epochs: 4, embedding_dim: 8, max_history: 5, precision: float32}
    fusion: {members: [sasrec, item_knn]}
"""


@pytest.fixture
def project(tmp_path) -> Project:
    """Twelve users on a circle of ten items; the last event of each is a dislike."""
    (tmp_path / "params.yaml").write_text(MODELS)
    rows = [(f"u{user:02}", f"i{(user + step) % 10}", user * 100 + step) for user in range(12) for step in range(7)]
    frame = pl.DataFrame(rows, schema=["user_id", "item_id", "timestamp"], orient="row").with_columns(
        pl.col("timestamp").cast(pl.Int64).cast(pl.Datetime("us", "UTC")),
        event=pl.when(pl.col("timestamp") % 100 == 6).then(pl.lit("dislike")).otherwise(pl.lit("click")),
        value=pl.lit(None, pl.Float32),
    )
    project = open_project(tmp_path)
    project.tables.mkdir(parents=True)
    frame.write_parquet(project.tables / "events.parquet")
    return project


def train_part(project: Project):
    """All but the last positive of each user."""
    whole = pl.read_parquet(project.tables / "events.parquet").filter(pl.col("timestamp").cast(pl.Int64) % 100 < 5)
    return make_interactions(whole.with_columns(signal=pl.lit("positive"), weight=pl.lit(1.0, pl.Float32)))


def test_the_whole_log_is_every_positive(project: Project) -> None:
    whole = whole_log(project)
    assert len(whole) == 12 * 6 and whole.num_users == 12 and whole.num_items == 10
    assert whole.history(1).tolist() == [1, 2, 3, 4, 5, 6]


def test_the_whole_log_is_no_longer_than_the_window_of_the_split(project: Project) -> None:
    """Times are µs from 0 to 1106, the newest of the last user: in the last 500 µs are users 6 to 11, in part."""
    project.params_file.write_text(f"split: {{window_days: {500e-6 / 86400}}}\n" + MODELS)
    whole = whole_log(project)
    events = pl.read_parquet(project.tables / "events.parquet")
    late = events.filter((pl.col("event") == "click") & (pl.col("timestamp").cast(pl.Int64) > 606))
    assert len(whole) == len(late) == 5 * 6


def test_a_network_is_trained_to_the_epoch_that_was_best(project: Project) -> None:
    settings = project.params.train
    model, report = fit("sasrec", train_part(project), settings, None, "ndcg@10")
    report.best_epoch = 2
    save_model(model, report, project.model / "sasrec")
    again, whole = refit(project, "sasrec")
    expected = Sasrec(Sasrec.Config(**settings.models["sasrec"]), whole.num_users, whole.num_items, settings.seed)
    report = fit_model(expected, whole, None, seed=settings.seed, threads=1, last_epoch=2)
    assert len(report.epochs) == 2
    for name, value in expected.state().items():
        np.testing.assert_array_equal(again.state()[name], value)
    assert not (project.state / "refit").exists()


def test_an_ensemble_keeps_its_weights(project: Project) -> None:
    fitted: dict = {}
    model, _ = fit("fusion", train_part(project), project.params.train, None, "ndcg@10", fitted=fitted)
    model.load_state({"weights": np.array([[0.9, 0.1]], np.float32), "edges": np.zeros(0, np.int64)})
    for name, (one, about) in fitted.items():
        save_model(one, about, project.model / name)
    again, _ = refit(project, "fusion")
    parts = again.parts()
    np.testing.assert_allclose(parts.fusion.weights, [[0.9, 0.1]])
    assert [name for name, _ in parts.members] == ["sasrec", "item_knn"]
    before = dict(model.parts().members)["item_knn"].links
    assert len(dict(parts.members)["item_knn"].links[1]) > len(before[1]) or not np.array_equal(
        dict(parts.members)["item_knn"].links[2], before[2]
    )
    assert json.loads((project.model / "fusion" / "fit.json").read_text())["best_metric"] is None


def test_a_member_that_the_whole_log_is_too_large_for_is_released_without(project: Project) -> None:
    """The whole log has ten items, the train part nine."""
    settings = "fusion: {members: [ease, item_knn]}\n    ease: {max_items: 9}"
    project.params_file.write_text(MODELS.replace("fusion: {members: [sasrec, item_knn]}", settings))
    project = Project(project.root)
    part = pl.read_parquet(project.tables / "events.parquet").filter(pl.col("item_id") != "i9")
    train = make_interactions(part.with_columns(signal=pl.lit("positive"), weight=pl.lit(1.0, pl.Float32)))
    fitted: dict = {}
    fit("fusion", train, project.params.train, None, "ndcg@10", fitted=fitted)
    for name, (one, about) in fitted.items():
        save_model(one, about, project.model / name)
    again, _ = refit(project, "fusion")
    assert [name for name, _ in again.parts().members] == ["item_knn"]


def test_a_checkpoint_of_another_best_epoch_is_not_gone_on_from(project: Project) -> None:
    """What a killed refit left behind, which was to run longer."""
    settings = project.params.train
    model, report = fit("sasrec", train_part(project), settings, None, "ndcg@10")
    report.best_epoch = 1
    save_model(model, report, project.model / "sasrec")
    whole = whole_log(project)
    left = Sasrec(Sasrec.Config(**settings.models["sasrec"]), whole.num_users, whole.num_items, settings.seed)
    fit_model(
        left,
        whole,
        None,
        project.state / "refit" / "sasrec",
        seed=settings.seed,
        threads=1,
        judged_by="refit 3",
        last_epoch=3,
    )
    again, _ = refit(project, "sasrec")
    expected = Sasrec(Sasrec.Config(**settings.models["sasrec"]), whole.num_users, whole.num_items, settings.seed)
    fit_model(expected, whole, None, seed=settings.seed, threads=1, last_epoch=1)
    np.testing.assert_array_equal(again.state()["items.weight"], expected.state()["items.weight"])
