"""Why a call has no answer: one class a reason. All but the last three carry what the service said."""


class ServiceError(Exception):
    """`status` of the answer, None where there was none; `error`: the reason's name; `field`: the part of the request
    that is wrong; `request_id`: what the service's log and `recops trace` know the call by; `retry_after_s`: when the
    service asked to come again."""

    def __init__(
        self,
        status: int | None,
        error: str,
        field: str | None,
        message: str,
        request_id: str | None = None,
        retry_after_s: float | None = None,
    ) -> None:
        super().__init__(status, error, field, message, request_id, retry_after_s)
        self.status = status
        self.error = error
        self.field = field
        self.message = message
        self.request_id = request_id
        self.retry_after_s = retry_after_s

    def __str__(self) -> str:
        parts = [self.error if self.status is None else f"{self.status} {self.error}"]
        parts += [self.field] if self.field else []
        parts.append(self.message)
        return ": ".join(parts) + (f" (request {self.request_id})" if self.request_id else "")


class RequestError(ServiceError):
    """4xx: the call is wrong, `field` says where. 3xx: the service is not at this address."""


class UnauthorizedError(RequestError):
    """401: no key, or none that is known."""


class ForbiddenError(RequestError):
    """403: the key's role is not enough, or it is another tenant's."""


class NotFoundError(RequestError):
    """404: the served release has no such item, or the service no such call."""


class OverloadedError(ServiceError):
    """429: too many calls, of this key or at once."""


class InternalError(ServiceError):
    """5xx: the service's own mistake."""


class NotReadyError(ServiceError):
    """503: no release is loaded, the store cannot be written, or the process is ending."""


class LateError(ServiceError, TimeoutError):
    """504, or no answer within the time for the call."""


class UnreachableError(ServiceError, ConnectionError):
    """No connection could be made: nothing was sent."""


class LostError(ServiceError, ConnectionError):
    """The connection broke before the answer: the call may have been done."""


class AnswerError(ServiceError):
    """200, but no answer of this service."""


OF_STATUS: dict[int, type[ServiceError]] = {
    401: UnauthorizedError,
    403: ForbiddenError,
    404: NotFoundError,
    429: OverloadedError,
    503: NotReadyError,
    504: LateError,
}


def error_of(status: int) -> type[ServiceError]:
    """The class for a status other than 200."""
    return OF_STATUS.get(status) or (InternalError if status >= 500 else RequestError)
