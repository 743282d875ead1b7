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
        log_format: json, access_log: true, otlp: "http://h:4318",
        grace_s: 7, tls_cert: a.pem, tls_key: /k/b.pem, verify_key: v.pub}
"""


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Project:
    for name in ("KEYS_FILE", "API_KEYS", "VERIFY_KEY", "LOG_FORMAT", "ACCESS_LOG", "OTLP"):
        monkeypatch.delenv(f"RECOPS_{name}", raising=False)
    # The extra otel need not be there: the settings only ask whether it is.
    monkeypatch.setattr("recops.serving.tracing.EXTRA", "recops")
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
    assert (found.log_format, found.access_log, found.otlp) == ("json", True, "http://h:4318/v1/traces")
    serve(project, "127.0.0.1", 5000, 1)
    assert (started["host"], started["port"], started["workers"]) == ("127.0.0.1", 5000, 1)


def test_what_the_environment_names_wins(
    project: Project, started: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    add_key(project.keys_file, "shop", "read")
    monkeypatch.setenv("RECOPS_KEYS_FILE", "/other.json")
    monkeypatch.setenv("RECOPS_VERIFY_KEY", "/other.pub")
    monkeypatch.setenv("RECOPS_LOG_FORMAT", "text")
    monkeypatch.setenv("RECOPS_ACCESS_LOG", "0")
    monkeypatch.setenv("RECOPS_OTLP", "http://other")
    serve(project)
    found = read_settings(started["environment"])
    assert (found.log_format, found.access_log, found.otlp) == ("text", False, "http://other/v1/traces")
    assert (found.keys_file, found.verify_key) == (Path("/other.json"), Path("/other.pub"))


def test_without_a_file_of_keys_none_is_named(project: Project, started: dict[str, Any]) -> None:
    project.params_file.write_text("")
    serve(project)
    found = read_settings(started["environment"])
    assert (started["host"], started["tls"]) == ("127.0.0.1", None)
    assert (found.keys_file, found.verify_key, found.grace_s) == (None, None, 2.0)
    assert (found.log_format, found.access_log, found.otlp) == ("text", False, None)


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
