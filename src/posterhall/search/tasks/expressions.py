"""Arithmetic that a model wrote: read by a parser of its own over exact rationals, never evaluated.

What is allowed: numbers (13, 2.5, 7/2 is a division), + - * / with the signs that models use for them,
parentheses, a minus before an operand. There are no powers, names or calls. Length, depth and the size of
all numbers are bounded, so that no text takes long.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from fractions import Fraction

from posterhall.errors import DataError
from posterhall.search.tasks.moves import Number, is_small, shown, whole

LONGEST = 400
"""Characters of an expression; a puzzle of six numbers takes about 40."""
DEEPEST = 40
"""Parentheses within each other."""

_SIGNS = str.maketrans(
    {
        **dict.fromkeys("×∗⋅·✕✖", "*"),
        **dict.fromkeys("÷∕⁄", "/"),
        **dict.fromkeys("−–—﹣－", "-"),
        **dict.fromkeys("＋﹢", "+"),
        **dict.fromkeys("[{", "("),
        **dict.fromkeys("]}", ")"),
        "＝": "=",
        "≈": "=",
        "$": " ",
        "`": " ",
        "\u00a0": " ",
        "\u202f": " ",
    }
)
_LATEX = re.compile(r"\\(times|cdot|ast|div|left|right|[()\[\],;! ])")
_LATEX_SIGNS = {"times": "*", "cdot": "*", "ast": "*", "div": "/"}
_TOKEN = re.compile(r"\s*(?:([0-9]{1,12}(?:\.[0-9]{1,12})?|\.[0-9]{1,12})(?![0-9.])|(\*\*|[-+*/()^]))")
_TIMES = re.compile(r"(?<=[0-9) ])[xX](?=[0-9( ])")


@dataclass(frozen=True)
class Expression:
    """What could be read."""

    text: str
    """In one spelling: single spaces, no parentheses that are not needed."""
    value: Number
    numbers: tuple[Number, ...]
    """Those that stand in it, in order; a number right after a minus that takes nothing away is negative."""
    operations: int
    """Additions, subtractions, multiplications and divisions."""


@dataclass(frozen=True)
class _Part:
    value: Number
    text: str
    precedence: int  # 1 sum, 2 product, 3 number


def plain_signs(text: str) -> str:
    """Text with the signs of arithmetic that models use (× ÷ − ...) as * / -."""
    return _TIMES.sub("*", _LATEX.sub(lambda found: _LATEX_SIGNS.get(found[1], " "), text).translate(_SIGNS))


def read(text: str) -> Expression:
    """Read an expression, or the side of an equation that is one.

    Of "a = b = c" it is the first side with an operation in it that counts: what a model says that it
    equals is its own affair.

    Raises:
        DataError: saying what cannot be read.
    """
    if len(text) > LONGEST:
        raise DataError(f"an expression of {len(text):,} characters; at most {LONGEST} are read")
    sides = [side for side in plain_signs(text).split("=") if side.strip()]
    if not sides:
        raise DataError("there is no expression")
    first = _Parser(sides[0]).read()
    for side in sides[1:]:
        if first.operations:
            break
        found = _Parser(side).read()
        first = found if found.operations else first
    return first


def number(text: str) -> Number:
    """One number: 13, -2, 2.5 or 7/2.

    Raises:
        DataError: if it is none, or beyond all bounds.
    """
    match = re.fullmatch(r"(-?[0-9]{1,12})(?:\.([0-9]{1,12})|/([0-9]{1,12}))?", plain_signs(text).strip())
    if match is None or (match[3] and not int(match[3])):
        raise DataError(f"{text[:40]!r} is no number; write 13, -2, 2.5 or 7/2")
    value = whole(Fraction(match[0]))
    if not is_small(value):
        raise DataError(f"{text[:40]!r} is too large a number")
    return value


class _Parser:
    """Recursive descent over the tokens of one side of an equation."""

    def __init__(self, text: str) -> None:
        self.tokens: list[str | Number] = []
        self.at = 0
        self.depth = 0
        self.numbers: list[Number] = []
        self.operations = 0
        place = 0
        text = text.rstrip(" .,;\t\r\n")
        while place < len(text):
            match = _TOKEN.match(text, place)
            if match is None:
                raise DataError(f"cannot read {text[place : place + 20].strip()!r} as arithmetic")
            self.tokens.append(whole(Fraction(match[1])) if match[1] else match[2])
            place = match.end()

    def read(self) -> Expression:
        part = self._sum()
        if self.at < len(self.tokens):
            raise self._unexpected()
        return Expression(part.text, part.value, tuple(self.numbers), self.operations)

    def _peek(self) -> str | Number | None:
        return self.tokens[self.at] if self.at < len(self.tokens) else None

    def _unexpected(self) -> DataError:
        found = self._peek()
        if found in ("**", "^"):
            return DataError("powers are not allowed")
        return DataError("the expression ends too early" if found is None else f"{found} is out of place")

    def _sum(self) -> _Part:
        left = self._product()
        while self._peek() in ("+", "-"):
            sign = self.tokens[self.at]
            self.at += 1
            left = self._joined(left, str(sign), self._product())
        return left

    def _product(self) -> _Part:
        left = self._unary()
        while (found := self._peek()) in ("*", "/", "("):
            if found != "(":  # (10 - 4)(13 - 9) is a product too
                self.at += 1
            left = self._joined(left, "/" if found == "/" else "*", self._unary())
        return left

    def _unary(self) -> _Part:
        negative = False
        while self._peek() in ("-", "+"):
            negative ^= self._peek() == "-"
            self.at += 1
        before = self._peek()
        part = self._atom()
        if not negative:
            return part
        if not isinstance(before, str):
            self.numbers[-1] = -self.numbers[-1]
        text = part.text if part.precedence == 3 else f"({part.text})"
        return _Part(-part.value, f"-{text}", 1)

    def _atom(self) -> _Part:
        found = self._peek()
        if found == "(":
            self.depth += 1
            if self.depth > DEEPEST:
                raise DataError(f"more than {DEEPEST} parentheses within each other")
            self.at += 1
            part = self._sum()
            if self._peek() != ")":
                raise self._unexpected()
            self.at += 1
            self.depth -= 1
            return part
        if found is None or isinstance(found, str):
            raise self._unexpected()
        self.at += 1
        self.numbers.append(found)
        if not is_small(found):
            raise DataError(f"{found} is too large a number")
        return _Part(found, shown(found), 3 if found.denominator == 1 else 2)

    def _joined(self, left: _Part, operator: str, right: _Part) -> _Part:
        self.operations += 1
        value: Number
        if operator == "+":
            value = left.value + right.value
        elif operator == "-":
            value = left.value - right.value
        elif operator == "*":
            value = left.value * right.value
        elif right.value == 0:
            raise DataError("a division by zero")
        else:
            value = Fraction(left.value) / right.value
        if not is_small(value):
            raise DataError("a number in between is too large")
        own = 1 if operator in "+-" else 2
        needed = own + (operator in "-/")
        texts = [
            part.text
            if part.precedence >= least and not (last and part.text.startswith("-"))
            else f"({part.text})"
            for part, least, last in ((left, own, False), (right, needed, True))
        ]
        return _Part(whole(value), f"{texts[0]} {operator} {texts[1]}", own)
