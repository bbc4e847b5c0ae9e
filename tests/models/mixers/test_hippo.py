"""The matrices of HiPPO against closed forms and orthogonal functions that scipy and numpy know."""

import math
from typing import get_args

import numpy as np
import pytest
from scipy import integrate, linalg, special

from posterhall.errors import DataError
from posterhall.models.mixers import hippo

MEASURES = get_args(hippo.Measure)


@pytest.mark.parametrize("size", [2, 16, 64])
@pytest.mark.parametrize("measure", MEASURES)
def test_diagonal_plus_low_rank_is_the_matrix(measure, size):
    a, b = hippo.transition(measure, size)
    found = hippo.split(measure, size)
    v = found.basis
    own = np.diag(found.poles) - found.low_rank.T @ found.low_rank.conj()
    pair = found.low_rank.T @ found.low_rank  # between a pole and the conjugates of the others
    dense = 2 * (v @ own @ v.conj().T - v @ pair @ v.T).real
    inputs = 2 * (v @ found.inputs).real
    if measure == "lmu":  # given in another basis
        scale = np.sqrt(2 * np.arange(size) + 1) * (-1.0) ** np.arange(size)
        dense, inputs = dense * scale[:, None] / scale, inputs * scale
    assert np.abs(dense - a).max() <= 1e-12 * np.abs(a).max()
    assert np.abs(inputs - b).max() <= 1e-12 * np.abs(b).max()


@pytest.mark.parametrize("measure", MEASURES)
def test_the_basis_is_unitary_and_the_poles_do_not_grow(measure):
    found = hippo.split(measure, 64)
    whole = np.concatenate((found.basis, found.basis.conj()), axis=1)
    np.testing.assert_allclose(whole.conj().T @ whole, np.eye(64), atol=1e-12)
    assert (found.poles.real <= 1e-13).all()
    assert np.ptp(found.poles.real) == 0
    assert (np.diff(found.poles.imag) >= 0).all()
    assert (found.inputs.real >= 0).all()
    assert (found.inputs.imag == 0).all()


def test_the_normal_part_of_legs_is_half_the_identity_and_a_skew_matrix():
    found = hippo.split("legs", 64)
    np.testing.assert_allclose(found.poles.real, -0.5, atol=1e-12)
    a, _ = hippo.transition("legs", 64)
    np.testing.assert_allclose(np.sort(np.diag(a)), -np.arange(64, 0, -1.0))  # lower triangular: its poles


def test_impulse_responses_of_legs_are_legendre_polynomials_of_faded_time():
    # exp(tA) B = sqrt(2n + 1) exp(-t) L_n(2 exp(-t) - 1), "How to train your HiPPO", theorem 6
    a, b = hippo.transition("legs", 12)
    for t in (0.1, 0.7, 2.0):
        n = np.arange(12)
        wanted = np.sqrt(2 * n + 1) * math.exp(-t) * special.eval_legendre(n, 2 * math.exp(-t) - 1)
        np.testing.assert_allclose(linalg.expm(t * a) @ b, wanted, atol=1e-10)


def test_impulse_responses_of_lagt_are_laguerre_functions():
    # exp(tA) 1 for A = 1/2 - tril(1): exp(-t/2) L_n(t)
    a, b = hippo.transition("lagt", 10)
    for t in (0.2, 1.5):
        wanted = math.exp(-t / 2) * special.eval_laguerre(np.arange(10), t)
        np.testing.assert_allclose(linalg.expm(t * a) @ b, wanted, atol=1e-10)


@pytest.mark.parametrize(("measure", "window"), [("legt", 2.0), ("lmu", 1.0), ("fout", 2.0)])
def test_windows_end(measure, window):
    a, b = hippo.transition(measure, 64)
    response = np.array([linalg.expm(t * a) @ b for t in (0.25 * window, 1.5 * window)])
    assert np.abs(response[1, :8]).max() < 0.15 * np.abs(response[0, :8]).max()


def test_legs_remembers_a_signal_as_its_best_polynomial():
    # x' = (A x + B u) / t (HiPPO, theorem 2) against the projection on Legendre polynomials by quadrature.
    size, end = 8, 3.0

    def signal(t):
        return np.sin(2 * t) + 0.3 * t

    a, b = hippo.transition("legs", size)
    begin = 1e-3
    start = np.zeros(size)
    start[0] = signal(begin)
    done = integrate.solve_ivp(
        lambda t, x: (a @ x + b * signal(t)) / t, (begin, end), start, method="LSODA", rtol=1e-9, atol=1e-10
    )
    nodes, weights = np.polynomial.legendre.leggauss(40)
    n = np.arange(size)[:, None]
    values = special.eval_legendre(n, nodes) * signal((nodes + 1) * end / 2)
    wanted = np.sqrt(2 * n[:, 0] + 1) / 2 * (values @ weights)
    np.testing.assert_allclose(done.y[:, -1], wanted, atol=1e-4)


def test_a_glagt_that_hardly_fades_is_lagt():
    a, _ = hippo.transition("glagt", 6)
    b, _ = hippo.transition("lagt", 6)
    np.testing.assert_allclose(a, b, atol=0.0051)


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: hippo.transition("legz", 4), "one of: legs"),
        (lambda: hippo.transition("legs", 0), "at least 1"),
        (lambda: hippo.transition("fout", 5), "even"),
        (lambda: hippo.split("legs", 5), "pairs"),
    ],
)
def test_what_cannot_be_is_an_error(call, words):
    with pytest.raises(DataError, match=words):
        call()
