"""What the service writes to its log: text as BentoML has it, or one JSON object a line, and a line for each request.

Every line has `time` (ISO 8601, UTC), `level`, `logger` and `message`; `request_id` and `trace_id` while a request is
answered; `exception` with a traceback. An access line also has `method`, `path` (of the operation, so that no id of a
user stands in it), `status`, `milliseconds`, and the `release` that answered where one did; nothing of body, key or
address.
"""

import json
import logging
import sys
from datetime import UTC, datetime
from typing import Any, Literal, TextIO

from recops.serving import tracing
from recops.serving.request_ids import current_request

Format = Literal["text", "json"]

_access = logging.getLogger("recops.access")


class JsonLines(logging.Formatter):
    """One JSON object a record, in ASCII, so that no text can break a line or an encoding."""

    def format(self, record: logging.LogRecord) -> str:
        entry: dict[str, Any] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname,
            "logger": record.name,
            "message": record.getMessage(),
        }
        for name, value in (("request_id", current_request.get()), ("trace_id", tracing.trace_id())):
            if value is not None:
                entry[name] = value
        entry |= getattr(record, "fields", {})
        if record.exc_info:
            entry["exception"] = self.formatException(record.exc_info)
        return json.dumps(entry, default=str)


def configure(log_format: Format, is_access_logged: bool, stream: TextIO = sys.stdout) -> None:
    """Takes the place of the handlers there are where lines are to be JSON, of all loggers; warnings are lines too."""
    if is_access_logged:
        _access.setLevel(logging.INFO)
    if log_format == "text":
        return
    for logger in logging.Logger.manager.loggerDict.values():
        if isinstance(logger, logging.Logger):
            logger.handlers.clear()
            logger.propagate = True
    handler = logging.StreamHandler(stream)
    handler.setFormatter(JsonLines())
    logging.getLogger().handlers[:] = [handler]
    logging.captureWarnings(True)


def log_access(release: str | None, method: str, path: str, status: int, seconds: float, request_id: str) -> None:
    fields: dict[str, Any] = {
        "method": method,
        "path": path,
        "status": status,
        "milliseconds": round(seconds * 1e3, 3),
        "request_id": request_id,
    }
    if release is not None:
        fields["release"] = release
    _access.info("%s %s %d %.1f ms %s", method, path, status, seconds * 1e3, request_id, extra={"fields": fields})
