"""Population stability index: sum over bins of (q - p) ln(q / p), p the reference's share of a bin, q the current one.

Numeric features are judged on at most 10 bins, made of the profile's fine ones so that the reference fills them about
evenly; nulls are a bin of their own. Names too rare to judge (fewer than 5 expected in the current window, from the
mean of both shares) are counted together. Every bin gets half an event on both sides, so that an empty one gives a
finite figure. Under no drift, PSI * n m / (n + m) is close to chi-square with bins - 1 degrees of freedom: that is
the p-value, with n and m divided by the `dependence` of their profile where it has one.
"""

from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np
from scipy.stats import chi2

from recops.monitoring.drift_tests._counts import coarse_counts, independent, no_data, pool_rare
from recops.params import DriftParams
from recops.protocols import DriftResult


class Psi:
    """Threshold `drift.psi`: below .1 is usually called stable, from .2 on a shift that matters.

    >>> reference = {"kind": "categorical", "counts": {"a": 500, "b": 500}, "other": 0, "n": 1000}
    >>> current = {"kind": "categorical", "counts": {"a": 800, "b": 200}, "other": 0, "n": 1000}
    >>> Psi().compare("kind", reference, current, DriftParams()).statistic  # near .3 ln 1.6 - .3 ln .4 = .4159
    0.414912
    """

    kinds: ClassVar[tuple[str, ...]] = ("numeric", "categorical")

    def compare(
        self, feature: str, reference: Mapping[str, Any], current: Mapping[str, Any], params: DriftParams
    ) -> DriftResult:
        """Statistic PSI, from 0 on. Without events on either side: statistic 0, no p-value, not drifted."""
        if not reference["n"] or not current["n"]:
            return no_data(feature, "psi", params.psi)
        p_counts, q_counts = pool_rare(*coarse_counts(reference, current))
        num_bins = len(p_counts)
        p = (p_counts + 0.5) / (p_counts.sum() + 0.5 * num_bins)
        q = (q_counts + 0.5) / (q_counts.sum() + 0.5 * num_bins)
        psi = float(((q - p) * np.log(q / p)).sum())
        n, m = p_counts.sum() * independent(reference), q_counts.sum() * independent(current)
        p_value = float(chi2.sf(psi * n * m / (n + m), num_bins - 1)) if num_bins > 1 else 1.0
        drifted = psi >= params.psi and p_value <= params.p_value
        return DriftResult(feature, "psi", round(psi, 6), p_value, params.psi, drifted)
