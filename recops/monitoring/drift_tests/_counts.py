"""What the drift tests share: profiles as two aligned arrays of counts, and effect sizes of such arrays.

Both profiles lie on the reference's bins or names (see features.py).
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
from scipy.stats import chi2

from recops.protocols import DriftResult

NUM_COARSE = 10
MIN_EXPECTED = 5.0


def no_data(feature: str, test: str, threshold: float) -> DriftResult:
    """The result where one side has nothing to compare."""
    return DriftResult(feature, test, 0.0, None, threshold, False, "nothing to compare")


def coarse_counts(reference: Mapping[str, Any], current: Mapping[str, Any]) -> tuple[np.ndarray, np.ndarray]:
    """Counts of both profiles on the same bins: names and `other`, or at most 10 numeric bins and nulls."""
    if reference["kind"] == "categorical":
        names = list(reference["counts"])
        return tuple(  # type: ignore[return-value]
            np.array([*(side["counts"].get(name, 0) for name in names), side["other"]], float)
            for side in (reference, current)
        )
    fine = np.asarray(reference["counts"], float)
    # The tenth of the reference in which the middle of each fine bin lies.
    middle = (np.cumsum(fine) - fine / 2) / max(fine.sum(), 1.0)
    group = np.minimum(middle * NUM_COARSE, NUM_COARSE - 1).astype(np.int64)
    return tuple(  # type: ignore[return-value]
        np.append(np.bincount(group, np.asarray(side["counts"], float), NUM_COARSE), side["nulls"])
        for side in (reference, current)
    )


def independent(profile: Mapping[str, Any]) -> float:
    """By what a count of this profile is multiplied to say how many independent observations it stands for."""
    return 1.0 / profile.get("dependence", 1.0)


def pool_rare(p_counts: np.ndarray, q_counts: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The same counts without bins empty on both sides, and with rare ones added together in one last bin.

    Rare: fewer than 5 events expected in the smaller side, from the mean of both shares.
    """
    n, m = p_counts.sum(), q_counts.sum()
    expected = (p_counts / n + q_counts / m) / 2 * min(n, m)
    rare = expected < MIN_EXPECTED
    pooled = []
    for counts in (p_counts, q_counts):
        kept = counts[~rare]
        pooled.append(np.append(kept, counts[rare].sum()) if expected[rare].sum() > 0 else kept)
    return pooled[0], pooled[1]


def cramers_v(p_counts: np.ndarray, q_counts: np.ndarray) -> float:
    """Cramer's V of the 2 x bins table, as if both sides were equally large."""
    p, q = p_counts / p_counts.sum(), q_counts / q_counts.sum()
    both = p + q
    used = both > 0
    return float(np.sqrt(((p - q)[used] ** 2 / both[used]).sum() / 2))


def homogeneity_p(p_counts: np.ndarray, q_counts: np.ndarray) -> float:
    """p-value of the chi-square test that both sides have the same shares; 1 for a single bin."""
    table = np.array([p_counts, q_counts])
    table = table[:, table.sum(axis=0) > 0]
    if table.shape[1] < 2:
        return 1.0
    expected = table.sum(axis=1, keepdims=True) * table.sum(axis=0) / table.sum()
    return float(chi2.sf(((table - expected) ** 2 / expected).sum(), table.shape[1] - 1))
