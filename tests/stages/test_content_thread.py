"""Content and attributes from the tables of items and users to the served release: a new item is judged, released and
recommended, and a new user is recommended to."""

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from recops.bundle import load_bundle
from recops.data.split import split_events
from recops.serving.explaining import explain
from recops.serving.online_items import OnlineItems
from recops.serving.release import Release
from recops.serving.requests import Recommend, Similar
from recops.serving.retrieval import recommend, similar
from recops.stages.encode import encode
from recops.stages.evaluate import evaluate
from recops.stages.export import export
from recops.stages.judge import judge_both
from recops.stages.project import Project
from recops.stages.train import train
from recops.store import open_store

PARAMS = """
train:
  model: fusion
  baselines: [most_popular, content_knn]
  threads: 1
  refit: {refit}
  models:
    fusion: {{members: [two_tower, ease], edges: []}}
    two_tower:
      {{content: [attributes], id_dropout: 0.3, embedding_dim: 8, epochs: 10, batch_size: 32, learning_rate: 0.02,
       user_attributes: true, history_dropout: 0.3}}
    content_knn: {{content: [attributes], num_neighbors: 5}}
encode: {{encoders: [attributes], users: true}}
split: {{name: cold_items, valid_fraction: 0.2, test_fraction: 0.3}}
evaluate: {{bootstrap_samples: 100}}
export: {{parity_users: 20}}
gate: {{min_users: 5, guard_min_users: 1000}}
ingest: {{events: {{click: {{signal: positive}}}}}}
"""
GROUPS, USERS, ITEMS = 3, 90, 18


@pytest.fixture
def project(tmp_path: Path) -> Project:
    """Users of one category each, and items that come one after the other; the last of each category has no event."""
    project = Project(tmp_path)
    project.params_file.write_text(PARAMS.format(refit="false"))
    for folder in (project.tables, project.reports, project.state):
        folder.mkdir(parents=True)
    generator = np.random.default_rng(3)
    start, rows = datetime(2024, 1, 1, tzinfo=UTC), []
    for hour in range(2400):
        user = int(generator.integers(USERS))
        newest = 6 + hour // 200
        rows.append((f"u{user:02}", f"i{int(generator.integers(newest // GROUPS)) * GROUPS + user % GROUPS:02}", hour))
    frame = pl.DataFrame(rows, schema=["user_id", "item_id", "hour"], orient="row").unique(
        ["user_id", "item_id"], keep="first", maintain_order=True
    )
    frame.select(
        "user_id",
        "item_id",
        timestamp=pl.Series([start + timedelta(hours=hour) for hour in frame["hour"]], dtype=pl.Datetime("us", "UTC")),
        event=pl.lit("click"),
        value=pl.lit(None, pl.Float32),
    ).write_parquet(project.tables / "events.parquet")
    ids = [f"i{item:02}" for item in range(ITEMS)] + [f"new{group}" for group in range(GROUPS)]
    items = pl.DataFrame({"item_id": ids, "title": ids, "categories": [[f"c{n % GROUPS}"] for n in range(len(ids))]})
    items.with_columns(
        text=pl.lit(None, pl.String),
        image=pl.lit(None, pl.String),
        price=pl.lit(None, pl.Float32),
        available=pl.lit(True),
        published_at=pl.lit(None, pl.Datetime("us", "UTC")),
        attributes=pl.lit(None, pl.String),
    ).write_parquet(project.tables / "items.parquet")
    user_ids = [f"u{user:02}" for user in range(USERS)] + [f"new{group}" for group in range(GROUPS)]
    plans = [json.dumps({"plan": f"plan {n % GROUPS}"}) for n in range(len(user_ids))]
    pl.DataFrame({"user_id": user_ids, "attributes": plans}).write_parquet(project.tables / "users.parquet")
    (project.tables / "counts.json").write_text("{}")
    (project.reports / "validation.json").write_text(json.dumps({"ok": True, "stopped": [], "warned": []}))
    params = project.params
    split_events(project.tables / "events.parquet", project.split, params.split, params.ingest.events, True)
    return project


def fit(project: Project) -> dict:
    encode(project)
    train(project)
    figures = evaluate(project)
    export(project)
    return figures


def test_new_items_are_judged_released_and_recommended(project: Project) -> None:
    figures = fit(project)
    found = {name: one["metrics"]["recall@10"]["value"] for name, one in figures["models"].items()}
    assert found["most_popular"] == 0 < min(found["content_knn"], found["two_tower"], found["fusion"])
    assert figures["models"]["fusion"]["users"]["unknown_targets"] == 0
    bundle = load_bundle(project.bundle)
    new = [item_id for item_id in bundle.items["item_id"] if item_id.startswith("new")]
    assert new == ["new0", "new1", "new2"] and bundle.items["item_id"] == [*bundle.items["item_id"][:-3], *new]
    candidate, _ = judge_both(project, None)  # by the same rows: what is released is what was judged
    assert len(candidate.user_ids) == figures["models"]["fusion"]["users"]["judged"]


def test_a_refitted_release_serves_new_items_by_the_users_taste(project: Project) -> None:
    project.params_file.write_text(PARAMS.format(refit="true").replace(", content_knn]", "]"))
    fit(project)
    served = Release(load_bundle(project.bundle), {})
    assert served.bundle.manifest["format_version"] == 5
    answer = recommend(served, Recommend(history=["i00", "i03", "new0"], k=20), None)
    scores = {item["item_id"]: item["score"] for item in answer["items"]}
    history = recommend(served, Recommend(history=["i01", "i04"], k=20), None)["items"]
    others = {item["item_id"]: item["score"] for item in history}
    assert "new0" not in scores and others["new1"] > max(others["new0"], others["new2"])
    found = similar(served, Similar(item_id="new1", k=3))
    assert found is not None and found["source"] == "vectors" and found["items"]
    for item_id, share in (("new1", 1.0), ("i04", 0.0)):
        part = explain(served, Recommend(history=["i01"]), None, item_id)["parts"][0]
        assert part["model"] == "two_tower" and part["content_share"] == share


def test_an_item_told_to_a_release_stands_beside_one_like_it(project: Project) -> None:
    project.params_file.write_text(
        PARAMS.format(refit="true").replace(", content_knn]", "]").replace("model: fusion", "model: two_tower")
    )
    fit(project)
    store = open_store(project.store_url)
    store.put_items([{"item_id": "told", "categories": ["c1"]}, {"item_id": "mute", "title": "no category"}])
    online = OnlineItems(store)
    assert online.refresh()
    served = online.applied(Release(load_bundle(project.bundle), {}))
    store.close()
    assert served.not_recommendable(["told", "mute", "new1"]).keys() == {"mute"}
    found = recommend(served, Recommend(history=["i01", "i04"], k=20), None)["items"]
    scores = {item["item_id"]: item["score"] for item in found}
    assert scores["told"] == pytest.approx(scores["new1"], rel=1e-3) and found[0]["item_id"] != "told"
    assert scores["told"] > max(scores["new0"], scores["new2"])


def test_a_refitted_release_serves_new_users_by_their_attributes(project: Project) -> None:
    project.params_file.write_text(
        PARAMS.format(refit="true").replace(", content_knn]", "]").replace("model: fusion", "model: two_tower")
    )
    fit(project)
    served = Release(load_bundle(project.bundle), {})
    for group in range(GROUPS):
        answer = recommend(served, Recommend(user_id=f"new{group}", k=4), None)
        assert answer["source"] == "cold-start"
        assert all(
            item["item_id"] == f"new{group}" or int(item["item_id"][1:]) % GROUPS == group for item in answer["items"]
        )
    assert recommend(served, Recommend(user_id="nobody", k=4), None)["source"] == "fallback"
