"""Calls at a steady rate, each on a connection of its own, so that any worker may answer."""

import http.client
import json
import threading
import time
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Answered:
    """`call` is the place of the call among those that are made in turn; status 0: no answer came."""

    started_at: float  # of the monotonic clock
    call: int
    status: int
    body: dict[str, Any]


class Load:
    """Makes `calls` (path and body) in turn, `per_second`, from when it is entered until it is left, late ones as well;
    `answers` has what came of them."""

    def __init__(self, port: int, calls: Sequence[tuple[str, dict[str, Any]]], per_second: float) -> None:
        self.port, self.calls, self.per_second = port, calls, per_second
        self.answers: list[Answered] = []
        self._halt = threading.Event()
        self._threads = [threading.Thread(target=self._run, args=(place,)) for place in range(NUM_CALLERS)]

    def __enter__(self) -> "Load":
        self.started_at = time.monotonic()
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._halt.set()
        for thread in self._threads:
            thread.join()
        self.took_s = time.monotonic() - self.started_at

    def _run(self, place: int) -> None:
        number = place
        while not self._halt.wait(max(self.started_at + number / self.per_second - time.monotonic(), 0)):
            self.answers.append(self._call(number % len(self.calls)))
            number += NUM_CALLERS

    def _call(self, call: int) -> Answered:
        path, body = self.calls[call]
        started_at = time.monotonic()
        try:
            with closing(http.client.HTTPConnection("127.0.0.1", self.port, timeout=20)) as connection:
                connection.request("POST", path, json.dumps(body), {"content-type": "application/json"})
                answer = connection.getresponse()
                return Answered(started_at, call, answer.status, json.loads(answer.read()))
        except OSError as error:
            return Answered(started_at, call, 0, {"error": repr(error)})


NUM_CALLERS = 8
