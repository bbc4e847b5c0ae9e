"""Numba kernels that go through UTF-8 documents once and count what quality rules ask for."""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit

from posterhall.curation._characters import DIGIT, LETTER, SPACE, TABLE

# Columns of `shape`.
CHARS, WORDS, LINES, WORD_CHARS, DIGITS, SYMBOLS, HASHES, ELLIPSES, BULLETS, TRAILING, ALPHABETIC = range(11)
SHAPE_COLUMNS = 11

_PRIME = np.uint64(0x100000001B3)
_MIX = np.uint64(0x9E3779B97F4A7C15)
_ELLIPSIS = 0x2026


@njit(cache=True, nogil=True)
def decode(text: Any, at: Any, end: Any) -> Any:
    """The code point at a byte, and where the next one begins; the text is valid UTF-8."""
    first = np.int64(text[at])
    if first < 0x80:
        return first, at + 1
    if first < 0xE0 and at + 1 < end:
        return ((first & 0x1F) << 6) | (np.int64(text[at + 1]) & 0x3F), at + 2
    if first < 0xF0 and at + 2 < end:
        code = ((first & 0x0F) << 12) | ((np.int64(text[at + 1]) & 0x3F) << 6)
        return code | (np.int64(text[at + 2]) & 0x3F), at + 3
    if at + 3 < end:
        code = ((first & 0x07) << 18) | ((np.int64(text[at + 1]) & 0x3F) << 12)
        return code | ((np.int64(text[at + 2]) & 0x3F) << 6) | (np.int64(text[at + 3]) & 0x3F), at + 4
    return np.int64(0xFFFD), end


@njit(cache=True, nogil=True)
def kind_at(kinds: Any, code: Any) -> Any:
    """Kind of a code point, also beyond the table."""
    return np.int64(kinds[code]) if code < TABLE else LETTER


@njit(cache=True, nogil=True)
def _is_bullet(code: Any) -> Any:
    if code < 0x80:
        return code == 0x2A or code == 0x2D  # * -
    return (
        code == 0x2022 or code == 0x2023 or code == 0x25E6 or code == 0x2043 or code == 0x2219
        or code == 0x25AA or code == 0x25AB or code == 0x25A0 or code == 0x25A1 or code == 0x25CF
        or code == 0x25B6 or code == 0x25C0 or code == 0x2013 or code == 0x00B7
    )  # fmt: skip


@njit(cache=True, nogil=True)
def shape(text: Any, offsets: Any, kinds: Any, out: Any) -> None:
    """Count characters, words and lines of documents.

    Args:
        text: (B,) uint8.
        offsets: (n + 1,) int64.
        kinds: see `_characters.kinds`.
        out: (n, SHAPE_COLUMNS) int64. LINES are those that are not blank; WORD_CHARS the characters that
            are not white space; SYMBOLS those that are neither letter nor digit; ELLIPSES both "..." and
            "…"; BULLETS and TRAILING the lines that begin with a bullet and end with an ellipsis;
            ALPHABETIC the words with a letter.
    """
    for document in range(offsets.shape[0] - 1):
        at, end = offsets[document], offsets[document + 1]
        row = out[document]
        row[:] = 0
        in_word = False
        has_letter = False
        fresh_line = True  # nothing but white space since the last newline
        trailing = False  # the last thing seen on the line was an ellipsis
        dots = 0
        while at < end:
            code, at = decode(text, at, end)
            row[CHARS] += 1
            kind = kind_at(kinds, code)
            if kind == SPACE:
                if in_word:
                    in_word = False
                    row[ALPHABETIC] += has_letter
                if code == 10:
                    row[TRAILING] += trailing and not fresh_line
                    fresh_line = True
                    trailing = False
                dots = 0
                continue
            if not in_word:
                in_word = True
                has_letter = False
                row[WORDS] += 1
            row[WORD_CHARS] += 1
            if fresh_line:
                fresh_line = False
                row[LINES] += 1
                row[BULLETS] += _is_bullet(code)
            if kind == LETTER:
                has_letter = True
            elif kind == DIGIT:
                row[DIGITS] += 1
            else:
                row[SYMBOLS] += 1
                row[HASHES] += code == 0x23
            if code == 0x2E:
                dots += 1
                if dots == 3:
                    row[ELLIPSES] += 1
                trailing = dots >= 3
            else:
                dots = 0
                trailing = code == _ELLIPSIS
                row[ELLIPSES] += code == _ELLIPSIS
        row[ALPHABETIC] += in_word and has_letter
        row[TRAILING] += trailing and not fresh_line


@njit(cache=True, nogil=True)
def _mixed(h: Any) -> Any:
    h ^= h >> np.uint64(29)
    h *= _MIX
    return h ^ (h >> np.uint64(32))


@njit(cache=True, nogil=True)
def hash_words(text: Any, begin: Any, end: Any, kinds: Any, seed: Any, hashes: Any, lengths: Any) -> Any:
    """Hash and length in characters of each word of a document; returns how many there are."""
    count = 0
    h = seed
    length = 0
    at = begin
    while at < end:
        code, after = decode(text, at, end)
        if kind_at(kinds, code) == SPACE:
            if length:
                hashes[count] = _mixed(h)
                lengths[count] = length
                count += 1
                h = seed
                length = 0
        else:
            for i in range(at, after):
                h = (h ^ np.uint64(text[i])) * _PRIME
            length += 1
        at = after
    if length:
        hashes[count] = _mixed(h)
        lengths[count] = length
        count += 1
    return count


@njit(cache=True, nogil=True)
def hash_lines(text: Any, begin: Any, end: Any, kinds: Any, seed: Any, hashes: Any, lengths: Any) -> Any:
    """Hash and length of each line that is not blank, white space around it left out."""
    count = 0
    h = seed
    kept = seed  # the hash up to the last character that is not white space
    length = 0
    solid = 0
    at = begin
    while at < end:
        code, after = decode(text, at, end)
        if code == 10:
            if solid:
                hashes[count] = _mixed(kept)
                lengths[count] = solid
                count += 1
            h = seed
            length = 0
            solid = 0
        elif kind_at(kinds, code) != SPACE or solid:
            for i in range(at, after):
                h = (h ^ np.uint64(text[i])) * _PRIME
            length += 1
            if kind_at(kinds, code) != SPACE:
                kept = h
                solid = length
        at = after
    if solid:
        hashes[count] = _mixed(kept)
        lengths[count] = solid
        count += 1
    return count


@njit(cache=True, nogil=True)
def _place(keys: Any, stamps: Any, stamp: Any, mask: Any, key: Any) -> Any:
    """Where a key stands among those of this stamp, or the empty place for it."""
    at = np.int64(key & np.uint64(mask))
    while stamps[at] == stamp and keys[at] != key:
        at = (at + 1) & mask
    return at


@njit(cache=True, nogil=True)
def repetition(
    text: Any, offsets: Any, kinds: Any, seed: Any, top_from: Any, top_to: Any, rep_to: Any, out: Any
) -> None:
    """How much of each document is said more than once.

    Args:
        text, offsets, kinds: as `shape`.
        seed: of the hashes, uint64: unknown to whoever wrote the documents.
        top_from, top_to, rep_to: n-grams of top_from to top_to words are looked at for the most frequent
            one, of top_to + 1 to rep_to words for any that repeat.
        out: (n, 3 + rep_to - top_from + 1) float64: the share of distinct words; of lines that were there
            before; of characters of lines that were; then for each n-gram length the share of the words'
            characters in the most frequent n-gram (all its occurrences), or in n-grams that were there
            before (a character counts once). NaN where there is nothing to count.
    """
    longest = 1
    for document in range(offsets.shape[0] - 1):
        longest = max(longest, offsets[document + 1] - offsets[document])
    hashes = np.empty(longest + 1, np.uint64)
    lengths = np.empty(longest + 1, np.int64)
    size = 16
    while size < longest + 2:  # at most every other byte begins a word
        size *= 2
    keys = np.empty(size, np.uint64)
    counts = np.empty(size, np.int64)
    stamps = np.zeros(size, np.int64)
    stamp = 0
    for document in range(offsets.shape[0] - 1):
        begin, end = offsets[document], offsets[document + 1]
        row = out[document]
        row[:] = np.nan

        lines = hash_lines(text, begin, end, kinds, seed, hashes, lengths)
        mask = _mask(lines)
        stamp += 1
        again = 0
        again_chars = 0
        chars = 0
        for i in range(lines):
            at = _place(keys, stamps, stamp, mask, hashes[i])
            chars += lengths[i]
            if stamps[at] == stamp:
                again += 1
                again_chars += lengths[i]
            stamps[at] = stamp
            keys[at] = hashes[i]
        if lines:
            row[1] = again / lines
            row[2] = again_chars / chars

        words = hash_words(text, begin, end, kinds, seed, hashes, lengths)
        if words == 0:
            continue
        mask = _mask(words)
        stamp += 1
        distinct = 0
        chars = 0
        for i in range(words):
            at = _place(keys, stamps, stamp, mask, hashes[i])
            chars += lengths[i]
            if stamps[at] != stamp:
                distinct += 1
                stamps[at] = stamp
                keys[at] = hashes[i]
        row[0] = distinct / words

        for n in range(top_from, rep_to + 1):
            stamp += 1
            best = 0
            best_chars = 0
            covered = 0
            upto = 0  # words before this one are covered
            for i in range(words - n + 1):
                key = seed
                size_of = 0
                for j in range(i, i + n):
                    key = (key ^ hashes[j]) * _MIX
                    key ^= key >> np.uint64(31)
                    size_of += lengths[j]
                at = _place(keys, stamps, stamp, mask, key)
                if stamps[at] == stamp:
                    counts[at] += 1
                    for j in range(max(upto, i), i + n):
                        covered += lengths[j]
                    upto = max(upto, i + n)
                else:
                    stamps[at] = stamp
                    keys[at] = key
                    counts[at] = 1
                if counts[at] > best or (counts[at] == best and size_of > best_chars):
                    best = counts[at]
                    best_chars = size_of
            if n <= top_to:
                # An n-gram that occurs once is not repeated.
                row[3 + n - top_from] = min(1.0, best * best_chars / chars) if best > 1 else 0.0
            else:
                row[3 + n - top_from] = covered / chars


@njit(cache=True, nogil=True)
def _mask(items: Any) -> Any:
    size = 16
    while size < 2 * items:
        size *= 2
    return size - 1
