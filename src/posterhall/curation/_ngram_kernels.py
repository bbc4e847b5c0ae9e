"""Numba kernels of n-gram models: text to word numbers, and word numbers to log-probabilities."""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit

from posterhall.curation._characters import DIGIT, LETTER, SPACE, TABLE
from posterhall.curation._score_kernels import decode, kind_at

UNKNOWN, BEGIN, END = 0, 1, 2
"""Word numbers of <unk>, <s> and </s>."""
SPECIAL = 3
LONGEST_WORD = 256
"""Bytes; a longer one is unknown."""
LONGEST_ORDER = 8

WORDS, WHITESPACE = 0, 1
"""How text is cut: see `cut`."""

_PRIME = np.uint64(0x100000001B3)
_MIX = np.uint64(0x9E3779B97F4A7C15)


@njit(cache=True, nogil=True)
def _append(buffer: Any, length: Any, code: Any) -> Any:
    """Put a code point behind the word as UTF-8; returns the new length, LONGEST_WORD + 1 if too long."""
    if length + 4 > LONGEST_WORD:
        return LONGEST_WORD + 1
    if code < 0x80:
        buffer[length] = code
        return length + 1
    if code < 0x800:
        buffer[length] = 0xC0 | (code >> 6)
        buffer[length + 1] = 0x80 | (code & 0x3F)
        return length + 2
    if code < 0x10000:
        buffer[length] = 0xE0 | (code >> 12)
        buffer[length + 1] = 0x80 | ((code >> 6) & 0x3F)
        buffer[length + 2] = 0x80 | (code & 0x3F)
        return length + 3
    buffer[length] = 0xF0 | (code >> 18)
    buffer[length + 1] = 0x80 | ((code >> 12) & 0x3F)
    buffer[length + 2] = 0x80 | ((code >> 6) & 0x3F)
    buffer[length + 3] = 0x80 | (code & 0x3F)
    return length + 4


@njit(cache=True, nogil=True)
def _stands_alone(code: Any) -> Any:
    """Whether a letter belongs to a script without spaces, where runs of letters are no words.

    Thai, Lao, Myanmar, Khmer, Hiragana, Katakana and the Chinese characters.
    """
    if code < 0x0E00:
        return False
    return (
        code < 0x0F00
        or 0x1000 <= code < 0x10A0
        or 0x1780 <= code < 0x1800
        or 0x3040 <= code < 0x3100
        or 0x31F0 <= code < 0x3200
        or 0x3400 <= code < 0x4DC0
        or 0x4E00 <= code < 0xA000
        or 0xF900 <= code < 0xFB00
        or code >= TABLE
    )


@njit(cache=True, nogil=True)
def _next_word(text: Any, at: Any, end: Any, unit: Any, kinds: Any, lower: Any, buffer: Any) -> Any:
    """The word that begins at a byte which is not white space: (its bytes in `buffer`, where it ends)."""
    length = 0
    code, after = decode(text, at, end)
    kind = kind_at(kinds, code)
    if unit == WORDS and ((kind != LETTER and kind != DIGIT) or _stands_alone(code)):
        return _append(buffer, 0, code), after
    first = kind
    while True:
        if unit == WORDS:
            if first == LETTER:
                if length <= LONGEST_WORD:
                    length = _append(buffer, length, np.int64(lower[code]) if code < TABLE else code)
            elif length == 0:
                length = _append(buffer, 0, np.int64(0x30))
        elif length <= LONGEST_WORD:
            length = _append(buffer, length, code)
        at = after
        if at >= end:
            return length, at
        code, after = decode(text, at, end)
        kind = kind_at(kinds, code)
        if kind == SPACE or (unit == WORDS and (kind != first or _stands_alone(code))):
            return length, at


@njit(cache=True, nogil=True)
def _hash(buffer: Any, length: Any, seed: Any) -> Any:
    h = seed
    for i in range(length):
        h = (h ^ np.uint64(buffer[i])) * _PRIME
    h ^= h >> np.uint64(29)
    h *= _MIX
    return h ^ (h >> np.uint64(32))


@njit(cache=True, nogil=True)
def _find(slots: Any, hashes: Any, starts: Any, arena: Any, h: Any, buffer: Any, length: Any) -> Any:
    """Place of a word in the table, or the empty place where it belongs."""
    mask = slots.shape[0] - 1
    at = np.int64(h & np.uint64(mask))
    while slots[at] >= 0:
        word = slots[at]
        if hashes[word] == h and starts[word + 1] - starts[word] == length:
            same = True
            for i in range(length):
                if arena[starts[word] + i] != buffer[i]:
                    same = False
                    break
            if same:
                return at
        at = (at + 1) & mask
    return at


@njit(cache=True, nogil=True)
def enter(slots: Any, hashes: Any, starts: Any, arena: Any, count: Any, seed: Any) -> None:
    """Enter the first `count` words of an arena into an empty table."""
    mask = slots.shape[0] - 1
    for word in range(count):
        h = _hash(arena[starts[word] : starts[word + 1]], starts[word + 1] - starts[word], seed)
        hashes[word] = h
        at = np.int64(h & np.uint64(mask))
        while slots[at] >= 0:
            at = (at + 1) & mask
        slots[at] = word


@njit(cache=True, nogil=True)
def cut(
    text: Any,
    offsets: Any,
    first: Any,
    unit: Any,
    kinds: Any,
    lower: Any,
    slots: Any,
    hashes: Any,
    starts: Any,
    arena: Any,
    count: Any,
    grow: Any,
    seed: Any,
    ids: Any,
    ends: Any,
    filled: Any,
) -> Any:
    """Turn documents into word numbers; every line that is not blank is a sentence and gets an END.

    Cut into WORDS, a word is a run of letters in lower case, a run of digits is the word 0, and any other
    character that is not white space is a word, as is each letter of a script without spaces. Cut at
    WHITESPACE, words are what stands between it.

    Args:
        text, offsets: UTF-8 documents.
        first: document to begin with.
        slots: (S,) int32, -1 where empty; hashes (W,) uint64; starts (W + 1,) int64; arena uint8.
        count: words in the table.
        grow: enter new words; otherwise they are UNKNOWN.
        ids: (text bytes + documents,) int32, filled from `filled` on.
        ends: (n,) int64, where each document ends in `ids`.

    Returns:
        (document that did not fit the table, or n; words in the table; numbers filled).
    """
    buffer = np.empty(LONGEST_WORD + 8, np.uint8)
    for document in range(first, offsets.shape[0] - 1):
        at, end = offsets[document], offsets[document + 1]
        if grow:
            most = end - at  # words; their lower case may take half as many bytes again
            if (
                count + most > hashes.shape[0]
                or starts[count] + 2 * most > arena.shape[0]
                or 2 * (count + most) > slots.shape[0]
            ):
                return document, count, filled
        open_line = False
        while at < end:
            code, after = decode(text, at, end)
            if kind_at(kinds, code) == SPACE:
                if code == 10 and open_line:
                    ids[filled] = END
                    filled += 1
                    open_line = False
                at = after
                continue
            open_line = True
            length, at = _next_word(text, at, end, unit, kinds, lower, buffer)
            word = UNKNOWN
            if length <= LONGEST_WORD:
                h = _hash(buffer, length, seed)
                place = _find(slots, hashes, starts, arena, h, buffer, length)
                if slots[place] >= 0:
                    word = slots[place] if slots[place] >= SPECIAL else UNKNOWN  # "<s>" in a text
                elif grow:
                    word = count
                    used = starts[count]
                    for i in range(length):
                        arena[used + i] = buffer[i]
                    starts[count + 1] = used + length
                    hashes[count] = h
                    slots[place] = count
                    count += 1
            ids[filled] = word
            filled += 1
        if open_line:
            ids[filled] = END
            filled += 1
        ends[document] = filled
    return offsets.shape[0] - 1, count, filled


@njit(cache=True, nogil=True)
def _child(children: Any, words: Any, context: Any, word: Any) -> Any:
    """The n-gram of a context and a word, or -1."""
    low, high = children[context], children[context + 1]
    while low < high:
        middle = (low + high) >> 1
        if words[middle] < word:
            low = middle + 1
        else:
            high = middle
    if low < children[context + 1] and words[low] == word:
        return low
    return np.int64(-1)


@njit(cache=True, nogil=True)
def log_probabilities(
    ids: Any, order: Any, children: Any, words: Any, probabilities: Any, backoffs: Any, out: Any
) -> None:
    """Natural log-probability of each word given the words before it in its sentence.

    N-grams are numbered by length, unigrams first (number = word); those of one context follow one another
    in the order of their last words.

    Args:
        ids: (n,) int32, sentences that end with END.
        order: longest n-gram, at most LONGEST_ORDER.
        children: (contexts + 1,) int64, first longer n-gram of each n-gram below the highest order.
        words: (n-grams,) int32, last word.
        probabilities, backoffs: (n-grams,) and (contexts,) float32, natural logarithms.
        out: (n,) float64.
    """
    context = np.empty(LONGEST_ORDER + 1, np.int64)
    after = np.empty(LONGEST_ORDER + 1, np.int64)
    length = min(1, order - 1)
    context[1] = BEGIN
    for t in range(ids.shape[0]):
        word = np.int64(ids[t])
        after[1] = word
        node = word
        matched = 1
        # The n-gram that ends here is known only if all shorter ones that end here are.
        while matched <= length:
            child = _child(children, words, context[matched], word)
            if child < 0:
                break
            matched += 1
            after[matched] = child
            node = child
        total = np.float64(probabilities[node])
        for k in range(matched, length + 1):
            total += backoffs[context[k]]
        out[t] = total
        if word == END:
            length = min(1, order - 1)
            context[1] = BEGIN
        else:
            length = min(matched, order - 1)
            for k in range(1, length + 1):
                context[k] = after[k]


@njit(cache=True, nogil=True)
def add_up(values: Any, ends: Any, sums: Any, counts: Any) -> None:
    """Sum and number of the values of each document."""
    begin = 0
    for document in range(ends.shape[0]):
        total = 0.0
        for t in range(begin, ends[document]):
            total += values[t]
        sums[document] = total
        counts[document] = ends[document] - begin
        begin = ends[document]
