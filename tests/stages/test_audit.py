"""What was decided stands in the audit log once, also where the store was away when it was."""

from contextlib import closing
from pathlib import Path

import pytest

from recops.bundle import Pointer, write_pointer
from recops.release import releases
from recops.stages import audit
from recops.stages.project import Project, open_project
from recops.stages.rollback import rollback
from recops.store import open_store


@pytest.fixture
def project(tmp_path: Path) -> Project:
    (tmp_path / "params.yaml").touch()
    return open_project(tmp_path)


def logged(project: Project) -> list[tuple[str, dict]]:
    with closing(open_store(project.store_url)) as store:
        return [(entry["what"], entry["facts"]) for entry in store.decisions()]


def test_a_decision_stands_in_the_store_with_who_and_why(project: Project) -> None:
    audit.log(project, "promoted", {"release": "r1", "by": audit.person(), "why": "better"})
    assert logged(project) == [("promoted", {"release": "r1", "by": audit.person(), "why": "better"})]
    assert "@" in audit.person() and audit.waiting(project) == []


def test_a_rollback_without_the_store_is_brought_in_later(project: Project, monkeypatch, capsys) -> None:
    monkeypatch.setattr(releases, "load_bundle", lambda folder: None)
    write_pointer(project.releases, Pointer("two", ("one",)), expected=None)
    monkeypatch.setenv("RECOPS_STORE", "postgresql://nobody@127.0.0.1:1/none")
    assert rollback(project, "me", "worse").release == "one"
    assert rollback(project, "me", "worse").release == "one"  # changes nothing, decides nothing
    assert "kept in" in capsys.readouterr().err
    ((before),) = audit.waiting(project)
    monkeypatch.delenv("RECOPS_STORE")
    (entry,) = audit.entries(project)
    assert entry["what"] == "rolled back"
    assert entry["facts"] == {"release": "one", "from": "two", "by": "me", "why": "worse", "forced": False}
    with closing(open_store(project.store_url)) as store:
        store.log_decision(before["what"], before["facts"], before["time"], once=True)
    assert len(logged(project)) == 1 and audit.waiting(project) == []


def test_a_kill_between_both_steps_brings_nothing_in_twice(project: Project, monkeypatch) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(audit, "write_atomically", lambda *_: 1 / 0)
        audit.log(project, "gate", {"verdict": "keep"})
    assert len(audit.waiting(project)) == 1 and len(logged(project)) == 1
    with project.audit_spool.open("a") as file:
        file.write('{"time": 3, "what": "cut sh')  # the power went
    audit.log(project, "gate", {"verdict": "keep"})
    assert [what for what, _ in logged(project)] == ["gate", "gate"]


def test_a_full_disk_undoes_no_decision(project: Project, monkeypatch, capsys) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(audit, "_append", full)
    audit.log(project, "rolled back", {"release": "r1"})
    told = capsys.readouterr().err
    assert "No space left" in told and '"release":"r1"' in told and logged(project) == []


def test_a_summary_names_what_matters_in_one_line() -> None:
    facts = {"by": "gate", "verdict": "keep", "reasons": ["a", "b"], "figures": {"low": 1}, "from": None}
    assert audit.summary(facts) == "reasons a; b; verdict keep"
    assert audit.summary({"by": "x", "deleted": {"events": 2}, "user_hash": "h"}) == "deleted 2 events"
    assert audit.summary({"off": "canary", "by": "x"}) == "off canary"
