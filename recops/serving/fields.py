"""The kinds of value that requests are made of. Strict: nothing is converted, unknown fields are refused."""

from datetime import datetime
from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, StringConstraints, WithJsonSchema

from recops.serving.release import epoch_us


class Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False, hide_input_in_errors=True)


# NUL ends a text in SQLite and in much other software, so that two ids could become one.
Text = Annotated[str, StringConstraints(min_length=1, max_length=512, pattern=r"^[^\x00]*$")]
ItemId = Annotated[Text, Field(description="Id of an item, as in the log.")]
UserId = Annotated[Text, Field(description="Id of a user, as in the log.")]

# Years 1 to 9999, which is what datetime holds.
LOWEST_MS, HIGHEST_MS = -62_135_596_800_000, 253_402_300_799_999


def _microseconds(value: Any) -> int:
    if isinstance(value, str) and len(value) <= 64:
        try:
            if datetime.fromisoformat(value).tzinfo is not None:
                return epoch_us(value)
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
