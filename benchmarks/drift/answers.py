"""Answers that the release would have given to those who came: asked just before some of their events.

In: a log, a span of time, the release. Out: answers as the store logs them.
"""

import numpy as np

from recops.histories import Histories
from recops.monitoring.features import Scoring
from recops.monitoring.log import EventLog
from recops.monitoring.outputs import Answer
from recops.topk import top_k

PER_USER = 5
MOST = 1000  # answers
AT_ONCE = 64
K = 10


def ask(log: EventLog, since: int, until: int, scoring: Scoring, seed: int) -> list[Answer]:
    """Before at most five events of each user active in the span (µs), at most MOST in all, drawn by chance. Who has no
    history that the release knows gets the most popular items, as a fallback."""
    assert log.time is not None
    chance = np.random.default_rng(seed)
    start, end = log.position(since), log.position(until)
    order = start + chance.permutation(end - start)
    taken = np.zeros(len(log.user_ids), np.int64)
    places = []
    for place in order.tolist():
        if taken[log.user[place]] < PER_USER:
            taken[log.user[place]] += 1
            places.append(place)
            if len(places) == MOST:
                break
    row_of = {item_id: row for row, item_id in enumerate(scoring.item_ids, start=1)}
    rows = np.array([row_of.get(item_id, 0) for item_id in log.item_ids], np.int64)
    popular = np.bincount(rows[log.item[:start]], minlength=len(scoring.item_ids) + 1).astype(np.float32)
    found: list[Answer] = []
    for first in range(0, len(places), AT_ONCE):
        some = places[first : first + AT_ONCE]
        items = [rows[log.history(int(log.user[place]), place)] for place in some]
        histories = Histories([history[history > 0] for history in items])
        scores_BN, is_own = scoring.scorer.scores(histories), scoring.scorer.answers(histories)
        scores_BN[~is_own] = popular
        scores_BN[:, 0] = -np.inf
        for scores, history in zip(scores_BN, histories, strict=True):
            scores[history] = -np.inf
        rows_BK, best_BK = top_k(scores_BN, K)
        for place, own, listed, best in zip(some, is_own.tolist(), rows_BK.tolist(), best_BK.tolist(), strict=True):
            found.append(
                {
                    "request_id": str(place),
                    "time": int(log.time[place]) - 1,
                    "user_id": log.user_ids[log.user[place]],
                    "items": [
                        {"item_id": scoring.item_ids[row - 1], "rank": rank, "score": score}
                        for rank, (row, score) in enumerate(zip(listed, best, strict=True), start=1)
                        if row
                    ],
                    "source": "model" if own else "fallback",
                }
            )
    return found
