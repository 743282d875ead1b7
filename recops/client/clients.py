"""The two clients: calls over HTTP by httpx, each answered within its time or an error."""

import asyncio
import logging
import os
import random
import time
from collections.abc import Callable, Generator, Mapping
from types import TracebackType
from typing import Any, TypeVar

import httpx

from recops.client.call import Call, answer_of, request_of
from recops.client.errors import AnswerError, LateError, LostError, ServiceError, UnreachableError
from recops.client.operations import AsyncOperations, Operations
from recops.client.retries import Attempts, Retries

T = TypeVar("T")
logger = logging.getLogger("recops.client")

MAX_ANSWER_BYTES = 256 * 1024**2  # 256 lists of 1,000 items with their reasons have about half of that


class _Key(httpx.Auth):
    """Puts the key on each request. Stands in no representation."""

    def __init__(self, key: str | None) -> None:
        if key is not None and not (key.isascii() and key.isprintable() and " " not in key):
            raise ValueError("api_key: a key has only visible ASCII characters (is there a line end at its end?)")
        self._key = key

    def auth_flow(self, request: httpx.Request) -> Generator[httpx.Request, httpx.Response, None]:
        if self._key is not None:
            request.headers["authorization"] = f"Bearer {self._key}"
        yield request


class _TimeLeft(dict[str, float]):
    """What httpx asks anew for each step of a request: connecting, sending, receiving. All end at one moment."""

    def __init__(self, until: float, now: Callable[[], float]) -> None:
        self._until, self._now = until, now

    def get(self, key: str, default: Any = None) -> Any:
        return max(self._until - self._now(), 0.001)


class _Parts(list[bytes]):
    """Of one answer, as they come. Raises AnswerError beyond what any call answers: memory would not hold all that
    somebody else may send in ten seconds."""

    size = 0

    def add(self, part: bytes) -> None:
        self.append(part)
        self.size += len(part)
        if self.size > MAX_ANSWER_BYTES:
            raise AnswerError(None, "no_answer", None, f"the answer is larger than {MAX_ANSWER_BYTES:,} bytes")


class _Settings:
    """What both clients are made of. Subclasses of the clients may bring another clock and another chance."""

    _now = staticmethod(time.monotonic)
    _random = staticmethod(random.SystemRandom().random)  # processes forked from one draw differently

    def __init__(
        self, base_url: str, api_key: str | None, timeout_s: float, attempt_timeout_s: float, retries: Retries
    ) -> None:
        try:
            url = httpx.URL(base_url)
        except httpx.InvalidURL as error:
            raise ValueError(f"base_url: {error}, found {base_url!r}") from None
        if url.scheme not in ("http", "https") or not url.host or url.userinfo or url.query or url.fragment:
            raise ValueError("base_url: expected http:// or https://, host and perhaps port and path, and nothing else")
        self.base_url = base_url.rstrip("/")
        self.timeout_s, self.attempt_timeout_s, self.retries = timeout_s, attempt_timeout_s, retries
        self._key = _Key((api_key or os.environ.get("RECOPS_API_KEY")) or None)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.base_url!r})"

    def _attempts(self, call: Call[Any], timeout_s: float | None) -> Attempts:
        until = self._now() + (self.timeout_s if timeout_s is None else timeout_s)
        return Attempts(call, self.retries, until, self._now, self._random)

    def _request(self, call: Call[Any], given: Mapping[str, Any]) -> dict[str, Any]:
        """The arguments of httpx that are the same for each attempt."""
        path, body = request_of(call, given)
        headers = {"accept": "text/plain, */*" if call.is_text else "application/json"}
        if body is not None:
            headers["content-type"] = "application/json"
        return {
            "method": call.verb,
            "url": self.base_url + path,
            "content": body,
            "headers": headers,
            "auth": self._key,
            "follow_redirects": False,
        }

    def _attempt_until(self, attempts: Attempts) -> float:
        return min(attempts.until, self._now() + self.attempt_timeout_s)

    def _wait_s(self, attempts: Attempts, failure: ServiceError) -> float:
        wait_s = attempts.wait_s(failure)
        logger.info("%s: %s; again in %.3f s", attempts.call, failure, wait_s)
        return wait_s


def _failure(error: httpx.RequestError) -> ServiceError:
    """Of a call without an answer. Where no connection was made, nothing was sent."""
    kind = type(error).__name__
    if isinstance(error, httpx.ConnectError | httpx.ConnectTimeout | httpx.PoolTimeout | httpx.ProxyError):
        return UnreachableError(None, "unreachable", None, f"{kind}: {error}")
    if isinstance(error, httpx.TimeoutException):
        return LateError(None, "timeout", None, f"{kind}: no answer in time")
    return LostError(None, "connection_lost", None, f"{kind}: {error}")


class Client(_Settings, Operations):
    """Calls the service at `base_url`; threads may share one.

    `api_key`: by default RECOPS_API_KEY of the environment. `timeout_s`: for a call with all its attempts and the waits
    between them, `attempt_timeout_s`: for each attempt; an answer whose headers come drop by drop may take longer.
    `http`: an httpx.Client of your own, for certificates, proxies or the number of connections; it is not closed here.

    Methods raise ServiceError, in one of the classes of `recops.client.errors`; arguments that are no JSON ValueError
    or TypeError.
    """

    _sleep = staticmethod(time.sleep)

    def __init__(
        self,
        base_url: str = "http://127.0.0.1:3000",
        *,
        api_key: str | None = None,
        timeout_s: float = 30.0,
        attempt_timeout_s: float = 10.0,
        retries: Retries = Retries(),  # noqa: B008
        http: httpx.Client | None = None,
    ) -> None:
        super().__init__(base_url, api_key, timeout_s, attempt_timeout_s, retries)
        self._owns_http = http is None
        self._http = httpx.Client() if http is None else http

    def close(self) -> None:
        if self._owns_http:
            self._http.close()

    def __enter__(self) -> "Client":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _call(self, call: Call[T], given: Mapping[str, Any], timeout_s: float | None) -> T:
        attempts, request = self._attempts(call, timeout_s), self._request(call, given)
        while True:
            try:
                return answer_of(call, *self._attempt(request, self._attempt_until(attempts)))
            except httpx.RequestError as error:
                wait_s = self._wait_s(attempts, _failure(error))
            except ServiceError as failure:
                wait_s = self._wait_s(attempts, failure)
            self._sleep(wait_s)

    def _attempt(self, request: Mapping[str, Any], until: float) -> tuple[int, Mapping[str, str], bytes]:
        """Status, headers and body of one answer. Raises httpx.RequestError, for a body that comes too slowly too."""
        parts = _Parts()
        with self._http.stream(**request, extensions={"timeout": _TimeLeft(until, self._now)}) as response:
            for part in response.iter_bytes():
                parts.add(part)
                if self._now() > until:
                    raise httpx.ReadTimeout("")
        return response.status_code, response.headers, b"".join(parts)


class AsyncClient(_Settings, AsyncOperations):
    """As Client, for asyncio."""

    _sleep = staticmethod(asyncio.sleep)

    def __init__(
        self,
        base_url: str = "http://127.0.0.1:3000",
        *,
        api_key: str | None = None,
        timeout_s: float = 30.0,
        attempt_timeout_s: float = 10.0,
        retries: Retries = Retries(),  # noqa: B008
        http: httpx.AsyncClient | None = None,
    ) -> None:
        super().__init__(base_url, api_key, timeout_s, attempt_timeout_s, retries)
        self._owns_http = http is None
        self._http = httpx.AsyncClient() if http is None else http

    async def close(self) -> None:
        if self._owns_http:
            await self._http.aclose()

    async def __aenter__(self) -> "AsyncClient":
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def _call(self, call: Call[T], given: Mapping[str, Any], timeout_s: float | None) -> T:
        attempts, request = self._attempts(call, timeout_s), self._request(call, given)
        while True:
            try:
                return answer_of(call, *await self._attempt(request, self._attempt_until(attempts)))
            except httpx.RequestError as error:
                wait_s = self._wait_s(attempts, _failure(error))
            except ServiceError as failure:
                wait_s = self._wait_s(attempts, failure)
            await self._sleep(wait_s)

    async def _attempt(self, request: Mapping[str, Any], until: float) -> tuple[int, Mapping[str, str], bytes]:
        """Status, headers and body of one answer. Raises httpx.RequestError."""
        parts = _Parts()
        try:
            async with (
                asyncio.timeout(max(until - self._now(), 0.001)),
                self._http.stream(**request, timeout=None) as response,
            ):
                async for part in response.aiter_bytes():
                    parts.add(part)
        except TimeoutError:
            raise httpx.ReadTimeout("") from None
        return response.status_code, response.headers, b"".join(parts)
