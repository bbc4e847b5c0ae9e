"""Learning rates against their closed forms, and the settings that give them."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from posterhall.config import resolve
from posterhall.errors import DataError
from posterhall.train.schedule import rate, warmup_steps
from posterhall.train.settings import TrainSettings


@given(
    steps=st.integers(2, 300),
    warmup=st.one_of(st.floats(0, 0.9), st.integers(1, 400)),
    schedule=st.sampled_from(["cosine", "linear", "constant", "wsd"]),
)
def test_rates_rise_to_the_peak_and_then_never_rise(steps, warmup, schedule):
    settings = TrainSettings(lr=2.0, warmup=warmup, schedule=schedule)
    rates = [rate(settings, step, steps) for step in range(steps)]
    top = warmup_steps(settings, steps)
    assert top < steps
    assert rates[:top] == pytest.approx([2.0 * (i + 1) / top for i in range(top)])
    assert all(0 < each <= 2.0 for each in rates)
    assert all(a >= b for a, b in zip(rates[top:], rates[top + 1 :], strict=False))
    assert rates[-1] == pytest.approx(2.0 if schedule == "constant" else 0.2)


@pytest.mark.parametrize(
    ("schedule", "quarter"),
    [
        ("cosine", 0.1 + 0.9 * (1 + math.cos(math.pi / 4)) / 2),
        ("linear", 0.775),
        ("constant", 1.0),
        ("wsd", 1.0),
    ],
)
def test_a_quarter_of_the_way_down(schedule, quarter):
    settings = TrainSettings(lr=1.0, warmup=0, schedule=schedule)
    assert rate(settings, 24, 100) == pytest.approx(quarter)


def test_wsd_falls_linearly_over_its_last_fifth():
    settings = TrainSettings(lr=1.0, warmup=0, schedule="wsd", decay_fraction=0.2, min_lr_fraction=0.0)
    rates = [rate(settings, step, 100) for step in range(100)]
    assert rates[:80] == [1.0] * 80
    assert rates[79:] == pytest.approx([1 - i / 20 for i in range(21)])


def test_one_step_has_no_warm_up():
    assert rate(TrainSettings(lr=1.0, schedule="constant"), 0, 1) == 1.0


@pytest.mark.parametrize(
    ("given", "rows"),
    [({}, 100), ({"epochs": 2.5}, 250), ({"steps": 7}, 7 * 32), ({"tokens": 1000}, 62), ({"tokens": 3}, 1)],
)
def test_the_length_is_given_in_epochs_steps_or_tokens(given, rows):
    assert TrainSettings(**given).rows(items=100, item_tokens=16) == rows


@pytest.mark.parametrize(
    "wrong",
    [
        {"lr": 0.0},
        {"lr": math.nan},
        {"batch": 0},
        {"epochs": 1.0, "steps": 3},
        {"epochs": -1.0},
        {"beta2": 1.0},
        {"clip": -1.0},
        {"min_lr_fraction": 2.0},
        {"decay_fraction": 0.0},
    ],
)
def test_values_out_of_range_are_refused_by_name(wrong):
    with pytest.raises(DataError, match=next(iter(wrong))):
        TrainSettings(**wrong)


def test_tokens_may_be_written_with_an_exponent():
    assert resolve(TrainSettings, flags={"tokens": "5e6"}, environ={}).tokens == 5_000_000
