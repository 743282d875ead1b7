"""POST /score: scores of named items for one user or history."""

from typing import Any

from recops.serving.operation import Call, Operation
from recops.serving.requests import Score
from recops.serving.retrieval import score
from recops.serving.schemas import array, nullable, obj
from recops.serving.tracing import span


async def handle(call: Call) -> dict[str, Any]:
    release, _ = call.answering(call.body.user_id)
    with span("history"):
        stored = await call.state.history_soon(release, call.body.user_id)
    with span("scoring"):
        found = score(release, call.body, stored)
    return {**found, "release": release.id, "request_id": call.request_id}


OPERATIONS = (
    Operation(
        "POST",
        "/score",
        "A score for each item, null for an unknown one, in the order asked",
        handle,
        Score,
        obj(
            scores=array(obj(item_id="string", score=nullable("number"))),
            source={"enum": ["model", "cold-start", "fallback"]},
            release="string",
            request_id="string",
        ),
    ),
)
