"""Files that items name: read inside of the source's folder alone, fetched from allowed hosts alone."""

import os
import socket
import ssl
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from recops.encoders.content.files import FileOptions, ItemFiles, is_public
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
        status = 302 if target else 200 if self.path in ("/a.png", "/drops") else 404
        self.send_response(status)
        if target:
            self.send_header("Location", target)
        self.send_header("Content-Length", "7")
        self.end_headers()
        if self.path != "/drops":
            self.wfile.write(b"picture")
            return
        for drop in (b"p", b"i", b"c", b"t", b"u", b"r"):  # and one that never comes
            self.wfile.write(drop)
            time.sleep(0.1)

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


def test_a_file_that_comes_drop_by_drop_is_given_up(address: str) -> None:
    """Each drop comes in time."""
    with pytest.raises(UnreadableError, match=r"^comes too slowly$"):
        files(None, hosts=["127.0.0.1"], timeout_s=0.4).read(f"{address}/drops")


@pytest.mark.parametrize(
    ("address", "public"),
    [
        ("8.8.8.8", True),
        ("2606:4700::1111", True),
        ("127.0.0.1", False),
        ("0.0.0.0", False),
        ("10.1.2.3", False),
        ("172.16.0.1", False),
        ("192.168.1.1", False),
        ("100.64.0.1", False),
        ("169.254.169.254", False),
        ("224.0.0.1", False),
        ("255.255.255.255", False),
        ("::1", False),
        ("::", False),
        ("fe80::1%eth0", False),
        ("fc00::1", False),
        ("ff02::1", False),
        ("::ffff:127.0.0.1", False),
        ("::ffff:8.8.8.8", True),
        ("2002:7f00:1::", False),  # 6to4 of 127.0.0.1
        ("64:ff9b::7f00:1", False),  # NAT64 of 127.0.0.1
        ("64:ff9b::808:808", True),
        ("64:ff9b:1::808:808", False),  # NAT64 of a network's own
        ("::7f00:1", False),  # 127.0.0.1 once more
        ("fec0::1", False),
        ("a name", False),
    ],
)
def test_which_addresses_are_of_the_public_internet(address: str, public: bool) -> None:
    assert is_public(address) is public


@pytest.fixture
def names(monkeypatch: pytest.MonkeyPatch) -> dict[str, list[str]]:
    """What names lead to, in place of a name server."""
    known: dict[str, list[str]] = {}
    look_up = socket.getaddrinfo

    def answered(host: str, port: int, *arguments: Any, **options: Any) -> list[Any]:
        if host not in known:
            return look_up(host, port, *arguments, **options)
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, port)) for address in known[host]]

    monkeypatch.setattr(socket, "getaddrinfo", answered)
    return known


def test_a_name_that_leads_into_a_private_network_is_not_fetched(address: str, names: dict[str, list[str]]) -> None:
    """The server is there and would answer; one private address among public ones is enough to stay away."""
    port = address.rpartition(":")[2]
    url = f"http://images.example:{port}/a.png"
    for leads_to in (["127.0.0.1"], ["203.0.113.1", "127.0.0.1"], ["10.0.0.1"], ["169.254.169.254"]):
        names["images.example"] = leads_to
        with pytest.raises(UnreadableError, match=r"^an address of a private network$"):
            files(None, hosts=["images.example"], timeout_s=2).read(url)
    # The operator may name the address too: then it is meant.
    names["images.example"] = ["127.0.0.1"]
    assert files(None, hosts=["images.example", "127.0.0.1"]).read(url) == b"picture"


def test_what_was_looked_up_is_what_is_connected_to(
    address: str, names: dict[str, list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A name that leads to a public address when it is checked and to this machine when it is used."""
    connected: list[tuple[str, int]] = []

    def connect(place: tuple[str, int], *_: Any) -> socket.socket:
        connected.append(place)
        names["images.example"] = ["127.0.0.1"]
        raise OSError("nobody there")

    monkeypatch.setattr(socket, "create_connection", connect)
    names["images.example"] = ["8.8.8.8", "8.8.4.4"]
    with pytest.raises(UnreadableError, match=r"^cannot be fetched$"):
        files(None, hosts=["images.example"]).read("http://images.example/a.png")
    assert connected == [("8.8.8.8", 80), ("8.8.4.4", 80)]


def test_a_redirect_to_a_private_address_is_not_followed(address: str, names: dict[str, list[str]]) -> None:
    """From a host that is allowed, meant by its address too, to another that is allowed and leads home."""
    port = address.rpartition(":")[2]
    names["localhost"] = ["127.0.0.2"]  # where /far leads
    with pytest.raises(UnreadableError, match=r"^an address of a private network$"):
        files(None, hosts=["127.0.0.1", "localhost"]).read(f"http://127.0.0.1:{port}/far")


def test_the_proxy_of_the_environment_is_not_asked(address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:1")
    monkeypatch.delenv("no_proxy", raising=False)
    assert files(None, hosts=["127.0.0.1"]).read(f"{address}/a.png") == b"picture"


def test_over_tls_the_certificate_is_of_the_name(names: dict[str, list[str]], monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str | None] = []

    def wrap(self: ssl.SSLContext, sock: socket.socket, *_: Any, server_hostname: str | None = None, **__: Any) -> None:
        asked.append(server_hostname)
        sock.close()
        raise ssl.SSLError("far enough")

    monkeypatch.setattr(ssl.SSLContext, "wrap_socket", wrap)
    with socket.create_server(("127.0.0.1", 0)) as listening:
        names["images.example"] = ["127.0.0.1"]
        url = f"https://images.example:{listening.getsockname()[1]}/a.png"
        with pytest.raises(UnreadableError, match=r"^cannot be fetched$"):
            files(None, hosts=["images.example", "127.0.0.1"]).read(url)
    assert asked == ["images.example"]


def test_a_link_that_takes_the_files_place_is_not_read(source: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Between the look at the path and the reading."""
    opened = os.open

    def swapped(path: Any, flags: int, *more: Any) -> int:
        (source / "pictures" / "a.png").unlink()
        (source / "pictures" / "a.png").symlink_to(source.parent / "secret")
        return opened(path, flags, *more)

    monkeypatch.setattr(os, "open", swapped)
    with pytest.raises(UnreadableError, match=r"^not readable$"):
        files(source).read("pictures/a.png")
