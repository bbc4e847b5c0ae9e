"""Suffix arrays of bytes."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from posterhall.curation.dedup import _suffix_kernels as kernels


def suffix_array(text: NDArray[np.uint8]) -> NDArray[Any]:
    """Where the suffixes of a text begin, in their order; a suffix comes before those it begins.

    Linear time; about 9 bytes of memory a byte of text at the peak, the result's 4 included (twice that above
    2 GiB).

    Args:
        text: (n,) uint8.

    Returns:
        (n,) int32, or int64 if n is 2**31 or more.
    """
    kind = np.dtype(np.int32 if text.size < 2**31 else np.int64)
    return _sorted(text, 256, kind)


def _sorted(text: NDArray[Any], letters: int, kind: np.dtype[Any]) -> NDArray[Any]:
    n = text.size
    if n == 0:
        return np.empty(0, kind)
    rises = np.empty(n, np.uint8)
    spots = np.empty(kernels.classify(text, rises), kind)
    kernels.turns(rises, spots)
    falling, rising = np.empty(letters + 1, kind), np.empty(letters, kind)
    kernels.buckets(text, rises, falling, rising)
    sa = np.empty(n, kind)
    kernels.induce(text, rises, spots, falling, rising, sa)
    if spots.size > 1:
        reduced = np.empty(spots.size, kind)
        different = kernels.name(text, rises, sa, spots, np.empty(n // 2 + 1, kind), reduced)
        if different == spots.size:
            order = np.empty(spots.size, kind)
            order[reduced] = np.arange(spots.size, dtype=kind)
        else:
            del sa  # the levels below need its room
            order = _sorted(reduced, different, kind)
            sa = np.empty(n, kind)
        del reduced
        kernels.induce(text, rises, spots[order], falling, rising, sa)
    return sa
