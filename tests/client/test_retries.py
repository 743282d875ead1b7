"""When a call is sent again, and after how long."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from recops.client import errors
from recops.client.call import Call
from recops.client.retries import Attempts, Retries

CALLS = {again: Call[object]("POST", "/made", again) for again in ("always", "refused", "never")}


def failure(kind: type[errors.ServiceError], retry_after_s: float | None = None) -> errors.ServiceError:
    return kind(None, "some", None, "said so", None, retry_after_s)


def attempts(again: str = "always", random: float = 1.0, until: float = 100.0, **retries: float) -> Attempts:
    return Attempts(CALLS[again], Retries(**retries), until, now=lambda: 0.0, random=lambda: random)


def test_waits_double_up_to_the_cap() -> None:
    made = attempts(max_retries=8)
    # .1 * 2^n: .1 .2 .4 .8 1.6 3.2 6.4 12.8, at most 5.
    waits = [made.wait_s(failure(errors.NotReadyError)) for _ in range(8)]
    assert waits == pytest.approx([0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 5.0, 5.0])
    with pytest.raises(errors.NotReadyError):
        made.wait_s(failure(errors.NotReadyError))


@given(st.floats(0, 1), st.none() | st.floats(0, 50), st.integers(0, 12))
def test_the_wait_lies_between_what_was_asked_for_and_that_and_the_backoff(
    random: float, retry_after_s: float | None, number: int
) -> None:
    made = attempts(random=random, until=1000.0, max_retries=20)
    made.num_retries = number
    asked = retry_after_s or 0.0
    found = made.wait_s(failure(errors.OverloadedError, retry_after_s))
    assert asked <= found <= asked + min(5.0, 0.1 * 2**number)
    assert found == pytest.approx(asked + random * min(5.0, 0.1 * 2**number))


@pytest.mark.parametrize(
    ("kind", "always", "refused"),
    [
        (errors.OverloadedError, True, True),
        (errors.NotReadyError, True, True),
        (errors.UnreachableError, True, True),
        (errors.LateError, True, False),
        (errors.LostError, True, False),
        (errors.InternalError, False, False),
        (errors.RequestError, False, False),
        (errors.UnauthorizedError, False, False),
        (errors.AnswerError, False, False),
    ],
)
def test_what_may_have_been_done_is_sent_again_only_where_that_changes_nothing(
    kind: type[errors.ServiceError], always: bool, refused: bool
) -> None:
    for again, may in (("always", always), ("refused", refused), ("never", False)):
        if may:
            assert attempts(again).wait_s(failure(kind)) == 0.1
        else:
            with pytest.raises(kind):
                attempts(again).wait_s(failure(kind))


def test_nobody_waits_for_what_comes_too_late() -> None:
    assert attempts(until=2.0).wait_s(failure(errors.OverloadedError, 1.5)) == 1.6
    for until in (1.6, 1.0, 0.0):
        with pytest.raises(errors.OverloadedError):
            attempts(until=until).wait_s(failure(errors.OverloadedError, 1.5))
