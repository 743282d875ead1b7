"""From events told to a service to the release they reached, and out of it again, by the commands a user calls."""

import json
from contextlib import closing

import pytest

from recops.bundle import read_pointer
from recops.stages.project import Project
from recops.store import open_store
from tests.stages.conftest import Shop

pytestmark = pytest.mark.process


def test_bad_feedback_is_traced_taken_out_and_not_rolled_back_to(shop: Shop) -> None:
    project = Project(shop.folder)
    first = read_pointer(project.releases).release
    with closing(open_store(project.store_url)) as store:
        row = {"timestamp": 1_714_000_000_000_000, "event": "interaction"}
        kinds = list(project.params.kinds)
        bots = [
            {**row, "event": kinds[0], "event_id": f"b{n}", "user_id": f"bot{n}", "item_id": "i001"} for n in range(9)
        ]
        store.put_events(bots)
    shop.done("recops", "run")
    shop.done("recops", "promote", "candidate", "--why", "a test")  # whatever the gate said
    second = read_pointer(project.releases).release
    assert second != first

    traced = json.loads(shop.done("recops", "trace", second, "--json"))
    (part,) = [version["hash"] for version in traced["chain"]["versions"] if version["kind"] == "feedback"]
    assert traced["chain"]["commit_is_here"] and traced["chain"]["bundle"]["altered"] is None
    assert any(version["name"].endswith("events.csv") for version in traced["chain"]["versions"])
    reached = json.loads(shop.done("recops", "impact", part[:8], "--json"))
    assert [release["release"] for release in reached["releases"]] == [second]

    shop.done("recops", "quarantine", part[:8], "--why", "a crawler")
    served = read_pointer(project.releases)
    events = shop.done("recops", "trace", served.release)
    if served.release == second:  # the gate left it; a person decides
        shop.done("recops", "promote", "candidate")
        served = read_pointer(project.releases)
        events = shop.done("recops", "trace", served.release)
    assert served.release != second and "feedback part" not in events
    if served.history[-1] == second:
        refused = shop.call("recops", "rollback")
        assert refused.returncode == 1 and "a crawler" in " ".join(refused.stderr.split())
        assert read_pointer(project.releases) == served

    log = json.loads(shop.done("recops", "audit", "--json"))
    assert [entry["what"] for entry in log][:2] == ["gate", "promoted"]
    assert {"gate", "promoted", "quarantined"} == {entry["what"] for entry in log}
    assert all(entry["facts"]["by"] for entry in log)
