"""How often drift is called where nothing moved, and how often a planted shift is found.

`python -m benchmarks.drift [SET ...] [--quick]` prints the tables and writes results/drift.json. Real logs
(MovieLens-1M, Online Retail), windows of a week and of a day, a release of the model `spectral` fitted on all but the
last week before a cut.

Without a shift: the users are divided by chance. One half is the log that the reference profile is made of; the window
are users of the other half who were active in the reference's last week (day), with all they ever did, moved on by a
week so that the window follows the reference. So no event stands on both sides. In both the release is asked just
before some of their events, and judged by what came within six hours. A window is a false alarm when any feature
drifts. Planted: the same windows with a shift in their events or answers.
"""

import os

if __name__ == "__main__":
    # Read when the libraries load, which the imports below do.
    os.environ |= dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")

import argparse
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from typing import Any

from benchmarks.drift.drawn import SETS
from benchmarks.drift.measuring import measured
from benchmarks.report import write_results

WINDOWS, PLANTED = 60, 5
QUICK = 4


def show(name: str, numbers: dict[str, Any]) -> None:
    false = numbers["false_alarms"]
    print(f"\n{name}: windows of about {numbers['events_in_a_window']} events, {numbers['answers']} answers")
    print(
        f"  no shift            {false['alarms']} of {false['windows']} windows called drift "
        f"(at most {false['upper_95']:.1%} with 95 % confidence) {false['by_feature'] or ''}"
    )
    for shift, power in numbers["power"].items():
        features = ", ".join(f"{feature} {count}" for feature, count in power["by_feature"].items())
        print(f"  {shift:22}{power['found']:3} of {power['windows']}   {features}")
    near = sorted(numbers["effect_by_chance"].items(), key=lambda one: -one[1])[:8]
    print("  nearest to their thresholds by chance:", ", ".join(f"{test} {share:.2f}" for test, share in near))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("sets", nargs="*", choices=[[], *SETS], default=[], metavar="SET")
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--windows", type=int, default=WINDOWS, help="without a shift, of each set")
    parser.add_argument("--planted", type=int, default=PLANTED, help="of these, windows that each shift is planted in")
    arguments = parser.parse_args()
    windows, planted = (QUICK, 1) if arguments.quick else (arguments.windows, arguments.planted)
    numbers: dict[str, Any] = {}
    names = arguments.sets or (["retail week"] if arguments.quick else list(SETS))
    with ProcessPoolExecutor(min(len(names), os.cpu_count() or 1), mp_context=get_context("spawn")) as processes:
        found = processes.map(measured, names, [windows] * len(names), [planted] * len(names))
        for name, one in zip(names, found, strict=True):
            numbers[name] = one
            show(name, one)
    print(f"wrote {write_results('drift', numbers, arguments.quick)}")


if __name__ == "__main__":
    main()
