"""Describes operations as OpenAPI 3.1, and as one HTML page. Knows only what the operations say of themselves."""

import json
from html import escape
from typing import Any

from recops import __version__
from recops.serving.operation import Operation
from recops.serving.schemas import PROBLEM

REF = "#/components/schemas/{model}"
ERRORS = {
    "400": "The body or a field is wrong",
    "401": "No valid key",
    "403": "The key is not of the role needed, or of another tenant",
    "404": "There is no such thing",
    "408": "The body did not arrive in time",
    "413": "The body is too large",
    "415": "The body is not JSON",
    "429": "The service or the key is at its limit; Retry-After says when to come again",
    "503": "No release is loaded",
    "504": "No answer in time",
}


def describe(operations: tuple[Operation, ...]) -> dict[str, Any]:
    """The OpenAPI document of exactly these operations."""
    schemas: dict[str, Any] = {"Problem": PROBLEM}
    paths: dict[str, Any] = {}
    for operation in operations:
        entry: dict[str, Any] = {
            "summary": operation.summary,
            "operationId": operation.name,
            "responses": {
                "200": {
                    "description": "The answer",
                    "content": {operation.media_type: {"schema": operation.answer or {}}},
                },
                **{status: _problem(text) for status, text in ERRORS.items() if _can_give(operation, status)},
            },
        }
        if operation.request is not None:
            schema = operation.request.model_json_schema(ref_template=REF)
            schemas.update(schema.pop("$defs", {}))
            schemas[operation.request.__name__] = schema
            entry["requestBody"] = {
                "required": True,
                "content": {
                    "application/json": {"schema": {"$ref": REF.format(model=operation.request.__name__)}},
                },
            }
        if operation.parameters is not None:
            entry["parameters"] = _parameters(operation)
        if operation.is_probe:
            entry["security"] = []
        else:
            entry["x-role"] = operation.role
        paths.setdefault(operation.path, {})[operation.method.lower()] = entry
    return {
        "openapi": "3.1.0",
        "info": {"title": "recops", "version": __version__},
        "paths": paths,
        "components": {"schemas": schemas, "securitySchemes": {"key": {"type": "http", "scheme": "bearer"}}},
        "security": [{}, {"key": []}],
    }


def _can_give(operation: Operation, status: str) -> bool:
    if status == "400" and operation.parameters is not None:
        return True
    if status == "404":
        return operation.may_miss
    if status in ("400", "408", "413", "415"):
        return operation.request is not None
    return not (operation.is_probe and status in ("401", "403", "429"))


def _parameters(operation: Operation) -> list[dict[str, Any]]:
    schema = operation.parameters.model_json_schema()
    return [
        {
            "name": name,
            "in": "path" if f"{{{name}}}" in operation.path else "query",
            "required": name in schema.get("required", ()),
            "schema": kind,
        }
        for name, kind in schema["properties"].items()
    ]


def _problem(text: str) -> dict[str, Any]:
    return {"description": text, "content": {"application/json": {"schema": {"$ref": REF.format(model="Problem")}}}}


def page(description: dict[str, Any]) -> str:
    """The document for people, in one file."""
    parts = []
    for path, methods in description["paths"].items():
        for method, entry in methods.items():
            parts.append(f"<h2><code>{method.upper()} {escape(path)}</code></h2><p>{escape(entry['summary'])}</p>")
            if "requestBody" in entry:
                reference = entry["requestBody"]["content"]["application/json"]["schema"]["$ref"].rsplit("/", 1)[-1]
                parts.append(_details("Body", description["components"]["schemas"][reference]))
            for schema in (c["schema"] for c in entry["responses"]["200"]["content"].values()):
                if schema:
                    parts.append(_details("Answer", schema))
    parts.append("<h2>Errors</h2>" + _details("One shape for all", PROBLEM))
    version = escape(description["info"]["version"])
    return (
        '<!doctype html><html lang="en"><meta charset="utf-8"><title>recops</title>'
        "<style>body{font:16px/1.5 system-ui,sans-serif;max-width:52rem;margin:2rem auto;padding:0 1rem}"
        "pre{background:#f4f4f4;padding:1rem;overflow:auto}h2{margin-top:2rem;font-size:1.1rem}</style>"
        f'<h1>recops {version}</h1><p>Also as <a href="openapi.json">OpenAPI 3.1</a>.</p>{"".join(parts)}</html>'
    )


def _details(title: str, schema: dict[str, Any]) -> str:
    text = escape(json.dumps(schema, indent=1, ensure_ascii=False))
    return f"<details><summary>{escape(title)}</summary><pre>{text}</pre></details>"
