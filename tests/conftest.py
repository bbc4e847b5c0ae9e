"""What all tests share: a clean environment, reproducible hypothesis, the command line in-process."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass

import pytest
from hypothesis import HealthCheck, settings

# Reproducible by default; HYPOTHESIS_PROFILE=explore looks further than the last run did.
settings.register_profile(
    "posterhall", deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow]
)
settings.register_profile("explore", parent=settings.get_profile("posterhall"), derandomize=False)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "posterhall"))


@pytest.fixture(autouse=True)
def _clean_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """The developer's own settings and terminal must not decide a test."""
    for name in [*os.environ]:
        if name.startswith("POSTERHALL_") or name in ("NO_COLOR", "FORCE_COLOR", "COLUMNS"):
            monkeypatch.delenv(name)


@dataclass(frozen=True)
class Result:
    """What a command left: exit code and the two streams."""

    code: int
    out: str
    err: str


@pytest.fixture
def posterhall(capsys: pytest.CaptureFixture[str]) -> Callable[..., Result]:
    """`posterhall("runs", "list", code=0)`: the command line in this process, its exit code checked."""
    from posterhall.cli.main import run

    def invoke(*arguments: object, code: int | None = 0) -> Result:
        capsys.readouterr()
        exit_code = run([str(each) for each in arguments])
        streams = capsys.readouterr()
        assert code is None or exit_code == code, f"exit code {exit_code}\n{streams.out}\n{streams.err}"
        return Result(exit_code, streams.out, streams.err)

    return invoke
