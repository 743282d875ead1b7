"""Every drift test: what all of the socket must do, and numbers worked by hand."""

import doctest
import json
from dataclasses import asdict

import numpy as np
import pytest
from scipy.stats import chi2_contingency, ks_2samp

from recops import plugins
from recops.monitoring.features import categorical_profile, numeric_profile, share_profile
from recops.params import DriftParams
from recops.protocols import DriftResult

SOCKET = "monitoring.drift_tests"
RNG = np.random.default_rng(3)


def vectors(found: np.ndarray) -> dict:
    return {"kind": "vectors", "vectors": found.astype(np.float32), "n": len(found)}


def mean(value: float, error: float, n: int) -> dict:
    return {"kind": "mean", "mean": value, "error": error, "n": n}


NORMAL = numeric_profile(RNG.normal(size=5000))
PAIRS = {
    "numeric": (
        NORMAL,
        numeric_profile(RNG.normal(size=5000), NORMAL),
        numeric_profile(RNG.normal(1.0, size=5000), NORMAL),
        numeric_profile(np.array([]), NORMAL),
    ),
    "categorical": (
        categorical_profile({"a": 2500, "b": 2400, "c": 100}),
        categorical_profile({"a": 505, "b": 477, "c": 18}),
        categorical_profile({"a": 100, "b": 800, "c": 100}),
        categorical_profile({}, categorical_profile({"a": 1, "b": 1, "c": 1})),
    ),
    "share": (share_profile(100, 5000), share_profile(22, 1000), share_profile(100, 1000), share_profile(0, 0)),
    "vectors": (
        vectors(RNG.normal(size=(300, 4))),
        vectors(RNG.normal(size=(200, 4))),
        vectors(RNG.normal(1.0, size=(200, 4))),
        vectors(np.zeros((0, 4))),
    ),
    "mean": (mean(0.2, 0.004, 9000), mean(0.199, 0.01, 1200), mean(0.1, 0.009, 1200), mean(0.0, 0.0, 0)),
}
CASES = [(name, kind) for name in plugins.names(SOCKET) for kind in plugins.load(SOCKET, name).kinds]


@pytest.mark.parametrize("name", plugins.names(SOCKET))
def test_doctests_hold(name):
    assert doctest.testmod(plugins.load_module(SOCKET, name)).failed == 0


@pytest.mark.parametrize(("name", "kind"), CASES)
def test_every_test_of_the_socket(name, kind):
    test, params = plugins.load(SOCKET, name)(), DriftParams()
    reference, same, shifted, empty = PAIRS[kind]
    assert isinstance(test.compare("f", reference, same, params), DriftResult)
    unmoved = test.compare("f", reference, reference, params)
    assert (unmoved.statistic, unmoved.drifted) == (0, False)
    assert not test.compare("f", reference, same, params).drifted
    found = test.compare("f", reference, shifted, params)
    assert found.drifted
    assert (found.feature, found.test) == ("f", name)
    json.dumps(asdict(found), allow_nan=False)
    for nothing in (test.compare("f", reference, empty, params), test.compare("f", empty, reference, params)):
        assert (nothing.statistic, nothing.p_value, nothing.drifted) == (0, None, False)


def test_every_kind_of_feature_has_a_test():
    assert {kind for _, kind in CASES} == {"numeric", "categorical", "share", "vectors", "mean"}


@pytest.mark.parametrize(("name", "kind"), CASES)
def test_the_effect_decides_and_the_p_value_must_hold(name, kind):
    test = plugins.load(SOCKET, name)()
    reference, _, shifted, _ = PAIRS[kind]
    found = test.compare("f", reference, shifted, DriftParams())
    assert not test.compare("f", reference, shifted, DriftParams(psi=50, effect=1.1, fall=1.1)).drifted
    strict = DriftParams(psi=found.statistic / 2, effect=found.statistic / 2, fall=found.statistic / 2, p_value=1e-300)
    few = {
        "numeric": numeric_profile(RNG.normal(1.0, size=20), NORMAL),
        "categorical": categorical_profile({"a": 2, "b": 16, "c": 2}),
        "share": share_profile(2, 20),
        "vectors": vectors(RNG.normal(1.0, size=(20, 4))),
        "mean": mean(0.1, 0.1, 12),
    }[kind]
    assert not test.compare("f", reference, few, strict).drifted


def test_psi_of_an_empty_bin_is_finite_and_worked_by_hand():
    reference = categorical_profile({"a": 10, "b": 10})
    current = categorical_profile({"a": 20}, reference)
    # With half an event in each bin: p = .5 .5, q = 20.5/21 .5/21; expected 15 and 5: none is pooled.
    p, q = np.array([0.5, 0.5]), np.array([20.5, 0.5]) / 21
    found = plugins.load(SOCKET, "psi")().compare("f", reference, current, DriftParams())
    assert found.statistic == pytest.approx(((q - p) * np.log(q / p)).sum(), abs=1e-6)


def test_nulls_are_a_bin_of_psi_and_left_out_of_ks():
    values = np.tile([1.0, 2.0], 500)
    reference = numeric_profile(values)
    half_null = numeric_profile(np.where(np.arange(1000) % 4 < 2, values, np.nan), reference)
    assert plugins.load(SOCKET, "psi")().compare("f", reference, half_null, DriftParams()).drifted
    assert plugins.load(SOCKET, "ks")().compare("f", reference, half_null, DriftParams()).statistic == 0


def test_rare_names_are_pooled():
    # 40 names with one event each against 20 of them with two: too few to say anything about any of them.
    reference = categorical_profile({"a": 960, **{f"r{n}": 1 for n in range(40)}})
    current = categorical_profile({"a": 960, **{f"r{n}": 2 for n in range(20)}}, reference)
    for name in ("psi", "chi_square"):
        assert plugins.load(SOCKET, name)().compare("f", reference, current, DriftParams()).statistic == 0


def test_p_values_agree_with_scipy():
    reference, current = {"a": 300, "b": 500, "c": 200}, {"a": 40, "b": 40, "c": 20}
    found = plugins.load(SOCKET, "chi_square")().compare(
        "f", categorical_profile(reference), categorical_profile(current), DriftParams()
    )
    expected = chi2_contingency([list(reference.values()), list(current.values())]).pvalue
    assert found.p_value == pytest.approx(expected, rel=1e-9)
    values, other = RNG.integers(0, 50, 2000).astype(float), RNG.integers(3, 50, 700).astype(float)
    profile = numeric_profile(values)
    ks = plugins.load(SOCKET, "ks")().compare("f", profile, numeric_profile(other, profile), DriftParams())
    exact = ks_2samp(values, other, method="asymp")
    assert ks.statistic == pytest.approx(exact.statistic, abs=1e-6)
    # scipy's asymptotic form rounds n m / (n + m), so the two only nearly agree.
    assert ks.p_value == pytest.approx(exact.pvalue, rel=0.5)


@pytest.mark.parametrize("name", ["psi", "ks", "chi_square", "share"])
def test_dependent_values_count_for_less(name):
    test = plugins.load(SOCKET, name)()
    reference, _, shifted, _ = PAIRS[{"share": "share", "chi_square": "categorical"}.get(name, "numeric")]
    assert test.compare("f", reference, shifted, DriftParams()).drifted
    few = {**shifted, "dependence": shifted["n"] / 3.0}
    found = test.compare("f", reference, few, DriftParams())
    assert not found.drifted
    assert found.statistic == test.compare("f", reference, shifted, DriftParams()).statistic


def test_mmd_is_what_kernels_say_pair_by_pair():
    reference, _, shifted, _ = PAIRS["vectors"]
    ours, theirs = reference["vectors"][:40].astype(float), shifted["vectors"][:30].astype(float)
    both = np.concatenate([ours, theirs])
    squared = ((both[:, None] - both) ** 2).sum(-1)
    kernel = np.exp(-squared / np.median(squared[squared > 0]))
    alike = [np.mean([kernel[i, j] for i in side for j in side if i != j]) for side in (range(40), range(40, 70))]
    across = np.mean([kernel[i, j] for i in range(40) for j in range(40, 70)])
    between = (sum(alike) - 2 * across) / 4
    expected = np.sqrt(between / (1 - sum(alike) / 2 + between))
    found = plugins.load(SOCKET, "mmd")().compare("f", vectors(ours), vectors(theirs), DriftParams())
    assert found.statistic == pytest.approx(expected, abs=1e-4)
    assert found.p_value == 1 / 5000  # none of the redistributions comes near


def test_mmd_p_values_are_even_where_nothing_moved():
    """Whatever the difference, one in twenty is below .05: counted over 60 pairs drawn from one distribution."""
    test = plugins.load(SOCKET, "mmd")()
    chance = np.random.default_rng(8)
    pairs = [(chance.normal(size=(40, 3)), chance.normal(size=(40, 3))) for _ in range(60)]
    found = [test.compare("f", vectors(a), vectors(b), DriftParams()).p_value for a, b in pairs]
    assert sum(p <= 0.05 for p in found) <= 8  # more by chance once in 500
    assert 0.35 < np.mean(found) < 0.65


def test_a_rise_is_no_fall_and_nothing_cannot_fall():
    test = plugins.load(SOCKET, "fall")()
    risen = test.compare("f", mean(0.2, 0.004, 9000), mean(0.3, 0.01, 1200), DriftParams())
    assert (risen.statistic, risen.drifted) == (0, False)
    assert risen.p_value > 0.999
    from_zero = test.compare("f", mean(0.0, 0.0, 9000), mean(0.0, 0.0, 1200), DriftParams())
    assert (from_zero.statistic, from_zero.p_value, from_zero.note) == (0, None, "nothing to compare")
