"""`recops drift` on a real store: inputs, vectors of users, answers, what followed them, and the data over time."""

import json
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from recops.monitoring.features import Scoring
from recops.monitoring.profile import reference_profile
from recops.protocols import ServingParts
from recops.release.export import export_bundle
from recops.release.releases import Parts, promote
from recops.runtime import Scorer
from recops.stages.drift import drift
from recops.stages.project import Project, open_project
from recops.stages.tables import drift_tables
from recops.store import open_store
from tests.test_cli import recops

NUM_ITEMS, NUM_USERS, DAYS, PER_DAY, K = 60, 400, 18, 150, 5
START = datetime(2024, 1, 1, tzinfo=UTC)
SINCE = START + timedelta(days=15)  # three days of twelve before
IDS = [f"i{n:02d}" for n in range(NUM_ITEMS)]
TASTE = np.random.default_rng(4).integers(0, 6, NUM_USERS)  # of six groups of ten items


def day_us(day: float) -> int:
    return int((START + timedelta(days=day)).timestamp() * 1e6)


def events(seed: int = 0) -> pl.DataFrame:
    """Every user takes items of their own taste, day after day."""
    chance = np.random.default_rng(seed)
    num = DAYS * PER_DAY
    user, at = chance.integers(0, NUM_USERS, num), np.sort(chance.integers(day_us(0), day_us(DAYS), num))
    item = TASTE[user] * 10 + chance.integers(0, 10, num)
    return pl.DataFrame(
        {
            "user_id": [f"u{n:03d}" for n in user],
            "item_id": [IDS[n] for n in item],
            "timestamp": pl.Series(at).cast(pl.Datetime("us", "UTC")),
            "event": "click",
            "value": pl.Series([None] * num, dtype=pl.Float32),
        }
    )


class Shop:
    """A release that knows every user's taste, promoted on day 12, and a service that answered before each event."""

    def __init__(self, folder: Path, *, is_broken: bool) -> None:
        folder.mkdir()
        (folder / "params.yaml").write_text("drift: {min_events: 100}\n")
        self.project = project = open_project(folder)
        log = events()
        project.tables.mkdir(parents=True)
        log.write_parquet(project.tables / "events.parquet")
        items = pl.DataFrame({"item_id": IDS, "categories": [[f"group{n // 10}"] for n in range(NUM_ITEMS)]})
        items.write_parquet(project.tables / "items.parquet")
        users = sorted(log["user_id"].unique().to_list())
        taste = np.eye(6, dtype=np.float32)
        table = np.vstack([np.zeros(6), taste[TASTE[[int(user[1:]) for user in users]]]]).astype(np.float32)
        vectors = np.vstack([np.zeros(6), np.repeat(taste, 10, axis=0)]).astype(np.float32)
        vectors[1:] += np.random.default_rng(1).random((NUM_ITEMS, 1)).astype(np.float32) / 100  # no ties
        scorer = Scorer(NUM_ITEMS, user_table=table, item_vectors=vectors)
        trained = log.filter(pl.col("timestamp") < START + timedelta(days=12))
        facts = dict.fromkeys(("params", "metrics", "validation", "inputs"))
        export_bundle(
            ServingParts(item_vectors=vectors, user_table=table),
            project.bundle,
            items={"item_id": IDS, "categories": items["categories"].to_list()}
            | {column: [None] * NUM_ITEMS for column in ("title", "price", "available", "published_at")},
            users=users,
            fallback=np.arange(NUM_ITEMS + 1, dtype=np.float32),
            profile=reference_profile(trained, items, Scoring(scorer, IDS, users, remove_seen=False)),
            facts={"model": "matrix_factorization", "remove_seen": False, "data_watermark": None, **facts},
            opset=20,
            max_links=1,
        )
        with closing(open_store(project.store_url)) as store:
            self.release = promote(
                project.bundle, project.releases, store, Parts(()), expected=None, now="2024-01-13T00:00:00+00:00"
            )
            store.log_answers(self.answers(log, is_broken))

    def answers(self, log: pl.DataFrame, is_broken: bool) -> list[dict[str, Any]]:
        """A minute before each event from day 12 on: five of the user's ten; broken in the window: of another taste, by
        the fallback."""
        chance, found = np.random.default_rng(2), []
        asked = log.filter(pl.col("timestamp") >= START + timedelta(days=12))
        for num, (user, at) in enumerate(asked.select("user_id", "timestamp").iter_rows()):
            is_lost = is_broken and at >= SINCE
            group = 0 if is_lost else TASTE[int(user[1:])]
            rows = group * 10 + chance.choice(10, K, replace=False)
            found.append(
                {
                    "request_id": f"q{num}",
                    "time": at - timedelta(minutes=1),
                    "user_id": user,
                    "items": [
                        {"item_id": IDS[row], "rank": rank, "score": 1.0, "propensity": 1.0}
                        for rank, row in enumerate(rows.tolist(), 1)
                    ],
                    **{"release": self.release, "variant": "default", "source": "fallback" if is_lost else "model"},
                }
            )
        return found


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Shop:
    return Shop(tmp_path_factory.mktemp("shop") / "shop", is_broken=False)


def judged(project: Project) -> dict[str, Any]:
    return drift(project, SINCE.isoformat(), None)


def test_all_that_is_watched_is_judged_and_quiet_where_nothing_changed(shop: Shop) -> None:
    found = judged(shop.project)
    assert set(found["features"]) <= {"history_length"}  # which grow while a log is young
    names = {result["feature"] for result in found["results"]}
    assert names >= {"item_popularity", "category", "top_score", "user_vectors", "answer_score", "answer_category"}
    assert names >= {"answer_popularity", "answer_coverage", "fallback_share", "hit_rate", "ndcg"}
    outcome = found["outcome"]
    assert outcome["hit_rate"]["low"] < 0.55 < outcome["hit_rate"]["high"]  # five of ten, some asked again
    # An answer a minute before an event: the label is nearly always that one.
    assert outcome["delay_s"]["median"] == pytest.approx(60, abs=1)
    assert 0 < outcome["pending"] < outcome["answers"]
    page = (shop.project.reports / "drift" / "index.html").read_text(encoding="utf-8")
    for title in ("user_vectors", "fallback_share", "hit_rate"):
        assert f"<h3>{title}" in page
    assert "What followed the answers" in page


def test_a_service_that_answers_something_else_is_found_though_inputs_are_the_same(tmp_path: Path) -> None:
    found = judged(Shop(tmp_path / "shop", is_broken=True).project)
    assert found["verdict"] == "drift"
    assert {"fallback_share", "answer_category", "hit_rate", "ndcg"} <= set(found["features"])
    assert not {"category", "item_popularity", "user_vectors"} & set(found["features"])


def test_answers_of_another_release_are_not_judged(shop: Shop) -> None:
    with closing(open_store(shop.project.store_url)) as store:
        assert store.report("drift")["release"] == shop.release
    found = drift(shop.project, (START + timedelta(days=12)).isoformat(), (START + timedelta(days=14)).isoformat())
    assert found["skipped"]["hit_rate"].startswith("0 judged answers before")
    assert found["skipped"]["answer_score"].startswith("0 answers of the release before")


def test_each_validation_is_one_point_of_the_data_over_time(shop: Shop) -> None:
    rule = {"table": "events", "rule": "num_rows", "column": None, "observed": 2700}
    report = {"ok": True, "stopped": [], "warned": [], "passed": [rule], "profile": {"events": {"num_rows": 2700}}}
    path = shop.project.reports / "validation.json"
    path.write_text(json.dumps(report))
    assert len(judged(shop.project)["data"]) == len(judged(shop.project)["data"]) == 1
    path.write_text(json.dumps({**report, "ok": False, "stopped": [rule], "passed": []}))
    data = judged(shop.project)["data"]
    assert [point["stopped"] for point in data] == [[], ["events.num_rows"]]
    assert "The data over time" in (shop.project.reports / "drift" / "index.html").read_text(encoding="utf-8")
    path.unlink()


def test_the_command_shows_all_of_it_as_tables_and_as_json(
    shop: Shop, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ("drift", "--since", SINCE.isoformat(), "-C", str(shop.project.root))
    code, out, err = recops(monkeypatch, capsys, *words)
    assert code == 0, err
    for text in ("user_vectors", "hit_rate", "What followed answers", "users:warm", "Report"):
        assert text in out
    code, out, err = recops(monkeypatch, capsys, *words, "--json")
    assert code == 0, err
    assert json.loads(out)["outcome"]["answers"] > 0


def test_tables_name_what_was_not_judged(shop: Shop) -> None:
    found = {**judged(shop.project), "skipped": {"user_vectors": "the release makes no vectors of users"}}
    titles = {title: rows for title, _, rows in drift_tables(found)}
    assert titles["Not judged"] == [["user_vectors", "the release makes no vectors of users"]]
