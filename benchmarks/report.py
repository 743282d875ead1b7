"""Where the numbers of a benchmark go, and what they say about where they came from.

In: the numbers. Out: `benchmarks/results/NAME.json` with the command, commit and machine beside them. Knows nothing
about what was measured.
"""

import json
import os
import platform
import subprocess
import sys
from pathlib import Path

RESULTS = Path(__file__).parent / "results"


def machine() -> dict:
    """The processor, the cores this process may use, memory in GB, and the versions that times depend on."""
    processor = platform.processor() or platform.machine()
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        names = [line.split(":", 1)[1].strip() for line in cpuinfo.read_text().splitlines() if "model name" in line]
        processor = names[0] if names else processor
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return {
        "processor": processor,
        "cores": cores,
        "memory_gb": round(memory, 1),
        "system": platform.platform(terse=True),
        "python": platform.python_version(),
    }


def commit() -> str | None:
    """The commit checked out, with `+` where files other than results differ from it; None without git or a commit."""

    def git(*arguments: str) -> str:
        called = ["git", *arguments]
        return subprocess.run(called, cwd=RESULTS.parent, capture_output=True, text=True, check=True).stdout.strip()

    try:
        changed = git("status", "--porcelain", "--untracked-files=no", "--", ":/", ":(top,exclude)benchmarks/results")
        return git("rev-parse", "HEAD") + ("+" if changed else "")
    except (OSError, subprocess.CalledProcessError):
        return None


def facts(module: str) -> dict:
    """What made a number: the command that runs `module` as it was called, the commit and the machine."""
    return {
        "command": " ".join(["python", "-m", module, *sys.argv[1:]]),
        "commit": commit(),
        "machine": machine(),
    }


def write_results(name: str, numbers: dict, quick: bool, module: str | None = None) -> Path:
    """Writes `results/NAME.json` (`NAME-quick.json` for the small form) and returns where it lies.

    `module` is what was run, `benchmarks.NAME` where not given.
    """
    RESULTS.mkdir(exist_ok=True)
    path = RESULTS / f"{name}{'-quick' if quick else ''}.json"
    found = {**facts(module or f"benchmarks.{name}"), "numbers": numbers}
    path.write_text(json.dumps(found, indent=2, allow_nan=False) + "\n", encoding="utf-8")
    return path
