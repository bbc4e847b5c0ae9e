"""Every error a user can meet, with the exit code the command line gives it.

A message says what was given, what is allowed and what to do. Codes: 0 done, 1 failed, 2 usage,
3 a missing extra, 4 bad input, 130 interrupted after a checkpoint.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class PosterhallError(Exception):
    """Something failed that is neither the input's fault nor the caller's."""

    exit_code = 1


class UsageError(PosterhallError):
    """A command or function was called in a way that can never work."""

    exit_code = 2


class MissingExtra(PosterhallError):
    """An optional dependency is not installed.

    Args:
        extra: name of the extra in `pyproject.toml`, for example ``cluster``.
        purpose: what it was needed for, completing "... needs the extra".
    """

    exit_code = 3

    def __init__(self, extra: str, purpose: str) -> None:
        self.extra = extra
        super().__init__(f"{purpose} needs the extra '{extra}': pip install 'posterhall[{extra}]'")


class DataError(PosterhallError, ValueError):
    """An input (file, value, configuration) is not acceptable; nothing on disk was changed."""

    exit_code = 4


class Interrupted(PosterhallError):
    """Stopped by the user after a checkpoint was written."""

    exit_code = 130


def did_you_mean(given: str, allowed: Iterable[str], *, limit: int = 3) -> str:
    """Return `` Did you mean: a, b?`` for the nearest allowed names, or an empty string."""
    near = difflib.get_close_matches(given, list(allowed), n=limit, cutoff=0.6)
    return f" Did you mean: {', '.join(near)}?" if near else ""
