"""Blocks against a brute-force nearest code in float64, at every shape and type."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from posterhall.errors import DataError
from posterhall.quantize import NAMES, _kernels, bits_per_parameter, codebook, quantize
from posterhall.quantize import _permute_kernels as permute

BUGGY = [(10, 48), (7, 80), (5, 96), (3, 160), (10, 50), (4, 64), (129,), (1,), (63,), (65,), (), (3, 5, 7)]
"""The first four are the shapes that bitsandbytes 0.50.2 restores with another block's scale on AVX-512."""


def brute(x, name, block):
    """What each weight becomes: every code tried, in float64."""
    flat = np.asarray(x, np.float64).reshape(-1)
    values = codebook(name).values.astype(np.float64)
    out = np.empty_like(flat)
    for begin in range(0, len(flat), block):
        piece = flat[begin : begin + block]
        scale = np.abs(piece).max()
        scaled = piece / scale if scale else piece
        out[begin : begin + block] = values[np.abs(scaled[:, None] - values).argmin(1)] * scale
    return out.reshape(np.shape(x))


@pytest.mark.parametrize("shape", BUGGY)
@pytest.mark.parametrize("name", ["nf4", "fp4", "int3", "int8"])
def test_every_shape_has_the_nearest_codes_and_its_own_scales(shape, name):
    x = np.random.default_rng(1).normal(size=shape).astype(np.float32)
    result = quantize(x, name)
    assert result.shape == shape
    restored = result.dequantize()
    assert restored.shape == shape
    assert restored == pytest.approx(brute(x, name, 64), rel=1e-5, abs=1e-6)
    flat = np.abs(x.reshape(-1))
    assert result.scales.tolist() == [flat[i : i + 64].max() for i in range(0, x.size, 64)]


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("block", [8, 24, 64, 4096])
def test_every_codebook_in_blocks_of_every_size(name, block):
    x = np.random.default_rng(2).standard_t(3, size=1003).astype(np.float32)
    result = quantize(x, name, block=block)
    assert result.dequantize() == pytest.approx(brute(x, name, block), rel=1e-5, abs=1e-6)
    assert len(result.packed) == -(-1003 * codebook(name).bits // 8)


@settings(max_examples=60)
@given(
    st.lists(st.floats(-(2.0**100), 2.0**100, width=32), min_size=1, max_size=200),
    st.sampled_from(NAMES),
    st.sampled_from([8, 32, 64, 96]),
)
def test_no_other_code_is_nearer(numbers, name, block):
    x = np.array(numbers, np.float32)
    result = quantize(x, name, block=block)
    scales = np.repeat(result.scales.astype(np.float64), block)[: x.size]
    error = np.abs(result.dequantize().astype(np.float64) - x)
    values = codebook(name).values.astype(np.float64)
    best = np.abs(values[None, :] * scales[:, None] - x[:, None].astype(np.float64)).min(1)
    assert (error <= best + 1e-6 * scales + 1e-44).all()


def test_two_codes_are_packed_with_the_first_in_the_higher_half():
    result = quantize(np.array([-1, 1, 0], np.float32))
    assert result.packed.tolist() == [0x0F, 0x77]  # the last half byte is a zero's
    assert result.codes().tolist() == [0, 15, 7]


def test_other_widths_are_packed_without_gaps():
    result = quantize(np.array([-1, 1, 0, 1], np.float32), "int3")
    assert result.codes().tolist() == [0, 6, 3, 6]
    assert result.packed.tolist() == [0b000_110_01, 0b1_110_011_0]


@pytest.mark.skipif(not permute.HERE, reason="no AVX-512 here: there is one way only")
@pytest.mark.parametrize("size", [32, 64, 8, 40, 96])
def test_both_ways_to_encode_and_decode_agree(size):
    x = np.random.default_rng(3).normal(size=(50, size)).astype(np.float32)
    x[3] = 0
    x[4] *= np.float32(1e-40)
    book = codebook("nf4")
    bounds = np.full(18, np.inf, np.float32)
    bounds[:15] = book.bounds()
    pairs = np.arange(256, dtype=np.uint8)
    results = []
    for encode, decode in (
        (_kernels.encode4, _kernels.decode4),
        (_kernels.encode4_plain, _kernels.decode4_plain),
    ):
        scales, packed = np.empty(50, np.float32), np.empty((50, size // 2), np.uint8)
        assert encode(x, bounds, pairs, False, scales, packed) == _kernels.GOOD
        restored = np.empty_like(x)
        decode(packed, book.table, scales, restored)
        results.append((scales.tobytes(), packed.tobytes(), restored.tobytes()))
    assert results[0] == results[1]


def test_results_do_not_depend_on_threads():
    x = np.random.default_rng(4).normal(size=(700, 1000)).astype(np.float32)
    one, three = quantize(x, threads=1), quantize(x, threads=3)
    assert (one.packed == three.packed).all()
    assert (one.scales == three.scales).all()
    assert (one.dequantize(threads=1) == three.dequantize(threads=3)).all()


def test_blocks_of_zeros_stay_zero():
    x = np.zeros(200, np.float32)
    x[70] = 3
    for name in NAMES:
        assert (quantize(x, name).dequantize() == x).all()
    assert quantize(-np.zeros(64, np.float32)).packed.tolist() == [0x77] * 32


def test_subnormal_blocks_keep_their_values():  # bitsandbytes turns them into zeros
    x = np.linspace(-1, 1, 64).astype(np.float32) * np.float32(1e-39)
    restored = quantize(x).dequantize()
    assert np.abs(restored - x).max() < 0.16e-39


@pytest.mark.parametrize("dtype", ["float16", "float64"])
def test_other_types_are_taken_as_float32(dtype):
    x = np.random.default_rng(5).normal(size=(300, 333)).astype(dtype)
    result, plain = quantize(x), quantize(x.astype(np.float32))
    assert result.dtype == dtype
    assert (result.packed == plain.packed).all()
    assert (result.scales == plain.scales).all()


def test_strides_and_byte_order_do_not_matter():
    x = np.random.default_rng(6).normal(size=(40, 70)).astype(np.float32)
    for other in (x.T, x[::2, ::-1], x.astype(">f4"), np.asfortranarray(x)):
        plain = np.ascontiguousarray(other).astype(np.float32)
        assert (quantize(other).packed == quantize(plain).packed).all()


def test_read_only_and_unaligned_arrays_are_taken():
    x = np.random.default_rng(9).normal(size=300).astype(np.float32)
    raw = b"?" + x.tobytes()
    unaligned = np.frombuffer(raw, np.float32, offset=1)
    assert not unaligned.flags.writeable
    for name in ("nf4", "int3"):
        plain = quantize(x, name)
        for other in (np.frombuffer(x.tobytes(), np.float32), unaligned):
            assert (quantize(other, name).packed == plain.packed).all()


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("place", [(0, 3), (4, 69), (9, 47)])
def test_numbers_that_are_not_finite_are_refused_with_their_place(bad, place):
    x = np.ones((10, 70), np.float32)
    x[place] = bad
    with pytest.raises(DataError, match=rf"\[{place[0]}, {place[1]}\].* is {bad}"):
        quantize(x)
    with pytest.raises(DataError, match=rf"\[{place[0]}, {place[1]}\]"):
        quantize(x, "int3")


def test_float64_beyond_float32_is_refused():
    with pytest.raises(DataError, match=r"\[1\] .* too large for float32"):
        quantize(np.array([1.0, 1e300]))


@pytest.mark.parametrize(
    ("x", "settings", "said"),
    [
        (np.zeros((0, 3)), {}, "nothing to quantise"),
        (np.arange(4), {}, "cannot quantise int64"),
        (np.ones(4, complex), {}, "cannot quantise complex128"),
        (np.ones(4), {"block": 0}, "block is 0"),
        (np.ones(4), {"block": 60}, "multiple of 8"),
        (np.ones(4), {"block": 1 << 17}, "to 65536"),
        (np.ones(4), {"threads": 0}, "at least 1"),
        (np.ones(4), {"limit": 0.0}, "above 0"),
        (np.ones(4), {"limit": float("nan")}, "above 0"),
        (["a"], {}, "cannot quantise"),
        ([[1.0], [1.0, 2.0]], {}, "different lengths"),
    ],
)
def test_what_cannot_be_quantised_is_refused(x, settings, said):
    with pytest.raises(DataError, match=said):
        quantize(x, **settings)


def test_a_given_buffer_is_filled():
    x = np.random.default_rng(7).normal(size=(100, 100)).astype(np.float32)
    result = quantize(x)
    plain = result.dequantize()
    for dtype in ("float32", "float64", "float16"):
        buffer = np.full((100, 100), np.nan, dtype)
        assert result.dequantize(buffer) is buffer
        assert (buffer == plain.astype(dtype)).all()


@pytest.mark.parametrize(
    "out",
    [
        np.empty((5, 4), np.float32),
        np.empty((4, 5), np.int32),
        np.empty((5, 4), np.float32).T,
        np.empty((4, 10), np.float32)[:, ::2],
        np.broadcast_to(np.float32(0), (4, 5)),
        "buffer",
    ],
    ids=["shape", "type", "transposed", "strided", "read-only", "no array"],
)
def test_a_buffer_that_cannot_be_filled_is_refused(out):
    with pytest.raises(DataError, match="out is"):
        quantize(np.ones((4, 5))).dequantize(out)


def test_rows_can_be_restored_alone():
    x = np.random.default_rng(8).normal(size=(20, 40)).astype(np.float32)  # a block begins every 8 rows
    result = quantize(x)
    plain = result.dequantize()
    for first, last in ((0, 8), (8, 16), (8, 20), (16, 20), (0, 20)):
        out = np.empty((last - first, 40), np.float32)
        result.decode_rows(first, last, out)
        assert (out == plain[first:last]).all()
    for first, last in ((0, 4), (4, 20), (8, 24), (8, 8), (-8, 8)):
        with pytest.raises(DataError, match="end with a block of 64"):
            result.decode_rows(first, last, np.empty((max(last - first, 0), 40), np.float32))


def test_what_a_parameter_costs():
    assert bits_per_parameter() == 4.5
    assert bits_per_parameter(double=True) == 4.126953125
    x = np.ones((64, 256), np.float32)
    assert quantize(x).bits_per_parameter == 4.5
    # One number more a tensor: the mean of the scales.
    assert quantize(x, double=True).bits_per_parameter == 4.126953125 + 32 / x.size


def test_a_forked_process_does_not_wait_for_its_parents_threads():
    import os

    x = np.ones((1000, 1000), np.float32)
    quantize(x, threads=2)
    child = os.fork()
    if child == 0:
        os._exit(0 if (quantize(x, threads=2).dequantize(threads=2) == 1).all() else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
