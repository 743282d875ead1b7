"""The best k of what may be shown: the one place where a catalogue is searched for a list.

In: a Release, who asks, and what must not be shown to whom. Out: rows and scores, best first. A catalogue without an
index is scored whole, for many at once; with one the index proposes, and whatever it proposes is scored exactly.
Knows nothing about requests and rules.

Shapes: B people, N items (row 0 is padding), K list length.
"""

from collections.abc import Iterator, Sequence
from itertools import islice

import numpy as np

from recops.histories import Histories
from recops.index import Index
from recops.runtime import Scorer
from recops.serving.release import Release
from recops.topk import best_products, top_k

SCORES_AT_ONCE = 8_000_000  # float32 scores held at a time: 32 MB
PEOPLE_AT_ONCE = 32  # of whom all scores are made
TOGETHER = 512  # of whom the best products are looked for together
MANY = 64  # people for whom that is worth it
SELECTIVE = 8  # a filter that leaves less than one in so many: what is left is scored, and nothing else
FEW = 1000  # hidden items that an index is asked to find spares for

# What must not be shown: int rows, or a bool mask [N+1].
Hidden = Sequence[np.ndarray]
NO_ROWS = np.zeros(0, np.int64)
Best = tuple[np.ndarray, np.ndarray]  # rows int64 [K], scores float32 [K]; K may be less than asked for


def num_left(hidden: Hidden, num_items: int) -> int:
    """How many of N items may be shown."""
    rows: set[int] = set().union(*(one.tolist() for one in hidden if one.dtype != bool))
    rows.discard(0)
    masks = [one for one in hidden if one.dtype == bool]
    if not masks:
        return num_items - len(rows)
    never = np.logical_or.reduce(masks)
    never[list(rows)] = True
    return num_items - int(np.count_nonzero(never[1:]))


def best(release: Release, asked: Histories, wanted: Iterator[tuple[Hidden, int]]) -> Iterator[Best]:
    """For each of B people the best items, ties by lower row; fewer than asked for where fewer may be shown. `wanted`
    says of each in turn what is hidden, and how many items are asked for.

    Some are scored at a time, when the first of them is asked for: TOGETHER, PEOPLE_AT_ONCE, or fewer of a catalogue
    of which SCORES_AT_ONCE allow no more.
    """
    scorer = release.bundle.scorer
    if release.bundle.index is not None:
        yield from _by_index(scorer, release.bundle.index, asked, wanted)
        return
    size = max(1, min(PEOPLE_AT_ONCE, SCORES_AT_ONCE // (scorer.num_items + 1)))
    together = TOGETHER if scorer.is_product else size
    for start in range(0, len(asked), together):
        some = asked[start : start + together]
        of_some = list(islice(wanted, len(some)))
        if len(some) >= MANY and not any(one.dtype == bool for hidden, _ in of_some for one in hidden):
            yield from _by_products(scorer, some, of_some)
            continue
        for first in range(0, len(some), size):
            few = slice(first, first + size)
            for scores, one in zip(scorer.scores(some[few]), of_some[few], strict=True):
                yield of_scores(scores, *one)


def _by_products(scorer: Scorer, asked: Histories, wanted: list[tuple[Hidden, int]]) -> Iterator[Best]:
    """`best` of a scorer that is a product, for many of whom only some rows are hidden."""
    assert scorer.item_vectors is not None
    users = scorer.user_vectors(asked)
    assert users is not None
    never = [hidden[0] if len(hidden) == 1 else np.concatenate([NO_ROWS, *hidden]) for hidden, _ in wanted]
    nums = [k for _, k in wanted]
    found = best_products(users, scorer.item_vectors, nums, never, scorer.largest_norm)
    for place, (one, is_answered) in enumerate(zip(found, scorer.answers(asked).tolist(), strict=True)):
        hidden, k = wanted[place]
        if not is_answered:
            yield of_scores(scorer.scores(asked[place : place + 1])[0], hidden, k)
        elif one is None:
            yield _of_all(scorer, users[place], hidden, k)
        else:
            yield one


def _by_index(scorer: Scorer, index: Index, asked: Histories, wanted: Iterator[tuple[Hidden, int]]) -> Iterator[Best]:
    """`best` of a scorer that is a product. Where an index would find too little, what may be shown is looked through
    exactly: where filters leave less than half, where the list is not full, and for those whom the model cannot
    answer."""
    for start in range(0, len(asked), PEOPLE_AT_ONCE):
        some = asked[start : start + PEOPLE_AT_ONCE]
        users = scorer.user_vectors(some)
        assert users is not None
        for place, (user_D, is_answered) in enumerate(zip(users, scorer.answers(some), strict=True)):
            hidden, k = next(wanted)
            if is_answered:
                yield _found(scorer, index, user_D, hidden, k)
            else:
                yield of_scores(scorer.scores(some[place : place + 1])[0], hidden, k)


def _found(scorer: Scorer, index: Index, user_D: np.ndarray, hidden: Hidden, k: int) -> Best:
    assert scorer.item_vectors is not None
    masks = [one for one in hidden if one.dtype == bool]
    rows = np.concatenate([np.zeros(1, np.int64), *(one for one in hidden if one.dtype != bool)])
    if masks:
        never = np.logical_or.reduce(masks)
        never[rows] = True
        num_hidden = int(np.count_nonzero(never))
        num_allowed = len(never) - num_hidden
        if num_allowed * SELECTIVE < len(never):
            return _of_rows(scorer, user_D, np.flatnonzero(~never), k)
        if num_allowed * 2 < len(never):
            return _of_all(scorer, user_D, hidden, k)
        # A few named items may be just the best ones; of many it is taken that they lie anywhere.
        few = num_hidden <= FEW
        proposed = index.candidates(user_D, k if few else 2 * k, len(rows) + (num_hidden if few else 0))
        proposed = proposed[~never[proposed]]
    else:
        proposed = index.candidates(user_D, k, len(rows))
    told = np.arange(index.num_items + 1, scorer.num_items + 1)  # items that came after the index was made
    if masks:
        told = told[~never[told]]
    proposed = np.setdiff1d(np.concatenate([proposed, told]), rows)
    if len(proposed) < k:
        return _of_all(scorer, user_D, hidden, k)
    return _of_rows(scorer, user_D, proposed, k)


def _of_all(scorer: Scorer, user_D: np.ndarray, hidden: Hidden, k: int) -> Best:
    assert scorer.item_vectors is not None
    return of_scores(scorer.item_vectors @ user_D, [*hidden, np.zeros(1, np.int64)], k)


def _of_rows(scorer: Scorer, user_D: np.ndarray, rows: np.ndarray, k: int) -> Best:
    """The best of some rows, which rise."""
    assert scorer.item_vectors is not None
    if len(rows) == 0:
        return rows, np.empty(0, np.float32)
    places_BK, best_BK = top_k((scorer.item_vectors[rows] @ user_D)[None], min(k, len(rows)))
    return rows[places_BK[0]], best_BK[0]


def of_scores(scores: np.ndarray, hidden: Hidden, k: int) -> Best:
    """The best of scores [N+1], which are changed: what is hidden is -inf."""
    for rows in hidden:
        scores[rows] = -np.inf
    k = min(k, len(scores) - 1)
    if k <= 0:
        return np.zeros(0, np.int64), np.zeros(0, np.float32)
    rows_BK, best_BK = top_k(scores[None], k)
    if rows_BK[0, -1]:  # where there are fewer the last is 0
        return rows_BK[0], best_BK[0]
    shown = rows_BK[0] > 0
    return rows_BK[0][shown], best_BK[0][shown]
