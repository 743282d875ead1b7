"""Halts canaries that their guardrails or their own failures speak against, on a thread of its own in each worker.

In: the store, and what the workers say of answers that failed. Out: the traffic in the store, changed. One worker at a
time looks at the outcomes; looking takes at most a twentieth of one worker's time, however long the log is.
"""

import logging
import threading
import time
from collections import Counter
from collections.abc import Callable

from recops.serving import counters
from recops.serving.live import Kinds
from recops.serving.traffic import control
from recops.serving.traffic.arms import Traffic
from recops.store import Store

logger = logging.getLogger("recops.serving")

CHECKED = "traffic checked"  # the report that says when the last look was, and how long it took
MOST_FAILURES = 10  # answers of a challenger that may fail in one worker
REST = 20  # seconds of rest for each second of looking


class Watch:
    """`check_s`: between two looks. `changed` is called when something was halted."""

    def __init__(
        self,
        store: Store,
        traffic: Callable[[], Traffic],
        kinds: Callable[[], Kinds],
        changed: Callable[[], None],
        check_s: float,
        window_us: int,
    ) -> None:
        self._store, self._traffic, self._kinds, self._changed = store, traffic, kinds, changed
        self._check_s, self._window_us = check_s, window_us
        self._failures: Counter[tuple[str, int]] = Counter()  # by name and start of the arm
        self._wake, self._closing = threading.Event(), threading.Event()
        self._thread = threading.Thread(target=self._run, name="traffic-watch", daemon=True)
        self._thread.start()

    def failed(self, name: str) -> None:
        """An answer of this challenger ended in an error; its user was answered by the served release. Never waits."""
        since = next((arm.since for arm in self._traffic().arms if arm.name == name), 0)
        self._failures[name, since] += 1
        if self._failures[name, since] == MOST_FAILURES:
            self._wake.set()

    def close(self) -> None:
        self._closing.set()
        self._wake.set()
        self._thread.join()

    def _run(self) -> None:
        while True:
            self._wake.wait(self._check_s)
            self._wake.clear()
            if self._closing.is_set():
                return
            try:
                self._halt_failing()
                self._look()
            except Exception:
                logger.exception("challengers could not be judged")
                counters.STORE_ERRORS.inc()

    def _halt_failing(self) -> None:
        for arm in self._traffic().arms:
            if arm.halted is None and self._failures[arm.name, arm.since] >= MOST_FAILURES:
                self._halt(arm.name, f"{self._failures[arm.name, arm.since]} answers failed in one worker")

    def _look(self) -> None:
        traffic = self._traffic()
        if not any(arm.is_shown and arm.guardrails for arm in traffic.arms):
            return
        last, now = self._store.report(CHECKED) or {"at": 0.0, "took_s": 0.0}, time.time()
        if now - last["at"] < max(self._check_s, REST * last["took_s"]) * 0.9:
            return
        self._store.put_report(CHECKED, {"at": now, "took_s": last["took_s"]})
        for name, why in control.failing(self._store, traffic, self._kinds(), self._window_us).items():
            self._halt(name, why)
        self._store.put_report(CHECKED, {"at": now, "took_s": time.time() - now})

    def _halt(self, name: str, why: str) -> None:
        control.halt(self._store, name, why)
        logger.warning("challenger %s is no longer shown: %s", name, why)
        self._changed()
