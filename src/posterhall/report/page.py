"""One self-contained HTML page from stored runs of claims."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from posterhall import __version__, claims, runs
from posterhall.claims.figures import Figure
from posterhall.claims.results import Outcome, adjust
from posterhall.claims.rows import Row
from posterhall.errors import DataError
from posterhall.progress import duration
from posterhall.report.figures import Drawing, draw
from posterhall.report.provenance import date, provenance
from posterhall.report.strip import Strip, strip

WORDS = ("supported", "refuted", "inconclusive", "failed")


@dataclass(frozen=True)
class Section:
    """One claim as the template shows it."""

    anchor: str
    outcome: Outcome
    strip: Strip
    drawings: tuple[Drawing, ...]
    caption: str
    header: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    settings: tuple[tuple[str, str], ...]
    params: tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class Provenance:
    """Where one run came from."""

    path: str
    scale: str
    facts: tuple[tuple[str, str], ...]


def write(run_directories: Sequence[str | Path], out: str | Path) -> Path:
    """Write a report over finished runs of claims.

    Args:
        run_directories: one or more; the claims of all of them are put in one table, and Holm's
            procedure is applied over all of them.
        out: the HTML file.

    Returns:
        The file's path.

    Raises:
        DataError: if a directory is no finished run of claims, or the file cannot be written.
    """
    path = Path(out)
    runs.write_atomic(path, render(run_directories))
    return path


def render(run_directories: Sequence[str | Path]) -> str:
    """The report as HTML; see `write`."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    if not run_directories:
        raise DataError("a report needs at least one run of claims")
    found = [claims.read(path) for path in run_directories]
    manifests = [runs.read_manifest(results.run) for results in found]
    outcomes = adjust([outcome for results in found for outcome in results])
    places = [results.run for results in found for _ in results]
    sections = [_section(o, place, i) for i, (o, place) in enumerate(zip(outcomes, places, strict=True))]
    counts: Counter[str] = Counter(outcome.verdict for outcome in outcomes)
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).with_name("templates")),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["duration"] = duration
    environment.filters["minus"] = _minus
    page = environment.get_template("report.html.j2").render(
        title=_title(counts),
        counts=[(word, counts[word]) for word in WORDS if counts[word]],
        facts=_facts(found, manifests),
        papers=_by_paper(sections),
        sections=sections,
        provenance=[
            Provenance(str(r.run), r.scale, tuple(provenance(m)))
            for r, m in zip(found, manifests, strict=True)
        ],
        holm=any(o.holm and not o.holm.survives and o.verdict in WORDS[:2] for o in outcomes),
        version=__version__,
    )
    return page + "\n"


def _minus(text: str) -> str:
    """A real minus sign before numbers; hyphens inside words stay."""
    return re.sub(r"(?<!\w)-(?=\d)", "\N{MINUS SIGN}", text)


def _title(counts: Mapping[str, int]) -> str:
    total = sum(counts.values())
    return f"{total} {'claim' if total == 1 else 'claims'}, put to the test"


def _by_paper(sections: Iterable[Section]) -> list[tuple[str, list[Section]]]:
    papers: dict[str, list[Section]] = {}
    for section in sections:
        papers.setdefault(section.outcome.paper_title, []).append(section)
    return list(papers.items())


def _facts(found: Sequence[claims.Results], manifests: Sequence[Mapping[str, Any]]) -> list[tuple[str, str]]:
    outcomes = [outcome for results in found for outcome in results]
    seeds = sorted({outcome.seeds for outcome in outcomes})
    machines = {f"{m['machine']['cpu']}, {_plural(m['machine']['cores'], 'core')}" for m in manifests}
    wall = sum(m["wall_seconds"] for m in manifests)
    processor = sum(outcome.cpu_seconds for outcome in outcomes)
    return [
        ("Date", " and ".join(dict.fromkeys(date(m["start"]) for m in manifests))),
        ("Scale", ", ".join(dict.fromkeys(results.scale for results in found))),
        ("Seeds", f"{seeds[0]} a claim" if len(seeds) == 1 else f"{seeds[0]} to {seeds[-1]} a claim"),
        ("Machine", "; ".join(sorted(machines))),
        ("Cost", f"{duration(wall)}, {duration(processor)} of processor time"),
    ]


def _plural(n: int, noun: str) -> str:
    return f"{n} {noun}" if n == 1 else f"{n} {noun}s"


def _section(outcome: Outcome, place: Path, number: int) -> Section:
    drawings: tuple[Drawing, ...] = ()
    caption = outcome.figure if isinstance(outcome.figure, str) else ""
    if not isinstance(outcome.figure, str):
        figure = Figure.from_json(outcome.figure)
        drawings, caption = tuple(draw(figure, f"f{number}")), figure.caption
    header, rows = _rows(claims.stored_rows(place, outcome.id, outcome.scale))
    return Section(
        anchor=f"{outcome.id}-{number}",
        outcome=outcome,
        strip=strip(outcome.test, outcome.effect, outcome.interval),
        drawings=drawings,
        caption=caption,
        header=header,
        rows=rows,
        settings=tuple(
            (name.replace("_", " "), _value(v)) for name, v in outcome.budget.items() if name != "seconds"
        ),
        params=tuple((name.replace("_", " "), _value(v)) for name, v in outcome.params.items()),
    )


def _value(value: object) -> str:
    if value is None:
        return "not set"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int | float):
        return f"{value:,.0f}" if float(value).is_integer() and abs(value) < 1e15 else f"{value:g}"
    return str(value)


def _rows(rows: Sequence[Row]) -> tuple[tuple[str, ...], tuple[tuple[str, ...], ...]]:
    """All rows as text, by arm in the order of appearance, then by seed; a list shows its mean."""
    arms = list(dict.fromkeys(row.arm for row in rows))
    metrics = list(dict.fromkeys(name for row in rows for name in row.metrics))
    ordered = sorted(rows, key=lambda row: (arms.index(row.arm), row.seed))
    body = tuple(
        (row.arm, str(row.seed), *(_cell(row.metrics[m]) if m in row.metrics else "" for m in metrics))
        for row in ordered
    )
    return ("arm", "seed", *(m.replace("_", " ") for m in metrics)), body


def _cell(value: float | tuple[float, ...]) -> str:
    if isinstance(value, float):
        return f"{value:.6g}" if math.isfinite(value) else "diverged"
    kept = [v for v in value if math.isfinite(v)]
    if not kept:
        return f"{len(value)} values, none finite" if value else "no values"
    return f"{len(value)} values, mean {sum(kept) / len(kept):.4g}"
