"""GET /metrics: figures of all workers as Prometheus text."""

import asyncio
import logging
from typing import Any

from starlette.responses import Response

from recops.serving import counters
from recops.serving.facts import Facts
from recops.serving.operation import Call, Operation
from recops.store import Store

logger = logging.getLogger("recops.serving")


async def handle(call: Call) -> Response:
    """On threads, so that no other request waits for disk and store. What the store does not say in time is left out,
    and counted."""
    state = call.state
    drift = None if state.store is None else await _drift(call, state.store)
    facts = Facts(state.release, state.settings.workers, drift)
    return Response(await asyncio.to_thread(counters.exposition, facts), media_type=counters.CONTENT_TYPE)


async def _drift(call: Call, store: Store) -> dict[str, Any] | None:
    try:
        return await call.in_time(asyncio.to_thread(store.report, "drift"))
    except asyncio.CancelledError:
        raise
    except Exception:
        logger.exception("the report of drift could not be read")
        counters.STORE_ERRORS.inc()
        return None


OPERATIONS = (Operation("GET", "/metrics", "Figures for Prometheus", handle, media_type="text/plain"),)
