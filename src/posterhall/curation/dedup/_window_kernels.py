"""Windows of characters, told apart by the least hash of their parts (numba; kernels release the GIL).

Winnowing (Schleimer, Wilkerson and Aiken, SIGMOD 2003): of the hashes of all parts of ``part`` characters
in a window of N, the least depends on the window alone. So equal windows have equal least hashes wherever
they stand, and windows can be sorted out by it: what does not come up in two documents is not shared.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit

from posterhall.curation.dedup._text_kernels import _decode, _width, mix

_MIX = np.uint64(0x9E3779B97F4A7C15)


@njit(cache=True, nogil=True)
def _power(base: Any, exponent: Any) -> Any:
    result = np.uint64(1)
    for _ in range(exponent):
        result *= base
    return result


@njit(cache=True, nogil=True)
def least_hashes(
    text: Any, start: Any, end: Any, window: Any, part: Any, seed: Any, recent: Any, out: Any
) -> Any:
    """The least hash of each window of ``text[start:end]``, written to ``out``; returns their number.

    Args:
        window, part: characters, 1 <= part <= window.
        recent: uint64 scratch, a power of two above ``window - part`` long.
        out: holds as many uint64 as the text has characters.
    """
    base = seed | np.uint64(1)
    gone = _power(base, part) * _MIX
    mask = recent.size - 1
    parts = window - part + 1  # in a window
    h = np.uint64(0)
    least = np.uint64(0xFFFFFFFFFFFFFFFF)
    where = np.int64(0)  # the last character of the part whose hash is least
    ahead = start
    behind = start
    at = np.int64(0)  # characters taken in
    count = 0
    while ahead < end:
        width = _width(text[ahead])
        h = h * base + (np.uint64(_decode(text, ahead, width)) + np.uint64(1)) * _MIX
        ahead += width
        at += 1
        if at > part:
            width = _width(text[behind])
            h -= gone * (np.uint64(_decode(text, behind, width)) + np.uint64(1))
            behind += width
        if at < part:
            continue
        value = mix(h)
        recent[at & mask] = value
        # Of equal hashes the latest, so that a text of one letter is not looked through each time.
        if value <= least:
            least = value
            where = at
        elif where <= at - parts:  # it left the window: which of those in it is least now?
            least = value
            where = at
            for back in range(1, parts):
                i = at - back
                if recent[i & mask] < least:
                    least = recent[i & mask]
                    where = i
        if at >= window:
            out[count] = least
            count += 1
    return count


@njit(cache=True, nogil=True)
def _scratch(size: Any) -> Any:
    """A power of two above a size."""
    room = 1
    while room <= size:
        room *= 2
    return room


@njit(cache=True, nogil=True)
def samples(text: Any, offsets: Any, first: Any, last: Any, window: Any, part: Any, seed: Any) -> Any:
    """(least hash, text) wherever the least hash changes from one window to the next.

    Returns:
        (hashes, texts): texts are counted within the batch.
    """
    longest = 0
    total = 0
    for i in range(first, last):
        longest = max(longest, offsets[i + 1] - offsets[i])
        total += offsets[i + 1] - offsets[i]
    out = np.empty(longest + 1, np.uint64)
    recent = np.empty(_scratch(window - part), np.uint64)
    found = np.empty(max(256, total // 16), np.uint64)
    texts = np.empty(found.size, np.int64)
    used = 0
    for i in range(first, last):
        number = least_hashes(text, offsets[i], offsets[i + 1], window, part, seed, recent, out)
        for k in range(number):
            if k and out[k] == out[k - 1]:
                continue
            if used == found.size:
                more = np.empty(2 * used, np.uint64)
                more[:used] = found
                found = more
                longer = np.empty(2 * used, np.int64)
                longer[:used] = texts
                texts = longer
            found[used] = out[k]
            texts[used] = i
            used += 1
    return found[:used].copy(), texts[:used].copy()


@njit(cache=True, nogil=True)
def in_several(hashes: Any, texts: Any, order: Any) -> Any:
    """Hashes that come up in two texts or more: (hashes ascending, how often each comes up)."""
    found = np.empty(order.size // 2 + 1, np.uint64)
    counts = np.empty(found.size, np.int64)
    used = 0
    i = 0
    while i < order.size:
        j = i + 1
        several = False
        while j < order.size and hashes[order[j]] == hashes[order[i]]:
            several |= texts[order[j]] != texts[order[i]]
            j += 1
        if several:
            found[used] = hashes[order[i]]
            counts[used] = j - i
            used += 1
        i = j
    return found[:used].copy(), counts[:used].copy()


@njit(cache=True, nogil=True)
def fill_filter(hashes: Any, bits: Any) -> None:
    """Set a bit for each hash; ``bits`` (a power of two,) uint8 holds eight each."""
    mask = np.uint64(8 * bits.size - 1)
    for h in hashes:
        bit = h & mask
        bits[np.int64(bit >> np.uint64(3))] |= np.uint8(1 << np.int64(bit & np.uint64(7)))


@njit(cache=True, nogil=True)
def _among(hashes: Any, bits: Any, h: Any) -> Any:
    bit = h & np.uint64(8 * bits.size - 1)
    if not bits[np.int64(bit >> np.uint64(3))] >> np.int64(bit & np.uint64(7)) & 1:
        return False
    low, high = 0, hashes.size
    while low < high:
        middle = (low + high) >> 1
        if hashes[middle] < h:
            low = middle + 1
        else:
            high = middle
    return low < hashes.size and hashes[low] == h


@njit(cache=True, nogil=True)
def stretches(
    text: Any,
    offsets: Any,
    first: Any,
    last: Any,
    window: Any,
    part: Any,
    seed: Any,
    hot: Any,
    bits: Any,
    parts: Any,
) -> Any:
    """Stretches of neighbouring windows whose least hash is hot, cut where its part of all hashes changes.

    Returns:
        rows (text, first byte, byte after the last window, character of the first, part).
    """
    longest = 0
    for i in range(first, last):
        longest = max(longest, offsets[i + 1] - offsets[i])
    out = np.empty(longest + 1, np.uint64)
    recent = np.empty(_scratch(window - part), np.uint64)
    rows = np.empty((256, 5), np.int64)
    used = 0
    half = np.uint64(32)
    for i in range(first, last):
        number = least_hashes(text, offsets[i], offsets[i + 1], window, part, seed, recent, out)
        current = np.int64(-1)
        begin = end = offsets[i]  # places of the characters first_at and last_at: most texts need none
        first_at = last_at = 0
        for k in range(number + 1):
            which = np.int64(-1)
            if k < number:
                h = out[k]
                if k and h == out[k - 1]:
                    continue
                if _among(hot, bits, h):
                    which = np.int64(((h >> half) * np.uint64(parts)) >> half)
            if which == current:
                continue
            if current >= 0:
                while last_at < k - 1 + window:
                    end += _width(text[end])
                    last_at += 1
                rows[used - 1, 2] = end
            if which >= 0:
                while first_at < k:
                    begin += _width(text[begin])
                    first_at += 1
                if used == rows.shape[0]:
                    longer = np.empty((2 * used, 5), np.int64)
                    longer[:used] = rows
                    rows = longer
                rows[used, 0] = i
                rows[used, 1] = begin
                rows[used, 3] = k
                rows[used, 4] = which
                used += 1
            current = which
    return rows[:used].copy()


@njit(cache=True, nogil=True)
def gather(text: Any, begins: Any, ends: Any, separator: Any, out: Any) -> None:
    """Copy stretches of bytes one after another, a separator after each."""
    at = 0
    for k in range(begins.size):
        for i in range(begins[k], ends[k]):
            out[at] = text[i]
            at += 1
        out[at] = separator
        at += 1
