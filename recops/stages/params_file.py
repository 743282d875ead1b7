"""Changes single values of params.yaml and leaves every other byte, comments included, as it is.

In: a file, the keys that lead to a group, and its new values. Out: the same file, replaced by rename. Where values go
is told by the marks of PyYAML's nodes; what came of it is read again before anything is written.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from recops.bundle import write_atomically
from recops.errors import CallError


def set_values(path: Path, group: Sequence[str], values: Mapping[str, Any]) -> None:
    """Sets `values` in the group that the keys `group` lead to, which is made where there is none.

    Raises CallError, and changes nothing, where the file has no place for them: a group that is no group, or that
    shares its text with another (an anchor).
    """
    text = path.read_text(encoding="utf-8")
    wanted = yaml.safe_load(text) or {}
    place = wanted
    for key in group:
        held = place.get(key) or {}
        if not isinstance(held, dict):
            raise CallError(f"{path}: {'.'.join(group)}: expected settings at {key}, found {held!r}")
        place[key] = dict(held)  # a copy: groups with an anchor are one and the same object
        place = place[key]
    place.update(values)
    for key, value in values.items():
        text = _with_value(text, [*group, key], value)
    try:
        written = yaml.safe_load(text)
    except yaml.YAMLError:
        written = None
    if written != wanted:
        told = ", ".join(f"{key}: {_flow(value)}" for key, value in values.items())
        raise CallError(f"{path}: cannot be changed in one place alone; set it by hand: {'.'.join(group)}: {{{told}}}")
    write_atomically(path, text)


def _with_value(text: str, keys: list[str], value: Any) -> str:
    """The text with one value replaced, or added as the last of its group."""
    node = yaml.compose(text, Loader=yaml.SafeLoader)
    rest = list(keys)
    while rest and isinstance(node, yaml.MappingNode):
        found = [held for key, held in node.value if key.value == rest[0]]
        if not found:
            break
        node = found[-1]
        rest.pop(0)
    for key in reversed(rest[1:]):
        value = {key: value}
    if node is None:
        return f"{text}{'' if text.endswith(chr(10)) or not text else chr(10)}{rest[0]}: {_flow(value)}\n"
    if rest and isinstance(node, yaml.MappingNode) and node.value:
        entry = f"{rest[0]}: {_flow(value)}"
        if node.flow_style:
            at = node.value[-1][1].end_mark.index
            return f"{text[:at]}, {entry}{text[at:]}"
        last = node.value[-1][1]
        while isinstance(last, yaml.CollectionNode) and not last.flow_style and last.value:
            last = last.value[-1][1] if isinstance(last, yaml.MappingNode) else last.value[-1]
        at = text.find("\n", last.end_mark.index)
        at = len(text) if at < 0 else at
        return f"{text[:at]}\n{' ' * node.start_mark.column}{entry}{text[at:]}"
    if rest:
        value = {rest[0]: value}
    start, end = node.start_mark.index, node.end_mark.index
    space = " " if text[start - 1 : start] == ":" else ""
    return f"{text[:start]}{space}{_flow(value)}{text[end:]}"


def _flow(value: Any) -> str:
    """A value on one line of YAML."""
    return yaml.safe_dump([value], default_flow_style=True, width=float("inf"), allow_unicode=True, sort_keys=False)[
        1:-2
    ]
