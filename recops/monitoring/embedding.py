"""User vectors of a release before and in a window: whether those who come now are like those it was trained for.

In: the log, the window, a release's scorer. Out: a pair of profiles of the kind `vectors`: `vectors` (float32 [n, D],
of length 1) and `n`. They are made anew each time, by the release itself, from what stands in the log: no vector of a
person lies in a bundle, and releases made before this was known can be judged. Knows no thresholds.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np

from recops.monitoring.features import Profile, Scoring, Span, sampled_histories
from recops.monitoring.log import EventLog

FEATURE = "user_vectors"
MIN_VECTORS = 100  # on either side: below, the width of the kernel is chance
Pair = tuple[Profile, Profile]


def user_vectors(log: EventLog, span: Span, scoring: Scoring) -> Profile | None:
    """Vectors of a seeded sample of at most 500 users active in the span, by the heaviest model of the release that
    has any; None where no model has.

    Only their direction is kept: it decides what is recommended, and how long histories are is a feature of its own.
    """
    asked = sampled_histories(log, span, scoring)
    for part in scoring.scorer.by_weight():
        if part.encode is None and part.user_table is None:
            continue
        found = None if asked is None else part.user_vectors(asked)
        if found is None:
            return {"kind": "vectors", "vectors": np.zeros((0, 1), np.float32), "n": 0}
        lengths = np.linalg.norm(found, axis=1)
        known = found[lengths > 0] / lengths[lengths > 0, None]
        return {"kind": "vectors", "vectors": known, "n": len(known)}
    return None


def user_vector_pair(
    log: EventLog, since: int, until: int, reference: Mapping[str, Any], scoring: Scoring
) -> Pair | str:
    """Those active in the window (µs UTC, until excluded) and in the stretch of the same length before the reference
    ends or, where that comes first, before the window; or why there is nothing to compare."""
    if log.time is None or reference["until"] is None:
        return "the log has no times"
    end = min(reference["until"], since)
    before, window = (
        (log.position(start), log.position(stop)) for start, stop in ((end - until + since, end), (since, until))
    )
    ours, theirs = (user_vectors(log, Span(*span, span[0]), scoring) for span in (before, window))
    if ours is None or theirs is None:
        return "the release makes no vectors of users"
    if min(ours["n"], theirs["n"]) < MIN_VECTORS:
        return f"{ours['n']} users before and {theirs['n']} in the window, {MIN_VECTORS} are asked for"
    return ours, theirs


def along_difference(reference: Mapping[str, Any], current: Mapping[str, Any]) -> tuple[np.ndarray, np.ndarray]:
    """Both sides' places on the line between their means, for a picture: float64 [n], [m]."""
    ours, theirs = (np.asarray(side["vectors"], np.float64) for side in (reference, current))
    line = theirs.mean(0) - ours.mean(0)
    line /= max(float(np.linalg.norm(line)), 1e-12)
    return np.round(ours @ line, 6), np.round(theirs @ line, 6)
