"""Halts canaries that their guardrails or their own failures speak against, on a thread of its own in each worker.

In: the store, and what the workers say of answers that failed. Out: the traffic in the store, changed. One worker looks
at the outcomes, always the same one while it lives, since it keeps their figures; it takes at most a twentieth of its
time.
"""

import logging
import threading
import time
from collections import Counter
from collections.abc import Callable
from uuid import uuid4

from recops.serving import counters
from recops.serving.live import Kinds
from recops.serving.traffic import control
from recops.serving.traffic.arms import Arm, Traffic
from recops.serving.traffic.running import Running
from recops.store import Store

logger = logging.getLogger("recops.serving")

CHECKED = "traffic checked"  # the report that says when the last look was, by whom, and how long it took
MOST_FAILURES = 10  # answers of a challenger that may fail in one worker
REST = 20  # seconds of rest for each second of looking
MISSED = 3  # looks, after which another worker takes over from the one that has the figures


class Watch:
    """`check_s`: between two looks. `changed` is called when something was halted."""

    def __init__(
        self,
        store: Store,
        running: Running,
        traffic: Callable[[], Traffic],
        kinds: Callable[[], Kinds],
        changed: Callable[[], None],
        check_s: float,
    ) -> None:
        self._store, self._running, self._traffic, self._kinds = store, running, traffic, kinds
        self._changed, self._check_s = changed, check_s
        self._name = uuid4().hex
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
                self._halt(arm, f"{self._failures[arm.name, arm.since]} answers failed in one worker")

    def _look(self) -> None:
        traffic = self._traffic()
        if not any(arm.is_shown and arm.guardrails for arm in traffic.arms):
            return
        last, now = self._store.report(CHECKED) or {"at": 0.0, "took_s": 0.0}, time.time()
        rest_s = max(self._check_s, REST * last["took_s"]) * (0.9 if last.get("by") == self._name else MISSED)
        # A time to come is that of a clock that was wrong.
        if 0 <= now - last["at"] < rest_s:
            return
        self._store.put_report(CHECKED, {"at": now, "took_s": last["took_s"], "by": self._name})
        for name, why in control.failing(self._running, traffic, self._kinds()).items():
            self._halt(next(arm for arm in traffic.arms if arm.name == name), why)
        self._store.put_report(CHECKED, {"at": now, "took_s": time.time() - now, "by": self._name})

    def _halt(self, arm: Arm, why: str) -> None:
        control.halt(self._store, arm, why)
        logger.warning("challenger %s is no longer shown: %s", arm.name, why)
        self._changed()
