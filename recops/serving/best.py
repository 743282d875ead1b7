"""The best k of what may be shown: the one place where a catalogue is searched for a list.

In: a Release, who asks, and what must not be shown to whom. Out: rows and scores, best first. A catalogue without an
index is scored whole, for many at once; with one the index proposes, and whatever it proposes is scored exactly.
Knows nothing about requests and rules.

Shapes: B people, N items (row 0 is padding), K list length.
"""

from collections.abc import Iterator, Sequence

import numpy as np

from recops.histories import Histories
from recops.serving.release import Release
from recops.topk import top_k

SCORES_AT_ONCE = 8_000_000  # float32 scores held at a time: 32 MB
PEOPLE_AT_ONCE = 32  # while these are scored the event loop waits

# What must not be shown: int rows, or a bool mask [N+1].
Hidden = Sequence[np.ndarray]
Best = tuple[np.ndarray, np.ndarray]  # rows int64 [K], scores float32 [K]; K may be less than asked for


def best(release: Release, asked: Histories, wanted: Iterator[tuple[Hidden, int]]) -> Iterator[Best]:
    """For each of B people the best items, ties by lower row; fewer than asked for where fewer may be shown. `wanted`
    says of each in turn what is hidden, and how many items are asked for.

    At most PEOPLE_AT_ONCE are scored at a time, when the first of them is asked for.
    """
    scorer = release.bundle.scorer
    size = max(1, min(PEOPLE_AT_ONCE, SCORES_AT_ONCE // (scorer.num_items + 1)))
    for start in range(0, len(asked), size):
        for scores in scorer.scores(asked[start : start + size]):
            yield of_scores(scores, *next(wanted))


def of_scores(scores: np.ndarray, hidden: Hidden, k: int) -> Best:
    """The best of scores [N+1], which are changed: what is hidden is -inf."""
    for rows in hidden:
        scores[rows] = -np.inf
    rows_BK, best_BK = top_k(scores[None], min(k, len(scores) - 1))
    shown = rows_BK[0] > 0
    return rows_BK[0][shown], best_BK[0][shown]
