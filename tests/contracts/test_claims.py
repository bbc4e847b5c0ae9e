"""Every registered claim against the contract, and the contract against claims that break it."""

from __future__ import annotations

import itertools
import sys
from pathlib import Path

import pytest
from claim import check_claim, check_light, check_rows

from posterhall.claims import PAPERS, Budget, Row, load

REGISTERED = list(load().values())


@pytest.mark.parametrize("cls", REGISTERED, ids=lambda cls: cls.id)
def test_registered_claim(cls):
    check_claim(cls)


@pytest.mark.parametrize("module", ["posterhall.claims", *sorted({p.module for p in PAPERS.values()})])
def test_claims_are_quick_to_list(module):
    check_light(module)


@pytest.mark.parametrize("paper", sorted(PAPERS))
def test_every_paper_has_one_headline(paper):
    assert sum(cls.headline for cls in REGISTERED if cls.paper == paper) == 1


def test_every_claim_belongs_to_a_registered_paper():
    assert {cls.paper for cls in REGISTERED} == set(PAPERS)


@pytest.fixture(scope="module")
def toys():
    folder = str(Path(__file__).parent.parent / "claims")
    sys.path.insert(0, folder)
    yield load(["toy_claims"])
    sys.path.remove(folder)


@pytest.mark.parametrize("id", ["loaded-coin", "fair-coin-is-loaded", "control-shows-it-too", "alone"])
def test_the_toys_keep_it(toys, id):
    cls = toys[id]
    check_claim(cls)
    budget = cls.budget("smoke")
    check_rows(cls, list(cls().run(budget, 1)), list(cls().run(budget, 1)), 1, set())


@pytest.mark.parametrize(
    "change",
    [
        {"paper_value": " "},
        {"statement": "no sentence"},
        {"scales": {"smoke": Budget()}},
        {"scales": {"smoke": Budget(seeds=3), "laptop": Budget(), "full": Budget()}},
        {"diverged": {"another": 1.0}},
        {"diverged": {"heads": float("inf")}},
        {"params": {"corpus": ["a", "b"]}},
    ],
)
def test_what_breaks_it_is_found(toys, change, monkeypatch):
    cls = toys["loaded-coin"]
    for name, value in change.items():
        monkeypatch.setattr(cls, name, value)
    with pytest.raises(AssertionError):
        check_claim(cls)


@pytest.mark.parametrize(
    ("rows", "again"),
    [
        (lambda s: [Row("loaded", s, heads=1.0), Row("fair", s, heads=0.5)], True),  # no control
        (lambda s: [*arms(s), Row("fair", s, heads=0.5)], True),  # an arm twice
        (lambda s: arms(s + 1), True),  # another seed
        (lambda s: arms(s, next(counter)), False),  # not the same twice
    ],
)
def test_rows_that_break_it_are_found(toys, rows, again):
    first = rows(1)
    with pytest.raises(AssertionError):
        check_rows(toys["loaded-coin"], first, first if again else rows(1), 1, set())


counter = itertools.count()


def arms(seed, value=0.5):
    return [Row(arm, seed, heads=value) for arm in ("loaded", "fair", "fair again")]


def test_heavy_imports_are_found(tmp_path, monkeypatch):
    (tmp_path / "heavy_claims.py").write_text("import scipy.stats\n")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    with pytest.raises(AssertionError, match="inside run"):
        check_light("heavy_claims")


def test_measured_time_may_differ(toys):
    rows = [[Row(r.arm, 1, heads=0.5, seconds=s) for r in arms(1)] for s in (1.0, 2.0)]
    check_rows(toys["loaded-coin"], *rows, 1, {"seconds"})
