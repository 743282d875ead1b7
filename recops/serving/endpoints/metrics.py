"""GET /metrics: figures of all workers as Prometheus text.

What is a tenant's own (its release, its drift, its challengers) is told to its keys, and that of all tenants to an
admin of the project that the service is started for.
"""

import asyncio
import logging
from typing import Any

from starlette.responses import Response

from recops.serving import counters
from recops.serving.facts import Facts, Served
from recops.serving.operation import Call, Operation
from recops.store import Store

logger = logging.getLogger("recops.serving")


async def handle(call: Call) -> Response:
    """On threads, so that no other request waits for disk and store. What a store does not say in time is left out,
    and counted."""
    # That project's state knows all tenants, any other's only itself.
    tenants = call.state.tenants if call.caller.may("admin") else {call.caller.tenant: call.state}
    drifts = await asyncio.gather(*(_drift(call, state.store) for state in tenants.values()))
    told = {name: Served(state.release, drift) for (name, state), drift in zip(tenants.items(), drifts, strict=True)}
    facts = Facts(call.state.settings.workers, told)
    return Response(await asyncio.to_thread(counters.exposition, facts, told), media_type=counters.CONTENT_TYPE)


async def _drift(call: Call, store: Store | None) -> dict[str, Any] | None:
    if store is None:
        return None
    try:
        return await call.in_time(asyncio.to_thread(store.report, "drift"))
    except asyncio.CancelledError:
        raise
    except Exception:
        logger.exception("the report of drift could not be read")
        counters.STORE_ERRORS.inc()
        return None


OPERATIONS = (Operation("GET", "/metrics", "Figures for Prometheus", handle, media_type="text/plain"),)
