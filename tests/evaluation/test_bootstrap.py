"""Intervals against what is known of means."""

import doctest

import numpy as np
import pytest

from recops.evaluation import bootstrap, segments
from recops.evaluation.bootstrap import mean_intervals, paired_bootstrap


def test_doctests():
    for module in (bootstrap, segments):
        result = doctest.testmod(module)
        assert result.attempted and not result.failed


def test_the_interval_of_a_share_is_near_the_normal_one():
    values = np.repeat([0.0, 1.0], [600, 400])
    mean, low, high, num_users = mean_intervals(values[:, None], 1000, seed=3)[0]
    half = 1.96 * np.sqrt(0.4 * 0.6 / 1000)
    assert mean == pytest.approx(0.4) and num_users == 1000
    assert (low, high) == (pytest.approx(0.4 - half, abs=0.004), pytest.approx(0.4 + half, abs=0.004))


def test_nan_is_a_user_left_out_and_columns_do_not_disturb_each_other():
    values = np.array([[1.0, np.nan, np.nan], [0.0, 1.0, np.nan], [np.nan, 1.0, np.nan]])
    result = mean_intervals(values, 200, seed=1)
    np.testing.assert_equal(result[:, 0], [0.5, 1.0, np.nan])
    np.testing.assert_equal(result[1, 1:], [1.0, 1.0, 2.0])
    np.testing.assert_equal(result[2], [np.nan, np.nan, np.nan, 0.0])
    np.testing.assert_equal(mean_intervals(values[:, :1], 200, seed=1)[0], result[0])


def test_a_paired_difference_is_surer_than_two_means():
    rng = np.random.default_rng(5)
    base = rng.random(500)
    better = base + 0.02 + rng.normal(0, 0.01, 500)
    diff, low, high = paired_bootstrap(better, base, 1000, seed=1)
    assert low < diff < high and diff == pytest.approx(0.02, abs=0.002)
    assert low > 0
    assert paired_bootstrap(better, base, 1000, seed=1) == (diff, low, high)
    reverse = paired_bootstrap(base, better, 1000, seed=1)
    assert reverse == (pytest.approx(-diff), pytest.approx(-high), pytest.approx(-low))


def test_users_undefined_in_either_model_are_left_out():
    a, b = np.array([1.0, np.nan, 0.5]), np.array([0.0, 1.0, np.nan])
    assert paired_bootstrap(a, b, 200, seed=1) == (1.0, 1.0, 1.0)
    assert np.isnan(paired_bootstrap(a[1:2], b[1:2], 200, seed=1)).all()
