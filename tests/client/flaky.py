"""A service on this machine, in a thread, that answers what it is planned to, and then an empty object."""

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, NamedTuple

PROBLEM = {"error": "some", "field": "k", "message": "said so", "request_id": "r1"}


class Seen(NamedTuple):
    line: str
    headers: dict[str, str]
    body: Any


class Flaky(ThreadingHTTPServer):
    """`planned`: status and headers of answers, bytes to answer as they are, or what else to do: close (without an
    answer), cut (in the middle of one), hang (until the end), drip (a byte each 20 ms)."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server_port}"
        self.planned: list[tuple[int, dict[str, str]] | bytes | str] = []
        self.seen: list[Seen] = []
        self.ending = threading.Event()

    def plan(self, *answers: tuple[int, dict[str, str]] | bytes | str | int) -> None:
        self.planned = [(one, {}) if isinstance(one, int) else one for one in answers]
        self.seen = []


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    server: Flaky

    def do_POST(self) -> None:
        content = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        headers = {name.lower(): value for name, value in self.headers.items()}
        self.server.seen.append(Seen(self.requestline.rsplit(" ", 1)[0], headers, json.loads(content or b"null")))
        planned = self.server.planned.pop(0) if self.server.planned else b"{}"
        if planned == "close":
            self.close_connection = True
        elif planned == "hang":
            self.close_connection = self.server.ending.wait(30)
        elif planned in ("cut", "drip"):
            self.answer(200, {"Content-Length": "1000"}, b"{")
            while planned == "drip" and not self.server.ending.wait(0.02):
                try:
                    self.wfile.write(b" ")
                except OSError:
                    break
            self.close_connection = True
        elif isinstance(planned, bytes):
            self.answer(200, {"Content-Length": str(len(planned)), "x-request-id": "r2"}, planned)
        else:
            status, more = planned
            body = json.dumps(PROBLEM).encode()
            self.answer(status, {"Content-Length": str(len(body)), **more}, body)

    do_GET = do_DELETE = do_POST

    def answer(self, status: int, headers: dict[str, str], body: bytes) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: Any) -> None:
        """Silent."""


@contextmanager
def running() -> Iterator[Flaky]:
    """A server that is listening; closed at the end."""
    with Flaky() as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield server
        finally:
            server.ending.set()
            server.shutdown()
            thread.join()
