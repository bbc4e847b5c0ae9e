"""Numba parsers of word vector files: bytes in, rows and words out. No bounds beyond those stated."""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit

_SPACE, _TAB, _NEWLINE, _RETURN = 32, 9, 10, 13

# Why a text parser stopped before the end of its bytes.
DONE, IRREGULAR, CROWDED = 0, 1, 2

# Powers of ten, each the nearest double; those up to 1e22 are exact.
_POWERS = np.array([float(f"1e{k}") for k in range(301)])


@njit(cache=True, nogil=True)
def _number(buffer: Any, start: int, scratch: Any, bits: Any) -> tuple[int, float, int]:
    """(0, value, next): a decimal number at `start`. (1, 0, next): a token for the exact, slow parser.

    The value is the double that rounds to the right float32. Up to 2^53 x 10^+-22 it is the correctly
    rounded double (Clinger 1990); beyond, it carries an error of a few units in the last place, so it
    is kept only if no float32 boundary is that near.
    """
    p = start
    negative = buffer[p] == 45
    if negative or buffer[p] == 43:
        p += 1
    mantissa = np.uint64(0)
    digits, seen, exponent, dropped = 0, 0, 0, False
    point = False
    while True:
        byte = buffer[p]
        if 48 <= byte <= 57:
            seen += 1
            if digits < 19:
                mantissa = mantissa * np.uint64(10) + np.uint64(byte - 48)
                if mantissa > 0:
                    digits += 1
                if point:
                    exponent -= 1
            else:
                dropped = True
                if not point:
                    exponent += 1
        elif byte == 46 and not point:
            point = True
        else:
            break
        p += 1
    plain = seen > 0
    if plain and (byte == 101 or byte == 69):
        p += 1
        minus = buffer[p] == 45
        if minus or buffer[p] == 43:
            p += 1
        power, seen = 0, 0
        while 48 <= buffer[p] <= 57:
            seen += 1
            if power < 100_000:
                power = power * 10 + (buffer[p] - 48)
            p += 1
        plain = seen > 0
        exponent += -power if minus else power
    byte = buffer[p]
    plain = plain and byte in (_SPACE, _NEWLINE, _TAB, _RETURN)
    value = 0.0
    if plain and mantissa > 0:
        value = np.float64(mantissa)
        if mantissa < np.uint64(1) << np.uint64(53) and -22 <= exponent <= 22:
            value = value / _POWERS[-exponent] if exponent < 0 else value * _POWERS[exponent]
        elif -300 <= exponent <= 280 and not dropped:
            value = value / _POWERS[-exponent] if exponent < 0 else value * _POWERS[exponent]
            scratch[0] = value
            # The low 29 bits of a double are what float32 rounds away; 2^28 is the halfway point.
            distance = (bits[0] & 0x1FFFFFFF) - 0x10000000
            plain = 1.2e-38 < value < 3.4e38 and (distance > 8 or distance < -8)
        else:
            plain = False
    if not plain:
        while True:
            byte = buffer[p]
            if byte in (_SPACE, _NEWLINE, _TAB, _RETURN):
                break
            p += 1
        return 1, 0.0, p
    return 0, -value if negative else value, p


@njit(cache=True, nogil=True)
def parse_lines(
    buffer: Any, start: int, end: int, rows: Any, first_row: int, words: Any, slow: Any
) -> tuple[int, int, int, int, int]:
    """Parse lines `word number ... number` between `start` and `end`.

    Args:
        buffer: uint8; buffer[end - 1] is a newline.
        rows: (n, d) float32, filled from `first_row`; parsing stops when it is full.
        words: uint8, at least end - start long: receives each word and a newline.
        slow: (k, 4) int64: receives row, column, start and end of tokens for the exact parser.

    Returns:
        (status, next byte, next row, bytes of words, tokens in slow). IRREGULAR: the line at the next
        byte is not one word and d numbers. CROWDED: `slow` has no room for one more line.
    """
    scratch = np.zeros(1)
    bits = scratch.view(np.int64)
    dimensions = rows.shape[1]
    p, row, written, waiting = start, first_row, 0, 0
    while p < end and row < rows.shape[0]:
        if waiting + dimensions > slow.shape[0]:
            return CROWDED, p, row, written, waiting
        line, word_from, waiting_before = p, written, waiting
        while buffer[p] != _SPACE and buffer[p] != _TAB and buffer[p] != _NEWLINE:
            words[written] = buffer[p]
            written += 1
            p += 1
        regular = p > line
        column = 0
        while regular and column < dimensions:
            if buffer[p] != _SPACE and buffer[p] != _TAB:
                regular = False
                break
            while buffer[p] == _SPACE or buffer[p] == _TAB:
                p += 1
            if buffer[p] == _NEWLINE or buffer[p] == _RETURN:
                regular = False
                break
            token = p
            hard, value, p = _number(buffer, p, scratch, bits)
            if hard:
                slow[waiting, 0] = row
                slow[waiting, 1] = column
                slow[waiting, 2] = token
                slow[waiting, 3] = p
                waiting += 1
            else:
                rows[row, column] = value
            column += 1
        while regular and (buffer[p] == _SPACE or buffer[p] == _TAB or buffer[p] == _RETURN):
            p += 1
        if not regular or buffer[p] != _NEWLINE:
            return IRREGULAR, line, row, word_from, waiting_before
        words[written] = _NEWLINE
        written += 1
        p += 1
        row += 1
    return DONE, p, row, written, waiting


@njit(cache=True, nogil=True)
def parse_records(
    buffer: Any, start: int, end: int, rows: Any, first_row: int, words: Any
) -> tuple[int, int, int]:
    """Parse binary records: word, space, d little-endian float32, with or without a newline after.

    Args:
        buffer: uint8, records from `start`, the last one perhaps cut at `end`.
        rows: (n, 4 d) uint8, the rows' bytes, filled from `first_row`; parsing stops when it is full.
        words: uint8, at least end - start long: receives each word and a space.

    Returns:
        (next byte, next row, bytes of words). The next byte is where the first incomplete record starts.
    """
    width = rows.shape[1]
    p, row, written = start, first_row, 0
    while row < rows.shape[0]:
        word = p
        while word < end and buffer[word] == _NEWLINE:
            word += 1
        space = word
        while space < end and buffer[space] != _SPACE:
            space += 1
        if space + 1 + width > end:
            break
        for j in range(word, space + 1):
            words[written] = buffer[j]
            written += 1
        rows[row, :] = buffer[space + 1 : space + 1 + width]
        p = space + 1 + width
        row += 1
    return p, row, written
