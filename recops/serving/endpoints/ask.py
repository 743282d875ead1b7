"""POST /ask: a question in words, answered by items of the catalogue."""

import asyncio
from time import time_ns
from typing import Any

from recops.serving import counters
from recops.serving.assistant.asking import Found, ask, told
from recops.serving.operation import Call, Operation
from recops.serving.problems import Problem
from recops.serving.requests import Ask
from recops.serving.schemas import array, nullable, obj
from recops.serving.tracing import span


async def handle(call: Call) -> dict[str, Any]:
    """On a thread, so that other requests do not wait for it."""
    request = call.body
    release, variant = call.answering(request.user_id)
    with span("history"):
        stored = call.state.history(release, request.user_id)

    def answered() -> Found:
        call.check_deadline()  # other questions may have kept this thread from starting
        settings = call.state.settings
        return ask(release, request, stored, settings.language_model, until=call.deadline, rules=settings.rules)

    try:
        with span("answer"):
            found = await call.to_its_end(asyncio.to_thread(answered))
    except TimeoutError:
        raise Problem(504, f"no answer within {call.state.settings.timeout_s:g} s") from None
    counters.LISTS.labels(found.source).inc()
    if request.log and call.state.answers is not None:
        shown = [{name: item[name] for name in ("item_id", "rank", "score")} for item in found.items]
        call.state.answers.add(
            {
                "items": shown,
                "release": release.id,
                "variant": variant,
                "request_id": call.request_id,
                "source": found.source,
                "time": time_ns() // 1000,
                "user_id": request.user_id,
            }
        )
    return {**told(found), "release": release.id, "request_id": call.request_id}


ITEM = obj(
    item_id="string",
    rank={"type": "integer", "minimum": 1},
    score="number",
    title=nullable("string"),
    reason={"type": "string", "description": "Made of facts, never by a language model."},
)
OPERATIONS = (
    Operation(
        "POST",
        "/ask",
        "A question in words, answered by items of the catalogue",
        handle,
        Ask,
        obj(
            answer="string",
            items=array(ITEM),
            understood={"type": "object", "description": "What the question was understood to ask for."},
            retrieved_by={**array("string"), "description": "Signals the list was made from."},
            phrased_by={"enum": ["template", "language model"]},
            release="string",
            request_id="string",
            source={"enum": ["model", "cold-start", "fallback"]},
        ),
    ),
)
