"""The one shape of every error answer: `{error, field, message, request_id}`. Knows no endpoint."""

from collections.abc import Mapping

NAMES = {
    400: "bad_request",
    401: "unauthorized",
    403: "forbidden",
    404: "not_found",
    405: "method_not_allowed",
    408: "request_timeout",
    413: "body_too_large",
    415: "unsupported_media_type",
    429: "overloaded",
    500: "internal_error",
    503: "not_ready",
    504: "timeout",
}


class Problem(Exception):
    """Ends a request with an error answer. `field` names the part of the request that is wrong, where there is one."""

    def __init__(
        self, status: int, message: str, field: str | None = None, headers: Mapping[str, str] | None = None
    ) -> None:
        super().__init__(message)
        self.status = status
        self.message = message
        self.field = field
        self.headers = dict(headers or {})

    def body(self, request_id: str) -> dict[str, str | None]:
        return {
            "error": NAMES.get(self.status, "error"),
            "field": self.field,
            "message": self.message,
            "request_id": request_id,
        }
