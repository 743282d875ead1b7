"""What both clients take from the service's OpenAPI: types and methods.

Out: the text of each generated file. `python -m clients` writes them; a test compares them with what is there.
"""

import subprocess
import sys
from pathlib import Path
from typing import Any

from clients import python, typescript
from clients.methods import methods

ROOT = Path(__file__).resolve().parent.parent
PYTHON, TYPESCRIPT = ROOT / "recops" / "client", ROOT / "clients" / "typescript"


def generated(description: dict[str, Any]) -> dict[Path, str]:
    """Each generated file's path and text."""
    components, every = description["components"]["schemas"], methods(description)
    types, calls = python.written(every, components)
    declarations, module = typescript.written(every, components)
    return {
        PYTHON / "types.py": _formatted(types),
        PYTHON / "operations.py": _formatted(calls),
        TYPESCRIPT / "recops.d.ts": declarations,
        TYPESCRIPT / "recops.js": module,
    }


def _formatted(code: str) -> str:
    """As `make check` wants it: imports that are used, in order."""
    for words in (["check", "--select", "I,F401", "--fix", "--quiet"], ["format"]):
        command = [sys.executable, "-m", "ruff", *words, "--stdin-filename", str(PYTHON / "types.py"), "-"]
        code = subprocess.run(command, input=code, capture_output=True, text=True, check=True, cwd=ROOT).stdout
    return code
