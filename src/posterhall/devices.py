"""The machine: how many cores and how much memory this process may really use.

Containers and batch systems hand out less than the machine has; counting the machine's cores instead
makes threads fight. So affinity and control groups (Linux, version 2) are read first.
"""

from __future__ import annotations

import contextlib
import ctypes
import math
import os
import platform
import resource
import sys
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Any

from posterhall.errors import DataError, PosterhallError

THREAD_VARIABLES = (
    "OMP_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "MKL_NUM_THREADS",
    "BLIS_NUM_THREADS",
    "VECLIB_MAXIMUM_THREADS",
)
"""Environment variables from which the numeric libraries take their number of threads, once, when loaded."""

_NO_MEMORY = ("not enough memory", "can't allocate memory", "out of memory", "std::bad_alloc")
"""What libraries say, in small letters, where there is no more."""
_CGROUPS = Path("/sys/fs/cgroup")
_PROC = Path("/proc")


def cores() -> int:
    """Cores this process may use, >= 1: the least of affinity and the control group's quota."""
    try:
        allowed = len(os.sched_getaffinity(0))
    except AttributeError:  # not Linux
        allowed = os.cpu_count() or 1
    quota = _cpu_quota(_CGROUPS, _PROC)
    return max(1, math.ceil(min(allowed, quota)))


def memory() -> int:
    """Bytes that can still be allocated without swapping, as far as the system tells."""
    available = _meminfo(_PROC).get("MemAvailable", _physical_memory())
    return int(min(available, _cgroup_memory_left(_CGROUPS, _PROC)))


def memory_total() -> int:
    """Bytes of memory this process may use when nothing else runs."""
    total = _meminfo(_PROC).get("MemTotal", _physical_memory())
    limits = [_limit(group / "memory.max") for group in _groups(_CGROUPS, _PROC)]
    return int(min([total, *limits]))


def peak_bytes() -> int:
    """Most memory this process has held so far (peak resident set), in bytes."""
    for line in _lines(_PROC / "self/status"):
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * 1024
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def release_memory() -> None:
    """Give memory that was freed back to the system, where the C library keeps it (glibc)."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)


@contextlib.contextmanager
def memory_told(instead: str) -> Iterator[None]:
    """Memory that runs out in this block, in words, and what to do."""
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        if isinstance(error, PosterhallError):
            raise
        said = str(error).strip()
        if not isinstance(error, MemoryError) and not any(each in said.lower() for each in _NO_MEMORY):
            raise
        first = said.partition("\n")[0] or "no more memory"
        raise PosterhallError(f"{first}. {instead}") from error


def describe() -> dict[str, Any]:
    """Facts about the machine that a result may depend on, for manifests and reports.

    Names neither the host nor the user, so that it can be published. Accelerators are listed if torch
    is loaded already; it is not loaded for this.
    """
    facts: dict[str, Any] = {
        "cpu": cpu_model(),
        "architecture": platform.machine(),
        "cores": cores(),
        "cores_of_machine": os.cpu_count() or 1,
        "memory_bytes": memory_total(),
        "os": platform.platform(),
        "python": platform.python_version(),
    }
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_available():
        facts["accelerators"] = [
            {"name": each.name, "memory_bytes": each.total_memory}
            for each in map(torch.cuda.get_device_properties, range(torch.cuda.device_count()))
        ]
    return facts


def cpu_model() -> str:
    """The processor's name, as the system gives it."""
    for line in _lines(_PROC / "cpuinfo"):
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.processor() or platform.machine() or "unknown"


class limit_threads:
    """Let numeric libraries use `n` threads, from now on, or inside a `with` block.

    Sets the environment for processes started later and for libraries not loaded yet (so call it
    before numpy is imported where its BLAS should obey), and tells numba and torch if they are loaded.

    Raises:
        DataError: if n is below 1.
    """

    def __init__(self, n: int) -> None:
        if n < 1:
            raise DataError(f"threads is {n}; it must be at least 1 (this process may use {cores()} cores)")
        self._environment = {name: os.environ.get(name) for name in THREAD_VARIABLES}
        os.environ.update(dict.fromkeys(THREAD_VARIABLES, str(n)))
        # NUMBA_NUM_THREADS stays: numba refuses to compile once it changes under running threads.
        self._numba = self._torch = 0
        if numba := sys.modules.get("numba"):
            self._numba = numba.get_num_threads()
            numba.set_num_threads(min(n, numba.config.NUMBA_NUM_THREADS))
        if torch := sys.modules.get("torch"):
            self._torch = torch.get_num_threads()
            torch.set_num_threads(n)

    def __enter__(self) -> None:
        pass

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for name, value in self._environment.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value
        if self._numba:
            sys.modules["numba"].set_num_threads(self._numba)
        if self._torch:
            sys.modules["torch"].set_num_threads(self._torch)


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return []


def _meminfo(proc: Path) -> dict[str, int]:
    """/proc/meminfo in bytes; empty where there is none."""
    table = {}
    for line in _lines(proc / "meminfo"):
        name, _, amount = line.partition(":")
        if amount.endswith("kB"):
            table[name] = int(amount.split()[0]) * 1024
    return table


def _physical_memory() -> int:
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


def _groups(root: Path, proc: Path) -> Iterator[Path]:
    """This process's control group and its parents (each may limit), innermost first."""
    if not (root / "cgroup.controllers").exists():  # version 1, or none
        return
    own = next((line[3:] for line in _lines(proc / "self/cgroup") if line.startswith("0::")), "/")
    group = root / own.lstrip("/")
    # In a container the path may be that of the host and not visible here: then the root is ours.
    if ".." in group.parts or not group.is_dir():
        group = root
    yield group
    while group != root:
        group = group.parent
        yield group


def _limit(path: Path) -> float:
    """The first number in a control file; infinite for "max" or no file."""
    lines = _lines(path)
    word = lines[0].split()[0] if lines and lines[0].split() else "max"
    return float(word) if word.isdigit() else math.inf


def _cpu_quota(root: Path, proc: Path) -> float:
    """Cores granted by the tightest control group; infinite without a quota."""
    quota = math.inf
    for group in _groups(root, proc):
        words = " ".join(_lines(group / "cpu.max")).split()
        if len(words) == 2 and words[0].isdigit():
            quota = min(quota, int(words[0]) / int(words[1]))
    return quota


def _cgroup_memory_left(root: Path, proc: Path) -> float:
    """Bytes left in the tightest control group; cached file pages count as free."""
    left = math.inf
    for group in _groups(root, proc):
        limit = _limit(group / "memory.max")
        if limit < math.inf:
            stat = dict(line.split() for line in _lines(group / "memory.stat"))
            used = _limit(group / "memory.current") - int(stat.get("inactive_file", 0))
            left = min(left, max(0.0, limit - used))
    return left
