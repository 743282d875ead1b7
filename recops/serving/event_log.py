"""Puts events into the store before their calls are answered: on one thread, many calls in one transaction.

A transaction waits for the disk, so whatever arrives meanwhile shares the next one. Knows nothing about HTTP.
"""

import asyncio
import logging
import queue
import threading
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import Future
from typing import Any

from recops.serving import counters
from recops.store import Store

logger = logging.getLogger("recops.serving")

Event = Mapping[str, Any]
Told = tuple[Sequence[Event], "Future[list[bool]]", float]  # of one call, and when (Unix seconds)


class FullError(Exception):
    """More events wait than may."""


class EventLog:
    """`add` waits until the events are on disk; `close` returns once everything added before is."""

    def __init__(self, store: Store, max_batch: int = 2_000, max_waiting: int = 50_000) -> None:
        self.store = store
        self.max_batch, self.max_waiting = max_batch, max_waiting
        self._queue: queue.SimpleQueue[Told | None] = queue.SimpleQueue()
        self.num_waiting = 0  # events that are not on disk yet
        self.oldest_at: float | None = None  # Unix seconds, of what is being written
        self._lock = threading.Lock()
        self._thread = threading.Thread(target=self._run, name="event-log", daemon=True)
        self._thread.start()

    def add(self, events: Sequence[Event]) -> "asyncio.Future[list[bool]]":
        """Which of the events are new, once all are on disk. Raises FullError at once where too many wait, and later
        what the store raised: then none of them is there."""
        with self._lock:
            if self.num_waiting + len(events) > self.max_waiting:
                raise FullError
            self.num_waiting += len(events)
        done: Future[list[bool]] = Future()
        self._queue.put((events, done, time.time()))
        return asyncio.wrap_future(done)

    def close(self) -> None:
        self._queue.put(None)
        self._thread.join()

    def _run(self) -> None:
        is_closing = False
        while not is_closing:
            first = self._queue.get()
            calls = [] if first is None else [first]
            is_closing = first is None
            num_events = sum(len(events) for events, _, _ in calls)
            while num_events < self.max_batch and not self._queue.empty():
                call = self._queue.get()
                if call is None:
                    is_closing = True
                    break
                calls.append(call)
                num_events += len(call[0])
            if calls:
                self._write(calls, num_events)

    def _write(self, calls: list[Told], num_events: int) -> None:
        self.oldest_at = calls[0][2]
        try:
            stored = self.store.put_events([event for events, _, _ in calls for event in events])
        except Exception as error:
            logger.exception("%d events could not be stored", num_events)
            counters.STORE_ERRORS.inc()
            for _, done, _ in calls:
                done.set_exception(error)
        else:
            counters.LOG_WRITTEN.labels("events").set(time.time())
            start = 0
            for events, done, _ in calls:
                done.set_result(stored[start : start + len(events)])
                start += len(events)
        finally:
            self.oldest_at = None
            with self._lock:
                self.num_waiting -= num_events
