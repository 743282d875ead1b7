"""False alarms and power on one set: see `__main__`, which processes of their own cannot import."""

import time
from collections import Counter
from typing import Any

import numpy as np
from scipy.stats import beta

from benchmarks.drift.drawn import SETS, Log, fitted, halves, in_season
from benchmarks.drift.shifts import ANSWER_SHIFTS, SHIFTS


def measure(log: Log, num_windows: int, num_planted: int) -> dict[str, Any]:
    scoring = fitted(log)
    alike = in_season(log, scoring)
    alarms: Counter[str] = Counter()
    effects: dict[tuple[str, str], list[float]] = {}
    found: dict[str, list[tuple[str, ...]]] = {}
    num_alarms, too_few, events, asked = 0, 0, [], []
    for seed in range(num_windows):
        drawn = halves(log, scoring, alike, seed)
        events.append(len(drawn.window))
        whole, known, answers = drawn.answered(drawn.window)
        asked.append(len(answers))
        verdict = drawn.judge(whole, known, answers)
        num_alarms += verdict.verdict == "drift"
        too_few += verdict.verdict == "too_few_events"
        alarms.update(verdict.features)
        for result in verdict.results:
            effects.setdefault((result.feature, result.test), []).append(result.statistic / result.threshold)
        if seed >= num_planted:
            continue
        for name, (shift, strengths) in SHIFTS.items():
            for strength in strengths:
                window = shift(drawn, strength, np.random.default_rng(seed))
                verdict = drawn.judge(*drawn.answered(window))
                found.setdefault(f"{name} {strength:g}", []).append(verdict.features)
        for name, (answer_shift, strengths) in ANSWER_SHIFTS.items():
            for strength in strengths:
                planted = answer_shift(answers, strength, np.random.default_rng(seed))
                verdict = drawn.judge(whole, known, planted)
                found.setdefault(f"{name} {strength:g}", []).append(verdict.features)
    return {
        "events_in_a_window": round(float(np.mean(events))),
        "answers": round(float(np.mean(asked))),
        "false_alarms": {
            "windows": num_windows,
            "not_judged": too_few,
            "alarms": num_alarms,
            "rate": round(num_alarms / num_windows, 4),
            "upper_95": round(float(beta.ppf(0.95, num_alarms + 1, num_windows - num_alarms)), 4),
            "by_feature": dict(sorted(alarms.items())),
        },
        # How near to its threshold a test comes by chance: the 95 % quantile of effect / threshold.
        "effect_by_chance": {
            f"{f} {t}": round(float(np.quantile(v, 0.95)), 3) for (f, t), v in sorted(effects.items())
        },
        "power": {
            name: {
                "windows": len(features),
                "found": sum(bool(one) for one in features),
                "by_feature": dict(Counter(f for one in features for f in one).most_common()),
            }
            for name, features in found.items()
        },
    }


def measured(name: str, num_windows: int, num_planted: int) -> dict[str, Any]:
    began = time.process_time()
    found = measure(SETS[name](), num_windows, num_planted)
    return {**found, "cpu_seconds": round(time.process_time() - began, 1)}
