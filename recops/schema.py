"""The columns of every table, once. Knows no file format and no dataframe library.

Types are names: `str`, `float32`, `int32`, `bool`, `time` (microseconds, UTC), `list[str]`, `json` (text holding one
JSON value). `data/tables.py` maps them to the dataframe library, `store/` to SQL.
"""

import re
from typing import Any

EVENTS = {
    "event_id": "str",
    "user_id": "str",
    "item_id": "str",
    "timestamp": "time",
    "received_at": "time",
    "event": "str",
    "value": "float32",
    "request_id": "str",
    "rank": "int32",
    "session_id": "str",
    "context": "json",
}
ITEMS = {
    "item_id": "str",
    "title": "str",
    "text": "str",
    "categories": "list[str]",
    "image": "str",
    "published_at": "time",
    "price": "float32",
    "available": "bool",
    "attributes": "json",
}
USERS = {"user_id": "str", "attributes": "json"}
# `line` counts from 1, the header included, as an editor shows it; for binary files it is the row.
REJECTED = {"table": "str", "file": "str", "line": "int64", "reason": "str", "raw": "str"}

TABLES = {"events": EVENTS, "items": ITEMS, "users": USERS, "rejected": REJECTED}

SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86_400, "w": 604_800}
LONGEST_S = 100 * 366 * SECONDS["d"]


def duration_us(value: Any) -> int:
    """Microseconds of a time as settings write it: `30d`, `12h`, `2w`. Raises ValueError for anything else."""
    found = re.fullmatch(r"(\d{1,9}(?:\.\d{1,6})?)([smhdw])", value) if isinstance(value, str) else None
    if found is None or not 0 < (seconds := float(found[1]) * SECONDS[found[2]]) <= LONGEST_S:
        raise ValueError("expected a time such as 30d, 12h or 2w (s, m, h, d, w; at most 100 years)")
    return round(seconds * 1_000_000)


# Kinds of event that sources may deliver, and what each one means where `ingest.events` in params.yaml does not say it:
# an impression was shown, which is neither for an item nor against it.
EVENT_SIGNALS = {
    "rating": "positive",
    "purchase": "positive",
    "play": "positive",
    "click": "positive",
    "like": "positive",
    "share": "positive",
    "cart": "positive",
    "view": "positive",
    "dislike": "negative",
    "return": "negative",
    "impression": "exposure",
}

PADDING_IDX = 0
