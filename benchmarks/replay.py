"""What retraining is worth on real days: `python -m benchmarks.replay [--source S] [--faults] [--keep DIR] [--quick]`.

`recops replay` of a week under each policy: NDCG@10 and HR@10 with 95 % intervals over users, on the same users and
days, and the CPU seconds of training. `--faults` plants one a day into a week that is trained each night, and tells
what the loop said. `--keep` names where it is played, so that a call after a kill goes on. Prints the tables and writes
`results/replay_SOURCE.json` and `.svg`.
"""

import argparse
import os
import shutil
import tempfile
import time
from pathlib import Path

from benchmarks.report import RESULTS, write_results
from recops.stages.replay import Plan, replay, settings_for
from recops.stages.replay_faults import Fault
from recops.stages.replay_policy import POLICIES
from recops.stages.replay_report import COLUMNS, fault_rows, rows
from recops.terminal import print_table

# Folder of the data and the days of a week.
SOURCES = {
    "globo": ("globo-news", 4, 10),
    "kuairand": ("kuairand-pure-part", 5, 11),
    "online_retail": ("online-retail", 300, 313),
    "movielens_small": ("movielens-latest-small", 7000, 7030),
}
FAULTS = ("bots", "renamed", "doubled", "items_gone")
QUICK_USERS, QUICK_DAYS = 500, 2


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.replay", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--source", choices=SOURCES, default="globo")
    parser.add_argument("--policy", action="append", choices=POLICIES, help="all of them where none is named")
    parser.add_argument("--model", help="instead of the one that is fitted at once")
    parser.add_argument("--faults", action="store_true", help="a fault on each day but the last, trained nightly")
    parser.add_argument("--users", type=int, default=5000, help="asked for a day")
    parser.add_argument(
        "--quick", action="store_true", help=f"{QUICK_DAYS} days, {QUICK_USERS} users, never and nightly"
    )
    parser.add_argument("--keep", type=Path, metavar="FOLDER", help="where it is played and stays")
    arguments = parser.parse_args()
    data = Path(os.environ.get("RECOPS_TEST_DATA", Path(__file__).parents[2] / "shared" / "data"))
    name, first, last = SOURCES[arguments.source]
    policies = arguments.policy or (["nightly", "drift"] if arguments.faults else list(POLICIES))
    users, faults = arguments.users, ()
    if arguments.quick:
        last, users, policies = first + QUICK_DAYS - 1, QUICK_USERS, ["never", "nightly"]
    elif arguments.faults:
        # The first night is as it was, so that what drifts in any case is known.
        faults = tuple(Fault(kind, day) for kind, day in zip(FAULTS, range(first + 1, last), strict=False))
    settings = settings_for(arguments.source, data / name, Path(), arguments.model)
    work = arguments.keep or Path(tempfile.mkdtemp(prefix="recops-replay-"))
    started = time.monotonic()
    try:
        found = replay(Plan(settings, first, last, users, faults=faults), policies, work)
        found["seconds"] = round(time.monotonic() - started, 1)
        which = f"replay_{arguments.source}" + (f"_{arguments.model}" if arguments.model else "")
        which += "_faults" if arguments.faults else ""
        print_table(f"{arguments.source}, days {first} to {last}", COLUMNS, rows(found))
        if faults:
            columns = ["fault", "day", "policy", "said", "outcome", "next day against the last good release"]
            print_table("Faults", columns, fault_rows(found))
        path = write_results(which, found, arguments.quick, module="benchmarks.replay")
        if not arguments.quick:
            shutil.copyfile(work / "replay.svg", RESULTS / f"{which}.svg")
        print(path)
    finally:
        if not arguments.keep:
            shutil.rmtree(work)


if __name__ == "__main__":
    main()
