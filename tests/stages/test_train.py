"""Making a model from the settings."""

import polars as pl
import pytest

from recops.data.interactions import SPLIT_COLUMNS, make_interactions
from recops.errors import CallError, RefusedError
from recops.params import TrainParams
from recops.stages.project import Project
from recops.stages.train import fit, fitted_models, load_model, make_model, save_model, validation_users
from recops.stages.train import train as train_stage


@pytest.fixture
def train():
    row = {"user_id": "u", "item_id": "i", "timestamp": 0, "event": "click", "value": None}
    frame = pl.DataFrame([{**row, "signal": "positive", "weight": 1.0}]).select(SPLIT_COLUMNS)
    return make_interactions(frame.with_columns(pl.col("value").cast(pl.Float32)))


@pytest.mark.parametrize(
    ("settings", "remove_seen", "learns"),
    [
        ({}, True, False),
        ({}, False, True),
        ({"learn_repeats": True}, True, True),
        ({"learn_repeats": False}, False, False),
    ],
)
def test_repeats_are_learnt_where_they_may_be_shown(train, settings, remove_seen, learns):
    model = make_model("sasrec", train, TrainParams(models={"sasrec": settings}), remove_seen)
    assert model.config.learn_repeats is learns


def test_a_wrong_hyper_parameter_is_named(train):
    with pytest.raises(CallError, match=r"train\.models\.ease\.lambda"):
        make_model("ease", train, TrainParams(models={"ease": {"lambda": 1}}), True)


def test_one_model_under_two_names(train):
    params = TrainParams(models={"first": {"model": "ease", "regularization": 1}, "ease": {"regularization": 2}})
    first, second = (make_model(name, train, params, True) for name in ("first", "ease"))
    assert type(first) is type(second) and (first.config.regularization, second.config.regularization) == (1, 2)
    with pytest.raises(CallError, match="no models named 'third'"):
        make_model("third", train, params, True)


def test_members_are_fitted_once_saved_and_loaded_under_their_names(train, tmp_path):
    settings = {"a": {"model": "item_knn", "shrinkage": 1}, "fusion": {"members": ["a", "item_knn"]}}
    params, fitted = TrainParams(models=settings), {}
    for name in ("item_knn", "fusion"):
        fit(name, train, params, None, "ndcg@10", fitted=fitted)
    assert list(fitted) == ["item_knn", "a", "fusion"]
    for name, (model, report) in fitted.items():
        save_model(model, report, tmp_path / name)
    again = load_model(tmp_path / "fusion", train, 1)
    assert [name for name, _ in again.parts().members] == ["a", "item_knn"]
    assert load_model(tmp_path / "a", train, 1).config.shrinkage == 1


@pytest.mark.parametrize(("ranks", "learnt_from"), [([2, 1], [[1, 0]]), ([None, None], None)])
def test_impressions_are_read_where_a_model_learns_from_them(train, tmp_path, ranks, learnt_from):
    project = Project(tmp_path)
    for folder in (project.tables, project.split):
        folder.mkdir(parents=True)
    project.params_file.write_text("train: {model: rerank}\n")
    times = pl.Series([1, 1, 2], dtype=pl.Int64).cast(pl.Datetime("us", "UTC"))
    rows = {"user_id": ["u"] * 3, "item_id": ["new", "i", "i"], "event": ["impression"] * 2 + ["click"]}
    events = pl.DataFrame({**rows, "timestamp": times, "request_id": ["r"] * 3, "rank": [*ranks, None]}).with_columns(
        pl.col("rank").cast(pl.Int32), value=pl.lit(None, pl.Float32), session_id=pl.lit(None, pl.String)
    )
    events.write_parquet(project.tables / "events.parquet")
    target = events[2:].with_columns(signal=pl.lit("positive"), weight=pl.lit(1.0))
    target.select(SPLIT_COLUMNS).write_parquet(project.split / "valid.parquet")
    events.group_by("item_id").agg(pl.col("timestamp").min()).write_parquet(project.split / "first_seen.parquet")
    assert validation_users(project, train, TrainParams(), ["rerank"]).impressions is None
    params = TrainParams(models={"rerank": {"learn_from": "impressions"}})
    if learnt_from is None:
        with pytest.raises(CallError, match=r"events\.parquet: .*column rank"):
            validation_users(project, train, params, ["rerank"])
    else:
        shown = validation_users(project, train, params, ["rerank"]).impressions
        assert shown is not None and shown.rows.tolist() == learnt_from and shown.position.tolist() == [[1, 0]]


def test_a_member_that_cannot_be_fitted_is_left_out_and_named(train):
    """The log has one item, which `ease` is told to find too many, and no user with two events for `sasrec`."""
    settings = {"ease": {"max_items": 1}, "fusion": {"members": ["ease", "sasrec", "item_knn"]}}
    row = {"user_id": "v", "item_id": "j", "timestamp": 1, "event": "click", "value": None}
    frame = pl.DataFrame(
        [{**row, "item_id": item, "user_id": item, "signal": "positive", "weight": 1.0} for item in "ab"]
    )
    two = make_interactions(frame.select(SPLIT_COLUMNS).with_columns(pl.col("value").cast(pl.Float32)))
    model, report = fit("fusion", two, TrainParams(models=settings), None, "ndcg@10")
    assert set(report.left_out) == {"ease", "sasrec"} and "max_items" in report.left_out["ease"]
    assert [name for name, _ in model.parts().members] == ["item_knn"]
    with pytest.raises(RefusedError, match="sasrec: nothing to train on"):
        only = {"fusion": {"members": ["sasrec"]}}
        fit("fusion", two, TrainParams(models=only), None, "ndcg@10")


def test_an_ensemble_is_no_member_under_whatever_name(train):
    params = TrainParams(models={"inner": {"model": "fusion"}, "fusion": {"members": ["inner"]}})
    with pytest.raises(CallError, match="the member inner is an ensemble itself"):
        fit("fusion", train, params, None, "ndcg@10")


def test_what_an_earlier_call_left_is_no_member(tmp_path):
    """Without DVC, which deletes what a stage wrote before: the first call fits `ease`, the second leaves it out."""
    project = Project(tmp_path)
    for folder in (project.tables, project.split):
        folder.mkdir(parents=True)
    events = [("u", "a", 1), ("u", "b", 2), ("v", "b", 3), ("v", "a", 4)]
    frame = pl.DataFrame(events, schema=["user_id", "item_id", "timestamp"], orient="row").with_columns(
        pl.col("timestamp").cast(pl.Datetime("us", "UTC")),
        event=pl.lit("click"),
        value=pl.lit(None, pl.Float32),
        signal=pl.lit("positive"),
        weight=pl.lit(1.0),
    )
    for part in ("train", "valid"):
        frame.select(SPLIT_COLUMNS).filter(pl.lit(part == "train")).write_parquet(project.split / f"{part}.parquet")
    frame.group_by("item_id").agg(pl.col("timestamp").min()).write_parquet(project.split / "first_seen.parquet")
    for max_items in (2, 1):
        project.params_file.write_text(
            "train: {model: fusion, baselines: [], "
            f"models: {{ease: {{max_items: {max_items}}}, fusion: {{members: [ease, item_knn]}}}}}}\n"
        )
        train_stage(Project(tmp_path))
    assert fitted_models(Project(tmp_path)) == ["fusion", "item_knn"]
    again = load_model(project.model / "fusion", make_interactions(frame), 42)
    assert [name for name, _ in again.parts().members] == ["item_knn"]
