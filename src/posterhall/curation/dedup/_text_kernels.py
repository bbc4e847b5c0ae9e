"""Normalising UTF-8 text, hashing its words and characters, and shingles of them (numba).

Normalised text is words separated by single spaces, in a buffer of the kernel's own. What a word is, two
tables say (`posterhall.curation.dedup.texts.Alphabet`):

- ``folded`` (131072,) uint32: the character that stands for each; 0 ends a word.
- ``alone`` (131073,) uint8: 1 where a character is a word of its own (Chinese, Japanese); the last value is
  for all characters above the tables, which are letters (ideographs, nearly all).

A *unit* is a word or a character of normalised text, as a 64-bit hash; a *shingle* is n units in a row, as a
64-bit hash. Hashes are seeded: whoever writes the text cannot know which texts collide.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit

from posterhall.curation.dedup._bytes import count_ones, store8
from posterhall.data._bytes import load8, trailing_zeros

PADDING = 16  # bytes after normalised text: eight are read at a time
TABLE = 1 << 17  # characters the tables cover
UNITS = 4096  # units hashed at a time, so that a document of any length takes the same memory

_SPACES = np.uint64(0x2020202020202020)
_ONES = np.uint64(0x0101010101010101)
_HIGHS = np.uint64(0x8080808080808080)
_LOWS = np.uint64(0x7F7F7F7F7F7F7F7F)
_MIX = np.uint64(0x9E3779B97F4A7C15)
_MIX2 = np.uint64(0xD6E8FEB86659FD93)


@njit(cache=True, nogil=True)
def room(length: Any) -> Any:
    """Bytes that normalised text may need: 2 bytes fold to 3 at most, and 3 get 2 spaces at most."""
    return 2 * length + PADDING + 8


@njit(cache=True, nogil=True)
def mix(h: Any) -> Any:
    """A bijection of 64 bits whose every output bit depends on every input bit."""
    h ^= h >> np.uint64(32)
    h *= _MIX2
    h ^= h >> np.uint64(32)
    h *= _MIX2
    return h ^ (h >> np.uint64(32))


@njit(cache=True, nogil=True)
def fold(h: Any, eight: Any) -> Any:
    """Take eight more bytes into a hash."""
    h = (h ^ eight) * _MIX
    return h ^ (h >> np.uint64(32))


@njit(cache=True, nogil=True)
def _put(out: Any, at: Any, c: Any) -> Any:
    """Write a character as UTF-8 and return the place after it."""
    if c < 0x80:
        out[at] = c
        return at + 1
    if c < 0x800:
        out[at] = 0xC0 | (c >> 6)
        out[at + 1] = 0x80 | (c & 0x3F)
        return at + 2
    if c < 0x10000:
        out[at] = 0xE0 | (c >> 12)
        out[at + 1] = 0x80 | ((c >> 6) & 0x3F)
        out[at + 2] = 0x80 | (c & 0x3F)
        return at + 3
    out[at] = 0xF0 | (c >> 18)
    out[at + 1] = 0x80 | ((c >> 12) & 0x3F)
    out[at + 2] = 0x80 | ((c >> 6) & 0x3F)
    out[at + 3] = 0x80 | (c & 0x3F)
    return at + 4


@njit(cache=True, nogil=True)
def _width(lead: Any) -> Any:
    """Bytes of the character whose first byte this is."""
    return 1 if lead < 0x80 else 2 if lead < 0xE0 else 3 if lead < 0xF0 else 4


@njit(cache=True, nogil=True)
def _decode(text: Any, at: Any, width: Any) -> Any:
    first = np.int64(text[at])
    if width == 1:
        return first
    second = np.int64(text[at + 1]) & 0x3F
    if width == 2:
        return (first & 0x1F) << 6 | second
    third = np.int64(text[at + 2]) & 0x3F
    if width == 3:
        return (first & 0x0F) << 12 | second << 6 | third
    return (first & 0x07) << 18 | second << 12 | third << 6 | (np.int64(text[at + 3]) & 0x3F)


@njit(cache=True, nogil=True)
def _ready(x: Any, folds: Any, gap: Any) -> bool:
    """Whether eight bytes are ASCII words with single spaces between them, so that they are taken over whole.

    Compared byte by byte in the top bits: adding 128 - a to a byte below 128 sets its top bit from a on.
    """
    if x & _HIGHS:
        return False
    space = ~((x ^ _SPACES) + _LOWS) & _HIGHS
    if folds:
        lower = x | _SPACES
        letter = (lower + _ONES * np.uint64(0x80 - 97)) & ~(lower + _ONES * np.uint64(0x80 - 123))
        digit = (x + _ONES * np.uint64(0x80 - 48)) & ~(x + _ONES * np.uint64(0x80 - 58))
        fit = (letter | digit | space) & _HIGHS
    else:
        fit = (x + _ONES * np.uint64(0x80 - 32)) & _HIGHS
    before = (space << np.uint64(8)) | (np.uint64(gap) << np.uint64(7))
    return fit == _HIGHS and not space & before


@njit(cache=True, nogil=True)
def normalise(text: Any, start: Any, end: Any, folded: Any, alone: Any, out: Any) -> Any:
    """Write ``text[start:end]`` (valid UTF-8) normalised to ``out`` and return its length in bytes.

    ``out`` holds ``room(end - start)`` bytes; the byte after the text is a space.
    """
    at = np.int64(0)
    gap = np.int64(1)  # nothing was written yet, or a space last
    i = start
    folds = folded[65] == 97  # otherwise the tables leave all but white space as it is
    lower = _SPACES if folds else np.uint64(0)  # of what is taken over, capitals alone lack that bit
    slow = start  # up to here byte by byte: what eight bytes are not ready for begins among them
    while i < end:
        if i >= slow and i + 8 <= end:
            x = load8(text, i)
            if _ready(x, folds, gap):
                store8(out, at, x | lower)
                at += 8
                i += 8
                gap = np.int64((x >> np.uint64(56)) == 32)
                continue
            slow = i + 8
        b = text[i]
        if b < 0x80:
            c = folded[b]
            word = np.int64(c != 0)
            out[at] = c if word else 32
            at += word | (1 - gap)  # a second space in a row is written over
            gap = 1 - word
            i += 1
            continue
        width = _width(b)
        c = _decode(text, i, width)
        i += width
        single = alone[min(c, TABLE)] != 0
        if c < TABLE:
            c = np.int64(folded[c])
        if c == 0:
            out[at] = 32
            at += 1 - gap
            gap = np.int64(1)
            continue
        if single and not gap:
            out[at] = 32
            at += 1
        at = _put(out, at, c)
        gap = np.int64(0)
        if single:
            out[at] = 32
            at += 1
            gap = np.int64(1)
    if gap and at > 0:
        at -= 1
    for j in range(PADDING):
        out[at + j] = 32
    return at


@njit(cache=True, nogil=True)
def characters(text: Any, start: Any, end: Any) -> Any:
    """Number of characters of valid UTF-8: bytes that do not continue one."""
    continued = 0
    i = start
    while i + 8 <= end:
        x = load8(text, i)
        continued += count_ones(x & (~x << np.uint64(1)) & _HIGHS)  # 10xxxxxx
        i += 8
    while i < end:
        continued += (text[i] & 0xC0) == 0x80
        i += 1
    return end - start - continued


@njit(cache=True, nogil=True)
def digest(text: Any, start: Any, end: Any, seed: Any, out: Any) -> None:
    """Two independent 64-bit hashes of ``text[start:end]`` into out[0], out[1]."""
    h = seed
    g = mix(seed + _MIX)
    i = start
    while i + 8 <= end:
        x = load8(text, i)
        h = fold(h, x)
        g = (g ^ x) * _MIX2
        g ^= g >> np.uint64(29)
        i += 8
    x = np.uint64(0)
    shift = np.uint64(0)
    while i < end:
        x |= np.uint64(text[i]) << shift
        shift += np.uint64(8)
        i += 1
    length = np.uint64(end - start)
    out[0] = mix(fold(h, x) ^ length)
    out[1] = mix(((g ^ x) * _MIX2) + length)


@njit(cache=True, nogil=True)
def words(clean: Any, at: Any, end: Any, seed: Any, units: Any, count: Any) -> Any:
    """Hash the words of normalised text from ``at`` on into ``units[count:]`` until one of them is full.

    Returns:
        (where to go on, units in the buffer); all is read when the first is ``end + 1``.
    """
    while at <= end and count < units.size:
        h = seed
        while True:
            x = load8(clean, at)
            y = x ^ _SPACES
            zeros = (y - _ONES) & ~y & _HIGHS  # its lowest set bit marks the first space
            if zeros:
                break
            h = fold(h, x)
            at += 8
        length = trailing_zeros(zeros) >> 3
        x &= (np.uint64(1) << np.uint64(8 * length)) - np.uint64(1)
        # The length takes the byte that is free: a word is told from one that ends in what pads it.
        units[count] = fold(h, x | np.uint64(length + 1) << np.uint64(56))
        count += 1
        at += length + 1
    return at, count


@njit(cache=True, nogil=True)
def letters(clean: Any, at: Any, end: Any, seed: Any, units: Any, count: Any) -> Any:
    """As `words`, for the characters of normalised text, the spaces between words among them."""
    while at < end and count < units.size:
        width = _width(clean[at])
        units[count] = fold(seed, np.uint64(_decode(clean, at, width)))
        count += 1
        at += width
    return (end + 1 if at >= end else at), count


@njit(cache=True, nogil=True)
def shingles(units: Any, count: Any, weights: Any, out: Any) -> Any:
    """Hashes of the ``n = weights.size - 1`` units from each place on; returns how many.

    Fewer than n units (of a whole text) are one shingle.
    """
    n = weights.size - 1
    if count < n:
        h = weights[n] * np.uint64(count)
        for j in range(count):
            h += units[j] * weights[j]
        out[0] = mix(h)
        return 1
    number = count - n + 1
    for i in range(number):
        out[i] = np.uint64(0)
    for j in range(n):  # the outer loop, so that the inner one runs over neighbours
        weight = weights[j]
        for i in range(number):
            out[i] += units[i + j] * weight
    for i in range(number):
        out[i] = mix(out[i])
    return number


@njit(cache=True, nogil=True)
def next_shingles(
    clean: Any, at: Any, end: Any, by_word: Any, seed: Any, weights: Any, units: Any, held: Any, out: Any
) -> Any:
    """The next shingles of normalised text.

    Args:
        clean, end: the text and its length, > 0.
        at: where to read on; 0 at first.
        by_word: whether a unit is a word.
        units: buffer of `UNITS` and more; its first ``held`` are the end of what came before.
        out: buffer as long.

    Returns:
        (where to go on, units held, shingles written); all is read when the first is ``end + 1``.
    """
    first = at == 0
    n = weights.size - 1
    if by_word:
        at, count = words(clean, at, end, seed, units, held)
    else:
        at, count = letters(clean, at, end, seed, units, held)
    if count < n and not first:
        return at, count, 0
    number = shingles(units, count, weights, out)
    keep = min(count, n - 1)
    for j in range(keep):
        units[j] = units[count - keep + j]
    return at, keep, number


@njit(cache=True, nogil=True)
def normalise_all(text: Any, offsets: Any, folded: Any, alone: Any, out: Any, ends: Any) -> None:
    """Normalise each text and put them one after another: ``ends[i]`` is where text i ends in ``out``.

    ``out`` holds ``room`` of all the bytes.
    """
    at = 0
    for i in range(offsets.size - 1):
        at += normalise(text, offsets[i], offsets[i + 1], folded, alone, out[at:])
        ends[i] = at


@njit(cache=True, nogil=True)
def digest_all(text: Any, offsets: Any, seed: Any, out: Any) -> None:
    """`digest` of each text into the rows of ``out`` (n, 2)."""
    for i in range(offsets.size - 1):
        digest(text, offsets[i], offsets[i + 1], seed, out[i])


@njit(cache=True, nogil=True)
def characters_all(text: Any, offsets: Any, out: Any) -> None:
    """`characters` of each text."""
    for i in range(out.size):
        out[i] = characters(text, offsets[i], offsets[i + 1])


@njit(cache=True, nogil=True)
def bytes_of(offsets: Any, chosen: Any) -> Any:
    """Bytes of some texts together."""
    total = 0
    for i in chosen:
        total += offsets[i + 1] - offsets[i]
    return total


@njit(cache=True, nogil=True)
def copy_out(text: Any, offsets: Any, chosen: Any, out: Any, ends: Any) -> None:
    """Put some texts one after another; ``ends`` are where each ends."""
    at = 0
    for k in range(chosen.size):
        for i in range(offsets[chosen[k]], offsets[chosen[k] + 1]):
            out[at] = text[i]
            at += 1
        ends[k] = at


@njit(cache=True, nogil=True)
def unequal(text: Any, offsets: Any, chosen: Any, others: Any, starts: Any, row: Any, out: Any) -> None:
    """Whether each of some texts differs from its other, ``others[starts[row] : starts[row + 1]]``."""
    for k in range(chosen.size):
        begin, end = offsets[chosen[k]], offsets[chosen[k] + 1]
        at = starts[row[k]]
        out[k] = end - begin != starts[row[k] + 1] - at
        if not out[k]:
            for i in range(end - begin):
                if text[begin + i] != others[at + i]:
                    out[k] = True
                    break
