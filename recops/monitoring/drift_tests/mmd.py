"""Maximum mean discrepancy between two sets of vectors, with a permutation p-value (Gretton et al., JMLR 2012).

Gaussian kernel, its width the median distance within the pooled vectors. The statistic is the correlation ratio in the
kernel's space: the root of what lies between the two sides, as a share of all the variance, as if both were equally
large. 0 for the same distribution, 1 for two points apart; for a shift of d standard deviations along the only axis
about d / 2, so that it stands beside Cramer's V. The unbiased estimate of MMD is used, which is 0 on average where
nothing moved. The p-value says how many of 4,999 seeded redistributions of all vectors over the two sides reach what
was found: any difference that the kernel sees counts, and no normality is asked for.

Shapes: n and m vectors of D, N = n + m, P permutations at once.
"""

from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np

from recops.monitoring.drift_tests._counts import no_data
from recops.params import DriftParams
from recops.protocols import DriftResult

PERMUTATIONS = 4999
AT_ONCE = 500
SEED = 0


class Mmd:
    """Threshold `drift.effect`.

    >>> reference = {"kind": "vectors", "vectors": [[0.0]] * 10, "n": 10}
    >>> current = {"kind": "vectors", "vectors": [[1.0]] * 10, "n": 10}
    >>> Mmd().compare("user_vectors", reference, current, DriftParams()).statistic
    1.0
    """

    kinds: ClassVar[tuple[str, ...]] = ("vectors",)

    def compare(
        self, feature: str, reference: Mapping[str, Any], current: Mapping[str, Any], params: DriftParams
    ) -> DriftResult:
        """Statistic 0 to 1. With fewer than 2 vectors on either side: statistic 0, no p-value, not drifted."""
        if min(reference["n"], current["n"]) < 2:
            return no_data(feature, "mmd", params.effect)
        ours, theirs = np.asarray(reference["vectors"], np.float32), np.asarray(current["vectors"], np.float32)
        kernel_NN = gaussian_kernel(np.concatenate([ours, theirs]))
        is_ours = np.arange(len(kernel_NN)) < len(ours)
        (found,), within = squared_mmd(kernel_NN, is_ours[:, None])
        between = max(found, 0.0) / 4
        effect = float(np.sqrt(between / (within[0] + between))) if between > 0 else 0.0
        p_value = permutation_p(kernel_NN, is_ours, found)
        drifted = effect >= params.effect and p_value <= params.p_value
        return DriftResult(feature, "mmd", round(effect, 6), p_value, params.effect, drifted)


def gaussian_kernel(vectors_ND: np.ndarray) -> np.ndarray:
    """exp(-d^2 / median d^2), float32 [N, N]; all ones where the vectors are one and the same."""
    lengths_N = np.einsum("nd,nd->n", vectors_ND, vectors_ND)
    squared_NN = np.maximum(lengths_N[:, None] + lengths_N - 2 * vectors_ND @ vectors_ND.T, 0)
    np.fill_diagonal(squared_NN, 0)
    apart = squared_NN[squared_NN > 1e-6 * max(float(lengths_N.max()), 1e-12)]
    return np.exp(-squared_NN / np.median(apart)) if len(apart) else np.ones_like(squared_NN)


def squared_mmd(kernel_NN: np.ndarray, is_ours_NP: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Unbiased squared MMD of P divisions of the vectors (bool [N, P]), and the variance within their two sides, each
    float64 [P]."""
    ours_NP = is_ours_NP.astype(np.float32)
    n, m = is_ours_NP.sum(0), (~is_ours_NP).sum(0)
    all_N = kernel_NN.sum(1, dtype=np.float64)
    ours = np.einsum("np,np->p", kernel_NN @ ours_NP, ours_NP, dtype=np.float64)
    across = all_N @ is_ours_NP - ours
    theirs = all_N.sum() - 2 * across - ours
    # Without the diagonal, which is one everywhere.
    alike, alike_too = (ours - n) / (n * (n - 1)), (theirs - m) / (m * (m - 1))
    return alike + alike_too - 2 * across / (n * m), np.maximum(1 - (alike + alike_too) / 2, 0)


def permutation_p(kernel_NN: np.ndarray, is_ours: np.ndarray, found: float) -> float:
    """The share of random divisions whose squared MMD reaches `found`, itself among them."""
    chance, reached = np.random.default_rng(SEED), 1
    for start in range(0, PERMUTATIONS, AT_ONCE):
        num = min(AT_ONCE, PERMUTATIONS - start)
        divided = chance.permuted(np.broadcast_to(is_ours, (num, len(is_ours))), axis=1).T
        reached += int((squared_mmd(kernel_NN, divided)[0] >= found - 1e-9).sum())
    return reached / (PERMUTATIONS + 1)
