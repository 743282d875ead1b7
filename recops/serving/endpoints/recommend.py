"""POST /recommend and /recommend/batch: lists for users, logged for `recops trace`."""

import asyncio
from itertools import islice
from time import time_ns
from typing import Any

from recops.serving import counters
from recops.serving.operation import Call, Operation
from recops.serving.problems import Problem
from recops.serving.release import Release
from recops.serving.request_ids import new_request_id
from recops.serving.requests import Recommend, RecommendBatch
from recops.serving.retrieval import recommend, recommend_many
from recops.serving.schemas import array, item, obj

VARIANT = "default"
CHECKED_AT_ONCE = 16  # lists of a batch between two looks at the clock
ANSWER = obj(
    items=array(item(reasons=True)),
    release="string",
    variant="string",
    request_id="string",
    source={"enum": ["model", "cold-start", "fallback"]},
)


def handle(call: Call) -> dict[str, Any]:
    release, request = call.release, call.body
    stored = call.state.history(release, request.user_id)
    found = recommend(release, request, stored, call.state.settings.rules, call.request_id)
    return given(call, release, request, found, call.request_id)


async def handle_batch(call: Call) -> dict[str, Any]:
    """One answer a request, in order; all from one release, each with a request id of its own. Lists are made on a
    thread, so that other requests do not wait for many."""
    release, requests = call.release, call.body.requests
    ids = [new_request_id() for _ in requests]
    asked = [(one, call.state.history(release, one.user_id)) for one in requests]
    found = recommend_many(release, asked, call.state.settings.rules, ids)
    responses: list[dict[str, Any]] = []
    while len(responses) < len(requests):
        try:
            call.check_deadline()
        except Problem as problem:
            raise Problem(504, f"{problem.message}: {len(responses)} of {len(requests)} lists were made") from None
        made = await asyncio.to_thread(lambda: list(islice(found, CHECKED_AT_ONCE)))
        for one in made:
            responses.append(given(call, release, requests[len(responses)], one, ids[len(responses)]))
    return {"responses": responses}


def given(call: Call, release: Release, request: Recommend, found: dict[str, Any], request_id: str) -> dict[str, Any]:
    """The answer of what was found, counted and logged."""
    answer = {
        "items": found["items"],
        "release": release.id,
        "variant": VARIANT,
        "request_id": request_id,
        "source": found["source"],
    }
    counters.LISTS.labels(found["source"]).inc()
    if call.state.answers is not None:
        items = answer["items"]
        if (propensities := found["propensities"]) is not None:
            items = [{**one, "propensity": p} for one, p in zip(items, propensities, strict=True)]
        call.state.answers.add({**answer, "items": items, "time": time_ns() // 1000, "user_id": request.user_id})
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
    ),
)
