"""`posterhall doctor`: what this machine offers, what is missing, and how to mend it."""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import typer

from posterhall.cli.output import Json, emit_json, emit_table

if TYPE_CHECKING:
    from packaging.requirements import Requirement

GIGABYTE = 10**9


@dataclass(frozen=True)
class Check:
    """One line of the report."""

    status: Literal["ok", "warn", "fail"]
    """warn: works, but not everything or not well; fail: Posterhall cannot work."""
    name: str
    found: str
    advice: str = ""
    """What to do; empty if there is nothing to do."""


def doctor(json: Json = False) -> None:
    """Check this machine and say how to mend it.

    Looks at Python, packages, kernels, cores, memory, disk, torch, extras, writable places and the
    terminal. Exits with 1 if something is missing that Posterhall cannot work without.
    """
    from posterhall import devices

    checks = list(_all_checks())
    usable = all(check.status != "fail" for check in checks)
    if json:
        emit_json({"usable": usable, "checks": [asdict(c) for c in checks], "machine": devices.describe()})
    else:
        emit_table((c.status, c.name, f"{c.found}; {c.advice}" if c.advice else c.found) for c in checks)
    if not usable:
        raise typer.Exit(1)


def _all_checks() -> Iterator[Check]:
    yield _python()
    yield _requirements()
    yield _numba()
    yield from _threads()
    yield _memory()
    yield _disk()
    yield _torch()
    yield from _extras()
    yield from _places()
    yield _compiler()
    yield _terminal()


def _python() -> Check:
    version = ".".join(map(str, sys.version_info[:3]))  # 3.11 is the floor, and pip keeps to it
    return Check("ok", "python", f"{version}, {sys.executable}")


def _requirements() -> Check:
    """The core dependencies, by their metadata."""
    core = [each for each in _declared() if each.marker is None]
    if wrong := _unmet(core):
        return Check("fail", "packages", f"missing or too old: {', '.join(wrong)}", "pip install posterhall")
    return Check("ok", "packages", f"all {len(core)} of the core")


def _numba() -> Check:
    try:
        import numba

        numba.njit(lambda x: x + 1)(1)
    except Exception as error:  # whatever is wrong with a compiler, it is to be reported
        return Check(
            "fail", "kernels", f"numba cannot compile: {error}", "pip install --force-reinstall numba"
        )
    if numba.config.DISABLE_JIT:
        found = f"numba {numba.__version__}, switched off"
        return Check("warn", "kernels", found, "unset NUMBA_DISABLE_JIT, or all is some 100 times slower")
    return Check("ok", "kernels", f"numba {numba.__version__} compiles")


def _threads() -> Iterator[Check]:
    from posterhall.devices import THREAD_VARIABLES, cores

    usable, present = cores(), os.cpu_count() or 1
    yield Check("ok", "cores", f"{usable}" if usable == present else f"{usable} usable of {present}")
    for name in (*THREAD_VARIABLES, "NUMBA_NUM_THREADS"):
        value = os.environ.get(name)
        if not value:
            continue
        first = value.split(",")[0].strip()  # OpenMP takes a list, one a level of nesting
        if not first.isdigit() or int(first) < 1:
            yield Check("warn", "threads", f"{name}={value} is not a number of threads", f"unset {name}")
        elif int(first) > usable:
            advice = f"unset {name} or set it to {usable}, or threads will fight for cores"
            yield Check("warn", "threads", f"{name}={value} on {usable} usable cores", advice)
        else:
            yield Check("ok", "threads", f"{name}={value}")


def _memory() -> Check:
    from posterhall.devices import memory, memory_total
    from posterhall.progress import size

    left = memory()
    found = f"{size(left)} free of {size(memory_total())}"
    if left < GIGABYTE:
        return Check("warn", "memory", found, "close other programs: training wants 1 GB and more")
    return Check("ok", "memory", found)


def _disk() -> Check:
    from posterhall.progress import size

    free = shutil.disk_usage(".").free
    found = f"{size(free)} free in {Path.cwd()}"
    if free < GIGABYTE:
        return Check("warn", "disk", found, "free some, or write elsewhere with -o")
    return Check("ok", "disk", found)


def _torch() -> Check:
    try:
        import torch
    except ImportError as error:
        if error.name == "torch":
            return Check("warn", "torch", "not installed", "pip install 'posterhall[train]' to train models")
        return Check("warn", "torch", f"does not load: {error}", "pip install --force-reinstall torch")
    except OSError as error:  # a shared library that it was built for is not here
        return Check("warn", "torch", f"does not load: {error}", "pip install --force-reinstall torch")
    if torch.cuda.is_available():
        names = [torch.cuda.get_device_name(each) for each in range(torch.cuda.device_count())]
        return Check("ok", "torch", f"{torch.__version__}, CUDA {torch.version.cuda}: {', '.join(names)}")
    if torch.version.cuda:
        return Check(
            "ok", "torch", f"{torch.__version__}, built for CUDA {torch.version.cuda}, no device found"
        )
    return Check("ok", "torch", f"{torch.__version__}, for the CPU")


def _extras() -> Iterator[Check]:
    from importlib import metadata

    declared = _declared()
    for extra in metadata.metadata("posterhall").get_all("Provides-Extra") or []:
        own = [each for each in declared if each.marker and each.marker.evaluate({"extra": extra})]
        if wrong := _unmet(own):
            advice = f"pip install 'posterhall[{extra}]'"
            yield Check("warn", f"extra {extra}", f"missing or too old: {', '.join(wrong)}", advice)
        else:
            yield Check("ok", f"extra {extra}", ", ".join(each.name for each in own))


def _declared() -> list[Requirement]:
    """What the installed package declares to need, extras included."""
    from importlib import metadata

    from packaging.requirements import Requirement

    return [Requirement(each) for each in metadata.requires("posterhall") or []]


def _unmet(requirements: list[Requirement]) -> list[str]:
    """Those not installed in an accepted version, with the version found."""
    from importlib import metadata

    wrong = []
    for each in requirements:
        try:
            version = metadata.version(each.name)
        except metadata.PackageNotFoundError:
            wrong.append(each.name)
            continue
        if not each.specifier.contains(version, prereleases=True):
            wrong.append(f"{each.name} {version} ({each.specifier} needed)")
    return wrong


def _places() -> Iterator[Check]:
    import platformdirs

    import posterhall

    beside = Path(posterhall.__file__).parent
    places = [Path(os.environ["NUMBA_CACHE_DIR"])] if os.environ.get("NUMBA_CACHE_DIR") else []
    places = places or [beside, Path(platformdirs.user_cache_dir("numba", appauthor=False))]
    kernels = next((place for place in places if _writable(place)), None)
    if kernels:
        yield Check("ok", "kernel cache", str(kernels))
    else:
        advice = "set NUMBA_CACHE_DIR to a writable directory, or kernels are compiled at every start"
        yield Check("warn", "kernel cache", f"cannot write {places[0]}", advice)

    cache = Path(platformdirs.user_cache_dir("posterhall"))
    if _writable(cache):
        yield Check("ok", "cache", str(cache))
    else:
        yield Check("warn", "cache", f"cannot write {cache}", "set XDG_CACHE_HOME to a writable directory")
    try:
        yield Check("ok", "temporary", tempfile.gettempdir())
    except OSError as error:  # it has tried to write there
        yield Check("fail", "temporary", str(error), "set TMPDIR to a writable directory")


def _writable(directory: Path) -> bool:
    """Whether a file can be made in a directory, or the directory in the nearest one above it."""
    while not directory.exists() and directory != directory.parent:
        directory = directory.parent
    try:
        with tempfile.TemporaryFile(dir=directory):
            return True
    except OSError:
        return False


def _compiler() -> Check:
    names = [os.environ.get("CC", ""), "cc", "gcc", "clang"]
    found = next((path for name in names if name and (path := shutil.which(name))), None)
    return Check("ok", "C compiler", found or "none, and none is needed")


def _terminal() -> Check:
    encoding = (sys.stdout.encoding or "").lower().replace("-", "")
    if encoding != "utf8":
        return Check(
            "warn", "terminal", f"encoding {encoding or 'unknown'}", "set PYTHONUTF8=1 to see all characters"
        )
    if not sys.stderr.isatty():
        return Check("ok", "terminal", "none: progress comes as lines")
    plain = "NO_COLOR" in os.environ or os.environ.get("TERM") == "dumb"
    width = shutil.get_terminal_size().columns
    return Check(
        "ok", "terminal", f"{os.environ.get('TERM', 'unknown')}, {width} columns{', plain' if plain else ''}"
    )
