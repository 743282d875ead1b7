"""Chi-square test of homogeneity for categorical features, with Cramer's V as the effect size.

The usual V falls towards 0 when one side is far larger than the other, as a reference is. It is therefore taken
as if both sides were equally large: V = sqrt(1/2 sum (p - q)^2 / (p + q)), 0 for equal shares and 1 for no name in
common. The p-value is that of the ordinary test on the counts. Rare names are counted together as in PSI.
"""

from collections.abc import Mapping
from typing import Any, ClassVar

from recops.monitoring.drift_tests._counts import (
    coarse_counts,
    cramers_v,
    homogeneity_p,
    independent,
    no_data,
    pool_rare,
)
from recops.params import DriftParams
from recops.protocols import DriftResult


class ChiSquare:
    """Threshold `drift.effect`.

    >>> reference = {"kind": "categorical", "counts": {"a": 500, "b": 500}, "other": 0, "n": 1000}
    >>> current = {"kind": "categorical", "counts": {"a": 80, "b": 20}, "other": 0, "n": 100}
    >>> ChiSquare().compare("kind", reference, current, DriftParams()).statistic  # sqrt((.09/1.3 + .09/.7) / 2)
    0.314485
    """

    kinds: ClassVar[tuple[str, ...]] = ("categorical",)

    def compare(
        self, feature: str, reference: Mapping[str, Any], current: Mapping[str, Any], params: DriftParams
    ) -> DriftResult:
        """Statistic 0 to 1. Without events on either side: statistic 0, no p-value, not drifted."""
        if not reference["n"] or not current["n"]:
            return no_data(feature, "chi_square", params.effect)
        p_counts, q_counts = pool_rare(*coarse_counts(reference, current))
        effect = cramers_v(p_counts, q_counts)
        p_value = homogeneity_p(p_counts * independent(reference), q_counts * independent(current))
        drifted = effect >= params.effect and p_value <= params.p_value
        return DriftResult(feature, "chi_square", round(effect, 6), p_value, params.effect, drifted)
