"""The claims about published runs: what they measure with is right, and each keeps the contract."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path

import numpy as np
import pytest

from posterhall.claims import decide, load
from posterhall.claims.datablations import _resampled, allocation, refit
from posterhall.errors import DataError
from posterhall.scaling import DataConstrained, runs182

MODULES = ["posterhall.claims.datablations.refit", "posterhall.claims.datablations.allocation"]
CLAIMS = load(MODULES)


@pytest.fixture(scope="module")
def contract():
    folder = str(Path(__file__).parent.parent / "contracts")
    sys.path.insert(0, folder)
    yield importlib.import_module("claim")
    sys.path.remove(folder)


@pytest.mark.parametrize("id", sorted(CLAIMS))
def test_each_claim_keeps_the_contract(contract, id):
    cls = CLAIMS[id]
    contract.check_claim(cls)
    budget = cls.budget("smoke")
    contract.check_rows(cls, list(cls().run(budget, 2)), list(cls().run(budget, 2)), 2, set())


def test_modules_are_light(contract):
    contract.check_light("posterhall.claims.datablations")


def test_simulated_runs_follow_the_published_law():
    runs = _resampled.simulated(1)
    law = DataConstrained().loss(runs.params, runs.tokens, runs.unique_tokens)
    assert np.median(np.log(runs.loss / law)) == pytest.approx(0, abs=0.02)
    assert runs.loss.tolist() != _resampled.simulated(2).loss.tolist()


def test_shuffling_keeps_the_losses():
    assert sorted(_resampled.shuffled(1).loss) == sorted(runs182.runs().loss)


def test_the_eight_settings_have_the_published_losses():
    found = refit.settings()
    assert len(found) == 8
    one, four, many = found[-1]  # 8.7 B parameters, 178 B tokens
    assert one == (1.0, 2.336741)
    assert four == (pytest.approx(4.05, abs=0.01), 2.351177)
    assert many[0] > 12


def test_a_ninth_seed_does_not_exist():
    cls = refit.FourEpochs
    with pytest.raises(DataError, match="Give --seeds 8 or fewer"):
        list(cls().run(cls.budget("smoke").replace(seeds=9), 1))


def test_four_epochs_are_judged_over_settings():
    cls = refit.FourEpochs
    budget = cls.budget("smoke")
    rows = [row for seed in range(1, 9) for row in cls().run(budget, seed)]
    found, control = decide(cls, rows)
    cost = np.array([four[1] / one[1] - 1 for one, four, _ in refit.settings()])
    assert found.effect.estimate == pytest.approx(np.expm1(np.log1p(cost).mean()))
    assert control.verdict != "supported"


def test_without_decay_of_parameters_epochs_grow_more_slowly():
    cls = allocation.EpochsBeforeParameters
    rows = {row.arm: row for row in cls().run(cls.budget("smoke"), 1)}
    both, data = rows["both decay"], rows["surplus parameters keep their worth"]
    assert both.number("growth") > data.number("growth")
