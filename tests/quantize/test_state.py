"""bitsandbytes' layout: bit for bit where it is installed, and nothing believed that a file claims."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from posterhall.errors import DataError
from posterhall.quantize import NAMES, quantize, state
from posterhall.quantize.double import DoubleScales, quantize_scales

MARK = "weight.quant_state.bitsandbytes__nf4"


def weights(*shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def same(one, other):
    assert (one.shape, one.dtype, one.block, one.code.name) == (
        other.shape, other.dtype, other.block, other.code.name,
    )  # fmt: skip
    assert one.packed.tobytes() == other.packed.tobytes()
    assert one.plain_scales().tobytes() == other.plain_scales().tobytes()
    assert isinstance(one.scales, DoubleScales) == isinstance(other.scales, DoubleScales)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("double", [False, True])
def test_what_is_written_is_read(name, double):
    result = quantize(weights(7, 50), name, double=double)
    tensors = state.write(result, "a.weight") | {"b.weight": np.ones(3)}
    assert state.names(tensors) == ["a.weight"]
    same(state.read(tensors, "a.weight"), result)


def test_the_layout_is_that_of_the_documentation():
    tensors = state.write(quantize(weights(10, 48), double=True))
    assert {key: (value.dtype.name, value.shape) for key, value in tensors.items()} == {
        "weight": ("uint8", (240, 1)),
        "weight.absmax": ("uint8", (8,)),
        "weight.nested_absmax": ("float32", (1,)),
        "weight.nested_quant_map": ("float32", (256,)),
        "weight.quant_map": ("float32", (16,)),
        MARK: ("uint8", tensors[MARK].shape),
    }
    facts = json.loads(tensors[MARK].tobytes())
    assert list(facts) == [
        "quant_type", "blocksize", "dtype", "shape", "nested_blocksize", "nested_dtype", "nested_offset",
    ]  # fmt: skip
    assert facts["shape"] == [10, 48]


def test_what_bitsandbytes_does_not_have_is_not_written_under_its_name():
    for settings in ({"code": "int4"}, {"block": 96}):
        assert any(key.endswith(("posterhall__int4", "posterhall__nf4")) for key in state.write(
            quantize(weights(4, 96), **settings)
        ))  # fmt: skip
    with pytest.raises(DataError, match="of your own"):
        state.write(quantize(weights(3), [-1, 0, 1]))


@pytest.fixture
def bnb():
    pytest.importorskip("torch")
    return pytest.importorskip("bitsandbytes.functional")


@pytest.mark.parametrize("kind", ["nf4", "fp4"])
@pytest.mark.parametrize("shape", [(10, 48), (7, 80), (3, 50), (64, 64), (129, 1), (1, 1)])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
def test_the_peer_writes_the_same_bits(bnb, kind, shape, dtype):
    import torch

    x = torch.from_numpy(weights(*shape)).to(getattr(torch, dtype))
    packed, own = bnb.quantize_4bit(x, quant_type=kind)
    theirs = {"weight": packed} | {f"weight.{key}": each for key, each in own.as_dict(packed=True).items()}
    ours = state.write(quantize(x, kind))
    assert set(ours) == set(theirs)
    for key, value in ours.items():
        assert value.tobytes() == theirs[key].numpy().tobytes(), key
    same(state.read(theirs), quantize(x, kind))


def test_the_peers_quantised_scales_are_read_and_written_with_the_same_bits(bnb):
    import torch

    x = torch.from_numpy(weights(300, 320))
    packed, own = bnb.quantize_4bit(x, quant_type="nf4", compress_statistics=True)
    theirs = {"weight": packed} | {f"weight.{key}": each for key, each in own.as_dict(packed=True).items()}
    read = state.read(theirs)
    again = state.write(read)
    assert set(again) == set(theirs)
    for key, value in again.items():
        assert value.tobytes() == theirs[key].numpy().tobytes(), key
    assert read.dequantize() == pytest.approx(bnb.dequantize_4bit(packed, own).numpy(), abs=1e-6)
    # Its CPU library looks scales up by 16 bits, so a code may be one off the nearest.
    ours = quantize_scales(quantize(x).scales, offset=read.scales.offset)
    assert ours.scales.tobytes() == read.scales.scales.tobytes()
    assert np.abs(ours.packed.astype(int) - read.scales.packed).max() <= 1
    assert (ours.packed == read.scales.packed).mean() > 0.99


def test_the_peer_reads_what_is_written(bnb):
    import torch

    x = weights(256, 256)
    result = quantize(x, double=True)
    tensors = {key: torch.from_numpy(value) for key, value in state.write(result).items()}
    packed = tensors.pop("weight")
    own = bnb.QuantState.from_dict(
        {key.removeprefix("weight."): value for key, value in tensors.items()}, device=torch.device("cpu")
    )
    assert bnb.dequantize_4bit(packed, own).numpy() == pytest.approx(result.dequantize(), abs=1e-6)


def test_codes_stored_as_floats_are_read():
    torch = pytest.importorskip("torch")
    result = quantize(weights(8, 64))
    tensors = {key: torch.from_numpy(value) for key, value in state.write(result).items()}
    tensors["weight"] = tensors["weight"].view(-1).view(torch.bfloat16).view(-1, 1)
    same(state.read(tensors), result)
    plain = state.write(result)
    plain["weight"] = plain["weight"].reshape(-1).view(np.float16).reshape(-1, 1)
    same(state.read(plain), result)


def test_read_only_and_unaligned_tensors_are_read():
    result = quantize(weights(10, 100), double=True)
    tensors = {
        key: np.frombuffer(b"?" + value.tobytes(), value.dtype, offset=1).reshape(value.shape)
        for key, value in state.write(result).items()
    }
    read = state.read(tensors)
    same(read, result)
    assert (read.dequantize() == result.dequantize()).all()


def facts(**changes):
    tensors = state.write(quantize(weights(10, 48), double=True))
    own = json.loads(tensors[MARK].tobytes()) | changes
    own = {key: value for key, value in own.items() if value != "left out"}
    tensors[MARK] = np.frombuffer(json.dumps(own).encode(), np.uint8)
    return tensors


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"shape": [10, 49]}, "240 bytes of codes, but shape"),
        ({"shape": [10, 4800000000000]}, "at most .* entries"),
        ({"shape": [-10, -48]}, "whole numbers above 0"),
        ({"shape": [10.0, 48]}, "whole numbers above 0"),
        ({"shape": [True, 480]}, "whole numbers above 0"),
        ({"shape": [1] * 9 + [480]}, "at most 8"),
        ({"shape": None}, "shape is None"),
        ({"shape": "left out"}, "shape is None"),
        ({"dtype": "float8"}, "dtype is 'float8'"),
        ({"dtype": "load"}, "one of float32"),
        ({"dtype": ["float32"]}, "one of float32"),
        ({"blocksize": 0}, "from 8 to"),
        ({"blocksize": 65}, "multiple of 8"),
        ({"blocksize": "64"}, "whole number"),
        ({"blocksize": 32}, "length is 8; it must be 15"),
        ({"quant_type": "fp4"}, "quant_type is 'fp4'"),
        ({"nested_blocksize": 64}, "must be 256"),
        ({"nested_blocksize": "left out"}, "all be there, or none"),
        ({"nested_dtype": "bfloat16"}, "must be float32"),
        ({"nested_offset": "left out"}, "finite number"),
        ({"nested_offset": float("nan")}, "finite number"),
        ({"nested_offset": 1e300}, "finite number"),
    ],
)
def test_lying_facts_are_refused(changes, said):
    with pytest.raises(DataError, match=said):
        state.read(facts(**changes))


@pytest.mark.parametrize(
    ("key", "value", "said"),
    [
        ("weight", None, "weight is missing"),
        ("weight", np.zeros((239, 1), np.uint8), "239 bytes"),
        ("weight", np.zeros((240, 1), np.int64), "must be uint8"),
        ("weight.absmax", None, "absmax is missing"),
        ("weight.absmax", np.zeros(7, np.uint8), "length is 7"),
        ("weight.absmax", np.zeros(8, np.float32), "must be uint8"),
        ("weight.nested_absmax", np.array([np.nan], np.float32), "is nan"),
        ("weight.nested_absmax", np.array([-1], np.float32), "not negative"),
        ("weight.nested_absmax", None, "all be there, or none"),
        ("weight.quant_map", np.zeros(16, np.float32), "not the codebook nf4"),
        ("weight.quant_map", np.zeros(15, np.float32), "not the codebook nf4"),
        ("weight.nested_quant_map", np.full(256, np.nan, np.float32), "not the codebook dynamic8"),
        (MARK, None, "there is none"),
        (MARK, np.frombuffer(b"[1]", np.uint8), "not a JSON object"),
        (MARK, np.frombuffer(b"{", np.uint8), "not a JSON object"),
        (MARK, np.frombuffer(b"[" * 9000, np.uint8), "not a JSON object"),
        (MARK, np.zeros(1 << 20, np.uint8), "at most"),
    ],
)
def test_damaged_tensors_are_refused(key, value, said):
    tensors = facts()
    if value is None:
        del tensors[key]
    else:
        tensors[key] = value
    with pytest.raises(DataError, match=said):
        state.read(tensors)


def test_unknown_kinds_are_refused():
    tensors = facts()
    data = tensors.pop(MARK)
    for mark in ("bitsandbytes__int4", "bitsandbytes__nf5", "other__nf4"):
        with pytest.raises(DataError, match="unknown kind; known are bitsandbytes__nf4"):
            state.read(tensors | {f"weight.quant_state.{mark}": data})
    with pytest.raises(DataError, match="2 of them"):
        state.read(facts() | {"weight.quant_state.bitsandbytes__fp4": data})


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=8,
)


@given(st.sampled_from(sorted(json.loads(facts()[MARK].tobytes()))), JSON)
def test_any_other_fact_is_refused_or_harmless(key, value):
    tensors = facts(**{key: value})
    try:
        read = state.read(tensors)
    except DataError:
        return
    assert read.size == 480
    assert read.dequantize().shape == read.shape
