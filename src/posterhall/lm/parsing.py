"""Reading an answer out of what a model said, and counting what could not be read.

Each reader goes down a ladder: the reply as it is, what stands behind "Answer:", the last line, JSON within
it, and a search line by line from its end. What is found says on which rung; nothing found is nothing, never
a value that looks like one.
"""

from __future__ import annotations

import json
import math
import re
import unicodedata
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Generic, Protocol, TypeVar

from posterhall.errors import DataError
from posterhall.lm.schema import read_schema, violation

T = TypeVar("T")

LONGEST = 200_000
"""Characters of a reply that are looked at, from its end, where answers stand."""
UNREAD = "unread"

_SPACE = " \t\r\n\u200b\ufeff"
_MARKUP = _SPACE + "*_`\"'“”‘’„«»"
"""What may stand around an answer without being part of it."""
_AROUND = _MARKUP + "~‹›「」()[]{}<>#>-–—•·:=.,;!?。、！？…"
"""The same, around a word."""
_INTEGER = r"[+-]?\d{1,18}(?:\.0+)?"
_NUMBER = re.compile(rf"(?<![\w.,]){_INTEGER}(?!\w|[.,]\d)")
_OUT_OF = re.compile(rf"({_INTEGER})\s*(?:/|out of)\s*\d+", re.IGNORECASE)
_RANGE = re.compile(r"\d+\s*(?:-|–|to)\s*\d+", re.IGNORECASE)
_LABEL = re.compile(
    r"[\s>*_#`-]*(?:(?:so|thus|hence|therefore)\b,?\s*)?(?:(?:final|my|the)\s+)*"
    r"answer[\s*_`]*(?:is\b|:|=)[\s*_`:]*(.*)",
    re.IGNORECASE,
)
_BOXED = re.compile(r"\$*\\boxed\{(.*)\}\$*")
_FENCE = re.compile(r"```[^\n`]*\n(.*?)(?:```|\Z)", re.DOTALL)
_STARTS = 200
"""Places at which an object or a list is looked for within a text."""


@dataclass(frozen=True)
class Parsed(Generic[T]):
    """What was read, and how."""

    value: T | None
    """None if nothing could be read."""
    how: str
    """The rung: exact, labelled (behind "Answer:"), last line, json, fenced, search; or `unread`."""
    failures: tuple[str, ...] = ()
    """Why the rungs above gave nothing, and what else is odd about the reply."""

    @property
    def read(self) -> bool:
        """Whether there is a value."""
        return self.how != UNREAD


class Counts:
    """How replies were read: numbers by rung, those unread among them."""

    def __init__(self) -> None:
        self.by_rung: Counter[str] = Counter()

    def add(self, parsed: Parsed[T]) -> Parsed[T]:
        """Count what was read, and give it back."""
        self.by_rung[parsed.how] += 1
        return parsed

    @property
    def unread(self) -> int:
        """Replies without a value."""
        return self.by_rung[UNREAD]

    @property
    def total(self) -> int:
        """Replies."""
        return self.by_rung.total()


def classes(reply: str, allowed: Sequence[str]) -> Parsed[str]:
    """Which of a few classes a reply names.

    Case, markup, quotes and dots around it do not matter. In a text, a class counts where it stands as
    words of its own and is not denied ("not sure"); a longer class goes before a shorter one within it.

    Args:
        reply: what the model said.
        allowed: the classes.

    Returns:
        The class as it stands in `allowed`. If the last line that names any names several, or denies one,
        none is read.

    Raises:
        DataError: if there is no class, or two are alike but for case.
    """
    return _down(reply, _Classes(allowed))


def integer(reply: str, low: int | None = None, high: int | None = None) -> Parsed[int]:
    """A whole number, as a grade.

    Numbers that are part of a larger one or of a word do not count (3.5, 1,000, A4), nor do ranges (1-5);
    "3.0" is 3, and in "7/10" and "7 out of 10" the first is meant.

    Args:
        reply: what the model said.
        low: the least that is allowed; None for any.
        high: the largest that is allowed; None for any.

    Returns:
        The number. If the last line that has any has several different ones, none is read; one outside the
        range is not read either, and `failures` names it.
    """
    numbers = _Integers(low, high)
    found = _down(reply, numbers)
    outside = tuple(f"{each} is out of range" for each in dict.fromkeys(numbers.outside))
    return Parsed(found.value, found.how, (*found.failures, *outside))


def answer_line(reply: str) -> Parsed[str]:
    """What stands behind the last "Answer:" of a reply, or else its last line.

    An answer on the line after its label is found too. Several such lines are recorded in `failures`.
    Markup, quotes and a full stop around it are taken off, brackets are not.
    """
    lines = _lines(reply)
    found = []
    for at, line in enumerate(lines):
        match = _LABEL.fullmatch(line)
        if match:
            said = _plain(match[1]) or next((_plain(each) for each in lines[at + 1 :] if _plain(each)), "")
            if said:
                found.append(said)
    if found:
        return Parsed(found[-1], "labelled", () if len(found) == 1 else (f"{len(found)} answer lines",))
    written = [_plain(each) for each in lines if _plain(each)]
    if not written:
        return Parsed(None, UNREAD, ("empty",))
    return Parsed(written[-1], "exact" if len(written) == 1 else "last line", ("no Answer:",))


def json_value(reply: str, schema: Any = None) -> Parsed[Any]:
    """A JSON value: the whole reply, or in the last code fence, or the largest object or list in the text.

    Args:
        reply: what the model said.
        schema: what the value must be like, a JSON Schema (text or value); see `posterhall.lm.schema`.

    Returns:
        The value; a value that does not follow the schema is not read, and `failures` says why. JSON's null
        is a value: look at `read`.

    Raises:
        DataError: for a schema that cannot be understood.
    """
    rules = read_schema(schema) if schema is not None else True
    failures: list[str] = []
    for how, text in _json_texts(reply[-LONGEST:]):
        try:
            value = _DECODER.decode(text)
        except (ValueError, RecursionError) as error:
            failures.append(f"{how}: {str(error) or 'nested too deep'}")
            continue
        wrong = violation(value, rules)
        if wrong is None:
            return Parsed(value, how, tuple(failures))
        failures.append(f"{how}: {wrong}")
    return Parsed(None, UNREAD, tuple(failures) or ("no JSON in it",))


# -- the ladder -------------------------------------------------------------------------------------


class _Reader(Protocol[T]):
    def exactly(self, value: object) -> T | None:
        """The answer that a text or a JSON value is."""

    def within(self, text: str) -> list[T | None]:
        """The different answers in a text; None for something that forbids to take any."""


def _down(reply: str, reader: _Reader[T]) -> Parsed[T]:
    lines = [each for each in _lines(reply) if each.strip(_SPACE)]
    if not lines:
        return Parsed(None, UNREAD, ("empty",))
    value = reader.exactly("\n".join(lines))
    if value is not None:
        return Parsed(value, "exact")
    failures = ["not the answer alone"]

    labelled = answer_line(reply)
    if labelled.how == "labelled" and labelled.value is not None:
        found = reader.within(labelled.value)
        if len(found) == 1 and found[0] is not None:
            return Parsed(found[0], "labelled", (*failures, *labelled.failures))
        failures.append("not one answer behind Answer:")

    value = reader.exactly(lines[-1])
    if value is not None:
        return Parsed(value, "last line", tuple(failures))
    failures.append("not on the last line alone")

    parsed = json_value(reply)
    if isinstance(parsed.value, dict):
        read = {each for each in map(reader.exactly, parsed.value.values()) if each is not None}
        if len(read) == 1:
            return Parsed(read.pop(), "json", tuple(failures))
        return Parsed(None, UNREAD, (*failures, "not one answer in its JSON"))

    for line in reversed(lines):
        found = reader.within(line)
        if len(found) == 1 and found[0] is not None:
            return Parsed(found[0], "search", tuple(failures))
        if found:
            return Parsed(None, UNREAD, (*failures, "several answers in a line, or one denied"))
    return Parsed(None, UNREAD, (*failures, "nowhere in the text"))


class _Classes:
    def __init__(self, allowed: Sequence[str]) -> None:
        self.names = {_word(each): each for each in allowed}
        if not allowed or len(self.names) != len(allowed) or "" in self.names:
            raise DataError(
                f"the classes are {', '.join(map(repr, allowed)) or 'none'}; give one or more different words"
            )
        longest_first = sorted(self.names, key=len, reverse=True)
        words = "|".join(re.escape(each).replace("\\ ", r"\s+") for each in longest_first)
        # The classes first, since one may itself begin with "not".
        self._pattern = re.compile(rf"(?<!\w)(?:({words})|(?:not|never|no|\w+n't)\s+(?:{words}))(?!\w)")

    def exactly(self, value: object) -> str | None:
        return self.names.get(_word(value)) if isinstance(value, str) else None

    def within(self, text: str) -> list[str | None]:
        found: dict[str | None, None] = {}
        for match in self._pattern.finditer(_folded(text)):
            found[self.names[" ".join(match[1].split())] if match[1] else None] = None
        return list(found)


class _Integers:
    def __init__(self, low: int | None, high: int | None) -> None:
        self.low = low
        self.high = high
        self.outside: list[int] = []

    def exactly(self, value: object) -> int | None:
        if isinstance(value, str):
            text = _plain(_digits(value)).strip("()[]")
            text = _OUT_OF.sub(r"\1", text)
            return self._ranged(int(text.partition(".")[0])) if re.fullmatch(_INTEGER, text) else None
        if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
            return None
        return self._ranged(int(value)) if value == int(value) else None

    def within(self, text: str) -> list[int | None]:
        text = _RANGE.sub(" ", _OUT_OF.sub(r"\1", _digits(text)))
        found = dict.fromkeys(int(each[0].partition(".")[0]) for each in _NUMBER.finditer(text))
        return [self._ranged(each) for each in found]

    def _ranged(self, number: int) -> int | None:
        if (self.low is None or number >= self.low) and (self.high is None or number <= self.high):
            return number
        self.outside.append(number)
        return None


def _lines(reply: str) -> list[str]:
    return reply[-LONGEST:].splitlines()


def _plain(text: str) -> str:
    """Text without markup and a full stop around it."""
    text = text.strip(_MARKUP)
    boxed = _BOXED.fullmatch(text.rstrip(".。"))
    return (boxed[1] if boxed else text).rstrip(_MARKUP + ".。").strip(_MARKUP)


def _folded(text: str) -> str:
    return unicodedata.normalize("NFKC", text).casefold().replace("’", "'")


def _word(text: str) -> str:
    """A class as it is compared: one case, single spaces, nothing around it."""
    return " ".join(_folded(_plain(text)).strip(_AROUND).split())


def _digits(text: str) -> str:
    return unicodedata.normalize("NFKC", text).replace("\u2212", "-")


# -- JSON in a text ---------------------------------------------------------------------------------


def _json_texts(reply: str) -> Iterator[tuple[str, str]]:
    yield "exact", reply.strip(_SPACE)
    for block in reversed(_FENCE.findall(reply)):
        yield "fenced", block.strip(_SPACE)
    found: list[tuple[int, int]] = []
    at = 0
    for _ in range(_STARTS):
        start = min((i for i in (reply.find("{", at), reply.find("[", at)) if i >= 0), default=-1)
        if start < 0:
            break
        try:
            _, at = _DECODER.raw_decode(reply, start)
            found.append((start, at))
        except (ValueError, RecursionError):
            at = start + 1
    if found:
        start, end = max(found, key=lambda each: (reply[each[0]] == "{", each[1] - each[0]))
        yield "search", reply[start:end]


def _no_constant(name: str) -> None:
    raise ValueError(f"{name} is no JSON")


_DECODER = json.JSONDecoder(parse_constant=_no_constant)
