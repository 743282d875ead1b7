"""Kolmogorov-Smirnov: the greatest distance between the two cumulative shares, for numeric features.

Taken between the profile's bins: exact where the reference has up to 100 different values, else at most 1/100 below
the exact distance. Nulls have no place in an order and are left out here (PSI counts them). The p-value is
the asymptotic one, which ties make cautious, with sizes divided by the `dependence` of their profile.
"""

from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np
from scipy.special import kolmogorov

from recops.monitoring.drift_tests._counts import independent, no_data
from recops.params import DriftParams
from recops.protocols import DriftResult


class Ks:
    """Threshold `drift.effect`.

    >>> reference = {"kind": "numeric", "edges": [1, 2], "counts": [0, 10, 0, 30, 0], "nulls": 0, "n": 40}
    >>> current = {"kind": "numeric", "edges": [1, 2], "counts": [0, 10, 10, 10, 10], "nulls": 0, "n": 40}
    >>> Ks().compare("value", reference, current, DriftParams()).statistic  # 0 .25 .25 1 1 against 0 .25 .5 .75 1
    0.25
    """

    kinds: ClassVar[tuple[str, ...]] = ("numeric",)

    def compare(
        self, feature: str, reference: Mapping[str, Any], current: Mapping[str, Any], params: DriftParams
    ) -> DriftResult:
        """Statistic 0 to 1. Without values on either side: statistic 0, no p-value, not drifted."""
        p_counts, q_counts = np.asarray(reference["counts"], float), np.asarray(current["counts"], float)
        n, m = p_counts.sum(), q_counts.sum()
        if not n or not m:
            return no_data(feature, "ks", params.effect)
        distance = float(np.abs(np.cumsum(p_counts) / n - np.cumsum(q_counts) / m).max())
        n, m = n * independent(reference), m * independent(current)
        p_value = float(kolmogorov(distance * np.sqrt(n * m / (n + m))))
        drifted = distance >= params.effect and p_value <= params.p_value
        return DriftResult(feature, "ks", round(distance, 6), p_value, params.effect, drifted)
