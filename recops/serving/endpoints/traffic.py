"""GET and POST /admin/traffic: challengers beside the served release, set at run time, and what came of them."""

import asyncio
from typing import Any

from pydantic import Field

from recops.bundle import release_folder
from recops.errors import CallError
from recops.serving.fields import Strict
from recops.serving.operation import Call, Operation
from recops.serving.problems import Problem
from recops.serving.schemas import array, nullable, obj
from recops.serving.traffic import control
from recops.serving.traffic.arms import Arm
from recops.serving.traffic.outcomes import METRICS
from recops.store import Store


class Arms(Strict):
    arms: list[Arm] = Field(max_length=10, description="All challengers; those that are not named answer no longer.")


def _store(call: Call) -> Store:
    if call.state.store is None:
        raise Problem(503, "this service has no store (RECOPS_STORE), so it has no traffic to set")
    return call.state.store


async def show(call: Call) -> dict[str, Any]:
    store, state = _store(call), call.state

    def work() -> list[dict[str, Any]]:
        assert state.running is not None
        return control.report(state.running, control.read(store), state.kinds)

    try:
        return {"arms": await call.in_time(asyncio.to_thread(work)), "request_id": call.request_id}
    except TimeoutError:
        raise Problem(504, "the log is being read; ask again", headers={"Retry-After": "5"}) from None


async def put(call: Call) -> dict[str, Any]:
    """Holds in this worker at once and in all within a second; a release that is not in memory yet once it is."""
    store, releases = _store(call), call.state.settings.releases
    for place, arm in enumerate(call.body.arms):
        # An id has letters and digits alone: nothing of a call leads to another folder.
        if releases is None or not arm.release.isalnum() or not release_folder(releases, arm.release).is_dir():
            raise Problem(400, f"no release {arm.release!r} is kept here", f"arms[{place}].release")

    def work() -> None:
        control.put_all(store, call.body.arms, call.caller.name)
        call.state.refresh_traffic()

    try:
        await asyncio.to_thread(work)
    except CallError as error:
        raise Problem(400, str(error), "arms") from None
    arms = [arm.model_dump() for arm in call.state.traffic.arms]
    return {"arms": arms, "request_id": call.request_id}


FIGURES = obj(
    variant="string",
    releases=array("string"),
    **dict.fromkeys(("users", "answers", "anonymous", "instead", "events"), "integer"),
    **dict.fromkeys(METRICS, "number"),
    overlap=nullable("number"),
)
DIFFERENCE = obj(value="number", low=nullable("number"), high=nullable("number"))
ARM: dict[str, Any] = {
    **{"name": "string", "release": "string", "mode": {"enum": ["shadow", "canary", "ab"]}, "share": "number"},
    **{"since": "integer", "until": nullable("integer"), "halted": nullable("string")},
}
GUARDRAIL = obj(metric="string", margin="number")
OPERATIONS = (
    Operation(
        "GET",
        "/admin/traffic",
        "Challengers, and what came of what they and the served release showed",
        show,
        answer=obj(
            arms=array(obj(**ARM, variants=array(FIGURES), differences=obj(**dict.fromkeys(METRICS, DIFFERENCE)))),
            request_id="string",
        ),
        role="admin",
        name="traffic",
    ),
    Operation(
        "POST",
        "/admin/traffic",
        "Set which challengers answer beside the served release: in shadow, as canary, or in an A/B test",
        put,
        Arms,
        obj(arms=array(obj(**ARM, at=nullable("number"), guardrails=array(GUARDRAIL))), request_id="string"),
        role="admin",
        name="set_traffic",
    ),
)
