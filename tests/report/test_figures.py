"""Figures: stored as numbers, drawn in the page's colours; and the strip beside a verdict."""

from __future__ import annotations

import json
import math
import re
import xml.etree.ElementTree as ET

import pytest

from posterhall.claims import (
    Axis,
    Band,
    Bars,
    Equivalent,
    Figure,
    Line,
    Paired,
    Panel,
    Points,
    Ratio,
    Reference,
    Relative,
    Row,
    Strip,
)
from posterhall.claims.kinds import to_json
from posterhall.errors import DataError
from posterhall.report.figures import draw
from posterhall.report.strip import strip

ROWS = [
    Row(f"k={k}", s, loss=k + s / 10, bad=math.nan if s == 0 else 1.0) for k in (1, 8, 64) for s in range(5)
]
ARMS = {1: "k=1", 8: "k=8", 64: "k=64"}

LINES = Figure(
    Panel(
        Line.of(ROWS, "loss", ARMS, label="loss"),
        Line("two", (1.0, 64.0), (2.0, 3.0), dashed=True),
        Points("points", (2.0, 4.0), (1.0, math.nan)),
        Reference(1.5, "chance"),
        Band(2.0, math.inf, "claimed"),
        x=Axis("replicas", log=True),
        y=Axis("test loss", log=True, low=0.5),
        title="A < B & C",
    ),
    caption="Loss by replicas.",
)
STRIP = Figure(Panel(Strip.of(ROWS, "bad", ["k=1", "k=8"]), Band(0.5, 2, "claimed", axis="x"), x=Axis("bad")))
BARS = Figure(
    Panel(
        Bars.of(ROWS, "loss", {"a rather long name of a category": "k=1", "b": "k=8"}, label="ours"),
        Bars("theirs", ("a rather long name of a category", "b"), (0.5, 0.7)),
        x=Axis("share", percent=True),
    )
)


def text(svg: str) -> list[str]:
    return [e.text or "" for e in ET.fromstring(svg).iter() if e.tag.endswith("text")]


@pytest.mark.parametrize("figure", [LINES, STRIP, BARS])
def test_a_figure_survives_storing(figure):
    stored = json.loads(json.dumps(figure.to_json(), allow_nan=False))
    again = Figure.from_json(stored)
    assert again.to_json() == figure.to_json()
    assert [d.svg for d in draw(again, "x")] == [d.svg for d in draw(figure, "x")]


@pytest.mark.parametrize("figure", [LINES, STRIP, BARS])
def test_a_drawing_takes_its_colours_and_font_from_the_page(figure):
    (drawing,) = draw(figure, "x")
    ET.fromstring(drawing.svg)
    assert not re.search(r"#[0-9a-f]{6}\b(?![\"')])", re.sub(r"(url\(#|href=\"#)\w+", "", drawing.svg))
    assert "font-family" not in drawing.svg
    assert "var(--c1)" in drawing.svg
    assert "var(--ink)" in drawing.svg


def test_drawings_of_different_figures_share_no_ids():
    first, second = draw(LINES, "a")[0].svg, draw(LINES, "b")[0].svg
    ids = [set(re.findall(r'id="([^"]+)"', svg)) for svg in (first, second)]
    assert ids[0]
    assert not ids[0] & ids[1]
    assert draw(LINES, "a")[0].svg == first


def test_ticks_stand_where_something_was_measured():
    (drawing,) = draw(Figure(Panel(Line.of(ROWS, "loss", ARMS, label="l"), x=Axis("k", log=True))), "x")
    assert {"1", "8", "64"} <= set(text(drawing.svg))


def test_percent_and_negative_numbers_read_as_such():
    line = Line("l", (0.0, 1.0), (-0.5, 0.5))
    labels = text(draw(Figure(Panel(line, y=Axis(percent=True))), "x")[0].svg)
    assert {"−40 %", "0 %", "40 %"} <= set(labels)


def test_diverged_seeds_are_counted_beside_their_name():
    assert "k=1 (1 diverged)" in text(draw(STRIP, "x")[0].svg)


def test_long_names_are_broken_into_lines():
    assert {"a rather long name of", "a category"} <= set(text(draw(BARS, "x")[0].svg))


def test_legends_are_data_with_the_samples_shape():
    keys = draw(LINES, "x")[0].keys
    assert [(k.label, k.shape) for k in keys] == [
        ("loss", "line"),
        ("two", "dashed"),
        ("points", "dot"),
        ("chance", "reference"),
        ("claimed", "band"),
    ]
    assert [k.colour for k in keys[:2]] == ["var(--c1)", "var(--c2)"]


def test_labels_are_escaped():
    (drawing,) = draw(
        Figure(Panel(Line("l", (0.0, 1.0), (1.0, 2.0)), x=Axis("a < b & $c$")), caption="<&>"), "x"
    )
    assert "a < b & $c$" in text(drawing.svg)
    assert 'aria-label="&lt;&amp;&gt;"' in drawing.svg


def test_a_line_has_the_interval_over_its_seeds():
    line = Line.of(ROWS, "loss", ARMS, label="l")
    assert line.x == (1.0, 8.0, 64.0)
    assert line.y[1] == pytest.approx(8.2)
    assert line.high[1] - line.y[1] == pytest.approx(2.776445 * 0.1581139 / math.sqrt(5))


@pytest.mark.parametrize(
    "make",
    [
        lambda: Panel(),
        lambda: Figure(),
        lambda: Panel(Line("l", (1.0, 2.0), (1.0,))),
        lambda: Panel(Line("l", (1.0,), (1.0,), low=(1.0, 2.0))),
        lambda: Panel(Points("p", (1.0,), ())),
        lambda: Panel(Strip(("a", "b"), ((1.0,),))),
        lambda: Panel(Strip(("a",), ((1.0,),)), Line("l", (1.0,), (1.0,))),
        lambda: Line.of(ROWS, "loss", {1: "nowhere"}, label="l"),
        lambda: Figure.from_json({"panels": [{"marks": []}]}),
        lambda: Figure.from_json({"panels": [{"marks": [{"mark": "Pie"}], "x": {}, "y": {}, "title": ""}]}),
    ],
)
def test_figures_that_cannot_be_drawn_are_refused(make):
    with pytest.raises(DataError):
        make()


def test_the_strip_puts_everything_on_one_line():
    # Regions [0.1, inf) and (-inf, 0]; interval 0.2 to 0.4: the line runs 18 % beyond 0 ... 0.4.
    test = to_json(Paired(metric="m", arms=("a", "b"), margin=0.1))
    laid = strip(test, 0.3, (0.2, 0.4))

    def at(x):
        return 100 * (x + 0.072) / 0.544

    assert laid.estimate == pytest.approx(at(0.3), abs=0.01)
    assert (laid.interval.start, laid.interval.width) == pytest.approx((at(0.2), at(0.4) - at(0.2)), abs=0.02)
    assert (laid.claimed.start, laid.claimed.start + laid.claimed.width) == pytest.approx(
        (at(0.1), 100), abs=0.02
    )
    assert (laid.refuting[0].start, laid.refuting[0].width) == pytest.approx((0, at(0)), abs=0.02)
    assert [tick.label for tick in laid.ticks] == ["0.1", "0"]


def test_the_strip_of_a_ratio_is_logarithmic():
    laid = strip(to_json(Ratio(metric="m", arms=("a", "b"), at_least=2)), 4.0, (2.0, 8.0))
    assert laid.estimate == pytest.approx(laid.interval.start + laid.interval.width / 2, abs=0.02)
    assert [tick.label for tick in laid.ticks] == ["2×", "1×"]


def test_the_strip_without_an_estimate_still_shows_the_regions():
    laid = strip(to_json(Equivalent(metric="m", arms=("a", "b"), margin=Relative(0.03))), None, None)
    assert laid.estimate is None
    assert laid.interval is None
    assert len(laid.refuting) == 2
    assert [tick.label for tick in laid.ticks] == ["-3 %", "+3 %"]


def test_an_unbounded_interval_ends_at_the_lines_end():
    laid = strip(to_json(Paired(metric="m", arms=("a", "b"))), 1.0, (-math.inf, math.inf))
    assert (laid.interval.start, laid.interval.width) == (0.0, 100.0)
