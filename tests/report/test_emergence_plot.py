"""Figures of scores over scale: complete, safe, equal for equal data."""

from __future__ import annotations

from xml.etree import ElementTree

import numpy as np
import pytest

from posterhall.errors import DataError
from posterhall.report import emergence_plot
from posterhall.scaling.emergence import analyse
from posterhall.scaling.emergence.series import Row

SCALES = np.logspace(8, 11, 4)


def findings(names, metrics=("acc",), **fields):
    rows = [
        Row("x", "f", name, metric, x, (i + 1) / 10, **fields)
        for name in names
        for metric in metrics
        for i, x in enumerate(SCALES)
    ]
    return analyse(rows, resamples=100)


def test_untrusted_names_are_drawn_as_text(tmp_path):
    path = tmp_path / "a.svg"
    names = ["<script>alert(1)</script>", "a & b", "$x^2", "$\\frac{", "bell\x07\x00", "x" * 200]
    emergence_plot.draw(findings(names, metrics=("<b>acc</b>",), n=100), path, title="<i>$y</i>")
    root = ElementTree.fromstring(path.read_text(encoding="utf-8"))
    tags = {element.tag.rpartition("}")[2] for element in root.iter()}
    assert not tags & {"script", "b", "i", "foreignObject"}
    shown = " ".join("".join(element.itertext()) for element in root.iter() if element.tag.endswith("}text"))
    for text in ("<script>alert(1)</script>", "a & b", "$x^2", "$\\frac{", "<b>acc</b>", "<i>$y</i>", "xxx…"):
        assert text in shown


def test_equal_data_give_equal_files(tmp_path):
    data = findings(["a", "b"], metrics=("acc", "nll"), n=50, chance=0.25)
    for name in ("1.svg", "2.svg"):
        assert emergence_plot.draw(data, tmp_path / name) == 0
    assert (tmp_path / "1.svg").read_bytes() == (tmp_path / "2.svg").read_bytes()


def test_what_found_no_place_is_counted_and_more_lines_are_grey(tmp_path):
    metrics = [f"m{i}" for i in range(10)]
    assert emergence_plot.draw(findings(["a"], metrics=metrics), tmp_path / "a.pdf") == 2
    assert emergence_plot.draw(findings([f"t{i}" for i in range(20)]), tmp_path / "b.svg") == 0
    assert "12 more in grey" in (tmp_path / "b.svg").read_text()


def test_another_ending_or_nothing_to_draw_leaves_no_file(tmp_path):
    with pytest.raises(DataError, match=r"\.svg, \.png, \.pdf"):
        emergence_plot.draw(findings(["a"]), tmp_path / "a.html")
    with pytest.raises(DataError, match="no series"):
        emergence_plot.draw([], tmp_path / "a.svg")
    assert list(tmp_path.iterdir()) == []
