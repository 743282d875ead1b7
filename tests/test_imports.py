"""Imports run one way, each heavy library has one door, and the command line loads nothing heavy to show its help."""

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
HEAVY = (
    "torch",
    "prefect",
    "dvc",
    "bentoml",
    "great_expectations",
    "onnxruntime",
    "pandas",
    "polars",
    "duckdb",
    "scipy",
)


def test_the_rules_of_pyproject_hold() -> None:
    lint = [Path(sys.executable).parent / "lint-imports", "--no-cache"]
    done = subprocess.run(lint, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout


def test_help_loads_nothing_heavy() -> None:
    code = f"import sys, recops.cli; print([name for name in {HEAVY} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"
