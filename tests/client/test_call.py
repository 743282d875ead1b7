"""A call as bytes: what is sent, and what an answer means."""

import json
import pickle
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from urllib.parse import unquote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from recops.client import errors
from recops.client.call import answer_of, request_of
from recops.client.operations import ERASE_USER, EVENTS, METRICS, RECOMMEND, USER
from recops.serving.problems import NAMES, Problem


def test_what_is_not_given_is_not_sent() -> None:
    path, body = request_of(RECOMMEND, {"user_id": "é", "history": None, "k": 3})
    assert (path, body) == ("/recommend", '{"user_id":"é","k":3}'.encode())
    assert request_of(USER, {"user_id": "a", "limit": None, "before": None}) == ("/users/a", None)
    moment = "2020-01-01T00:00:00+02:00"
    assert request_of(USER, {"user_id": "a", "limit": 2, "before": moment}) == (
        "/users/a?limit=2&before=2020-01-01T00%3A00%3A00%2B02%3A00",
        None,
    )


@given(st.text(st.characters(exclude_categories=["Cs"]), min_size=1))
def test_any_user_id_is_one_part_of_the_path(user_id: str) -> None:
    path, _ = request_of(ERASE_USER, {"user_id": user_id})
    last = path.removeprefix("/users/")
    assert unquote(last) == user_id
    assert not set(last) & set("/.?#") and last.isascii()


def test_times_have_a_zone_and_json_no_nan() -> None:
    at = datetime(2020, 1, 1, tzinfo=UTC)
    _, body = request_of(RECOMMEND, {"history": [{"item_id": "a", "timestamp": at}]})
    assert body == b'{"history":[{"item_id":"a","timestamp":"2020-01-01T00:00:00+00:00"}]}'
    with pytest.raises(ValueError, match="needs a zone"):
        request_of(RECOMMEND, {"filters": {"published_after": datetime(2020, 1, 1)}})
    with pytest.raises(ValueError, match="not JSON compliant"):
        request_of(RECOMMEND, {"diversity": float("nan")})
    with pytest.raises(ValueError, match="surrogates"):
        request_of(RECOMMEND, {"user_id": "\ud800"})
    with pytest.raises(TypeError, match="not JSON: set"):
        request_of(RECOMMEND, {"exclude": {"a"}})


def test_events_are_sent_as_they_are() -> None:
    """An id of the client's own making would hide from the service that the log brings the same event."""
    told = [{"user_id": "u"}, {"user_id": "u", "event_id": None}, {"user_id": "u", "event_id": "mine"}]
    assert json.loads(request_of(EVENTS, {"events": told})[1] or b"") == {"events": told}


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (302, errors.RequestError),
        (400, errors.RequestError),
        (401, errors.UnauthorizedError),
        (403, errors.ForbiddenError),
        (404, errors.NotFoundError),
        (413, errors.RequestError),
        (429, errors.OverloadedError),
        (500, errors.InternalError),
        (502, errors.InternalError),
        (503, errors.NotReadyError),
        (504, errors.LateError),
    ],
)
def test_an_error_is_of_its_own_class_and_carries_what_was_said(status: int, kind: type[errors.ServiceError]) -> None:
    body = json.dumps(Problem(status, "too long", field="k").body("r1")).encode()
    with pytest.raises(errors.ServiceError) as caught:
        answer_of(RECOMMEND, status, {"retry-after": "7"}, body)
    error = caught.value
    assert type(error) is kind
    assert (error.status, error.field, error.message, error.request_id) == (status, "k", "too long", "r1")
    assert (error.error, error.retry_after_s) == (NAMES.get(status, "error"), 7.0)
    assert str(error) == f"{status} {error.error}: k: too long (request r1)"
    assert str(pickle.loads(pickle.dumps(error))) == str(error)


def test_what_does_not_come_from_the_service_is_told() -> None:
    with pytest.raises(errors.InternalError, match="502 error: an answer without a reason") as caught:
        answer_of(RECOMMEND, 502, {"x-request-id": "r2"}, b"<html>")
    assert (caught.value.field, caught.value.request_id) == (None, "r2")
    with pytest.raises(errors.RequestError, match="422 error: an answer without a reason"):
        answer_of(RECOMMEND, 422, {}, b'{"message": [1]}')
    for body in (b"<html>", b"[]", b"", b"\xff"):
        with pytest.raises(errors.AnswerError, match="no JSON object"):
            answer_of(RECOMMEND, 200, {}, body)
    assert answer_of(METRICS, 200, {}, b"1 2") == "1 2"


@pytest.mark.parametrize(("text", "seconds"), [("0", 0.0), ("120", 120.0), ("soon", None), ("-1", None)])
def test_retry_after_in_seconds(text: str, seconds: float | None) -> None:
    with pytest.raises(errors.NotReadyError) as caught:
        answer_of(RECOMMEND, 503, {"retry-after": text}, b"")
    assert caught.value.retry_after_s == seconds


@pytest.mark.parametrize(("ahead_s", "lowest", "highest"), [(60, 50.0, 60.0), (-60, 0.0, 0.0)])
def test_retry_after_as_a_date(ahead_s: int, lowest: float, highest: float) -> None:
    at = format_datetime(datetime.now(UTC) + timedelta(seconds=ahead_s), usegmt=True)
    with pytest.raises(errors.OverloadedError) as caught:
        answer_of(RECOMMEND, 429, {"retry-after": at}, b"")
    assert caught.value.retry_after_s is not None and lowest <= caught.value.retry_after_s <= highest
