"""S4's kernel and recurrences against powers of dense matrices."""

from typing import get_args

import numpy as np
import pytest
import torch

from posterhall.errors import DataError
from posterhall.models import DecoderConfig
from posterhall.models.mixers import Placement, _cauchy, _powers, discretize, hippo, s4


def made(channels=3, state=16, seed=0, **options):
    system = s4.LowRank(channels, state, **options)
    system.initialise(torch.Generator().manual_seed(seed))
    return system.double()


def dense(system):
    """A (H, N, N), B (H, N) and C (H, N) on real vectors, written down; steps (H,)."""
    times = system.channels // len(system.turn)
    a = torch.complex(-system.log_decay.exp(), system.turn).repeat_interleave(times, 0)
    p = torch.view_as_complex(system.coupling).repeat_interleave(times, 1)
    b = torch.view_as_complex(system.inputs).repeat_interleave(times, 0)
    c = torch.view_as_complex(system.weights)[0]
    # With both halves of each pair: complex matrices, and real results.
    whole = torch.diag_embed(torch.cat((a, a.conj()), -1))
    p = torch.cat((p, p.conj()), -1)
    whole = whole - torch.einsum("rhn,rhm->hnm", p, p.conj())
    return whole, torch.cat((b, b.conj()), -1), torch.cat((c, c.conj()), -1), system.log_step.exp()


def iterated(system, length):
    """C A_bar^l b_bar by powers of the dense matrix."""
    a, b, c, steps = dense(system)
    bar, driven = discretize.dense(a, b, steps, "bilinear")
    found = []
    for _ in range(length):
        found.append((c * driven).sum(-1).real)
        driven = (bar @ driven[..., None])[..., 0]
    return torch.stack(found, -1)


@pytest.mark.parametrize("length", [1, 2, 63, 256])
@pytest.mark.parametrize("measure", get_args(hippo.Measure))
def test_the_kernel_is_the_dense_power_iteration(measure, length):
    system = made(state=64 if length == 256 else 16, measure=measure)
    with torch.no_grad():
        wanted = iterated(system, length)
        found = system.kernel(length)[0]
    assert found.dtype == torch.float64
    assert float((found - wanted).abs().max()) <= 1e-12 * max(1.0, float(wanted.abs().max()))


@pytest.mark.parametrize("measure", ["legs", "legt"])  # of rank 1 and 2
def test_gradients_are_those_of_the_dense_iteration(measure):
    system = made(channels=2, state=8, measure=measure)
    grad = torch.empty(2, 20, dtype=torch.float64).normal_(generator=torch.Generator().manual_seed(1))
    parameters = list(system.parameters())
    wanted = torch.autograd.grad(iterated(system, 20), parameters, grad)
    found = torch.autograd.grad(system.kernel(20)[0], parameters, grad)
    for a, b in zip(found, wanted, strict=True):
        torch.testing.assert_close(a, b, atol=1e-9, rtol=1e-9)


def test_cauchy_products_on_other_devices_are_the_same(monkeypatch):
    generator = torch.Generator().manual_seed(0)
    z = torch.view_as_complex(torch.empty(2, 5, 2, dtype=torch.float64).normal_(generator=generator))
    z = torch.complex(-z.real.abs() - 0.1, z.imag)
    v = torch.view_as_complex(torch.empty(2, 3, 5, 2, dtype=torch.float64).normal_(generator=generator))
    half = torch.pi * torch.arange(9).double() / 17
    g = 2j * torch.sin(half)
    plain = [
        (each[..., None] / (g - pole[:, None, :, None] * torch.cos(half))).sum(2)
        for each, pole in ((v, z), (v.conj(), z.conj()))
    ]
    results = []
    for native in (True, False):
        monkeypatch.setattr(_cauchy, "_is_native", lambda tensor, native=native: native)
        a, b = v.clone().requires_grad_(), z.clone().requires_grad_()
        found = _cauchy.cauchy(a, b, 17)
        torch.testing.assert_close(found, sum(plain), atol=1e-12, rtol=1e-12)
        weight = torch.complex(torch.arange(9.0).double(), 1 - torch.arange(9.0).double())
        results.append(torch.autograd.grad((found * weight).real.sum(), (a, b)))
    for one, other in zip(*results, strict=True):
        torch.testing.assert_close(one, other, atol=1e-10, rtol=1e-10)


def test_cauchy_gradients_are_finite_differences():
    generator = torch.Generator().manual_seed(0)
    z = torch.complex(
        -torch.rand(1, 3, generator=generator).double() - 0.1, torch.rand(1, 3, generator=generator).double()
    )
    v = torch.view_as_complex(torch.empty(1, 2, 3, 2, dtype=torch.float64).normal_(generator=generator))
    assert torch.autograd.gradcheck(
        lambda v, z: torch.view_as_real(_cauchy.cauchy(v, z, 8)), (v.requires_grad_(), z.requires_grad_())
    )


def layer(**settings):
    config = DecoderConfig(
        vocab_size=2, dim=4, heads=2, max_length=8, mixers=("s4",), mixer_settings={"s4": settings}
    )
    mixer = s4.make(config, 0)
    mixer.initialise(torch.Generator().manual_seed(0))
    return mixer.double().eval()


@pytest.mark.parametrize("measure", ["legs", "fout", "legt"])
def test_blocks_steps_and_uneven_rows_continue_a_long_sequence(measure):
    mixer = layer(state=8, measure=measure)
    x = torch.empty(3, 150, 4, dtype=torch.float64).normal_(generator=torch.Generator().manual_seed(3))
    device = x.device
    with torch.no_grad():
        whole = mixer(x, Placement(batch=3, tokens=150, device=device))
        state = mixer.new_state(3, 8, dtype=x.dtype, device=device)
        counts = (70, 33, 1)
        first = mixer(
            x[:, :70], Placement(batch=3, tokens=70, device=device, past=(0, 0, 0), valid=counts), state
        )
        for row, count in enumerate(counts):
            torch.testing.assert_close(first[row, :count], whole[row, :count], atol=1e-11, rtol=0)
        rest = torch.stack([x[row, count : count + 75] for row, count in enumerate(counts)])
        second = mixer(rest, Placement(batch=3, tokens=75, device=device, past=counts), state)
        for row, count in enumerate(counts):
            torch.testing.assert_close(second[row], whole[row, count : count + 75], atol=1e-11, rtol=0)


def test_weights_do_not_know_the_length_they_were_used_at():
    mixer = layer(state=8)
    before = {name: each.clone() for name, each in mixer.state_dict().items()}
    with torch.no_grad():
        short, long = mixer.system.kernel(10), mixer.system.kernel(40)
    torch.testing.assert_close(long[..., :10], short, atol=1e-12, rtol=0)
    assert all(torch.equal(each, before[name]) for name, each in mixer.state_dict().items())


def test_poles_on_the_imaginary_axis_begin_a_little_left_of_it():
    system = made(measure="fout")
    assert np.isclose(system.log_decay.exp().min().item(), 1e-4)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"measure": "legz"}, "one of: legs"),
        ({"state": 5}, "even"),
        ({"copies": 3}, "divide"),
        ({"copies": 0}, "at least 1"),
        ({"step_min": 0.2}, "step_min <= step_max"),
        ({"rate": 0}, "above 0"),
    ],
)
def test_settings_that_do_not_serve_are_errors(settings, words):
    with pytest.raises(DataError, match=words):
        layer(**settings)


@pytest.mark.parametrize("count", [1, 2, 5, 13])
def test_rows_times_powers_have_the_gradients_of_plain_products(count):
    generator = torch.Generator().manual_seed(0)
    rows = torch.empty(2, 3, 4, dtype=torch.float64).normal_(generator=generator).requires_grad_()
    matrices = (
        torch.empty(2, 4, 4, dtype=torch.float64).normal_(generator=generator).mul_(0.5).requires_grad_()
    )
    torch.testing.assert_close(
        _powers.after(rows, matrices, count), rows @ torch.matrix_power(matrices, count)
    )
    assert torch.autograd.gradcheck(lambda a, b: _powers.after(a, b, count), (rows, matrices))
