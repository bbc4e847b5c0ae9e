"""Counting and joining of adjacent words on streams of ids (numba; every kernel releases the GIL).

``codes`` maps each id to what it is to a phrase: >= 0 the rank of a word that may begin or end one, -1 a
word that may not, and <= -2 the connector number -2 - code. ``runs`` is a trie of connector sequences:
``runs[r, c]`` is the sequence r followed by c, 0 where there is none (0 itself is the empty sequence).
A candidate (first word a, connectors r, last word b) has the key (r * E + a) * E + b + 1, with E ranks;
0 marks an empty slot.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit

START, RUN, RUNS, PAIRS = 0, 1, 2, 3
STATE_SIZE = 4


@njit(cache=True, nogil=True)
def _mix(key: Any) -> Any:
    h = (key ^ (key >> np.uint64(31))) * np.uint64(0x9E3779B97F4A7C15)
    h = (h ^ (h >> np.uint64(29))) * np.uint64(0xBF58476D1CE4E5B9)
    return h ^ (h >> np.uint64(32))


@njit(cache=True, nogil=True)
def count_pairs(
    tokens: Any,
    begin: Any,
    codes: Any,
    ranks: Any,
    runs: Any,
    keys: Any,
    values: Any,
    part_mask: Any,
    part: Any,
    state: Any,
) -> Any:
    """Count the candidates whose hash falls into one part; returns the position reached.

    Stops early when the table (``keys``, ``values``: S, a power of two) is five eighths full. Connector
    sequences are numbered as they come, up to the rows of ``runs``; longer or further ones join nothing.
    """
    mask = np.uint64(keys.size - 1)
    limit = (keys.size * 5) >> 3
    start = state[START]
    run = state[RUN]
    base = np.uint64(ranks)
    for i in range(begin, tokens.size):
        t = tokens[i]
        if t < 0:
            start = -1
            continue
        code = codes[t]
        if code >= 0:
            if start >= 0:
                key = (np.uint64(run) * base + np.uint64(start)) * base + np.uint64(code) + np.uint64(1)
                h = _mix(key)
                if h >> np.uint64(32) & np.uint64(part_mask) == np.uint64(part):
                    at = h & mask
                    while keys[at] != 0 and keys[at] != key:
                        at = (at + np.uint64(1)) & mask
                    if keys[at] == 0:
                        if state[PAIRS] >= limit:
                            state[START] = start
                            state[RUN] = run
                            return i
                        keys[at] = key
                        state[PAIRS] += 1
                    values[at] += 1
            start = code
            run = 0
        elif code == -1:
            start = -1
        elif start >= 0:
            c = -2 - code
            following = runs[run, c]
            if following == 0 and state[RUNS] < runs.shape[0]:
                following = state[RUNS]
                runs[run, c] = following
                state[RUNS] = following + 1
            run = following
            if run == 0:
                start = -1
    state[START] = start
    state[RUN] = run
    return tokens.size


@njit(cache=True, nogil=True)
def put(keys: Any, values: Any, new_keys: Any, new_values: Any) -> None:
    """Store every (key, value) with a key above 0 in the pair of arrays ``new_keys``, ``new_values``."""
    mask = np.uint64(new_keys.size - 1)
    for i in range(keys.size):
        if keys[i] != 0:
            at = _mix(keys[i]) & mask
            while new_keys[at] != 0:
                at = (at + np.uint64(1)) & mask
            new_keys[at] = keys[i]
            new_values[at] = values[i]


@njit(cache=True, nogil=True)
def join(
    items: Any,
    index: Any,
    codes: Any,
    ranks: Any,
    runs: Any,
    keys: Any,
    values: Any,
    out: Any,
    out_index: Any,
    joined: Any,
) -> Any:
    """One greedy pass from left to right: a candidate in the table becomes the item ``values`` names.

    A joined item begins no further phrase in the same pass (as in word2phrase). ``index`` (n + 1,) says
    with which token each item begins; ``joined[t]`` is set where token t belongs to the item before it.

    Returns (items written, the first item whose fate depends on what follows: n if none).
    """
    mask = np.uint64(keys.size - 1)
    base = np.uint64(ranks)
    n = 0
    start = -1  # code of the word that may begin a phrase
    start_item = items.size  # its place in items
    start_out = 0  # its place in out
    run = 0
    for i in range(items.size):
        t = items[i]
        out[n] = t
        out_index[n] = index[i]
        n += 1
        code = codes[t] if t >= 0 else -1
        if code >= 0:
            found = np.uint64(0)
            if start >= 0:
                key = (np.uint64(run) * base + np.uint64(start)) * base + np.uint64(code) + np.uint64(1)
                at = _mix(key) & mask
                while keys[at] != 0 and keys[at] != key:
                    at = (at + np.uint64(1)) & mask
                found = keys[at]
                if found != 0:
                    out[start_out] = values[at]
                    n = start_out + 1
                    for token in range(index[start_item] + 1, index[i + 1]):
                        joined[token] = True
            if found != 0:
                start = -1
                start_item = items.size
            else:
                start = code
                start_item = i
                start_out = n - 1
            run = 0
        elif code == -1:
            start = -1
            start_item = items.size
        elif start >= 0:
            run = runs[run, -2 - code]
            if run == 0:
                start = -1
                start_item = items.size
    out_index[n] = index[items.size]
    return n, start_item


@njit(cache=True, nogil=True)
def emit(
    text: Any, end: Any, spans: Any, ids: Any, joined: Any, fresh_line: Any, delimiter: Any, out: Any
) -> Any:
    """Write the tokens with single spaces, ``delimiter`` where joined, and the newlines of the text.

    Args:
        text: bytes; ``text[:end]`` is written.
        spans: (n, 2) places of the tokens before ``end``; rows with ``ids`` -1 (newlines) are passed over.
        fresh_line: whether nothing has been written on this line yet.

    Returns (bytes written, fresh_line at the end).
    """
    n = 0
    pos = 0
    for i in range(spans.shape[0] + 1):
        if i < spans.shape[0] and ids[i] == -1:
            continue
        stop = spans[i, 0] if i < spans.shape[0] else end
        while pos < stop:
            if text[pos] == 10:
                out[n] = 10
                n += 1
                fresh_line = True
            pos += 1
        if i == spans.shape[0]:
            break
        if joined[i]:
            for k in range(delimiter.size):
                out[n] = delimiter[k]
                n += 1
        elif not fresh_line:
            out[n] = 32
            n += 1
        fresh_line = False
        while pos < spans[i, 1]:
            out[n] = text[pos]
            n += 1
            pos += 1
    return n, fresh_line
