"""The HTTP service as one ASGI app: finds the files of `endpoints/`, routes to them, gives every error one shape.

In: Settings. Out: `build_app`. Knows nothing about BentoML, which only carries this app (service.py).
"""

import asyncio
import inspect
import logging
from collections.abc import Awaitable
from time import monotonic
from typing import Any

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from recops import plugins
from recops.serving import guard
from recops.serving.keys import Caller
from recops.serving.operation import Answer, Call, Operation, json_bytes
from recops.serving.problems import Problem
from recops.serving.requests import parse, parse_parameters
from recops.serving.state import State
from recops.serving.tracing import Traced

logger = logging.getLogger("recops.serving")

NET_S = 0.05  # how much longer than its time a call that waits may take to say so itself


def operations() -> tuple[Operation, ...]:
    """Every operation of every file in `endpoints/`."""
    files = plugins.names("serving.endpoints")
    return tuple(o for name in files for o in plugins.load_module("serving.endpoints", name).OPERATIONS)


class Endpoint:
    """One operation as an ASGI app: body to request, handler, answer to JSON."""

    def __init__(self, operation: Operation, state: State) -> None:
        self.operation = operation
        self.state = state

    async def __call__(self, scope: guard.Scope, receive: guard.Receive, send: guard.Send) -> None:
        scope[guard.PATH] = self.operation.path
        request_id = scope[guard.REQUEST_ID]
        try:
            caller = self._allowed(scope)
            if self.operation.lane is not None:
                self.operation.lane.check(self.state.settings.max_lag_s / 2)
            parameters = self._parameters(scope)
            state = self.state.tenants[caller.tenant]
            call = Call(state, request_id, self._parsed(scope), scope[guard.DEADLINE], caller, parameters)
            scope[guard.CALL] = call
            call.check_deadline()
            answer = self.operation.handle(call)
            if inspect.isawaitable(answer):
                answer = await self._in_time(answer, call.deadline)
            body = b"" if isinstance(answer, Response) else json_bytes(answer)
        except Problem as problem:
            await guard.send_problem(problem, request_id, send)
            return
        except Exception:
            logger.exception("request %s failed", request_id)
            ours = Problem(500, "our mistake; the service's log has it under this request_id")
            await guard.send_problem(ours, request_id, send)
            return
        if isinstance(answer, Response):
            answer.headers["x-request-id"] = request_id
            await answer(scope, receive, send)
        else:
            await guard.send_answer(200, body, request_id, send)

    def _parameters(self, scope: guard.Scope) -> Any:
        if self.operation.parameters is None:
            return None
        return parse_parameters(self.operation.parameters, scope["path_params"], scope["query_string"])

    def _allowed(self, scope: guard.Scope) -> Caller:
        """Who calls. Raises Problem 403 for a key without the role, and for a page of another machine that would change
        something in a service without keys."""
        caller, needed = scope[guard.CALLER], self.operation.role
        if not caller.may(needed):
            raise Problem(403, f"this call needs a key of the role {needed}, and the key given is of {caller.role}")
        if caller.name == guard.ANYBODY and needed != "read" and guard.is_foreign(scope["headers"]):
            raise Problem(403, "this service has no keys, so no page of another host may write")
        return caller

    async def _in_time(self, answer: Awaitable[Answer], deadline: float) -> Answer:
        """What a handler gives that waits for something; handlers mind their deadline themselves, this is the net below
        them. Raises Problem 504."""
        settings = self.state.settings
        patience_s = NET_S if settings.ask_url is None else NET_S + 2 * settings.ask_timeout_s
        try:
            async with asyncio.timeout(deadline - monotonic() + patience_s):
                return await answer
        except TimeoutError:
            raise Problem(504, f"no answer within {settings.timeout_s:g} s") from None

    def _parsed(self, scope: guard.Scope) -> Any:
        if self.operation.request is None:
            return None
        given = dict(scope["headers"])
        if (coding := given.get(b"content-encoding", b"identity").lower()) != b"identity":
            found = coding[:100].decode("latin-1")
            raise Problem(415, f"expected a body that is not compressed, found {found}", field="Content-Encoding")
        kind = given.get(b"content-type", b"application/json")
        if kind.partition(b";")[0].strip().lower() != b"application/json":
            found = kind[:100].decode("latin-1")
            raise Problem(415, f"expected Content-Type: application/json, found {found}", field="Content-Type")
        return parse(self.operation.request, scope[guard.BODY])


async def _http_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    message = {404: f"no such path: {request.scope['path']}", 405: f"{request.method} is not answered here"}
    problem = Problem(error.status_code, message.get(error.status_code, error.detail), headers=error.headers)
    return _response(problem, request)


def _response(problem: Problem, request: Request) -> Response:
    request_id = request.scope[guard.REQUEST_ID]
    return Response(
        json_bytes(problem.body(request_id)),
        problem.status,
        headers={**problem.headers, "x-request-id": request_id},
        media_type="application/json",
    )


def build_app(state: State) -> guard.Guard | Traced:
    """The whole service over `state`, which the caller starts and closes."""
    every = operations()
    app = Starlette(
        routes=[
            Route(o.path.replace("}", ":path}"), Endpoint(o, state), methods=[o.method])  # ids may hold a slash
            for o in every
        ],
        exception_handlers={HTTPException: _http_error},
    )
    app.router.redirect_slashes = False
    probes = {o.path for o in every if o.is_probe}
    at_once = {(o.method, o.path): Endpoint(o, state) for o in every if "{" not in o.path}

    async def route(scope: guard.Scope, receive: guard.Receive, send: guard.Send) -> None:
        # Most paths are all that there is to match: routes tried in order take longer than reading the body.
        endpoint = at_once.get((scope["method"], scope["path"]))
        if endpoint is None:
            await app(scope, receive, send)
        else:
            scope["path_params"] = {}
            await endpoint(scope, receive, send)

    guarded = guard.Guard(route, state, probes)
    if state.settings.otlp is None:
        return guarded

    def attributes(scope: guard.Scope) -> dict[str, Any]:
        told = {"http.route": scope.get(guard.PATH, "other"), "recops.request_id": scope[guard.REQUEST_ID]}
        release = guard.answered_by(scope)
        return told if release is None else {**told, "recops.release": release}

    return Traced(guarded, attributes, probes)
