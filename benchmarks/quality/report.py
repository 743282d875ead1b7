"""One row of a table: how good a model is, how sure that is, what it cost, and whether it beats what was published.

In: the metric values of each user, one array a seed. Out: JSON values and lines to print. Knows no models or files.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from benchmarks.quality.tasks import Published
from recops.evaluation.bootstrap import mean_intervals, paired_bootstrap

SAMPLES = 1000


def intervals(values_by_seed: Sequence[Mapping[str, np.ndarray]], metrics: Sequence[str]) -> dict[str, dict[str, Any]]:
    """{`ndcg@10`: {`value`, `low`, `high`, `seeds`}}: the mean over users and seeds with its 95 % bootstrap interval.

    Each seed gives float64 [U] a metric, the same users in the same order. Users are resampled, so the interval says
    nothing of the spread between seeds: `seeds` holds the mean of each.
    """
    mean_UM = np.column_stack([np.mean([values[metric] for values in values_by_seed], axis=0) for metric in metrics])
    found = mean_intervals(mean_UM, SAMPLES, seed=0)
    return {
        metric: {
            "value": float(value),
            "low": float(low),
            "high": float(high),
            "seeds": [float(np.nanmean(values[metric])) for values in values_by_seed],
        }
        for metric, (value, low, high, _) in zip(metrics, found, strict=True)
    }


def differences(
    values_by_seed: Sequence[Mapping[str, np.ndarray]],
    others: Mapping[str, Sequence[Mapping[str, np.ndarray]]],
    metric: str,
) -> dict[str, dict[str, float]]:
    """By other model {`difference`, `low`, `high`}: how much better on the same users, with a paired 95 % interval."""

    def mean(runs: Sequence[Mapping[str, np.ndarray]]) -> np.ndarray:
        return np.mean([values[metric] for values in runs], axis=0)

    own = mean(values_by_seed)
    found = {other: paired_bootstrap(own, mean(runs), SAMPLES, seed=0) for other, runs in others.items()}
    return {other: dict(zip(("difference", "low", "high"), three, strict=True)) for other, three in found.items()}


def to_beat(published: Sequence[Published], metrics: Sequence[str]) -> dict[str, tuple[float, Published]]:
    """The best comparable published value of each metric, and whose it is; a metric that nobody gave is left out."""
    best: dict[str, tuple[float, Published]] = {}
    for metric in metrics:
        known = [(p.metrics[metric], p) for p in published if p.is_comparable and metric in p.metrics]
        if known:
            best[metric] = max(known, key=lambda pair: pair[0])
    return best


def is_beaten(found: Mapping[str, Mapping[str, Any]], best: Mapping[str, tuple[float, Published]]) -> bool | None:
    """Whether the mean is above the best published one in every metric; None where nothing can be compared."""
    if not best:
        return None
    return all(found[metric]["value"] > value for metric, (value, _) in best.items())


def lines(rows: Sequence[Mapping[str, Any]], metrics: Sequence[str], published: Sequence[Published]) -> list[str]:
    """The table as text: published figures first, then one line a model."""
    width = max([len(p.model) for p in published] + [len(row["model"]) for row in rows] + [10])
    head = " ".join(f"{metric:>24}" for metric in metrics)
    out = [f"{'model':<{width}} {'seeds':>5} {'valid':>6} {head} {'CPU s':>8} beaten"]
    for p in published:
        cells = " ".join(f"{p.metrics[m]:>24.4f}" if m in p.metrics else f"{'-':>24}" for m in metrics)
        about = "published" if p.is_comparable else "published, not comparable"
        out.append(f"{p.model:<{width}} {'':>5} {'':>6} {cells} {'':>8} {about}: {p.source}")
    for row in rows:
        cells = " ".join("{value:>8.4f} [{low:.4f}, {high:.4f}]".format(**row["metrics"][m]) for m in metrics)
        beaten = {True: "yes", False: "no", None: "-"}[row["beaten"]]
        out.append(
            f"{row['model']:<{width}} {len(row['seeds']):>5} {row['validation']:>6.4f} {cells} "
            f"{row['cpu_seconds']:>8.1f} {beaten}"
        )
    return out
