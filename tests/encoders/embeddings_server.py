"""A server that speaks OpenAI's protocol of embeddings, on this machine, in a thread."""

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

KEY = "secret-7"


class Server(ThreadingHTTPServer):
    """Answers a text with [its length, 1, 0], the last first; with 400 where one is longer than `longest`. `planned`
    are answers to give before: (status, headers, body); `calls` are the bodies it was sent."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.longest = 1_000_000
        self.planned: list[tuple[int, dict[str, str], Any]] = []
        self.calls: list[dict[str, Any]] = []
        self.url = f"http://127.0.0.1:{self.server_port}/v1"


class Handler(BaseHTTPRequestHandler):
    server: Server

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.server.calls.append(body)
        if self.server.planned:
            self.answer(*self.server.planned.pop(0))
        elif self.path != "/v1/embeddings" or self.headers.get("Authorization") != f"Bearer {KEY}":
            self.answer(401, {}, {"error": {"message": "Incorrect API key"}})
        elif max(map(len, body["input"])) > self.server.longest:
            self.answer(400, {}, {"error": {"message": "maximum context length"}})
        else:
            vectors = [{"index": i, "embedding": [len(asked), 1, 0]} for i, asked in enumerate(body["input"])]
            self.answer(200, {}, {"object": "list", "data": vectors[::-1], "model": body["model"]})

    def answer(self, status: int, headers: dict[str, str], body: Any) -> None:
        data = json.dumps(body).encode()
        self.send_response(status)
        for name, value in {**headers, "Content-Length": str(len(data))}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *_: Any) -> None:
        """Silent."""


@contextmanager
def running() -> Iterator[Server]:
    """A server that is listening; closed at the end."""
    with Server() as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield server
        server.shutdown()
        thread.join()
