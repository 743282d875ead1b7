"""GET /users/{id}: what is held about a user. DELETE /users/{id}: erases it, now and for the next training."""

import asyncio
import logging
from time import time_ns
from typing import Any

from recops.errors import CallError
from recops.serving import counters
from recops.serving.operation import Call, Operation
from recops.serving.problems import Problem
from recops.serving.requests import Held, UserPath
from recops.serving.schemas import array, nullable, obj
from recops.store import Store
from recops.store.values import iso

logger = logging.getLogger("recops.serving")


async def handle(call: Call) -> dict[str, Any]:
    """Somebody of whom nothing is held has an empty answer: it does not say whether there ever was anything."""
    asked, store = call.parameters, _store(call)

    def read() -> tuple[list[dict[str, Any]], dict[str, Any]]:
        return _page(store, asked), store.held_of(asked.user_id)

    try:
        events, held = await _on_store(call, read)
    except CallError as error:
        raise Problem(400, str(error).removeprefix("before: "), field="before") from None
    release = call.state.release
    return {
        "user_id": asked.user_id,
        "events": [_shown(event) for event in events],
        "next": events[-1]["event_id"] if len(events) == asked.limit else None,
        "held": {
            **held,
            # Rows of the served model's table of users, which was learnt from the user's events.
            "model": release is not None and bool(release.user_row(asked.user_id)),
        },
        "request_id": call.request_id,
    }


def _page(store: Store, asked: Held) -> list[dict[str, Any]]:
    try:
        return store.events_of(asked.user_id, asked.limit, asked.before)
    except CallError:
        if asked.time is None:
            raise
        return store.events_of(asked.user_id, asked.limit, asked.time)


async def erase(call: Call) -> dict[str, Any]:
    """Answers once everything is gone from the store and the id's keyed hash is on the list for the next training."""
    store, user_id = _store(call), call.parameters.user_id
    state = call.state

    def work() -> dict[str, int]:
        erased = store.erase_user(user_id, time_ns() // 1000, call.caller.name)
        state.refresh_erasures()
        return erased

    erased = await _on_store(call, work)
    counters.ERASURES.inc()
    return {"erased": erased, "request_id": call.request_id}


def _store(call: Call) -> Store:
    if call.state.store is None:
        raise Problem(503, "this service has no store (RECOPS_STORE), so it holds nothing about users")
    return call.state.store


async def _on_store(call: Call, work: Any) -> Any:
    try:
        return await call.in_time(asyncio.to_thread(work))
    except TimeoutError:
        raise Problem(504, "the store is busy; ask again") from None
    except (CallError, asyncio.CancelledError):
        raise
    except Exception:
        logger.exception("the store could not be used")
        counters.STORE_ERRORS.inc()
        raise Problem(503, "the store could not be used; ask again", headers={"Retry-After": "5"}) from None


def _shown(event: dict[str, Any]) -> dict[str, Any]:
    times = {name: iso(event[name]) for name in ("timestamp", "received_at")}
    return {name: value for name, value in {**event, **times}.items() if name not in ("place", "is_made", "user_id")}


EVENT = obj(
    event_id="string",
    item_id="string",
    timestamp="string",
    received_at="string",
    event="string",
    value=nullable("number"),
    request_id=nullable("string"),
    rank=nullable("integer"),
    session_id=nullable("string"),
    context={"anyOf": [{"type": "object"}, {"type": "null"}]},
)
OPERATIONS = (
    Operation(
        "GET",
        "/users/{user_id}",
        "What is held about a user: events told, newest first, and how much lies elsewhere",
        handle,
        parameters=Held,
        role="admin",
        name="user",
        answer=obj(
            user_id="string",
            events=array(EVENT),
            next={**nullable("string"), "description": "`before` of the next page; null on the last."},
            held=obj(
                events="integer",
                answers="integer",
                histories={"type": "object", "additionalProperties": {"type": "integer"}},
                model="boolean",
            ),
            request_id="string",
        ),
    ),
    Operation(
        "DELETE",
        "/users/{user_id}",
        "Erase a user: from the store at once, and from the next training",
        erase,
        parameters=UserPath,
        name="erase_user",
        answer=obj(erased=obj(events="integer", answers="integer", histories="integer"), request_id="string"),
        role="admin",
    ),
)
