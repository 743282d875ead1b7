"""Ends connections that only keep a worker waiting.

The server that BentoML runs (uvicorn) waits for ever for the head of a request, and for a caller to take an answer, so
that anybody, without a key, could use up the connections that a process may have. Knows nothing about requests.
"""

from typing import Any

HEAD_S, ANSWER_S = 10.0, 30.0  # for the first line and the headers of a request; for the caller to take an answer


def watch() -> None:
    """Holds for every connection of this process; called before the server makes its first."""
    from uvicorn.protocols.http import auto

    auto.AutoHTTPProtocol = watched(auto.AutoHTTPProtocol)


def watched(protocol: Any, head_s: float = HEAD_S, answer_s: float = ANSWER_S, look_s: float = 1.0) -> Any:
    """uvicorn's protocol of a connection, which looks every `look_s` seconds at whether it is still of use."""

    class Watched(protocol):
        def connection_made(self, transport: Any) -> None:
            super().connection_made(transport)
            self._looked_at: Any = None  # the request that was being answered at the last look
            self._since: dict[float, float] = {}  # when each wait that is not over began, by how long it may take
            self._next_look = self.loop.call_later(look_s, self._look)

        def connection_lost(self, exc: Exception | None) -> None:
            self._next_look.cancel()
            super().connection_lost(exc)

        def _look(self) -> None:
            now, cycle = self.loop.time(), self.cycle
            if cycle is not self._looked_at:
                self._looked_at = cycle
                self._since = {}
            # Between two requests uvicorn has a timer of its own, until anything comes.
            has_no_head = (cycle is None or cycle.response_complete) and self.timeout_keep_alive_task is None
            for limit, is_waiting in ((head_s, has_no_head), (answer_s, self.transport.get_write_buffer_size() > 0)):
                if not is_waiting:
                    self._since.pop(limit, None)
                elif now - self._since.setdefault(limit, now) >= limit:
                    self.transport.abort()
                    return
            self._next_look = self.loop.call_later(look_s, self._look)

    return Watched
