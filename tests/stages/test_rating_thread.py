"""`train.task: rating` from the split to the served release: what is judged is what is served."""

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from recops.bundle import Pointer, bundle_id, load_bundle, write_pointer
from recops.data.interactions import read_interactions
from recops.data.split import split_events
from recops.errors import CallError
from recops.evaluation.ratings import damped_means
from recops.histories import Histories
from recops.release import gate
from recops.serving.release import Release
from recops.serving.requests import Recommend, Score
from recops.serving.retrieval import recommend, score
from recops.stages import promote
from recops.stages.encode import encode
from recops.stages.evaluate import evaluate
from recops.stages.export import export
from recops.stages.judge import incomparable, judge_both
from recops.stages.project import Project
from recops.stages.train import train
from recops.stages.tune import tune

PARAMS = """
train:
  task: rating
  threads: 1
  refit: {refit}
  models:
    bayesian_factorization: {{embedding_dim: 2, num_features: 0, burn_in: 10, num_samples: 20, served_dim: 4}}
split: {{name: random, valid_fraction: 0.2, test_fraction: 0.2}}
evaluate: {{bootstrap_samples: 100}}
export: {{parity_users: 5}}
gate: {{min_users: 5, guard_min_users: 1000}}
ingest: {{events: {{rating: {{signal: positive}}}}}}
"""


def write_log(project: Project, values: np.ndarray, seed: int = 1) -> None:
    """What each user [U] gives most of the items [N], in an order drawn at random; one item is rated once."""
    generator = np.random.default_rng(seed)
    pairs = [pair for pair in np.ndindex(values.shape) if generator.random() < 0.8 and pair[1] < values.shape[1] - 1]
    pairs = [pairs[place] for place in generator.permutation(len(pairs))] + [(0, values.shape[1] - 1)]
    log = [(f"u{user:02}", f"i{item:02}", float(values[user, item])) for user, item in pairs]
    start = datetime(2024, 1, 1, tzinfo=UTC)
    times = [start + timedelta(minutes=n) for n in range(len(log))]
    pl.DataFrame(log, schema=["user_id", "item_id", "value"], orient="row").with_columns(
        pl.Series("timestamp", times, dtype=pl.Datetime("us", "UTC")),
        pl.lit("rating").alias("event"),
        pl.col("value").cast(pl.Float32),
    ).write_parquet(project.tables / "events.parquet")
    params = project.params
    split_events(project.tables / "events.parquet", project.split, params.split, params.ingest.events, True)


@pytest.fixture
def project(tmp_path: Path) -> Project:
    """Forty users of two tastes and thirty items, rated 1 to 5, divided at random."""
    project = Project(tmp_path)
    project.params_file.write_text(PARAMS.format(refit="false"))
    project.tables.mkdir(parents=True)
    project.reports.mkdir()
    project.state.mkdir()
    columns: dict[str, Any] = {"item_id": pl.String, "title": pl.String, "categories": pl.List(pl.String)}
    columns |= {"price": pl.Float32, "available": pl.Boolean, "published_at": pl.Datetime("us", "UTC")}
    pl.DataFrame(schema=columns).write_parquet(project.tables / "items.parquet")
    (project.tables / "counts.json").write_text("{}")
    (project.reports / "validation.json").write_text(json.dumps({"ok": True, "stopped": [], "warned": []}))
    taste_U, kind_N = np.arange(40) % 2 * 2 - 1, np.arange(30) % 2 * 2 - 1
    noise = 0.3 * np.random.default_rng(2).standard_normal((40, 30))
    write_log(project, np.clip(3 + 1.5 * taste_U[:, None] * kind_N + noise, 1, 5))
    return project


def test_the_thread_from_training_to_serving(project: Project) -> None:
    train(project)
    metrics = evaluate(project)
    # Taste is all there is, so that means know nothing; the chosen model is the one of lowest RMSE.
    assert metrics["chosen"] == "bayesian_factorization" and metrics["lower_is_better"]
    by_model, by_means = (metrics["models"][n]["metrics"]["rmse"] for n in ("bayesian_factorization", "rating_means"))
    assert by_model["low"] < by_model["value"] < by_model["high"] < 0.6 < by_means["low"]
    assert metrics["models"]["rating_means"]["valid"]["rmse"] > 1
    assert {"users:heavy", "items:head", "items:tail"} <= set(metrics["models"]["rating_means"]["segments"])
    assert "RMSE" in (project.reports / "index.html").read_text()

    export(project)
    bundle = load_bundle(project.bundle)
    release = Release(bundle, {})
    test = pl.read_parquet(project.split / "test.parquet")
    served = [
        score(release, Score.model_construct(user_id=user, item_ids=[item]), None)["scores"][0]["score"]
        for user, item in test.select("user_id", "item_id").iter_rows()
    ]
    error = np.array(served) - test["value"].to_numpy()
    assert np.sqrt((error**2).mean()) == pytest.approx(by_model["value"], abs=1e-5)
    judged, _ = judge_both(project, None)
    assert judged.lower_is_better and (judged.values >= 0).all()
    per_user = test.with_columns(square=pl.Series(error**2)).group_by("user_id").agg(pl.mean("square")).sort("user_id")
    np.testing.assert_allclose(judged.values, per_user["square"], atol=1e-4)

    mean, user_U, item_N = damped_means(read_interactions(project.split / "train.parquet"))
    found = score(release, Score.model_construct(user_id="u00", item_ids=["i00", "never seen"]), None)
    assert found["source"] == "model"
    assert found["scores"][1]["score"] is None
    asked, rows = Histories([np.empty(0, np.int64)], users=np.array([1])), np.array([0])
    assert release.bundle.scorer.predictions(asked, rows)[0] == pytest.approx([mean + user_U[1]], abs=1e-5)
    found = score(release, Score.model_construct(user_id="nobody", item_ids=["i00", "never seen"]), None)
    assert found["source"] == "fallback"
    assert found["scores"][0]["score"] == pytest.approx(mean + item_N[1], abs=1e-4)

    listed = recommend(release, Recommend.model_construct(user_id="u00", k=100), None)["items"]
    again = score(release, Score.model_construct(user_id="u00", item_ids=[i["item_id"] for i in listed]), None)
    assert [i["score"] for i in listed] == pytest.approx([i["score"] for i in again["scores"]], abs=1e-6)
    assert all(1 <= i["score"] <= 5 for i in listed)
    assert [i["score"] for i in listed] == sorted((i["score"] for i in listed), reverse=True)


def test_what_is_released_has_seen_everything_and_is_compared_by_its_error(project: Project) -> None:
    project.params_file.write_text(PARAMS.format(refit="true"))
    train(project)
    evaluate(project)
    export(project)
    assert "i29" in load_bundle(project.bundle).items["item_id"]
    champion = bundle_id(project.bundle)
    kept = project.releases / "main" / champion
    kept.parent.mkdir(parents=True)
    project.bundle.rename(kept)
    kept.with_name(f"{champion}.json").write_text(json.dumps({"params": project.params_file.read_text()}))

    project.params_file.write_text(PARAMS.format(refit="true").replace("  models:", "  model: rating_means\n  models:"))
    train(project)
    evaluate(project)
    metrics = json.loads((project.reports / "metrics.json").read_text())
    (project.reports / "metrics.json").write_text(json.dumps({**metrics, "chosen": "rating_means"}))
    export(project)
    assert incomparable(project, champion) is None
    candidate, opponent = judge_both(project, champion)
    decision = gate.decide(candidate, opponent, project.params.gate)
    assert decision.verdict == "keep" and "squared error" in decision.reasons[0] and "above" in decision.reasons[0]
    assert opponent is not None
    assert gate.decide(opponent, candidate, project.params.gate).verdict == "promote"


def test_users_known_by_attributes_alone_are_nobody_to_a_model_of_ratings(project: Project) -> None:
    project.params_file.write_text(PARAMS.format(refit="false") + "encode: {users: true}\n")
    plans = [json.dumps({"plan": "free" if n % 2 else "paid"}) for n in range(41)]
    users = {"user_id": [*(f"u{n:02}" for n in range(40)), "waiting"], "attributes": plans}
    pl.DataFrame(users).write_parquet(project.tables / "users.parquet")
    encode(project)
    train(project)
    evaluate(project)
    export(project)
    release = Release(load_bundle(project.bundle), {})
    asked = Score.model_construct(user_id="waiting", item_ids=["i00"])
    unknown = Score.model_construct(user_id="nobody", item_ids=["i00"])
    assert score(release, asked, None) == score(release, unknown, None)


def test_a_ranking_champion_cannot_be_compared(project: Project) -> None:
    ranking = PARAMS.format(refit="false").replace("task: rating", "task: ranking\n  model: item_knn\n  baselines: []")
    project.params_file.write_text(ranking)
    train(project)
    evaluate(project)
    export(project)
    champion = bundle_id(project.bundle)
    (project.releases / "main").mkdir(parents=True)
    project.bundle.rename(project.releases / "main" / champion)
    project.params_file.write_text(PARAMS.format(refit="false"))
    train(project)
    evaluate(project)
    export(project)
    write_pointer(project.releases, Pointer(champion), expected=None)
    decision = promote.decide(project)
    assert decision["verdict"] == "undecided" and promote.is_settled(decision, Pointer(champion))
    assert "rating and the champion's was ranking" in decision["reasons"][0]


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("threads: 1", "model: ease\n  threads: 1", "train.model: ease predicts no ratings.*bayesian_factorization"),
        ("threads: 1", "baselines: [most_popular]\n  threads: 1", "train.baselines: most_popular predicts no ratings"),
        ("signal: positive", "signal: positive, min_value: 4", r"ingest.events.rating.min_value: .*take the key out"),
        ("bootstrap_samples: 100", "metric: ndcg@10", "evaluate.metric: .*rmse or mae; found 'ndcg@10'"),
    ],
)
def test_settings_that_contradict_the_task(project: Project, old: str, new: str, message: str) -> None:
    project.params_file.write_text(PARAMS.format(refit="false").replace(old, new))
    with pytest.raises(CallError, match=message):
        train(project)


def test_events_without_values_are_counted(project: Project) -> None:
    path = project.split / "train.parquet"
    frame = pl.read_parquet(path)
    frame.with_columns(value=pl.when(pl.arange(pl.len()) < 3).then(None).otherwise("value")).write_parquet(path)
    with pytest.raises(CallError, match=rf"train.parquet: column value: 3 of {len(frame)} rows .*kinds: rating"):
        train(project)


def test_a_search_says_that_it_looks_at_rankings_alone(project: Project) -> None:
    with pytest.raises(CallError, match=r"train.task: .*ranking metrics alone"):
        tune(project, model=None, trials=1, budget_s=None, write=False, say=print)
