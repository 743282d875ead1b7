"""What calls send: one class a body, and the reading of bytes into it. A mistake becomes a 400 that names the field.

Fields of rules (exclude, filters, diversity) come from the rules' own files.
"""

import json
from collections.abc import Mapping
from datetime import timedelta
from operator import itemgetter
from typing import Annotated, Any, TypeVar
from urllib.parse import parse_qsl

from pydantic import (
    AfterValidator,
    Discriminator,
    FailFast,
    Field,
    StringConstraints,
    Tag,
    TypeAdapter,
    ValidationError,
    ValidatorFunctionWrapHandler,
    WrapValidator,
    create_model,
    field_validator,
    model_validator,
)
from pydantic_core import PydanticCustomError

from recops.serving.fields import EPOCH, Attribute, ItemId, LongText, Moment, Strict, Text, UserId, moment
from recops.serving.problems import Problem
from recops.serving.ruleset import fields

M = TypeVar("M", bound=Strict)
MAX_HISTORY = 10_000  # events


def without_spaces(value: str) -> str:
    if value != value.strip(" "):
        raise PydanticCustomError("spaces", "an id has no spaces at its ends: the log's are read without")
    return value


class HistoryEvent(Strict):
    item_id: ItemId
    timestamp: Moment | None = None


def _kind_of_event(value: Any) -> str:
    return "id" if isinstance(value, str) else "event"


Event = Annotated[Annotated[ItemId, Tag("id")] | Annotated[HistoryEvent, Tag("event")], Discriminator(_kind_of_event)]


_ids = TypeAdapter(Annotated[list[ItemId], FailFast()], config=Strict.model_config)


def _ids_at_once(value: Any, validate: ValidatorFunctionWrapHandler) -> list[Any]:
    """A history of ids alone, as most are, is looked through without asking of each what it is."""
    try:
        found = _ids.validate_python(value)
    except ValidationError:
        return validate(value)
    return found if len(found) <= MAX_HISTORY else validate(value)


class Who(Strict):
    """Whom a call is about: a user the store may know, the events the caller knows, or both."""

    user_id: UserId | None = None
    history: Annotated[list[Event], Field(max_length=MAX_HISTORY), WrapValidator(_ids_at_once)] | None = Field(
        None, description="Oldest first; sorted by time where every event has one. May be empty."
    )

    @model_validator(mode="after")
    def _is_about_someone(self) -> "Who":
        if self.user_id is None and self.history is None:
            raise PydanticCustomError("nobody", "give user_id, history or both (history may be empty)")
        return self

    def history_events(self) -> tuple[list[str], list[int | None]]:
        """Item ids of the call's history, oldest first, and their times in µs (None: not said)."""
        if set(map(type, history := self.history or [])) <= {str}:
            return history, [None] * len(history)  # type: ignore[return-value]
        events = [(e, None) if isinstance(e, str) else (e.item_id, e.timestamp) for e in history]
        if all(time is not None for _, time in events):
            events = sorted(events, key=itemgetter(1))
        return [item_id for item_id, _ in events], [time for _, time in events]


Filters = create_model("Filters", __base__=Strict, **fields("filters"))


class Recommend(create_model("RuleFields", __base__=Who, **fields("request"))):  # type: ignore[misc]
    k: int = Field(10, ge=1, le=1000, description="Length of the list.")
    filters: Filters | None = None
    explain: bool = Field(False, description="Add to each item the reasons why it stands there.")


class RecommendBatch(Strict):
    requests: list[Recommend] = Field(min_length=1, max_length=256)


class Score(Who):
    item_ids: list[ItemId] = Field(min_length=1, max_length=10_000)


class Similar(create_model("FilterFields", __base__=Strict, **fields("request", moves=False))):  # type: ignore[misc]
    item_id: ItemId
    k: int = Field(10, ge=1, le=1000, description="Length of the list.")
    filters: Filters | None = None


LARGEST = 3.4028234663852886e38  # that 32 bits hold
MAX_QUESTION = 2000  # characters
QuestionText = Annotated[str, StringConstraints(min_length=1, max_length=MAX_QUESTION, pattern=r"^[^\x00]*$")]


def _says_something(value: str) -> str:
    if not any(c.isalnum() for c in value):
        raise PydanticCustomError("empty", "ask something in words")
    return value


class TellEvent(Strict):
    """An event of the events table. Without `event_id` one is made of user, item, time, event and value."""

    user_id: UserId
    item_id: ItemId
    event: Text = Field(description="Kind of event, such as click or purchase; impression: the item was seen.")
    timestamp: Moment
    value: float | None = Field(None, ge=-LARGEST, le=LARGEST, description="Kept in 32 bits.")
    event_id: Text | None = None
    request_id: Text | None = Field(None, description="Of the answer that showed the item.")
    rank: int | None = Field(None, ge=1, le=1_000_000, description="Where it stood in that answer.")
    session_id: Text | None = None
    context: dict[Text, Attribute] | None = Field(None, max_length=100)

    @field_validator("user_id", "item_id", "event_id")
    @classmethod
    def _is_as_in_the_log(cls, value: str | None) -> str | None:
        return None if value is None else without_spaces(value)


class Events(Strict):
    events: list[TellEvent] = Field(min_length=1, max_length=10_000)


class UserPath(Strict):
    """Whose data it is, from the path."""

    user_id: UserId


class Held(UserPath):
    limit: int = Field(100, ge=1, le=1000, strict=False, description="Events at most.")
    before: Text | None = Field(None, description="An event_id of the user, else a time: only events before it.")

    @property
    def time(self) -> int | None:
        """Microseconds, where `before` reads as a time. An event id may read so too, and goes first."""
        try:
            return None if self.before is None else moment(self.before)
        except ValueError:
            return None


class Turn(Strict):
    """A question asked before, and what was shown for it."""

    question: QuestionText
    items: list[ItemId] = Field(max_length=1000, description="Ids of the items of its answer, in their order.")


class Ask(Who):
    """Without user_id and history the answer is for somebody nothing is known of."""

    question: Annotated[QuestionText, AfterValidator(_says_something)]
    k: int = Field(10, ge=1, le=1000, description="Length of the list.")
    conversation: list[Turn] | None = Field(
        None, max_length=20, description="Oldest first. Nothing of it is kept: the next call brings it again."
    )
    log: bool = Field(False, description="Keep which items were shown, as for a recommendation; never the words.")

    @model_validator(mode="after")
    def _is_about_someone(self) -> "Ask":
        return self


class NewItem(Strict):
    """The columns of the items table; what is not given stays as it is, null takes it away."""

    item_id: ItemId
    title: LongText | None = None
    text: LongText | None = None
    categories: list[Text] | None = Field(None, max_length=1000)
    image: Text | None = Field(None, description="Path in the source's folder, or an address.")
    published_at: Moment | None = None
    price: float | None = Field(None, ge=0)
    available: bool | None = None
    attributes: dict[Text, Attribute] | None = Field(None, max_length=1000)

    @field_validator("item_id")
    @classmethod
    def _is_as_in_the_log(cls, value: str) -> str:
        return without_spaces(value)

    def columns(self) -> dict[str, Any]:
        """Those that were given, as JSON values; times as ISO text."""
        given = self.model_dump(exclude_unset=True)
        if (moment := given.get("published_at")) is not None:
            given["published_at"] = (EPOCH + timedelta(microseconds=moment)).isoformat()
        return given


class Items(Strict):
    items: list[NewItem] = Field(min_length=1, max_length=1000)

    @model_validator(mode="after")
    def _has_none_twice(self) -> "Items":
        seen: set[str] = set()
        for item in self.items:
            if item.item_id in seen:
                raise PydanticCustomError("twice", f"item {item.item_id!r} stands twice in one call")
            seen.add(item.item_id)
        return self


def _no_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    value = dict(pairs)
    if len(value) != len(pairs):
        names = [name for name, _ in pairs]
        name = next(n for n in names if names.count(n) > 1)
        raise Problem(400, "this key stands twice in one object", field=name[:100])
    return value


def _no_constant(name: str) -> None:
    raise ValueError(f"{name} is not JSON")


_decoder = json.JSONDecoder(object_pairs_hook=_no_duplicates, parse_constant=_no_constant)


def _field(error: Any) -> str | None:
    """`history[3].timestamp` for the place pydantic names; the kind of a history event is no part of it."""
    place = ""
    for before, part in zip((None, *error["loc"]), error["loc"], strict=False):
        if isinstance(part, int):
            place += f"[{part}]"
        elif not (part in ("id", "event") and isinstance(before, int)):
            place += f".{part[:100]}"
    if error["type"] == "nobody":
        place += ".user_id"
    return place.removeprefix(".") or None


def parse(kind: type[M], body: bytes) -> M:
    """The body as `kind`. Raises Problem 400 naming the first field that is wrong."""
    try:
        value = _decoder.decode(body.decode("utf-8"))
    except UnicodeDecodeError as error:
        raise Problem(400, f"the body is not UTF-8 (byte {error.start})") from None
    except RecursionError:
        raise Problem(400, "the body is nested too deeply") from None
    except ValueError as error:
        raise Problem(400, f"the body is not JSON: {error}") from None
    return validated(kind, value)


def validated(kind: type[M], value: Any) -> M:
    """`value` as `kind`. Raises Problem 400 naming the first field that is wrong."""
    try:
        return kind.model_validate(value)
    except ValidationError as error:
        first = error.errors(include_url=False, include_context=False, include_input=False)[0]
        raise Problem(400, first["msg"].removeprefix("Value error, "), field=_field(first)) from None


def parse_parameters(kind: type[M], path: Mapping[str, str], query: bytes) -> M:
    """The parts of a path and of a query string as `kind`. Raises Problem 400 naming the first that is wrong."""
    try:
        pairs = parse_qsl(query.decode("ascii"), keep_blank_values=True, strict_parsing=bool(query), errors="strict")
    except ValueError as error:
        raise Problem(400, f"the query string cannot be read: {error}") from None
    value: dict[str, str] = dict(path)
    for name, text in pairs:
        if name in value:
            raise Problem(400, "this parameter stands twice", field=name[:100])
        value[name] = text
    return validated(kind, value)
