"""The kinds of value that requests are made of. Strict: nothing is converted, unknown fields are refused."""

from datetime import UTC, datetime
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, StringConstraints, WithJsonSchema

from recops.serving.release import epoch_us


class Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False, hide_input_in_errors=True)


def _is_storable(value: Any) -> Any:
    for one in value if isinstance(value, list) else [value]:
        if isinstance(one, str) and ("\x00" in one or len(one) > 10_000 or _has_half_of_a_pair(one)):
            raise ValueError("text of at most 10,000 characters without NUL or half of a surrogate pair")
        if isinstance(one, int) and abs(one) >= 2**63:
            raise ValueError("whole numbers end at 2^63")
    if isinstance(value, list) and len(value) > 1000:
        raise ValueError("at most 1,000 values")
    return value


def _has_half_of_a_pair(value: str) -> bool:
    """JSON can write it as \\ud800, UTF-8 cannot."""
    return any("\ud800" <= character <= "\udfff" for character in value)


# NUL ends a text in SQLite and in much other software, so that two ids could become one.
Text = Annotated[str, StringConstraints(min_length=1, max_length=512, pattern=r"^[^\x00]*$")]
ItemId = Annotated[Text, Field(description="Id of an item, as in the log.")]
UserId = Annotated[Text, Field(description="Id of a user, as in the log.")]

LongText = Annotated[str, StringConstraints(max_length=100_000, pattern=r"^[^\x00]*$")]
Scalar = str | int | float | bool | None
# What an attribute of an item may be: whole numbers of 64 bits, no objects in objects.
Attribute = Annotated[Scalar | list[Scalar], AfterValidator(_is_storable)]

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
# Years 1 to 9999, which is what datetime holds.
LOWEST_MS, HIGHEST_MS = -62_135_596_800_000, 253_402_300_799_999


def _microseconds(value: Any) -> int:
    if isinstance(value, str) and len(value) <= 64:
        try:
            moment = datetime.fromisoformat(value)
            # A zone may lead out of the years that datetime holds.
            if moment.tzinfo is not None and LOWEST_MS <= (found := epoch_us(value)) // 1000 <= HIGHEST_MS:
                return found
        except (ValueError, OverflowError):
            pass
    elif isinstance(value, int) and not isinstance(value, bool) and LOWEST_MS <= value <= HIGHEST_MS:
        return value * 1000
    raise ValueError("expected ISO 8601 text with a zone, or whole milliseconds since 1970")


# Microseconds since 1970 UTC.
Moment = Annotated[
    int,
    BeforeValidator(_microseconds),
    WithJsonSchema(
        {
            "anyOf": [{"type": "string", "format": "date-time"}, {"type": "integer"}],
            "description": "ISO 8601 with a zone, or milliseconds since 1970.",
        }
    ),
]


def moment(text: str) -> int:
    """A time in a path or a query, where everything is text: microseconds since 1970. Raises ValueError."""
    try:
        return _microseconds(int(text))
    except ValueError:
        return _microseconds(text.replace(" ", "+"))  # how a query string writes the plus of a zone
