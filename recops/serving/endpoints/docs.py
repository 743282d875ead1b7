"""GET /docs (a page without scripts or foreign files), /docs.json and /openapi.json: what the service answers."""

from functools import cache
from typing import Any

from starlette.responses import HTMLResponse, Response

from recops.serving.openapi import describe, page
from recops.serving.operation import Call, Operation
from recops.serving.schemas import of

# The page's own style, and nothing else from anywhere.
POLICY = "default-src 'none'; style-src 'unsafe-inline'; frame-ancestors 'none'; base-uri 'none'; form-action 'none'"


@cache
def _description() -> dict[str, Any]:
    from recops.serving.app import operations  # operations() reads this file too

    return describe(operations())


def as_json(call: Call) -> dict[str, Any]:
    return _description()


def as_page(call: Call) -> Response:
    return HTMLResponse(page(_description()), headers={"content-security-policy": POLICY})


OPERATIONS = (
    Operation("GET", "/docs", "This page", as_page, media_type="text/html"),
    Operation("GET", "/docs.json", "This description as OpenAPI 3.1", as_json, answer=of("object")),
    Operation("GET", "/openapi.json", "The same", as_json, answer=of("object")),
)
