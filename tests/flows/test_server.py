"""The deployments of prefect.yaml on a real Prefect server with a real process worker."""

import json
import uuid
from collections.abc import Callable, Iterator
from contextlib import closing
from datetime import UTC, datetime
from typing import Any

import polars as pl
import pytest

from recops.bundle import read_pointer, release_folder
from recops.stages.erase import collect, verify
from recops.stages.project import Project
from recops.store import Known, Store, open_store
from tests.flows.servers import Server, deployed, every, until

pytestmark = [pytest.mark.process, pytest.mark.timeout(900)]


@pytest.fixture(scope="module")
def server(shop: Project) -> Iterator[Server]:
    """The first run of `nightly` is due in a few seconds, by its schedule."""
    with deployed(shop, {"nightly": every(240, first_in=15)}) as server:
        yield server


@pytest.fixture(scope="module")
def first_run(server: Server) -> dict[str, Any]:
    """The scheduled run, ended; the schedule is then paused."""
    run = server.finished("train_and_release", 1, 600)
    deployment = server.http.get("/deployments/name/train_and_release/nightly").json()
    # 503: the database of the server was locked for too long, and the caller is to ask again.
    pause = f"/deployments/{deployment['id']}"
    until(lambda: server.http.patch(pause, json={"paused": True}).status_code != 503, 60, "the schedule is paused")
    assert server.http.get(pause).json()["paused"]
    return run


def test_schedule_trains_and_releases(server: Server, shop: Project, first_run: dict[str, Any]) -> None:
    assert first_run["state_type"] == "COMPLETED", first_run["state"]
    assert first_run["auto_scheduled"]
    assert read_pointer(shop.releases) is not None
    artifacts = server.artifacts(first_run)
    assert {"validation", "metrics", "links"} <= set(artifacts)
    rows = json.loads(artifacts["metrics"]["data"])
    assert {row["model"] for row in rows} == {"item_knn", "most_popular"} and "ndcg@10" in rows[0]
    assert (shop.reports / "index.html").as_uri() in artifacts["links"]["data"]


def test_drift_retrains_once(
    server: Server, shop: Project, first_run: dict[str, Any], write_log: Callable[[str], object]
) -> None:
    assert first_run["state_type"] == "COMPLETED"
    before = read_pointer(shop.releases)
    assert before is not None
    write_log("drifted")
    with closing(open_store(shop.store_url)) as store:
        tell(store)
    server.prefect("deployment", "run", "monitor/hourly")
    monitor = server.finished("monitor", 1)
    assert monitor["state_type"] == "COMPLETED", monitor["state"]
    assert any(row.get("drifted") for row in json.loads(server.artifacts(monitor)["drift"]["data"]))

    until(lambda: server.runs("retrain"), 60, "the event has started a retraining")
    resource = {"prefect.resource.id": f"recops.release.{before.release}"}
    again = {"event": "recops.drift", "resource": resource, "related": [], "payload": {}}
    duplicates = [{**again, "id": str(uuid.uuid4()), "occurred": datetime.now(UTC).isoformat()} for _ in range(100)]
    server.call("/events", duplicates)
    # A start that the trigger cannot know to be for the same drift: it waits, and then finds it dealt with.
    server.prefect("deployment", "run", "retrain/on-drift")

    retrain, second = server.finished("retrain", 1), server.finished("retrain", 2)
    assert [retrain["state_type"], second["state_type"]] == ["COMPLETED", "COMPLETED"], (retrain, second)
    assert len(server.runs("retrain")) == 2
    trainings = [run for run in server.runs("train_and_release") if run["parent_task_run_id"]]
    assert len(trainings) == 1
    after = read_pointer(shop.releases)
    assert after is not None and after.history == (before.release,)
    with closing(open_store(shop.store_url)) as store:
        check_what_was_told(shop, store, before.release, after.release)


def tell(store: Store) -> None:
    """A new user's two views; u1, who is known, is told of and then erased."""
    at = int(datetime(2024, 3, 10, tzinfo=UTC).timestamp() * 1e6)
    view = {"event": "view", "timestamp": at, "user_id": "live"}
    store.put_events(
        [
            {**view, "event_id": "e1", "item_id": "i41"},
            {**view, "event_id": "e2", "item_id": "i44", "timestamp": at + 1},
            {**view, "event_id": "e3", "item_id": "i44", "user_id": "u1"},
        ]
    )
    assert store.known("none", "live") is not None
    store.erase_user("u1", datetime.now(UTC))


def check_what_was_told(shop: Project, store: Store, before: str, after: str) -> None:
    """Trained on and in the new release's histories, once; for the old release still beside its histories. Of the
    erased user nothing is left, and the release says so."""
    assert [row.item_id for row in store.known(before, "live").events] == ["i41", "i44"]
    assert store.known(after, "live") == Known(["i41", "i44"], None, [], [])
    events = pl.read_parquet(shop.tables / "events.parquet")
    assert events.filter(pl.col("user_id") == "live")["event_id"].to_list() == ["e1", "e2"]
    assert "u1" not in events["user_id"] and store.history(after, "u1") is None
    rejected = pl.read_parquet(shop.tables / "rejected.parquet").filter(pl.col("reason") == "erased")
    assert len(rejected) > 10 and rejected["raw"].null_count() == len(rejected)
    named = {place.name: place.found for place in verify(shop, "u1")}
    assert named.pop("DVC cache") > 0 and set(named.values()) == {0}
    assert [line.split()[0] for line in collect(shop)] == ["release", "Bento", "DVC's"]
    assert {place.found for place in verify(shop, "u1")} == {0}
    assert {place.name: place.found for place in verify(shop, "live")}["tables"] == 2
    pointer = read_pointer(shop.releases)
    assert pointer is not None and (pointer.release, pointer.history) == (after, ())
    manifest = json.loads((release_folder(shop.releases, after) / "manifest.json").read_text())
    assert manifest["erasures"] == {"honoured": 1, "rows": len(rejected)}


def test_refused_data_fails_without_a_retry(
    server: Server, shop: Project, first_run: dict[str, Any], write_log: Callable[[str], object]
) -> None:
    assert first_run["state_type"] == "COMPLETED"
    before, num_runs = read_pointer(shop.releases), len(server.runs("train_and_release"))
    write_log("refused")
    server.prefect("deployment", "run", "train_and_release/nightly")
    run = server.finished("train_and_release", num_runs + 1)
    assert run["state_type"] == "FAILED"
    assert "RefusedError" in run["state"]["message"]
    tasks = server.tasks(run)
    assert tasks["validate"]["state_type"] == "FAILED" and tasks["validate"]["run_count"] == 1
    assert "train" not in tasks
    assert read_pointer(shop.releases) == before
