"""Seeds: every random draw has a name, and its generator follows from one number and that name.

`generator(seed, "subsample", epoch, chunk)` gives the same stream on any machine, in any process and
in any order of calls, so that work may be cut up, resumed or run in parallel without changing results.
"""

from __future__ import annotations

import hashlib
import operator
from typing import SupportsIndex

import numpy as np


def derive(seed: SupportsIndex, *path: str | SupportsIndex) -> int:
    """A seed for one purpose, in [0, 2**63), that depends on nothing but its arguments.

    Parts are tagged with their type and length, so that ``("ab", "c")``, ``("a", "bc")`` and
    ``("1",)``, ``(1,)`` all differ.

    Args:
        seed: the user's seed; any integer, negative ones and numpy's included.
        path: what the draw is for, from the general to the particular.

    Raises:
        TypeError: for a part that is neither text nor an integer (a float would not be stable).
    """
    hasher = hashlib.blake2b(digest_size=8, person=b"posterhall.seeds")
    for part in (seed, *path):
        if isinstance(part, str):
            tag, body = b"s", part.encode("utf-8", "surrogatepass")
        else:
            tag, body = b"i", str(operator.index(part)).encode()
        hasher.update(tag + len(body).to_bytes(8, "big") + body)
    return int.from_bytes(hasher.digest(), "big") >> 1


def generator(seed: SupportsIndex, *path: str | SupportsIndex) -> np.random.Generator:
    """An independent numpy generator for one purpose: Philox, keyed by `derive(seed, *path)`."""
    return np.random.Generator(np.random.Philox(key=derive(seed, *path)))
