"""The operations of an OpenAPI document as the methods of a client. Knows no language."""

from typing import Any, NamedTuple

from clients.schemas import Schema


class Method(NamedTuple):
    """`given`: one object of everything the caller says, None where there is nothing; `answer`: a JSON schema, None for
    text. `again`: when the call may be sent once more by itself: always; refused (only where it was, since what decides
    something may have been done when its answer is lost); never."""

    name: str
    verb: str
    path: str
    summary: str
    given: Schema | None
    answer: Schema | None
    again: str


def methods(description: dict[str, Any]) -> list[Method]:
    """Every operation. Raises ValueError where two have one name, or where a body is not all that one is told."""
    found = [
        Method(
            entry["operationId"],
            verb.upper(),
            path,
            entry["summary"],
            _given(entry),
            entry["responses"]["200"]["content"].get("application/json", {}).get("schema"),
            _again(verb, entry),
        )
        for path, verbs in description["paths"].items()
        for verb, entry in verbs.items()
    ]
    names = [method.name for method in found]
    if twice := {name for name in names if names.count(name) > 1}:
        raise ValueError(f"operations need names of their own (Operation.name): {', '.join(sorted(twice))}")
    return found


def _again(verb: str, entry: dict[str, Any]) -> str:
    if entry.get("security") == []:
        return "never"  # a probe tells how it is now
    return "refused" if verb == "post" and entry["x-role"] == "admin" else "always"


def _given(entry: dict[str, Any]) -> Schema | None:
    parameters = entry.get("parameters", [])
    if "requestBody" in entry:
        if parameters:
            raise ValueError(f"{entry['operationId']}: the clients know no call with a body and parameters")
        schema: Schema = entry["requestBody"]["content"]["application/json"]["schema"]
        return schema
    if not parameters:
        return None
    return {
        "type": "object",
        "properties": {parameter["name"]: parameter["schema"] for parameter in parameters},
        "required": [parameter["name"] for parameter in parameters if parameter["required"]],
    }
