"""From rows to a verdict, by the rule stated in `posterhall.claims`."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal, cast

import numpy as np

from posterhall import stats
from posterhall.claims.base import MIN_CLUSTERS, Claim
from posterhall.claims.kinds import Kind
from posterhall.claims.rows import Floats, Row
from posterhall.errors import DataError

Word = Literal["supported", "refuted", "inconclusive"]


@dataclass(frozen=True)
class Verdict:
    """One test's outcome.

    Attributes:
        verdict: supported, refuted or inconclusive.
        effect: the estimate with its 95 % interval; None where there is none.
        p_supported, p_refuted: the smallest error at which the interval would lie inside the claimed,
            or a refuting, region (under 0.05 exactly where the 95 % interval does).
        needed: seeds (or clusters of items) at which an interval of this spread would decide; None if
            decided, or if no number would.
        diverged: values that were not finite, by arm.
        reason: one sentence.
    """

    verdict: Word
    effect: stats.Interval | None
    p_supported: float | None
    p_refuted: float | None
    needed: int | None
    diverged: tuple[tuple[str, int], ...]
    reason: str


class Rows:
    """Rows of one claim as aligned arrays: a `posterhall.claims.kinds.Sample`."""

    def __init__(self, rows: Iterable[Row], kind: Kind, unit: str, diverged: dict[str, float]) -> None:
        self.by_item = unit == "item"
        self.diverged: dict[str, int] = {}
        self._arrays: dict[str, list[Floats]] = {}
        by_arm: dict[str, dict[int, Row]] = {}
        for row in rows:
            seeds = by_arm.setdefault(row.arm, {})
            if row.seed in seeds:
                raise DataError(f"arm '{row.arm}', seed {row.seed}: two rows; give one an arm and seed")
            seeds[row.seed] = row
        first = kind.names[0]
        for arm in kind.names:
            if arm not in by_arm:
                raise DataError(
                    f"no row of arm '{arm}'; run() gave: {', '.join(sorted(by_arm)) or 'nothing'}"
                )
            if by_arm[arm].keys() != by_arm[first].keys():
                odd = sorted(by_arm[arm].keys() ^ by_arm[first].keys())
                raise DataError(
                    f"arms '{first}' and '{arm}' differ in seeds {odd}; run every arm on every seed"
                )
        self.seeds = sorted(by_arm[first])
        self.clusters: Sequence[int] | None = None
        ids: list[int] = []
        for arm in kind.names:
            self._arrays[arm] = []
            for seed in self.seeds:
                row = by_arm[arm][seed]
                if self.by_item:
                    array = np.atleast_1d(np.asarray(row[kind.metric], dtype=np.float64))
                    if arm == first:
                        ids.extend(row.clusters if row.clusters is not None else range(array.size))
                else:
                    array = np.array([row.number(kind.metric)])
                bad = ~np.isfinite(array)
                if bad.any():
                    self.diverged[arm] = self.diverged.get(arm, 0) + int(bad.sum())
                    array = np.where(bad, diverged.get(kind.metric, math.nan), array)
                self._arrays[arm].append(array)
            sizes, wanted = (tuple(a.size for a in self._arrays[x]) for x in (arm, first))
            if sizes != wanted:
                raise DataError(
                    f"arms '{first}' and '{arm}' have {wanted} and {sizes} items; pairs need the same"
                )
        if self.by_item:
            self.clusters = ids
            if len(ids) != sum(a.size for a in self._arrays[first]):
                raise DataError(f"arm '{first}': {len(ids)} cluster ids do not match its items")

    def values(self, arm: str) -> Floats:
        """All units of an arm, in one order for all arms."""
        return np.concatenate(self._arrays[arm])

    def undefined(self, kind: Kind) -> str | None:
        """The first arm with a value that is not finite and that the claim gave no meaning to."""
        return next((arm for arm in kind.names if not np.isfinite(self.values(arm)).all()), None)


def judge(
    kind: Kind, rows: Iterable[Row], *, unit: str = "seed", diverged: dict[str, float] | None = None
) -> Verdict:
    """Apply one test to rows.

    Raises:
        DataError: if the rows do not hold what the kind needs (arms, seeds, metric).
    """
    sample = Rows(rows, kind, unit, dict(diverged or {}))
    lost = tuple(sorted(sample.diverged.items()))

    def undecided(reason: str) -> Verdict:
        return Verdict("inconclusive", None, None, None, None, lost, reason)

    arm = sample.undefined(kind)
    if arm is not None:
        count = sample.diverged[arm]
        values = "value" if count == 1 else "values"
        return undecided(
            f"arm {arm} diverged: {count} {values} of {kind.metric} not finite, "
            "and the claim does not say how that counts"
        )
    if sample.by_item and len(set(sample.clusters or ())) < MIN_CLUSTERS:
        return undecided(
            f"{len(set(sample.clusters or ()))} clusters of items; a bootstrap over them needs {MIN_CLUSTERS}"
        )
    try:
        estimate = kind.estimate(sample)
        interval = estimate.interval(0.95)
    except DataError as error:
        return undecided(str(error))
    p_supported = kind.claimed.p_value(estimate)
    p_refuted = min((region.p_value(estimate) for region in kind.refutation), default=1.0)
    seen = f"the 95 % interval {kind.show(interval.low)} to {kind.show(interval.high)}"
    if kind.claimed.holds(interval):
        word, needed, reason = "supported", None, f"{seen} lies inside the claimed region"
    elif any(region.holds(interval) for region in kind.refutation):
        word, needed, reason = "refuted", None, f"{seen} lies inside the refuting region"
    else:
        needed = next(
            (
                n
                for n in (estimate.needed(r.low, r.high) for r in (kind.claimed, *kind.refutation))
                if n is not None
            ),
            None,
        )
        units = "items or clusters" if sample.by_item else "seeds"
        more = (
            f"; about {needed} {units} would decide"
            if needed is not None
            else f"; its estimate lies between the regions, where more {units} alone do not decide"
        )
        word, reason = "inconclusive", f"{seen} lies inside neither region{more}"
    return Verdict(cast(Word, word), interval, p_supported, p_refuted, needed, lost, reason)


def decide(claim: type[Claim], rows: Sequence[Row]) -> tuple[Verdict, Verdict]:
    """Judge a claim and its negative control; a control that comes out supported undoes the verdict.

    Returns:
        The claim's verdict and the control's.

    Raises:
        DataError: if the rows do not hold what the claim declared.
    """
    found = judge(claim.kind, rows, unit=claim.unit, diverged=dict(claim.diverged))
    control = judge(claim.control_kind(), rows, unit=claim.unit, diverged=dict(claim.diverged))
    if control.verdict == "supported":
        found = Verdict(
            "inconclusive",
            found.effect,
            found.p_supported,
            found.p_refuted,
            None,
            found.diverged,
            "its negative control came out supported, so the test shows nothing "
            f"(by itself it would be {found.verdict})",
        )
    return found, control
