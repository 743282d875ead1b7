"""Asks challengers in shadow what they would have answered, behind the requests' backs: on a thread of its own, from a
bounded queue. What does not fit is left out and counted, since a challenger must slow nobody down.

In: a request that was answered. Out: the challenger's answer in the log, under a variant that nobody was shown.
"""

import logging
import queue
import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from recops.serving import counters
from recops.serving.requests import Recommend
from recops.serving.traffic.arms import Arm

logger = logging.getLogger("recops.serving")


@dataclass(frozen=True)
class Asked:
    """`time` in µs UTC is that of the answer that was shown."""

    arm: Arm
    request: Recommend
    request_id: str
    time: int


class Shadows:
    """`answer` makes and logs one answer of a challenger."""

    def __init__(self, answer: Callable[[Asked], Any], max_queue: int = 256) -> None:
        self._answer = answer
        self._queue: queue.Queue[Asked | None] = queue.Queue(max_queue)
        self._thread = threading.Thread(target=self._run, name="shadows", daemon=True)
        self._thread.start()

    def ask(self, asked: Asked) -> None:
        """Never waits."""
        try:
            self._queue.put_nowait(asked)
        except queue.Full:
            counters.SHADOWS.labels("left out").inc()

    def close(self) -> None:
        """What is in the queue is asked no more."""
        while True:
            try:
                self._queue.put_nowait(None)
                break
            except queue.Full:
                try:
                    self._queue.get_nowait()
                except queue.Empty:
                    continue
        self._thread.join()

    def _run(self) -> None:
        while (asked := self._queue.get()) is not None:
            try:
                self._answer(asked)
                counters.SHADOWS.labels("answered").inc()
            except Exception:
                logger.exception("challenger %s could not answer", asked.arm.name)
                counters.SHADOWS.labels("failed").inc()
