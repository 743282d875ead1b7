"""What the doctor finds in a project that is fine, one that is not, and in no project."""

from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from threading import Thread

import pytest

from recops.errors import CallError
from recops.params import ServeParams
from recops.stages import doctor


def test_each_thing_has_a_verdict(tmp_path: Path) -> None:
    (tmp_path / "params.yaml").write_text("train: {model: ease}\nserve: {port: 1}\n")
    rows = {what: (found, works) for what, found, works in doctor.doctor(tmp_path)}
    assert rows["params.yaml"] == ("model ease, source movielens_small", "yes")
    assert rows["release"] == ("none yet", "recops run")
    assert rows["service"] == ("not running", "recops serve")
    assert {"python", "torch", "onnxruntime", "dvc", "device", "memory", "disk", "git"} <= set(rows)


def test_wrong_settings_are_told_and_the_rest_is_still_looked_at(tmp_path: Path) -> None:
    (tmp_path / "params.yaml").write_text("trian: {}\n")
    rows = {what: works for what, _, works in doctor.doctor(tmp_path)}
    assert "trian" in rows["params.yaml"]
    assert rows["release"] == "recops run"


def test_a_folder_that_is_not_there_is_told(tmp_path: Path) -> None:
    with pytest.raises(CallError, match="no such folder"):
        doctor.doctor(tmp_path / "nowhere")


@pytest.mark.parametrize(("status", "works"), [(200, "yes"), (503, "another program there")])
def test_what_answers_at_the_port_is_told(status: int, works: str) -> None:
    class Answer(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(status)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    with HTTPServer(("127.0.0.1", 0), Answer) as server:
        Thread(target=server.handle_request, daemon=True).start()
        assert doctor.service(ServeParams(port=server.server_port))[2].startswith(works)
