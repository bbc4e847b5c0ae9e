"""Kernels that draw a plan: which rows of the two matrices meet, from a chunk of the corpus.

`_kernels.py` describes the plan's arrays and applies them.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit

ALWAYS = np.uint32(0xFFFFFFFF)
"""Keep threshold of a word that is never subsampled away."""

GOLDEN = np.uint64(0x9E3779B97F4A7C15)

_OPTIONS: dict[str, Any] = {"cache": True, "nogil": True, "boundscheck": False, "error_model": "numpy"}


@njit(**_OPTIONS, inline="always")
def _mix(state: Any) -> Any:
    """SplitMix64's output function; the state advances by the golden ratio (Steele et al. 2014)."""
    z = (state ^ (state >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return z ^ (z >> np.uint64(31))


@njit(**_OPTIONS)
def plan_windows(
    tokens: Any,
    keep: Any,
    window: int,
    shrink: bool,
    max_sentence: int,
    seed: Any,
    kept: Any,
    lo: Any,
    hi: Any,
) -> int:
    """Subsample a chunk and draw a window for each survivor; returns the number of survivors n.

    `tokens` int32, -1 ends a sentence; `keep` uint32 thresholds by word: a word survives a uniform
    32-bit draw that does not exceed its threshold. Words are removed before windows are laid, which
    widens the reach of a window, as in the original. A sentence is cut at `max_sentence` survivors.
    """
    state = np.uint64(seed)
    n = 0
    begin = 0
    length = tokens.shape[0]
    for t in range(length + 1):
        word = tokens[t] if t < length else -1
        if word >= 0:
            threshold = keep[word]
            if threshold != ALWAYS:
                state += GOLDEN
                if np.uint32(_mix(state) >> np.uint64(32)) > threshold:
                    continue
            kept[n] = word
            n += 1
        if word < 0 or n - begin == max_sentence:
            for i in range(begin, n):
                reach = np.int64(window)
                if shrink:
                    state += GOLDEN
                    high = _mix(state) >> np.uint64(32)
                    reach = 1 + np.int64((high * np.uint64(window)) >> np.uint64(32))
                lo[i] = max(begin, i - reach)
                hi[i] = min(n, i + reach + 1)
            begin = n
    return n


@njit(**_OPTIONS)
def plan_outputs(
    kept: Any,
    n: int,
    negative: int,
    share: int,
    alias_keep: Any,
    alias: Any,
    noise_shift: Any,
    drop_hits: bool,
    path_start: Any,
    path_rows: Any,
    path_signs: Any,
    seed: Any,
    start: Any,
    rows: Any,
    signs: Any,
    shifts: Any,
    repeated: Any,
) -> None:
    """Outputs of each position: its Huffman path if `path_start` is not empty, then noise words.

    Noise words come from the alias table (Walker 1977): `alias_keep` uint32 thresholds, `alias` int32.
    One draw of `negative` words serves `share` positions in a row.
    With `drop_hits` a noise word equal to the centre is left out (word2vec), else it stays (NCE).
    `noise_shift` float32 by word is empty where logits are not shifted.
    """
    state = np.uint64(seed)
    words = np.uint64(alias.shape[0])
    has_paths = path_start.shape[0] > 0
    has_shift = noise_shift.shape[0] > 0
    noise = np.empty(negative, np.int32)
    noise_twice = False
    at = 0
    for i in range(n):
        start[i] = at
        centre = kept[i]
        if has_paths:
            for p in range(path_start[centre], path_start[centre + 1]):
                rows[at] = path_rows[p]
                signs[at] = path_signs[p]
                shifts[at] = np.float32(0.0)
                at += 1
        twice = False
        if negative > 0:
            if i % share == 0:
                for j in range(negative):
                    state += GOLDEN
                    draw = _mix(state)
                    slot = np.int64(((draw >> np.uint64(32)) * words) >> np.uint64(32))
                    other = alias[slot]  # loaded ahead of the choice, which no branch predictor can guess
                    noise[j] = np.int32(slot) if np.uint32(draw) <= alias_keep[slot] else other
                noise_twice = False
                for j in range(negative):
                    for l in range(j):
                        noise_twice |= noise[j] == noise[l]
            rows[at] = centre
            signs[at] = np.float32(1.0)
            shifts[at] = noise_shift[centre] if has_shift else np.float32(0.0)
            at += 1
            twice = noise_twice
            for j in range(negative):
                word = noise[j]
                if word == centre:
                    if drop_hits:
                        continue
                    twice = True
                rows[at] = word
                signs[at] = np.float32(-1.0)
                shifts[at] = noise_shift[word] if has_shift else np.float32(0.0)
                at += 1
        repeated[i] = twice
    start[n] = at


@njit(**_OPTIONS)
def renumber(ids: Any, n: int, local: Any, found: Any, count: int) -> int:
    """Replace ids[:n] by their rank of first appearance, in place.

    `local` int32 by id, -1 where an id is new; `found` int32 receives the ids in that order from
    position `count` on. Returns the new count. Callers reset `local` with `local[found[:count]] = -1`.
    """
    for i in range(n):
        word = ids[i]
        if local[word] < 0:
            local[word] = count
            found[count] = word
            count += 1
        ids[i] = local[word]
    return count
