"""`posterhall scale emergence`: is it the model that jumps, or the metric?"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from posterhall.cli.output import Json, Quiet, Seed, emit_json, emit_table
from posterhall.errors import DataError, UsageError, did_you_mean


def emergence(
    scores: Annotated[
        list[Path] | None,
        typer.Argument(
            metavar="SCORES...",
            help="Tables (.csv, .tsv, .jsonl, .json, .parquet) with columns scale and score, and family, "
            "task, metric, n, seed, item where there are; results of lm-evaluation-harness or BIG-bench, or "
            "directories of them.",
        ),
    ] = None,
    columns: Annotated[
        str | None,
        typer.Option("--columns", metavar="OURS=THEIRS,...", help="Names of columns: scale=flops,score=acc."),
    ] = None,
    models: Annotated[
        Path | None,
        typer.Option("--models", help="Table of model, scale, family, for results that lack the size."),
    ] = None,
    metric: Annotated[
        list[str] | None,
        typer.Option("--metric", help="Only this metric; repeatable. preferred: BIG-bench's own choice."),
    ] = None,
    task: Annotated[list[str] | None, typer.Option("--task", help="Only this task; repeatable.")] = None,
    family: Annotated[
        list[str] | None, typer.Option("--family", help="Only this family; repeatable.")
    ] = None,
    chance: Annotated[
        float | None,
        typer.Option("--chance", help="What guessing scores, where the file does not say: 0.25."),
    ] = None,
    items: Annotated[
        int | None,
        typer.Option("--items", min=1, help="Test items behind a score, where the file does not say."),
    ] = None,
    unit: Annotated[
        str | None, typer.Option("--unit", help="fraction or percent, where it could be either.")
    ] = None,
    duplicates: Annotated[
        str, typer.Option("--duplicates", help="Several scores at one scale: refuse or mean.")
    ] = "refuse",
    drop_missing: Annotated[
        bool, typer.Option("--drop-missing", help="Leave out rows without a score.")
    ] = False,
    fdr: Annotated[float, typer.Option("--fdr", help="Share of false discoveries tolerated.")] = 0.05,
    resamples: Annotated[int, typer.Option("--resamples", help="For intervals and p-values.")] = 1000,
    figure: Annotated[
        Path | None, typer.Option("--figure", help="Draw the curves: .svg, .png or .pdf.")
    ] = None,
    plan: Annotated[
        str | None,
        typer.Option(
            "--plan",
            metavar="LENGTHS",
            help="No scores: how many items it takes to see answers of so many tokens right, as 1,5,20.",
        ),
    ] = None,
    p: Annotated[
        float | None, typer.Option("--p", help="With --plan: probability that one token is right.")
    ] = None,
    error: Annotated[
        float, typer.Option("--error", help="With --plan: relative standard error wanted.")
    ] = 0.1,
    seed: Seed = None,
    json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Look for jumps in scores over scale, and for what may feign them.

    Every family, task and metric gets an emergence score (1 after normalising is a straight line) with
    an interval, a p-value against a straight line under the test's own noise, corrected for their number,
    and a verdict by whether curves with a break foretell the largest scales better than smooth ones.
    """
    if plan is not None:
        _plan(plan, p, error, items, json)
        return
    if not scores:
        raise UsageError("no scores: give files, or --plan LENGTHS --p P")
    if p is not None:
        raise UsageError("--p belongs to --plan")
    if unit not in (None, "fraction", "percent"):
        raise UsageError(f"--unit is {unit!r}; allowed are fraction and percent")
    if duplicates not in ("refuse", "mean"):
        raise UsageError(f"--duplicates is {duplicates!r}; allowed are refuse and mean")

    from posterhall.progress import Progress
    from posterhall.report import emergence_plot
    from posterhall.scaling import emergence as room

    if figure is not None:
        emergence_plot.checked_ending(figure)  # before the work

    rows = room.read(scores, columns=_pairs(columns), models=models)
    rows = [
        row
        for row in rows
        if metric is None or row.metric in metric or ("preferred" in metric and row.preferred)
    ]
    rows = _only(rows, "task", task)
    rows = _only(rows, "family", family)
    if not rows:
        raise DataError(f"no score in the metrics {', '.join(metric or ())}")
    known = room.grouped(
        rows,
        unit=unit,  # type: ignore[arg-type]
        duplicates=duplicates,  # type: ignore[arg-type]
        drop_missing=drop_missing,
        chance=chance,
        items=items,
    )
    with Progress(len(known), label="emergence", unit="series", quiet=quiet) as progress:
        findings = room.analyse(
            known, seed=seed or 0, resamples=resamples, fdr=fdr, watch=lambda done: progress.update(done)
        )
    left = 0
    if figure is not None:
        left = emergence_plot.draw(findings, figure)
    tally = room.tally(findings)
    if json:
        emit_json(
            {
                "series": [finding.to_dict() for finding in findings],
                "metrics": tally,
                "single_scale": len(known) - len(findings),
                "fdr": fdr,
                "figure": figure,
            }
        )
        return
    _emit(findings, tally, len(known) - len(findings))
    if figure is not None:
        print(f"\n{figure}" + (f"  ({left} metrics have no panel; choose with --metric)" if left else ""))


def _only(rows: list[Any], part: str, wanted: list[str] | None) -> list[Any]:
    if not wanted:
        return rows
    names = {getattr(row, part) for row in rows}
    for each in wanted:
        if each not in names:
            raise DataError(f"no {part} is called {each!r}.{did_you_mean(each, names)}")
    return [row for row in rows if getattr(row, part) in wanted]


def _pairs(columns: str | None) -> dict[str, str]:
    pairs = {}
    for part in (columns or "").split(","):
        ours, equals, theirs = (each.strip() for each in part.partition("="))
        if part.strip() and not (ours and equals and theirs):
            raise UsageError(f"--columns holds {part.strip()!r}; write scale=flops,score=acc")
        if ours:
            pairs[ours] = theirs
    return pairs


def _plan(lengths: str, p: float | None, error: float, items: int | None, json: bool) -> None:
    from posterhall.scaling.emergence.planner import least_rate, plan

    if p is None:
        raise UsageError("--plan needs --p, the probability that one token is right, as 0.8")
    try:
        wanted = [int(each) for each in lengths.split(",")]
    except ValueError:
        raise UsageError(
            f"--plan {lengths!r} holds something else than whole numbers; write 1,5,20"
        ) from None
    plans = plan(p, wanted, relative_error=error)
    least = None if items is None else least_rate(items, relative_error=error)
    if json:
        emit_json({"p": p, "lengths": [vars(each) for each in plans], "items": items, "least_rate": least})
        return
    emit_table(
        [
            (
                each.length,
                f"{each.rate:.3g}",
                *map(_count, (each.items_seen, each.items_measured, each.items_edit_distance)),
            )
            for each in plans
        ],
        header=("tokens", "p^L", "to see one right", f"to ±{error:.0%}", f"edit distance to ±{error:.0%}"),
        right=range(5),
    )
    if least is not None:
        print(f"\n{items:,} items measure rates down to {least:.3g} to ±{error:.0%}")


def _count(number: int) -> str:
    return f"{number:,}" if number < 10**9 else f"{number:.1e}"


def _emit(findings: list[Any], tally: list[dict[str, Any]], single: int) -> None:
    def between(finding: Any) -> str | None:
        return None if finding.low is None else f"{finding.low:.3g} to {finding.high:.3g}"

    def number(value: float | None) -> str | None:
        return None if value is None else f"{value:.2g}"

    ordered = sorted(findings, key=lambda each: -each.score)
    emit_table(
        [
            (
                each.series.family or None,
                each.series.task or None,
                each.series.metric,
                each.series.scales.size,
                f"{each.score:.3g}",
                f"{each.normalised:.2f}",
                between(each),
                number(each.p),
                number(each.q),
                each.verdict,
                ", ".join(each.flags) or None,
            )
            for each in ordered
        ],
        header=("family", "task", "metric", "scales", "ES", "ES/(n-1)", "95 %", "p", "q", "verdict", "flags"),
        right=(3, 4, 5, 7, 8),
    )
    if len(tally) > 1:
        print()
        emit_table(
            [tuple(row.values()) for row in tally],
            header=("metric", "series", "ES > 100", "infinite", "sharper than a line", "breaks"),
            right=range(1, 6),
        )
    if single:
        print(f"\n{single} series have one scale only and are left out")
