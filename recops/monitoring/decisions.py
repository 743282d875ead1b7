"""Whether a model is trained anew: what asks for it, and what holds it back.

In: what is known at a moment (`Signals`), the time that counts as now. Out: yes or no, what asked, and why. Decides
only; what is started, and that it starts once, is the business of stages and flows. A reason holds no age that grows
by itself, so that the same state of things has the same reason.
"""

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Literal

from recops.monitoring.drift import DriftVerdict
from recops.params import RetrainParams

Trigger = Literal["first", "cut off", "person", "drift", "online metric", "volume", "age"]


@dataclass(frozen=True)
class Signals:
    """What is known. Times carry a zone. `last_trained_at` None: nothing has been trained yet; `drift` None: there is
    no verdict that has not been acted on; `num_trained` 0: not known; `num_new`: since the last training.
    `online_fall`, `asked` and `cut_off` say what happened. `started`: when triggers began trainings, in any order."""

    last_trained_at: datetime | None
    drift: DriftVerdict | None = None
    num_trained: int = 0
    num_new: int = 0
    online_fall: str | None = None
    asked: str | None = None
    cut_off: str | None = None
    started: tuple[datetime, ...] = ()


@dataclass(frozen=True)
class Decision:
    """`trigger`: what asks for a training, also where it is held back; None where nothing does."""

    is_wanted: bool
    trigger: Trigger | None
    reason: str

    @property
    def is_held(self) -> bool:
        return self.trigger is not None and not self.is_wanted


def decide(signals: Signals, now: datetime, params: RetrainParams) -> Decision:
    """The first that asks, in the order of `Trigger`, is the trigger.

    A first training, one that was cut off and a person are held back by nothing. What else asks waits until
    `cooldown_minutes` after the last training and while `max_per_day` trainings were begun within 24 hours.
    """
    found = _asks(signals, now, params)
    if found is None:
        return Decision(False, None, _quiet(signals))
    trigger, reason = found
    if trigger not in ("first", "cut off", "person") and (why := _held_by(signals, now, params)):
        return Decision(False, trigger, f"{reason}; held back: {why}")
    return Decision(True, trigger, reason)


def _asks(signals: Signals, now: datetime, params: RetrainParams) -> tuple[Trigger, str] | None:
    if signals.cut_off is not None:
        return "cut off", signals.cut_off
    if signals.last_trained_at is None:
        return "first", "nothing has been trained yet"
    if signals.asked is not None:
        return "person", signals.asked
    if signals.drift is not None and signals.drift.verdict == "drift":
        return "drift", f"drift in {', '.join(signals.drift.features)}"
    if signals.online_fall is not None:
        return "online metric", signals.online_fall
    if signals.num_trained and signals.num_new >= params.new_share * signals.num_trained:
        events = f"{signals.num_new} new events, beside the {signals.num_trained} that what is served was trained on"
        return "volume", f"{events}, retrain.new_share is {params.new_share:g}"
    if now - signals.last_trained_at >= timedelta(days=params.max_age_days):
        return "age", f"trained {_moment(signals.last_trained_at)}, retrain.max_age_days is {params.max_age_days:g}"
    return None


def _held_by(signals: Signals, now: datetime, params: RetrainParams) -> str | None:
    last = signals.last_trained_at
    if last is not None and now - last < timedelta(minutes=params.cooldown_minutes):
        return f"trained {_moment(last)}, retrain.cooldown_minutes is {params.cooldown_minutes:g}"
    begun = [at for at in signals.started if now - at < timedelta(days=1)]
    if len(begun) >= params.max_per_day:
        return f"{len(begun)} trainings since {_moment(min(begun))}, retrain.max_per_day is {params.max_per_day}"
    return None


def _quiet(signals: Signals) -> str:
    verdict, last = signals.drift, signals.last_trained_at
    found = "no new drift check" if verdict is None else {"none": "no drift"}.get(verdict.verdict, verdict.reason)
    return found if last is None else f"{found}, and trained {_moment(last)}"


def _moment(time: datetime) -> str:
    return time.isoformat(timespec="seconds")


def should_retrain(
    verdict: DriftVerdict | None, last_trained_at: datetime | None, now: datetime, params: RetrainParams
) -> tuple[bool, str]:
    """`decide` by drift and age alone: True and the reason to retrain, or False and why not."""
    decision = decide(Signals(last_trained_at, verdict), now, params)
    return decision.is_wanted, decision.reason
