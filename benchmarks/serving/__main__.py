"""What serving costs: `python -m benchmarks.serving [PART …] [--quick]`. Each part writes results/serving_PART.json.

requests   server CPU a request beside a bare Starlette + ONNX Runtime app: SASRec of random weights, 100,000 items,
           width 64 and 128; rules, history and log of answers one by one; /score of 1,000; a batch (requests.py)
latency    p50 and p99 under an open loop, at shares of capacity (load.py)
catalogue  CPU and memory of one list against the size of the catalogue, 10^4 to 10^7, scored whole and by index;
           vectors grown from those of a trained model (catalogue.py); also a plot
all_users  `recops score-all` beside the matrix product alone (all_users.py)
"""

import argparse

from benchmarks.report import write_results

PARTS = ("requests", "latency", "catalogue", "all_users")


def main() -> None:
    lines = (__doc__ or "").splitlines()
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.serving",
        description="\n".join(lines),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("parts", nargs="*", metavar="PART", help=f"{', '.join(PARTS)}; none: all")
    parser.add_argument("--quick", action="store_true", help="fewer requests and smaller catalogues")
    called = parser.parse_args()
    if unknown := set(called.parts) - set(PARTS):
        parser.error(f"no such part: {', '.join(sorted(unknown))}")
    for part in called.parts or PARTS:
        if part == "catalogue":
            from benchmarks.serving.catalogue import measure
        elif part == "all_users":
            from benchmarks.serving.all_users import measure
        elif part == "latency":
            from benchmarks.serving.requests import latency as measure
        else:
            from benchmarks.serving.requests import measure
        numbers = measure(called.quick)
        print(f"results: {write_results(f'serving_{part}', numbers, called.quick, 'benchmarks.serving')}")


if __name__ == "__main__":
    main()
