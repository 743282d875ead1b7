"""Builds the Bento: the service's code and one bundle in BentoML's own format, served anywhere by `bentoml serve`.

In: a bundle folder and the environment of the project, whose BENTOML_HOME receives the Bento. Out: its tag. Everything
that goes in, and what must be installed to serve it, stands in bentofile.yaml.
"""

import shutil
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path

import recops
from recops.bundle import bundle_id, verify
from recops.errors import RefusedError

NAME = "recops"
PACKAGE = Path(recops.__file__).resolve().parent
VERSION_LENGTH = 32  # of the release id's 64 hex digits; BentoML allows 63


def bento_tag(release: str) -> str:
    """The tag under which the Bento of a release is built."""
    return f"{NAME}:{release[:VERSION_LENGTH]}"


def bento_folder(release: str, environment: Mapping[str, str]) -> Path:
    """Where the Bento of a release lies once it is built: the folder that its image is built from."""
    return Path(environment["BENTOML_HOME"]) / "bentos" / NAME / release[:VERSION_LENGTH]


def bentofile() -> Path:
    """bentofile.yaml of the checkout, or the copy that the wheel carries."""
    beside = PACKAGE.parent / "bentofile.yaml"
    return beside if beside.is_file() else PACKAGE / "templates" / "bentofile.yaml"


def build_bento(bundle: Path, environment: Mapping[str, str], labels: Mapping[str, str]) -> str:
    """Builds, or builds anew, the Bento of a bundle and returns its tag, such as `recops:0123…`.

    Raises BundleError for a bundle that is not whole and RefusedError with BentoML's own words when it will not build.
    """
    verify(bundle)
    release = bundle_id(bundle)
    tag = bento_tag(release)
    Path(environment["BENTOML_HOME"]).mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="recops-bento-") as context:
        root = Path(context)
        shutil.copytree(PACKAGE, root / "recops", ignore=shutil.ignore_patterns("__pycache__"))
        shutil.copytree(bundle, root / "bundle")
        shutil.copy(bentofile(), root / "bentofile.yaml")
        if bento_folder(release, environment).exists():
            _bentoml(["delete", "--yes", tag], root, environment)
        options = [option for name, value in labels.items() for option in ("--label", f"{name}={value}")]
        _bentoml(["build", ".", "--version", tag.partition(":")[2], "--output", "tag", *options], root, environment)
    return tag


def _bentoml(arguments: list[str], folder: Path, environment: Mapping[str, str]) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "bentoml", *arguments],
        cwd=folder,
        env={**environment, "BENTOML_DO_NOT_TRACK": "True"},
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode != 0:
        raise RefusedError(f"bentoml {arguments[0]} failed: {(done.stderr or done.stdout).strip()[-2000:]}")
