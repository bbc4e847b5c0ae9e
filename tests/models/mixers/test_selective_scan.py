"""The selective scan and Mamba: against the recurrence written down, float64 and differences."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import torch

from posterhall.errors import DataError
from posterhall.models import Decoder, DecoderConfig
from posterhall.models.mixers import Placement, _scan, factory
from posterhall.models.mixers._ssd import state_space_dual

torch.set_num_threads(1)
NAMES = ("x", "delta", "gate", "a", "inputs", "outputs", "skip", "bias")


def given(rows=2, tokens=53, width=48, size=5, seed=0):
    """Arguments of the scan in float64."""
    generator = torch.Generator().manual_seed(seed)

    def normal(*shape):
        return torch.empty(*shape, dtype=torch.float64).normal_(generator=generator)

    a = -torch.rand(size, width, generator=generator, dtype=torch.float64) * 8 - 0.1
    shape = (rows, tokens, width)
    return [
        normal(*shape), normal(*shape) - 2, normal(*shape), a, normal(rows, tokens, size),
        normal(rows, tokens, size), normal(width), normal(width) * 0.3,
    ]  # fmt: skip


def recurrence(x, delta, gate, a, inputs, outputs, skip, bias, fresh=None):
    """The formula, token by token, in numpy."""
    x, delta, gate, a, inputs, outputs, skip, bias = (
        each.numpy() for each in (x, delta, gate, a, inputs, outputs, skip, bias)
    )
    y = np.zeros_like(x)
    for row in range(len(x)):
        h = np.zeros(a.shape)
        for t in range(x.shape[1]):
            if fresh is not None and fresh[row, t]:
                h[:] = 0
            step = np.log1p(np.exp(delta[row, t] + bias))
            h = np.exp(step * a) * h + step * inputs[row, t][:, None] * x[row, t]
            z = gate[row, t]
            y[row, t] = (outputs[row, t] @ h + skip * x[row, t]) * z / (1 + np.exp(-z))
    return torch.from_numpy(y)


def scanned(*args, **more):
    """Only the results."""
    return _scan.selective_scan(*args, **more)[0]


def close(a, b, tolerance):
    return float((a - b).abs().max()) <= tolerance * float(b.abs().max())


@pytest.mark.parametrize("width", [48, 20])  # the second is no multiple of a vector, and goes through torch
def test_it_is_the_recurrence(width):
    args = given(width=width)
    fresh = torch.rand(2, 53, generator=torch.Generator().manual_seed(3)) < 0.1
    for begins in (None, fresh):
        exact = recurrence(*args, fresh=begins)
        assert close(scanned(*args, fresh=begins), exact, 1e-12)
        assert close(scanned(*(each.float() for each in args), fresh=begins), exact, 3e-6)


@pytest.mark.parametrize("tokens", [1, 63, 64, 65, 140])
def test_fused_gradients_are_those_of_float64(tokens):
    args = given(tokens=tokens, width=528, size=3)  # two tasks a row
    fresh = torch.rand(2, tokens, generator=torch.Generator().manual_seed(3)) < 0.2
    weight = torch.empty(2, tokens, 528, dtype=torch.float64).normal_()
    grads = []
    for kind in (torch.float32, torch.float64):
        leaves = [each.to(kind).requires_grad_() for each in args]
        (scanned(*leaves, fresh=fresh) * weight.to(kind)).sum().backward()
        grads.append([each.grad for each in leaves])
    for name, ours, exact in zip(NAMES, *grads, strict=True):
        assert close(ours, exact, 1e-5), name


def test_gradients_in_float64_are_those_of_differences():
    args = [each.requires_grad_() for each in given(rows=1, tokens=4, width=3, size=2)]
    before = torch.ones(1, 2, 3, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda *a: _scan.selective_scan(*a[:-1], state=a[-1]), (*args, before))


@pytest.mark.parametrize(("width", "size"), [(16, 1), (528, 3), (560, 4)])
@pytest.mark.parametrize("through", ["results", "state", "both"])
def test_fused_gradients_reach_the_state_before(width, size, through):
    args = given(tokens=83, width=width, size=size)
    args[3] *= 0.02  # so that something of it is left after so many tokens
    args.append(torch.ones(2, size, width, dtype=torch.float64))
    fresh = torch.zeros(2, 83, dtype=torch.bool)
    fresh[1, 7] = True  # behind it nothing is known of the state of the second row
    grads = []
    for kind in (torch.float32, torch.float64):
        *leaves, before = (each.to(kind).requires_grad_() for each in args)
        y, after = _scan.selective_scan(*leaves, state=before, fresh=fresh, valid=(70, 83))
        loss = {"results": y[0, :70].square().sum() + y[1].sum(), "state": after.square().sum()}
        (sum(loss.values()) if through == "both" else loss[through]).backward()
        grads.append([each.grad for each in (*leaves, before)])
    for name, ours, exact in zip((*NAMES, "state"), *grads, strict=True):
        if exact is None or not exact.any():  # C and D say nothing of the state
            assert ours is None or not ours.any(), name
        else:
            assert close(ours, exact, 5e-5), name


def test_a_state_that_hardly_decays_does_not_grow():
    tokens = 50_000
    x, delta, gate, a, inputs, outputs, skip, bias = (each.float() for each in given(1, tokens, 16, 1))
    before = torch.ones(1, 1, 16)
    steps = torch.linspace(-25.0, -12.0, 16).expand_as(delta)  # 1e-11 to 6e-6
    _, after = _scan.selective_scan(
        torch.zeros_like(x),
        steps,
        gate,
        torch.full_like(a, -0.5),
        inputs,
        outputs,
        skip,
        bias * 0,
        state=before,
    )
    assert (after <= before).all()
    exact = torch.exp(-0.5 * tokens * torch.nn.functional.softplus(steps[0, 0].double()))
    assert (after[0, 0] - exact).abs().max() < 2e-3


def test_every_split_goes_on_from_its_state():
    args = [each.float() for each in given()]
    whole = scanned(*args)
    for cut in (1, 2, 15, 16, 17, 52):
        parts, state = [], None
        for part in (slice(0, cut), slice(cut, 53)):
            y, state = _scan.selective_scan(
                *(each[:, part] if each.dim() == 3 else each for each in args), state=state
            )
            parts.append(y)
        assert torch.equal(torch.cat(parts, dim=1), whole)


@pytest.mark.parametrize("extreme", [-90.0, 0.0, 30.0, 1e4])
def test_steps_of_any_size_stay_finite(extreme):
    args = [each.float() for each in given(tokens=5)]
    args[1] = torch.full_like(args[1], extreme)
    exact = recurrence(*(each.double() for each in args)) if extreme < 100 else None
    y = scanned(*args)
    assert torch.isfinite(y).all()
    if exact is not None:
        assert close(y, exact, 1e-5)
    args[1][0, 2, 1] = math.nan  # and what is no number does not hide
    assert torch.isnan(scanned(*args)[0, 2:, 1]).all()


def test_memory_holds_no_state_a_token():
    x, *rest = (each.float().requires_grad_() for each in given(rows=1, tokens=512, width=64, size=16))
    y = scanned(x, *rest)
    saved = sum(each.numel() for each in y.grad_fn.saved_tensors)
    assert saved < 512 * 64 * 16 / 2


@pytest.mark.parametrize("tokens", [1, 6, 7, 8, 30])
def test_the_dual_form_is_the_recurrence(tokens):
    generator = torch.Generator().manual_seed(0)
    rows, heads, entries, groups, size = 2, 4, 3, 2, 5

    def normal(*shape):
        return torch.empty(*shape, dtype=torch.float64).normal_(generator=generator)

    x, step, a = normal(rows, tokens, heads, entries), normal(rows, tokens, heads).abs(), -normal(heads).abs()
    b, c = normal(rows, tokens, groups, size), normal(rows, tokens, groups, size)
    fresh = torch.rand(rows, tokens, generator=generator) < 0.2
    exact = torch.zeros_like(x)
    for row in range(rows):
        for head in range(heads):
            h = torch.zeros(size, entries, dtype=torch.float64)
            for t in range(tokens):
                d, group = step[row, t, head], head // (heads // groups)
                h = (0 if fresh[row, t] else torch.exp(d * a[head])) * h
                h = h + d * torch.outer(b[row, t, group], x[row, t, head])
                exact[row, t, head] = c[row, t, group] @ h
    torch.testing.assert_close(state_space_dual(x, step, a, b, c, chunk=7, fresh=fresh)[0], exact)


def made(name, **settings):
    config = DecoderConfig(vocab_size=2, dim=24, heads=3, mixers=(name,), mixer_settings={name: settings})
    mixer = factory(name)(config, 0)
    mixer.initialise(torch.Generator().manual_seed(0))
    return mixer


def test_mamba_begins_as_published():
    rates = made("mamba").rates
    assert torch.allclose(rates.poles(), -torch.arange(1.0, 17.0).expand(48, -1))
    steps = torch.nn.functional.softplus(rates.step_bias)
    assert 0.00099 < steps.min() < 0.004
    assert 0.03 < steps.max() < 0.101


@pytest.mark.parametrize(
    ("name", "settings", "said"),
    [
        ("mamba", {"state": 0}, "state is 0"),
        ("mamba", {"sate": 8}, "Did you mean: state"),
        ("mamba", {"step_min": 0.2}, "step_min is 0.2"),
        ("attention", {"window": 8}, "mixer_settings of attention: unknown setting 'window'. There are none"),
        ("rwkv", {"state": 8}, "mixer_settings of rwkv: unknown setting 'state'"),
        ("mamba2", {"head_dim": 7}, "head_dim is 7; it must divide the 48"),
        ("mamba2", {"head_dim": 16, "groups": 2}, "groups is 2; it must divide 3 heads"),
    ],
)
def test_settings_that_do_not_fit_are_refused(name, settings, said):
    with pytest.raises(DataError, match=said):
        made(name, **settings)


def test_a_long_stream_takes_no_more_memory():
    model = Decoder(
        DecoderConfig(
            vocab_size=5, dim=16, layers=1, heads=1, ffn_dim=0, max_length=1 << 20, mixers=("mamba",)
        )
    ).eval()
    cache = model.new_cache(1)
    token = torch.tensor([[3]])
    with torch.no_grad():
        model.hidden(token.expand(1, 20_000), cache=cache)
        sizes = {cache.states[0].nbytes}
        for _ in range(300):
            states = model.hidden(token, cache=cache)
            sizes.add(cache.states[0].nbytes)
    assert len(sizes) == 1
    assert torch.isfinite(states).all()
    assert cache.lengths == [20_300]


@pytest.mark.parametrize("name", ["mamba", "mamba2", "s4d"])
def test_gradients_reach_through_a_state_into_the_chunk_before(name):
    config = DecoderConfig(vocab_size=2, dim=32, heads=1, mixers=(name,), mixer_settings={})
    mixer = factory(name)(config, 0)
    mixer.initialise(torch.Generator().manual_seed(0))
    mixer.double()
    x = torch.empty(2, 13, 32, dtype=torch.float64).normal_(generator=torch.Generator().manual_seed(1))
    found = []
    for cuts in ((0, 13), (0, 5, 6, 13)):
        leaf = x.clone().requires_grad_()
        state = mixer.new_state(2, 13, dtype=x.dtype, device=x.device)
        parts = []
        for a, b in itertools.pairwise(cuts):
            place = Placement(batch=2, tokens=b - a, device=x.device, past=(a, a))
            parts.append(mixer(leaf[:, a:b], place, state))
        loss = torch.cat(parts, 1)[:, -4:].square().sum()  # of the last chunk alone
        found.append(torch.autograd.grad(loss, (leaf, *mixer.parameters())))
    for whole, pieces in zip(*found, strict=True):
        assert (whole - pieces).abs().max() <= 1e-10 * max(1.0, float(whole.abs().max()))
