"""The built wheel by itself: a project is made, run and asked with nothing of the checkout in reach.

The environment is new and holds the wheel alone; the libraries it depends on are lent to it by links, since they are
two gigabytes. So this proves that code, templates and entry point are in the wheel and that what its metadata asks for
is what the libraries here satisfy; it does not prove that a resolver would choose the same versions.
"""

import os
import random
import subprocess
import sys
import sysconfig
import venv
from importlib.metadata import version
from pathlib import Path

import pytest
from packaging.requirements import Requirement

ROOT = Path(__file__).resolve().parent.parent
SITE = Path(sysconfig.get_path("purelib"))

pytestmark = pytest.mark.process


@pytest.fixture(scope="module")
def environment(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A new environment with the wheel, away from the checkout."""
    folder = tmp_path_factory.mktemp("away")
    run(sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", folder / "dist", ROOT)
    (wheel,) = (folder / "dist").glob("*.whl")
    venv.create(folder / "env", symlinks=True)
    python = folder / "env" / "bin" / "python"
    run(sys.executable, "-m", "pip", "--python", python, "install", "--no-deps", "--no-index", wheel)
    lent = folder / "lent"
    lent.mkdir()
    for entry in SITE.iterdir():
        if "recops" not in entry.name and entry.suffix != ".pth":
            (lent / entry.name).symlink_to(entry)
    (site,) = (folder / "env").glob("lib/python*/site-packages")
    (site / "lent.pth").write_text(f"{lent}\n")
    return folder


def run(*command: str | Path, cwd: Path | None = None) -> str:
    clean = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "VIRTUAL_ENV")}
    clean["OMP_NUM_THREADS"] = "1"
    done = subprocess.run(list(map(str, command)), cwd=cwd, env=clean, capture_output=True, text=True, timeout=400)
    assert done.returncode == 0, f"{command}: {done.stdout}\n{done.stderr}"
    return done.stdout


def test_the_wheel_s_own_code_and_all_its_files_are_used(environment: Path) -> None:
    python = environment / "env" / "bin" / "python"
    asked = "import recops, flows; print(recops.__file__); print(flows.__file__)"
    for line in run(python, "-c", asked, cwd=environment).splitlines():
        assert line.startswith(str(environment / "env"))
    package = next((environment / "env").glob("lib/python*/site-packages/recops"))
    here = {file.relative_to(ROOT / "recops") for file in (ROOT / "recops").rglob("*.py")}
    assert {file.relative_to(package) for file in package.rglob("*.py")} == here
    assert {"dvc.yaml", "params.yaml", "expectations"} <= {file.name for file in (package / "templates").iterdir()}


def test_what_the_wheel_asks_for_is_what_it_was_tested_with(environment: Path) -> None:
    python = environment / "env" / "bin" / "python"
    asked = "from importlib.metadata import requires; print('\\n'.join(requires('recops')))"
    needed = [Requirement(line) for line in run(python, "-c", asked).splitlines()]
    base = [need for need in needed if need.marker is None]
    assert len(base) > 15
    for need in base:
        assert need.specifier.contains(version(need.name)), need


def test_a_project_is_made_run_and_asked(environment: Path) -> None:
    source = random.Random(0)
    rows = [f"u{source.randrange(60):02d};i{source.randrange(80):02d};{1700000000 + 3600 * n}" for n in range(1200)]
    (environment / "events.csv").write_text("\n".join(["user;item;ts", *rows, ""]))
    recops = environment / "env" / "bin" / "recops"
    run(recops, "init", "shop", "--events", "events.csv", cwd=environment)
    params = environment / "shop" / "params.yaml"
    params.write_text(params.read_text().replace("model: rerank", "model: item_knn"))
    assert "Served" in run(recops, "run", "-C", "shop", cwd=environment)
    assert "i" in run(recops, "recommend", "-C", "shop", "--user", "u07", "-k", "3", cwd=environment)
    assert "source" in run(recops, "recommend", "-C", "shop", "--user", "nobody", "-k", "3", cwd=environment)
