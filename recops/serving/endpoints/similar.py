"""POST /similar: the items nearest to one item."""

from typing import Any

from recops.serving.operation import Call, Operation
from recops.serving.problems import Problem
from recops.serving.requests import Similar
from recops.serving.retrieval import similar
from recops.serving.schemas import array, item, obj
from recops.serving.tracing import span


def handle(call: Call) -> dict[str, Any]:
    release = call.release
    with span("scoring"):
        found = similar(release, call.body, call.state.settings.rules)
    if found is None:
        raise Problem(404, "the served release has no such item", field="item_id")
    return {**found, "release": release.id, "request_id": call.request_id}


OPERATIONS = (
    Operation(
        "POST",
        "/similar",
        "The items nearest to one item that the filters let through; 404 for an item the release does not know",
        handle,
        Similar,
        obj(
            items=array(item()),
            source={"enum": ["links", "vectors", "categories"]},
            release="string",
            request_id="string",
        ),
        may_miss=True,
    ),
)
