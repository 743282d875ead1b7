"""The rules of the service: the files of `rules/`, the fields that they give to calls, and the rules file.

In: a YAML or JSON file of values by name of the rule. Out: `Rules`, which says what holds for one call. Knows nothing
about HTTP, and nothing about what a rule does (protocols.py, `Rule`).
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from weakref import WeakKeyDictionary

import numpy as np
import yaml
from pydantic import ValidationError, create_model

from recops import plugins
from recops.errors import CallError
from recops.protocols import STEPS
from recops.serving.fields import Strict
from recops.serving.occasion import Occasion
from recops.serving.release import Release

RULES: dict[str, Any] = {name: plugins.load("serving.rules", name)() for name in plugins.names("serving.rules")}
FILTERS = {name: rule for name, rule in RULES.items() if rule.step == "filter"}
MOVERS = {name: rule for name, rule in RULES.items() if rule.step != "filter"}
# In which movers follow each other where the file says nothing else: by step, then by name.
ORDER = tuple(sorted(MOVERS, key=lambda name: (STEPS.index(MOVERS[name].step), name)))
OF_FILE = "rules."  # begins what `hidden` calls a filter of the rules file
_ALWAYS = [(name, rule) for name, rule in FILTERS.items() if not rule.where]
_OF_REQUEST = [(name, rule) for name, rule in FILTERS.items() if "request" in rule.where]
_OF_FILTERS = [(name, rule) for name, rule in FILTERS.items() if "filters" in rule.where]
_MOVERS_OF_REQUEST = tuple(name for name in ORDER if "request" in MOVERS[name].where)


def fields(where: str, *, moves: bool = True) -> dict[str, Any]:
    """What a model has to hold so that `where` can give values to rules; not `moves`: to filters alone."""
    rules = RULES if moves else FILTERS
    return {name: (rule.Value | None, None) for name, rule in rules.items() if where in rule.where}


class _File(create_model("_Fields", __base__=Strict, **fields("file"))):  # type: ignore[misc]
    order: list[str] | None = None


@dataclass(frozen=True)
class Rules:
    """What a rules file says: `filters` and `movers`, pairs of name and value, movers in their order (`order` names all
    there are)."""

    filters: tuple[tuple[str, Any], ...] = ()
    movers: tuple[tuple[str, Any], ...] = ()
    order: tuple[str, ...] = ORDER
    _kept: WeakKeyDictionary[Release, dict[str, np.ndarray]] = field(
        default_factory=WeakKeyDictionary, repr=False, compare=False
    )

    def hidden(self, request: Any, occasion: Occasion) -> dict[str, np.ndarray]:
        """Items that are not shown, bool [N+1] or int64 rows, by what keeps them away: `seen`, `disliked`, the field of
        `request` (`exclude`, `filters.price`), or the key of the rules file (`rules.available`)."""
        found = dict(self._standing(occasion)) if self.filters else {}
        for name, rule in _ALWAYS:
            if (mask := rule.hidden(True, occasion)) is not None:
                found[name] = mask
        for name, rule in _OF_REQUEST:
            if value := getattr(request, name):
                found[name] = rule.hidden(value, occasion)
        if (filters := request.filters) is not None:
            for name, rule in _OF_FILTERS:
                if (value := getattr(filters, name)) is not None:
                    found[f"filters.{name}"] = rule.hidden(value, occasion)
        return found

    def lacking(self, release: Release) -> list[str]:
        """Ids of items that the file names and the release does not have; to rules they are nothing."""
        given = ((RULES[name], value) for name, value in (*self.filters, *self.movers))
        named = (item_id for rule, value in given if hasattr(rule, "named") for item_id in rule.named(value))
        return [item_id for item_id in dict.fromkeys(named) if item_id not in release.row_of]

    def _standing(self, occasion: Occasion) -> dict[str, np.ndarray]:
        """Of the file alone. Masks that depend on the release alone are made once for each."""
        kept = self._kept.get(occasion.release)
        if kept is None:
            lasting = {name: value for name, value in self.filters if FILTERS[name].is_lasting}
            kept = self._kept[occasion.release] = _masks(lasting, occasion)
        passing = {name: value for name, value in self.filters if not FILTERS[name].is_lasting}
        return {**kept, **_masks(passing, occasion)} if passing else kept

    def moving(self, request: Any) -> tuple[tuple[str, Any], ...]:
        """The movers of one call: those of the file, with what the call asks for instead."""
        values = None
        for name in _MOVERS_OF_REQUEST:
            if (value := getattr(request, name)) is not None:
                values = values or dict(self.movers)
                values[name] = value
        if values is None:
            return self.movers
        return tuple((name, values[name]) for name in self.order if values.get(name))


def _masks(values: Mapping[str, Any], occasion: Occasion) -> dict[str, np.ndarray]:
    return {f"{OF_FILE}{name}": FILTERS[name].hidden(value, occasion) for name, value in values.items()}


NO_RULES = Rules()


def read_rules(path: Path | None) -> Rules:
    """The rules of a YAML or JSON file; none without one. Raises CallError naming the file, each key that is wrong and
    what was found there."""
    if path is None:
        return NO_RULES
    try:
        text = path.read_text(encoding="utf-8")
        values = json.loads(text, object_pairs_hook=_once) if path.suffix == ".json" else yaml.load(text, _Loader)
    except FileNotFoundError:
        raise CallError(f"{path}: no such file of rules") from None
    except (OSError, UnicodeDecodeError, ValueError, RecursionError, yaml.YAMLError) as error:
        raise CallError(f"{path}: not readable: {error}") from None
    return rules_of({} if values is None else values, path)


def rules_of(values: Any, path: Path) -> Rules:
    """The rules that stand in `path` as `values`, by name. Raises CallError as `read_rules` does."""
    if not isinstance(values, dict):
        raise CallError(f"{path}: expected rules by name, found {type(values).__name__}")
    try:
        told = _File.model_validate(values)
    except ValidationError as error:
        raise CallError(f"{path}: {'; '.join(map(_told, error.errors(include_url=False)))}") from None
    given = {name: value for name in RULES if (value := getattr(told, name, None)) is not None}
    order = _ordered(path, told.order or [])
    return Rules(
        filters=tuple((name, value) for name, value in given.items() if name in FILTERS),
        movers=tuple((name, given[name]) for name in order if given.get(name)),
        order=order,
    )


def _ordered(path: Path, named: list[str]) -> tuple[str, ...]:
    """All movers, those that are named in that order."""
    for place, name in enumerate(named):
        if name not in MOVERS:
            raise CallError(f"{path}: order[{place}]: expected one of {', '.join(ORDER)} (found {name!r})")
        if name in named[:place]:
            raise CallError(f"{path}: order[{place}]: {name!r} stands twice")
        if place and STEPS.index(MOVERS[name].step) < STEPS.index(MOVERS[named[place - 1]].step):
            before = named[place - 1]
            raise CallError(
                f"{path}: order[{place}]: {name!r} cannot come after {before!r}: steps are {', '.join(STEPS[1:])}, and "
                f"{before!r} is of {MOVERS[before].step!r}, {name!r} of {MOVERS[name].step!r}"
            )
    place_of = {name: place for place, name in enumerate(named)}
    return tuple(sorted(ORDER, key=lambda name: (STEPS.index(MOVERS[name].step), place_of.get(name, len(named)))))


def _told(error: Any) -> str:
    """`boost[0].factor: Input should be greater than 1 (found 0.5)`."""
    place = ""
    for part in error["loc"]:
        place += f"[{part}]" if isinstance(part, int) else f".{part}"
    found = "" if error["type"] == "missing" else f" (found {error['input']!r})"[:200]
    if error["type"] == "extra_forbidden" and len(error["loc"]) == 1:
        return f"{place[1:]}: no such rule; there are {', '.join(_File.model_fields)}"
    if error["type"] == "string_type" and isinstance(error["input"], int | float):
        found += "; in quotes it is text"
    return f"{place[1:] or 'rules'}: {error['msg'].removeprefix('Value error, ')}{found}"


def _once(pairs: list[tuple[Any, Any]]) -> dict[Any, Any]:
    value = dict(pairs)
    if len(value) != len(pairs):
        names = [name for name, _ in pairs]
        raise ValueError(f"the key {next(n for n in names if names.count(n) > 1)!r} stands twice")
    return value


class _Loader(yaml.SafeLoader):
    """YAML whose times stay text, so that a zone is asked for as in a call, and whose keys stand once."""

    yaml_implicit_resolvers = {
        first: [(tag, pattern) for tag, pattern in resolvers if tag != "tag:yaml.org,2002:timestamp"]
        for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }

    def construct_mapping(self, node: Any, deep: bool = False) -> dict[Any, Any]:
        self.flatten_mapping(node)
        if not all(isinstance(key, yaml.ScalarNode) for key, _ in node.value):
            raise ValueError("a name is not text")
        pairs = (
            (self.construct_object(key, deep=True), self.construct_object(value, deep)) for key, value in node.value
        )
        return _once(list(pairs))
