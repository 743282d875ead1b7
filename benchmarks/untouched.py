"""What someone gets who edits nothing: `python -m benchmarks.untouched [--quick] [--keep FOLDER]`.

MovieLens-1M as one CSV (user, item, timestamp) without the last film of each user. `recops init`, `recops run` and
`recops serve` with nothing edited; then the service is asked for each user by `user_id` alone, and the list is judged
by the film that was left out. Prints and writes NDCG@10 and hit rate with 95 % intervals over users, and the seconds
that each command took. To reach: NDCG@10 of .190, all within an hour on two cores.

Films and their order are those of the SASRec authors' file (users of five ratings and more); times are as
`benchmarks.quality ml1m_time` puts them.
"""

import argparse
import csv
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from benchmarks.quality.timed import read_sequences
from benchmarks.report import write_results
from recops.ports import free_port

TO_REACH, WITHIN_S, K, USERS_AT_ONCE = 0.190, 3600, 10, 50
QUICK_USERS = 300


def write_log(data: Path, path: Path, quick_users: int | None) -> dict[str, str]:
    """The CSV without each user's last item; returns user to that item."""
    sequences, times = read_sequences(data, quick_users)
    with path.open("w", newline="", encoding="utf-8") as file:
        rows = csv.writer(file)
        rows.writerow(["user", "item", "timestamp"])
        for user, sequence in sequences.items():
            rows.writerows(zip([user] * (len(sequence) - 1), sequence[:-1], times[user].tolist(), strict=False))
    return {user: sequence[-1] for user, sequence in sequences.items()}


def recops(*arguments: str) -> float:
    """Runs one command and returns its seconds; what it printed is shown where it fails."""
    started = time.monotonic()
    subprocess.run([sys.executable, "-m", "recops.cli", *arguments], check=True)
    return time.monotonic() - started


@contextmanager
def served(project: Path) -> Iterator[str]:
    """The address of `recops serve` on the project's promoted release, stopped at the end."""
    port = free_port()
    command = [sys.executable, "-m", "recops.cli", "serve", "-C", str(project), "--port", str(port)]
    service = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    try:
        address = f"http://127.0.0.1:{port}"
        for _ in range(120):
            try:
                urllib.request.urlopen(f"{address}/readyz", timeout=5)
                break
            except (urllib.error.URLError, OSError):
                time.sleep(0.5)
        yield address
    finally:
        service.terminate()
        service.wait(30)


def lists(address: str, users: list[str]) -> Iterator[list[str]]:
    """What the service recommends to each user, known by nothing but the id."""
    for start in range(0, len(users), USERS_AT_ONCE):
        some = users[start : start + USERS_AT_ONCE]
        body = {"requests": [{"user_id": user, "k": K} for user in some]}
        request = urllib.request.Request(
            f"{address}/recommend/batch", json.dumps(body).encode(), {"Content-Type": "application/json"}
        )
        with urllib.request.urlopen(request, timeout=120) as answer:
            for response in json.load(answer)["responses"]:
                yield [item["item_id"] for item in response["items"]]


def interval(values: np.ndarray) -> dict[str, float]:
    """Mean and 95 % bootstrap interval over users."""
    rng = np.random.default_rng(0)
    means = [rng.choice(values, len(values)).mean() for _ in range(1000)]
    low, high = np.quantile(means, [0.025, 0.975])
    return {"mean": float(values.mean()), "low": float(low), "high": float(high)}


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.untouched", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--quick", action="store_true", help=f"{QUICK_USERS} users")
    parser.add_argument("--keep", type=Path, metavar="FOLDER", help="where the project is made and stays")
    arguments = parser.parse_args()
    data = Path(os.environ.get("RECOPS_TEST_DATA", Path(__file__).parents[2] / "shared" / "data"))
    work = arguments.keep or Path(tempfile.mkdtemp(prefix="recops-untouched-"))
    work.mkdir(parents=True, exist_ok=True)
    try:
        project = work / "shop"
        last = write_log(data, work / "ratings.csv", QUICK_USERS if arguments.quick else None)
        seconds = {
            "init": recops("init", str(project), "--events", str(work / "ratings.csv")),
            "run": recops("run", "-C", str(project)),
        }
        started = time.monotonic()
        with served(project) as address:
            found = list(lists(address, list(last)))
        seconds["serve and ask"] = time.monotonic() - started
    finally:
        if not arguments.keep:
            shutil.rmtree(work)
    ranks = [top.index(item) if item in top else None for top, item in zip(found, last.values(), strict=True)]
    numbers = {
        "users": len(last),
        "ndcg@10": interval(np.array([0.0 if rank is None else 1 / np.log2(rank + 2) for rank in ranks])),
        "hit_rate@10": interval(np.array([float(rank is not None) for rank in ranks])),
        "seconds": {**seconds, "all": sum(seconds.values())},
        "to_reach": {"ndcg@10": TO_REACH, "seconds": WITHIN_S},
    }
    print(json.dumps(numbers, indent=2))
    print(write_results("untouched", numbers, arguments.quick))


if __name__ == "__main__":
    main()
