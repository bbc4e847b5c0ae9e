"""What kind of character a code point is, as tables that kernels can look into."""

from __future__ import annotations

import unicodedata
from functools import cache

import numpy as np
from numpy.typing import NDArray

SPACE, LETTER, DIGIT = 1, 2, 4

TABLE = 0x20000
"""Code points in the tables; those beyond are rare Chinese characters, which count as letters."""


@cache
def kinds() -> NDArray[np.uint8]:
    """Kind of each code point below `TABLE`: SPACE, LETTER (marks on letters too), DIGIT or 0."""
    found = np.zeros(TABLE, np.uint8)
    for code in range(TABLE):
        category = unicodedata.category(chr(code))
        if category[0] in "LM":
            found[code] = LETTER
        elif category == "Nd":
            found[code] = DIGIT
        elif chr(code).isspace():
            found[code] = SPACE
    return found


@cache
def lower_cases() -> NDArray[np.int32]:
    """Lower case of each code point below `TABLE`, where that is one character; otherwise itself."""
    found = np.arange(TABLE, dtype=np.int32)
    for code in range(TABLE):
        lower = chr(code).lower()
        if len(lower) == 1:
            found[code] = ord(lower)
    return found
