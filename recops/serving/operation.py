"""What a file in `endpoints/` is made of: one `Operation` for each call it answers, in its tuple OPERATIONS.

Also what a handler is given (`Call`). Knows nothing about the calls themselves.
"""

import asyncio
import json
import logging
import re
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from functools import partial
from time import monotonic
from typing import Any, Literal, TypeVar

from pydantic_core import to_json
from starlette.responses import Response

from recops.serving.keys import Caller, Role
from recops.serving.lane import Lane
from recops.serving.problems import Problem
from recops.serving.release import Release
from recops.serving.state import State

logger = logging.getLogger("recops.serving")

T = TypeVar("T")
Answer = dict[str, Any] | Response


@dataclass(slots=True)
class Call:
    """One request: `body` is parsed (None for a GET), `parameters` are those of path and query string; `deadline` is a
    moment of the monotonic clock."""

    state: State
    request_id: str
    body: Any
    deadline: float
    caller: Caller  # whose key it came with
    parameters: Any = None
    answered_by: str | None = None  # the release that was taken, the last where several were

    @property
    def release(self) -> Release:
        """The served release; take it once a call. Raises Problem 503 while there is none."""
        return self._there(self.state.release)

    def answering(self, user_id: str | None) -> tuple[Release, str]:
        """The release that answers a user, and the name of the variant; take it once a call and user. Raises Problem
        503 while there is none."""
        release, variant = self.state.answering(user_id)
        return self._there(release), variant

    def _there(self, release: Release | None) -> Release:
        if release is None:
            raise Problem(503, self.state.reason, headers={"Retry-After": "5"})
        self.answered_by = release.id
        return release

    def check_deadline(self) -> None:
        """Raises Problem 504 when the time for this request is over."""
        if monotonic() > self.deadline:
            raise Problem(504, f"no answer within {self.state.settings.timeout_s:g} s")

    async def in_time(self, work: Awaitable[T]) -> T:
        """What `work` on another thread gives. Raises TimeoutError at the call's deadline; the work goes on, and where
        it fails then, that is logged."""
        return await self._waited_for(work, max(self.deadline - monotonic(), 0.001))

    async def to_its_end(self, work: Awaitable[T]) -> T:
        """`in_time` of work that minds the deadline itself."""
        return await self._waited_for(work, None)

    async def _waited_for(self, work: Awaitable[T], timeout_s: float | None) -> T:
        doing = asyncio.ensure_future(work)
        try:
            return await asyncio.wait_for(asyncio.shield(doing), timeout_s)
        finally:
            if not doing.done():
                doing.add_done_callback(partial(_log_late, self.request_id))


def _log_late(request_id: str, done: "asyncio.Future[Any]") -> None:
    if not done.cancelled() and (error := done.exception()) is not None:
        logger.error("request %s has been answered; what it waited for failed later", request_id, exc_info=error)


@dataclass(frozen=True)
class Operation:
    """`request` is the class of the body, None where there is none; `answer` is a JSON schema for the documentation;
    `parameters` is the class of what stands in path and query string, where anything does.

    `role`: what a key must allow: read; write for what changes what others get; admin for what decides or shows how
    the service is run.
    `is_probe`: answered without a key, and when the service is at its limit.
    `may_miss`: it answers 404 where what it is asked about is not there.
    `lane`: the thread that it works on, where it does; a call that would wait there for too long is turned away before
    its body is read.
    `name`: of the call in the description, and so of the method in the clients; by itself it is the path's.
    """

    method: Literal["GET", "POST", "DELETE"]
    path: str
    summary: str
    handle: Callable[[Call], Answer | Awaitable[Answer]]
    request: Any = None
    answer: dict[str, Any] | None = None
    media_type: str = "application/json"
    is_probe: bool = False
    role: Role = "read"
    parameters: Any = None
    may_miss: bool = False
    lane: Lane | None = None
    name: str = ""

    def __post_init__(self) -> None:
        if not self.name:
            object.__setattr__(self, "name", re.sub(r"\W+", "_", re.sub(r"\{\w+\}", "", self.path)).strip("_"))


_encode = json.JSONEncoder(ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode


def json_bytes(value: Any) -> bytes:
    """Compact UTF-8 JSON. A NaN is our own mistake and raises ValueError."""
    found = to_json(value, inf_nan_mode="constants")  # a tenth of the time of the standard library's
    if b"NaN" in found or b"Infinity" in found:  # in a text, or the mistake
        return _encode(value).encode("utf-8")
    return found
