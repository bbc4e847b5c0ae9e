"""Whether a JSON value follows a JSON Schema: the part of it that structured output of models uses."""

from __future__ import annotations

import json
import re
from typing import Any

from posterhall.errors import DataError, did_you_mean

_TYPES: dict[str, tuple[type, ...]] = {
    "object": (dict,),
    "array": (list,),
    "string": (str,),
    "number": (int, float),
    "integer": (int, float),
    "boolean": (bool,),
    "null": (type(None),),
}
_CHECKED = (
    *("type", "enum", "const", "anyOf", "properties", "required", "additionalProperties", "items"),
    *("minItems", "maxItems", "minLength", "maxLength", "pattern"),
    *("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum"),
)
_REMARKS = ("title", "description", "default", "examples", "format", "$schema", "$id", "$comment")
_DEEPEST = 64
"""Levels of a schema."""


def read_schema(schema: Any) -> Any:
    """A schema, given as JSON text or as a value, that `violation` understands.

    Raises:
        DataError: for what is no schema, or uses a part of JSON Schema that is not checked here.
    """
    if isinstance(schema, str):
        try:
            schema = json.loads(schema)
        except (ValueError, RecursionError) as error:
            raise DataError(f"the schema is not JSON: {error}") from None
    _look(schema, "", 0)
    return schema


def _look(schema: Any, where: str, depth: int) -> None:
    place = where or "the schema"
    if isinstance(schema, bool):
        return
    if not isinstance(schema, dict) or depth > _DEEPEST:
        raise DataError(f"{place}: a schema is a JSON object of at most {_DEEPEST} levels")
    for key in schema:
        if key not in (*_CHECKED, *_REMARKS):
            near = did_you_mean(key, _CHECKED)
            raise DataError(f"{place}: {key!r} is not understood.{near} Known: {', '.join(_CHECKED)}")
    kinds = schema.get("type", [])
    for kind in kinds if isinstance(kinds, list) else [kinds]:
        if kind not in _TYPES:
            raise DataError(f"{place}: type is {kind!r}; allowed are {', '.join(_TYPES)}")
    try:
        re.compile(schema.get("pattern", ""))
    except (re.error, TypeError) as error:
        raise DataError(f"{place}: pattern {schema['pattern']!r} is no regular expression: {error}") from None
    for key in ("anyOf", "enum", "required"):
        if not isinstance(schema.get(key, []), list):
            raise DataError(f"{place}: {key} must be a list")
    if not isinstance(schema.get("properties", {}), dict):
        raise DataError(f"{place}: properties must be an object")
    below = [(f"{where}.{name}", each) for name, each in schema.get("properties", {}).items()]
    below += [(f"{where}.anyOf", each) for each in schema.get("anyOf", [])]
    below += [(f"{where}.{key}", schema[key]) for key in ("items", "additionalProperties") if key in schema]
    for name, each in below:
        _look(each, name, depth + 1)


def violation(value: Any, schema: Any, where: str = "") -> str | None:
    """What is wrong with a value; None if it follows a schema that `read_schema` gave."""
    place = where or "the value"
    if isinstance(schema, bool):
        return None if schema else f"{place} is not allowed"
    if "type" in schema:
        kinds = schema["type"] if isinstance(schema["type"], list) else [schema["type"]]
        if not any(_is(value, kind) for kind in kinds):
            return f"{place} is not of type {' or '.join(kinds)}"
    if "enum" in schema and not any(_equal(value, each) for each in schema["enum"]):
        return f"{place} is none of {json.dumps(schema['enum'], ensure_ascii=False)}"
    if "const" in schema and not _equal(value, schema["const"]):
        return f"{place} is not {json.dumps(schema['const'], ensure_ascii=False)}"
    if "anyOf" in schema and all(violation(value, each, where) for each in schema["anyOf"]):
        return f"{place} follows none of the alternatives"
    return _limits(value, schema, place) or _parts(value, schema, where)


def _limits(value: Any, schema: dict[str, Any], place: str) -> str | None:
    if isinstance(value, str | list):
        least, most = ("minLength", "maxLength") if isinstance(value, str) else ("minItems", "maxItems")
        if not schema.get(least, 0) <= len(value) <= schema.get(most, len(value)):
            return f"{place} has a length of {len(value)}"
    if isinstance(value, str) and "pattern" in schema and not re.search(schema["pattern"], value):
        return f"{place} does not match {schema['pattern']!r}"
    if _is(value, "number"):
        low, high = schema.get("minimum", value), schema.get("maximum", value)
        above, below = schema.get("exclusiveMinimum"), schema.get("exclusiveMaximum")
        if not low <= value <= high or (above is not None and value <= above):
            return f"{place} is {value}, out of range"
        if below is not None and value >= below:
            return f"{place} is {value}, out of range"
    return None


def _parts(value: Any, schema: dict[str, Any], where: str) -> str | None:
    if isinstance(value, dict):
        for name in schema.get("required", []):
            if name not in value:
                return f"{where or 'the value'} lacks {name!r}"
        known, others = schema.get("properties", {}), schema.get("additionalProperties", True)
        for name, each in value.items():
            wrong = violation(each, known.get(name, others), f"{where}.{name}")
            if wrong:
                return wrong
    if isinstance(value, list) and "items" in schema:
        for at, each in enumerate(value):
            wrong = violation(each, schema["items"], f"{where}[{at}]")
            if wrong:
                return wrong
    return None


def _is(value: Any, kind: str) -> bool:
    if isinstance(value, bool):  # to Python, true is a number
        return kind == "boolean"
    if kind == "integer" and isinstance(value, float):
        return value.is_integer()
    return isinstance(value, _TYPES[kind])


def _equal(a: Any, b: Any) -> bool:
    return isinstance(a, bool) == isinstance(b, bool) and a == b
