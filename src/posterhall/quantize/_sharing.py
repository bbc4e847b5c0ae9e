"""Ranges of blocks shared among threads; the kernels release the GIL."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

from posterhall.devices import cores
from posterhall.errors import DataError

_LEAST = 1 << 17
"""Entries for a thread below which waking it (some 50 µs) costs more than it gains."""
_pools: dict[int, ThreadPoolExecutor] = {}
# A forked child has the pool but none of its threads.
os.register_at_fork(after_in_child=_pools.clear)


def count(threads: int | None) -> int:
    """Threads to use: as given, or as torch uses, or as many as there are cores.

    Raises:
        DataError: if it is below 1.
    """
    if threads is None:
        torch = sys.modules.get("torch")
        return int(torch.get_num_threads()) if torch is not None else cores()
    if threads < 1:
        raise DataError(f"threads is {threads}; it must be at least 1")
    return threads


def share(work: Callable[[int, int], int], blocks: int, size: int, threads: int, most: int) -> int:
    """Call work(begin, end) for ranges that cover all blocks.

    Args:
        work: returns a negative number, or the place of something wrong.
        blocks: how many.
        size: entries of a block.
        threads: of which the caller's is one.
        most: blocks in a range.

    Returns:
        The least place that was returned, or -1.
    """
    threads = max(1, min(threads, blocks * size // _LEAST))
    length = max(1, min(most, -(-blocks // threads)))
    ranges = [(begin, min(begin + length, blocks)) for begin in range(0, blocks, length)]
    if threads == 1:
        found = [work(begin, end) for begin, end in ranges]
    else:
        if threads not in _pools:
            _pools[threads] = ThreadPoolExecutor(threads - 1, thread_name_prefix="quantize")
        rest = [_pools[threads].submit(_each, work, ranges[i::threads]) for i in range(1, threads)]
        try:
            found = _each(work, ranges[::threads])
        finally:  # nobody writes into the caller's arrays after this has returned
            found_there = [future.result() for future in rest]
        for each in found_there:
            found += each
    return min((place for place in found if place >= 0), default=-1)


def _each(work: Callable[[int, int], int], ranges: list[tuple[int, int]]) -> list[int]:
    return [work(begin, end) for begin, end in ranges]
