"""Which failures may pass, and how long to wait before the next try."""

from __future__ import annotations

import math
import re
import time
from collections.abc import Mapping
from dataclasses import dataclass
from email.utils import parsedate_to_datetime

from posterhall.seeds import generator

PASSING = frozenset({408, 409, 425, 429})
"""Statuses below 500 that may pass by themselves."""
OVERLOADED = frozenset({429, 503, 529})
"""Statuses that say: too many, too fast."""
FIRST_WAIT = 0.25
"""Seconds that the first wait is at most, drawn uniformly from 0; each further one is twice as long."""
LONGEST_WAIT = 20.0
"""Seconds that a wait drawn at random is at most; what the server asks for may be longer."""
LONGEST_ASKED = 86_400.0
"""Seconds; a server that asks for more has its clock wrong."""

_UNITS = {"d": 86_400.0, "h": 3600.0, "m": 60.0, "s": 1.0, "ms": 0.001}
_DURATION = re.compile(r"(?:\d+(?:\.\d+)?(?:ms|[dhms]))+")


@dataclass(frozen=True)
class Failure:
    """A try that came to nothing and may be repeated."""

    kind: str
    """A few words to count it under: a status, "time-out", "connection", "malformed"."""
    message: str
    """What is known about it, without secrets."""
    asked_wait: float | None = None
    """Seconds that the server wants to be left alone."""
    overloaded: bool = False
    """Whether it says that there are too many requests."""


class Waits:
    """Full jitter: a wait is uniform between 0 and a bound that doubles, so that many who failed together
    do not come back together."""

    def __init__(self, seed: int) -> None:
        self._draw = generator(seed, "lm", "retry")

    def before(self, again: int, failure: Failure) -> float:
        """Seconds before try `again` (1 is the second try): never less than the server asked for."""
        bound = min(LONGEST_WAIT, FIRST_WAIT * 2.0 ** min(again - 1, 30))
        return (failure.asked_wait or 0.0) + float(self._draw.uniform(0.0, bound))


def may_pass(status: int) -> bool:
    """Whether the same request may succeed later."""
    return status in PASSING or status >= 500


def asked_wait(headers: Mapping[str, str], *, wall: float | None = None) -> float | None:
    """Seconds that a reply's headers ask to wait; None if they ask for nothing.

    Understands ``Retry-After`` (seconds or a date) and ``retry-after-ms``; else, where a remaining allowance
    is 0, when ``x-ratelimit-reset-*`` says that it is filled again. A date is compared with the server's own
    ``Date``, so that its clock may be wrong; what lies in the past is 0.

    Args:
        headers: case-insensitive.
        wall: seconds since 1970 here, where the server names no date; None means now.
    """
    milliseconds = _number(headers.get("retry-after-ms"))
    if milliseconds is not None:
        return _clamped(milliseconds / 1000)
    text = headers.get("Retry-After", "").strip()
    if text:
        seconds = _number(text)
        if seconds is None:
            until = _date(text)
            if until is not None:
                here = _date(headers.get("Date", ""))
                seconds = until - (here if here is not None else time.time() if wall is None else wall)
        if seconds is not None:
            return _clamped(seconds)
    waits = []
    for what in ("requests", "tokens"):
        reset = _duration(headers.get(f"x-ratelimit-reset-{what}", ""))
        if reset is not None and headers.get(f"x-ratelimit-remaining-{what}", "").strip() == "0":
            waits.append(reset)
    return _clamped(max(waits)) if waits else None


def _clamped(seconds: float) -> float:
    return min(max(seconds, 0.0), LONGEST_ASKED)


def _number(text: str | None) -> float | None:
    try:
        value = float(text or "")
    except ValueError:
        return None
    return value if math.isfinite(value) else None


def _date(text: str) -> float | None:
    try:
        return parsedate_to_datetime(text).timestamp()
    except (ValueError, OverflowError, TypeError):
        return None


def _duration(text: str) -> float | None:
    """``6m0s``, ``20ms``, ``1.5`` (seconds)."""
    text = text.strip()
    if not _DURATION.fullmatch(text):
        return _number(text)
    return sum(float(n) * _UNITS[unit] for n, unit in re.findall(r"(\d+(?:\.\d+)?)(ms|[dhms])", text))
