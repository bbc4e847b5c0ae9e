"""Options that the commands of `posterhall train` share, declared once."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from posterhall.cli.output import emit_json, emit_table

if TYPE_CHECKING:
    from contextlib import AbstractContextManager

Model = Annotated[str, typer.Argument(help="The model to train: a directory, a run, or an id of the hub.")]
Pairs = Annotated[
    list[str],
    typer.Argument(help="Preferences: .jsonl, .parquet; prompt, chosen and rejected, or HH, SHP, ..."),
]
Out = Annotated[Path, typer.Option("--out", "-o", help="Run directory; model or adapter is artifacts/model.")]
HeldOut = Annotated[
    list[str] | None, typer.Option("--eval", help="Held-out data of the same form; may be repeated.")
]
EvalFraction = Annotated[
    float | None, typer.Option("--eval-fraction", help="Without --eval: share to hold out [0.05].")
]
EvalEvery = Annotated[
    int | None, typer.Option("--eval-every", help="Steps between evaluations [0: only at the end].")
]
Comparisons = Annotated[
    int | None, typer.Option("--batch", help="Comparisons a pass, over all processes [8].")
]
Accumulate = Annotated[int | None, typer.Option("--accumulate", help="Passes a step [8].")]
Epochs = Annotated[float | None, typer.Option("--epochs", help="Length in passes over them [1].")]
Steps = Annotated[int | None, typer.Option("--steps", help="Length in steps.")]
Dtype = Annotated[str | None, typer.Option("--dtype", help="float32, bfloat16 or auto [auto].")]
Device = Annotated[str | None, typer.Option("--device", help="cpu, cuda, ... [an accelerator].")]
CheckpointSeconds = Annotated[
    float, typer.Option("--checkpoint-seconds", min=0.0, help="Time between checkpoints.")
]
Tensorboard = Annotated[
    bool, typer.Option("--tensorboard", help="Also write TensorBoard events into the run.")
]
Quantize = Annotated[
    str | None,
    typer.Option("--quantize", help="Keep the frozen weights in this code, as nf4; needs an adapter."),
]
LoraRank = Annotated[
    int | None, typer.Option("--lora-rank", help="Train an adapter of this rank, not all weights.")
]
LoraAlpha = Annotated[
    float | None, typer.Option("--lora-alpha", help="The adapter is scaled by this over the rank [16].")
]
LoraTargets = Annotated[
    str | None, typer.Option("--lora-targets", help="Layers with an adapter, as q_proj,v_proj [all-linear].")
]


def within(threads: int | None) -> AbstractContextManager[Any]:
    """In which torch is to be loaded and used: with so many threads, or all that are ours.

    Under torchrun the cores are divided among the processes of this machine.
    """
    import os

    from posterhall.devices import cores, limit_threads

    beside_us = int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
    return limit_threads(threads or max(1, cores() // beside_us))


def left_out(result: dict[str, Any]) -> list[tuple[str, str]]:
    """Lines on rows that were refused, and prompts that were cut."""
    lines = []
    if result["refused"]:
        lines.append(("refused", "; ".join(f"{n:,} {reason}" for reason, n in result["refused"].items())))
    if result["cut_prompts"]:
        lines.append(("cut", f"the beginning of {result['cut_prompts']:,} prompts"))
    return lines


def tell(
    result: dict[str, Any] | None, lines: Callable[[dict[str, Any]], list[tuple[str, str]]], *, json: bool
) -> None:
    """Print what a training came to; nothing (None) where another process of it does."""
    if result is None:
        return
    if json:
        emit_json(result)
    else:
        emit_table(lines(result))
