"""Checks that what is exported, or served, gives the answers of the model that was trained.

In: the fitted model's parts and its bundle, or two ranked lists. Out: how far they differ; RefusedError when too far.
Scores may differ by `MAX_DIFFERENCE`; lists must name the same items, except where scores lie closer than `TIE`.
"""

from collections.abc import Sequence

import numpy as np

from recops.bundle import Bundle
from recops.errors import RefusedError
from recops.histories import Histories
from recops.protocols import ServingParts
from recops.release.export import cut_links, torch_scorer
from recops.topk import top_k

MAX_DIFFERENCE = 1e-4
TIE = 1e-5
_BATCH = 128


def check_parity(
    parts: ServingParts, bundle: Bundle, histories: Histories | Sequence[np.ndarray], k: int, remove_seen: bool
) -> dict[str, float]:
    """`measure_parity` for the manifest: num_users, k and the limits that were kept.

    What was measured within them is left out, since the last bits of a score may differ from run to run and the
    manifest may not.
    """
    measure_parity(parts, bundle, histories, k, remove_seen)
    return {"num_users": len(histories), "k": k, "scores_within": MAX_DIFFERENCE, "ids_equal_unless_within": TIE}


def measure_parity(
    parts: ServingParts, bundle: Bundle, histories: Histories | Sequence[np.ndarray], k: int, remove_seen: bool
) -> dict[str, float]:
    """Scores `histories` (item rows, oldest first) with torch and with the bundle, over the whole catalogue.

    Returns max_abs_difference and lists_equal (the share with the same ids in the same order; 1 without histories).
    Links of `parts` are cut as the bundle's were. Raises RefusedError when scores or lists differ beyond the limits.
    """
    histories = Histories.of(histories)
    parts = cut_links(parts, bundle.manifest["scoring"]["max_links"])
    scorer = torch_scorer(parts, bundle.fallback)
    difference, num_equal = 0.0, 0
    for start in range(0, len(histories), _BATCH):
        batch = histories[start : start + _BATCH]
        torch_BN, onnx_BN = scorer.scores(batch), bundle.scorer.scores(batch)
        with np.errstate(invalid="ignore"):
            differences_BN = np.abs(torch_BN[:, 1:] - onnx_BN[:, 1:])
        if not np.isfinite(differences_BN).all():
            raise RefusedError(
                f"{bundle.folder}: scores that are not finite in histories {start} to {start + len(batch) - 1}"
            )
        difference = max(difference, float(differences_BN.max(initial=0.0)))
        if difference > MAX_DIFFERENCE:
            raise RefusedError(
                f"{bundle.folder}: scores differ from the trained model's by {difference:.2g} > {MAX_DIFFERENCE}"
            )
        if remove_seen:
            for row, history in enumerate(batch):
                torch_BN[row, history] = onnx_BN[row, history] = -np.inf
        (ids_a, scores_a), (ids_b, scores_b) = top_k(torch_BN, k), top_k(onnx_BN, k)
        for b in range(len(batch)):
            kept_a, kept_b = ids_a[b] > 0, ids_b[b] > 0
            lists = ids_a[b][kept_a].tolist(), scores_a[b][kept_a], ids_b[b][kept_b].tolist(), scores_b[b][kept_b]
            if (reason := compare_lists(*lists)) is not None:
                raise RefusedError(f"{bundle.folder}: history {start + b}: {reason}")
            num_equal += lists[0] == lists[2]
    share = num_equal / len(histories) if len(histories) else 1.0
    return {"max_abs_difference": difference, "lists_equal": share}


def compare_lists(
    ids_a: Sequence[object],
    scores_a: Sequence[float] | np.ndarray,
    ids_b: Sequence[object],
    scores_b: Sequence[float] | np.ndarray,
) -> str | None:
    """None when two ranked lists agree, else what differs first.

    They agree when they are as long, scores at each rank lie within MAX_DIFFERENCE, and wherever a rank names two
    items, each list has the two within TIE of each other (an item that a list lacks counts as its last).
    """
    if len(ids_a) != len(ids_b):
        return f"lists of {len(ids_a)} and {len(ids_b)} items"
    for rank, (a, b) in enumerate(zip(scores_a, scores_b, strict=True), start=1):
        if not abs(a - b) <= MAX_DIFFERENCE:
            return f"rank {rank}: scores {a:.7g} and {b:.7g} differ by more than {MAX_DIFFERENCE}"
    for ids, scores, others in ((ids_a, scores_a, ids_b), (ids_b, scores_b, ids_a)):
        score_of = dict(zip(ids, scores, strict=True))
        for rank, (item, score, other) in enumerate(zip(ids, scores, others, strict=True), start=1):
            if item != other and not abs(score - score_of.get(other, scores[-1])) <= TIE:
                return f"rank {rank}: {item!r} and {other!r}, with scores more than {TIE} apart"
    return None
