"""Systems that remember: the matrices of HiPPO, and their form diagonal plus low rank.

A measure says how the past is weighted; the state x' = A x + B u then holds the coefficients of the past's
best approximation by orthogonal functions under that weight (Gu et al. 2020, "HiPPO"; Gu et al. 2022, "How
to train your HiPPO"). Everything here is float64 and numpy: it is computed once.

Such an A must never be diagonalised as it is (LegS of order 64: the eigenvectors' condition number is
3e20). A + sum of P P^T over a few vectors P is normal instead, a multiple of the identity plus a skew
matrix, which `numpy.linalg.eigh` diagonalises stably.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray

from posterhall.errors import DataError

Measure = Literal["legs", "legt", "lmu", "lagt", "glagt", "fout", "foud", "legsd"]
"""Legendre polynomials over all of the past, scaled (legs); over a window of length 1 (legt, and lmu in
another normalisation); Laguerre functions (lagt) and generalised ones (glagt): an exponentially fading past;
Fourier functions over a window (fout); their diagonal part with a fading past (foud), and that of legs
(legsd)."""

_FADING = 0.01
"""beta of glagt: the smaller, the nearer to lagt."""


@dataclass(frozen=True)
class Split:
    """A = V (diag(poles) - sum over r of P_r P_r^*) V^*, with V unitary, for a real A.

    One of each conjugate pair of poles is kept: for real u, what the others contribute is the conjugate.
    """

    poles: NDArray[np.complex128]
    """(N / 2,), imaginary part >= 0, ascending."""
    low_rank: NDArray[np.complex128]
    """(R, N / 2): the vectors P_r in the basis V."""
    inputs: NDArray[np.complex128]
    """(N / 2,): B in the basis V."""
    basis: NDArray[np.complex128]
    """(N, N / 2): columns of V. A real vector x = 2 Re V (V^* x)."""


def transition(measure: Measure, size: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """A (N, N) and B (N,) of x' = A x + B u for a measure.

    Args:
        measure: see `Measure`.
        size: N, >= 1; even for fout and foud.

    Raises:
        DataError: for an unknown measure or a size that does not serve.
    """
    if measure not in get_args(Measure):
        raise DataError(f"measure '{measure}'; it must be one of: {', '.join(get_args(Measure))}")
    if size < 1 or (size % 2 and measure in ("fout", "foud")):
        even = "an even number of 2 or more" if measure in ("fout", "foud") else "at least 1"
        raise DataError(f"a state of {size} for {measure}; it must be {even}")
    n = np.arange(size, dtype=np.float64)
    row, column = n[:, None], n[None, :]
    root = np.sqrt(2 * n + 1)
    if measure in ("legs", "legsd"):
        # A_nk = -sqrt((2n+1)(2k+1)) below the diagonal, -(n+1) on it (HiPPO, eq. 3 of S4).
        a = -np.tril(np.outer(root, root), -1) - np.diag(n + 1)
        if measure == "legs":
            return a, root
        return a + np.outer(root, root) / 2, root / 2
    if measure == "legt":
        # Over a window of length 1; halved so that time runs as for the others ("How to train", app. B).
        signs = np.where(row < column, (-1.0) ** (row - column), 1.0)
        return -np.outer(root, root) * signs / 2, root / 2
    if measure == "lmu":
        signs = np.where(row < column, -1.0, (-1.0) ** (row - column + 1))
        return (2 * row + 1) * signs, (2 * n + 1) * (-1.0) ** n
    if measure == "lagt":
        return np.eye(size) / 2 - np.tril(np.ones((size, size))), np.ones(size)
    if measure == "glagt":
        # Laguerre functions of order alpha = 0 under the weight exp(-beta t).
        fading = -np.tril(np.ones((size, size)), -1) - np.eye(size) * (1 + _FADING) / 2
        return fading, np.full(size, np.sqrt(_FADING))
    frequencies = np.arange(size // 2, dtype=np.float64)
    ends = np.zeros(size)
    ends[0::2], ends[0] = np.sqrt(2.0), 1.0
    if measure == "fout":
        # Functions 1, sqrt(2) cos(2 pi n t), sqrt(2) sin(2 pi n t) over a window of length 2; entry 1 (the
        # sine of frequency 0) is coupled to nothing.
        return _rotations(frequencies, np.pi) - np.outer(ends, ends), ends
    return _rotations(frequencies, 2 * np.pi) - np.eye(size) / 2, ends


def split(measure: Measure, size: int) -> Split:
    """The system of a measure, diagonal plus low rank, to 1e-12.

    Phases are such that the inputs are real and not negative, which makes the basis unique. (The original
    leaves them to the linear algebra library, and clips large imaginary parts.)

    Args:
        measure: see `Measure`. lmu is given in the balanced basis in which it is twice as fast a legt.
        size: N, an even number.

    Raises:
        DataError: for an unknown measure or an odd size.
    """
    if size < 2 or size % 2:
        raise DataError(f"a state of {size}; poles come in pairs, so it must be an even number of 2 or more")
    a, b = transition("legt" if measure == "lmu" else measure, size)
    vectors = _low_rank(measure, size)
    if measure == "lmu":
        a, b, vectors = 2 * a, 2 * b, np.sqrt(2.0) * vectors
    normal = a + vectors.T @ vectors
    real = np.diag(normal).mean()
    if measure in (
        "fout",
        "foud",
    ):  # known, and frequency 0 is a double pole, which eigh would not keep apart
        imaginary = np.diag(normal, -1)[::2].copy()
        basis = np.zeros((size, size // 2), np.complex128)
        at = np.arange(size // 2)
        basis[2 * at, at], basis[2 * at + 1, at] = np.sqrt(0.5), -1j * np.sqrt(0.5)
    else:
        values, columns = np.linalg.eigh(-1j * (normal - real * np.eye(size)))
        imaginary, basis = values[size // 2 :], columns[:, size // 2 :]
    inputs = basis.conj().T @ b
    basis = basis * np.where(inputs == 0, 1.0, np.exp(1j * np.angle(inputs)))
    return Split(real + 1j * imaginary, vectors @ basis.conj(), np.abs(inputs).astype(np.complex128), basis)


def _low_rank(measure: Measure, size: int) -> NDArray[np.float64]:
    """P (R, N) such that A + sum over r of P_r P_r^T is a multiple of the identity plus a skew matrix."""
    n = np.arange(size, dtype=np.float64)
    if measure == "legs":
        return np.sqrt(n + 0.5)[None]
    if measure in ("legt", "lmu"):
        both = np.zeros((2, size))
        both[0, 1::2], both[1, 0::2] = np.sqrt(n + 0.5)[1::2], np.sqrt(n + 0.5)[0::2]
        return both
    if measure in ("lagt", "glagt"):
        return np.full((1, size), np.sqrt(0.5))
    if measure == "fout":
        return transition(measure, size)[1][None]
    return np.zeros((1, size))


def _rotations(frequencies: NDArray[np.float64], unit: float) -> NDArray[np.float64]:
    """Block-diagonal (N, N): entries 2k and 2k + 1 turn into each other at unit * frequency k."""
    size = 2 * len(frequencies)
    a = np.zeros((size, size))
    at = 2 * np.arange(len(frequencies))
    a[at, at + 1], a[at + 1, at] = -unit * frequencies, unit * frequencies
    return a
