"""Writes `recops.d.ts` and `recops.js` of the TypeScript client. Knows no operation."""

import json
from typing import Any

from clients.methods import Method
from clients.schemas import Property, Schema, Walker, camel

SCALARS = {"integer": "number", "any": "unknown"}  # the others are called the same
MADE = "// Made by `python -m clients` from the service's OpenAPI; not to be changed by hand."


class TypeScript:
    def scalar(self, kind: str) -> str:
        return SCALARS.get(kind, kind)

    def literal(self, value: Any) -> str:
        return json.dumps(value)

    def time(self) -> str:
        return "Date | string"

    def array(self, of: str, is_sent: bool) -> str:
        return f"{'Readonly' * is_sent}Array<{of}>"

    def mapping(self, of: str, is_sent: bool) -> str:
        return f"Record<string, {of}>"

    def union(self, parts: list[str]) -> str:
        return " | ".join(dict.fromkeys(parts))

    def declaration(self, name: str, description: str, properties: list[Property]) -> str:
        lines = [f"/** {description} */"] if description else []
        lines.append(f"export interface {name} {{")
        for p in properties:
            lines += [f"  /** {p.description} */"] if p.description else []
            lines.append(f"  {p.name}{'' if p.is_required else '?'}: {p.type};")
        return "\n".join([*lines, "}\n"])


def written(methods: list[Method], components: dict[str, Schema]) -> tuple[str, str]:
    """Texts of `recops.d.ts` and `recops.js`."""
    walker = Walker(TypeScript(), components)
    declared, made = [], []
    for method in methods:
        answer = "string"
        if method.answer is not None:
            answer = walker.of(method.answer, f"{camel(method.name)}Answer", is_sent=False)
        request, given = "", "undefined"
        if method.given is not None:
            request, given = f"request: {walker.of(method.given, camel(method.name), is_sent=True)}, ", "request"
        note = f"  /** {method.summary}. */"
        declared += [note, f"  {method.name}({request}options?: CallOptions): Promise<{answer}>;"]
        call = json.dumps([method.verb, method.path, method.again, method.answer is None])
        options = "request, options" if request else "options"
        made += [note, f"  {method.name}({options}) {{", f"    return this.call({call}, {given}, options);", "  }"]
    head = [MADE, 'import { CallOptions, Http } from "./http.js";', 'export * from "./http.js";\n']
    declarations = [*head, *walker.declared.values(), "export class Client extends Http {", *declared, "}"]
    module = [
        MADE, 'import { Http } from "./http.js";', 'export * from "./http.js";\n', "export class Client extends Http {",
        *made, "}",
    ]  # fmt: skip
    return "\n".join(declarations) + "\n", "\n".join(module) + "\n"
