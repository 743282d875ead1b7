"""Whether the served release does worse online than in its first days: one of the reasons to train anew.

In: answers in the store and the events that named them. Out: a sentence with the figures, or None. Judges complete
answers only: those older than `feedback.window`, after which nothing more is put down to them.
"""

import json
from datetime import datetime, timedelta

from recops.bundle import read_manifest, read_pointer, release_folder
from recops.serving.live import Kinds
from recops.serving.traffic.outcomes import Outcome, compared
from recops.stages.project import Project
from recops.store import Followed, Store

METRIC = "hit_rate"


def fall(project: Project, store: Store, since: datetime, now: datetime) -> str | None:
    """The first and the last `retrain.online_days` of the served release, which was trained or promoted at `since`:
    what fell, where the users of the last are proven to find less than `retrain.online_fall` allows (an interval that
    holds however often it is looked at); else None, also while the two periods overlap."""
    pointer, params = read_pointer(project.releases), project.params
    days, end = timedelta(days=params.retrain.online_days), now - timedelta(microseconds=params.feedback.window_us)
    if pointer is None or since + days > end - days:
        return None
    kinds = Kinds.of(read_manifest(release_folder(project.releases, pointer.release)))
    first, last = (
        _outcome(store, pointer.release, begin, begin + days, params.feedback.window_us, kinds)
        for begin in (since, end - days)
    )
    before, after, found = first.moments(METRIC).mean, last.moments(METRIC).mean, compared(first, last)[METRIC]
    if found.high >= -params.retrain.online_fall * before:
        return None
    interval = f"{found.value:+.4f} [{found.low:+.4f}, {found.high:+.4f}]"
    return f"{METRIC} {after:.4f} of the last {days.days} days against {before:.4f} of the first: {interval}"


def _outcome(store: Store, release: str, since: datetime, until: datetime, window_us: int, kinds: Kinds) -> Outcome:
    """Of the answers of one release that were shown with since <= time < until."""
    outcome = Outcome()
    for answer, events in store.answers_with_events(since, until, window_us):
        if answer["release"] == release:
            names = ("request_id", "user_id", "release", "variant", "source")
            shown = {name: answer[name] for name in names}
            outcome.add(Followed(time=0, items_json=json.dumps(answer["items"]), **shown, events=events), kinds)
    return outcome
