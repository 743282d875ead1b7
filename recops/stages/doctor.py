"""What works here: versions, devices, memory, disk, the project and its service, each with a verdict."""

import importlib.metadata
import os
import platform
import shutil
import subprocess
from pathlib import Path

from recops.bundle import read_pointer, release_folder, verify
from recops.errors import CallError, RecopsError
from recops.params import ServeParams
from recops.stages.project import Project
from recops.stages.serve import readyz

PACKAGES = ("recops", "torch", "onnxruntime", "bentoml", "prefect", "dvc", "great-expectations", "duckdb", "polars")


def doctor(folder: Path) -> list[tuple[str, str, str]]:
    """Rows of (what, what was found, `yes` or what to do). Raises CallError where there is no such folder."""
    if not folder.is_dir():
        raise CallError(f"{folder}: no such folder")
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
        params = project.params
        rows.append(("params.yaml", f"model {params.train.model}, source {params.source.name}", "yes"))
        rows.append(service(params.serve))
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


def service(settings: ServeParams) -> tuple[str, str, str]:
    """Whether something answers where the service would be."""
    where, code = f"{settings.host}:{settings.port}", readyz(settings)
    if code is None:
        return "service", "not running", "recops serve"
    if code != 200:
        return "service", f"{where} answers {code}", "another program there, or a service that is starting"
    return "service", f"ready at {where}", "yes"
