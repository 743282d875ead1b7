"""The thread on one real log of a shop, of a social app and of a newsroom: from their files to an answer.

The stages run one after the other in this process, each as its command runs it. Package, which only wraps the bundle
for BentoML, is left out, so that the bundle is promoted without a Bento.
"""

import json
from collections import Counter
from dataclasses import dataclass
from datetime import datetime
from importlib import import_module
from pathlib import Path
from typing import Any

import polars as pl
import pytest
import yaml

from recops.bundle import bundle_id
from recops.release import releases
from recops.serving.local import recommend_once
from recops.stages.drift import drift
from recops.stages.project import Project, open_project
from recops.stages.promote import histories
from recops.store import open_store
from tests.conftest import ROOT

pytestmark = pytest.mark.real_data
STAGES = ("ingest", "validate", "split", "encode", "train", "evaluate", "export")


@dataclass(frozen=True)
class Vertical:
    """A data set, how it is read, and what is known of it. Where users have four clicks each, as in the short videos,
    neighbours do not beat popularity."""

    folder: str
    source: dict[str, Any]
    num_rows: int
    num_rejected: int
    beats_popularity: bool


VERTICALS = {
    "shop": Vertical("online-retail", {"name": "online_retail"}, 541_909, 150_763, True),
    "social": Vertical("kuairand-pure-part", {"name": "kuairand"}, 404_492, 7_302, False),
    "news": Vertical("nemig-en-news", {"name": "mind", "order": "ordered"}, 113_319, 0, True),
}


@dataclass(frozen=True)
class Thread:
    """What one vertical came to."""

    vertical: Vertical
    project: Project

    def facts(self, *parts: str) -> dict[str, Any]:
        """A JSON file of the project."""
        return json.loads(self.project.root.joinpath(*parts).read_text(encoding="utf-8"))

    def positives(self, part: str) -> pl.DataFrame:
        """User, item and time of each positive of one part."""
        rows = pl.read_parquet(self.project.split / f"{part}.parquet").filter(pl.col("signal") == "positive")
        return rows.select("user_id", "item_id", "timestamp")


@pytest.fixture(scope="module", params=VERTICALS)
def thread(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, data_dir: Path) -> Thread:
    """A project written by hand, its stages run up to the bundle, and the bundle promoted."""
    vertical = VERTICALS[request.param]
    root = tmp_path_factory.mktemp(request.param)
    settings = {
        "source": {**vertical.source, "path": str(data_dir / vertical.folder)},
        "split": {"name": "leave_last_out"},
        "train": {"model": "item_knn", "baselines": ["most_popular"], "threads": 1},
        "evaluate": {"k": [10], "bootstrap_samples": 100},
        "export": {"parity_users": 100},
    }
    (root / "params.yaml").write_text(yaml.safe_dump(settings), encoding="utf-8")
    (root / "expectations").symlink_to(ROOT / "expectations")
    project = open_project(root)
    for name in STAGES:
        getattr(import_module(f"recops.stages.{name}"), name)(project)
    releases.promote(
        project.bundle,
        project.releases,
        open_store(project.store_url),
        releases.Parts(histories(project)),
        expected=None,
        now="2024-01-01T00:00:00+00:00",
    )
    return Thread(vertical, project)


def test_every_row_is_an_event_or_rejected(thread: Thread) -> None:
    counts = thread.facts("data", "tables", "counts.json")
    events = pl.read_parquet(thread.project.tables / "events.parquet")
    rejected = pl.read_parquet(thread.project.tables / "rejected.parquet").filter(pl.col("table") == "events")
    assert counts["rows_read"] == thread.vertical.num_rows == len(events) + len(rejected)
    assert counts["rejected"] == thread.vertical.num_rejected == len(rejected)
    assert counts["rejected_by_reason"] == Counter(rejected["reason"])
    assert events["event_id"].is_unique().all()


def test_a_first_import_is_accepted(thread: Thread) -> None:
    verdict = thread.facts("reports", "validation.json")
    assert verdict["ok"] and not verdict["stopped"]


def test_the_split_counts_every_event_and_leaks_none(thread: Thread) -> None:
    split = thread.facts("data", "split", "split.json")
    assert sum(part["rows"] for part in split["parts"].values()) + sum(split["unused"].values()) == split["rows"]
    train, valid, test = (thread.positives(part) for part in ("train", "valid", "test"))
    for part, before in ((valid, train), (test, pl.concat([train, valid]))):
        assert part["user_id"].is_unique().all()
        assert part.join(before, on=["user_id", "item_id"], how="semi").is_empty()
        both = part.join(before, on="user_id", suffix="_before")
        assert both.filter(pl.col("timestamp_before") > pl.col("timestamp")).is_empty()


def test_the_model_is_better_than_chance_and_than_popularity(thread: Thread) -> None:
    metrics = thread.facts("reports", "metrics.json")
    knn, popular = (metrics["models"][name]["metrics"]["ndcg@10"] for name in ("item_knn", "most_popular"))
    # Chance finds one item of ten in a catalogue of thousands: below .002.
    assert 0.008 < knn["low"] < knn["high"] < 0.3
    if thread.vertical.beats_popularity:
        assert knn["value"] > popular["value"]
    valid = {name: figures["valid"]["ndcg@10"] for name, figures in metrics["models"].items()}
    assert metrics["chosen"] == max(valid, key=lambda name: valid[name])


def test_the_release_answers(thread: Thread) -> None:
    project = thread.project
    train = thread.positives("train")
    user, item = train["user_id"][0], train["item_id"].mode().sort()[0]
    known = set(
        pl.concat([thread.positives(part) for part in ("train", "valid", "test")]).filter(user_id=user)["item_id"]
    )

    def answer(user_id: str | None, history: list[str]) -> tuple[str, list[str]]:
        found = recommend_once(project.releases, project.store_url, user_id, history, 10)
        assert found["release"] == bundle_id(project.bundle)
        return found["source"], [shown["item_id"] for shown in found["items"]]

    source, shown = answer(user, [])
    assert source == "model" and len(set(shown)) == 10 and not known & set(shown)
    source, shown = answer("nobody", [])
    assert source == "fallback" and shown[0] == item
    source, shown = answer(None, [item])
    assert source == "cold-start" and len(set(shown)) == 10 and item not in shown


def test_a_window_is_compared_where_there_are_times(thread: Thread) -> None:
    until = thread.facts("data", "split", "split.json")["data_watermark"]
    if until is None:
        pytest.skip("a log without times has no windows")
    since = f"{until[:8]}01T00:00:00+00:00"
    verdict = drift(thread.project, since, until)
    assert verdict["verdict"] in ("none", "drift") and verdict["results"]
    assert datetime.fromisoformat(verdict["checked_at"]).tzinfo is not None
    assert "<html" in (thread.project.reports / "drift" / "index.html").read_text(encoding="utf-8")
