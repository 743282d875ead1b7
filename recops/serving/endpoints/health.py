"""GET /livez (the process answers) and GET /readyz (a release is loaded and has passed its warm-up call)."""

from typing import Any

from recops.serving.operation import Call, Operation
from recops.serving.schemas import obj


def live(call: Call) -> dict[str, Any]:
    return {"live": True}


def ready(call: Call) -> dict[str, Any]:
    return {"ready": True, "release": call.release.id}


OPERATIONS = (
    Operation("GET", "/livez", "200 while the process answers", live, answer=obj(live="boolean"), is_probe=True),
    Operation(
        "GET",
        "/readyz",
        "200 once a release is loaded and warmed up, 503 before",
        ready,
        answer=obj(ready="boolean", release="string"),
        is_probe=True,
    ),
)
