"""The error report against published numbers and closed forms."""

from __future__ import annotations

import math

import numpy as np
import pytest

from posterhall.errors import DataError
from posterhall.quantize import measure, quantize

RNG = np.random.default_rng(0)
GAUSSIAN = RNG.normal(size=1 << 20).astype(np.float32)
HEAVY = RNG.standard_t(2.5, size=1 << 20).astype(np.float32)


@pytest.mark.parametrize(
    ("name", "expected"),
    [("nf4", 0.092), ("af4", 0.096), ("e2m1", 0.106), ("int4", 0.108), ("fp4", 0.122), ("e3m0", 0.188)],
)
def test_errors_on_gaussian_weights(name, expected):
    assert measure(GAUSSIAN, quantize(GAUSSIAN, name)).relative_rmse == pytest.approx(expected, abs=0.0008)


@pytest.mark.parametrize("block", [32, 128, 256, 512, 1024])
def test_nf4_is_the_best_of_four_bits_on_gaussian_weights_in_blocks_of_any_size(block):
    x = GAUSSIAN[: 1 << 18]
    errors = {
        name: measure(x, quantize(x, name, block=block)).relative_rmse
        for name in ("nf4", "af4", "e2m1", "int4", "fp4", "e3m0")
    }
    assert min(errors, key=errors.get) == "nf4"


def test_powers_of_two_serve_heavy_tails_better():
    errors = {name: measure(HEAVY, quantize(HEAVY, name)).mean_abs for name in ("e3m0", "nf4", "fp4", "int4")}
    assert errors["e3m0"] < errors["nf4"] < errors["fp4"] < errors["int4"]


def test_nf4_does_not_put_equal_mass_into_its_bins():
    report = measure(GAUSSIAN, quantize(GAUSSIAN))
    assert report.entropy_bits == pytest.approx(3.88, abs=0.01)
    assert min(report.mass) == pytest.approx(0.017, abs=0.002)
    assert max(report.mass) == pytest.approx(0.092, abs=0.002)
    assert sum(report.mass) == pytest.approx(1)
    assert measure(GAUSSIAN, quantize(GAUSSIAN, "fp4")).entropy_bits == pytest.approx(3.715, abs=0.01)


def test_its_numbers_are_those_of_numpy():
    x = GAUSSIAN[:1000].reshape(10, 100)
    result = quantize(x, "int3", double=True)
    off = result.dequantize().astype(np.float64) - x
    report = measure(x, result)
    assert report.relative_rmse == pytest.approx(np.linalg.norm(off) / np.linalg.norm(x.astype(float)))
    assert report.mean_abs == pytest.approx(np.abs(off).mean())
    assert report.max_abs == pytest.approx(np.abs(off).max())
    assert report.snr_db == pytest.approx(10 * np.log10((x.astype(float) ** 2).sum() / (off**2).sum()))
    assert len(report.mass) == 7
    assert report.double_kept
    assert "int3, blocks of 64" in str(report)
    assert "kept" in str(report)


def test_exact_and_empty_cases_have_no_noise():
    report = measure(np.zeros(10), quantize(np.zeros(10)))
    assert (report.relative_rmse, report.snr_db, report.entropy_bits) == (0, math.inf, 0)
    exact = np.array([-1, 0, 1], np.float32)
    assert measure(exact, quantize(exact, "int2")).snr_db == math.inf


def test_another_shape_is_refused():
    with pytest.raises(DataError, match="has shape"):
        measure(np.ones(4), quantize(np.ones(5)))
