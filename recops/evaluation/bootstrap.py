"""How sure a mean over users is: bootstrap intervals, and the paired difference of two models.

In: one value a user. Out: 95 % percentile intervals. Seeded; users are resampled, never their single events.
"""

import numpy as np

BATCH = 50  # resamples at once


def mean_intervals(values_UM: np.ndarray, samples: int, seed: int) -> np.ndarray:
    """Mean, low, high and number of users of each column: float64 [M, 4].

    NaN is a user left out of that column. All columns are resampled alike. A column without users gives NaN and 0.
    """
    num_users, num_columns = values_UM.shape
    known_UM = np.isfinite(values_UM)
    sums_UM = np.concatenate([np.where(known_UM, values_UM, 0.0), known_UM], axis=1)
    count = known_UM.sum(axis=0)
    result = np.full((num_columns, 4), np.nan)
    result[:, 3] = count
    some = count > 0
    if not some.any():
        return result
    result[some, 0] = sums_UM.sum(axis=0)[:num_columns][some] / count[some]

    rng = np.random.default_rng(seed)
    means = np.full((samples, num_columns), np.nan)
    for start in range(0, samples, BATCH):
        size = min(BATCH, samples - start)
        drawn = rng.integers(0, num_users, size=(size, num_users))
        weights = np.stack([np.bincount(row, minlength=num_users) for row in drawn]).astype(np.float64)
        totals = weights @ sums_UM
        np.divide(
            totals[:, :num_columns],
            totals[:, num_columns:],
            out=means[start : start + size],
            where=totals[:, num_columns:] > 0,
        )
    # A resample without any user of a small segment says nothing about it.
    result[some, 1:3] = np.nanpercentile(means[:, some], [2.5, 97.5], axis=0).T
    return result


def paired_bootstrap(a: np.ndarray, b: np.ndarray, samples: int, seed: int) -> tuple[float, float, float]:
    """Mean of `a - b` over the same users, with the ends of its 95 % interval.

    `a`, `b`: float64 [U], one value a user in the same order. A user with NaN in either is left out; no user left
    gives NaN three times.

    >>> paired_bootstrap(np.array([1.0, 1.0]), np.array([0.5, 0.5]), 100, seed=1)
    (0.5, 0.5, 0.5)
    """
    mean, low, high, _ = mean_intervals((a - b)[:, None], samples, seed)[0]
    return float(mean), float(low), float(high)
