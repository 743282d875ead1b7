"""Two-proportion test for shares (new users, new items, coverage), with Cramer's V of the 2 x 2 table as effect size.

V is taken as if both sides were equally large (see chi_square). It weighs a change near 0 more than one in the
middle: from .01 to .05 is .117, from .50 to .54 is .040. The p-value is that of the chi-square test, which for a
2 x 2 table is the two-sided test of two proportions, on counts divided by the `dependence` of their profile.
"""

from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np

from recops.monitoring.drift_tests._counts import cramers_v, homogeneity_p, independent, no_data
from recops.params import DriftParams
from recops.protocols import DriftResult


class Share:
    """Threshold `drift.effect`.

    >>> Share().compare("new", {"count": 10, "n": 100}, {"count": 20, "n": 100}, DriftParams()).statistic
    0.140028
    """

    kinds: ClassVar[tuple[str, ...]] = ("share",)

    def compare(
        self, feature: str, reference: Mapping[str, Any], current: Mapping[str, Any], params: DriftParams
    ) -> DriftResult:
        """Statistic 0 to 1. Where either share is of nothing: statistic 0, no p-value, not drifted."""
        if not reference["n"] or not current["n"]:
            return no_data(feature, "share", params.effect)
        p_counts = np.array([reference["count"], reference["n"] - reference["count"]], float)
        q_counts = np.array([current["count"], current["n"] - current["count"]], float)
        effect = cramers_v(p_counts, q_counts)
        p_value = homogeneity_p(p_counts * independent(reference), q_counts * independent(current))
        drifted = effect >= params.effect and p_value <= params.p_value
        return DriftResult(feature, "share", round(effect, 6), p_value, params.effect, drifted)
