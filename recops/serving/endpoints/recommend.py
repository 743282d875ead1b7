"""POST /recommend and /recommend/batch: lists for users, logged for `recops trace`."""

import asyncio
import logging
from collections.abc import Iterator
from functools import partial
from itertools import islice
from time import time_ns
from typing import Any

from starlette.responses import Response

from recops.serving import counters
from recops.serving.lane import Lane, Turn
from recops.serving.operation import Call, Operation, json_bytes
from recops.serving.problems import Problem
from recops.serving.release import Release
from recops.serving.request_ids import new_request_id
from recops.serving.requests import Recommend, RecommendBatch
from recops.serving.retrieval import recommend, recommend_many
from recops.serving.schemas import array, item, obj
from recops.serving.tracing import span
from recops.serving.traffic.arms import DEFAULT
from recops.serving.traffic.shadow import Asked

logger = logging.getLogger("recops.serving")

CHECKED_AT_ONCE = 16  # lists of a batch between two looks at the clock
BATCHES = Lane("batches")
ANSWER = obj(
    items=array(item(reasons=True)),
    release="string",
    variant="string",
    request_id="string",
    source={"enum": ["model", "cold-start", "fallback"]},
)


async def handle(call: Call) -> dict[str, Any]:
    request, asked_at = call.body, time_ns() // 1000
    release, variant = call.answering(request.user_id)
    try:
        found = await _found(call, release, request, call.request_id)
    except Exception:
        if variant == DEFAULT:
            raise
        release, variant = _instead(call, variant)
        found = await _found(call, release, request, call.request_id)
    with span("log"):
        return given(call, release, variant, request, found, call.request_id, asked_at)


async def _found(call: Call, release: Release, request: Recommend, request_id: str) -> dict[str, Any]:
    with span("history"):
        stored = await call.state.history_soon(release, request.user_id)
    with span("scoring"):
        return recommend(release, request, stored, call.state.settings.rules, request_id)


def _instead(call: Call, variant: str) -> tuple[Release, str]:
    """The served release for a challenger that cannot answer."""
    logger.exception("challenger %s could not answer", variant)
    counters.ARM_ERRORS.labels(call.state.settings.tenant, variant).inc()
    if call.state.watch is not None:
        call.state.watch.failed(variant)
    return call.release, DEFAULT


async def handle_batch(call: Call) -> Response:
    """One answer a request, in order, each with a request id of its own; those of a variant from one release. Lists are
    made, and written as JSON, on a thread, a few at a time, so that other requests do not wait for many."""
    async with BATCHES.call() as turn:
        responses = await _responses(call, turn)
    return Response(b'{"responses":[' + b",".join(filter(None, responses)) + b"]}", media_type="application/json")


async def _responses(call: Call, turn: Turn) -> list[bytes | None]:
    requests, asked_at = call.body.requests, time_ns() // 1000
    ids = [new_request_id() for _ in requests]
    responses: list[bytes | None] = [None] * len(requests)
    places: dict[tuple[Release, str], list[int]] = {}
    for place, one in enumerate(requests):
        places.setdefault(call.answering(one.user_id), []).append(place)
    work = list(places.items())
    while work:
        (release, variant), some = work.pop()
        with span("history"):
            known = await asyncio.gather(*(call.state.history_soon(release, requests[place].user_id) for place in some))
            asked = [(requests[place], stored) for place, stored in zip(some, known, strict=True)]
        found = recommend_many(release, asked, call.state.settings.rules, [ids[place] for place in some])
        for start in range(0, len(some), CHECKED_AT_ONCE):
            try:
                call.check_deadline()
            except Problem as problem:
                num = sum(response is not None for response in responses)
                raise Problem(504, f"{problem.message}: {num} of {len(requests)} lists were made") from None
            try:
                with span("scoring"):
                    made = await call.to_its_end(turn.run(partial(_next, found)))
            except Exception:
                if variant == DEFAULT:
                    raise
                work.append((_instead(call, variant), some[start:]))
                break
            places_made = some[start : start + CHECKED_AT_ONCE]
            with span("log"):
                answers = [
                    given(call, release, variant, requests[place], one, ids[place], asked_at)
                    for place, one in zip(places_made, made, strict=True)
                ]
            written = await call.to_its_end(turn.run(partial(_written, answers)))
            for place, one in zip(places_made, written, strict=True):
                responses[place] = one
    return responses


def _next(found: Iterator[dict[str, Any]]) -> list[dict[str, Any]]:
    return list(islice(found, CHECKED_AT_ONCE))


def _written(answers: list[dict[str, Any]]) -> list[bytes]:
    return [json_bytes(answer) for answer in answers]


def given(
    call: Call,
    release: Release,
    variant: str,
    request: Recommend,
    found: dict[str, Any],
    request_id: str,
    asked_at: int,
) -> dict[str, Any]:
    """The answer of what was found, counted and logged; challengers in shadow are asked the same. `asked_at`: µs,
    before the history was read, so that the log keeps nothing of a user who was erased since."""
    answer = {
        "items": found["items"],
        "release": release.id,
        "variant": variant,
        "request_id": request_id,
        "source": found["source"],
    }
    counters.LISTS.labels(found["source"]).inc()
    counters.LIST_ITEMS.observe(len(found["items"]))
    counters.LIST_CANDIDATES.observe(found["num_candidates"])
    if not found["items"]:
        counters.EMPTY_LISTS.inc()
    if call.state.answers is not None:
        call.state.answers.add_list(answer, found["propensities"], asked_at, request.user_id)
        for arm in call.state.traffic.shadows:
            if call.state.shadows is not None and arm.asks(request_id):
                call.state.shadows.ask(Asked(arm, request, request_id, asked_at))
    return answer


OPERATIONS = (
    Operation("POST", "/recommend", "The best items for a user or a history", handle, Recommend, ANSWER),
    Operation(
        "POST",
        "/recommend/batch",
        "Lists for up to 256 users at once",
        handle_batch,
        RecommendBatch,
        obj(responses=array(ANSWER)),
        lane=BATCHES,
    ),
)
