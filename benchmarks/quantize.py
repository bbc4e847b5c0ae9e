"""Quantising and restoring a matrix in blocks of 64, and a 4-bit linear layer, against bitsandbytes.

bitsandbytes' CPU path has no `out=`: restoring is compared with a given buffer on our side, and the fresh
memory that it takes is part of its time. The same with fresh memory on both sides is shown too.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import logging
from typing import Any

from benchmarks._harness import Result, arguments, emit, faster, several

SHAPES = [(10, 48), (7, 80), (5, 96), (3, 160), (10, 50), (7, 64), (129,), (3, 5, 7)]
"""The first four are those that bitsandbytes 0.50.2 restores wrongly on AVX-512."""


def _options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--size", type=int, default=4096, help="rows and columns of the matrix")
    parser.add_argument("--rows", type=int, default=512, help="inputs of the linear layer")


def main() -> None:
    """Measure and print."""
    chosen = arguments(__doc__ or "", _options)

    import numpy as np
    import torch

    logging.disable(logging.WARNING)  # of kernels to be downloaded
    with contextlib.redirect_stderr(io.StringIO()):
        import bitsandbytes
        from bitsandbytes import functional as peer

    from posterhall.quantize import QuantizedLinear, measure, quantize

    torch.set_num_threads(chosen.threads)
    name = f"bitsandbytes {bitsandbytes.__version__}"
    n = chosen.size
    rng = np.random.default_rng(0)
    matrix = rng.normal(size=(n, n)).astype(np.float32)
    tensor = torch.from_numpy(matrix)
    results: list[Result] = []

    for kind in ("nf4", "fp4"):

        def ours(kind: str = kind) -> Any:
            return quantize(matrix, kind, threads=chosen.threads)

        def theirs(kind: str = kind) -> Any:
            return peer.quantize_4bit(tensor, quant_type=kind)

        timed = several(ours, theirs, chosen.repeats, calls=(20, 1))
        mine, (packed, state) = timed["ours"].value, timed["peer"].value
        quality = {
            "codes_identical": mine.packed.tobytes() == packed.numpy().tobytes(),
            "scales_identical": mine.scales.tobytes() == state.absmax.numpy().tobytes(),
            "gb_per_second": matrix.nbytes / timed["ours"].wall_median / 1e9,
        }
        results.append(faster(f"quantise {kind} {n}²", timed["ours"], timed["peer"], name, quality=quality))

        buffer = np.empty_like(matrix)

        def fill(mine: Any = mine, buffer: Any = buffer) -> Any:
            return mine.dequantize(buffer, threads=chosen.threads)

        def fresh(mine: Any = mine) -> Any:
            return mine.dequantize(threads=chosen.threads)

        def peer_fresh(packed: Any = packed, state: Any = state) -> Any:
            return peer.dequantize_4bit(packed, state)

        for case, run in (("a given buffer", fill), ("fresh memory", fresh)):
            timed = several(run, peer_fresh, chosen.repeats, calls=(20, 5))
            same = timed["ours"].value.tobytes() == timed["peer"].value.numpy().tobytes()
            case = f"restore {kind} {n}² into {case}"
            results.append(faster(case, timed["ours"], timed["peer"], name, quality={"identical": same}))

    def double() -> Any:
        return quantize(matrix, double=True, threads=chosen.threads)

    def peer_double() -> Any:
        return peer.quantize_4bit(tensor, quant_type="nf4", compress_statistics=True)

    timed = several(double, peer_double, chosen.repeats, calls=(20, 1))
    report = measure(matrix, timed["ours"].value)
    packed, state = timed["peer"].value
    off = peer.dequantize_4bit(packed, state).numpy() - matrix
    quality = {
        "bits_per_parameter": report.bits_per_parameter,
        "relative_rmse_ours": report.relative_rmse,
        "relative_rmse_peer": float(np.linalg.norm(off) / np.linalg.norm(matrix)),
    }
    results.append(faster(f"double quantisation {n}²", timed["ours"], timed["peer"], name, quality=quality))

    results.append(_layer(chosen, name, bitsandbytes, QuantizedLinear))
    results.append(_shapes(name, peer, quantize))
    emit("quantize", chosen.threads, results, as_json=chosen.json)


def _layer(chosen: Any, name: str, bitsandbytes: Any, ours: Any) -> Result:
    """Forward and backward pass of one layer, float32, a quarter of the matrix."""
    import torch

    width = chosen.size // 2
    generator = torch.Generator().manual_seed(0)
    plain = torch.nn.Linear(width, width, bias=False)
    with torch.no_grad():
        plain.weight.normal_(generator=generator)
    inputs = torch.empty(chosen.rows, width).normal_(generator=generator)
    mine = ours.of(plain)
    weight, state = bitsandbytes.functional.quantize_4bit(plain.weight.detach(), quant_type="nf4")

    def run() -> Any:
        x = inputs.clone().requires_grad_()
        mine(x).sum().backward()
        return x.grad

    def peer_run() -> Any:
        x = inputs.clone().requires_grad_()
        bitsandbytes.matmul_4bit(x, weight.t(), quant_state=state).sum().backward()
        return x.grad

    timed = several(run, peer_run, chosen.repeats, calls=(3, 3))
    gap = (timed["ours"].value - timed["peer"].value).abs().max() / timed["peer"].value.abs().max()
    case = f"4-bit linear {width}², {chosen.rows} rows, forward and backward"
    return faster(case, timed["ours"], timed["peer"], name, quality={"gradient_gap": float(gap)})


def _shapes(name: str, peer: Any, quantize: Any) -> Result:
    """How many of the shapes are restored within NF4's error."""
    import numpy as np
    import torch

    rng = np.random.default_rng(1)
    right = {"ours": 0, "peer": 0}
    wrong: list[str] = []
    for shape in SHAPES:
        x = rng.normal(size=shape).astype(np.float32)
        packed, state = peer.quantize_4bit(torch.from_numpy(x), quant_type="nf4")
        restored = {"ours": quantize(x).dequantize(), "peer": peer.dequantize_4bit(packed, state).numpy()}
        for side, values in restored.items():
            fine = np.linalg.norm(values - x) / np.linalg.norm(x) < 0.15
            right[side] += bool(fine)
            if side == "peer" and not fine:
                wrong.append("x".join(map(str, shape)))
    return Result(
        case="shapes restored within the error of NF4",
        ours=right["ours"],
        peer=right["peer"],
        peer_name=name,
        unit=f"of {len(SHAPES)}",
        ratio=right["ours"] / max(1, right["peer"]),
        quality={"peer_wrong": ", ".join(wrong)},
    )


if __name__ == "__main__":
    main()
