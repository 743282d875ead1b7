"""GET /release: what is served and where it came from."""

from typing import Any

from recops.serving.endpoints.recommend import VARIANT
from recops.serving.operation import Call, Operation

FACTS = ("model", "metrics", "data_watermark", "fitted_until", "remove_seen", "opset", "format_version")


def handle(call: Call) -> dict[str, Any]:
    release = call.release
    manifest = release.bundle.manifest
    return {
        "release": release.id,
        "variant": VARIANT,
        "num_items": release.bundle.num_items,
        "online_items": len(release.online),  # added or changed since the export
        **{name: manifest.get(name) for name in FACTS},
        "promoted_at": release.record.get("promoted_at"),
        "commit": release.record.get("commit"),
        "request_id": call.request_id,
    }


OPERATIONS = (Operation("GET", "/release", "What is served and where it came from", handle),)
