"""Reads what is stored of users for calls that wait for it, and gives up on a store that does not answer.

A list made from less is better than none, so that a user whose history cannot be read is one nobody knows. Knows no
HTTP.
"""

import asyncio
import logging
import time
from concurrent.futures import ThreadPoolExecutor

from recops.serving import counters
from recops.serving.live import Kinds, stored_history
from recops.serving.release import Release
from recops.serving.retrieval import Stored
from recops.store import Store

WAIT_S = 0.5  # in which some history or other must have come
REST_S = 2.0  # from a reading that failed until one call tries again; the others go without
READERS = 4  # threads

logger = logging.getLogger("recops.serving")


class Reader:
    """Of one store. A store on another machine is read on threads of its own: every call of a worker would else wait
    with the first, the probes too."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._threads = ThreadPoolExecutor(READERS, "histories") if store.is_remote else None
        self._num_read = 0
        self._again_at: float | None = None  # of the monotonic clock; None: the last reading went well

    def history(self, release: Release, kinds: Kinds, user_id: str) -> Stored | None:
        """What is stored of a user at a release; None for one who is not known, or where that could not be read."""
        try:
            return self._read(release, kinds, user_id)
        except Exception:
            logger.exception("the history of a user could not be read")
            counters.STORE_ERRORS.inc()
            return None

    async def history_soon(self, release: Release, kinds: Kinds, user_id: str) -> Stored | None:
        """`history` without keeping other calls, and without waiting for a store that stands still."""
        if self._threads is None:
            return self.history(release, kinds, user_id)
        if self._again_at is not None:
            if time.monotonic() < self._again_at:
                counters.STORE_ERRORS.inc()
                return None
            self._again_at = time.monotonic() + REST_S
        reading = asyncio.wrap_future(self._threads.submit(self._read, release, kinds, user_id))
        try:
            await self._moving(reading)
            found = reading.result()
        except Exception as error:
            self._again_at = time.monotonic() + REST_S
            counters.STORE_ERRORS.inc()
            logger.error("the history of a user could not be read: %s", error)
            return None
        self._again_at = None
        return found

    async def _moving(self, reading: "asyncio.Future[Stored | None]") -> None:
        """Waits for a reading, and takes it back where nothing was read for WAIT_S. Raises TimeoutError then."""
        try:
            while True:
                num_read = self._num_read
                if (await asyncio.wait([reading], timeout=WAIT_S))[0]:
                    return
                if num_read == self._num_read:
                    raise TimeoutError(f"the store has not answered for {WAIT_S:g} s")
        finally:
            reading.cancel()

    def _read(self, release: Release, kinds: Kinds, user_id: str) -> Stored | None:
        found = stored_history(self._store, release.id, kinds, user_id, release.uses_time)
        self._num_read += 1
        return found

    def close(self) -> None:
        if self._threads is not None:
            self._threads.shutdown(cancel_futures=True)
