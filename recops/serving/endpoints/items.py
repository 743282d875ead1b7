"""POST /items: items added to the served release, or changed in it, without training and without a restart."""

import asyncio
import logging
from typing import Any

from recops.serving import counters
from recops.serving.operation import Call, Operation
from recops.serving.problems import Problem
from recops.serving.requests import Items
from recops.serving.schemas import array, obj

logger = logging.getLogger("recops.serving")


async def handle(call: Call) -> dict[str, Any]:
    """Answers once the items are on disk, and in this worker in use. Those that take longer than the time for a request
    count as pending: they come into use by themselves."""
    before, state, store = call.release, call.state, call.state.store
    if store is None:
        raise Problem(503, "this service has no store (RECOPS_STORE), so nothing can be added to it")
    told = [item.columns() for item in call.body.items]
    try:
        await call.in_time(asyncio.to_thread(store.put_items, told))
    except TimeoutError:
        raise Problem(504, "the store is busy; send the items again, which changes nothing if they are there") from None
    except Exception:
        logger.exception("items could not be stored")
        counters.STORE_ERRORS.inc()
        raise Problem(503, "the store could not be written; nothing was added", headers={"Retry-After": "5"}) from None
    try:
        is_applied = await call.in_time(asyncio.wrap_future(state.apply_items_soon()))
    except TimeoutError:
        is_applied = False
    num_changed = sum(item["item_id"] in before.row_of for item in told)
    reasons = call.release.not_recommendable([item["item_id"] for item in told]) if is_applied else {}
    return {
        "added": len(told) - num_changed,
        "changed": num_changed,
        "pending": 0 if is_applied else len(told),
        "not_recommendable": [{"item_id": item_id, "reason": reason} for item_id, reason in reasons.items()],
        "release": before.id,
        "request_id": call.request_id,
    }


OPERATIONS = (
    Operation(
        "POST",
        "/items",
        "Add items to the served release, or change them; a column that is not given stays as it is",
        handle,
        Items,
        obj(
            added="integer",
            changed="integer",
            pending={"type": "integer", "description": "On disk, and in use shortly; nothing need be sent again."},
            not_recommendable=array(obj(item_id="string", reason="string")),
            release="string",
            request_id="string",
        ),
        role="write",
    ),
)
