"""Shadow, canary, promoted: each step in its time, none twice, and what ends a rollout early."""

from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from recops.bundle import Pointer, canonical_json, read_pointer, write_atomically, write_pointer
from recops.release.releases import read_record
from recops.serving.traffic import control
from recops.serving.traffic.arms import Arm
from recops.stages import promote, rollout, traffic
from recops.stages.project import Project, open_project
from recops.store import open_store

OLD, NEW, NEWER = "a" * 64, "b" * 64, "c" * 64
START = datetime(2024, 5, 1, tzinfo=UTC)
SETTINGS = "shadow_hours: 1, canary_hours: 24, canary_share: 0.2, canary_users: 50"


class Shop:
    """A project whose gate has just said to promote NEW; `hour` is what counts as now."""

    def __init__(self, project: Project) -> None:
        self.project, self.hour, self.users = project, 0.0, 0

    @property
    def now(self) -> datetime:
        return START + timedelta(hours=self.hour)

    def judged(self, candidate: str = NEW) -> None:
        decision = {"verdict": "promote", "reasons": ["better"], "candidate": candidate, "champion": OLD}
        write_atomically(self.project.state / "decision.json", canonical_json(decision))

    def begin(self) -> str:
        return rollout.begin(self.project, self.now)["state"]

    def at(self, hour: float) -> str | None:
        self.hour = hour
        found = rollout.advance(self.project, self.now)
        return None if found is None else found["state"]

    @property
    def arms(self) -> dict[str, Arm]:
        with closing(open_store(self.project.store_url)) as store:
            return {arm.name: arm for arm in control.read(store).arms}

    @property
    def audit(self) -> list[dict[str, Any]]:
        with closing(open_store(self.project.store_url)) as store:
            return [line["facts"] for line in store.decisions() if line["what"] == "rollout"]


@pytest.fixture
def shop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Shop:
    (tmp_path / "params.yaml").write_text(f"release: {{strategy: canary, {SETTINGS}}}\n")
    shop = Shop(open_project(tmp_path))
    write_pointer(shop.project.releases, Pointer(OLD), expected=None)
    monkeypatch.setattr(traffic, "served_manifest", lambda _: {})
    monkeypatch.setattr(traffic, "read_manifest", lambda _: {})
    monkeypatch.setattr(traffic.releases, "find_release", lambda release, *_: release)
    monkeypatch.setattr("recops.release.releases.load_bundle", lambda _: None)
    decided = shop.project.state / "decision.json"
    monkeypatch.setattr(traffic, "keep", lambda *_: NEWER if NEWER in decided.read_text() else NEW)
    monkeypatch.setattr(control, "_now_us", lambda: int(shop.now.timestamp() * 1e6))
    monkeypatch.setattr(rollout, "_figures", lambda _: [{"variant": "default"}, {"users": shop.users}])
    shop.judged()
    return shop


def test_step_by_step_to_everybody(shop: Shop) -> None:
    assert shop.begin() == "shadow" and shop.arms["rollout"].mode == "shadow"
    assert shop.at(0.9) is None
    assert shop.at(1) == "canary" and (shop.arms["rollout"].mode, shop.arms["rollout"].share) == ("canary", 0.2)
    shop.users = 50
    assert shop.at(24.9) is None, "the hours as canary count from when it became one"
    shop.users = 49
    assert shop.at(26) is None, "too few users have seen it"
    shop.users = 50
    assert shop.at(30) == "promoted"
    assert read_pointer(shop.project.releases) == Pointer(NEW, (OLD,)) and shop.arms == {}
    assert read_record(shop.project.releases, NEW)["promoted_at"] == shop.now.isoformat(timespec="seconds")
    assert shop.at(31) is None
    assert [line["state"] for line in shop.audit] == ["shadow", "canary", "promoted"]
    assert shop.audit[-1]["figures"][1]["users"] == 50 and "50 users" in shop.audit[-1]["why"]


def test_a_missed_step_is_made_by_the_next_call(shop: Shop) -> None:
    shop.begin()
    assert shop.at(400) == "canary"
    shop.users = 50
    assert shop.at(500) == "promoted"


def test_a_halt_is_the_end_of_it_also_for_the_next_run(shop: Shop) -> None:
    shop.begin()
    shop.at(1)
    with closing(open_store(shop.project.store_url)) as store:
        control.halt(store, shop.arms["rollout"], "hit_rate .1 against .2")
    assert shop.at(2) == "halted" and shop.arms == {} and shop.audit[-1]["why"] == "hit_rate .1 against .2"
    shop.judged()  # the same bundle, judged again by the next run
    assert shop.begin() == "halted" and shop.arms == {}
    assert read_pointer(shop.project.releases) == Pointer(OLD)


def test_without_shadow(shop: Shop) -> None:
    shop.project.params_file.write_text("release: {strategy: canary, shadow_hours: 0}\n")
    assert shop.begin() == "canary" and shop.arms["rollout"].share == 0.1


def test_a_newer_bundle_takes_the_place(shop: Shop) -> None:
    shop.begin()
    shop.at(1)
    assert shop.begin() == "canary", "the same one goes on"
    shop.judged(NEWER)
    assert shop.begin() == "shadow" and shop.arms["rollout"].release == NEWER


def test_what_a_person_does_meanwhile_wins(shop: Shop) -> None:
    shop.begin()
    traffic.take_off(shop.project, "rollout")
    assert shop.at(2) == "halted" and read_pointer(shop.project.releases) == Pointer(OLD)
    shop.judged(NEWER)
    shop.begin()
    write_pointer(shop.project.releases, Pointer("d" * 64, (OLD,)), expected=OLD)
    assert shop.at(4) == "replaced" and shop.arms == {}


def test_served_by_hand_or_killed_after_the_pointer_moved(shop: Shop) -> None:
    shop.begin()
    write_pointer(shop.project.releases, Pointer(NEW, (OLD,)), expected=OLD)
    assert shop.at(2) == "promoted" and shop.arms == {}


def test_a_decision_on_its_way_is_not_undone(shop: Shop) -> None:
    pointer = read_pointer(shop.project.releases)
    assert not promote.is_settled({"verdict": "promote", "candidate": NEW}, pointer)
    shop.begin()
    found = (shop.project.state / "decision.json").read_text()
    assert '"is_rolled_out":true' in found.replace(" ", "")
    assert promote.is_settled({"verdict": "promote", "candidate": NEW, "is_rolled_out": True}, pointer)
