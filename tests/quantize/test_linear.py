"""The 4-bit layer against torch's own over the restored weight."""

from __future__ import annotations

import copy

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from posterhall.errors import DataError  # noqa: E402
from posterhall.quantize import NAMES, QuantizedLinear, linear, quantize  # noqa: E402


def layer(outputs=96, inputs=80, **settings):
    generator = torch.Generator().manual_seed(0)
    plain = torch.nn.Linear(inputs, outputs)
    with torch.no_grad():
        plain.weight.normal_(generator=generator)
        plain.bias.normal_(generator=generator)
    return QuantizedLinear.of(plain, **settings), plain


def inputs(*shape, dtype=torch.float32):
    x = torch.empty(shape).normal_(generator=torch.Generator().manual_seed(1)).to(dtype)
    return x.requires_grad_()


@pytest.mark.parametrize("panel", [1 << 23, 640])
@pytest.mark.parametrize("shape", [(80,), (5, 80), (2, 3, 80), (200, 80)])
def test_product_and_gradient_are_those_of_the_restored_weight(shape, panel, monkeypatch):
    monkeypatch.setattr(linear, "PANEL", panel)
    ours, plain = layer(double=True)
    weight = ours.dequantized()
    x, same = inputs(*shape), inputs(*shape)
    y = ours(x)
    expected = torch.nn.functional.linear(same, weight, plain.bias)
    torch.testing.assert_close(y, expected, rtol=1e-5, atol=1e-5)
    slope = torch.empty_like(y).normal_(generator=torch.Generator().manual_seed(2))
    y.backward(slope)
    expected.backward(slope)
    torch.testing.assert_close(x.grad, same.grad, rtol=1e-5, atol=1e-4)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float64])
def test_it_computes_in_the_type_of_its_input(dtype):
    ours, plain = layer()
    x = inputs(4, 80, dtype=dtype)
    y = ours(x)
    assert y.dtype == dtype
    expected = torch.nn.functional.linear(x, ours.dequantized(dtype), plain.bias.to(dtype))
    torch.testing.assert_close(y, expected)


@pytest.mark.parametrize("panel", [1 << 23, 640])
def test_projections_that_are_one_product_stay_several_tensors(panel, monkeypatch):
    monkeypatch.setattr(linear, "PANEL", panel)
    _, plain = layer(outputs=96, inputs=48)
    ours = QuantizedLinear.of(plain, rows=[50, 1, 45], double=True)
    weight = torch.cat(
        [quantize(piece, double=True).tensor() for piece in plain.weight.detach().split([50, 1, 45])]
    )
    assert torch.equal(ours.dequantized(), weight)
    x = inputs(7, 48)
    y = ours(x)
    torch.testing.assert_close(y, torch.nn.functional.linear(x, weight, plain.bias), rtol=1e-5, atol=1e-4)
    (found,) = torch.autograd.grad(y.sum(), x)
    torch.testing.assert_close(found, weight.sum(0).expand_as(x), rtol=1e-5, atol=1e-4)
    other = QuantizedLinear([quantize(torch.zeros(n, 48)) for n in (50, 1, 45)], torch.zeros(96))
    other.load_state_dict(ours.state_dict())
    assert torch.equal(other.dequantized(), weight)
    with pytest.raises(DataError, match="3 parts"):
        _ = ours.quantized
    with pytest.raises(DataError, match="do not take the same input"):
        QuantizedLinear([quantize(torch.zeros(2, 8)), quantize(torch.zeros(2, 9))])


def test_a_layer_is_restored_as_what_it_was():
    ours, plain = layer(double=True)
    back = ours.restored()
    assert type(back) is torch.nn.Linear
    assert torch.equal(back.weight, ours.dequantized())
    x = inputs(3, 80)
    torch.testing.assert_close(back(x), ours(x))
    assert plain.weight is not back.weight
    assert QuantizedLinear(quantize(plain.weight)).restored(torch.bfloat16).weight.dtype == torch.bfloat16


def test_two_layers_that_share_a_buffer_do_not_disturb_each_other():
    first, _ = layer(80, 80)
    second = QuantizedLinear(quantize(torch.eye(80)))
    x = inputs(4, 80)
    y = second(first(x))
    torch.testing.assert_close(y, first(x))
    y.sum().backward()
    torch.testing.assert_close(x.grad, first.dequantized().sum(0).expand(4, 80), rtol=1e-5, atol=1e-5)


def test_nothing_of_it_is_trained():
    ours, _ = layer()
    assert [name for name, each in ours.named_parameters() if each.requires_grad] == []
    x = inputs(4, 80).detach()
    assert not ours(x).requires_grad


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(("first", "last"), [(0, 8), (8, 21), (16, 21), (0, 21)])
def test_other_devices_restore_the_same_rows(name, first, last):  # tried where there is no other device
    result = quantize(np.random.default_rng(0).normal(size=(21, 40)).astype(np.float32), name, double=True)
    there = linear.DeviceWeight(result, torch.device("cpu"))
    rows = there.rows(first, last, torch.float32)
    assert (rows.numpy() == result.dequantize()[first:last]).all()
    assert there.rows(first, last, torch.bfloat16).dtype == torch.bfloat16


def test_its_state_is_what_transformers_writes_and_comes_back():
    ours, _ = layer(double=True)
    saved = torch.nn.Sequential(ours).state_dict()
    assert set(saved) == {
        "0.bias", "0.weight", "0.weight.absmax", "0.weight.nested_absmax", "0.weight.nested_quant_map",
        "0.weight.quant_map", "0.weight.quant_state.bitsandbytes__nf4",
    }  # fmt: skip
    other = QuantizedLinear(quantize(torch.zeros(96, 80)), torch.zeros(96))
    torch.nn.Sequential(other).load_state_dict(saved)
    x = inputs(3, 80)
    assert torch.equal(other(x), ours(x))
    assert torch.equal(copy.deepcopy(ours)(x), ours(x))


def test_a_foreign_state_is_refused():
    ours, _ = layer()
    other, _ = layer(80, 96)
    with pytest.raises(RuntimeError, match=r"weight has shape \(80, 96\)"):
        ours.load_state_dict({**other.state_dict(), "bias": ours.bias})
    saved = ours.state_dict()
    saved["weight"] = saved["weight"][:-1]
    with pytest.raises(RuntimeError, match="bytes of codes"):
        ours.load_state_dict(saved)
    with pytest.raises(RuntimeError, match="Missing"):
        ours.load_state_dict({"bias": ours.bias})
    with pytest.raises(RuntimeError, match="Unexpected"):
        ours.load_state_dict({**ours.state_dict(), "other": ours.bias})


def test_wrong_shapes_are_refused():
    ours, _ = layer()
    with pytest.raises(DataError, match="81 features; this layer takes 80"):
        ours(torch.zeros(3, 81))
    with pytest.raises(DataError, match="two dimensions"):
        QuantizedLinear(quantize(torch.ones(3)))
    with pytest.raises(DataError, match="bias has shape"):
        QuantizedLinear(quantize(torch.ones(3, 4)), torch.ones(4))


@pytest.mark.parametrize("dtype", ["bfloat16", "float16", "float32", "float64"])
def test_tensors_of_every_type_are_quantised_and_restored_in_it(dtype):
    kind = getattr(torch, dtype)
    x = inputs(30, 30).detach().to(kind)
    result, plain = quantize(x.t()), quantize(x.t().float().contiguous())
    assert result.dtype == dtype
    assert (result.packed == plain.packed).all()
    restored = result.tensor()
    assert restored.dtype == kind
    assert torch.equal(restored, torch.from_numpy(plain.dequantize()).to(kind))
    buffer = torch.empty(30, 30, dtype=kind)
    assert result.dequantize(buffer) is buffer
    assert torch.equal(buffer, restored)


def test_bfloat16_that_is_not_finite_is_named():
    x = torch.ones(3, 30, dtype=torch.bfloat16)
    x[2, 7] = float("inf")
    with pytest.raises(DataError, match=r"\[2, 7\] .* is inf"):
        quantize(x)


def test_tensors_that_cannot_be_quantised_or_filled_are_refused():
    with pytest.raises(DataError, match="cannot quantise int64"):
        quantize(torch.arange(3))
    with pytest.raises(DataError, match="cannot quantise sparse"):
        quantize(torch.eye(3).to_sparse())
    with pytest.raises(DataError, match="load its weights first"):
        quantize(torch.ones(3, device="meta"))
    with pytest.raises(DataError, match="not contiguous"):
        quantize(torch.ones(3, 4)).dequantize(torch.empty(4, 3).t())
    with pytest.raises(DataError, match="out is int32"):
        quantize(torch.ones(3)).dequantize(torch.empty(3, dtype=torch.int32))
    with pytest.raises(DataError, match="out is float32"):
        quantize(torch.ones(3)).dequantize(torch.empty(3, device="meta"))
