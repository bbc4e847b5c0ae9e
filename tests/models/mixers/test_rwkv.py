"""RWKV-4's average against the sums of its definition, and the kernel's gradients against float64."""

from __future__ import annotations

import math

import pytest

from posterhall.models import DecoderConfig

torch = pytest.importorskip("torch")
from posterhall.models.mixers import Placement, rwkv  # noqa: E402


def drawn(batch=2, tokens=30, dim=40, *, scale=1.0, dtype=torch.float64):
    torch.set_num_threads(1)
    generator = torch.Generator().manual_seed(3)
    decay = torch.rand(dim, generator=generator) * 2 + 1e-3
    decay[:3] = torch.tensor([1e-4, 5.0, 30.0])
    bonus = torch.randn(dim, generator=generator)
    keys, values = (torch.randn(batch, tokens, dim, generator=generator) for _ in range(2))
    return [each.to(dtype).requires_grad_() for each in (decay, bonus, keys * scale, values)]


def written_down(decay, bonus, keys, values):
    """Peng et al. 2023, eq. 14, as sums over all tokens before."""
    out = torch.zeros_like(values)
    for t in range(keys.shape[1]):
        lags = torch.arange(t - 1, -1, -1, dtype=keys.dtype)[:, None]
        weights = torch.cat((torch.exp(keys[:, :t] - lags * decay), torch.exp(bonus + keys[:, t : t + 1])), 1)
        out[:, t] = (weights * values[:, : t + 1]).sum(1) / weights.sum(1)
    return out


def test_the_average_is_the_papers():
    given = drawn()
    assert torch.allclose(rwkv.wkv(*given)[0], written_down(*given), rtol=1e-11, atol=1e-12)


@pytest.mark.parametrize("scale", [1.0, 40.0])
def test_the_kernels_and_their_gradients_agree_with_float64(scale):
    slopes = torch.randn(2, 30, 40, generator=torch.Generator().manual_seed(5), dtype=torch.float64)
    found = []
    for dtype in (torch.float32, torch.float64):
        given = drawn(scale=scale, dtype=dtype)
        mixed, _ = rwkv.wkv(*given)
        (mixed * slopes.to(dtype)).sum().backward()
        found.append([mixed.detach(), *(each.grad for each in given)])
    for ours, exact in zip(*found, strict=True):
        assert ours.dtype == torch.float32
        assert torch.isfinite(ours).all()
        assert (ours - exact).abs().max() <= 3e-5 * exact.abs().max()


def test_gradients_are_those_of_finite_differences():
    given = drawn(1, 5, 3)
    assert torch.autograd.gradcheck(lambda *each: rwkv.wkv(*each)[0], given)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_constant_added_to_all_keys_changes_nothing_but_for_overflow(dtype):
    decay, bonus, keys, values = (each.detach() for each in drawn(dtype=dtype))
    plain, _ = rwkv.wkv(decay, bonus, keys, values)
    for shift in (-200.0, 200.0):
        moved, _ = rwkv.wkv(decay, bonus, keys + shift, values)
        assert torch.allclose(moved, plain, rtol=2e-4 if dtype == torch.float32 else 1e-10, atol=1e-4)


def test_padding_leaves_no_trace_in_the_sums():
    for dtype in (torch.float32, torch.float64):
        decay, bonus, keys, values = (each.detach() for each in drawn(dtype=dtype))
        before = rwkv.wkv(decay, bonus, keys[:, :7], values[:, :7])[1]
        _, sums = rwkv.wkv(decay, bonus, keys[:, 7:], values[:, 7:], sums=before, valid=(5, 0))
        _, short = rwkv.wkv(decay, bonus, keys[:1, :12], values[:1, :12])
        assert torch.allclose(sums[0], short[0], rtol=1e-5)
        assert torch.equal(sums[1], before[1])


def test_packed_documents_have_the_gradients_of_documents_apart():
    torch.set_num_threads(1)
    config = DecoderConfig(vocab_size=2, dim=16, heads=1, init_std=0.3)
    x = torch.randn(1, 20, 16, generator=torch.Generator().manual_seed(1))
    segments = torch.tensor([[0] * 7 + [1] * 9 + [2] * 4])
    slopes = []
    for packed in (True, False):
        mixer = rwkv.make(config, 0)
        mixer.initialise(torch.Generator().manual_seed(0))
        cuts = [(0, 20)] if packed else [(0, 7), (7, 16), (16, 20)]
        for a, b in cuts:
            place = Placement(batch=1, tokens=b - a, device=x.device, segments=segments if packed else None)
            mixer(x[:, a:b], place).square().sum().backward()
        slopes.append([parameter.grad for parameter in mixer.parameters()])
    for one, other in zip(*slopes, strict=True):
        assert torch.allclose(one, other, rtol=1e-4, atol=1e-5)


def test_it_begins_as_published():
    config = DecoderConfig(vocab_size=2, dim=8, layers=3, heads=1, positions="none")
    for number in range(3):
        average = rwkv.make(config, number).average
        for i in range(8):
            decay = -5 + 8 * (i / 7) ** (0.7 + 1.3 * number / 2)
            assert average.decay[i].item() == pytest.approx(decay, abs=1e-5)
            assert average.bonus[i].item() == pytest.approx(math.log(0.3) + ((i + 1) % 3 - 1) * 0.5, abs=1e-6)
    mix = rwkv.make(config, 1).mix
    share = (3 / 8) ** (1 - 1 / 3)
    assert mix[:, 3].tolist() == pytest.approx([share**0.5, share, share + 0.15], abs=1e-6)


def test_the_layer_is_its_formula():
    config = DecoderConfig(vocab_size=2, dim=16, heads=1, init_std=0.3)
    mixer = rwkv.make(config, 0).double()
    mixer.initialise(torch.Generator().manual_seed(0))
    x = torch.randn(2, 6, 16, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    with torch.no_grad():
        before = torch.cat((torch.zeros(2, 1, 16), x[:, :-1]), 1)
        r, k, v = (
            layer(share * x + (1 - share) * before)
            for layer, share in zip((mixer.receptance, mixer.keys, mixer.values), mixer.mix, strict=True)
        )
        average = written_down(mixer.average.decay.exp(), mixer.average.bonus, k, v)
        found = mixer(x, Placement(batch=2, tokens=6, device=x.device))
        assert torch.allclose(found, mixer.out(r.sigmoid() * average), rtol=1e-11, atol=1e-13)


def test_half_precision_keeps_decays_and_sums_in_single():
    mixer = rwkv.make(DecoderConfig(vocab_size=2, dim=16, heads=1), 0).bfloat16()
    assert mixer.average.decay.dtype == torch.float32
    assert mixer.mix.dtype == torch.bfloat16
    assert mixer.new_state(1, 4, dtype=torch.bfloat16, device=torch.device("cpu")).kept.dtype == torch.float32
