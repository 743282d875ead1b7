"""What stands before every endpoint: who may call, how many at once, how large and how slow a body may be.

An ASGI layer. It gives each request its id, reads the whole body and hands both on in the scope; what it refuses is
answered as a Problem. Knows nothing about the endpoints but which paths are probes, and which change something.
"""

import asyncio
import hmac
from collections.abc import Awaitable, Callable, Collection, Iterable, MutableMapping
from ipaddress import ip_address
from time import monotonic
from typing import Any
from urllib.parse import urlsplit

from recops.serving import counters
from recops.serving.operation import json_bytes
from recops.serving.problems import Problem
from recops.serving.request_ids import new_request_id
from recops.serving.settings import Settings

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]

REQUEST_ID, BODY, DEADLINE, PATH = "recops.request_id", "recops.body", "recops.deadline", "recops.path"


def is_loopback(host: str) -> bool:
    """Whether an address can be reached from this machine only; False for a name other than localhost."""
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def is_foreign(headers: Iterable[tuple[bytes, bytes]]) -> bool:
    """Whether a browser sends this for a page of another machine, which it does without asking anybody."""
    origin = next((value.decode("latin-1") for name, value in headers if name == b"origin"), None)
    try:
        return origin is not None and not is_loopback(urlsplit(origin).hostname or "")
    except ValueError:
        return True


class Guard:
    """Wraps an ASGI app. `probes`: paths answered without a key and above the limit; `writes`: those that change
    something, which no page of another machine may do to a service without keys."""

    def __init__(self, app: Any, settings: Settings, probes: Collection[str], writes: Collection[str] = ()) -> None:
        self.app = app
        self.settings = settings
        self.probes = frozenset(probes)
        self.writes = tuple(path.partition("{")[0] for path in writes)
        self.keys = [key.encode() for key in settings.keys]
        self.limit = max(1, -(-settings.max_concurrency // settings.workers))
        self.num_in_flight = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        start = monotonic()
        scope[REQUEST_ID] = request_id = new_request_id()
        scope[DEADLINE] = start + self.settings.timeout_s
        status = 500

        async def sending(message: MutableMapping[str, Any]) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        is_probe = scope["path"] in self.probes
        if not is_probe:
            self.num_in_flight += 1
            counters.IN_FLIGHT.set(self.num_in_flight)
        try:
            if not is_probe:
                self._check_caller(scope)
                if self.num_in_flight > self.limit:
                    raise Problem(
                        429, f"more than {self.limit} requests at once in this worker", headers={"Retry-After": "1"}
                    )
            scope[BODY] = await self._read_body(scope, receive)
            if not is_probe:
                await asyncio.sleep(0)  # whatever else has arrived is counted before this request is worked on
            await self.app(scope, receive, sending)
        except Problem as problem:
            await send_problem(problem, request_id, sending)
        except ConnectionError:
            status = 499  # the caller has gone; there is nobody to answer
        finally:
            if not is_probe:
                self.num_in_flight -= 1
                counters.IN_FLIGHT.set(self.num_in_flight)
            path = scope.get(PATH, "other")
            counters.REQUESTS.labels(path, str(status)).inc()
            counters.SECONDS.labels(path).observe(monotonic() - start)

    def _check_caller(self, scope: Scope) -> None:
        if not self.keys:
            client = scope.get("client")
            if client and not is_loopback(client[0]):
                raise Problem(403, "this service has no keys (RECOPS_API_KEYS), so it answers on loopback only")
            if scope["path"].startswith(self.writes) and is_foreign(scope["headers"]):
                raise Problem(403, "this service has no keys (RECOPS_API_KEYS), so no page of another host may write")
            return
        given = next((v for name, v in scope["headers"] if name == b"authorization"), b"")
        kind, _, key = given.partition(b" ")
        # Every key is compared, so that the time tells nothing about which one came close.
        matches = [hmac.compare_digest(key.strip(), known) for known in self.keys]
        if kind.lower() != b"bearer" or not any(matches):
            raise Problem(401, "a key is needed: Authorization: Bearer KEY", headers={"WWW-Authenticate": "Bearer"})

    async def _read_body(self, scope: Scope, receive: Receive) -> bytes:
        limit = self.settings.max_body_bytes
        too_large = Problem(413, f"the body is larger than {limit} bytes", headers={"Connection": "close"})
        for name, value in scope["headers"]:
            if name == b"content-length" and value.isdigit() and int(value[:20]) > limit:
                raise too_large
        parts, size = [], 0
        try:
            async with asyncio.timeout(self.settings.timeout_s):
                while True:
                    message = await receive()
                    if message["type"] == "http.disconnect":
                        raise ConnectionError
                    parts.append(message.get("body", b""))
                    size += len(parts[-1])
                    if size > limit:
                        raise too_large
                    if not message.get("more_body", False):
                        return parts[0] if len(parts) == 1 else b"".join(parts)
        except TimeoutError:
            raise Problem(
                408, f"the body did not arrive within {self.settings.timeout_s:g} s", headers={"Connection": "close"}
            ) from None


async def send_problem(problem: Problem, request_id: str, send: Send) -> None:
    await send_answer(problem.status, json_bytes(problem.body(request_id)), request_id, send, problem.headers)


async def send_answer(
    status: int, body: bytes, request_id: str, send: Send, headers: MutableMapping[str, str] | None = None
) -> None:
    """A JSON answer in two messages."""
    lines = [
        (b"content-type", b"application/json"),
        (b"content-length", str(len(body)).encode()),
        (b"x-request-id", request_id.encode()),
    ]
    if headers:
        lines += [(name.lower().encode("latin-1"), value.encode("latin-1")) for name, value in headers.items()]
    await send({"type": "http.response.start", "status": status, "headers": lines})
    await send({"type": "http.response.body", "body": body})
