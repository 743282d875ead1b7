"""GET /release: what is served and where it came from, and which challengers answer beside it."""

from typing import Any

from recops.serving.endpoints.traffic import ARM
from recops.serving.operation import Call, Operation
from recops.serving.schemas import array, nullable, obj
from recops.serving.traffic.arms import DEFAULT

FACTS = ("model", "metrics", "data_watermark", "fitted_until", "remove_seen", "opset", "format_version")
SHOWN = ("name", "release", "mode", "share", "halted")  # of each challenger


def handle(call: Call) -> dict[str, Any]:
    release = call.release
    manifest = release.bundle.manifest
    return {
        "release": release.id,
        "variant": DEFAULT,
        "num_items": release.bundle.num_items,
        "online_items": len(release.online),
        **{name: manifest.get(name) for name in FACTS},
        "promoted_at": release.record.get("promoted_at"),
        "commit": release.record.get("commit"),
        "traffic": [
            {
                **arm.model_dump(include=set(SHOWN)),
                "loaded": call.state.challenger(arm) is not None,
            }
            for arm in call.state.traffic.arms
        ],
        "request_id": call.request_id,
    }


CHALLENGER = obj(
    **{name: ARM[name] for name in SHOWN},
    loaded={"type": "boolean", "description": "In this worker."},
)
ANSWER = obj(
    release="string",
    variant="string",
    num_items="integer",
    online_items={"type": "integer", "description": "Added or changed since the export."},
    model="string",
    metrics={"type": "object"},
    data_watermark=nullable("string"),
    fitted_until=nullable("string"),
    remove_seen="boolean",
    opset=nullable("integer"),
    format_version="integer",
    promoted_at=nullable("string"),
    commit=nullable("string"),
    traffic=array(CHALLENGER),
    request_id="string",
)
OPERATIONS = (Operation("GET", "/release", "What is served and where it came from", handle, answer=ANSWER),)
