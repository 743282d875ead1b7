"""When a call is sent again, and after how long. Knows no connection; clock and chance are arguments."""

from collections.abc import Callable
from dataclasses import dataclass

from recops.client.call import Call
from recops.client.errors import LateError, LostError, NotReadyError, OverloadedError, ServiceError, UnreachableError

REFUSED = (OverloadedError, NotReadyError, UnreachableError)  # nothing was done
LOST = (LateError, LostError)  # it may have been


@dataclass(frozen=True)
class Retries:
    """At most `max_retries` after the first attempt; before retry n (from 1) a time drawn evenly from 0 to
    min(`cap_s`, `base_s` * 2^(n-1)), on top of what the service asked for by Retry-After."""

    max_retries: int = 4
    base_s: float = 0.1
    cap_s: float = 5.0


class Attempts:
    """The attempts of one call, which together end at the moment `until` of `now`. `random` gives numbers from 0 to
    1."""

    def __init__(
        self, call: Call[object], retries: Retries, until: float, now: Callable[[], float], random: Callable[[], float]
    ) -> None:
        self.call, self.retries, self.until = call, retries, until
        self._now, self._random = now, random
        self.num_retries = 0

    def wait_s(self, failure: ServiceError) -> float:
        """Seconds before the next attempt. Raises `failure` where there is to be none: it would be the same again, not
        safe, one too many, or too late."""
        again = self.call.again
        is_worth_it = isinstance(failure, REFUSED) or (again == "always" and isinstance(failure, LOST))
        if again == "never" or not is_worth_it or self.num_retries == self.retries.max_retries:
            raise failure
        backoff_s = min(self.retries.cap_s, self.retries.base_s * 2.0**self.num_retries)
        wait_s = (failure.retry_after_s or 0.0) + self._random() * backoff_s
        if self._now() + wait_s >= self.until:
            raise failure
        self.num_retries += 1
        return wait_s
