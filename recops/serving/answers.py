"""Writes answers to the store behind the requests' backs: in batches, on a thread of its own, from a bounded queue.

What was answered is in the store within a second. A store that is away for a while, such as a server that is started
anew, is tried again. A full queue drops the newest answer and counts it, since a slow disk must not slow the answers
down. Knows nothing about HTTP.
"""

import logging
import queue
import threading
import time
from typing import Any

from recops.serving import counters
from recops.store import Store

AGAIN_S = (0.5, 1.0, 2.0, 4.0, 8.0, 16.0)  # between attempts to write a batch
LOGGED = ("item_id", "rank", "score")  # of each item shown; and its propensity, 1 where no chance was at work

logger = logging.getLogger("recops.serving")


class AnswerLog:
    """`add` never waits; `close` returns once everything added before is written."""

    def __init__(
        self,
        store: Store,
        wait_s: float = 0.2,
        max_batch: int = 1000,
        max_queue: int = 20_000,
        max_items: int = 400_000,
    ) -> None:
        self.store = store
        self.wait_s = wait_s
        self.max_batch = max_batch
        self._queue: queue.SimpleQueue[dict[str, Any]] = queue.SimpleQueue()
        self._max_queue, self._max_items = max_queue, max_items
        self._num_in_hand = 0
        self._num_items = 0  # of all that waits: a list of 1,000 takes as much memory as 100 lists of ten
        self._lock = threading.Lock()
        self.oldest_at: float | None = None  # Unix seconds, of what is being written
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._run, name="answer-log", daemon=True)
        self._thread.start()

    def add(self, answer: dict[str, Any]) -> None:
        num_items = len(answer["items"])
        with self._lock:
            is_full = self._queue.qsize() >= self._max_queue or self._num_items + num_items > self._max_items
            self._num_items += 0 if is_full else num_items
        if is_full:
            counters.ANSWERS.labels("dropped").inc()
        else:
            self._queue.put(answer)

    def add_list(
        self, answer: dict[str, Any], propensities: list[float] | None, time: int, user_id: str | None
    ) -> None:
        """What was answered, with how probable it was that each item stood at its rank; None: no chance was at work."""
        items = answer["items"]
        if propensities is not None:
            items = [{**one, "propensity": p} for one, p in zip(items, propensities, strict=True)]
        self.add({**answer, "items": items, "time": time, "user_id": user_id})

    @property
    def num_waiting(self) -> int:
        """Answers that are not written yet."""
        return self._queue.qsize() + self._num_in_hand

    def close(self) -> None:
        self._closing.set()
        self._thread.join()

    def _run(self) -> None:
        while True:
            closing = self._closing.wait(self.wait_s)
            while batch := self._batch():
                self._write(batch)
            if closing:
                return

    def _batch(self) -> list[dict[str, Any]]:
        batch: list[dict[str, Any]] = []
        while len(batch) < self.max_batch and not self._queue.empty():
            batch.append(self._queue.get())
        return batch

    def _write(self, batch: list[dict[str, Any]]) -> None:
        self._num_in_hand, self.oldest_at = len(batch), batch[0]["time"] / 1e6
        for wait_s in (*AGAIN_S, None):
            try:
                self.store.log_answers({**a, "items": [_logged(i) for i in a["items"]]} for a in batch)
                counters.ANSWERS.labels("logged").inc(len(batch))
                counters.LOG_WRITTEN.labels("answers").set(time.time())
                break
            except Exception as error:
                # What is wrong in itself stays so; while the service ends there is one attempt.
                is_hopeless = isinstance(error, (ValueError, TypeError, LookupError, AttributeError))
                if wait_s is None or is_hopeless or self._closing.wait(wait_s):
                    logger.exception("%d answers could not be logged", len(batch))
                    counters.ANSWERS.labels("lost").inc(len(batch))
                    break
        self._num_in_hand, self.oldest_at = 0, None
        with self._lock:
            self._num_items -= sum(len(answer["items"]) for answer in batch)


def _logged(item: dict[str, Any]) -> dict[str, Any]:
    return {**{name: item[name] for name in LOGGED}, "propensity": item.get("propensity", 1.0)}
