"""POST /recommend and /recommend/batch: lists for users, logged for `recops trace`."""

import asyncio
from time import time_ns
from typing import Any

from recops.serving import counters
from recops.serving.operation import Call, Operation
from recops.serving.problems import Problem
from recops.serving.release import Release
from recops.serving.request_ids import new_request_id
from recops.serving.requests import Recommend, RecommendBatch
from recops.serving.retrieval import recommend
from recops.serving.schemas import array, item, obj

VARIANT = "default"
ANSWER = obj(
    items=array(item(reasons=True)),
    release="string",
    variant="string",
    request_id="string",
    source={"enum": ["model", "cold-start", "fallback"]},
)


def handle(call: Call) -> dict[str, Any]:
    return answer(call, call.release, call.body, call.request_id)


async def handle_batch(call: Call) -> dict[str, Any]:
    """One answer a request, in order; all from one release, each with a request id of its own."""
    release, responses = call.release, []
    for index, request in enumerate(call.body.requests):
        try:
            call.check_deadline()
        except Problem as problem:
            raise Problem(504, f"{problem.message}: {index} of {len(call.body.requests)} lists were made") from None
        responses.append(answer(call, release, request, new_request_id()))
        await asyncio.sleep(0)  # lets other requests go first: a batch is long
    return {"responses": responses}


def answer(call: Call, release: Release, request: Recommend, request_id: str) -> dict[str, Any]:
    found = recommend(
        release, request, call.state.history(release, request.user_id), call.state.settings.rules, request_id
    )
    given = {
        "items": found["items"],
        "release": release.id,
        "variant": VARIANT,
        "request_id": request_id,
        "source": found["source"],
    }
    counters.LISTS.labels(found["source"]).inc()
    if call.state.answers is not None:
        items = given["items"]
        if (propensities := found["propensities"]) is not None:
            items = [{**one, "propensity": p} for one, p in zip(items, propensities, strict=True)]
        call.state.answers.add({**given, "items": items, "time": time_ns() // 1000, "user_id": request.user_id})
    return given


OPERATIONS = (
    Operation("POST", "/recommend", "The best items for a user or a history", handle, Recommend, ANSWER),
    Operation(
        "POST",
        "/recommend/batch",
        "Lists for up to 256 users at once",
        handle_batch,
        RecommendBatch,
        obj(responses=array(ANSWER)),
    ),
)
