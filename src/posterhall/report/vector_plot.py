"""Draws words on their plane: points, labels that keep out of each other's way, lines between pairs."""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import numpy.typing as npt

from posterhall.embeddings.projection import Plane
from posterhall.errors import DataError
from posterhall.runs import atomic_file

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Boxes = npt.NDArray[np.float64]
Ending = Literal["svg", "png", "pdf"]

ENDINGS: tuple[Ending, ...] = ("svg", "png", "pdf")

_FIRST, _SECOND, _LINE, _INK = "#1f6f8b", "#c4572f", "#8a8a8a", "#222222"
_SETTINGS: Any = {
    "svg.fonttype": "none",  # text stays text: searchable, and readable to a screen reader
    "svg.hashsalt": "posterhall",  # equal planes give equal files
    "font.family": "DejaVu Sans",
    "font.size": 9,
    "axes.edgecolor": "#bbbbbb",
    "axes.linewidth": 0.8,
    "axes.spines.top": False,
    "axes.spines.right": False,
}
_RADII = (5.0, 9.0, 14.0, 20.0, 28.0, 38.0)  # points between a label and what it names
_FAR = 12.0  # from here on a thin line leads from the label to its point
_DIRECTIONS = 16
_LONGEST = 40  # letters of a label


def draw(plane: Plane, path: Path, *, title: str = "", width: float = 7.0, height: float = 5.5) -> None:
    """Write the plane as SVG, PNG or PDF, by the ending of `path`.

    Args:
        plane: from `posterhall.embeddings.projection.plane`.
        path: where to write.
        title: above the picture; empty for none.
        width, height: inches.

    Raises:
        DataError: on another ending.
    """
    ending = path.suffix.removeprefix(".").lower()
    if ending not in ENDINGS:
        raise DataError(f"{path.name} does not end in {', '.join('.' + each for each in ENDINGS)}")
    import matplotlib as mpl
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    with mpl.rc_context(_SETTINGS), _missing_letters() as unknown:
        figure = Figure(figsize=(width, height), layout="constrained")
        FigureCanvasAgg(figure)
        axes = figure.add_subplot()
        _points_and_lines(axes, plane)
        axes.set_xlabel(f"first component ({plane.explained[0]:.0%} of the variance)")
        axes.set_ylabel(f"second component ({plane.explained[1]:.0%})")
        axes.tick_params(labelsize=7, color="#bbbbbb", labelcolor="#777777")
        axes.margins(0.12, 0.1)
        if title:
            axes.set_title(title, loc="left", fontsize=10)
        _label(figure, axes, plane)
        # No date inside, for the same reason as the salt.
        metadata: dict[str, Any] = {"svg": {"Date": None}, "pdf": {"CreationDate": None}, "png": {}}[ending]
        with atomic_file(path) as file:
            figure.savefig(file, format=ending, dpi=150, metadata=metadata)
    if unknown and ending != "svg":  # an SVG's letters come from the reader's fonts
        warnings.warn(f"{path.name} lacks letters that DejaVu Sans has not; an .svg shows them", stacklevel=2)


@contextlib.contextmanager
def _missing_letters() -> Iterator[list[str]]:
    """Collects what matplotlib says of letters it cannot draw, in place of a warning for each."""
    missing: list[str] = []
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        yield missing
    for each in told:
        if str(each.message).startswith("Glyph "):
            missing.append(str(each.message))
        else:
            warnings.warn_explicit(each.message, each.category, each.filename, each.lineno)


def _points_and_lines(axes: Axes, plane: Plane) -> None:
    seconds = np.zeros(len(plane.words), np.bool_)
    seconds[plane.pairs[:, 1]] = True
    for a, b in plane.pairs:
        axes.annotate(
            "",
            xy=tuple(plane.points[b]),
            xytext=tuple(plane.points[a]),
            arrowprops={"arrowstyle": "-|>", "color": _LINE, "lw": 0.9, "shrinkA": 3, "shrinkB": 4},
        )
    for chosen, colour in ((~seconds, _FIRST), (seconds, _SECOND)):
        axes.scatter(
            plane.points[chosen, 0], plane.points[chosen, 1], s=18, color=colour, linewidths=0, zorder=3
        )


def _label(figure: Figure, axes: Axes, plane: Plane) -> None:
    """Write each word where it covers least: other labels, points, then lines; the nearest such place."""
    figure.draw_without_rendering()  # settles the layout, so that pixels are what they will be
    scale = figure.dpi / 72.0
    spots = axes.transData.transform(plane.points)
    texts = [
        axes.annotate(
            _shown(word),
            xy=tuple(plane.points[i]),
            xytext=(0, 0),
            textcoords="offset points",
            ha="center",
            va="center",
            color=_INK,
            zorder=4,
            parse_math=False,
        )
        for i, word in enumerate(plane.words)
    ]
    for text in texts:
        text.set_in_layout(False)  # what does not fit is cut, and the plane stays as large as it is
    extents = [text.get_window_extent() for text in texts]
    sizes = np.array([(box.width, box.height) for box in extents]) + 3 * scale
    frame = axes.get_window_extent()
    dot = 3 * scale * np.array([-1, -1, 1, 1])  # what a point adds to a box that may not touch it
    lines = _samples(spots, plane.pairs)
    placed = np.empty((0, 4))
    # The most crowded first: they have the fewest free places.
    crowd = (np.hypot(*(spots[:, None] - spots[None]).transpose(2, 0, 1)) < 60 * scale).sum(axis=1)
    for i in np.argsort(-crowd, kind="stable").tolist():
        centres, costs = _candidates(spots[i], sizes[i], scale)
        boxes = np.concatenate([centres - sizes[i] / 2, centres + sizes[i] / 2], axis=1)
        outside = (
            (boxes[:, 0] < frame.x0)
            | (boxes[:, 1] < frame.y0)
            | (boxes[:, 2] > frame.x1)
            | (boxes[:, 3] > frame.y1)
        )
        area = float(sizes[i].prod())
        others = np.delete(spots, i, axis=0)
        obstacles = np.concatenate([placed, np.tile(others, 2) + dot])
        cost = (
            costs
            + 100 * _overlap(boxes, placed) / area
            + 60 * _inside(boxes + dot, others)
            + 2.0 * _inside(boxes, lines)
            + 8.0 * _ambiguous(boxes, spots, i, 4 * scale)
            + 30.0 * _crossed(boxes, spots[i], obstacles, _FAR * scale)
            + 50 * outside
        )
        best = int(cost.argmin())
        placed = np.vstack([placed, boxes[best]])
        texts[i].set_position(tuple((centres[best] - spots[i]) / scale))
        foot = np.clip(spots[i], boxes[best, :2], boxes[best, 2:])
        if np.hypot(*(foot - spots[i])) > _FAR * scale:
            ends = axes.transData.inverted().transform([spots[i], foot])
            lines = np.concatenate([lines, np.linspace(spots[i], foot, 12)])
            axes.plot(*ends.T, color=_INK, lw=0.4, alpha=0.6, zorder=2, scalex=False, scaley=False)


def _shown(word: str) -> str:
    word = word.replace("_", " ")
    return word if len(word) <= _LONGEST else word[: _LONGEST - 1] + "…"


def _candidates(spot: Boxes, size: Boxes, scale: float) -> tuple[Boxes, npt.NDArray[np.float64]]:
    """Centres for a label around its point, and what their distance and direction cost."""
    angles = 2 * np.pi * np.arange(_DIRECTIONS) / _DIRECTIONS
    towards = np.stack([np.cos(angles), np.sin(angles)], axis=1)
    centres, costs = [], []
    for rank, radius in enumerate(_RADII):
        # The box touches a circle of that radius: half its extent further along each direction.
        centres.append(spot + towards * (radius * scale + size / 2 * np.abs(towards)))
        costs.append(1.5 * rank + 0.2 * (1 - np.cos(angles)))  # to the right if all else is equal
    return np.concatenate(centres), np.concatenate(costs)


def _overlap(boxes: Boxes, others: Boxes) -> npt.NDArray[np.float64]:
    """Area of each box that others cover, (n,)."""
    low = np.maximum(boxes[:, None, :2], others[None, :, :2])
    high = np.minimum(boxes[:, None, 2:], others[None, :, 2:])
    return np.asarray(np.clip(high - low, 0, None).prod(axis=2).sum(axis=1))


def _ambiguous(boxes: Boxes, spots: Boxes, own: int, slack: float) -> npt.NDArray[np.float64]:
    """How many other points lie about as near to each box as its own point does, at most 3, (n,)."""
    gaps = np.maximum(boxes[:, None, :2] - spots, spots - boxes[:, None, 2:])
    distance = np.hypot(*np.clip(gaps, 0, None).transpose(2, 0, 1))  # (n, points)
    nearer = distance < distance[:, [own]] + slack
    return np.asarray(np.minimum(nearer.sum(axis=1) - 1, 3), np.float64)


def _crossed(boxes: Boxes, spot: Boxes, obstacles: Boxes, near: float) -> npt.NDArray[np.float64]:
    """How many obstacles (boxes) a line from the spot to each box would touch, (n,); 0 for near boxes."""
    way = np.clip(spot, boxes[:, :2], boxes[:, 2:]) - spot
    points = spot + np.linspace(0.05, 1, 24)[:, None, None] * way  # (24, n, 2)
    inside = (points[:, :, None] >= obstacles[:, :2]) & (points[:, :, None] <= obstacles[:, 2:])
    touched = inside.all(axis=3).any(axis=0).sum(axis=1)
    return np.asarray(touched * (np.hypot(*way.T) > near), np.float64)


def _samples(spots: Boxes, pairs: npt.NDArray[np.int64]) -> Boxes:
    """Points along the lines, four pixels apart, (n, 2)."""
    pieces = [np.empty((0, 2))]
    for a, b in pairs:
        count = max(2, int(np.hypot(*(spots[b] - spots[a])) / 4))
        pieces.append(spots[a] + np.linspace(0, 1, count)[:, None] * (spots[b] - spots[a]))
    return np.concatenate(pieces)


def _inside(boxes: Boxes, points: Boxes) -> npt.NDArray[np.float64]:
    """How many points lie in each box, at most 10, (n,)."""
    within = ((points[None] >= boxes[:, None, :2]) & (points[None] <= boxes[:, None, 2:])).all(axis=2)
    return np.asarray(np.minimum(within.sum(axis=1), 10), np.float64)
