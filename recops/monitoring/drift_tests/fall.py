"""Relative fall of a mean, for what followed answers (hit rate, NDCG): an outcome that rises is no reason to act.

The statistic is (reference - current) / reference, 0 where nothing fell: a hit rate has its meaning as a multiple of
what it was, and Cramer's V of .10 against .05 is below .1. The p-value is that of the one-sided z test, with standard
errors that take a user's answers together.
"""

from collections.abc import Mapping
from typing import Any, ClassVar

from scipy.stats import norm

from recops.monitoring.drift_tests._counts import no_data
from recops.params import DriftParams
from recops.protocols import DriftResult


class Fall:
    """Threshold `drift.fall`.

    >>> reference = {"kind": "mean", "mean": 0.2, "error": 0.004, "n": 5000}
    >>> current = {"kind": "mean", "mean": 0.15, "error": 0.01, "n": 900}
    >>> Fall().compare("hit_rate", reference, current, DriftParams()).statistic
    0.25
    """

    kinds: ClassVar[tuple[str, ...]] = ("mean",)

    def compare(
        self, feature: str, reference: Mapping[str, Any], current: Mapping[str, Any], params: DriftParams
    ) -> DriftResult:
        """Statistic 0 to 1. Where there is no mean, or none to fall from: statistic 0, no p-value, not drifted."""
        if not reference["n"] or not current["n"] or reference["mean"] <= 0:
            return no_data(feature, "fall", params.fall)
        fallen = reference["mean"] - current["mean"]
        error = (reference["error"] ** 2 + current["error"] ** 2) ** 0.5
        p_value = float(norm.sf(fallen / error)) if error > 0 else float(fallen <= 0)
        fall = max(0.0, fallen / reference["mean"])
        return DriftResult(
            feature, "fall", round(fall, 6), p_value, params.fall, fall >= params.fall and p_value <= params.p_value
        )
