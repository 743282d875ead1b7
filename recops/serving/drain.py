"""Lets a worker that is told to end answer for a while yet, so that whoever sends it calls can notice.

On SIGTERM `/readyz` says 503 at once; new connections are served for `grace_s` more, and then the server's own ending
begins, which answers what it has taken. Knows nothing about the server but that it handles the signal.
"""

import asyncio
import signal
from types import FrameType

from recops.serving.state import State


def before_the_end(state: State) -> None:
    """Puts the grace time before what SIGTERM does now; called on the event loop of the main thread, where the server
    has its handler in place."""
    end = signal.getsignal(signal.SIGTERM)
    if not callable(end):
        return
    loop = asyncio.get_running_loop()

    def drain(number: int, frame: FrameType | None) -> None:
        # Told twice where a supervisor and whoever stops the whole group both do: the first counts.
        if state.is_draining:
            return
        state.is_draining = True
        loop.call_soon_threadsafe(lambda: loop.call_later(state.settings.grace_s, end, number, None))

    signal.signal(signal.SIGTERM, drain)
