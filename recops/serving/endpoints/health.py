"""GET /livez (the process answers) and GET /readyz (a release is loaded and has passed its warm-up call, and nobody has
told the process to end)."""

from typing import Any

from recops.serving.operation import Call, Operation
from recops.serving.problems import Problem
from recops.serving.schemas import obj


def live(call: Call) -> dict[str, Any]:
    return {"live": True}


def ready(call: Call) -> dict[str, Any]:
    release = call.release
    if (reason := call.state.not_ready) is not None:
        raise Problem(503, reason, headers={"Retry-After": "5"})
    if call.state.is_draining:
        raise Problem(503, "this process has been told to end", headers={"Retry-After": "5"})
    return {"ready": True, "release": release.id}


OPERATIONS = (
    Operation("GET", "/livez", "200 while the process answers", live, answer=obj(live="boolean"), is_probe=True),
    Operation(
        "GET",
        "/readyz",
        "200 once a release is loaded and warmed up; 503 before, and when told to end",
        ready,
        answer=obj(ready="boolean", release="string"),
        is_probe=True,
    ),
)
