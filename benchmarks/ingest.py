"""Ingest, validate and split of a large log: seconds and peak memory of each stage, one process a stage.

`python -m benchmarks.ingest [--quick] [--rows N]`: 20 million events (quick: 1 million) as CSV with columns
user,item,timestamp, users and items drawn from long-tailed distributions, every 1,000th row spoiled.
"""

import argparse
import json
import os
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import duckdb

from benchmarks.report import write_results

ROOT = Path(__file__).resolve().parent.parent
STAGES = ("ingest", "validate", "split")
LIMIT_S, LIMIT_GB = 90.0, 6.0
PARAMS = """
source:
  name: files
  path: .
  options:
    events:
      path: events.csv
      columns: {user_id: user, item_id: item, timestamp: ts}
      event: click
      timestamp_unit: s
ingest: {events: {click: {signal: positive}}}
split: {name: leave_last_out}
recommend: {remove_seen: false}
"""

# One stage, and the most memory it held (KiB) as the last word it prints.
STAGE = """
import resource, sys
from recops.cli import app
app(sys.argv[1:], standalone_mode=False)
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
"""


def make_project(folder: Path, num_rows: int) -> None:
    """A project whose log has `num_rows` rows: 1 user per 100 rows and 1 item per 400 on average."""
    (folder / "params.yaml").write_text(PARAMS, encoding="utf-8")
    shutil.copytree(ROOT / "expectations", folder / "expectations")
    con = duckdb.connect()
    con.execute("select setseed(0.42)")
    con.execute("set threads = 1")
    con.execute(
        f"""copy (
            select case when i % 1000 = 7 then ''
                        else 'u' || cast(pow(random(), 2) * {num_rows // 100} as bigint) end as user,
                   'i' || cast(pow(random(), 3) * {num_rows // 400} as bigint) as item,
                   1600000000 + cast(i * (31536000.0 / {num_rows}) as bigint) as ts
            from range({num_rows}) t(i)
        ) to '{folder / "events.csv"}' (header)"""
    )


def measure(folder: Path, stage: str) -> dict[str, float]:
    """Wall seconds, CPU seconds and peak memory (GB) of `recops STAGE` as a process of its own."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    started = time.perf_counter()
    command = [sys.executable, "-c", STAGE, stage, "-C", str(folder)]
    done = subprocess.run(command, check=True, capture_output=True, text=True, env=os.environ)
    wall = time.perf_counter() - started
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return {"seconds": wall, "cpu_seconds": cpu, "peak_gb": int(done.stdout.split()[-1]) / 2**20}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="1 million rows")
    parser.add_argument("--rows", type=int, help="rows of the log")
    arguments = parser.parse_args()
    num_rows = arguments.rows or (1_000_000 if arguments.quick else 20_000_000)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        make_project(folder, num_rows)
        figures = {stage: measure(folder, stage) for stage in STAGES}
        counts = json.loads((folder / "data" / "tables" / "counts.json").read_text(encoding="utf-8"))
    total = sum(f["seconds"] for f in figures.values())
    peak = max(f["peak_gb"] for f in figures.values())
    print(f"{'stage':<10}{'seconds':>9}{'CPU s':>9}{'peak GB':>9}")
    for stage, f in figures.items():
        print(f"{stage:<10}{f['seconds']:>9.1f}{f['cpu_seconds']:>9.1f}{f['peak_gb']:>9.2f}")
    print(
        f"{'all':<10}{total:>9.1f}{'':>9}{peak:>9.2f}   (to reach: {LIMIT_S:.0f} s, {LIMIT_GB:.0f} GB for 20 million)"
    )
    print(f"{counts['events']:,} events and {counts['rejected']:,} rejected of {num_rows:,} rows")
    numbers = {"rows": num_rows, "stages": figures, "total_seconds": total, "peak_gb": peak}
    write_results("ingest", {**numbers, "events": counts["events"], "rejected": counts["rejected"]}, arguments.quick)


if __name__ == "__main__":
    main()
