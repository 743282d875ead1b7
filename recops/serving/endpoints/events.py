"""POST /events: what users did, on disk before the answer, and part of their history from then on."""

import asyncio
from hashlib import md5
from time import time_ns
from typing import Any

import numpy as np

from recops.serving import counters
from recops.serving.event_log import FullError
from recops.serving.operation import Call, Operation
from recops.serving.problems import Problem
from recops.serving.requests import Events, TellEvent
from recops.serving.schemas import array, obj
from recops.serving.tracing import span

KNOWN_TWICE = "send the same events again: those that are there already are counted as duplicates"


async def handle(call: Call) -> dict[str, Any]:
    """Events that are refused change nothing about the others. An event without an id gets one from its content, so
    that sending it again does not double it."""
    log = call.state.events
    if log is None:
        raise Problem(503, "this service has no store (RECOPS_STORE), so it cannot keep events")
    now = time_ns() // 1000
    latest = now + int(call.state.settings.max_clock_skew_s * 1e6)
    kinds = call.state.kinds
    rejected, kept = [], []
    for index, event in enumerate(call.body.events):
        if event.timestamp > latest:
            ahead = (event.timestamp - now) / 1e6
            reason = f"timestamp lies {ahead:.0f} s in the future; the clocks may differ by {_skew(call)}"
        elif event.event not in kinds.events:
            reason = f"event {event.event!r} is of no known kind: {', '.join(sorted(kinds.events))}"
        else:
            kept.append(columns(event))
            continue
        rejected.append({"index": index, "reason": reason})
    counters.EVENTS.labels("rejected").inc(len(rejected))
    is_new = await _stored(call, kept) if kept else []
    counters.EVENTS.labels("stored").inc(sum(is_new))
    counters.EVENTS.labels("duplicate").inc(len(is_new) - sum(is_new))
    return {
        "stored": sum(is_new),
        "duplicates": len(is_new) - sum(is_new),
        "rejected": rejected,
        "request_id": call.request_id,
    }


async def _stored(call: Call, kept: list[dict[str, Any]]) -> list[bool]:
    log = call.state.events
    assert log is not None
    try:
        added = log.add(kept)
    except FullError:
        raise Problem(429, f"too many events wait for the disk; {KNOWN_TWICE}", headers={"Retry-After": "1"}) from None
    try:
        with span("log"):
            return await call.in_time(added)
    except TimeoutError:
        raise Problem(504, f"the store is busy; {KNOWN_TWICE}") from None
    except asyncio.CancelledError:
        raise
    except Exception:  # which the event log has logged and counted
        raise Problem(503, "the store could not be written; nothing was stored", headers={"Retry-After": "5"}) from None


def _skew(call: Call) -> str:
    return f"{call.state.settings.max_clock_skew_s:g} s"


def columns(event: TellEvent) -> dict[str, Any]:
    """The columns of the events table, times in µs UTC; when it was received is for the store to say."""
    given = event.model_dump(exclude_unset=True)
    return {**given, "event_id": event.event_id or made_id(event), "is_made": not event.event_id}


def made_id(event: TellEvent) -> str:
    """What stands for an event without an id: the same as `data/ingest.py` makes of a row of the log."""
    value = "" if event.value is None else str(np.float32(event.value))
    content = (
        f"{len(event.user_id)}:{event.user_id}{len(event.item_id)}:{event.item_id}"
        f"{event.timestamp}|{event.event}|{value}"
    )
    return md5(content.encode(), usedforsecurity=False).hexdigest()[:24]


OPERATIONS = (
    Operation(
        "POST",
        "/events",
        "What users did: on disk once this answers, and part of their histories at once",
        handle,
        Events,
        obj(
            stored="integer",
            duplicates={"type": "integer", "description": "Were there already, by event_id."},
            rejected=array(obj(index="integer", reason="string")),
            request_id="string",
        ),
        role="write",
    ),
)
