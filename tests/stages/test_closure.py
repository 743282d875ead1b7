"""The code a stage depends on is what its module reaches, found without importing anything."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

from recops.stages import closure


def names(stage: str) -> set[str]:
    return {path.relative_to(closure.PACKAGE).as_posix() for path in closure.import_closure(stage)}


def test_sockets_are_reached_whole_and_imports_inside_functions_count() -> None:
    assert {"stages/train.py", "models/sasrec.py", "models/item_knn.py", "training/loop.py"} <= names("train")
    assert {"data/sources/movielens.py", "data/sources/_text.py"} <= names("ingest")


def test_a_stage_does_not_depend_on_what_it_does_not_reach() -> None:
    assert not [name for name in names("ingest") if name.startswith(("models/", "serving/", "training/"))]
    assert not [name for name in names("train") if name.startswith(("serving/", "data/sources/"))]


def test_the_bento_s_code_is_what_package_depends_on() -> None:
    assert {"serving/service.py", "serving/endpoints/recommend.py", "store/__init__.py", "runtime.py"} <= names(
        "package"
    )
    assert not [name for name in names("package") if name.startswith(("models/", "training/"))]


def test_files_that_hold_nothing_are_left_out() -> None:
    assert not {"__init__.py", "data/__init__.py", "models/__init__.py"} & names("train")


def test_what_only_type_checkers_read_is_not_executed() -> None:
    tree = ast.parse("if TYPE_CHECKING:\n    import a\nelse:\n    import b\nif other:\n    import c\n")
    found = [n.names[0].name for n in closure.executed(tree) if isinstance(n, ast.Import)]
    assert found == ["b", "c"]


@pytest.mark.parametrize("stage", ["ingest", "export", "package"])
def test_every_module_that_a_stage_loads_at_import_is_in_its_closure(stage: str) -> None:
    """The other way round: Python itself says which files it read."""
    code = (
        f"import sys, recops.stages.{stage}; "
        "print('\\n'.join(m.__file__ for n, m in sys.modules.items() if n.split('.')[0] == 'recops'))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    loaded = {Path(line) for line in done.stdout.split()}
    reached = set(closure.import_closure(stage))
    assert {file for file in loaded - reached if file.stat().st_size} <= {closure.PACKAGE / "__init__.py"}


def test_a_folder_reached_whole_stands_for_its_files() -> None:
    deps = closure.code_deps("train")
    assert "recops/models" in deps
    assert not [dep for dep in deps if dep.startswith("recops/models/")]
    assert "recops/data" not in deps


def test_the_text_of_the_map_keeps_data_settings_and_remarks() -> None:
    text = "# a\nstages:\n  encode:\n    cmd: recops encode\n    deps: [data/x,\n      recops/gone.py]\n"
    text += "    params: [encode]\n"
    renewed = closure.with_code(text)
    assert renewed.startswith("# a\nstages:\n  encode:\n    cmd: recops encode\n    deps: [data/x,\n      recops/")
    assert renewed.endswith("]\n    params: [encode]\n")
    assert "recops/gone.py" not in renewed
    assert "recops/stages/encode.py" in renewed
    assert closure.with_code(renewed) == renewed


def test_the_hash_is_of_the_files_content(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package = tmp_path / "recops"
    (package / "stages").mkdir(parents=True)
    (package / "stages" / "split.py").write_text("import recops.maths\n")
    (package / "maths.py").write_text("x = 1\n")
    (package / "other.py").write_text("x = 1\n")
    monkeypatch.setattr(closure, "PACKAGE", package)
    closure.imported_files.cache_clear()
    first = closure.code_hash("split")
    (package / "other.py").write_text("x = 2\n")
    assert closure.code_hash("split") == first
    (package / "maths.py").write_text("x = 2\n")
    assert closure.code_hash("split") != first
    closure.imported_files.cache_clear()


def test_refresh_writes_only_what_has_changed(tmp_path: Path) -> None:
    path = tmp_path / "code.yaml"
    closure.refresh(path, ["split"])
    before = path.stat().st_mtime_ns
    closure.refresh(path, ["split"])
    assert path.stat().st_mtime_ns == before
    path.write_text("split: old\n")
    closure.refresh(path, ["split"])
    assert f"split: {closure.code_hash('split')}\n" in path.read_text()
