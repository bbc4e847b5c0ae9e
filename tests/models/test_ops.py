"""The steps with gradients of their own against float64 formulas and numeric derivatives."""

from __future__ import annotations

import pytest
import torch

from posterhall.models import _ops

torch.set_num_threads(1)


def normal(*shape, seed=0, dtype=torch.float64):
    generator = torch.Generator().manual_seed(seed)
    return torch.empty(shape, dtype=dtype).normal_(generator=generator).requires_grad_()


def turns(batch, tokens, half):
    angles = normal(batch, tokens, 1, half, seed=5).detach()
    return angles.cos(), angles.sin()


@pytest.mark.parametrize("eps", [1e-5, 0.5])
def test_rms_norm(eps):
    x, gain = normal(2, 3, 6), normal(6, seed=1)
    expected = gain * x / (x.square().mean(-1, keepdim=True) + eps).sqrt()
    torch.testing.assert_close(_ops.rms_norm(x, gain, eps), expected)
    assert torch.autograd.gradcheck(lambda x, gain: _ops.rms_norm(x, gain, eps), (x, gain))


def test_a_row_of_zeros_has_a_norm():
    x = torch.zeros(2, 4, dtype=torch.float64, requires_grad=True)
    gain = torch.ones(4, dtype=torch.float64)
    y = _ops.rms_norm(x, gain, 1e-5)
    y.sum().backward()
    assert y.eq(0).all()
    torch.testing.assert_close(x.grad, torch.full_like(x, 1e5**0.5))


def test_swiglu():
    both = normal(2, 3, 10)
    gate, up = both[..., :5], both[..., 5:]
    torch.testing.assert_close(_ops.swiglu(both), gate / (1 + (-gate).exp()) * up)
    assert torch.autograd.gradcheck(_ops.swiglu, (both,))


@pytest.mark.parametrize(("heads", "kv_heads"), [(3, 3), (4, 2), (2, 1)])
def test_rotation(heads, kv_heads):
    qkv = normal(2, 5, heads + 2 * kv_heads, 6)
    cos, sin = turns(2, 5, 3)
    queries, keys, values = _ops.rotate(qkv, cos, sin, heads, kv_heads)
    # As complex numbers: entry i with entry i + H/2, times e^(i angle).
    number = torch.complex(qkv[..., :3], qkv[..., 3:]) * torch.complex(cos, sin)
    expected = torch.cat((number.real, number.imag), -1)
    torch.testing.assert_close(queries, expected[:, :, :heads])
    torch.testing.assert_close(keys, expected[:, :, heads : heads + kv_heads])
    torch.testing.assert_close(values, qkv[:, :, heads + kv_heads :])
    assert torch.autograd.gradcheck(lambda x: _ops.rotate(x, cos, sin, heads, kv_heads), (qkv,))


@pytest.mark.parametrize("contiguous", [True, False])
def test_float32_in_one_pass_is_float64_in_several(contiguous):
    def pair(*shape, seed):
        exact = normal(*shape, seed=seed)
        single = exact.detach().float()
        if not contiguous:  # the same values, strided
            single = single.transpose(0, 1).contiguous().transpose(0, 1)
        return single.requires_grad_(), exact

    x, gain, both = pair(6, 5, 37, seed=1), pair(37, 1, seed=2), pair(6, 5, 46, seed=3)
    gain = [each.detach()[:, 0].contiguous().requires_grad_() for each in gain]
    qkv = pair(2, 5, 7, 6, seed=4)
    for per_row in (1, 2):
        angles = turns(per_row, 5, 3)
        results = []
        for i, kind in enumerate((torch.float32, torch.float64)):
            cos, sin = (each.to(kind) for each in angles)
            made = (
                _ops.rms_norm(x[i], gain[i], 1e-5),
                _ops.swiglu(both[i] * 20),  # far into both ends of the sigmoid
                *_ops.rotate(qkv[i], cos, sin, 3, 2),
            )
            upstream = [normal(*each.shape, seed=9 + n).detach().to(kind) for n, each in enumerate(made)]
            results.append((*made, *torch.autograd.grad(made, (x[i], gain[i], both[i], qkv[i]), upstream)))
        assert results[0][0].dtype == torch.float32
        for single, exact in zip(*results, strict=True):
            torch.testing.assert_close(single.double(), exact, rtol=2e-6, atol=1e-5)


def test_what_is_not_a_number_stays_so():
    bad = torch.tensor([[float("nan"), 1.0, 2.0, 3.0], [float("inf"), -200.0, 1.0, 1.0]])
    assert _ops.swiglu(bad).isnan().tolist() == [[True, False], [False, False]]
    assert _ops.swiglu(bad)[1].tolist() == pytest.approx([float("inf"), 0.0], abs=1e-30)
    assert _ops.rms_norm(bad, torch.ones(4), 1e-5)[0].isnan().all()


def test_many_threads_take_the_passes_of_torch(monkeypatch):
    x, gain = normal(4, 6, dtype=torch.float32), normal(6, seed=1, dtype=torch.float32)
    qkv, (cos, sin) = normal(1, 3, 6, 4, dtype=torch.float32), (each.float() for each in turns(1, 3, 2))

    def all_of_them():
        made = (_ops.rms_norm(x, gain, 1e-5), _ops.swiglu(x), *_ops.rotate(qkv, cos, sin, 2, 2))
        ones = [torch.ones_like(each) for each in made]
        return (*made, *torch.autograd.grad(made, (x, gain, qkv), ones))

    few = all_of_them()
    monkeypatch.setattr(_ops, "_FEW_THREADS", 0)
    for a, b in zip(few, all_of_them(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-6)


def test_other_types_take_torchs_operators_to_the_same_values():
    x, gain = normal(4, 6, dtype=torch.float32), normal(6, seed=1, dtype=torch.float32)
    qkv = normal(1, 3, 6, 4, dtype=torch.float32)
    cos, sin = (each.float() for each in turns(1, 3, 2))
    low = torch.bfloat16
    pairs = [
        (_ops.rms_norm(x.to(low), gain.to(low), 1e-5), _ops.rms_norm(x, gain, 1e-5)),
        (_ops.swiglu(x.to(low)), _ops.swiglu(x)),
        *zip(
            _ops.rotate(qkv.to(low), cos.to(low), sin.to(low), 2, 2),
            _ops.rotate(qkv, cos, sin, 2, 2),
            strict=True,
        ),
    ]
    for found, expected in pairs:
        assert found.dtype == low
        torch.testing.assert_close(found.float(), expected, rtol=0.05, atol=0.05)
