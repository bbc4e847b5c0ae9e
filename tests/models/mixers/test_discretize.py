"""Discretisation against the matrix exponential, limits and textbook forms."""

import math

import numpy as np
import pytest
import torch
from scipy import signal

from posterhall.errors import DataError
from posterhall.models.mixers import discretize, hippo

A = torch.tensor([-0.5 + 3j, -1e-3 + 0j, -40 + 1000j, 0j], dtype=torch.complex128)


@pytest.mark.parametrize("step", [1e-12, 1e-3, 0.1, 2.0])
def test_zero_order_hold_is_the_exact_solution(step):
    log_a, b = discretize.diagonal(A, torch.tensor(step, dtype=torch.float64), "zoh")
    wanted_a, wanted_b = [], []
    for a in A.numpy():
        bar = signal.cont2discrete((np.array([[a]]), np.ones((1, 1)), np.ones((1, 1)), 0), step, "zoh")
        wanted_a.append(bar[0][0, 0])
        wanted_b.append(bar[1][0, 0])
    np.testing.assert_allclose(torch.exp(log_a).numpy(), wanted_a, rtol=1e-12, atol=1e-15)
    np.testing.assert_allclose(b.numpy(), wanted_b, rtol=1e-11)


@pytest.mark.parametrize("step", [1e-3, 0.1, 2.0])
def test_bilinear_and_euler_are_their_quotients(step):
    log_a, b = discretize.diagonal(A, torch.tensor(step, dtype=torch.float64), "bilinear")
    torch.testing.assert_close(torch.exp(log_a), (1 + step * A / 2) / (1 - step * A / 2), rtol=1e-12, atol=0)
    torch.testing.assert_close(b, step / (1 - step * A / 2), rtol=1e-13, atol=0)
    log_a, b = discretize.diagonal(A, torch.tensor(step, dtype=torch.float64), "euler")
    torch.testing.assert_close(torch.exp(log_a), 1 + step * A, rtol=1e-12, atol=1e-15)
    torch.testing.assert_close(b, torch.full_like(A, step))


@pytest.mark.parametrize("method", ["zoh", "bilinear", "euler"])
def test_small_steps_lose_no_digits_in_float32(method):
    a = torch.tensor([-0.5 + 3.14j], dtype=torch.complex64)
    log_a, b = discretize.diagonal(a, torch.tensor(1e-6), method)
    exact_log, exact_b = discretize.diagonal(a.to(torch.complex128), torch.tensor(1e-6).double(), method)
    torch.testing.assert_close(log_a.to(torch.complex128), exact_log, rtol=3e-7, atol=0)
    torch.testing.assert_close(b.to(torch.complex128), exact_b, rtol=3e-7, atol=0)


def test_gradients_are_finite_where_a_pole_is_zero():
    a = torch.zeros(1, dtype=torch.complex128, requires_grad=True)
    _, b = discretize.diagonal(a, torch.tensor(0.1, dtype=torch.float64), "zoh")
    b.real.sum().backward()
    assert torch.isfinite(torch.view_as_real(a.grad)).all()


@pytest.mark.parametrize("method", ["zoh", "bilinear", "euler"])
def test_dense_agrees_with_scipy(method):
    a, b = hippo.transition("legs", 8)
    got_a, got_b = discretize.dense(torch.from_numpy(a), torch.from_numpy(b), 0.05, method)
    wanted = signal.cont2discrete((a, b[:, None], np.eye(8), np.zeros((8, 1))), 0.05, method)
    np.testing.assert_allclose(got_a.numpy(), wanted[0], atol=1e-12)
    np.testing.assert_allclose(got_b.numpy(), wanted[1][:, 0], atol=1e-12)


def test_euler_makes_a_stable_system_unstable_where_bilinear_does_not():
    # LegS of order 64, step 0.1: spectral radii 5.40 and 0.905
    a, b = (torch.from_numpy(each) for each in hippo.transition("legs", 64))
    # A is lower triangular: eigenvalues of either are functions of its diagonal, -1 ... -64.
    euler = discretize.dense(a, b, 0.1, "euler")[0].diagonal().abs().max()
    bilinear = discretize.dense(a, b, 0.1, "bilinear")[0].diagonal().abs().max()
    assert math.isclose(float(euler), 5.4, rel_tol=1e-9)
    assert math.isclose(float(bilinear), 0.95 / 1.05, rel_tol=1e-9)


def test_an_unknown_method_is_an_error():
    with pytest.raises(DataError, match="one of: zoh"):
        discretize.diagonal(A, torch.tensor(0.1), "tustin")
