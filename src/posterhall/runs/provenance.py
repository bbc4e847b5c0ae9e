"""Where a result came from: the command, the code, the packages, the time."""

from __future__ import annotations

import contextlib
import datetime
import importlib.metadata
import re
import subprocess
from collections.abc import Sequence
from typing import Any

PACKAGES = ("posterhall", "numpy", "numba", "scipy", "torch")
"""Packages whose versions a result may depend on."""


def redacted(argv: Sequence[str]) -> list[str]:
    """Command-line arguments without the values of --...key, --...token, --...secret, --...password."""
    secret = re.compile(r"(--?([\w-]*-)?(key|token|secret|password))(=.*)?", re.DOTALL)
    shown: list[str] = []
    hide = False
    for argument in argv:
        match = secret.fullmatch(argument)
        if hide:
            shown.append("***")
        else:
            shown.append(f"{match[1]}=***" if match and match[4] else argument)
        hide = not hide and match is not None and match[4] is None
    return shown


def git_state() -> dict[str, Any]:
    """{"git": {"commit", "dirty"}} of the working directory; {} if it is no checkout or has no commit."""
    # Neither a configured hook nor a lock on the index, only a look.
    command = ["git", "-c", "core.fsmonitor=false", "--no-optional-locks"]
    command += ["status", "--porcelain=v2", "--branch", "--untracked-files=no"]
    try:
        result = subprocess.run(command, capture_output=True, text=True, timeout=10, check=True)  # noqa: S603
    except (OSError, ValueError, subprocess.SubprocessError):
        return {}
    head, *rest = result.stdout.splitlines()
    commit = head.removeprefix("# branch.oid ")
    if not re.fullmatch(r"[0-9a-f]{40,64}", commit):
        return {}
    return {"git": {"commit": commit, "dirty": any(not line.startswith("#") for line in rest)}}


def versions() -> dict[str, str]:
    """Installed versions of `PACKAGES`, those present, without importing any."""
    versions = {}
    for name in PACKAGES:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            versions[name] = importlib.metadata.version(name)
    return versions


def now() -> str:
    """The time in UTC, ISO 8601, to the second."""
    return datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
