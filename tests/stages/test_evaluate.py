"""What is evaluated is what will be served: links cut as at export, and the served list for users without history."""

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path

import polars as pl
import pytest

from recops.bundle import load_bundle
from recops.data.interactions import read_interactions
from recops.data.split import split_events
from recops.errors import CallError
from recops.evaluation.judging import read_judging
from recops.signing import make_keys
from recops.stages.evaluate import evaluate
from recops.stages.export import export
from recops.stages.project import Project
from recops.stages.train import train
from tests.stages.conftest import made_up_log

PARAMS = """
train: {model: item_knn, baselines: [most_popular], threads: 1}
split: {name: global_time}
evaluate: {bootstrap_samples: 100, k: [10]}
export: {max_links: 3, parity_users: 5}
ingest: {events: {view: {signal: positive, weight: 0.1}, purchase: {signal: positive, weight: 5.0}}}
"""


@pytest.fixture
def project(tmp_path: Path) -> Project:
    """A project after `split`, in which items and users appear over time."""
    project = Project(tmp_path)
    project.params_file.write_text(PARAMS)
    project.tables.mkdir(parents=True)
    project.reports.mkdir()
    rows = made_up_log(num_events=1500, num_users=100, num_items=40)
    newcomers = [[f"new{n % 30}", f"i{n % 40:03d}", ""] for n in range(60)]
    start = datetime(2024, 1, 1, tzinfo=UTC)
    log = [(user, item, "purchase" if item.endswith("7") else "view") for user, item, _ in rows + newcomers]
    pl.DataFrame(log, schema=["user_id", "item_id", "event"], orient="row").with_columns(
        pl.Series("timestamp", [start + timedelta(minutes=n) for n in range(len(log))], dtype=pl.Datetime("us", "UTC")),
        pl.lit(None, dtype=pl.Float32).alias("value"),
    ).write_parquet(project.tables / "events.parquet")
    pl.DataFrame(
        schema={
            "item_id": pl.String,
            "title": pl.String,
            "categories": pl.List(pl.String),
            "price": pl.Float32,
            "available": pl.Boolean,
            "published_at": pl.Datetime("us", "UTC"),
        }
    ).write_parquet(project.tables / "items.parquet")
    counts = {
        "rows_read": len(log),
        "events": len(log),
        "rejected": 0,
        "rejected_by_reason": {},
        "items": 0,
        "users": 0,
    }
    (project.tables / "counts.json").write_text(json.dumps(counts))
    validation = {"ok": True, "stopped": [], "warned": [], "rules": [], "profile": {}, "results": []}
    (project.reports / "validation.json").write_text(json.dumps(validation))
    params = project.params
    split_events(project.tables / "events.parquet", project.split, params.split, params.ingest.events, True)
    return project


def test_the_figures_of_the_manifest_are_those_of_the_bundle(project: Project) -> None:
    project.params_file.write_text(PARAMS.replace("train: {", "train: {refit: false, "))
    project = Project(project.root)
    train(project)
    figures = evaluate(project)["models"]
    export(project)
    bundle = load_bundle(project.bundle)
    interactions = read_interactions(project.split / "train.parquet")
    judging = read_judging(
        project.split, "test", interactions, project.params.evaluate, True, project.tables / "items.parquet"
    )
    assert any(len(history) == 0 for history in judging.histories)
    assert judging.fallback.tolist() == pytest.approx(bundle.fallback.tolist(), rel=1e-5)
    name = bundle.manifest["model"]
    assert judging.evaluate(bundle.scorer)["metrics"] == figures[name]["metrics"]
    assert name == "item_knn"
    assert bundle.manifest["fitted_until"] == bundle.manifest["evaluated_until"] and not bundle.manifest["refit"]


def test_what_is_released_knows_everything_and_tells_the_figures_of_what_was_evaluated(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    train(project)
    figures = evaluate(project)["models"]
    public = make_keys(project.root / "key.pem")
    monkeypatch.setenv("RECOPS_SIGN_KEY", "key.pem")
    export(project)
    bundle = load_bundle(project.bundle, key=public)
    assert "sign_key" not in bundle.manifest["params"]["export"]  # whose file lies where is no part of a release
    monkeypatch.setenv("RECOPS_SIGN_KEY", "missing.pem")
    with pytest.raises(CallError, match=r"missing\.pem"):
        export(project)
    assert bundle.manifest["metrics"] == figures["item_knn"] and bundle.manifest["refit"]
    events = pl.read_parquet(project.tables / "events.parquet")
    assert bundle.items["item_id"] == sorted(events["item_id"].unique())
    weights = {"view": 0.1, "purchase": 5.0}
    total = (
        events.with_columns(weight=pl.col("event").replace_strict(weights)).group_by("item_id").agg(pl.sum("weight"))
    )
    expected = dict(total.iter_rows())
    assert dict(zip(bundle.items["item_id"], bundle.fallback[1:].tolist(), strict=True)) == pytest.approx(
        expected, rel=1e-4
    )
    newest = max(part["to"] for part in bundle.manifest["split"]["parts"].values())
    assert bundle.manifest["fitted_until"] == newest > bundle.manifest["evaluated_until"]
