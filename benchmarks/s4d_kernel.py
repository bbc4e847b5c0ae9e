"""The kernel of S4D against its Vandermonde matrix written down, forward and with gradients, and the memory.

The matrix is how the reference implementation of S4 computes it where neither CUDA nor KeOps is at hand
(`log_vandermonde_naive`): 2 Re of c times exp(l z) for all l, in complex64. Errors are against complex128,
on the same numbers; peaks are of a process of its own, above what it had before.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from typing import Any

from benchmarks._harness import Result, arguments, emit, faster, several

_PEER = "Vandermonde matrix in torch"
_CHILD = """
import json, sys
import torch
from benchmarks import s4d_kernel
from posterhall import devices
side, channels, states, length = sys.argv[1], *map(int, sys.argv[2:])
torch.set_num_threads(1)
compute = s4d_kernel.blocked if side == "ours" else s4d_kernel.matrix
c, z = s4d_kernel.system(channels, states)
small = [each[..., :1, :].clone().requires_grad_() for each in (c, z)]
compute(*small, 16).sum().backward()  # kernels are compiled or loaded before, as imports are
before = devices.peak_bytes()
compute(c.requires_grad_(), z.requires_grad_(), length).sum().backward()
print(json.dumps(devices.peak_bytes() - before))
"""


def system(channels: int, states: int) -> tuple[Any, Any]:
    """C (1, H, N / 2) and step a (H, N / 2) of S4D-Lin as it begins."""
    import torch

    from posterhall.models.mixers.diagonal import Diagonal

    begin = Diagonal(channels, states)
    begin.initialise(torch.Generator().manual_seed(0))
    with torch.no_grad():
        z, c = begin.discrete()
    return c, z


def blocked(c: Any, z: Any, length: int) -> Any:
    """Ours."""
    from posterhall.models.mixers import _vandermonde

    return _vandermonde.kernel(c, z, length)


def matrix(c: Any, z: Any, length: int) -> Any:
    """The peer: (H, N / 2, L) complex numbers at once."""
    import torch

    powers = torch.exp(z[..., None] * torch.arange(length))
    return 2 * torch.einsum("rhn,hnl->rhl", c, powers).real


def exact(c: Any, z: Any, length: int) -> Any:
    """In complex128, a few channels at a time."""
    import torch

    c, z = c.to(torch.complex128), z.to(torch.complex128)
    return torch.cat([matrix(c[:, h : h + 16], z[h : h + 16], length) for h in range(0, len(z), 16)], dim=1)


def exact_gradients(c: Any, z: Any, length: int) -> tuple[Any, Any]:
    """Of the kernel's sum, by C and by step a, in complex128, a few channels at a time."""
    import torch

    c, z = c.to(torch.complex128), z.to(torch.complex128)
    parts = [_gradients(matrix, c[:, h : h + 16], z[h : h + 16], length) for h in range(0, len(z), 16)]
    return torch.cat([part[0] for part in parts], dim=1), torch.cat([part[1] for part in parts])


def _options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--channels", type=int, default=256, help="H")
    parser.add_argument("--states", type=int, default=64, help="N, real numbers: N / 2 pairs of poles")
    parser.add_argument("--lengths", type=int, nargs="+", default=[1024, 4096, 16384], help="L")


def main() -> None:
    """Measure and print."""
    chosen = arguments(__doc__ or "", _options)

    import torch

    torch.set_num_threads(chosen.threads)
    results: list[Result] = []
    c, z = system(chosen.channels, chosen.states)
    for length in chosen.lengths:
        case = f"H {chosen.channels}, N {chosen.states}, L {length}"
        wanted = exact(c, z, length)
        with torch.no_grad():
            timed = several(
                lambda n=length: blocked(c, z, n),
                lambda n=length: matrix(c, z, n),
                chosen.repeats,
                calls=(50, 1),
            )
        quality = {
            f"error_{side}": float((timed[side].value - wanted).abs().max() / wanted.abs().max())
            for side in ("ours", "peer")
        }
        results.append(faster(f"kernel, {case}", timed["ours"], timed["peer"], _PEER, quality=quality))
        timed = several(
            lambda n=length: _gradients(blocked, c, z, n),
            lambda n=length: _gradients(matrix, c, z, n),
            chosen.repeats,
            calls=(20, 1),
        )
        wanted = exact_gradients(c, z, length)
        quality = {
            f"error_{side}": max(
                float((a - b).abs().max() / b.abs().max())
                for a, b in zip(timed[side].value, wanted, strict=True)
            )
            for side in ("ours", "peer")
        }
        results.append(
            faster(f"kernel and gradients, {case}", timed["ours"], timed["peer"], _PEER, quality=quality)
        )
        results.append(_memory(case, chosen.channels, chosen.states, length))
    emit("s4d_kernel", chosen.threads, results, as_json=chosen.json)


def _gradients(compute: Any, c: Any, z: Any, length: int) -> tuple[Any, Any]:
    import torch

    given = (c.detach().requires_grad_(), z.detach().requires_grad_())
    return torch.autograd.grad(compute(*given, length).sum(), given)


def _memory(case: str, channels: int, states: int, length: int) -> Result:
    """Peaks of computing a kernel with its gradients."""
    peaks = {}
    for side in ("ours", "peer"):
        command = [sys.executable, "-c", _CHILD, side, str(channels), str(states), str(length)]
        done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
        peaks[side] = max(json.loads(done.stdout), 1) / 1e6
    return Result(
        case=f"peak memory with gradients, {case}",
        ours=peaks["ours"],
        peer=peaks["peer"],
        peer_name=_PEER,
        unit="MB",
        ratio=peaks["peer"] / peaks["ours"],
    )


if __name__ == "__main__":
    main()
