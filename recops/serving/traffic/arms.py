"""Which release answers whom: the served one, and beside it challengers in shadow, as canary, or in an A/B test.

In: what `recops traffic` has set, as the store keeps it. Out: the arm of a user, always the same one. Knows no HTTP.
"""

from dataclasses import dataclass
from hashlib import sha256
from typing import Annotated, Any, Literal

from pydantic import Field, StringConstraints, ValidationError, field_validator, model_validator

from recops.errors import CallError
from recops.serving.fields import Strict, Text

REPORT = "traffic"  # under which the store keeps it
DEFAULT = "default"  # the variant of the served release


class Guardrail(Strict):
    """A canary is halted once its users are proven to do worse than the others by more than `margin`."""

    metric: Literal["hit_rate", "conversion_rate", "fallback_share", "empty_share"] = "hit_rate"
    margin: float = Field(0.0, ge=0, le=1, description="Share of the served release's figure that may be lost.")


class Arm(Strict):
    """One challenger. `shadow`: asked as well, logged, never shown; its share is of calls. `canary`: shown to a share
    of users, and halted by its guardrails. `ab`: shown to a share of users until somebody ends it."""

    name: Annotated[str, StringConstraints(max_length=64, pattern=r"^[a-z0-9][a-z0-9_-]*$")]
    release: Text
    mode: Literal["shadow", "canary", "ab"]
    share: float = Field(1.0, ge=0, le=1)
    since: int = Field(0, ge=0, description="Microseconds since 1970: what was answered before is of no concern.")
    guardrails: list[Guardrail] = Field(default_factory=list, max_length=10)
    halted: str | None = Field(None, description="Why it is no longer shown.")

    @field_validator("name")
    @classmethod
    def _is_not_default(cls, value: str) -> str:
        if value == DEFAULT:
            raise ValueError(f"{DEFAULT} is the served release")
        return value

    @property
    def is_shown(self) -> bool:
        return self.mode != "shadow" and self.halted is None


class Traffic(Strict):
    """All challengers, in the order in which they take their shares of users."""

    arms: list[Arm] = Field(default_factory=list, max_length=10)

    @model_validator(mode="after")
    def _fits(self) -> "Traffic":
        names = [arm.name for arm in self.arms]
        if len(set(names)) < len(names):
            raise ValueError(f"a name stands twice: {', '.join(names)}")
        if (total := sum(arm.share for arm in self.arms if arm.mode != "shadow")) > 1 + 1e-9:
            raise ValueError(f"the shares of users add up to {total:g}, which is more than all")
        return self

    @classmethod
    def read(cls, value: Any) -> "Traffic":
        """As the store keeps it; None is no challenger at all. Raises CallError naming the key that is wrong."""
        try:
            return cls() if value is None else cls.model_validate(value)
        except ValidationError as error:
            first = error.errors(include_url=False, include_context=False, include_input=False)[0]
            place = ".".join(map(str, first["loc"])) or "arms"
            raise CallError(f"traffic: {place}: {first['msg'].removeprefix('Value error, ')}") from None

    def arm_of(self, user_id: str | None) -> Arm | None:
        """Who answers a user; None: the served release, which also answers calls that name nobody.

        A halted arm keeps its share, so that nobody else changes sides: its users get the served release.
        """
        if user_id is None:
            return None
        place, start = position(user_id), 0.0
        for arm in self.arms:
            if arm.mode == "shadow":
                continue
            if start <= place < start + arm.share:
                return arm if arm.is_shown else None
            start += arm.share
        return None

    @property
    def shadows(self) -> list[Arm]:
        return [arm for arm in self.arms if arm.mode == "shadow" and arm.halted is None]


def position(user_id: str) -> float:
    """Where a user stands between 0 and 1, by a hash of the id: the same in every worker, for good. A share that grows
    keeps those it had."""
    return int.from_bytes(sha256(f"traffic {user_id}".encode("utf-8", "surrogatepass")).digest()[:8]) / 2**64


@dataclass(frozen=True)
class Variant:
    """A challenger in memory."""

    arm: Arm
    release: Any  # serving.release.Release
