"""The clients say what the service's OpenAPI says: nothing is left out, and what is there is made of it."""

import inspect
import json
import types as kinds
from typing import Any, Union, get_args, get_origin, get_type_hints, is_typeddict

import pytest

import recops
from clients import python, typescript
from clients.generate import TYPESCRIPT, generated
from clients.methods import methods
from recops.client import AsyncClient, Client, types
from recops.serving.app import operations
from recops.serving.openapi import describe

DESCRIPTION = describe(operations())
ENTRIES = {entry["operationId"]: entry for verbs in DESCRIPTION["paths"].values() for entry in verbs.values()}


def test_what_is_committed_is_what_the_service_says_now() -> None:
    for path, text in generated(DESCRIPTION).items():
        assert path.read_text(encoding="utf-8") == text, f"{path}: `python -m clients` writes it anew"
    package = json.loads((TYPESCRIPT / "package.json").read_text())
    assert package["version"] == recops.__version__


def test_a_service_that_has_changed_is_noticed() -> None:
    changed = json.loads(json.dumps(DESCRIPTION))
    changed["components"]["schemas"]["Recommend"]["properties"]["seed"] = {"type": "integer"}
    before, after = generated(DESCRIPTION), generated(changed)
    assert [path.name for path in before if before[path] != after[path]] == ["types.py", "operations.py", "recops.d.ts"]


def objects(hint: Any) -> list[Any]:
    """The typed dictionaries that a type allows."""
    if get_origin(hint) in (list, Union, kinds.UnionType):
        return [found for part in get_args(hint) for found in objects(part)]
    return [hint] if is_typeddict(hint) else []


def check(schema: dict[str, Any], hint: Any) -> int:
    """Compares an answer's schema with its type, all the way down; how many objects were."""
    options = schema.get("anyOf", [schema])
    described = [one["items"] if one.get("type") == "array" else one for one in options]
    described = [part for one in described for part in one.get("anyOf", [one]) if "properties" in part]
    found = objects(hint)
    assert len(found) == len(described), hint
    count = len(found)
    for part, kind in zip(described, found, strict=True):
        hints = get_type_hints(kind)
        assert set(hints) == set(part["properties"]), kind
        assert kind.__required_keys__ == set(part["required"]), kind
        count += sum(check(value, hints[name]) for name, value in part["properties"].items())
    return count


@pytest.mark.parametrize("client", [Client, AsyncClient])
def test_every_operation_is_a_method_with_all_it_takes_and_all_it_answers(client: type) -> None:
    num_objects = 0
    for name, entry in ENTRIES.items():
        method = getattr(client, name)
        taken = set(inspect.signature(method).parameters) - {"self", "timeout_s"}
        told = {parameter["name"] for parameter in entry.get("parameters", ())}
        if "requestBody" in entry:
            body = entry["requestBody"]["content"]["application/json"]["schema"]["$ref"].rsplit("/", 1)[-1]
            told |= set(DESCRIPTION["components"]["schemas"][body]["properties"])
        assert taken == told, name
        (content,) = entry["responses"]["200"]["content"].items()
        hint = get_type_hints(method)["return"]
        assert (hint is str) == (content[0] != "application/json"), name
        num_objects += check(content[1]["schema"], hint)
    assert len(ENTRIES) >= 16 and num_objects >= 25


def test_what_is_sent_in_parts_has_all_its_parts() -> None:
    for name in ("TellEvent", "NewItem", "Recommend", "Filters", "PriceRange", "HistoryEvent", "Turn"):
        kind, schema = getattr(types, name), DESCRIPTION["components"]["schemas"][name]
        assert set(get_type_hints(kind)) == set(schema["properties"])
        assert kind.__required_keys__ == set(schema.get("required", ()))


def made(verb: str = "post", path: str = "/made", **more: Any) -> dict[str, Any]:
    """An operation of no service."""
    answer = {
        "type": "object",
        "properties": {"from": {"enum": ["a", "b"]}, "at": {"type": "integer"}},
        "required": ["at"],
    }
    entry = {"operationId": "made", "summary": "Makes it", "x-role": "read", **more}
    entry["responses"] = {"200": {"content": {"application/json": {"schema": answer}}}}
    return {"paths": {path: {verb: entry}}, "components": {"schemas": {}}}


PARAMETERS = [
    {"name": "id", "in": "path", "required": True, "schema": {"type": "string", "description": "Whose."}},
    {"name": "limit", "in": "query", "required": False, "schema": {"anyOf": [{"type": "integer"}, {"type": "null"}]}},
]


def test_a_call_in_both_languages() -> None:
    description = made("get", "/made/{id}", parameters=PARAMETERS)
    found = methods(description)
    types_text, calls = python.written(found, {})
    assert "MadeAnswer = TypedDict('MadeAnswer', {'from': NotRequired[Literal['a', 'b']], 'at': int})" in types_text
    assert "MADE: Call[types.MadeAnswer] = Call('GET', '/made/{id}', 'always')" in calls
    head = "def made(self, id: str, *, limit: int | None = None, timeout_s: float | None = None,) -> types.MadeAnswer:"
    assert f"    {head}" in calls and f"    async {head}" in calls
    declarations, module = typescript.written(found, {})
    assert 'export interface MadeAnswer {\n  from?: "a" | "b";\n  at: number;\n}' in declarations
    assert "export interface Made {\n  /** Whose. */\n  id: string;\n  limit?: number | null;\n}" in declarations
    assert "  made(request: Made, options?: CallOptions): Promise<MadeAnswer>;" in declarations
    assert 'return this.call(["GET", "/made/{id}", "always", false], request, options);' in module


@pytest.mark.parametrize(
    ("verb", "more", "again"),
    [
        ("post", {"x-role": "write"}, "always"),
        ("post", {"x-role": "admin"}, "refused"),
        ("get", {"x-role": "admin"}, "always"),
        ("delete", {"x-role": "admin"}, "always"),
        ("get", {"security": []}, "never"),
    ],
)
def test_what_decides_something_is_not_repeated_blindly(verb: str, more: dict[str, Any], again: str) -> None:
    (method,) = methods(made(verb, **more))
    assert method.again == again


def test_what_the_clients_cannot_say_is_refused() -> None:
    both = {**made("get")["paths"]["/made"], **made("post")["paths"]["/made"]}
    with pytest.raises(ValueError, match=r"need names of their own \(Operation.name\): made"):
        methods({"paths": {"/made": both}})
    body = {"content": {"application/json": {"schema": {"$ref": "#/components/schemas/Made"}}}}
    with pytest.raises(ValueError, match="made: the clients know no call with a body and parameters"):
        methods(made("post", "/made/{id}", requestBody=body, parameters=PARAMETERS))
    two = made("get", parameters=PARAMETERS)
    schema = two["paths"]["/made"]["get"]["responses"]["200"]["content"]["application/json"]["schema"]
    at = {"type": "object", "properties": {"x": {"type": "string"}}}
    schema["properties"] = {"at": at, "ats": {"type": "array", "items": {**at, "required": ["x"]}}}
    with pytest.raises(ValueError, match="two different objects would be named MadeAt"):
        python.written(methods(two), {})
