"""GET /release: what is served and where it came from, and which challengers answer beside it."""

from typing import Any

from recops.serving.operation import Call, Operation
from recops.serving.traffic.arms import DEFAULT

FACTS = ("model", "metrics", "data_watermark", "fitted_until", "remove_seen", "opset", "format_version")


def handle(call: Call) -> dict[str, Any]:
    release = call.release
    manifest = release.bundle.manifest
    return {
        "release": release.id,
        "variant": DEFAULT,
        "num_items": release.bundle.num_items,
        "online_items": len(release.online),  # added or changed since the export
        **{name: manifest.get(name) for name in FACTS},
        "promoted_at": release.record.get("promoted_at"),
        "commit": release.record.get("commit"),
        "traffic": [
            {
                **arm.model_dump(include={"name", "release", "mode", "share", "halted"}),
                "loaded": call.state.challenger(arm) is not None,
            }
            for arm in call.state.traffic.arms
        ],
        "request_id": call.request_id,
    }


OPERATIONS = (Operation("GET", "/release", "What is served and where it came from", handle),)
