"""What `recops serve` refuses before it starts anything, and the settings it hands on."""

import socket
from pathlib import Path

import pytest

from recops.errors import CallError
from recops.serving import launch
from recops.serving.keys import add_key, revoke_key
from recops.serving.settings import Settings, read_settings
from recops.signing import make_keys
from tests.serving.certificates import write_certificate


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


def test_a_format_that_is_none_is_named():
    with pytest.raises(CallError, match="RECOPS_LOG_FORMAT: expected text or json, found 'xml'"):
        read_settings({"RECOPS_LOG_FORMAT": "xml"})


def test_lines_of_json_are_all_there_is(started, capsys):
    with pytest.raises(Started):
        call(environment={"RECOPS_LOG_FORMAT": "json"})
    assert capsys.readouterr().out == ""


def test_empty_settings_count_as_not_set():
    assert read_settings({"RECOPS_RELEASES": "", "RECOPS_API_KEYS": " , "}) == Settings()


def test_a_file_of_keys_lets_the_service_leave_this_machine(started, tmp_path):
    file = tmp_path / "keys.json"
    environment = {"RECOPS_KEYS_FILE": str(file)}
    with pytest.raises(CallError, match=f"{file}: no such file of keys"):
        call(host="0.0.0.0", environment=environment)
    add_key(file, "shop", "read")
    with pytest.raises(Started):
        call(host="0.0.0.0", environment=environment)
    assert read_settings(started["environment"]).keys_file == file
    revoke_key(file, "shop")
    started.clear()
    with pytest.raises(CallError, match="holds no keys"):
        call(environment=environment)
    assert not started


def test_a_certificate_is_handed_on_and_must_be_there(started, tmp_path, capsys):
    cert, key = tmp_path / "cert.pem", tmp_path / "key.pem"
    cert.touch()
    with pytest.raises(CallError, match=rf"{key}: no such file \(serve.tls_cert, serve.tls_key\)"):
        call(tls=(cert, key))
    write_certificate(cert, key)
    with pytest.raises(Started):
        call(tls=(cert, key))
    assert started["command"][-4:] == ["--ssl-certfile", str(cert), "--ssl-keyfile", str(key)]
    assert capsys.readouterr().out.startswith("recops: https://")


def test_files_that_are_no_certificate_with_its_key_are_named(started, tmp_path):
    """The server would say nothing and never answer."""
    for name, password in (("one", None), ("other", None), ("locked", b"secret")):
        write_certificate(tmp_path / f"{name}.pem", tmp_path / f"{name}.key", password)
    (tmp_path / "junk.pem").write_text("junk")
    for cert, key in (
        ("one.pem", "other.key"),
        ("junk.pem", "one.key"),
        ("one.pem", "junk.pem"),
        ("locked.pem", "locked.key"),
    ):
        with pytest.raises(CallError, match=f"{cert}.*{key}: no certificate and its private key"):
            call(tls=(tmp_path / cert, tmp_path / key))
    assert not started


def test_a_key_to_verify_with_is_looked_at_before_the_start(started, tmp_path):
    (tmp_path / "none.pem").write_text("none")
    with pytest.raises(CallError, match="not an ed25519 public key"):
        call(environment={"RECOPS_VERIFY_KEY": str(tmp_path / "none.pem")})
    assert not started
    public = make_keys(tmp_path / "key.pem")
    with pytest.raises(Started):
        call(environment={"RECOPS_VERIFY_KEY": str(public), "RECOPS_GRACE_S": "0"})
    settings = read_settings(started["environment"])
    assert (settings.verify_key, settings.grace_s) == (public, 0.0)


def test_rules_that_are_wrong_are_named_before_anything_starts(started, tmp_path):
    rules = tmp_path / "rules.yaml"
    rules.write_text("available: true\nboost: [{items: [a], factor: 0.5}]\n")
    with pytest.raises(CallError, match=r"rules\.yaml: boost\[0\]\.factor: "):
        call(environment={"RECOPS_RULES": str(rules)})
    with pytest.raises(CallError, match=r"none\.yaml: no such file of rules"):
        call(environment={"RECOPS_RULES": str(tmp_path / "none.yaml")})
    assert not started
    rules.write_text("available: true\n")
    with pytest.raises(Started):
        call(environment={"RECOPS_RULES": str(rules)})
    assert read_settings(started["environment"]).rules.filters == (("available", True),)
