"""Lines of JSON, and a line for each request that names nobody."""

import io
import json
import logging
import warnings

import pytest

from recops.serving import logs
from recops.serving.request_ids import current_request


@pytest.fixture
def written(monkeypatch):
    """Configures logging to JSON for one test: the lines written so far."""
    root, access, ours = logging.getLogger(), logging.getLogger("recops.access"), logging.getLogger("recops.serving")
    loggers = [one for one in logging.Logger.manager.loggerDict.values() if isinstance(one, logging.Logger)]
    before = [(one, list(one.handlers), one.propagate, one.level) for one in (*loggers, root)]
    stream = io.StringIO()
    logs.configure("json", True, stream)
    ours.setLevel(logging.INFO)
    yield lambda: [json.loads(line) for line in stream.getvalue().splitlines()]
    logging.captureWarnings(False)
    for one, handlers, propagate, level in before:
        one.handlers[:], one.propagate = handlers, propagate
        one.setLevel(level)
    access.setLevel(logging.NOTSET)


def test_a_line_holds_what_happened(written):
    logger = logging.getLogger("recops.serving")
    logger.warning("%d of\n%s", 2, "zwölf")
    token = current_request.set("0123")
    try:
        raise ValueError("no good")
    except ValueError:
        logger.exception("failed")
    finally:
        current_request.reset(token)
    first, second = written()
    assert first.pop("time").endswith("+00:00")
    assert first == {"level": "WARNING", "logger": "recops.serving", "message": "2 of\nzwölf"}
    assert (second["level"], second["message"], second["request_id"]) == ("ERROR", "failed", "0123")
    assert second["exception"].startswith("Traceback") and second["exception"].endswith("ValueError: no good")


def test_other_loggers_and_warnings_write_the_same(written):
    other = logging.getLogger("recops.test_logs")
    other.addHandler(logging.StreamHandler(io.StringIO()))
    logs.configure("json", False, io.StringIO())
    assert other.handlers == []
    other.propagate = True
    with warnings.catch_warnings():
        warnings.simplefilter("default")
        stream = io.StringIO()
        logs.configure("json", False, stream)
        warnings.warn("old", stacklevel=1)
    (line,) = [json.loads(line) for line in stream.getvalue().splitlines()]
    assert (line["logger"], line["level"]) == ("py.warnings", "WARNING") and "old" in line["message"]


def test_an_access_line_names_the_operation_and_nobody(serve, written):
    served = serve({"access_log": True, "keys": ("admin:the-key",)})
    headers = {"authorization": "Bearer the-key"}
    answer = served.client.get("/users/secret-user?limit=3", headers=headers)
    served.client.get("/secret/place", headers=headers)
    served.client.post("/recommend", json={"user_id": "secret-user"}, headers=headers)
    served.client.post("/recommend", json={"user_id": "secret-user"}, headers={"authorization": "Bearer secret-key"})
    served.client.get("/livez")
    lines = [line for line in written() if line["logger"] == "recops.access"]
    assert [(line["method"], line["path"], line["status"]) for line in lines] == [
        ("GET", "/users/{user_id}", 200),
        ("GET", "other", 404),
        ("POST", "/recommend", 200),
        ("POST", "other", 401),
    ]
    assert lines[0]["request_id"] == answer.headers["x-request-id"]
    assert [line.get("release") for line in lines] == [None, None, served.state.release.id, None]
    assert 0 < lines[0]["milliseconds"] < 20_000
    text = json.dumps(lines)
    assert "secret" not in text and "the-key" not in text and "127.0.0.1" not in text


def test_a_request_s_own_lines_carry_its_id(serve, written, monkeypatch):
    served = serve()
    monkeypatch.setattr(served.state.store, "known_of", lambda *_: 1 / 0)
    answer = served.client.post("/recommend", json={"user_id": "u1"})
    (line,) = [line for line in written() if "history of a user" in line["message"]]
    assert line["request_id"] == answer.json()["request_id"]
    assert "ZeroDivisionError" in line["exception"]


def test_access_lines_are_off_unless_asked_for(serve, caplog):
    with caplog.at_level(logging.DEBUG):
        serve().post("/recommend", user_id="u1")
    assert not [record for record in caplog.records if record.name == "recops.access"]
