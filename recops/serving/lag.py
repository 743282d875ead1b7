"""How far the logs of a worker are behind the disk, as gauges, looked at once a second.

On a thread of its own: those that write wait for the disk, and calls have better things to do. Knows no store.
"""

import threading
import time
from collections.abc import Mapping, Sequence
from typing import Protocol

from recops.serving import counters

EVERY_S = 1.0


class Log(Protocol):
    """`oldest_at`: Unix seconds of the oldest entry that is being written, None while none is."""

    @property
    def num_waiting(self) -> int: ...
    @property
    def oldest_at(self) -> float | None: ...


class Lag:
    """Looks at logs until it is closed; those of one kind, one for each tenant, count together."""

    def __init__(self, logs: Mapping[str, Sequence[Log]], every_s: float = EVERY_S) -> None:
        self.logs, self.every_s = logs, every_s
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._run, name="log-lag", daemon=True)
        self._thread.start()

    def look(self, now: float) -> None:
        """Sets the gauges as of `now` (Unix seconds)."""
        for name, logs in self.logs.items():
            counters.LOG_WAITING.labels(name).set(sum(log.num_waiting for log in logs))
            written = [oldest_at for log in logs if (oldest_at := log.oldest_at) is not None]
            counters.LOG_LAG.labels(name).set(max(now - min(written), 0) if written else 0)

    def close(self) -> None:
        self._closing.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._closing.wait(self.every_s):
            self.look(time.time())
