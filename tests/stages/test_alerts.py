"""What a project alerts of, how often, and that no run fails by it."""

import json
import logging
import os
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from recops.bundle import Pointer, write_pointer
from recops.monitoring.alerts import Alert
from recops.serving.traffic import control
from recops.stages import alerts, pipeline, promote
from recops.stages.project import Project, open_project
from recops.store import open_store

RELEASE = "a" * 64


class Channel:
    """Takes alerts while `is_there`."""

    def __init__(self) -> None:
        self.taken: list[Alert] = []
        self.is_there = True
        self.calls = 0

    def __call__(self, alert: Alert) -> None:
        self.calls += 1
        if not self.is_there:
            raise ConnectionRefusedError("http://chat/secret")
        self.taken.append(alert)

    @property
    def kinds(self) -> list[str]:
        return [alert.kind for alert in self.taken]


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Project:
    monkeypatch.delenv("RECOPS_STORE", raising=False)
    (tmp_path / "params.yaml").touch()
    return open_project(tmp_path)


@pytest.fixture
def channel(monkeypatch: pytest.MonkeyPatch) -> Channel:
    found = Channel()
    monkeypatch.setattr(alerts, "channels", lambda params: {"chat": found})
    return found


def promoted(project: Project, days_ago: float) -> None:
    write_pointer(project.releases, Pointer(RELEASE), expected=None)
    at = (datetime.now(UTC) - timedelta(days=days_ago)).isoformat()
    record = project.releases / "main" / f"{RELEASE}.json"
    record.write_text(json.dumps({"release": RELEASE, "promoted_at": at}))


def test_the_same_is_said_once_and_something_else_at_once(project: Project, channel: Channel) -> None:
    for why in ("no users", "no users", "no items"):
        alerts.refused(project, "validate", why)
    assert [alert.facts["why"] for alert in channel.taken] == ["no users", "no items"]
    assert channel.taken[0].project == project.root.name


def test_the_same_is_said_again_after_a_while(project: Project, channel: Channel) -> None:
    project.params_file.write_text("alerts: {repeat_hours: 0}")
    for _ in range(2):
        alerts.refused(project, "validate", "no users")
    assert len(channel.taken) == 2


def test_who_could_not_be_told_is_told_later_once(
    project: Project, channel: Channel, caplog: pytest.LogCaptureFixture
) -> None:
    channel.is_there = False
    with caplog.at_level(logging.WARNING):
        alerts.refused(project, "validate", "no users")
    assert "could not be told" in caplog.text and "secret" not in caplog.text
    channel.is_there = True
    for _ in range(2):
        alerts.look(project)
    assert channel.kinds == ["refused_data"]


def test_who_is_away_is_waited_for_once_a_round(project: Project, channel: Channel) -> None:
    """However many alerts wait: a run waits with them."""
    channel.is_there = False
    for number in range(1, 6):
        alerts.refused(project, "validate", f"reason {number}")
        assert channel.calls == number
    channel.is_there = True
    alerts.look(project)
    assert [alert.facts["why"] for alert in channel.taken] == [f"reason {number}" for number in range(1, 6)]


def test_only_what_is_asked_for(project: Project, channel: Channel) -> None:
    project.params_file.write_text("alerts: {kinds: [failed_gate]}")
    alerts.refused(project, "validate", "no users")
    decision = {"verdict": "keep", "reasons": ["worse"], "candidate": "b", "champion": "a"}
    alerts.not_promoted(project, decision)
    assert channel.kinds == ["failed_gate"] and "worse" in channel.taken[0].text


def test_a_model_is_stale_by_its_promotion(project: Project, channel: Channel) -> None:
    alerts.look(project)
    promoted(project, days_ago=44)
    alerts.look(project)
    assert channel.kinds == []
    project.params_file.write_text("retrain: {max_age_days: 20}")
    alerts.look(project)
    assert channel.kinds == ["stale_model"] and RELEASE[:12] in channel.taken[0].text


def test_a_halted_canary_is_told_once(project: Project, channel: Channel) -> None:
    with closing(open_store(project.store_url)) as store:
        arm = control.arm_of({"name": "next", "release": RELEASE, "mode": "canary", "share": 0.1, "guardrails": []})
        found = control.put(store, arm, "test").arms[0]
        alerts.look(project)
        assert channel.kinds == []
        control.halt(store, found, "hit_rate fell")
    for _ in range(2):
        alerts.look(project)
    assert channel.kinds == ["halted_canary"] and "hit_rate fell" in channel.taken[0].text


@pytest.mark.parametrize("trouble", ["settings", "memory", "store"])
def test_no_trouble_of_an_alert_reaches_its_run(project: Project, channel: Channel, trouble: str) -> None:
    if trouble == "settings":
        project.params_file.write_text("alerts: [")
    elif trouble == "memory":
        (project.state / "alerts.lock").mkdir()
    else:
        (project.state / "store.sqlite").write_text("no database")
    alerts.refused(project, "validate", "no users")
    alerts.look(project)
    assert channel.kinds == (["refused_data"] if trouble == "store" else [])


def test_a_broken_memory_begins_anew(project: Project, channel: Channel) -> None:
    (project.state / "alerts.json").write_text('{"sent": ')
    alerts.refused(project, "validate", "no users")
    assert channel.kinds == ["refused_data"]


def test_a_refusing_stage_and_the_gate_tell(
    project: Project, channel: Channel, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuses(project: Project, stage: str, say: object, lines: list[str]) -> int:
        project.refused.write_text(json.dumps({"stage": stage, "message": "no users", "exit_code": 1}))
        lines.append("Running stage 'validate'")
        return 1

    monkeypatch.setattr(pipeline, "repro_once", refuses)
    with pytest.raises(pipeline.RefusedError, match="no users"):
        pipeline.repro(project, "validate")

    from recops.stages import judge

    def incomparable(project: Project, champion: str | None) -> None:
        raise judge.IncomparableError("another task")

    monkeypatch.setattr(promote, "bundle_id", lambda folder: "b" * 64)
    monkeypatch.setattr(judge, "judge_both", incomparable)
    promote.decide(project)
    assert channel.kinds == ["refused_data", "failed_gate"] and "another task" in channel.taken[1].text


def test_without_a_channel_nothing_is_kept(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.startswith("RECOPS_ALERT")]:
        monkeypatch.delenv(name)
    alerts.refused(project, "validate", "no users")
    assert not (project.state / "alerts.json").exists()
