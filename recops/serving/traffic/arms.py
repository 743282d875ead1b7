"""Which release answers whom: the served one, and beside it challengers in shadow, as canary, or in an A/B test.

In: what `recops traffic` has set, as the store keeps it. Out: the arm of a user, always the same one. Knows no HTTP.
"""

from hashlib import sha256
from typing import Annotated, Any, Literal

from pydantic import Field, StringConstraints, ValidationError, field_validator, model_validator

from recops.errors import CallError
from recops.serving.fields import Strict
from recops.store import SHADOW

REPORT = "traffic"  # under which the store keeps it
DEFAULT = "default"  # the variant of the served release
EPSILON = 1e-9  # of shares, which are sums of decimal fractions


class Guardrail(Strict):
    """A canary is halted once its users are proven to do worse than the others by more than `margin`."""

    metric: Literal["hit_rate", "conversion_rate", "fallback_share", "empty_share"] = "hit_rate"
    margin: float = Field(0.0, ge=0, le=1, description="Share of the served release's figure that may be lost.")


class Arm(Strict):
    """One challenger. `shadow`: asked as well, logged, never shown; its share is of calls. `canary`: shown to a share
    of users, and halted by its guardrails. `ab`: shown to a share of users until somebody ends it."""

    name: Annotated[str, StringConstraints(max_length=64, pattern=r"^[a-z0-9][a-z0-9_-]*$")]
    # A name and no path: it is that of a folder beside those of other tenants.
    release: Annotated[str, StringConstraints(max_length=64, pattern=r"^[A-Za-z0-9]+$")]
    mode: Literal["shadow", "canary", "ab"]
    share: float = Field(1.0, ge=0, le=1)
    at: float | None = Field(
        None, ge=0, lt=1, description="Where its share of users begins; none: where there is room."
    )
    since: int = Field(0, ge=0, description="Microseconds since 1970: what was answered before is of no concern.")
    until: int | None = Field(
        None, ge=0, description="Microseconds since 1970, where it was halted: nor what was after."
    )
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

    @property
    def variant(self) -> str:
        """What its answers are logged as."""
        return SHADOW + self.name if self.mode == "shadow" else self.name

    @property
    def period(self) -> tuple[int, int]:
        """The time it stood, or stands: µs, inclusive and exclusive."""
        return self.since, 2**62 if self.until is None else self.until

    def asks(self, request_id: str) -> bool:
        """Whether a shadow answers this call too."""
        return self.share >= 1 or _between_0_and_1(f"{self.name} {request_id}") < self.share


class Traffic(Strict):
    """All challengers. `salt`: what decides which users are whose; a new one deals them anew."""

    arms: list[Arm] = Field(default_factory=list, max_length=10)
    salt: str = Field("", max_length=64)

    @model_validator(mode="after")
    def _fits(self) -> "Traffic":
        names = [arm.name for arm in self.arms]
        if len(set(names)) < len(names):
            raise ValueError(f"a name stands twice: {', '.join(names)}")
        if (total := sum(arm.share for arm in self.arms if arm.mode != "shadow")) > 1 + EPSILON:
            raise ValueError(f"the shares of users add up to {total:g}, which is more than all")
        for arm in self.arms:
            if arm.mode != "shadow" and arm.at is not None and not self._is_free(arm.at, arm):
                raise ValueError(f"{arm.name}: its users, from {arm.at:g}, are another one's too")
        for arm in self.arms:
            if arm.mode != "shadow" and arm.at is None:
                arm.at = self._room(arm)
        return self

    def _is_free(self, at: float, arm: Arm) -> bool:
        end = at + arm.share
        others = [one for one in self.arms if one is not arm and one.mode != "shadow" and one.at is not None]
        return end <= 1 + EPSILON and all(
            end <= one.at + EPSILON or one.at + one.share <= at + EPSILON for one in others if one.at is not None
        )

    def _room(self, arm: Arm) -> float:
        ends = [one.at + one.share for one in self.arms if one.mode != "shadow" and one.at is not None]
        for at in sorted([0.0, *ends]):
            if at < 1 and self._is_free(at, arm):
                return at
        raise ValueError(f"{arm.name}: no {arm.share:g} of the users in one piece; take another share away first")

    def with_arm(self, arm: Arm) -> "Traffic":
        """With this challenger, in the place of one of its name; users of the others stay theirs, and its own where
        its share grows or shrinks in place. Raises CallError where there is no room."""
        others = [one for one in self.arms if one.name != arm.name]
        before = next((one for one in self.arms if one.name == arm.name and one.mode != "shadow"), None)
        if before is not None and arm.mode != "shadow":
            kept = arm.model_copy(update={"at": before.at})
            if Traffic(arms=others)._is_free(before.at or 0.0, kept):
                arm = kept
        return Traffic.read({**self.model_dump(), "arms": [one.model_dump() for one in (*others, arm)]})

    def without(self, name: str) -> "Traffic":
        """Raises CallError for a name there is not."""
        if all(arm.name != name for arm in self.arms):
            raise CallError(f"no challenger {name!r}: there are {', '.join(a.name for a in self.arms) or 'none'}")
        return Traffic(arms=[arm for arm in self.arms if arm.name != name], salt=self.salt)

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
        arm = self.owner(user_id)
        return arm if arm is not None and arm.is_shown else None

    def owner(self, user_id: str | None) -> "Arm | None":
        """Whose a user is, halted or not; None: nobody's but the served release's."""
        if user_id is None:
            return None
        place = position(user_id, self.salt)
        for arm in self.arms:
            if arm.mode != "shadow" and arm.at is not None and arm.at <= place < arm.at + arm.share:
                return arm
        return None

    @property
    def shadows(self) -> list[Arm]:
        return [arm for arm in self.arms if arm.mode == "shadow" and arm.halted is None]


def position(user_id: str, salt: str = "") -> float:
    """Where a user stands between 0 and 1, by a hash of the id: the same in every worker, for good. A share that grows
    keeps those it had."""
    return _between_0_and_1(f"traffic {salt} {user_id}")


def _between_0_and_1(text: str) -> float:
    return int.from_bytes(sha256(text.encode("utf-8", "surrogatepass")).digest()[:8]) / 2**64
