"""Finds the files of a socket: a folder whose every file is one interchangeable part.

The file `recops/models/item_knn.py` holds the class `ItemKnn` and is named `item_knn` in params.yaml. Nothing has to
be registered: adding the file is adding the part. Knows nothing about what the parts do (see protocols.py).
"""

import importlib
import pkgutil
from types import ModuleType
from typing import Any

from recops.errors import CallError


def names(socket: str) -> list[str]:
    """Names of all parts of a socket such as `models` or `data.sources`, sorted; folders and files named `_…` are
    none."""
    package = importlib.import_module(f"recops.{socket}")
    return sorted(m.name for m in pkgutil.iter_modules(package.__path__) if not m.ispkg and not m.name.startswith("_"))


def load_module(socket: str, name: str) -> ModuleType:
    """The module of one part. Raises CallError with the names there are when `name` is unknown."""
    known = names(socket)
    if name not in known:
        raise CallError(f"no {socket} named {name!r}: there are {', '.join(known)}")
    return importlib.import_module(f"recops.{socket}.{name}")


def load(socket: str, name: str) -> Any:
    """The class of one part: the file's name in CamelCase."""
    module = load_module(socket, name)
    return getattr(module, "".join(word.capitalize() for word in name.split("_")))
