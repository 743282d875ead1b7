"""One thread for work that would keep the event loop from other calls; who would wait for it too long is turned away.

In: work, one call after the other. Out: what it gives. Several threads would take as long together, each call waiting
for all of them, and keep the event loop from the interpreter's lock. Knows nothing about what is worked on.
"""

import asyncio
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from contextvars import copy_context
from time import monotonic
from typing import TypeVar

from recops.serving.problems import Problem

T = TypeVar("T")
NEWEST = 0.2  # what the last call counts in what a call takes


class Lane:
    """Used from one event loop. `work_s`: what a call has taken lately, without its waiting."""

    def __init__(self, name: str) -> None:
        self.num_calls = 0  # that wait, or are worked on
        self.work_s = 0.0
        self._thread = ThreadPoolExecutor(1, name)

    def check(self, longest_s: float) -> None:
        """Raises Problem 429 where a new call would wait longer than that, and for more than one other."""
        if self.num_calls > 1 and self.num_calls * self.work_s > longest_s:
            raise Problem(429, "this worker is busy with the batches that it has", headers={"Retry-After": "1"})

    @asynccontextmanager
    async def call(self) -> "AsyncIterator[Turn]":
        """A call that has work, in one or several parts."""
        turn = Turn(self._thread)
        self.num_calls += 1
        try:
            yield turn
        finally:
            self.num_calls -= 1
            self.work_s += (turn.work_s - self.work_s) * NEWEST


class Turn:
    """The work of one call so far."""

    def __init__(self, thread: ThreadPoolExecutor) -> None:
        self.work_s = 0.0
        self._thread = thread

    async def run(self, work: Callable[[], T]) -> T:
        """What `work` gives, on the thread, after what was asked of it before."""
        return await asyncio.get_running_loop().run_in_executor(self._thread, copy_context().run, self._timed, work)

    def _timed(self, work: Callable[[], T]) -> T:
        start = monotonic()
        try:
            return work()
        finally:
            self.work_s += monotonic() - start
