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
    return obj(("reasons", "moved"), **fields, reasons=array({"anyOf": list(REASONS)}), moved=MOVED)


RANK = {"type": "integer", "minimum": 1}
MOVED = {
    **array(obj(rule="string", **{"from": RANK, "to": RANK})),
    "description": "The rules that gave the item another rank, in their order; left out where none did.",
}
SHARE = {"type": "number", "exclusiveMinimum": 0, "maximum": 1, "description": "Of what speaks for the item."}


def _reason(kind: str, description: str, optional: tuple[str, ...] = (), /, **properties: str | Schema) -> Schema:
    return {"description": description, **obj(optional, type={"const": kind}, **properties, text="string")}


REASONS = (
    _reason(
        "history",
        "An item of the history without which the score would be lower. Shares are of the items left out in turn.",
        item_id="string",
        title=nullable("string"),
        share=SHARE,
    ),
    _reason(
        "attribute",
        "What the items of the history that carry this one share with it. Its share counts theirs a second time.",
        name="string",
        value="string",
        share=SHARE,
    ),
    _reason(
        "taste",
        "The model reads the user from a table learnt in training. The item named is near in it and carried nothing.",
        ("item_id", "title", "similarity"),
        item_id="string",
        title=nullable("string"),
        similarity="number",
    ),
    _reason("popular", "What speaks for the item is how many choose it, or how they rate it."),
)

PROBLEM = obj(error="string", field=nullable("string"), message="string", request_id="string")
