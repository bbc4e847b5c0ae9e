"""Figures of scaling laws: what they show stands in them as text, and equal input gives equal files."""

from __future__ import annotations

import re

import numpy as np
import pytest

from posterhall.errors import DataError
from posterhall.report import scaling_plot
from posterhall.scaling import Chinchilla, DataConstrained, FitSettings
from posterhall.scaling.table import read


def words(path):
    """The text of an SVG, formulas without their markup."""
    return re.sub(r"<[^>]+>", " ", path.read_text())


@pytest.fixture(scope="module")
def runs():
    """Thirty runs by the published law, with noise of 1 %: 18 on a billion unique tokens, 12 seen once."""
    law, rng = DataConstrained(), np.random.default_rng(0)
    n = np.array([1e8, 3e8, 1e9] * 6 + [1e8, 2e8, 4e8, 1e9] * 3)
    d = np.array([2e9, 4e9, 8e9, 1.6e10, 3.2e10, 6.4e10] * 3 + [2e9, 8e9, 3e10] * 4)
    u = np.array([1e9] * 18 + d[18:].tolist())
    loss = law.loss(n, d, u) * np.exp(0.01 * rng.normal(size=n.size))
    return read({"params": n, "tokens": d, "unique_tokens": u, "loss": loss})


def test_a_fit_shows_the_runs_that_its_contours_hold_for(runs, tmp_path):
    law = DataConstrained().fit(runs, frozen="paper", settings=FitSettings(bootstrap=0))
    scaling_plot.draw_fit(law, runs, tmp_path / "fit.svg")
    said = words(tmp_path / "fit.svg")
    assert "30 runs, R² 0.9" in said
    assert "loss by the law; 18 runs, 1.00 B unique tokens" in said
    assert "loss seen above the law (%)" in said
    assert said.count("objective") == 2  # a panel for each life


def test_a_law_that_knows_no_repetition_shows_all_runs(runs, tmp_path):
    law = Chinchilla().fit(runs, settings=FitSettings(bootstrap=0))
    paths = [tmp_path / "a.svg", tmp_path / "b.svg"]
    for path in paths:
        scaling_plot.draw_fit(law, runs, path)
    assert "loss by the law; 30 runs" in words(paths[0])
    assert paths[0].read_bytes() == paths[1].read_bytes()


def test_where_most_runs_repeat_nothing_these_are_shown(runs, tmp_path):
    mostly = {name: getattr(runs, name)[14:] for name in ("params", "tokens", "unique_tokens", "loss")}
    law = DataConstrained().fit(mostly, frozen="paper", settings=FitSettings(bootstrap=0))
    scaling_plot.draw_fit(law, read(mostly), tmp_path / "fit.svg")
    assert "12 runs, one epoch" in words(tmp_path / "fit.svg")


def test_a_budget_shows_frontier_and_contours(tmp_path):
    law = DataConstrained()
    found = law.allocate(1e22, 25e9, draws=False)
    scaling_plot.draw_allocation(law, 1e22, 25e9, found, tmp_path / "budget.svg")
    said = words(tmp_path / "budget.svg")
    assert "epochs over 25.0 B unique tokens" in said
    levels = [float(each) for each in re.findall(r"\b[23]\.\d{3}\b", said)]
    assert min(levels) < found.loss < max(levels)
    scaling_plot.draw_allocation(law, 1e22, None, law.allocate(1e22, draws=False), tmp_path / "free.svg")
    assert "unique tokens" not in words(tmp_path / "free.svg")


def test_other_endings_are_refused(tmp_path):
    with pytest.raises(DataError, match=r"\.svg, \.png, \.pdf"):
        scaling_plot.ending(tmp_path / "fit.gif")
