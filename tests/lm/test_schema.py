"""JSON Schema, the part that structured output uses: against a table of cases."""

from __future__ import annotations

import pytest

from posterhall.errors import DataError
from posterhall.lm.schema import read_schema, violation

CASES = [
    ({"type": "integer"}, [1, 1.0, -5], [1.5, "1", True, None]),
    ({"type": ["string", "null"]}, ["", None], [0, []]),
    ({"type": "boolean"}, [True], [0, 1]),
    ({"enum": [1, "a", None]}, [1, "a", None], [True, "b", 0]),
    ({"const": False}, [False], [0, None]),
    ({"minimum": 0, "maximum": 5}, [0, 5, "text"], [-1, 6]),
    ({"exclusiveMinimum": 0, "exclusiveMaximum": 1}, [0.5], [0, 1]),
    ({"minLength": 2, "maxLength": 3}, ["ab", 5], ["a", "abcd"]),
    ({"pattern": "^a+$"}, ["aa", 3], ["ab"]),
    ({"items": {"type": "string"}, "minItems": 1, "maxItems": 2}, [["a"], "x"], [[], ["a"] * 3, [1]]),
    ({"required": ["a"], "properties": {"a": {"type": "number"}}}, [{"a": 1, "b": 2}, []], [{}, {"a": "x"}]),
    ({"properties": {"a": True}, "additionalProperties": False}, [{"a": 1}, {}], [{"b": 1}]),
    ({"additionalProperties": {"type": "integer"}}, [{"x": 1}], [{"x": "1"}]),
    ({"anyOf": [{"type": "integer"}, {"const": "none"}]}, [3, "none"], ["some", None]),
    (True, [1, None], []),
    (False, [], [1, None]),
    ({}, [1, {}], []),
]


@pytest.mark.parametrize(("schema", "good", "bad"), CASES)
def test_values_follow_a_schema_or_not(schema, good, bad):
    rules = read_schema(schema)
    assert [violation(each, rules) for each in good] == [None] * len(good)
    assert all(violation(each, rules) for each in bad)


def test_what_is_wrong_is_named_by_its_place():
    rules = read_schema('{"properties": {"a": {"items": {"type": "integer"}}}}')
    assert violation({"a": [1, 2, "x"]}, rules) == ".a[2] is not of type integer"


@pytest.mark.parametrize(
    ("schema", "said"),
    [
        ("{", "not JSON"),
        ("[]", "JSON object"),
        ({"tpye": "integer"}, "Did you mean: type"),
        ({"type": "int"}, "type is 'int'"),
        ({"pattern": "("}, "regular expression"),
        ({"properties": {"a": {"$ref": "#/x"}}}, r"\.a: '\$ref' is not understood"),
        ({"properties": []}, "properties must be"),
        ({"enum": 1}, "enum must be a list"),
    ],
)
def test_a_schema_that_is_not_understood_is_refused(schema, said):
    with pytest.raises(DataError, match=said):
        read_schema(schema)
