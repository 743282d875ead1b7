"""Writes `types.py` and `operations.py` of the Python client. Knows no operation."""

import keyword
import re
from textwrap import wrap
from typing import Any

from clients.methods import Method
from clients.schemas import Property, Schema, Walker, camel

SCALARS = {"string": "str", "integer": "int", "number": "float", "boolean": "bool", "null": "None", "any": "Any"}
MADE = "Made by `python -m clients` from the service's OpenAPI; not to be changed by hand."
TYPES = f'''"""What calls are told and what they answer.

{MADE}
"""

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, Literal, NotRequired, TypedDict
'''
OPERATIONS = f'''"""The calls of the service as methods.

{MADE}
"""

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from recops.client import types
from recops.client.call import AsyncCaller, Call, Caller
'''


class Python:
    def scalar(self, kind: str) -> str:
        return SCALARS[kind]

    def literal(self, value: Any) -> str:
        return f"Literal[{value!r}]"

    def time(self) -> str:
        return "datetime | str"

    def array(self, of: str, is_sent: bool) -> str:
        return f"Sequence[{of}]" if is_sent else f"list[{of}]"

    def mapping(self, of: str, is_sent: bool) -> str:
        return f"Mapping[str, {of}]" if is_sent else f"dict[str, {of}]"

    def union(self, parts: list[str]) -> str:
        """None last, constants in one Literal."""
        constants = [part for part in parts if part.startswith("Literal[")]
        if len(constants) == len(parts):
            return f"Literal[{', '.join(part[8:-1] for part in constants)}]"
        return " | ".join(sorted(parts, key=lambda part: part == "None"))

    def declaration(self, name: str, description: str, properties: list[Property]) -> str:
        fields = [(p, p.type if p.is_required else f"NotRequired[{p.type}]") for p in properties]
        if any(keyword.iskeyword(p.name) for p in properties):
            pairs = ", ".join(f"{p.name!r}: {kind}" for p, kind in fields)
            return f"{name} = TypedDict({name!r}, {{{pairs}}})"
        lines = [f"class {name}(TypedDict):"]
        if description:
            lines += [f'    """{description}"""', ""]
        for p, kind in fields:
            lines += [f"    # {line}" for line in wrap(p.description, 110)]
            lines.append(f"    {p.name}: {kind}")
        return "\n".join(lines)


def written(methods: list[Method], components: dict[str, Schema]) -> tuple[str, str]:
    """Texts of `types.py` and `operations.py`, not yet formatted."""
    walker = Walker(Python(), components)
    constants, sync, asynchronous = [], [], []
    for method in methods:
        answer = "str"
        if method.answer is not None:
            answer = walker.of(method.answer, f"{camel(method.name)}Answer", is_sent=False)
        answer, constant = _qualified(answer, walker), method.name.upper()
        text = ", is_text=True" if method.answer is None else ""
        words = f"{method.verb!r}, {method.path!r}, {method.again!r}{text}"
        constants.append(f"{constant}: Call[{answer}] = Call({words})")
        head, doc, given = _body(method, components, walker)
        call = f"self._call({constant}, {given}, timeout_s)\n"
        sync.append(f"    def {method.name}{head} -> {answer}:\n{doc}\n        return {call}")
        asynchronous.append(f"    async def {method.name}{head} -> {answer}:\n{doc}\n        return await {call}")
    heads = "\n\nclass Operations(Caller):", "\n\nclass AsyncOperations(AsyncCaller):"
    operations = [OPERATIONS, *constants, heads[0], *sync, heads[1], *asynchronous]
    return "\n\n".join([TYPES, *walker.declared.values()]), "\n".join(operations)


def _body(method: Method, components: dict[str, Schema], walker: Walker) -> tuple[str, str, str]:
    """Parameters, docstring and what is given to `_call`. What must be given comes first and may go unnamed."""
    given = method.given or {"properties": {}}
    if "$ref" in given:
        given = components[given["$ref"].rsplit("/", 1)[-1]]
    needed, other, notes = [], ["timeout_s: float | None = None"], []
    for p in walker.properties(given, camel(method.name), is_sent=True):
        kind = _qualified(p.type, walker)
        if p.is_required:
            needed.append(f"{p.name}: {kind}")
        else:
            other.insert(-1, f"{p.name}: {kind if kind.endswith('None') else f'{kind} | None'} = None")
        if p.description:
            notes.append(f"{p.name}: {p.description}")
    head = f"({', '.join(['self', *needed, '*', *other])},)"
    lines = [line for note in notes for line in wrap(note, 110, subsequent_indent="    ")]
    text = [*wrap(f"{method.summary}.", 110), *([""] if lines else []), *lines]
    doc = f'        """{text[0]}' + "".join(f"\n        {line}".rstrip(" ") for line in text[1:])
    doc += '\n        """' if len(text) > 1 else '"""'
    names = ", ".join(f"{name!r}: {name}" for name in given["properties"])
    return head, doc, f"{{{names}}}"


def _qualified(kind: str, walker: Walker) -> str:
    """With the module before the names of our own types."""
    return re.sub(r"(?<![\w'\"])([A-Z]\w+)", lambda m: f"types.{m[1]}" if m[1] in walker.declared else m[1], kind)
