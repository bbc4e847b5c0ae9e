"""What benchmarks share: fair timing, and one JSON form.

Two programs are timed in turn (A B A B ...), so that a machine that warms up or is shared slows both; the
median of at least five runs counts. CPU seconds of all threads and children are taken beside wall time:
on a shared machine they are the steadier of the two. Both sides get the same number of threads, set before
any numeric library is loaded.
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from posterhall.devices import cores, describe, limit_threads


@dataclass(frozen=True)
class Timing:
    """Seconds of each run of one side, and what its last run returned."""

    wall: tuple[float, ...]
    cpu: tuple[float, ...]
    value: Any

    @property
    def wall_median(self) -> float:
        """Median wall seconds."""
        return statistics.median(self.wall)

    @property
    def cpu_median(self) -> float:
        """Median CPU seconds, of all threads and finished children."""
        return statistics.median(self.cpu)


@dataclass(frozen=True)
class Result:
    """One comparison.

    Attributes:
        case: what was done, on what.
        ours, peer: the two numbers, in `unit`.
        peer_name: the peer and its version.
        unit: of both numbers.
        ratio: above 1 means that ours is better.
        quality: what must be equal for the ratio to count, and other facts.
    """

    case: str
    ours: float
    peer: float
    peer_name: str
    unit: str
    ratio: float
    quality: dict[str, Any] = field(default_factory=dict)


def arguments(description: str, add: Callable[[argparse.ArgumentParser], None] | None = None) -> Any:
    """Parse the common options (and those that `add` adds) and set the threads.

    Call it before numpy or anything that loads it is imported.
    """
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument("--threads", type=int, default=cores(), help="of each side (default: all cores)")
    parser.add_argument("--repeats", type=int, default=5, help="runs of each side, at least 5")
    if add is not None:
        add(parser)
    chosen = parser.parse_args()
    if chosen.repeats < 5:
        parser.error("--repeats is below 5: a median of fewer runs is no measurement")
    limit_threads(chosen.threads)
    os.environ["NUMBA_NUM_THREADS"] = str(chosen.threads)
    return chosen


def cpu_seconds() -> float:
    """CPU seconds of this process, its threads and its finished children so far."""
    times = os.times()
    return times.user + times.system + times.children_user + times.children_system


def interleaved(sides: Mapping[str, Callable[[], Any]], *, repeats: int) -> dict[str, Timing]:
    """Time the sides in turn; which goes first alternates. Warm them up before."""
    wall: dict[str, list[float]] = {name: [] for name in sides}
    cpu: dict[str, list[float]] = {name: [] for name in sides}
    values: dict[str, Any] = {}
    for run in range(repeats):
        for name in list(sides)[:: 1 if run % 2 == 0 else -1]:
            values.pop(name, None)
            gc.collect()
            began, used = time.perf_counter(), cpu_seconds()
            values[name] = sides[name]()
            cpu[name].append(cpu_seconds() - used)
            wall[name].append(time.perf_counter() - began)
    return {name: Timing(tuple(wall[name]), tuple(cpu[name]), values[name]) for name in sides}


def several(
    ours: Callable[[], Any], peer: Callable[[], Any], repeats: int, *, calls: tuple[int, int]
) -> dict[str, Timing]:
    """Time "ours" and "peer" in turn, several calls a run: the system counts CPU time in hundredths of a
    second. Both are called once before; seconds are those of one call."""

    def runs(run: Callable[[], Any], count: int) -> Callable[[], Any]:
        def all_of_them() -> Any:
            for _ in range(count - 1):
                run()
            return run()

        return all_of_them

    ours(), peer()
    timed = interleaved({"ours": runs(ours, calls[0]), "peer": runs(peer, calls[1])}, repeats=repeats)
    return {
        side: Timing(tuple(w / count for w in t.wall), tuple(c / count for c in t.cpu), t.value)
        for (side, t), count in zip(timed.items(), calls, strict=True)
    }


def faster(
    case: str, ours: Timing, peer: Timing, peer_name: str, *, quality: Mapping[str, Any] | None = None
) -> Result:
    """A comparison of CPU seconds, with the wall seconds among the facts."""
    return Result(
        case=case,
        ours=ours.cpu_median,
        peer=peer.cpu_median,
        peer_name=peer_name,
        unit="CPU s",
        ratio=peer.cpu_median / ours.cpu_median,
        quality={
            "wall_ours": ours.wall_median,
            "wall_peer": peer.wall_median,
            "wall_ratio": peer.wall_median / ours.wall_median,
            "runs": len(ours.wall),
            **(quality or {}),
        },
    )


def emit(name: str, threads: int, results: Sequence[Result], *, as_json: bool) -> None:
    """Print what was measured."""
    if as_json:
        whole = {
            "name": name,
            "machine": describe(),
            "threads": threads,
            "results": [asdict(result) for result in results],
        }
        print(json.dumps(whole, indent=2))
        return
    width = max(len(result.case) for result in results)
    for result in results:
        facts = ", ".join(
            f"{key} {value:.3g}" if isinstance(value, float) else f"{key} {value}"
            for key, value in result.quality.items()
        )
        print(
            f"{result.case:{width}}  {result.ratio:5.2f}x  ours {result.ours:.4g} {result.unit}, "
            f"{result.peer_name} {result.peer:.4g}  ({facts})"
        )
