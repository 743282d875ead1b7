"""Files that items name: read inside of the source's folder alone, fetched from allowed hosts alone."""

import os
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from recops.encoders.content.files import FileOptions, ItemFiles
from recops.encoders.content.item_encoder import UnreadableError


@pytest.fixture
def source(tmp_path: Path) -> Path:
    folder = tmp_path / "source"
    (folder / "pictures").mkdir(parents=True)
    (folder / "pictures" / "a.png").write_bytes(b"picture")
    (folder / "empty").write_bytes(b"")
    (folder / "inside").symlink_to("pictures/a.png")
    (folder / "out").symlink_to(tmp_path / "secret")
    (folder / "circle").symlink_to("circle")
    os.mkfifo(folder / "pipe")
    (tmp_path / "secret").write_bytes(b"secret")
    return folder


def files(source: Path | None, **options: Any) -> ItemFiles:
    return ItemFiles(FileOptions(**options), source)


def test_what_is_in_the_folder_is_read(source: Path) -> None:
    assert files(source).read("pictures/a.png") == b"picture"
    assert files(source).read("pictures/../inside") == b"picture"
    assert files(source).read(str(source / "inside")) == b"picture"
    assert files(source, folder="pictures").read("a.png") == b"picture"
    assert files(source, max_bytes=7).read("inside") == b"picture"


@pytest.mark.parametrize(
    ("reference", "reason"),
    [
        ("../secret", "outside of the source's folder"),
        ("pictures/../../secret", "outside of the source's folder"),
        ("/etc/hostname", "outside of the source's folder"),
        ("out", "outside of the source's folder"),
        ("..", "outside of the source's folder"),
        ("b.png", "not found"),
        ("pictures", "not a file"),
        ("pipe", "not a file"),
        ("empty", "empty"),
        ("circle", "not readable"),
        ("a\0b", "not readable"),
        ("x" * 5000, "not readable"),
        ("file:///etc/hostname", "an address, and no hosts are allowed"),
        ("http://127.0.0.1/a.png", "an address, and no hosts are allowed"),
    ],
)
def test_anything_else_is_not(source: Path, reference: str, reason: str) -> None:
    with pytest.raises(UnreadableError) as told:
        files(source).read(reference)
    assert str(told.value) == reason


def test_limits(source: Path) -> None:
    with pytest.raises(UnreadableError, match=r"^larger than max_bytes$"):
        files(source, max_bytes=6).read("inside")
    with pytest.raises(UnreadableError, match=r"^no folder to read from$"):
        files(None).read("inside")
    with pytest.raises(UnreadableError, match=r"^outside of the source's folder$"):
        files(source, folder="pictures").read("../empty")


def test_which_file_an_item_has() -> None:
    named = files(None, file="posters/{item_id}.jpg")
    assert named.reference({"item_id": "7"}, None) == "posters/7.jpg"
    assert named.reference({"item_id": "7"}, " own.png ") == "own.png"
    assert files(None).reference({"item_id": "7"}, "") is None


class Handler(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        targets = {"/near": "/a.png", "/far": "http://localhost:1/a.png", "/round": "/round", "/odd": "http://[::1/a"}
        target = targets.get(self.path)
        status = 302 if target else 200 if self.path == "/a.png" else 404
        self.send_response(status)
        if target:
            self.send_header("Location", target)
        self.send_header("Content-Length", "7")
        self.end_headers()
        self.wfile.write(b"picture")

    def log_message(self, *_: Any) -> None:
        """Silent."""


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


def test_an_allowed_host_is_fetched_from(address: str) -> None:
    allowed = files(None, hosts=["127.0.0.1"])
    assert allowed.read(f"{address}/a.png") == allowed.read(f"{address}/near") == b"picture"


@pytest.mark.parametrize(
    ("path", "reason"),
    [
        ("/b.png", "answered 404"),
        ("/far", "a host that is not allowed"),
        ("/round", "too many redirects"),
        ("/odd", "cannot be fetched"),
    ],
)
def test_answers_that_are_no_file(address: str, path: str, reason: str) -> None:
    with pytest.raises(UnreadableError, match=f"^{reason}$"):
        files(None, hosts=["127.0.0.1"]).read(f"{address}{path}")


@pytest.mark.parametrize(
    ("reference", "reason"),
    [
        ("http://localhost/a.png", "a host that is not allowed"),
        ("http://127.0.0.1@localhost/a.png", "a host that is not allowed"),
        ("ftp://127.0.0.1/a.png", "neither http nor https"),
        ("file://127.0.0.1/etc/hostname", "neither http nor https"),
        ("http://[::1/a.png", "not an address"),
        ("http://127.0.0.1:1/a.png", "cannot be fetched"),
        ("http://127.0.0.1:1/a b\n.png", "cannot be fetched"),
    ],
)
def test_addresses_that_are_not_fetched(reference: str, reason: str) -> None:
    with pytest.raises(UnreadableError, match=f"^{reason}$"):
        files(None, hosts=["127.0.0.1"], timeout_s=2).read(reference)


def test_a_fetched_file_has_the_same_limit(address: str) -> None:
    with pytest.raises(UnreadableError, match=r"^larger than max_bytes$"):
        files(None, hosts=["127.0.0.1"], max_bytes=6).read(f"{address}/a.png")
