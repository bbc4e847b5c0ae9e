"""`check_claim`: what every claim must be, whoever wrote it."""

from __future__ import annotations

import inspect
import math
import subprocess
import sys
from collections import Counter

from posterhall.claims import Claim, Row, judge
from posterhall.claims.base import MIN_CLUSTERS, MIN_SEEDS, SCALES
from posterhall.claims.verdict import decide

HEAVY = ("torch", "numba", "scipy.stats", "matplotlib", "ray", "pyarrow", "sklearn")


def check_claim(cls: type[Claim]) -> None:
    """Check what a claim states, without running it."""
    assert inspect.isclass(cls)
    assert issubclass(cls, Claim)
    for text in (cls.id, cls.paper, cls.where, cls.statement, cls.paper_value, cls.refuted_by):
        assert isinstance(text, str)
        assert text.strip()
    for text in (cls.negative_control, cls.deviates):
        assert isinstance(text, str)
        assert text.strip()
    assert cls.statement.endswith((".", "!")), "a statement is a sentence"

    claimed, refuting = cls.kind.claimed, cls.kind.refutation
    assert refuting, "something must refute it"
    assert not any(region.overlaps(claimed) for region in refuting)
    assert math.isfinite(claimed.low) or math.isfinite(claimed.high), "everything would support it"

    control = cls.control_kind()
    assert control != cls.kind
    assert not any(region.overlaps(control.claimed) for region in control.refutation)

    assert set(SCALES) <= set(cls.scales), f"the scales are {', '.join(SCALES)}"
    for scale, budget in cls.scales.items():
        least = MIN_SEEDS if cls.unit == "seed" else 1
        assert budget.seeds >= least, f"{scale}: {budget.seeds} seeds"
        assert budget.get("seconds", 1.0) > 0
    for metric, value in cls.diverged.items():
        assert metric in (cls.kind.metric, control.metric)
        assert math.isfinite(value), "a diverged value counts as a number"
    for value in cls.params.values():
        assert value is None or isinstance(value, bool | int | float | str)


def check_rows(
    cls: type[Claim], first: list[Row], again: list[Row] | None, seed: int, timed: set[str]
) -> None:
    """Check the rows of one seed, and of the same seed once more.

    Args:
        first, again: rows of the two runs; `again` is None where a second run would cost too much.
        timed: metrics that measure time and may differ.
    """
    assert all(isinstance(row, Row) and row.seed == seed for row in first)
    assert max(Counter(row.arm for row in first).values()) == 1, "one row an arm"
    for kind in (cls.kind, cls.control_kind()):
        assert set(kind.names) <= {row.arm for row in first}, "every arm, the control's too"
        for row in first:
            if row.arm in kind.names:
                value = row[kind.metric]
                if cls.unit == "item":
                    assert isinstance(value, tuple)
                    assert len(set(row.clusters or range(len(value)))) >= MIN_CLUSTERS
    # With one seed there is no interval, but everything must be there for the verdict.
    decide(cls, first)
    assert judge(cls.kind, first, unit=cls.unit, diverged=dict(cls.diverged)).verdict == "inconclusive" or (
        cls.unit == "item"
    )
    cls().figure(first)
    if again is not None:

        def fixed(rows: list[Row]) -> list[dict]:
            return [
                {
                    **r.to_json(),
                    "metrics": {k: v for k, v in r.to_json()["metrics"].items() if k not in timed},
                }
                for r in rows
            ]

        assert fixed(first) == fixed(again), "equal rows for an equal seed"


def check_light(module: str) -> None:
    """Check that importing a module of claims does not import what only running them needs."""
    code = f"import sys, {module}; print(*[m for m in {HEAVY!r} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == [], "import these inside run()"
