"""The blocked kernel of diagonal systems against the matrix written down in float64."""

import pytest
import torch

from posterhall.models.mixers import _vandermonde


def system(rows=2, channels=3, states=4, *, seed=0, dtype=torch.complex128):
    generator = torch.Generator().manual_seed(seed)
    c = torch.view_as_complex(
        torch.empty(rows, channels, states, 2, dtype=torch.float64).normal_(generator=generator)
    )
    steps = torch.exp(torch.empty(channels, 1, dtype=torch.float64).uniform_(-7, -2, generator=generator))
    z = steps * torch.complex(
        torch.full((states,), -0.5, dtype=torch.float64), 3.14 * torch.arange(states).double()
    )
    return c.to(dtype), z.to(dtype)


def plain(c, z, length):
    powers = torch.exp(z.to(torch.complex128)[..., None] * torch.arange(length))
    return 2 * torch.einsum("rhn,hnl->rhl", c.to(torch.complex128), powers).real


@pytest.mark.parametrize("length", [1, 2, 17, 255, 256, 1000])
def test_it_is_the_sum_of_powers(length):
    c, z = system()
    found = _vandermonde.kernel(c, z, length)
    assert found.shape == (2, 3, length)
    torch.testing.assert_close(found, plain(c, z, length), atol=1e-12, rtol=1e-12)


def test_float32_is_as_exact_as_the_matrix_in_float32():
    c, z = system(states=32, dtype=torch.complex64)
    exact = plain(c, z, 4096)
    naive = 2 * torch.einsum("rhn,hnl->rhl", c, torch.exp(z[..., None] * torch.arange(4096))).real
    found = _vandermonde.kernel(c, z, 4096)
    assert found.dtype == torch.float32
    assert (found - exact).abs().max() <= (naive - exact).abs().max()


@pytest.mark.parametrize("length", [1, 5, 300])
def test_gradients_are_those_of_the_sum(length):
    c, z = (each.requires_grad_() for each in system())
    grad = torch.empty(2, 3, length, dtype=torch.float64).normal_(generator=torch.Generator().manual_seed(2))
    wanted = torch.autograd.grad(plain(c, z, length), (c, z), grad)
    found = torch.autograd.grad(_vandermonde.kernel(c, z, length), (c, z), grad)
    for a, b in zip(found, wanted, strict=True):
        torch.testing.assert_close(a, b, atol=1e-11, rtol=1e-11)


@pytest.mark.parametrize("length", [1, 5, 300])
def test_moments_are_sums_over_time(length):
    _, z = system()
    u = torch.empty(2, 3, length, dtype=torch.float64).normal_(generator=torch.Generator().manual_seed(2))
    powers = torch.exp(z[..., None] * torch.arange(length))
    wanted = torch.einsum("bhl,hnl->bhn", u.to(powers.dtype), powers)
    torch.testing.assert_close(_vandermonde.moments(u, z), wanted, atol=1e-11, rtol=1e-11)


def test_other_devices_compute_the_same(monkeypatch):
    c, z = system()
    grad = torch.ones(2, 3, 40, dtype=torch.float64)
    results = []
    for native in (True, False):
        monkeypatch.setattr(_vandermonde, "_is_native", lambda tensor, native=native: native)
        a, b = c.clone().requires_grad_(), z.clone().requires_grad_()
        found = _vandermonde.kernel(a, b, 40)
        results.append((found.detach(), *torch.autograd.grad(found, (a, b), grad)))
    for one, other in zip(*results, strict=True):
        torch.testing.assert_close(one, other, atol=1e-12, rtol=1e-12)
