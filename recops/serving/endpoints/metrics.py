"""GET /metrics: figures of all workers as Prometheus text."""

from starlette.responses import Response

from recops.serving import counters
from recops.serving.operation import Call, Operation


def handle(call: Call) -> Response:
    return Response(counters.exposition(), media_type=counters.CONTENT_TYPE)


OPERATIONS = (Operation("GET", "/metrics", "Figures for Prometheus", handle, media_type="text/plain"),)
