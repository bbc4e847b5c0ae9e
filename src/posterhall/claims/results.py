"""What a run of claims found: typed here, JSON on disk and for other programs."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from posterhall import stats
from posterhall.claims import kinds
from posterhall.claims.base import Claim
from posterhall.claims.registry import paper_title
from posterhall.claims.rows import Budget, Row, Scalar
from posterhall.claims.verdict import Verdict, decide
from posterhall.errors import DataError

Word = Literal["supported", "refuted", "inconclusive", "failed"]


@dataclass(frozen=True)
class Holm:
    """A verdict among the others of its report.

    Attributes:
        p: the test's own p-value (of the claimed region; of the refuting one for a refuted claim).
        adjusted: Holm's adjustment over all claims of the report.
        family: how many claims that was.
        survives: whether the verdict would stand with the error shared among all of them.
    """

    p: float
    adjusted: float
    family: int
    survives: bool


@dataclass(frozen=True)
class Control:
    """A negative control's outcome: its statement, test and verdict."""

    statement: str
    verdict: Word
    effect: float | None
    interval: tuple[float, float] | None
    shown: tuple[str, str]
    reason: str
    test: Mapping[str, Any]


@dataclass(frozen=True)
class Outcome:
    """One claim at one scale.

    The fields are those of `claims run --json`. `interval` is at 95 %; `shown` are the effect and it as
    text; `command` runs this claim alone in the same way; `test` holds the kind with its claimed and
    refuting regions; `figure` is a stored `posterhall.claims.Figure` or the reason why there is none.
    `wall_seconds` and `cpu_seconds` are sums over seeds, which may have run side by side.
    """

    id: str
    paper: str
    statement: str
    verdict: Word
    effect: float | None
    interval: tuple[float, float] | None
    seeds: int
    paper_value: str
    negative_control: Control
    wall_seconds: float
    scale: str
    where: str
    paper_title: str
    headline: bool
    reason: str
    shown: tuple[str, str]
    units: int
    unit: str
    method: str
    seeds_needed: int | None
    p_supported: float | None
    p_refuted: float | None
    holm: Holm | None
    diverged: Mapping[str, int]
    test: Mapping[str, Any]
    refuted_by: str
    deviates: str
    budget: Mapping[str, Scalar]
    params: Mapping[str, Scalar]
    cpu_seconds: float
    command: str
    figure: Mapping[str, Any] | str

    def to_json(self, *, figure: bool = True) -> dict[str, Any]:
        """A JSON object; numbers that are not finite become null."""
        out = _plain(dataclasses.asdict(self))
        if not figure:
            del out["figure"]
        return dict(out)

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Outcome:
        """Inverse of `to_json`.

        Raises:
            DataError: if fields are missing or unknown.
        """
        try:
            fields = dict(data)
            control = dict(fields["negative_control"])
            for part in (fields, control):
                if part["interval"] is not None:
                    low, high = part["interval"]
                    part["interval"] = (-math.inf if low is None else low, math.inf if high is None else high)
                effect, interval = part["shown"]
                part["shown"] = (str(effect), str(interval))
            fields["negative_control"] = Control(**control)
            fields["holm"] = None if fields["holm"] is None else Holm(**fields["holm"])
            return cls(**fields)
        except (KeyError, TypeError, ValueError) as error:
            raise DataError(f"not a stored outcome of a claim: {error!r}; run the claims again") from None


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(k): _plain(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(v) for v in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


@dataclass(frozen=True)
class Results:
    """All outcomes of one run, in the order of declaration; also by id: ``results["some-claim"]``."""

    scale: str
    run: Path
    claims: tuple[Outcome, ...]

    def __getitem__(self, id: str) -> Outcome:
        for outcome in self.claims:
            if outcome.id == id:
                return outcome
        raise KeyError(id)

    def __iter__(self) -> Iterator[Outcome]:
        return iter(self.claims)

    def __len__(self) -> int:
        return len(self.claims)

    @property
    def failed(self) -> tuple[str, ...]:
        """Ids of claims that could not be run."""
        return tuple(outcome.id for outcome in self.claims if outcome.verdict == "failed")

    def to_json(self, *, figures: bool = False) -> dict[str, Any]:
        """The object that `claims run --json` prints."""
        return {
            "scale": self.scale,
            "run": str(self.run),
            "claims": [outcome.to_json(figure=figures) for outcome in self.claims],
        }

    def __str__(self) -> str:
        return table(self.claims)


def _shown(kind: kinds.Kind, interval: stats.Interval | None) -> tuple[str, str]:
    """The effect and its interval as text."""
    if interval is None:
        return "—", ""
    return kind.show(interval.estimate), f"[{kind.show(interval.low)}, {kind.show(interval.high)}]"


def _ends(interval: stats.Interval | None) -> tuple[float, float] | None:
    return None if interval is None else (interval.low, interval.high)


def conclude(
    claim: Claim,
    rows: Sequence[Row],
    *,
    scale: str,
    budget: Budget,
    error: str | None,
    wall_seconds: float,
    cpu_seconds: float,
    command: str,
) -> Outcome:
    """Decide one claim from its rows, or record why it failed."""
    cls = type(claim)
    kind, control_kind = cls.kind, cls.control_kind()
    figure: Mapping[str, Any] | str = "no rows to draw"
    found = control = None
    if error is None:
        try:
            found, control = decide(cls, rows)
        except DataError as wrong:
            error = str(wrong)
    if found is None or control is None:
        found = control = Verdict("inconclusive", None, None, None, None, (), str(error))
    else:
        figure = _draw(claim, rows)
    failed = error is not None
    return Outcome(
        id=cls.id,
        paper=cls.paper,
        statement=cls.statement,
        verdict="failed" if failed else found.verdict,
        effect=None if found.effect is None else found.effect.estimate,
        interval=_ends(found.effect),
        seeds=budget.seeds,
        paper_value=cls.paper_value,
        negative_control=Control(
            cls.negative_control,
            "failed" if failed else control.verdict,
            None if control.effect is None else control.effect.estimate,
            _ends(control.effect),
            _shown(control_kind, control.effect),
            control.reason,
            kinds.to_json(control_kind),
        ),
        wall_seconds=round(wall_seconds, 3),
        scale=scale,
        where=cls.where,
        paper_title=paper_title(cls.paper),
        headline=cls.headline,
        reason=found.reason,
        shown=_shown(kind, found.effect),
        units=0 if found.effect is None else found.effect.n,
        unit=cls.unit,
        method="" if found.effect is None else found.effect.method,
        seeds_needed=found.needed,
        p_supported=found.p_supported,
        p_refuted=found.p_refuted,
        holm=None,
        diverged=dict(found.diverged),
        test=kinds.to_json(kind),
        refuted_by=cls.refuted_by,
        deviates=cls.deviates,
        budget=dict(budget),
        params=dict(claim.params),
        cpu_seconds=round(cpu_seconds, 3),
        command=command,
        figure=figure,
    )


def _draw(claim: Claim, rows: Sequence[Row]) -> Mapping[str, Any] | str:
    """The claim's figure; a figure that cannot be made must not cost the verdict."""
    try:
        figure = claim.figure(rows)
    except Exception as error:
        return f"no figure: {error}"
    return "this claim draws nothing" if figure is None else figure.to_json()


def adjust(outcomes: Sequence[Outcome]) -> tuple[Outcome, ...]:
    """Put each verdict among the others of a report by Holm's procedure.

    Two families: how small an error still supports each claim, and how small a one refutes it. The
    verdict itself stays that of the claim's own 95 % interval; `holm.survives` says whether it would
    also hold with a 5 % chance of any error in the whole report.
    """
    # A claim that diverged was tested too, and counts; one that could not be run was not.
    tested = [i for i, outcome in enumerate(outcomes) if outcome.verdict != "failed"]

    def probability(outcome: Outcome, word: str) -> float:
        p = outcome.p_supported if word == "supported" else outcome.p_refuted
        return 1.0 if p is None else p

    families = {
        word: stats.holm([probability(outcomes[i], word) for i in tested])
        for word in ("supported", "refuted")
    }
    out = list(outcomes)
    for place, i in enumerate(tested):
        outcome = outcomes[i]
        word = "refuted" if outcome.verdict == "refuted" else "supported"
        adjusted = float(families[word][place])
        decided = outcome.verdict in ("supported", "refuted")
        holm = Holm(probability(outcome, word), adjusted, len(tested), decided and adjusted <= 0.05)
        out[i] = dataclasses.replace(outcome, holm=holm)
    return tuple(out)


def table(outcomes: Sequence[Outcome]) -> str:
    """Verdicts as aligned text, one claim a line."""
    lines = [("verdict", "claim", "scale", "effect [95 %]", "n", "control")]
    for o in outcomes:
        n = f"{o.units} {'seeds' if o.unit == 'seed' else 'clusters'}" if o.units else "—"
        weak = "" if o.holm is None or o.holm.survives or o.verdict == "inconclusive" else " *"
        lines.append(
            (o.verdict + weak, o.id, o.scale, " ".join(o.shown).strip(), n, o.negative_control.verdict)
        )
    widths = [max(len(line[i]) for line in lines) for i in range(len(lines[0]))]
    text = ["  ".join(cell.ljust(w) for cell, w in zip(line, widths, strict=True)).rstrip() for line in lines]
    if any(" *" in line[0] for line in lines[1:]):
        text.append("* does not hold once the error is shared among all claims here (Holm)")
    return "\n".join(text)
