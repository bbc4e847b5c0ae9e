"""`posterhall scale`: fit laws of loss, and say how a budget is best spent."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from posterhall.cli import scale_emergence
from posterhall.cli.output import ConfigFile, Json, Quiet, Seed, Sets, Threads, emit_json, emit_table
from posterhall.errors import UsageError

if TYPE_CHECKING:
    from posterhall.scaling.approaches import PowerLaws
    from posterhall.scaling.fit import Fit
    from posterhall.scaling.table import Runs

app = typer.Typer(help="Scaling laws: fit, allocate, and look for emergence.", no_args_is_help=True)
app.command("emergence")(scale_emergence.emergence)

Figure = Annotated[
    Path | None, typer.Option("--figure", metavar="FILE", help="Draw it as .svg, .png or .pdf.")
]


@app.command()
def fit(
    runs: Annotated[Path, typer.Argument(metavar="RUNS", help="A row a run: .csv, .tsv, .jsonl, .parquet.")],
    law: Annotated[
        str,
        typer.Option(
            "--law",
            help="chinchilla, data-constrained, exponent-decay, overfitting-penalty or saturating.",
        ),
    ] = "chinchilla",
    approach: Annotated[
        int, typer.Option("--approach", min=1, max=3, help="1 envelope, 2 parabolas, 3 the law of loss.")
    ] = 3,
    frozen: Annotated[
        str | None,
        typer.Option(
            "--frozen",
            metavar="SET|NAME=VALUE",
            help="Constants that stay: paper, c4, massivetext, chinchilla, epoch; or E=1.8,alpha=0.35.",
        ),
    ] = None,
    decay: Annotated[
        str, typer.Option("--decay", help="Of repeated data: exponential, geometric or explicit.")
    ] = "exponential",
    effects: Annotated[str, typer.Option("--effects", help="What decays: both, data or params.")] = "both",
    tied: Annotated[bool, typer.Option("--tied", help="Chinchilla's law with alpha = beta.")] = False,
    one: Annotated[bool, typer.Option("--one", help="The penalty with one coefficient.")] = False,
    columns: Annotated[
        list[str] | None,
        typer.Option("--columns", metavar="OURS=THEIRS", help="As loss=val_loss,params=n; repeatable."),
    ] = None,
    units: Annotated[
        list[str] | None,
        typer.Option("--units", metavar="OURS=UNIT", help="As params=billions,loss=bits; repeatable."),
    ] = None,
    drop_unfinished: Annotated[
        bool, typer.Option("--drop-unfinished", help="Leave out runs with a loss of 0 or none.")
    ] = False,
    bootstrap: Annotated[
        int | None, typer.Option("--bootstrap", min=0, help="Resamples of the runs [200]; 0 for none.")
    ] = None,
    figure: Figure = None,
    config: ConfigFile = None,
    sets: Sets = None,
    seed: Seed = None,
    threads: Threads = None,
    json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Fit a law of loss to runs, with every minimum found, intervals and what is odd."""
    from posterhall.config import resolve
    from posterhall.progress import Progress
    from posterhall.scaling import approaches, files, table
    from posterhall.scaling.settings import FitSettings

    flags = {"bootstrap": bootstrap, "seed": seed, "threads": threads}
    settings = resolve(FitSettings, file=config, sets=sets or (), flags=flags)
    chosen = _law(law, decay, effects, tied, one)
    if figure is not None:
        from posterhall.report import scaling_plot

        scaling_plot.ending(figure)  # before the work
    read = table.read(
        runs,
        columns=table.pairs(columns or (), "--columns"),
        units=table.pairs(units or (), "--units"),
        drop_unfinished=drop_unfinished,
    )
    if approach < 3:
        if law != "chinchilla" or frozen or figure:
            raise UsageError(
                f"--approach {approach} knows no law of loss: leave out --law, --frozen and --figure"
            )
        found = (approaches.envelope if approach == 1 else approaches.parabolas)(read, settings)
        if json:
            emit_json(files.powers_json(found))
        else:
            _print_powers(found)
        return
    with Progress(settings.bootstrap or None, label="fit", unit="resamples", quiet=quiet) as progress:
        chosen.fit(read, frozen=_frozen(frozen), settings=settings, watch=progress.update)
    if figure is not None:
        scaling_plot.draw_fit(chosen, read, figure, level=settings.level)
    if json:
        emit_json(files.to_json(chosen.fit_))
    else:
        _print_fit(chosen.fit_, read)


@app.command()
def allocate(
    flops: Annotated[float, typer.Option("--flops", help="Compute budget in FLOP, as 1e21.")],
    unique_tokens: Annotated[
        float | None, typer.Option("--unique-tokens", help="Tokens there are, as 25e9 [any number].")
    ] = None,
    law_file: Annotated[
        Path | None,
        typer.Option("--law-file", metavar="FIT.json", help="What `scale fit --json` printed."),
    ] = None,
    constants: Annotated[
        str, typer.Option("--constants", help="Published: c4, massivetext, chinchilla, epoch.")
    ] = "c4",
    figure: Figure = None,
    json: Json = False,
) -> None:
    """The best parameters, tokens and epochs for a compute budget and so many unique tokens."""
    from posterhall.scaling import files
    from posterhall.scaling.constants import LIVES, published
    from posterhall.scaling.laws import Chinchilla, DataConstrained

    if figure is not None:
        from posterhall.report import scaling_plot

        scaling_plot.ending(figure)
    if law_file is not None:
        law = files.read_law(law_file)
    elif set(LIVES) <= set(published(constants).values):
        law = DataConstrained(constants)
    else:
        law = Chinchilla(constants)
    found = law.allocate(flops, unique_tokens)
    if figure is not None:
        scaling_plot.draw_allocation(law, flops, unique_tokens, found, figure)
    names = ("params", "tokens", "epochs", "loss")
    if json:
        emit_json(
            {
                **{name: getattr(found, name) for name in names},
                "interval": {name: list(ends) for name, ends in found.interval.items()},
                "level": found.level,
                "draws": found.draws,
                "law": law.name,
                "flops": flops,
                "unique_tokens": unique_tokens,
                "flags": list(found.flags),
            }
        )
        return
    rows = []
    for name in names:
        low, high = found.interval.get(name, (None, None))
        width = "" if low is None or high is None else f"{_short(low)} to {_short(high)}"
        rows.append((name, _short(getattr(found, name)), width))
    emit_table(rows, header=("", "best", f"{found.level:.0%} interval" if found.interval else ""), right=(1,))
    _print_flags(found.flags)


def _law(name: str, decay: str, effects: str, tied: bool, one: bool) -> Any:
    from posterhall.errors import did_you_mean
    from posterhall.scaling.laws import LAWS

    if name not in LAWS:
        raise UsageError(
            f"no law is called '{name}'; there are: {', '.join(LAWS)}.{did_you_mean(name, LAWS)}"
        )
    wanted: dict[str, dict[str, Any]] = {
        "chinchilla": {"tied": tied},
        "data-constrained": {"decay": decay, "effects": effects},
        "overfitting-penalty": {"one": one},
    }
    asked = {"tied": tied, "decay": decay != "exponential", "effects": effects != "both", "one": one}
    for option, given in asked.items():
        if given and option not in wanted.get(name, {}):
            raise UsageError(f"--{option} does not apply to --law {name}")
    return LAWS[name](**wanted.get(name, {}))


def _frozen(text: str | None) -> str | Mapping[str, float] | None:
    from posterhall.scaling.table import pairs

    if text is None or "=" not in text:
        return text
    try:
        return {name: float(value) for name, value in pairs([text], "--frozen").items()}
    except ValueError:
        raise UsageError(f"--frozen {text}: give numbers, as E=1.8,alpha=0.35") from None


def _print_fit(fit: Fit, runs: Runs) -> None:
    rows = []
    for name, value in fit.values.items():
        interval = fit.intervals.get(name)
        width = "frozen" if name not in fit.free else ""
        if interval is not None:
            high = "no upper bound" if interval.high == float("inf") else f"{interval.high:.4g}"
            width = f"{interval.low:.4g} to {high} ({interval.method.split(',')[0]})"
        rows.append((name, f"{value:.5g}", width))
    level = next((i.level for i in fit.intervals.values()), 0.95)
    emit_table(rows, header=(fit.law, "best", f"{level:.0%} interval"), right=(1,))
    print(f"\nobjective {fit.objective:.7g}, R² {fit.r2:.4f}, {len(runs)} runs")
    if len(fit.minima) > 1:
        print("\nminima found:")
        shown = fit.free if len(fit.free) <= 3 else tuple(fit.values)
        cells = [
            (f"{m.objective:.7g}", f"{m.r2:.4f}", *(f"{m.values[n]:.4g}" for n in shown))
            for m in fit.minima[:8]
        ]
        emit_table(cells, header=("objective", "R²", *shown), right=range(2 + len(shown)))
    held = fit.held_out
    if held is not None:
        print(
            f"\nthe {held.runs} largest runs, predicted without them: off by {held.mean:.2%} on average, "
            f"{held.worst:.2%} at worst, bias {held.bias:+.2%}"
        )
    if fit.outliers:
        print("\noutliers (loss above the law, share):")
        emit_table([(name, f"{residual:+.2%}") for name, residual in fit.outliers[:10]], right=(1,))
    _print_flags(fit.flags)


def _print_powers(found: PowerLaws) -> None:
    rows = []
    for name, value in found.values.items():
        interval = found.intervals.get(name)
        rows.append(
            (name, f"{value:.5g}", "" if interval is None else f"{interval.low:.4g} to {interval.high:.4g}")
        )
    emit_table(rows, header=(f"approach {found.approach}", "best", "interval"), right=(1,))
    print("\noptima:")
    emit_table(
        [tuple(_short(x) for x in row) for row in found.optima.tolist()],
        header=("flops", "params", "tokens", "loss"),
        right=range(4),
    )
    _print_flags(found.flags)


def _print_flags(flags: tuple[str, ...]) -> None:
    if flags:
        print()
    for flag in flags:
        print(f"note: {flag}")


def _short(value: float) -> str:
    for scale, name in ((1e12, "T"), (1e9, "B"), (1e6, "M")):
        if 1e15 > abs(value) >= scale:
            return f"{value / scale:.4g} {name}"
    return f"{value:.5g}"
