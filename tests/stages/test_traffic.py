"""What `recops traffic` says beside what it does."""

from pathlib import Path

import pytest

from recops.stages import traffic
from recops.stages.project import Project


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Project:
    (tmp_path / "params.yaml").write_text("")
    monkeypatch.setattr(traffic, "served_manifest", lambda _: {})
    monkeypatch.setattr(traffic.releases, "find_release", lambda release, _: release * 64)
    monkeypatch.setattr(traffic, "read_manifest", lambda _: {})
    return Project(tmp_path)


def notes(project: Project, release: str, name: str, share: float, *guardrails: str) -> list[str]:
    mode = "canary" if guardrails else "ab"
    return traffic.put(project, release, name, mode, share, list(guardrails))[1]


def test_a_challenger_that_takes_the_place_of_another_release_is_told(project: Project) -> None:
    assert notes(project, "a", "canary", 0.1, "hit_rate:0.1") == []
    assert notes(project, "a", "canary", 0.2, "hit_rate:0.1") == []
    assert notes(project, "b", "canary", 0.2, "hit_rate:0.1") == [
        "in place of aaaaaaaaaaaa; another --name lets both stand"
    ]


def test_guardrails_without_anybody_to_compare_with_are_told(project: Project) -> None:
    assert notes(project, "a", "b", 0.9) == []
    (note,) = notes(project, "b", "canary", 0.1, "hit_rate")
    assert "no user is left to the served release" in note
