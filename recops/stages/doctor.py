"""What works here: versions, devices, memory, disk and the state of the project, each with a verdict."""

import importlib.metadata
import os
import platform
import shutil
import subprocess
from pathlib import Path

from recops.bundle import read_pointer, release_folder, verify
from recops.errors import RecopsError
from recops.stages.project import Project

PACKAGES = ("recops", "torch", "onnxruntime", "bentoml", "prefect", "dvc", "great-expectations", "duckdb", "polars")


def doctor(folder: Path) -> list[tuple[str, str, str]]:
    """Rows of (what, what was found, `yes` or what to do)."""
    rows = [("python", platform.python_version(), "yes")]
    for name in PACKAGES:
        try:
            rows.append((name, importlib.metadata.version(name), "yes"))
        except importlib.metadata.PackageNotFoundError:
            rows.append((name, "missing", "pip install recops"))
    import torch

    cuda = torch.cuda.is_available()
    rows.append(("device", torch.cuda.get_device_name(0) if cuda else "CPU only", "yes"))
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    rows.append(("memory", f"{memory:.0f} GB, {os.cpu_count()} cores", "yes" if memory >= 3 else "needs 3 GB"))
    free = shutil.disk_usage(folder).free / 2**30
    rows.append(("disk", f"{free:.0f} GB free", "yes" if free >= 2 else "free 2 GB"))
    git = shutil.which("git")
    found = subprocess.run([git, "--version"], capture_output=True, text=True).stdout.strip() if git else "missing"
    rows.append(("git", found, "yes" if git else "optional: commits are then null"))
    project = Project(folder.resolve())
    try:
        rows.append(("params.yaml", f"model {project.params.train.model}, source {project.params.source.name}", "yes"))
    except RecopsError as error:
        rows.append(("params.yaml", "not usable", str(error)))
    try:
        pointer = read_pointer(project.releases)
        if pointer is None:
            rows.append(("release", "none yet", "recops run"))
        else:
            verify(release_folder(project.releases, pointer.release))
            rows.append(("release", pointer.release[:12], "yes"))
    except RecopsError as error:
        rows.append(("release", "damaged", str(error)))
    return rows
