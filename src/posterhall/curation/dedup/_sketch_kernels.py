"""MinHash sketches of shingle sets, and the sets themselves (numba; every kernel releases the GIL).

The sketch is that of fast similarity sketching (Dahlgaard, Knudsen and Thorup, FOCS 2017) with one round of
buckets: each shingle goes to one of K slots, where the least value stays; a slot that got none takes the
least of its own hash over all shingles. Two texts agree in a slot with the probability J, their Jaccard
similarity: either way the slot holds the first shingle of the union in an order that does not depend on the
text. Long texts cost one step a shingle instead of K, and short ones are as precise as with K hashes.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit

from posterhall.curation.dedup._text_kernels import (
    UNITS,
    characters,
    digest,
    fold,
    mix,
    next_shingles,
    normalise,
    room,
)

EMPTY = np.uint32(0xFFFFFFFF)
_LOW = np.uint64(0xFFFFFFFF)


@njit(cache=True, nogil=True)
def _into_slots(found: Any, number: Any, slots: Any) -> None:
    k = np.uint64(slots.size)
    half = np.uint64(32)
    for i in range(number):
        h = found[i]
        slot = np.int64(((h >> half) * k) >> half)
        value = np.uint32(h & _LOW)
        slots[slot] = min(slots[slot], value)


@njit(cache=True, nogil=True)
def _narrow(found: Any, number: Any, out: Any) -> None:
    """Shingles in 32 bits, for `_least`."""
    for i in range(number):
        out[i] = np.uint32(found[i]) ^ np.uint32(found[i] >> np.uint64(32))


@njit(cache=True, nogil=True)
def _least(narrow: Any, number: Any, salt: Any, factor: Any) -> Any:
    """The least of a slot's own hash over shingles."""
    least = EMPTY
    for i in range(number):
        # Each step is cut back to 32 bits, or it would be done in 64, half as many at a time.
        x = np.uint32(np.uint32(narrow[i] ^ salt) * factor)
        x = np.uint32(np.uint32(x ^ np.uint32(x >> np.uint32(15))) * np.uint32(0x2C1B3C6D))
        least = min(least, x)
    return least


@njit(cache=True, nogil=True)
def sketch(
    clean: Any,
    end: Any,
    by_word: Any,
    seed: Any,
    weights: Any,
    salts: Any,
    factors: Any,
    units: Any,
    found: Any,
    narrow: Any,
    slots: Any,
) -> None:
    """Sketch of normalised text ``clean[:end]``, not empty, into ``slots`` (K,) uint32.

    ``salts`` and ``factors`` (K,) uint32, factors odd, are the slots' own hashes; ``units``, ``found``
    (uint64) and ``narrow`` (uint32) are buffers of `UNITS` and a shingle.
    """
    slots[:] = EMPTY
    zero = np.int64(0)
    at, held, number = next_shingles(clean, zero, end, by_word, seed, weights, units, zero, found)
    _into_slots(found, number, slots)
    if at > end:  # all shingles are in the buffer
        _narrow(found, number, narrow)
        for k in range(slots.size):
            if slots[k] == EMPTY:
                slots[k] = _least(narrow, number, salts[k], factors[k])
        return
    while at <= end:
        at, held, number = next_shingles(clean, at, end, by_word, seed, weights, units, held, found)
        _into_slots(found, number, slots)
    empty = slots == EMPTY
    if not empty.any():
        return
    at = zero
    held = zero
    while at <= end:  # a long text of few shingles is read again
        at, held, number = next_shingles(clean, at, end, by_word, seed, weights, units, held, found)
        _narrow(found, number, narrow)
        for k in range(slots.size):
            if empty[k]:
                slots[k] = min(slots[k], _least(narrow, number, salts[k], factors[k]))


@njit(cache=True, nogil=True)
def sketch_all(
    text: Any,
    offsets: Any,
    first: Any,
    last: Any,
    folded: Any,
    alone: Any,
    by_word: Any,
    seed: Any,
    weights: Any,
    salts: Any,
    factors: Any,
    bands: Any,
    keys: Any,
    marks: Any,
    identity: Any,
    lengths: Any,
) -> None:
    """Sketch the texts ``first`` to ``last - 1`` of a batch.

    Writes, at the text's place: ``keys`` (bands, n) uint64, a hash of the slots of each band; ``marks``
    (n, K) uint8, the low byte of each slot; ``identity`` (n, 2) uint64, a 128-bit hash of the normalised
    text, zero for a text without a word; ``lengths`` (n,) its characters before normalising.
    """
    longest = 0
    for i in range(first, last):
        longest = max(longest, offsets[i + 1] - offsets[i])
    clean = np.empty(room(longest), np.uint8)
    units = np.empty(UNITS + weights.size, np.uint64)
    found = np.empty(UNITS + weights.size, np.uint64)
    narrow = np.empty(found.size, np.uint32)
    slots = np.empty(salts.size, np.uint32)
    rows = salts.size // bands
    for i in range(first, last):
        lengths[i] = characters(text, offsets[i], offsets[i + 1])
        end = normalise(text, offsets[i], offsets[i + 1], folded, alone, clean)
        if end == 0:
            identity[i] = 0
            keys[:, i] = 0
            marks[i] = 0
            continue
        digest(clean, 0, end, seed, identity[i])
        sketch(clean, end, by_word, seed, weights, salts, factors, units, found, narrow, slots)
        for k in range(slots.size):
            marks[i, k] = slots[k] & np.uint32(0xFF)
        for band in range(bands):
            h = seed
            for row in range(rows):
                h = fold(h, np.uint64(slots[band * rows + row]))
            keys[band, i] = mix(h)


@njit(cache=True, nogil=True)
def _sort_unique(values: Any, count: Any, spare: Any) -> Any:
    """Sort hashes in place, each once, and return how many there are.

    A pass by the top bits puts hashes, which are spread evenly, within a few places of where they belong.
    """
    bits = np.uint64(1)
    while (1 << np.int64(bits)) < count and bits < np.uint64(24):
        bits += np.uint64(1)
    shift = np.uint64(64) - bits
    starts = np.zeros((1 << np.int64(bits)) + 1, np.int64)
    for i in range(count):
        starts[np.int64(values[i] >> shift) + 1] += 1
    for i in range(1, starts.size):
        starts[i] += starts[i - 1]
    for i in range(count):
        bucket = np.int64(values[i] >> shift)
        spare[starts[bucket]] = values[i]
        starts[bucket] += 1
    kept = 0
    for i in range(count):
        value = spare[i]
        at = kept
        while at > 0 and values[at - 1] > value:
            at -= 1
        if at > 0 and values[at - 1] == value:
            continue
        for j in range(kept, at, -1):
            values[j] = values[j - 1]
        values[at] = value
        kept += 1
    return kept


@njit(cache=True, nogil=True)
def shingle_sets(
    text: Any,
    offsets: Any,
    chosen: Any,
    folded: Any,
    alone: Any,
    by_word: Any,
    seed: Any,
    weights: Any,
    ends: Any,
) -> Any:
    """The distinct shingles of the texts ``chosen``, sorted, as 64-bit hashes.

    Returns:
        the sets one after another; that of ``chosen[i]`` ends at ``ends[i]``.
    """
    total = 0
    longest = 0
    for i in chosen:
        total += offsets[i + 1] - offsets[i]
        longest = max(longest, offsets[i + 1] - offsets[i])
    clean = np.empty(room(longest), np.uint8)
    units = np.empty(UNITS + weights.size, np.uint64)
    found = np.empty(UNITS + weights.size, np.uint64)
    mine = np.empty(UNITS + weights.size, np.uint64)
    spare = np.empty(UNITS + weights.size, np.uint64)
    result = np.empty(max(64, total // 4), np.uint64)
    used = np.int64(0)
    for which in range(chosen.size):
        i = chosen[which]
        end = normalise(text, offsets[i], offsets[i + 1], folded, alone, clean)
        at = np.int64(0 if end else 1)
        held = np.int64(0)
        count = np.int64(0)
        while at <= end:
            at, held, number = next_shingles(clean, at, end, by_word, seed, weights, units, held, found)
            if count + number > mine.size:
                count = _sort_unique(mine, count, spare)  # a long text may repeat itself
                if count + number > mine.size // 2:
                    larger = np.empty(2 * (count + number), np.uint64)
                    larger[:count] = mine[:count]
                    mine = larger
                    spare = np.empty(mine.size, np.uint64)
            mine[count : count + number] = found[:number]
            count += number
        if count:
            count = _sort_unique(mine, count, spare)
        if used + count > result.size:
            larger = np.empty(2 * (used + count), np.uint64)
            larger[:used] = result[:used]
            result = larger
        result[used : used + count] = mine[:count]
        used += count
        ends[which] = used
    return result[:used].copy()


@njit(cache=True, nogil=True)
def jaccard(sets: Any, starts: Any, first: Any, second: Any, begin: Any, end: Any, out: Any) -> None:
    """|A and B| / |A or B| of pairs ``begin`` to ``end - 1`` of sorted sets.

    Set s is ``sets[starts[s] : starts[s + 1]]``; ``first`` and ``second`` (pairs,) name them.
    """
    for pair in range(begin, end):
        a, a_end = starts[first[pair]], starts[first[pair] + 1]
        b, b_end = starts[second[pair]], starts[second[pair] + 1]
        size = (a_end - a) + (b_end - b)
        both = 0
        while a < a_end and b < b_end:
            x, y = sets[a], sets[b]
            both += x == y
            a += x <= y
            b += y <= x
        out[pair] = both / (size - both) if size else 0.0
