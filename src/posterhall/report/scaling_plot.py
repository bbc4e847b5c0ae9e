"""Draws scaling laws: a fit with its residuals and profiles, and where a budget is best spent."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from posterhall.errors import DataError
from posterhall.progress import quantity
from posterhall.runs import atomic_file
from posterhall.scaling import intervals, views

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from posterhall.scaling.allocate import Allocation
    from posterhall.scaling.laws import Law
    from posterhall.scaling.table import Runs

Ending = Literal["svg", "png", "pdf"]
ENDINGS: tuple[Ending, ...] = ("svg", "png", "pdf")

_BLUE, _RED, _GREY, _INK = "#1f6f8b", "#c4572f", "#8a8a8a", "#222222"
_SETTINGS: Any = {
    "svg.fonttype": "none",
    "svg.hashsalt": "posterhall",
    "font.family": "DejaVu Sans",
    "font.size": 9,
    "axes.edgecolor": "#bbbbbb",
    "axes.linewidth": 0.8,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.titlesize": 10,
    "axes.titlelocation": "left",
}


def ending(path: Path) -> Ending:
    """The kind of picture that a path asks for.

    Raises:
        DataError: on another ending than .svg, .png or .pdf.
    """
    given = path.suffix.removeprefix(".").lower()
    for each in ENDINGS:
        if given == each:
            return each
    raise DataError(f"{path.name} does not end in {', '.join('.' + each for each in ENDINGS)}")


def draw_fit(law: Law, runs: Runs, path: Path, *, level: float = 0.95) -> None:
    """Write predicted against seen loss, the law's contours with the runs on them, and a panel for each
    profiled life.

    Args:
        law: fitted to `runs`.
        runs: what it was fitted to.
        path: .svg, .png or .pdf.
        level: of the profile's interval.
    """
    fit = law.fit_
    with _page(path, 2 + len(fit.profiles)) as figure:
        axes = figure.axes
        predicted = law.loss(runs.params, runs.tokens, runs.unique_tokens)
        epochs = runs.epochs
        dots = axes[0].scatter(
            runs.loss, predicted, c=np.log10(epochs), s=14, cmap="viridis", linewidths=0, zorder=3
        )
        ends = [min(runs.loss.min(), predicted.min()), max(runs.loss.max(), predicted.max())]
        axes[0].plot(ends, ends, color=_GREY, lw=0.8, ls=(0, (5, 2.5)))
        axes[0].set_xlabel("loss seen (nats a token)")
        axes[0].set_ylabel("loss by the law")
        axes[0].set_title(f"{fit.n} runs, R² {fit.r2:.3f}")
        if epochs.max() > 1.01:
            bar = figure.colorbar(dots, ax=axes[0], pad=0.02)
            ticks = np.arange(0, math.floor(np.log10(epochs.max())) + 1)
            bar.set_ticks(ticks.tolist(), labels=[f"{10**t:g}" for t in ticks.tolist()])
            bar.set_label("epochs")
            bar.outline.set_visible(False)
        _runs_on_contours(axes[1], law, runs, np.asarray(runs.loss / predicted - 1))
        for each, (name, (grid, lowest)) in zip(axes[2:], fit.profiles.items(), strict=True):
            _profile(each, law, name, grid, lowest, level)


def _runs_on_contours(axes: Axes, law: Law, runs: Runs, above: Any) -> None:
    """Contours of loss, and the runs that they hold for, by how far they lie above the law."""
    unique, chosen = _budget(runs) if law.needs_unique else (None, np.ones(len(runs), np.bool_))
    tokens, params = runs.tokens[chosen], runs.params[chosen]
    plane = views.contours(
        law,
        tokens=(tokens.min() / 2, tokens.max() * 2),
        params=(params.min() / 2, params.max() * 2),
        unique_tokens=unique,
    )
    _lines(axes, plane.tokens, plane)
    most = max(1.0, float(np.quantile(np.abs(100 * above[chosen]), 0.95)))
    dots = axes.scatter(
        tokens, params, c=100 * above[chosen], s=16, cmap="coolwarm", vmin=-most, vmax=most, zorder=3,
        linewidths=0.4, edgecolors=_INK,
    )  # fmt: skip
    bar = axes.figure.colorbar(dots, ax=axes, pad=0.02)
    bar.set_label("loss seen above the law (%)")
    bar.outline.set_visible(False)
    axes.set_xlabel("tokens")
    axes.set_ylabel("parameters")
    of = f", {_count(unique)} unique tokens" if unique is not None else ", one epoch" * law.needs_unique
    axes.set_title(f"loss by the law; {int(chosen.sum())} runs{of}")


def _budget(runs: Runs) -> tuple[float | None, Any]:
    """The unique tokens that most runs share, and those runs; None for tokens that are seen once."""
    fresh = runs.epochs < 1.01
    found: tuple[float | None, Any] = (None, fresh)
    for each in np.unique(runs.unique_tokens):
        same = np.abs(np.log(runs.unique_tokens / each)) < 0.01
        if same.sum() > found[1].sum():
            found = (float(each), same)
    return found


def _profile(axes: Axes, law: Law, name: str, grid: Any, lowest: Any, level: float) -> None:
    fit = law.fit_
    bound = intervals.threshold(fit.objective, level, fit.n)
    symbol = {"R_D": "$R_D^*$", "R_N": "$R_N^*$"}[name]
    finite = np.isfinite(grid)
    axes.axhspan(fit.objective, bound, color=_BLUE, alpha=0.10, lw=0)
    axes.plot(grid[finite], lowest[finite], color=_BLUE, lw=1.4)
    for minimum in fit.minima:
        if math.isfinite(minimum.values[name]):
            axes.plot(minimum.values[name], minimum.objective, "o", color=_RED, ms=4, zorder=3)
    axes.set_xscale("log")
    room = bound - fit.objective
    axes.set_ylim(fit.objective - 0.15 * room, fit.objective + 4 * room)
    if lowest[-1] < fit.objective + 4 * room:
        axes.axhline(lowest[-1], color=_GREY, lw=0.8, ls=(0, (5, 2.5)))
        axes.text(
            0.98,
            lowest[-1],
            "never ends",
            color=_GREY,
            ha="right",
            va="bottom",
            transform=axes.get_yaxis_transform(),
        )
    shown = grid[finite & (lowest < fit.objective + 5 * room)]
    axes.set_xlim(shown[0] / 1.2, shown[-1] * 1.2)
    axes.set_xlabel(f"{symbol} (repetitions)" if name == "R_D" else f"{symbol} (multiples of $U_N$)")
    axes.set_ylabel("objective")
    axes.set_title(f"{symbol}: dots are minima, the band {100 * level:g} %")


def draw_allocation(
    law: Law, flops: float, unique_tokens: float | None, found: Allocation, path: Path
) -> None:
    """Write the frontier around the budget, and with limited tokens the contours of loss.

    Args:
        law: with constants.
        flops, unique_tokens: the budget.
        found: the allocation.
        path: .svg, .png or .pdf.
    """
    with _page(path, 1 if unique_tokens is None else 2) as figure:
        axes = figure.axes
        line = views.frontier(law, (flops / 100, flops * 10), unique_tokens)
        axes[0].plot(line.flops, line.params, color=_BLUE, lw=1.4, label="parameters")
        axes[0].plot(line.flops, line.tokens, color=_RED, lw=1.4, label="tokens")
        for value, name, colour in ((found.params, "params", _BLUE), (found.tokens, "tokens", _RED)):
            low, high = found.interval.get(name, (value, value))
            axes[0].errorbar(
                [flops],
                [value],
                [[max(0, value - low)], [max(0, high - value)]],
                fmt="o",
                ms=5,
                color=colour,
                capsize=3,
            )
        if unique_tokens is not None:
            axes[0].axhline(unique_tokens, color=_GREY, lw=0.8, ls=(0, (5, 2.5)))
            axes[0].text(
                0.98,
                unique_tokens,
                "unique tokens",
                color=_GREY,
                ha="right",
                va="bottom",
                transform=axes[0].get_yaxis_transform(),
            )
        axes[0].set_xscale("log")
        axes[0].set_yscale("log")
        axes[0].set_xlabel("compute (FLOP)")
        axes[0].set_title("best parameters and tokens")
        axes[0].legend(frameon=False, loc="upper left")
        if unique_tokens is not None:
            _contours(axes[1], law, flops, unique_tokens, found)


def _contours(axes: Axes, law: Law, flops: float, unique_tokens: float, found: Allocation) -> None:
    most = max(20.0, 6 * found.epochs)
    plane = views.contours(
        law,
        tokens=(unique_tokens, most * unique_tokens),
        params=(found.params / 12, found.params * 12),
        unique_tokens=unique_tokens,
    )
    epochs = plane.tokens / unique_tokens
    _lines(axes, epochs, plane)
    axes.plot(epochs, flops / (6 * plane.tokens), color=_INK, lw=1.0, ls=(0, (5, 2.5)))
    axes.plot(found.epochs, found.params, "o", color=_RED, ms=6, zorder=3)
    axes.set_xlabel(f"epochs over {_count(unique_tokens)} unique tokens")
    axes.set_ylabel("parameters")
    axes.set_title("loss; dashed is the budget")


def _lines(axes: Axes, across: Any, plane: views.Contours) -> None:
    """Lines of equal loss."""
    # Before the contours: gaps for their labels are cut in the scale that the axes have then.
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.set_xlim(float(across[0]), float(across[-1]))
    axes.set_ylim(float(plane.params[0]), float(plane.params[-1]))
    levels = np.quantile(plane.loss, np.linspace(0.02, 0.9, 14))
    apart = np.diff(levels, prepend=-np.inf) > 0.005 * np.ptp(plane.loss)  # a plateau has most quantiles
    levels = levels[apart]
    lines = axes.contour(across, plane.params, plane.loss, levels=levels, cmap="viridis_r", linewidths=0.9)
    axes.clabel(lines, fontsize=7, fmt="%.3f", inline_spacing=2)


def _count(tokens: float) -> str:
    """Tokens in words, in billions as tables have them."""
    return quantity(tokens).replace(" G", " B")


@contextlib.contextmanager
def _page(path: Path, panels: int) -> Iterator[Figure]:
    """A figure of panels side by side that is written when the block ends."""
    import matplotlib as mpl
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    kind = ending(path)
    # No date inside: equal fits give equal files.
    metadata: dict[str, Any] = {"svg": {"Date": None}, "pdf": {"CreationDate": None}, "png": {}}[kind]
    with mpl.rc_context(_SETTINGS):
        figure = Figure(figsize=(0.8 + 4.0 * panels, 3.5), layout="constrained")
        FigureCanvasAgg(figure)
        for i in range(panels):
            axes = figure.add_subplot(1, panels, i + 1)
            axes.tick_params(color="#bbbbbb", labelcolor="#555555", labelsize=8, which="both")
        yield figure
        with atomic_file(path) as file:
            figure.savefig(file, format=kind, dpi=150, metadata=metadata)
