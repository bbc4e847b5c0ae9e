"""Codebooks against published constants, quantiles of scipy, and arithmetic by hand."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import norm

from posterhall.errors import DataError
from posterhall.quantize import codebook, quantize
from posterhall.quantize.codebooks import NAMES, NF4_OFFSET, dynamic_map, normal_float


def test_nf4_is_the_released_type():
    values = codebook("nf4").ranked
    assert len(values) == 16
    assert values[[0, 1, 7, 8, 14, 15]].tolist() == pytest.approx(
        [-1, -0.6961928009986877, 0, 0.07958029955625534, 0.7229568362236023, 1], abs=1e-8
    )
    assert (values < 0).sum() == 7  # and eight positive ones


def test_nf4_constructed_from_quantiles_is_the_released_one():
    assert np.abs(normal_float() - codebook("nf4").ranked).max() < 2e-7
    assert np.abs(normal_float(offset=0.9677083) - codebook("nf4").ranked).max() < 1.3e-7
    # The third positive value, by hand.
    top = norm.ppf(NF4_OFFSET)
    third = norm.ppf(0.5 + 3 * (NF4_OFFSET - 0.5) / 8) / top
    assert normal_float()[7 + 3] == pytest.approx(third, abs=1e-7)


def test_the_offset_is_the_mean_of_two_middles():
    assert pytest.approx(((1 - 1 / 32) + (1 - 1 / 30)) / 2, abs=1e-15) == NF4_OFFSET


@pytest.mark.parametrize("offset", [0.5, 1.0, 0.2, float("nan")])
def test_quantiles_at_the_ends_are_refused(offset):  # as the paper's Eq. 4 has them
    with pytest.raises(DataError, match="between 1/2 and 1"):
        normal_float(offset=offset)


def test_the_two_fp4_differ():
    ours, other = codebook("fp4").values * 12, codebook("e2m1").values * 6
    assert ours[ours >= 0].tolist() == pytest.approx([0, 0.0625, 2, 3, 4, 6, 8, 12])
    assert other[other >= 0].tolist() == pytest.approx([0, 0.5, 1, 1.5, 2, 3, 4, 6])
    powers = codebook("e3m0").values
    assert powers[powers > 0].tolist() == [2.0**-k for k in range(6, -1, -1)]


def test_floating_point_codes_have_the_sign_in_the_highest_bit():
    for name in ("fp4", "e2m1", "e3m0"):
        table = codebook(name).table
        assert (table[8:] == -table[:8]).all()


@pytest.mark.parametrize("bits", range(2, 9))
def test_integers_are_symmetric_and_even(bits):
    values = codebook(f"int{bits}").values
    most = 2 ** (bits - 1) - 1
    assert (values * most).tolist() == pytest.approx(list(range(-most, most + 1)), abs=1e-5)


def test_the_dynamic_map_has_seven_decades():
    values = dynamic_map()
    assert len(values) == len(set(values.tolist())) == 256
    assert values[-1] == 1
    assert 0 in values
    assert -1 not in values
    for decade, steps in zip(range(-6, 1), (1, 2, 4, 8, 16, 32, 64), strict=True):
        inside = (values >= 0.1 * 10.0**decade) & (values < 10.0**decade)
        assert inside.sum() == steps
    # Middles of 64 even steps from 0.1 to 1.
    edges = np.linspace(0.1, 1, 65)
    assert values[-65:-1] == pytest.approx((edges[1:] + edges[:-1]) / 2, abs=1e-7)
    assert len(dynamic_map(signed=False)) == 256


@pytest.mark.parametrize("name", NAMES)
def test_every_codebook_is_in_order_and_within_one(name):
    book = codebook(name)
    assert (np.diff(book.ranked) >= 0).all()
    assert np.abs(book.ranked).max() == 1
    assert len(set(book.patterns.tolist())) == len(book.patterns)
    assert (book.table[book.patterns] == book.ranked).all()
    assert book.table[book.code_of_zero()] == 0


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ([0, -1, 1], "not above"),
        ([-1, 0, 0, 1], "repeats"),
        ([-1, 0, float("nan"), 1], "value 2 of the codebook is nan"),
        ([-1, 0, float("inf")], "finite"),
        ([-2, 0, 1], "largest magnitude in the codebook is 2"),
        ([-1, 1], "lacks 0"),
        ([-1, 0, 0.5], "lacks 1"),
        ([0], "2 to 256"),
        ([[0, 1]], "2 to 256"),
        (["a", "b"], "list of numbers"),
        ("nf5", "Did you mean: nf4"),
        (list(range(257)), "2 to 256"),
    ],
)
def test_unfit_codebooks_are_refused(values, said):
    with pytest.raises(DataError, match=said):
        codebook(values)


def test_your_values_may_be_normalized():
    assert codebook([-2, 0, 2], normalize=True).ranked.tolist() == [-1, 0, 1]
    with pytest.raises(DataError, match="magnitude in the codebook is 0"):
        codebook([0, 0], normalize=True)


LESSON = [-1, 0.3, 0.5, 1]
"""Of a talk on QLoRA: 10, -3, 5, 4 become 10, 3, 5 and, as 0.4 lies midway, 5 or 3."""


@pytest.mark.parametrize(("tie", "expected"), [("up", [10, 3, 5, 5]), ("down", [10, 3, 5, 3])])
def test_the_worked_example_in_both_readings_of_a_tie(tie, expected):
    weights = np.array([10, -3, 5, 4], np.float32)
    book = codebook(LESSON, partial=True)
    assert book.bits == 2
    result = quantize(weights, book, tie=tie)
    assert result.scales.tolist() == [10]
    assert result.dequantize().tolist() == pytest.approx(expected)
    assert len(result.packed) == 1  # four codes of two bits


def test_an_unknown_tie_rule_is_refused():
    with pytest.raises(DataError, match="'down' or 'up'"):
        quantize(np.ones(3), tie="even")


@given(
    st.lists(st.floats(-1, 1, width=32), min_size=1, max_size=40),
    st.sampled_from(["down", "up"]),
)
def test_bounds_are_midpoints(inside, tie):
    values = sorted({-1.0, 0.0, 1.0, *inside})
    book = codebook(values)
    bounds = book.bounds(tie)
    for (low, high), bound in zip(itertools.pairwise(book.ranked), bounds, strict=False):
        middle = (low + high) / np.float32(2)
        assert (np.float32(middle) > bound) == (tie == "up")
        assert np.nextafter(middle, np.float32(2)) > bound
    assert np.isinf(bounds[len(values) - 1 :]).all()
