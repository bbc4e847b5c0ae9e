"""Reading a judge's reply: a verdict, or two scores, or nothing; never a guess.

A verdict must stand alone, in JSON, or behind a label ("Answer: 1", "Best answer: 2", "[[A]]"). A number or
an "a" somewhere in a sentence is no verdict: "Answer 1 is a good answer, but ..." says nothing yet.
"""

from __future__ import annotations

import re

from posterhall.lm.parsing import LONGEST, UNREAD, Parsed, classes

CLASSES = ("1", "2", "tie")
_SAME = {"a": "1", "b": "2", "c": "tie", "3": "tie", "draw": "tie", "equal": "tie", "neither": "tie"}
_VALUE = r"(1|2|3|a|b|c|tie|draw|equal|neither)"
_BRACKETS = re.compile(r"\[\[\s*" + _VALUE + r"\s*\]\]", re.IGNORECASE)
_LABEL = re.compile(
    r"(?:\b(?:best|better|winning|preferred)\s+(?:answer|response|assistant)|\b(?:verdict|winner|preference|choice|answer))"
    r"[\s*_`\"'#]*(?:\bis\b|:|=)[\s*_`\"'(\[#]*(?:(?:answer|response|assistant|option|number)\s+)?"
    + _VALUE
    + r"[\s*_`\"')\].!]*$",
    re.IGNORECASE,
)
_NUMBER = r"(\d{1,3}(?:\.\d+)?)(?:\s*/\s*10)?"
_BOTH = re.compile(
    rf"[\s*_`>#-]*(?:scores?[\s*_`]*[:=])?[\s*_`(\[]*{_NUMBER}\s*(?:,|;|\||and|\s)\s*{_NUMBER}[\s*_`)\].]*",
    re.IGNORECASE,
)


def verdict(reply: str) -> Parsed[str]:
    """Which answer a judge prefers: 1, 2 or tie.

    Down a ladder: the reply or its last line alone, "Answer: ...", JSON (see `lm.parsing.classes`); then
    other labels and [[A]], of which the last line that has any counts.

    Returns:
        The class. None if nothing is labelled, or a line says two things.
    """
    found = classes(reply, CLASSES)
    if found.read and found.how != "search":
        return found
    failures = (*found.failures, "searched for labels") if found.how != "search" else ("not labelled",)
    for line in reversed(reply[-LONGEST:].splitlines()):
        said = {_named(value) for value in _BRACKETS.findall(line)}
        match = _LABEL.search(line.rstrip()) if not said else None
        if match is not None:
            said = {_named(match[1])}
        if len(said) == 1:
            return Parsed(said.pop(), "labelled", failures)
        if said:
            return Parsed(None, UNREAD, (*failures, "several verdicts in a line"))
    return Parsed(None, UNREAD, failures)


def scores(reply: str, low: float = 1.0, high: float = 10.0) -> Parsed[tuple[float, float]]:
    """Scores of answer 1 and answer 2, from a line that holds nothing but two numbers.

    "Scores: 8 6.5", "8 6.5", "8/10, 6.5/10". The last such line counts.

    Args:
        reply: what the judge said.
        low, high: the range; a line with a number outside it is not read.

    Returns:
        The scores; `failures` says what else there was.
    """
    lines = [each for each in reply[-LONGEST:].splitlines() if each.strip()]
    outside: list[str] = []
    for line in reversed(lines):
        match = _BOTH.fullmatch(line.rstrip())
        if match is None:
            continue
        one, two = float(match[1]), float(match[2])
        if low <= one <= high and low <= two <= high:
            how = "exact" if len(lines) == 1 else "last line" if line is lines[-1] else "search"
            return Parsed((one, two), how, tuple(outside))
        outside.append(f"{line.strip()[:40]!r} is out of range")
    return Parsed(None, UNREAD, (*outside, "no line of two scores"))


def _named(value: str) -> str:
    return _SAME.get(value.lower(), value.lower())
