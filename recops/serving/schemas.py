"""Short ways to write the JSON schemas of answers, for the OpenAPI page."""

from typing import Any

Schema = dict[str, Any]


def of(kind: str | Schema) -> Schema:
    return {"type": kind} if isinstance(kind, str) else kind


def array(kind: str | Schema) -> Schema:
    return {"type": "array", "items": of(kind)}


def nullable(kind: str) -> Schema:
    return {"anyOf": [{"type": kind}, {"type": "null"}]}


def obj(optional: tuple[str, ...] = (), /, **properties: str | Schema) -> Schema:
    """An object with these properties, all present but the `optional` ones, and no others."""
    return {
        "type": "object",
        "properties": {name: of(kind) for name, kind in properties.items()},
        "required": [name for name in properties if name not in optional],
        "additionalProperties": False,
    }


def item(reasons: bool = False) -> Schema:
    """One place of a list; with `reasons` where the call asked to explain."""
    fields: dict[str, str | Schema] = {
        "item_id": "string",
        "rank": {"type": "integer", "minimum": 1},
        "score": "number",
        "title": nullable("string"),
    }
    if not reasons:
        return obj(**fields)
    reason = obj(item_id="string", title=nullable("string"), weight="number")
    return obj(("reasons",), **fields, reasons=array(reason))


PROBLEM = obj(error="string", field=nullable("string"), message="string", request_id="string")
