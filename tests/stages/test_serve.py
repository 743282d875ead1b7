"""What params.yaml says of the service reaches it, and what a look at a release needs not, does not."""

from pathlib import Path
from typing import Any

import pytest

from recops.bundle import Pointer, write_pointer
from recops.errors import CallError
from recops.serving.keys import add_key
from recops.serving.settings import read_settings
from recops.stages import serve as stage
from recops.stages.project import Project
from recops.stages.serve import serve, serve_for_a_look

PARAMS = """
serve: {host: 0.0.0.0, port: 4000, workers: 3, timeout_s: 1.5, max_concurrency: 9, max_lag_s: 0.2, max_body_bytes: 99,
        grace_s: 7, tls_cert: a.pem, tls_key: /k/b.pem, verify_key: v.pub}
"""


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Project:
    for name in ("RECOPS_KEYS_FILE", "RECOPS_API_KEYS", "RECOPS_VERIFY_KEY"):
        monkeypatch.delenv(name, raising=False)
    (tmp_path / "params.yaml").write_text(PARAMS)
    project = Project(tmp_path)
    write_pointer(project.releases, Pointer("one"), expected=None)
    return project


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """What the server would have been started with."""
    found: dict[str, Any] = {}
    monkeypatch.setattr(stage, "become_service", lambda **options: found.update(options) or 0)
    return found


def test_settings_and_files_of_keys_reach_the_service(project: Project, started: dict[str, Any]) -> None:
    add_key(project.keys_file, "shop", "read")
    assert serve(project) == 0
    assert (started["host"], started["port"], started["workers"]) == ("0.0.0.0", 4000, 3)
    assert started["tls"] == (project.root / "a.pem", Path("/k/b.pem"))
    found = read_settings(started["environment"])
    assert (found.timeout_s, found.max_concurrency, found.max_lag_s, found.max_body_bytes) == (1.5, 9, 0.2, 99)
    assert (found.grace_s, found.keys_file, found.keys) == (7, project.keys_file, ())
    assert found.verify_key == project.root / "v.pub"
    serve(project, "127.0.0.1", 5000, 1)
    assert (started["host"], started["port"], started["workers"]) == ("127.0.0.1", 5000, 1)


def test_what_the_environment_names_wins(
    project: Project, started: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    add_key(project.keys_file, "shop", "read")
    monkeypatch.setenv("RECOPS_KEYS_FILE", "/other.json")
    monkeypatch.setenv("RECOPS_VERIFY_KEY", "/other.pub")
    serve(project)
    found = read_settings(started["environment"])
    assert (found.keys_file, found.verify_key) == (Path("/other.json"), Path("/other.pub"))


def test_without_a_file_of_keys_none_is_named(project: Project, started: dict[str, Any]) -> None:
    project.params_file.write_text("")
    serve(project)
    found = read_settings(started["environment"])
    assert (started["host"], started["tls"]) == ("127.0.0.1", None)
    assert (found.keys_file, found.verify_key, found.grace_s) == (None, None, 2.0)


def test_a_look_needs_no_key_and_no_certificate_but_the_signature(
    project: Project, started: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    add_key(project.keys_file, "shop", "read")
    monkeypatch.setenv("RECOPS_API_KEYS", "secret")
    serve_for_a_look(project, 4001)
    assert (started["host"], started["port"], started["workers"], started["tls"]) == ("127.0.0.1", 4001, 1, None)
    found = read_settings(started["environment"])
    assert (found.keys, found.keys_file, found.grace_s) == ((), None, 0)
    assert found.verify_key == project.root / "v.pub"


def test_before_the_first_release_there_is_nothing_to_serve(project: Project, started: dict[str, Any]) -> None:
    for file in (project.releases / "main").iterdir():
        file.unlink()
    for call in (lambda: serve(project), lambda: serve_for_a_look(project, 1)):
        with pytest.raises(CallError, match="nothing is released yet"):
            call()
    assert not started
