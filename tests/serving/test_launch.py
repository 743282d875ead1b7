"""What `recops serve` refuses before it starts anything, and the settings it hands on."""

import socket
from pathlib import Path

import pytest

from recops.errors import CallError
from recops.serving import launch
from recops.serving.settings import Settings, read_settings


class Started(Exception):
    pass


@pytest.fixture
def started(monkeypatch):
    """Takes the place of the server: the command and environment it would have been started with."""
    found = {}

    def execve(path, command, environment):
        found.update(command=command, environment=environment)
        raise Started

    monkeypatch.setattr(launch.os, "execve", execve)
    return found


def call(**changes):
    options = {
        "releases": Path("/r"),
        "bundle": None,
        "store": "sqlite:////s",
        "host": "127.0.0.1",
        "port": 0,
        "workers": 2,
        "environment": {"BENTOML_HOME": "/b"},
    }
    launch.serve(**{**options, **changes})


def test_settings_reach_the_server(started):
    with pytest.raises(Started):
        call()
    settings = read_settings(started["environment"])
    assert settings == Settings(releases=Path("/r"), store="sqlite:////s", workers=2)
    assert started["environment"]["BENTOML_HOME"] == "/b"
    assert started["command"][-4:] == ["--host", "127.0.0.1", "--port", "0"]


def test_a_taken_port_is_an_error_that_says_so(started, monkeypatch):
    monkeypatch.setattr(launch.check_port, "__defaults__", (0.0,))
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        with pytest.raises(CallError, match=f"127.0.0.1:{port}.*another --port"):
            call(port=port)
    assert not started


def test_other_addresses_need_keys(started):
    with pytest.raises(CallError, match=r"recops keys add.*RECOPS_API_KEYS"):
        call(host="0.0.0.0")
    assert not started
    with pytest.raises(Started):
        call(host="0.0.0.0", environment={"RECOPS_API_KEYS": "secret"})
    assert read_settings(started["environment"]).keys == ("secret",)
    assert "secret" not in " ".join(started["command"])


@pytest.mark.parametrize("text", ["many", "0", "-1", "nan", "inf"])
def test_settings_that_are_wrong_are_named(text):
    with pytest.raises(CallError, match="RECOPS_WORKERS"):
        read_settings({"RECOPS_WORKERS": text})


def test_empty_settings_count_as_not_set():
    assert read_settings({"RECOPS_RELEASES": "", "RECOPS_API_KEYS": " , "}) == Settings()
