"""Draws a claim's figure: each panel an SVG that takes its colours from the page, with its legend as data.

Legends are left to HTML, where they wrap and cannot cover anything. Colours are written as CSS variables,
so that one drawing serves light and dark pages and print.
"""

from __future__ import annotations

import io
import math
import re
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from posterhall import stats
from posterhall.claims.figures import Axis, Band, Bars, Figure, Line, Panel, Points, Reference, Strip

WIDTH = 430  # CSS pixels: shown whole on a phone, two abreast on a laptop
SERIES = 7  # --c1 ... --c7 in the style sheet
_MARKERS = "osD^vPX"
_DASH = (0, (5, 2.5))

# matplotlib writes these colours; `_themed` replaces them by what the page defines.
_INK, _RULE, _SOFT = "#000001", "#000002", "#000003"
_VARIABLES = {_INK: "var(--ink)", _RULE: "var(--rule)", _SOFT: "var(--soft)"} | {
    f"#0000{i + 16:02x}": f"var(--c{i + 1})" for i in range(SERIES)
}


def _colour(i: int) -> str:
    return f"#0000{i % SERIES + 16:02x}"


@dataclass(frozen=True)
class Key:
    """A legend's entry: its text, the shape of its sample and the number of its colour."""

    label: str
    shape: str  # line, dashed, dot, bar, band
    colour: str  # a CSS value


@dataclass(frozen=True)
class Drawing:
    """A drawn panel."""

    svg: str
    title: str
    keys: tuple[Key, ...]


def draw(figure: Figure, salt: str) -> list[Drawing]:
    """Draw every panel; `salt` makes ids inside the drawings differ from those of other figures."""
    return [_panel(panel, f"{salt}-{i}", figure.caption) for i, panel in enumerate(figure.panels)]


def _panel(panel: Panel, salt: str, caption: str) -> Drawing:
    import matplotlib as mpl
    from matplotlib.backends.backend_svg import FigureCanvasSVG
    from matplotlib.figure import Figure as Canvas

    categories = _categories(panel)
    height = 300.0 if not categories else 70 + _row_height(panel) * len(categories)
    settings: Any = {
        "svg.fonttype": "none",
        "svg.hashsalt": salt,
        "font.family": "DejaVu Sans",  # wider than most, so that what fits in it fits in the page's own
        "font.size": 12,
        "axes.linewidth": 0.8,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.edgecolor": _RULE,
        "axes.labelcolor": _INK,
        "text.color": _INK,
        "xtick.color": _RULE,
        "ytick.color": _RULE,
        "xtick.labelcolor": _INK,
        "ytick.labelcolor": _INK,
        "xtick.labelsize": 11,
        "ytick.labelsize": 11,
        "lines.linewidth": 1.8,
        "lines.markersize": 5.5,
        "text.parse_math": False,
    }
    with mpl.rc_context(settings):
        canvas = Canvas(figsize=(WIDTH / 72, height / 72), dpi=72, layout="constrained")
        canvas.patch.set_alpha(0.0)
        axes = canvas.add_subplot()
        axes.patch.set_alpha(0.0)
        axes.grid(axis="x" if categories else "both", color=_RULE, linewidth=0.6, alpha=0.5)
        axes.set_axisbelow(True)
        keys = _categorical(axes, panel, categories) if categories else _numeric(axes, panel)
        keys += _references(axes, panel)
        _axis(axes.xaxis, panel.x, axes.set_xlim, _across(panel))
        if categories:
            axes.set_ylabel(panel.y.label)
        else:
            _axis(axes.yaxis, panel.y, axes.set_ylim, ())
        buffer = io.StringIO()
        back_end: Any = FigureCanvasSVG(canvas)
        back_end.print_svg(buffer, metadata={"Date": None, "Creator": None})
    return Drawing(_themed(buffer.getvalue(), salt, panel.title or caption), panel.title, tuple(keys))


def _across(panel: Panel) -> tuple[float, ...]:
    """The x at which something was measured: ticks belong there if they are few."""
    return tuple(sorted({x for mark in panel.marks if isinstance(mark, Line | Points) for x in mark.x}))


def _categories(panel: Panel) -> list[str]:
    named = [c for mark in panel.marks if isinstance(mark, Strip | Bars) for c in mark.categories]
    return list(dict.fromkeys(named))


def _row_height(panel: Panel) -> float:
    groups = sum(isinstance(mark, Strip | Bars) for mark in panel.marks)
    longest = max((len(_wrapped(c).splitlines()) for c in _categories(panel)), default=1)
    return max(24.0 + 18.0 * groups, 15.0 * longest + 8)


def _wrapped(text: str) -> str:
    return "\n".join(textwrap.wrap(text, 22, break_long_words=True)) or text


def _numeric(axes: Any, panel: Panel) -> list[Key]:
    keys = []
    marks = [mark for mark in panel.marks if isinstance(mark, Line | Points)]
    for i, mark in enumerate(marks):
        x, y = _drawable(mark.x, panel.x), _drawable(mark.y, panel.y)
        if isinstance(mark, Points):
            axes.plot(x, y, linestyle="", marker=_MARKERS[i % len(_MARKERS)], color=_colour(i), alpha=0.85)
            keys.append(Key(mark.label, "dot", _css(i)))
            continue
        marker = _MARKERS[i % len(_MARKERS)] if mark.markers and len(x) <= 40 else ""
        axes.plot(x, y, color=_colour(i), marker=marker, linestyle=_DASH if mark.dashed else "-")
        if mark.low and mark.high:
            low, high = _drawable(mark.low, panel.y), _drawable(mark.high, panel.y)
            if panel.y.log:  # an interval that reaches below zero is cut at the smallest value drawn
                low = np.where(np.isnan(low) & ~np.isnan(high), np.nanmin(y), low)
            axes.fill_between(x, low, high, color=_colour(i), alpha=0.18, linewidth=0)
        keys.append(Key(mark.label, "dashed" if mark.dashed else "line", _css(i)))
    return keys


def _categorical(axes: Any, panel: Panel, categories: Sequence[str]) -> list[Key]:
    """Strips and bars lie on their side, so that names of any length can be read."""
    keys = []
    groups = [mark for mark in panel.marks if isinstance(mark, Strip | Bars)]
    step = 0.8 / len(groups)
    lost = dict.fromkeys(categories, 0)
    for i, mark in enumerate(groups):
        shift = (i - (len(groups) - 1) / 2) * step
        colour = _colour(i)
        for j, name in enumerate(mark.categories):
            at = categories.index(name) + shift
            if isinstance(mark, Strip):
                values = _drawable(mark.values[j], panel.x)
                kept = values[np.isfinite(values)]
                lost[name] += int(values.size - kept.size)
                axes.plot(
                    kept, np.full(kept.size, at + 0.16 * step), ".", color=colour, alpha=0.55, markersize=6
                )
                if kept.size > 1:
                    interval = stats.mean_interval(kept)
                    _whisker(axes, interval.low, interval.high, at - 0.14 * step, colour, panel.x)
                if kept.size:
                    axes.plot([kept.mean()], [at - 0.14 * step], marker="D", markersize=5.5, color=colour)
            else:
                low = mark.low[j] if mark.low else math.nan
                high = mark.high[j] if mark.high else math.nan
                axes.barh(at, mark.y[j], height=0.82 * step, color=colour, alpha=0.8)
                _whisker(axes, low, high, at, _INK, panel.x)
        if mark.label:
            keys.append(Key(mark.label, "dot" if isinstance(mark, Strip) else "bar", _css(i)))
    names = [_wrapped(name + (f" ({lost[name]} diverged)" if lost[name] else "")) for name in categories]
    axes.set_yticks(range(len(categories)), names)
    axes.set_ylim(len(categories) - 0.45, -0.55)
    axes.tick_params(axis="y", length=0)
    axes.spines["left"].set_visible(False)
    return keys


def _whisker(axes: Any, low: float, high: float, at: float, colour: str, axis: Axis) -> None:
    ends = _drawable((low, high), axis)
    if np.isfinite(ends).all():
        axes.plot(ends, [at, at], color=colour, linewidth=2.2, solid_capstyle="butt")


def _references(axes: Any, panel: Panel) -> list[Key]:
    keys = []
    for mark in panel.marks:
        if isinstance(mark, Reference):
            line = axes.axhline if mark.axis == "y" else axes.axvline
            line(mark.value, color=_SOFT, linewidth=1.3, linestyle=(0, (2, 2)))
            keys.append(Key(mark.label, "reference", "var(--soft)"))
        elif isinstance(mark, Band):
            span = axes.axhspan if mark.axis == "y" else axes.axvspan
            limits = axes.get_ylim() if mark.axis == "y" else axes.get_xlim()
            low = mark.low if math.isfinite(mark.low) else min(limits)
            high = mark.high if math.isfinite(mark.high) else max(limits)
            span(low, high, color=_SOFT, alpha=0.16, linewidth=0)
            keys.append(Key(mark.label, "band", "var(--soft)"))
    return keys


def _axis(side: Any, axis: Axis, limit: Any, measured: Sequence[float]) -> None:
    from matplotlib.ticker import FixedLocator, FuncFormatter, MaxNLocator, NullFormatter, NullLocator

    side.set_label_text(textwrap.fill(axis.label, 44))
    name = side.axis_name
    if axis.log:
        getattr(side.axes, f"set_{name}scale")("log")
        side.set_minor_formatter(NullFormatter())
        ends = sorted(side.get_view_interval())
        if ends[0] > 0 and ends[1] / ends[0] < 30:  # decades alone would leave one tick or none
            side.set_major_locator(_one_two_five(ends[0], ends[1]))
            side.set_minor_locator(NullLocator())
    if axis.low is not None or axis.high is not None:
        limit(axis.low, axis.high)
    if not axis.log:
        side.set_major_locator(MaxNLocator(6))
    if 1 < len(measured) <= 7 and _apart(measured, axis.log):
        side.set_major_locator(FixedLocator(list(measured)))
        side.set_minor_locator(NullLocator())
    text = (lambda v, _: f"{_number(100 * v)} %") if axis.percent else (lambda v, _: _number(v))
    side.set_major_formatter(FuncFormatter(text))


def _one_two_five(low: float, high: float) -> Any:
    from matplotlib.ticker import FixedLocator

    decades = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    return FixedLocator([d * 10.0**e for e in decades for d in (1, 2, 5)])


def _apart(measured: Sequence[float], log: bool) -> bool:
    """Whether ticks at these values leave room for their labels."""
    if log and measured[0] <= 0:
        return False
    at = np.log(measured) if log else np.asarray(measured)
    return bool(np.diff(at).min() > 0.11 * (at[-1] - at[0]))


def _number(value: float) -> str:
    """Short: 0.05, 300, 20k, 1.5M."""
    for size, letter in ((1e9, "G"), (1e6, "M"), (1e4, "k")):
        if abs(value) >= size:
            return f"{value / (1e3 if letter == 'k' else size):.4g}{letter}"
    return f"{value:.4g}".replace("-", "\N{MINUS SIGN}")


def _drawable(values: Sequence[float], axis: Axis) -> Any:
    """Values with NaN where a logarithmic axis has no place for them."""
    array = np.asarray(values, dtype=np.float64)
    return np.where(array > 0, array, np.nan) if axis.log else array


def _css(i: int) -> str:
    return f"var(--c{i % SERIES + 1})"


def _themed(svg: str, salt: str, label: str) -> str:
    """Cut a matplotlib SVG down to what stands inside a page, in the page's colours and font."""
    from markupsafe import escape

    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>\s*", "", svg, flags=re.DOTALL)
    svg = re.sub(r"<!--.*?-->\s*", "", svg, flags=re.DOTALL)
    svg = re.sub(r"<style.*?</style>\s*", "", svg, flags=re.DOTALL)  # it would apply to the whole page
    head = f'<svg role="img" aria-label="{escape(label)}" viewBox="0 0 {WIDTH} '
    svg = re.sub(r'<svg [^>]*viewBox="0 0 \S+ (\S+)"[^>]*>', lambda m: f'{head}{m[1]}">', svg, count=1)
    # Names like axes_1 recur in every drawing and nothing refers to them; hashed ones carry the salt.
    svg = re.sub(r' id="[A-Za-z][0-9A-Za-z.]*_[0-9_]+"', "", svg)
    svg = re.sub(r"font-family: [^;\"]+; ?", "", svg)
    svg = svg.replace("xlink:href", "href")
    for sentinel, variable in _VARIABLES.items():
        svg = svg.replace(sentinel, variable)
    return svg.strip()
