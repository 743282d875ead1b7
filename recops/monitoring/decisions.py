"""Whether a model is trained anew: on drift, by age, never within the cooldown.

In: a drift verdict, when the release was trained, the time that counts as now. Out: yes or no, and why. Decides only;
what is started, and that it starts once, is the flows' business.
"""

from datetime import datetime, timedelta

from recops.monitoring.drift import DriftVerdict
from recops.params import RetrainParams


def should_retrain(
    verdict: DriftVerdict | None, last_trained_at: datetime | None, now: datetime, params: RetrainParams
) -> tuple[bool, str]:
    """True and the reason to retrain, or False and why not. Times carry a zone.

    Nothing trained yet: yes. Less than `cooldown_minutes` since the last training: no, whatever drifted. Then drift:
    yes; an age of `max_age_days` or more: yes, also where there were too few events to judge. `verdict` None: by age.
    """
    if last_trained_at is None:
        return True, "nothing has been trained yet"
    age = now - last_trained_at
    if age < timedelta(minutes=params.cooldown_minutes):
        minutes = age.total_seconds() / 60
        return False, f"trained {minutes:.0f} minutes ago, retrain.cooldown_minutes is {params.cooldown_minutes:g}"
    if verdict is not None and verdict.verdict == "drift":
        return True, f"drift in {', '.join(verdict.features)}"
    days = age.total_seconds() / 86_400
    if days >= params.max_age_days:
        return True, f"trained {days:.1f} days ago, retrain.max_age_days is {params.max_age_days:g}"
    found = "no drift check" if verdict is None else {"none": "no drift"}.get(verdict.verdict, verdict.reason)
    return False, f"{found}, and trained only {days:.1f} days ago"
