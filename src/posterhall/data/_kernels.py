"""Byte-level tokenising, interning and encoding (numba; every kernel releases the GIL).

A word table is a tuple of arrays ``(keys, slots, starts, arena, counts)``:

- ``keys`` (S,) uint64 and ``slots`` (S,) int32, S a power of two: open addressing with linear probing;
  ``slots`` holds id + 1, 0 is empty. A word of at most seven bytes is its own key, so that an equal key
  proves an equal word without a look at the text; a longer word has a 64-bit hash with the top bit
  set, and its bytes are compared. (A short word's top byte is zero, so the two never meet.)
- ``starts`` (N + 1,) int64 and ``arena`` (B,) uint8: word i is ``arena[starts[i]:starts[i+1]-1]``,
  followed by one space (so that a slice of the arena decodes and splits in one call).
- ``counts`` (N,) int64.

NUL never occurs in a word (it is refused on reading): that is what makes a short key exact.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit

from posterhall.data._bytes import load8, trailing_zeros
from posterhall.simd import prefetch

# Indices into the state vector of `scan`.
WORDS, ARENA, OUT, TOKENS, LINES, OPEN, STATUS = 0, 1, 2, 3, 4, 5, 6
STATE_SIZE = 7
DONE, GROW, NUL, LONG = 0, 1, 2, 3
MAX_WORD_BYTES = 10_000
PADDING = 8

_BATCH = 64
_SHORT = 7  # bytes that fit a key beside a zero top byte
_LONG_MARK = np.uint64(0x8000000000000000)
_LOW7 = np.uint64(0x7F7F7F7F7F7F7F7F)
_HIGH1 = np.uint64(0x8080808080808080)
_ABOVE_SPACE = np.uint64(0x5F5F5F5F5F5F5F5F)  # 127 - 32: carries into the top bit for bytes above space


@njit(cache=True, nogil=True)
def _slot(key: Any, bits: Any) -> Any:
    return np.int64(((key ^ (key >> np.uint64(29))) * np.uint64(0x9E3779B97F4A7C15)) >> np.uint64(64 - bits))


@njit(cache=True, nogil=True)
def _fold(h: Any, eight: Any) -> Any:
    """One step of the hash of a long word: eight more bytes."""
    h = (h ^ eight) * np.uint64(0x9E3779B97F4A7C15)
    return h ^ (h >> np.uint64(32))


@njit(cache=True, nogil=True)
def _key_of(text: Any, start: Any, end: Any) -> Any:
    """Key of the word ``text[start:end]``, byte by byte; `scan` finds the same eight bytes at a time."""
    h = np.uint64(0)
    key = np.uint64(0)
    shift = 0
    for i in range(start, end):
        key |= np.uint64(text[i]) << np.uint64(shift)
        shift += 8
        if shift == 64:
            h = _fold(h, key)
            key = np.uint64(0)
            shift = 0
    if end - start > _SHORT:
        return _fold(h, key) | _LONG_MARK
    return key


@njit(cache=True, nogil=True)
def _same(starts: Any, arena: Any, word: Any, text: Any, start: Any, end: Any) -> bool:
    first = starts[word]
    if starts[word + 1] - 1 - first != end - start:
        return False
    for i in range(end - start):  # noqa: SIM110 - numba has no all() over a generator
        if arena[first + i] != text[start + i]:
            return False
    return True


@njit(cache=True, nogil=True)
def _find(
    keys: Any, slots: Any, starts: Any, arena: Any, bits: Any, key: Any, text: Any, start: Any, end: Any
) -> Any:
    """Slot of the word, or of the empty place where it belongs."""
    mask = (1 << bits) - 1
    at = _slot(key, bits)
    long = end - start > _SHORT
    while slots[at] != 0:
        if keys[at] == key and (not long or _same(starts, arena, slots[at] - 1, text, start, end)):
            break
        at = (at + 1) & mask
    return at


@njit(cache=True, nogil=True)
def _append(
    keys: Any,
    slots: Any,
    starts: Any,
    arena: Any,
    counts: Any,
    at: Any,
    key: Any,
    text: Any,
    start: Any,
    end: Any,
    state: Any,
) -> None:
    word = state[WORDS]
    used = state[ARENA]
    for i in range(start, end):
        arena[used] = text[i]
        used += 1
    arena[used] = 32
    used += 1
    starts[word + 1] = used
    counts[word] = 0
    keys[at] = key
    slots[at] = word + 1
    state[WORDS] = word + 1
    state[ARENA] = used


@njit(cache=True, nogil=True)
def scan(
    text: Any,
    begin: Any,
    end: Any,
    keys: Any,
    slots: Any,
    starts: Any,
    arena: Any,
    counts: Any,
    bits: Any,
    insert: Any,
    out: Any,
    spans: Any,
    state: Any,
) -> Any:
    """Split ``text[begin:end]`` at ASCII white space, look each word up, count it, write its id.

    ``text[end]`` must be white space (a sentinel: no look-out for the end inside a word), and PADDING bytes
    of any content must follow ``end``.
    With ``insert`` unknown words enter the table; without, they are skipped and nothing is counted.
    ``out`` (may be empty: then ids are not written) receives ids, and -1 at the first newline and after
    each sentence that kept a word; it must hold end - begin + 1 values. (A block cannot know whether it
    continues a sentence; whoever joins blocks drops a leading -1 that closes nothing.)

    ``spans`` (empty, or as long as ``out``: (n, 2) int32) receives where each id's word begins and ends in
    the text; unknown words are then written too, as -2.

    Stops early, with ``state[STATUS]`` GROW when the table or arena is full (call again from the
    returned position), NUL at a NUL byte, or LONG at a word of more than MAX_WORD_BYTES.

    Returns the position reached.
    """
    write = out.size > 0
    locate = spans.size > 0
    mask = (1 << bits) - 1
    limit = min(counts.size, (slots.size * 5) >> 3)
    n_out = state[OUT]
    tokens = state[TOKENS]
    lines = state[LINES]
    is_open = state[OPEN]
    # Words are found a batch ahead of their look-up, and their slots asked for at once: with a large
    # vocabulary the time goes into waiting for memory, and these waits overlap.
    batch_start = np.empty(_BATCH, np.int64)
    batch_size = np.empty(_BATCH, np.int64)  # bytes of the word, 0 for a newline
    batch_key = np.empty(_BATCH, np.uint64)
    pos = begin
    status = DONE
    while pos < end and status == DONE:
        held = 0
        while pos < end and held < _BATCH:
            b = text[pos]
            if b <= 32 and (b == 32 or (b >= 9 and b <= 13)):
                if b == 10:
                    batch_start[held] = pos
                    batch_size[held] = 0
                    held += 1
                pos += 1
                continue
            start = pos
            h = np.uint64(0)
            while True:  # eight bytes at a time until one of them is white space or control
                eight = load8(text, pos)
                stops = ~(((eight & _LOW7) + _ABOVE_SPACE) | eight) & _HIGH1
                if stops != 0:
                    break
                h = _fold(h, eight)
                pos += 8
            bits_left = trailing_zeros(stops) & 56  # 8 x the bytes before the stop
            key = eight & ((np.uint64(1) << np.uint64(bits_left)) - np.uint64(1))
            pos += bits_left >> 3
            b = text[pos]
            if not (b == 32 or (b >= 9 and b <= 13)):  # a control character inside a word, seldom
                while not (b == 32 or (b >= 9 and b <= 13)) and b != 0:
                    pos += 1
                    b = text[pos]
                if b == 0:
                    status = NUL
                    break
                key = _key_of(text, start, pos)
            elif pos - start > _SHORT:
                key = _fold(h, key) | _LONG_MARK
            if pos - start > MAX_WORD_BYTES:
                status = LONG
                pos = start
                break
            at = _slot(key, bits)
            prefetch(keys, at)
            prefetch(slots, at)
            batch_start[held] = start
            batch_size[held] = pos - start
            batch_key[held] = key
            held += 1

        for j in range(held):
            size = batch_size[j]
            if size == 0:
                lines += 1
                if is_open and write:
                    out[n_out] = -1
                    if locate:
                        spans[n_out, 0] = spans[n_out, 1] = batch_start[j]
                    n_out += 1
                is_open = 0
                continue
            start = batch_start[j]
            key = batch_key[j]
            # The look-up of `_find`, written out: numba counts references to every array handed to a
            # function, atomically, which made the call five times as slow as the search itself.
            at = _slot(key, bits)
            word = np.int64(slots[at]) - 1
            while word >= 0:
                if keys[at] == key:
                    if size <= _SHORT:
                        break
                    first = starts[word]
                    i = starts[word + 1] - 1 - first - size  # 0 where the lengths agree
                    if i == 0:
                        while i < size and arena[first + i] == text[start + i]:
                            i += 1
                        if i == size:
                            break
                at = (at + 1) & mask
                word = np.int64(slots[at]) - 1
            if word < 0 and insert:
                if state[WORDS] >= limit or state[ARENA] + size + 1 > arena.size:
                    status = GROW
                    pos = start
                    break
                _append(keys, slots, starts, arena, counts, at, key, text, start, start + size, state)
                word = np.int64(slots[at]) - 1
            tokens += 1
            if word < 0:
                if not locate:
                    continue
                word = np.int64(-2)
            if insert:
                counts[word] += 1
            is_open = 1
            if write:
                out[n_out] = word
                if locate:
                    spans[n_out, 0] = start
                    spans[n_out, 1] = start + size
                n_out += 1
    state[OUT] = n_out
    state[TOKENS] = tokens
    state[LINES] = lines
    state[OPEN] = is_open
    state[STATUS] = status
    return pos


@njit(cache=True, nogil=True)
def rehash(keys: Any, slots: Any, new_keys: Any, new_slots: Any, bits: Any) -> None:
    """Move every entry into the larger (or emptied) pair of arrays."""
    mask = (1 << bits) - 1
    for i in range(slots.size):
        if slots[i] != 0:
            at = _slot(keys[i], bits)
            while new_slots[at] != 0:
                at = (at + 1) & mask
            new_keys[at] = keys[i]
            new_slots[at] = slots[i]


@njit(cache=True, nogil=True)
def reindex(starts: Any, arena: Any, words: Any, keys: Any, slots: Any, bits: Any) -> None:
    """Fill the empty ``keys`` and ``slots`` from the words in the arena."""
    for word in range(words):
        first = starts[word]
        last = starts[word + 1] - 1
        key = _key_of(arena, first, last)
        at = _find(keys, slots, starts, arena, bits, key, arena, first, last)
        keys[at] = key
        slots[at] = word + 1


@njit(cache=True, nogil=True)
def merge(
    starts: Any,
    arena: Any,
    counts: Any,
    begin: Any,
    end: Any,
    keys: Any,
    slots: Any,
    to_starts: Any,
    to_arena: Any,
    to_counts: Any,
    bits: Any,
    ids: Any,
    state: Any,
) -> Any:
    """Add words ``begin..end`` of one table to another; ``ids[i]`` becomes the id there.

    Returns the number of words done: fewer than ``end`` when the target must grow first.
    """
    limit = min(to_counts.size, (slots.size * 5) >> 3)
    for word in range(begin, end):
        first = starts[word]
        last = starts[word + 1] - 1
        key = _key_of(arena, first, last)
        at = _find(keys, slots, to_starts, to_arena, bits, key, arena, first, last)
        if slots[at] == 0:
            if state[WORDS] >= limit or state[ARENA] + (last - first) + 1 > to_arena.size:
                return word
            _append(keys, slots, to_starts, to_arena, to_counts, at, key, arena, first, last, state)
        to = slots[at] - 1
        to_counts[to] += counts[word]
        ids[word] = to
    return end


@njit(cache=True, nogil=True)
def keep_words(starts: Any, arena: Any, counts: Any, words: Any, floor: Any) -> tuple[int, int]:
    """Drop, in place, the words counted at most ``floor`` times; returns (words left, arena used)."""
    n = 0
    used = 0
    for word in range(words):
        if counts[word] > floor:
            first = starts[word]
            size = starts[word + 1] - first
            for i in range(size):
                arena[used + i] = arena[first + i]
            used += size
            counts[n] = counts[word]
            n += 1
            starts[n] = used
    return n, used


@njit(cache=True, nogil=True)
def remap(tokens: Any, ids: Any, out: Any, is_open: Any) -> tuple[int, bool]:
    """Map ids (``ids[t]`` < 0 drops the token); -1 ends a sentence if a word of it was kept.

    ``out`` may be ``tokens`` itself. Returns (length, whether a sentence is open at the end).
    """
    n = 0
    for i in range(tokens.size):
        t = tokens[i]
        if t < 0:
            if is_open:
                out[n] = -1
                n += 1
            is_open = False
        else:
            to = ids[t]
            if to >= 0:
                out[n] = to
                n += 1
                is_open = True
    return n, is_open


@njit(cache=True, nogil=True)
def remap_all(tokens: Any, ids: Any) -> Any:
    """Map ids one to one (no ``ids[t]`` is negative); -1 is kept, of several in a row one."""
    out = np.empty_like(tokens)
    n = 0
    for i in range(tokens.size):
        t = tokens[i]
        if t >= 0:
            out[n] = ids[t]
            n += 1
        elif n == 0 or out[n - 1] >= 0:
            out[n] = -1
            n += 1
    return out[:n]


@njit(cache=True, nogil=True)
def cut(tokens: Any, base: Any, words: Any, chunk_words: Any, cuts: Any) -> tuple[int, int, int]:
    """Offsets at which chunks close: a sentence end at or after ``chunk_words`` words, or twice that.

    ``base`` is the offset of ``tokens[0]`` in the stream and ``words`` the words already in the open
    chunk. Returns (number of cuts, words in the open chunk, words among ``tokens``).
    """
    n = 0
    seen = 0
    for i in range(tokens.size):
        if tokens[i] < 0:
            if words >= chunk_words:
                cuts[n] = base + i + 1
                n += 1
                words = 0
        else:
            # The hard cut waits for the next word, so that a sentence of exactly this size keeps its end.
            if words >= 2 * chunk_words:
                cuts[n] = base + i
                n += 1
                words = 0
            words += 1
            seen += 1
    return n, words, seen
