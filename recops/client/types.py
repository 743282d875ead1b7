"""What calls are told and what they answer.

Made by `python -m clients` from the service's OpenAPI; not to be changed by hand.
"""

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, Literal, NotRequired, TypedDict


class AskItem(TypedDict):
    item_id: str
    rank: int
    score: float
    title: str | None
    # Made of facts, never by a language model.
    reason: str


class AskAnswer(TypedDict):
    answer: str
    items: list[AskItem]
    # What the question was understood to ask for.
    understood: dict[str, Any]
    # Signals the list was made from.
    retrieved_by: list[str]
    phrased_by: Literal["template", "language model"]
    release: str
    request_id: str
    source: Literal["model", "cold-start", "fallback"]


class HistoryEvent(TypedDict):
    # Id of an item, as in the log.
    item_id: str
    # ISO 8601 with a zone, or milliseconds since 1970.
    timestamp: NotRequired[datetime | str | int | None]


class Turn(TypedDict):
    """A question asked before, and what was shown for it."""

    question: str
    # Ids of the items of its answer, in their order.
    items: Sequence[str]


class EventsRejected(TypedDict):
    index: int
    reason: str


class EventsAnswer(TypedDict):
    stored: int
    # Were there already, by event_id.
    duplicates: int
    rejected: list[EventsRejected]
    request_id: str


class TellEvent(TypedDict):
    """An event of the events table. Without `event_id` one is made of user, item, time, event and value."""

    # Id of a user, as in the log.
    user_id: str
    # Id of an item, as in the log.
    item_id: str
    # Kind of event, such as click or purchase; impression: the item was seen.
    event: str
    # ISO 8601 with a zone, or milliseconds since 1970.
    timestamp: datetime | str | int
    # Kept in 32 bits.
    value: NotRequired[float | None]
    event_id: NotRequired[str | None]
    # Of the answer that showed the item.
    request_id: NotRequired[str | None]
    # Where it stood in that answer.
    rank: NotRequired[int | None]
    session_id: NotRequired[str | None]
    context: NotRequired[
        Mapping[str, str | int | float | bool | Sequence[str | int | float | bool | None] | None] | None
    ]


class LivezAnswer(TypedDict):
    live: bool


class ReadyzAnswer(TypedDict):
    ready: bool
    release: str


class ItemsNotRecommendable(TypedDict):
    item_id: str
    reason: str


class ItemsAnswer(TypedDict):
    added: int
    changed: int
    # On disk, and in use shortly; nothing need be sent again.
    pending: int
    not_recommendable: list[ItemsNotRecommendable]
    release: str
    request_id: str


class NewItem(TypedDict):
    """The columns of the items table; what is not given stays as it is, null takes it away."""

    # Id of an item, as in the log.
    item_id: str
    title: NotRequired[str | None]
    text: NotRequired[str | None]
    categories: NotRequired[Sequence[str] | None]
    # Path in the source's folder, or an address.
    image: NotRequired[str | None]
    # ISO 8601 with a zone, or milliseconds since 1970.
    published_at: NotRequired[datetime | str | int | None]
    price: NotRequired[float | None]
    available: NotRequired[bool | None]
    attributes: NotRequired[
        Mapping[str, str | int | float | bool | Sequence[str | int | float | bool | None] | None] | None
    ]


class RecommendItemReasonHistory(TypedDict):
    """An item of the history without which the score would be lower. Shares are of the items left out in turn."""

    type: Literal["history"]
    item_id: str
    title: str | None
    # Of what speaks for the item.
    share: float
    text: str


class RecommendItemReasonAttribute(TypedDict):
    """What the items of the history that carry this one share with it. Its share counts theirs a second time."""

    type: Literal["attribute"]
    name: str
    value: str
    # Of what speaks for the item.
    share: float
    text: str


class RecommendItemReasonTaste(TypedDict):
    """The model reads the user from a table learnt in training. The item named is near in it and carried nothing."""

    type: Literal["taste"]
    item_id: NotRequired[str]
    title: NotRequired[str | None]
    similarity: NotRequired[float]
    text: str


class RecommendItemReasonPopular(TypedDict):
    """What speaks for the item is how many choose it, or how they rate it."""

    type: Literal["popular"]
    text: str


RecommendItemMoved = TypedDict("RecommendItemMoved", {"rule": str, "from": int, "to": int})


class RecommendItem(TypedDict):
    item_id: str
    rank: int
    score: float
    title: str | None
    reasons: NotRequired[
        list[
            RecommendItemReasonHistory
            | RecommendItemReasonAttribute
            | RecommendItemReasonTaste
            | RecommendItemReasonPopular
        ]
    ]
    # The rules that gave the item another rank, in their order; left out where none did.
    moved: NotRequired[list[RecommendItemMoved]]


class RecommendAnswer(TypedDict):
    items: list[RecommendItem]
    release: str
    variant: str
    request_id: str
    source: Literal["model", "cold-start", "fallback"]


class PriceRange(TypedDict):
    # Lowest price, inclusive.
    min: NotRequired[float | None]
    # Highest price, inclusive.
    max: NotRequired[float | None]


class Filters(TypedDict):
    # Value, or list of values, by name of the attribute.
    attributes: NotRequired[Mapping[str, str | float | bool | Sequence[str | float | bool]] | None]
    available: NotRequired[bool | None]
    # Any of these.
    categories: NotRequired[Sequence[str] | None]
    price: NotRequired[PriceRange | None]
    # ISO 8601 with a zone, or milliseconds since 1970.
    published_after: NotRequired[datetime | str | int | None]


class RecommendBatchAnswer(TypedDict):
    responses: list[RecommendAnswer]


class Recommend(TypedDict):
    # Id of a user, as in the log.
    user_id: NotRequired[str | None]
    # Oldest first; sorted by time where every event has one. May be empty.
    history: NotRequired[Sequence[str | HistoryEvent] | None]
    # 0: by score alone; 1: as unlike as can be. Else what the service is set to.
    diversity: NotRequired[float | None]
    # Item ids that must not be shown.
    exclude: NotRequired[Sequence[str] | None]
    # Length of the list.
    k: NotRequired[int]
    filters: NotRequired[Filters | None]
    # Add to each item the reasons why it stands there.
    explain: NotRequired[bool]


class ReleaseTraffic(TypedDict):
    name: str
    release: str
    mode: Literal["shadow", "canary", "ab"]
    share: float
    halted: str | None
    # In this worker.
    loaded: bool


class ReleaseAnswer(TypedDict):
    release: str
    variant: str
    num_items: int
    # Added or changed since the export.
    online_items: int
    model: str
    metrics: dict[str, Any]
    data_watermark: str | None
    fitted_until: str | None
    remove_seen: bool
    opset: int | None
    format_version: int
    promoted_at: str | None
    commit: str | None
    traffic: list[ReleaseTraffic]
    request_id: str


class ScoreScore(TypedDict):
    item_id: str
    score: float | None


class ScoreAnswer(TypedDict):
    scores: list[ScoreScore]
    source: Literal["model", "cold-start", "fallback"]
    release: str
    request_id: str


class SimilarItem(TypedDict):
    item_id: str
    rank: int
    score: float
    title: str | None


class SimilarAnswer(TypedDict):
    items: list[SimilarItem]
    source: Literal["links", "vectors", "categories"]
    release: str
    request_id: str


class TrafficArmVariant(TypedDict):
    variant: str
    releases: list[str]
    users: int
    answers: int
    anonymous: int
    instead: int
    events: int
    hit_rate: float
    conversion_rate: float
    ndcg: float
    fallback_share: float
    empty_share: float
    overlap: float | None


class TrafficArmDifferenceHitRate(TypedDict):
    value: float
    low: float | None
    high: float | None


class TrafficArmDifference(TypedDict):
    hit_rate: TrafficArmDifferenceHitRate
    conversion_rate: TrafficArmDifferenceHitRate
    ndcg: TrafficArmDifferenceHitRate
    fallback_share: TrafficArmDifferenceHitRate
    empty_share: TrafficArmDifferenceHitRate


class TrafficArm(TypedDict):
    name: str
    release: str
    mode: Literal["shadow", "canary", "ab"]
    share: float
    since: int
    until: int | None
    halted: str | None
    variants: list[TrafficArmVariant]
    differences: TrafficArmDifference


class TrafficAnswer(TypedDict):
    arms: list[TrafficArm]
    request_id: str


class SetTrafficArmGuardrail(TypedDict):
    metric: str
    margin: float


class SetTrafficArm(TypedDict):
    name: str
    release: str
    mode: Literal["shadow", "canary", "ab"]
    share: float
    since: int
    until: int | None
    halted: str | None
    at: float | None
    guardrails: list[SetTrafficArmGuardrail]


class SetTrafficAnswer(TypedDict):
    arms: list[SetTrafficArm]
    request_id: str


class Guardrail(TypedDict):
    """A canary is halted once its users are proven to do worse than the others by more than `margin`."""

    metric: NotRequired[Literal["hit_rate", "conversion_rate", "fallback_share", "empty_share"]]
    # Share of the served release's figure that may be lost.
    margin: NotRequired[float]


class Arm(TypedDict):
    """One challenger. `shadow`: asked as well, logged, never shown; its share is of calls. `canary`: shown to a share
    of users, and halted by its guardrails. `ab`: shown to a share of users until somebody ends it."""

    name: str
    release: str
    mode: Literal["shadow", "canary", "ab"]
    share: NotRequired[float]
    # Where its share of users begins; none: where there is room.
    at: NotRequired[float | None]
    # Microseconds since 1970: what was answered before is of no concern.
    since: NotRequired[int]
    # Microseconds since 1970, where it was halted: nor what was after.
    until: NotRequired[int | None]
    guardrails: NotRequired[Sequence[Guardrail]]
    # Why it is no longer shown.
    halted: NotRequired[str | None]


class UserEvent(TypedDict):
    event_id: str
    item_id: str
    timestamp: str
    received_at: str
    event: str
    value: float | None
    request_id: str | None
    rank: int | None
    session_id: str | None
    context: dict[str, Any] | None


class UserHeld(TypedDict):
    events: int
    answers: int
    histories: dict[str, int]
    model: bool


class UserAnswer(TypedDict):
    user_id: str
    events: list[UserEvent]
    # `before` of the next page; null on the last.
    next: str | None
    held: UserHeld
    request_id: str


class EraseUserErased(TypedDict):
    events: int
    answers: int
    histories: int


class EraseUserAnswer(TypedDict):
    erased: EraseUserErased
    request_id: str
