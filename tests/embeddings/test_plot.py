"""The picture of words: what it holds, that it is the same each time, and that labels keep apart."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ElementTree

import numpy as np
import pytest

from posterhall.embeddings import projection
from posterhall.embeddings.vectors import WordVectors
from posterhall.errors import DataError
from posterhall.report import vector_plot

NAMES = [f"word{i}" for i in range(24)]


def crowded() -> projection.Plane:
    rng = np.random.default_rng(0)
    matrix = np.concatenate([rng.normal(size=(12, 6)), rng.normal(scale=0.3, size=(12, 6)) + 1])
    pairs = list(zip(NAMES[:12], NAMES[12:], strict=True))
    return projection.plane(WordVectors(NAMES, matrix), pairs=pairs)


def test_the_svg_is_well_formed_and_names_every_word_as_text(tmp_path):
    path = tmp_path / "plane.svg"
    vector_plot.draw(crowded(), path, title="A <title> & more")
    root = ElementTree.parse(path).getroot()
    texts = ["".join(node.itertext()) for node in root.iter("{http://www.w3.org/2000/svg}text")]
    assert set(NAMES) <= set(texts)
    assert "A <title> & more" in texts
    assert any(re.fullmatch(r"first component \(\d+% of the variance\)", text) for text in texts)


def test_equal_planes_give_equal_files(tmp_path):
    for name in ("plane.svg", "plane.png"):
        plane = projection.plane(
            WordVectors(NAMES[:5], np.eye(5)), pairs=[("word0", "word1")], words=NAMES[2:5]
        )
        vector_plot.draw(plane, tmp_path / name)
        vector_plot.draw(plane, tmp_path / ("again-" + name))
        assert (tmp_path / name).read_bytes() == (tmp_path / ("again-" + name)).read_bytes()
    assert (tmp_path / "plane.png").read_bytes().startswith(b"\x89PNG")


def test_labels_do_not_cover_each_other(tmp_path, monkeypatch):
    boxes = []

    def keep(figure, axes, plane, place=vector_plot._label):
        place(figure, axes, plane)
        figure.draw_without_rendering()
        boxes.extend(text.get_window_extent() for text in axes.texts if text.get_text())

    monkeypatch.setattr(vector_plot, "_label", keep)
    vector_plot.draw(crowded(), tmp_path / "plane.png")
    assert len(boxes) == len(NAMES)
    covered = sum(one.overlaps(other) for i, one in enumerate(boxes) for other in boxes[:i])
    assert covered == 0


@pytest.mark.parametrize("name", ["$x$", "new_york", "日本", "a" * 200, "<b>"])
def test_any_word_can_be_a_label(tmp_path, name):
    plane = projection.plane(WordVectors([name, "b", "c"], np.eye(3)), [name, "b", "c"])
    vector_plot.draw(plane, tmp_path / "plane.svg")
    text = "".join(ElementTree.parse(tmp_path / "plane.svg").getroot().itertext())
    assert name.replace("_", " ")[:39] in text


def test_letters_that_a_bitmap_cannot_show_are_told(tmp_path):
    plane = projection.plane(WordVectors(["日本", "b", "c"], np.eye(3)), ["日本", "b", "c"])
    with pytest.warns(UserWarning, match=r"plane.png lacks letters.*\.svg"):
        vector_plot.draw(plane, tmp_path / "plane.png")


def test_points_that_coincide_are_drawn(tmp_path):
    plane = projection.plane(WordVectors(["a", "b", "c"], np.ones((3, 2))), pairs=[("a", "b"), ("b", "c")])
    vector_plot.draw(plane, tmp_path / "plane.png")
    assert plane.parallel == 0


def test_other_endings_are_refused(tmp_path):
    with pytest.raises(DataError, match=r"plane.gif does not end in .svg, .png, .pdf"):
        vector_plot.draw(crowded(), tmp_path / "plane.gif")
    assert not list(tmp_path.iterdir())
