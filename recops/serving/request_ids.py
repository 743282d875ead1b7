"""Names for requests: sorted by time, unique without asking anyone (the layout of UUID version 7)."""

import os
from contextvars import ContextVar
from time import time_ns

current_request: ContextVar[str | None] = ContextVar("current_request", default=None)  # that is being answered


def new_request_id() -> str:
    """32 hex digits: milliseconds since 1970, then randomness."""
    value = (time_ns() // 1_000_000) << 80 | int.from_bytes(os.urandom(10), "big")
    value = value & ~(0xF << 76) | (7 << 76)
    value = value & ~(0x3 << 62) | (2 << 62)
    return f"{value:032x}"
