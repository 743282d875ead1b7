"""Times and JSON as a store keeps them."""

import json
from datetime import UTC, datetime, timedelta
from typing import Any

from recops.errors import CallError
from recops.store import Moment

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)


def micros(moment: Moment) -> int:
    """Microseconds since the epoch in UTC. Raises CallError for text that is no ISO time, or a time without zone.

    >>> micros("1970-01-01T00:00:01+00:00"), micros(5)
    (1000000, 5)
    """
    if isinstance(moment, int):
        return moment
    try:
        time = datetime.fromisoformat(moment) if isinstance(moment, str) else moment
    except ValueError:
        raise CallError(f"time {moment!r}: neither ISO 8601 nor microseconds") from None
    if time.tzinfo is None:
        raise CallError(f"time {moment!r}: has no zone")
    return (time - _EPOCH) // _MICROSECOND


def iso(at: int) -> str:
    """Microseconds since the epoch as ISO 8601 text in UTC."""
    return (_EPOCH + at * _MICROSECOND).isoformat(timespec="microseconds")


def as_json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
