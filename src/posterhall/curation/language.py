"""The filter language: ``perplexity bottom 25% & words >= 50 - gopher``.

::

    filter  = part { "|" part }                      lowest
    part    = single { ("&" | "-") single }          from left to right
    single  = "(" filter ")" | preset | score ("<" | "<=" | ">" | ">=" | "==" | "!=") number
            | score ("top" | "bottom") share | score "band" share ("-" | "to") share
    share   = number "%" | number in (0, 1]

``and``, ``or`` and ``minus`` may stand for the signs. Nothing is evaluated: text becomes filters or an error
that points at the place.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal
from typing import Literal, NoReturn, cast

from posterhall.curation.filters import And, Band, Comparison, Filter, Minus, Or, Share, Threshold
from posterhall.errors import UsageError, did_you_mean

_TOKEN = re.compile(
    r"\s*(?:(?P<number>(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?)|(?P<name>[^\W\d]\w*)|(?P<sign><=|>=|==|!=|[<>()&|%-]))"
)
_WORDS = {"and": "&", "or": "|", "minus": "-"}
_COMPARISONS = ("<", "<=", ">", ">=", "==", "!=")
_DEEPEST = 50
_MOST = 200
_LONGEST = 10_000


def _hundredth(number: float) -> float:
    """Rounded once, so that 5.49% is 0.0549 to the last digit."""
    return float(Decimal(repr(number)) / 100)


@dataclass(frozen=True)
class _Token:
    kind: str  # number, name, sign, end
    text: str
    at: int


def parse(text: str, presets: Mapping[str, Filter] | None = None) -> Filter:
    """Read a filter.

    Args:
        text: as above.
        presets: filters that have a name; by default those of `posterhall.curation.presets`.

    Raises:
        UsageError: pointing at what is wrong.
    """
    if presets is None:
        from posterhall.curation.presets import PRESETS

        presets = PRESETS
    parser = _Parser(text, presets)
    found = parser.filter(0)
    if parser.now.kind != "end":
        parser.wrong("expected &, |, - or the end")
    return found


class _Parser:
    def __init__(self, text: str, presets: Mapping[str, Filter]) -> None:
        self._text = text
        self._presets = presets
        self._tokens = self._cut()
        self._next = 0
        self._singles = 0

    @property
    def now(self) -> _Token:
        return self._tokens[self._next]

    def wrong(self, what: str, token: _Token | None = None) -> NoReturn:
        token = token or self.now
        given = f"'{token.text}'" if token.text else "the end"
        before, after = self._text[: token.at][-40:], self._text[token.at :][:40]
        raise UsageError(f"in the filter, {given} at character {token.at + 1}: {what} ({before} >>> {after})")

    def filter(self, depth: int) -> Filter:
        if depth > _DEEPEST:
            self.wrong(f"parentheses nested more than {_DEEPEST} deep")
        found = self._part(depth)
        while self._take("|"):
            found = Or(found, self._part(depth))
        return found

    def _part(self, depth: int) -> Filter:
        found = self._single(depth)
        while True:
            if self._take("&"):
                found = And(found, self._single(depth))
            elif self._take("-"):
                found = Minus(found, self._single(depth))
            else:
                return found

    def _single(self, depth: int) -> Filter:
        if self._take("("):
            found = self.filter(depth + 1)
            if not self._take(")"):
                self.wrong("expected )")
            return found
        token = self.now
        if token.kind != "name":
            self.wrong("expected the name of a score or (")
        self._singles += 1
        if self._singles > _MOST:
            self.wrong(f"more than {_MOST} filters in one")
        self._next += 1
        name, after = token.text, self.now
        if after.text in _COMPARISONS:
            self._next += 1
            return Threshold(name, cast("Comparison", after.text), self._signed())
        if after.kind == "name" and after.text in ("top", "bottom"):
            self._next += 1
            return Share(name, cast("Literal['top', 'bottom']", after.text), self._share())
        if after.kind == "name" and after.text == "band":
            self._next += 1
            return self._band(name, after)
        if name in self._presets:
            return self._presets[name]
        near = did_you_mean(after.text, ("top", "bottom", "band")) if after.kind == "name" else ""
        hint = near or f" Alone stand the presets: {', '.join(self._presets) or 'none'}."
        return self.wrong(f"expected a comparison, top, bottom or band after the score '{name}'.{hint}")

    def _band(self, name: str, token: _Token) -> Filter:
        low = self._number()
        percent = self._take("%")
        if not self._take("-") and not self._word("to"):
            self.wrong("expected - between the two ends of the band")
        high = self._number()
        if self._take("%"):
            low, high = _hundredth(low), _hundredth(high)
        elif percent:
            self.wrong("expected % after the second end as after the first")
        if not 0 <= low < high <= 1:
            if 0 <= low < high <= 100 and not percent:
                self.wrong(f"did you mean {low:g}-{high:g}%?", token)
            self.wrong("a band lies between 0% and 100%, the lower end first", token)
        return Band(name, low, high)

    def _share(self) -> float:
        token = self.now
        number = self._number()
        share = _hundredth(number) if self._take("%") else number
        if not 0 < share <= 1:
            hint = f"; did you mean {number:g}%?" if 1 < share <= 100 else ""
            self.wrong(f"a share lies above 0% and up to 100%{hint}", token)
        return share

    def _signed(self) -> float:
        return -self._number() if self._take("-") else self._number()

    def _number(self) -> float:
        if self.now.kind != "number":
            self.wrong("expected a number")
        value = float(self.now.text)
        if value == float("inf"):
            self.wrong("expected a finite number")
        self._next += 1
        return value

    def _take(self, sign: str) -> bool:
        found = self.now.kind == "sign" and self.now.text == sign
        self._next += found
        return found

    def _word(self, word: str) -> bool:
        found = self.now.kind == "name" and self.now.text == word
        self._next += found
        return found

    def _cut(self) -> list[_Token]:
        if len(self._text) > _LONGEST:
            raise UsageError(f"a filter of {len(self._text):,} characters; at most {_LONGEST:,} are allowed")
        tokens: list[_Token] = []
        at = 0
        end = len(self._text.rstrip())
        while at < end:
            match = _TOKEN.match(self._text, at)
            if match is None or match.lastgroup is None:
                at += len(self._text[at:]) - len(self._text[at:].lstrip())
                self.wrong("no part of a filter", _Token("sign", self._text[at], at))
            kind, text = match.lastgroup, match.group(match.lastgroup)
            place = match.start(match.lastgroup)
            if kind == "name" and text in _WORDS:
                kind, text = "sign", _WORDS[text]
            tokens.append(_Token(kind, text, place))
            at = match.end()
        tokens.append(_Token("end", "", end))
        return tokens
