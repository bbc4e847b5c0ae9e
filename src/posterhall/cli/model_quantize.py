"""`posterhall model quantize`: a model with its linear layers in few bits."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from posterhall.cli.output import Json, Quiet, Threads, emit_json, emit_table

if TYPE_CHECKING:
    from posterhall.models.quantized import Quantization
    from posterhall.models.quantizing import Layer, Quantized


def quantize(
    model: Annotated[
        str, typer.Argument(metavar="MODEL", help="Directory of a model or of a training run, or a hub id.")
    ],
    out: Annotated[Path, typer.Option("--out", "-o", help="Where to write the quantised model.")],
    code: Annotated[
        str, typer.Option("--code", help="Codebook: nf4, fp4, af4, e2m1, e3m0, int2 to int8, dynamic8.")
    ] = "nf4",
    block: Annotated[int, typer.Option("--block", help="Weights that share a scale.")] = 64,
    double: Annotated[bool, typer.Option("--double/--no-double", help="Quantise the scales too.")] = True,
    skip: Annotated[
        list[str] | None,
        typer.Option("--skip", metavar="NAME", help="A layer that stays as it is; may be repeated."),
    ] = None,
    threads: Threads = None,
    quiet: Quiet = False,
    json: Json = False,
) -> None:
    """Quantise a model's linear layers but the head; transformers reads the result."""
    from posterhall import devices
    from posterhall.models.quantized import Quantization
    from posterhall.models.quantizing import quantize_checkpoint

    how = Quantization(code, block, double, tuple(skip or ()))
    devices.limit_threads(threads or devices.cores())
    found = quantize_checkpoint(model, out, how, quiet=quiet)
    if json:
        emit_json(_facts(model, how, found))
        return
    columns = ("layers", "number", "weights", "error", "largest", "bits a weight")
    emit_table(_kinds(found), header=columns, right=range(1, 6))
    print()
    emit_table(_lines(how, found))


def _facts(model: str, how: Quantization, found: Quantized) -> dict[str, Any]:
    return {
        "model": model,
        "path": found.directory,
        "code": how.code,
        "block": how.block,
        "double": how.double,
        "read_by_transformers": how.is_theirs,
        "parameters": found.parameters,
        "quantized_parameters": sum(each.parameters for each in found.layers),
        "bits_per_parameter": found.bits_per_parameter,
        "relative_rmse": found.relative_rmse,
        "bytes_before": found.bytes_before,
        "bytes_after": found.bytes_after,
        "skipped": list(found.skipped),
        "plain_scales": [each.name for each in found.layers if each.fell_back],
        "layers": [
            {
                "name": each.name,
                "parameters": each.parameters,
                "relative_rmse": each.report.relative_rmse,
                "max_abs_error": each.report.max_abs,
                "entropy_bits": each.report.entropy_bits,
                "bits_per_parameter": each.report.bits_per_parameter,
                "double_kept": each.report.double_kept,
            }
            for each in found.layers
        ],
    }


def _kinds(found: Quantized) -> list[tuple[str, ...]]:
    """A row for the layers that are called alike."""
    kinds: dict[str, list[Layer]] = {}
    for each in found.layers:
        kinds.setdefault(each.name.rpartition(".")[2], []).append(each)
    return [(kind, *_numbers(layers)) for kind, layers in kinds.items()]


def _numbers(layers: list[Layer]) -> tuple[str, ...]:
    weights = sum(each.parameters for each in layers)
    squares = sum(each.parameters * each.report.relative_rmse**2 for each in layers)
    bits = sum(each.parameters * each.report.bits_per_parameter for each in layers)
    return (
        str(len(layers)),
        f"{weights:,}",
        f"{(squares / weights) ** 0.5:.4f}",
        f"{max(each.report.relative_rmse for each in layers):.4f}",
        f"{bits / weights:.4f}",
    )


def _lines(how: Quantization, found: Quantized) -> list[tuple[str, str]]:
    from posterhall.progress import size

    scales = ", scales too" if how.double else ""
    lines = [
        (
            "code",
            f"{how.code} in blocks of {how.block}{scales}: {found.bits_per_parameter:.4f} bits a weight",
        ),
        ("error", f"{found.relative_rmse:.4f} of the weights (root mean square)"),
        (
            "weights",
            f"{size(found.bytes_before)} before, {size(found.bytes_after)} now "
            f"({found.bytes_before / found.bytes_after:.2f} times smaller)",
        ),
    ]
    back = [each for each in found.layers if each.fell_back]
    if back:
        worst = max(back, key=lambda each: each.report.double_error or 0.0)
        lines.append(
            (
                "warning",
                f"{len(back)} of {len(found.layers)} layers keep plain scales: quantised, they would be off "
                f"by up to {worst.report.double_error:.0%} ({worst.name})",
            )
        )
    if found.skipped:
        lines.append(
            ("as they were", f"{len(found.skipped)} layers: {', '.join(found.skipped[:4])}, the head")
        )
    reader = "transformers with bitsandbytes, and posterhall" if how.is_theirs else "posterhall alone"
    lines += [("read by", reader), ("model", str(found.directory))]
    return lines
