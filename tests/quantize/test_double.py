"""Double quantisation: nearest codes, its saving, and the tensor that it would ruin."""

from __future__ import annotations

import numpy as np
import pytest

from posterhall.errors import DataError
from posterhall.quantize import quantize
from posterhall.quantize.codebooks import dynamic_map
from posterhall.quantize.double import BLOCK, DoubleScales, quantize_scales, worst_error


def test_scales_get_the_nearest_code_of_what_is_left_after_the_mean():
    scales = np.abs(np.random.default_rng(0).normal(2.4, 0.4, size=600)).astype(np.float32)
    nested = quantize_scales(scales)
    assert nested.offset == pytest.approx(scales.mean(), rel=1e-6)
    rest = scales - np.float32(nested.offset)
    values = dynamic_map().astype(np.float64)
    restored = nested.restore()
    for begin in range(0, 600, BLOCK):
        piece = rest[begin : begin + BLOCK].astype(np.float64)
        top = np.abs(piece).max()
        best = values[np.abs(piece[:, None] / top - values).argmin(1)] * top
        assert restored[begin : begin + BLOCK] == pytest.approx(best + nested.offset, abs=1e-6)
    assert len(nested.scales) == 3
    assert nested.nbytes == 600 + 3 * 4 + 4


@pytest.mark.parametrize("count", [1, 2, 255, 256, 257])
def test_any_number_of_scales(count):
    scales = np.linspace(1, 2, count).astype(np.float32)
    nested = quantize_scales(scales)
    assert nested.restore().shape == (count,)
    assert worst_error(scales, nested.restore()) < 0.02


def test_equal_scales_are_restored_exactly():
    scales = np.full(300, 0.7, np.float32)
    assert (quantize_scales(scales).restore() == scales).all()


def test_it_costs_little_on_ordinary_weights():
    x = np.random.default_rng(1).normal(size=(512, 512)).astype(np.float32)
    plain, double = quantize(x), quantize(x, double=True)
    assert isinstance(double.scales, DoubleScales)
    assert double.double_error < 0.03
    assert (plain.packed == double.packed).all()

    def error(result):
        return np.sqrt(np.square(result.dequantize() - x).sum() / np.square(x).sum())

    assert error(double) < error(plain) * 1.01


def test_a_tensor_whose_rows_span_orders_of_magnitude_keeps_its_scales():
    rng = np.random.default_rng(2)
    x = (rng.normal(size=(64, 1024)) * np.geomspace(1e-4, 10, 64)[:, None]).astype(np.float32)
    guarded = quantize(x, double=True)
    assert isinstance(guarded.scales, np.ndarray)
    assert guarded.double_error > 5
    forced = quantize(x, double=True, limit=float("inf"))
    assert isinstance(forced.scales, DoubleScales)

    def worst_row(result):
        off = np.square(result.dequantize() - x).sum(1) / np.square(x).sum(1)
        return np.sqrt(off.max())

    assert worst_row(guarded) < 0.12
    assert worst_row(forced) > 2  # the small rows are lost: what the guard is for


def test_the_error_of_scales_leaves_out_blocks_of_zeros():
    assert worst_error(np.zeros(3, np.float32), np.ones(3, np.float32)) == 0
    assert worst_error(np.array([0, 2], np.float32), np.array([1, 3], np.float32)) == 0.5


def test_scales_that_are_not_finite_are_refused():
    with pytest.raises(DataError, match="not finite"):
        quantize_scales(np.array([1, np.inf], np.float32), offset=0.0)
