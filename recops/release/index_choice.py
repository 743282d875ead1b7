"""Chooses how a released catalogue is searched: an index where it finds what an exact scan finds, else the scan.

In: the parts of a model, vectors of users to choose by and others to state the recall on. Out: the index, or none, and
what the manifest says of it. The figures are of counts alone, no times, so that the same data gives the same manifest.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np

from recops import index as ann
from recops.errors import CallError
from recops.protocols import ServingParts

MIN_USERS = 100  # to choose by
AUTO = ("ivf", "scan")  # in the order in which they cost (python -m benchmarks.serving)


@dataclass(frozen=True)
class Wanted:
    """`kind`: auto, none or one of index.KINDS. `chosen_by` and `stated_on`: float32 [Q, D] vectors of users."""

    kind: str
    exact_up_to: int  # items
    min_recall: float  # at 50
    chosen_by: np.ndarray
    stated_on: np.ndarray


def is_product(parts: ServingParts) -> bool:
    """Whether scores are products of vectors and nothing else, which is what an index can search."""
    others = (parts.ranker, parts.links, parts.item_scores)
    return not parts.members and parts.item_vectors is not None and all(other is None for other in others)


def choose_index(parts: ServingParts, wanted: Wanted) -> tuple[ann.Index | None, dict[str, Any]]:
    """The cheapest setting of the first kind that surely reaches `min_recall` on the users chosen by, and what the
    manifest says of it: `kind` (`exact` without an index, then `why`), its settings, `recall@50` on the users that it
    is stated on, `num_users` of these, and `share_read` of an exact scan's bytes (null: not known).

    Raises CallError where a kind is asked for by name and faiss is not installed.
    """
    if (why := _why_exact(parts, wanted)) is not None:
        return None, {"kind": "exact", "why": why}
    vectors = np.ascontiguousarray(parts.item_vectors, np.float32)
    found_exactly = ann.exact(vectors, wanted.chosen_by)
    tried = []
    for kind in AUTO if wanted.kind == "auto" else (wanted.kind,):
        index = ann.build_index(kind, vectors)
        reached = 0.0
        for effort in ann.efforts(kind, index.num_items):
            index = index.trying(effort)
            shares = ann.shares_found(index, vectors, wanted.chosen_by, found_exactly)
            # Two standard errors below the mean, so that other users get as much.
            reached = float(shares.mean() - 2 * shares.std() / np.sqrt(len(shares)))
            if reached >= wanted.min_recall:
                return index, _entry(index, vectors, wanted)
        tried.append(f"{kind} {reached:.3f}")
    return None, {"kind": "exact", "why": f"recall@50 below {wanted.min_recall:g}: {', '.join(tried)}"}


def _why_exact(parts: ServingParts, wanted: Wanted) -> str | None:
    if wanted.kind == "none":
        return "export.index is none"
    if parts.num_items <= wanted.exact_up_to:
        return f"no more than {wanted.exact_up_to} items (export.exact_up_to)"
    if not is_product(parts):
        return "the model is more than one product of vectors"
    if not ann.is_available():
        if wanted.kind != "auto":
            raise CallError(f"export.index: {wanted.kind} needs faiss; {ann.EXTRA}")
        return f"faiss is not installed; {ann.EXTRA}"
    if len(wanted.chosen_by) < MIN_USERS:
        return f"only {len(wanted.chosen_by)} users to choose an index by"
    return None


def _entry(index: ann.Index, vectors: np.ndarray, wanted: Wanted) -> dict[str, Any]:
    users = wanted.stated_on if len(wanted.stated_on) else wanted.chosen_by
    shares = ann.shares_found(index, vectors, users, ann.exact(vectors, users))
    share = ann.share_read(index, vectors.shape[1])
    return {
        **index.settings(),
        f"recall@{ann.RECALL_AT}": round(float(shares.mean()), 4),
        "num_users": len(users),
        "share_read": None if np.isnan(share) else round(share, 5),
    }
