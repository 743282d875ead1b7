"""Walks the JSON schemas of an OpenAPI document and names their objects. Knows no language: `Language` writes it."""

import json
import re
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Protocol

Schema = dict[str, Any]


class Property(NamedTuple):
    name: str
    type: str
    is_required: bool
    description: str


class Language(Protocol):
    """How types are written; `is_sent`: by the caller, who may then give more kinds of list, object and time."""

    def scalar(self, kind: str) -> str: ...  # string, integer, number, boolean, null, any
    def literal(self, value: Any) -> str: ...
    def time(self) -> str: ...
    def array(self, of: str, is_sent: bool) -> str: ...
    def mapping(self, of: str, is_sent: bool) -> str: ...
    def union(self, parts: list[str]) -> str: ...
    def declaration(self, name: str, description: str, properties: list[Property]) -> str: ...


@dataclass
class Walker:
    """`of` gives the type of a schema; objects with properties are declared on the way, each once and after its
    parts, into `declared`."""

    language: Language
    components: dict[str, Schema]
    declared: dict[str, str] = field(default_factory=dict)
    _name_of: dict[str, str] = field(default_factory=dict)

    def of(self, schema: Schema, name: str, is_sent: bool) -> str:
        """`name` is that of the object the schema may be, or whose parts hold objects."""
        write = self.language
        if "$ref" in schema:
            name = schema["$ref"].rsplit("/", 1)[-1]
            return self._declare(self.components[name], name, is_sent)
        if "const" in schema:
            return write.literal(schema["const"])
        if "enum" in schema:
            return write.union([write.literal(value) for value in schema["enum"]])
        parts = schema.get("anyOf") or schema.get("oneOf")
        if parts:
            # The kinds of an object are told apart by the constant in `type`.
            kinds = [part.get("properties", {}).get("type", {}).get("const", "") for part in parts]
            return self._union([(p, name + camel(kind)) for p, kind in zip(parts, kinds, strict=True)], is_sent)
        kind = schema.get("type", "any")
        if isinstance(kind, list):
            return self._union([({**schema, "type": one}, name) for one in kind], is_sent)
        if kind == "array":
            return write.array(self.of(schema["items"], name, is_sent), is_sent)
        if kind == "object":
            if "properties" in schema:
                return self._declare(schema, name, is_sent)
            values = [*schema.get("patternProperties", {}).values()] or [schema.get("additionalProperties") or {}]
            return write.mapping(self._union([(value, name) for value in values], is_sent), is_sent)
        if schema.get("format") == "date-time" and is_sent:
            return write.time()
        return write.scalar(kind)

    def properties(self, schema: Schema, name: str, is_sent: bool) -> list[Property]:
        return [
            Property(
                key,
                self.of(value, name.removesuffix("Answer") + camel(one_of(key)), is_sent),
                key in schema.get("required", ()),
                described(value),
            )
            for key, value in schema["properties"].items()
        ]

    def _union(self, parts: list[tuple[Schema, str]], is_sent: bool) -> str:
        types = [self.of(schema, name, is_sent) for schema, name in parts]
        return self.language.union([one for i, one in enumerate(types) if one not in types[:i]])

    def _declare(self, schema: Schema, name: str, is_sent: bool) -> str:
        """The name of an object; the first that an equal one was met under."""
        key = json.dumps([is_sent, schema], sort_keys=True)
        if key not in self._name_of:
            if name in self._name_of.values():
                raise ValueError(f"two different objects would be named {name}")
            self._name_of[key] = name
            properties = self.properties(schema, name, is_sent)
            self.declared[name] = self.language.declaration(name, schema.get("description", ""), properties)
        return self._name_of[key]


def described(schema: Schema) -> str:
    """The description of a schema, or of the one kind other than null that it allows."""
    kinds = [kind for kind in schema.get("anyOf", ()) if kind != {"type": "null"}]
    return schema.get("description") or (kinds[0].get("description", "") if len(kinds) == 1 else "")


def camel(name: str) -> str:
    return "".join(word[:1].upper() + word[1:] for word in re.split(r"\W+|_", name))


def one_of(plural: str) -> str:
    return plural.removesuffix("s")
