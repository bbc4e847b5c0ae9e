"""`posterhall model plan`: what training a model takes in memory."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from posterhall.cli.output import ConfigFile, Json, Sets, emit_json, emit_table

if TYPE_CHECKING:
    from posterhall.models.plan import Plan


def plan(
    model: Annotated[
        str,
        typer.Argument(
            metavar="NAME|MODEL", help="A known name (LLaMA-65B), a checkpoint, its config.json, or a hub id."
        ),
    ],
    method: Annotated[
        str | None, typer.Option("--method", metavar="full|lora|qlora", help="What is trained [qlora].")
    ] = None,
    rank: Annotated[int | None, typer.Option("--rank", help="Of adapters [64].")] = None,
    sequence: Annotated[int | None, typer.Option("--sequence", help="Tokens of a row [512].")] = None,
    batch: Annotated[int | None, typer.Option("--batch", help="Rows of a pass [1].")] = None,
    optimizer: Annotated[
        str | None, typer.Option("--optimizer", metavar="adamw|adamw-8bit|sgd", help="Its states [adamw].")
    ] = None,
    paged: Annotated[
        bool | None, typer.Option("--paged/--no-paged", help="Its states may leave the device [no].")
    ] = None,
    dtype: Annotated[
        str | None, typer.Option("--dtype", help="Of plain weights and activations [bfloat16].")
    ] = None,
    gradient_checkpointing: Annotated[
        bool | None,
        typer.Option(
            "--gradient-checkpointing/--no-gradient-checkpointing", help="Compute blocks again [no]."
        ),
    ] = None,
    code: Annotated[str | None, typer.Option("--code", help="Of quantised weights [nf4].")] = None,
    block: Annotated[int | None, typer.Option("--block", help="Weights that share a scale [64].")] = None,
    double: Annotated[
        bool | None, typer.Option("--double/--no-double", help="Quantise scales too [yes].")
    ] = None,
    device: Annotated[
        str | None,
        typer.Option(
            "--device",
            metavar="AMOUNT|CARD|this",
            help="What it should fit: '48 GB', 'RTX 4090', this machine.",
        ),
    ] = None,
    config: ConfigFile = None,
    sets: Sets = None,
    json: Json = False,
) -> None:
    """Add up what training a model takes in memory, and say whether it fits a device."""
    from posterhall.config import resolve
    from posterhall.models import architectures
    from posterhall.models import plan as planning

    settings = resolve(
        planning.PlanSettings,
        file=config,
        sets=sets or (),
        flags={
            "method": method,
            "rank": rank,
            "sequence": sequence,
            "batch": batch,
            "optimizer": optimizer,
            "paged": paged,
            "dtype": dtype,
            "gradient_checkpointing": gradient_checkpointing,
            "code": code,
            "block": block,
            "double": double,
        },
    )
    planned = planning.plan(architectures.find(model), settings)
    room = None if device is None else planning.memory_of(device)
    changes: list[tuple[str, Plan]] = []
    if room is not None and planned.total > room:
        for said, then in planning.cheaper(planned):
            changes.append((said, then))
            if then.total <= room:
                break
    if json:
        emit_json(_facts(planned, device, room, changes))
    else:
        emit_table(_lines(planned, device, room, changes))


def _facts(
    planned: Plan, device: str | None, room: int | None, changes: list[tuple[str, Plan]]
) -> dict[str, Any]:
    from posterhall.config import to_dict

    architecture = planned.architecture
    return {
        "model": architecture.name,
        "parameters": architecture.parameters,
        "linear_parameters": architecture.linear_parameters,
        "trained_parameters": planned.trained,
        "settings": to_dict(planned.settings),
        "bytes": {name: round(value) for name, value in planned.parts.items()},
        "total_bytes": round(planned.total),
        "host_bytes": round(planned.host),
        "bits_per_parameter": planned.bits_per_parameter,
        "device": None
        if room is None
        else {
            "name": device,
            "bytes": room,
            "fits": planned.total <= room,
            "changes": [{"change": said, "total_bytes": round(then.total)} for said, then in changes],
            "fits_then": any(then.total <= room for _, then in changes) or planned.total <= room,
        },
    }


_SAID = {
    "weights": "weights",
    "scales": "scales of blocks",
    "others": "embedding, head, norms",
    "adapters": "adapters",
    "gradients": "gradients",
    "optimizer": "optimiser",
    "activations": "activations",
    "loss": "loss",
    "work": "work of a block",
}


def _lines(
    planned: Plan, device: str | None, room: int | None, changes: list[tuple[str, Plan]]
) -> list[tuple[str, str]]:
    from posterhall.progress import size

    a, s = planned.architecture, planned.settings
    how = {
        "full": "all parameters",
        "lora": f"LoRA, rank {s.rank}",
        "qlora": f"QLoRA, {s.code}, rank {s.rank}",
    }
    lines = [
        ("model", f"{a.name}: {a.parameters:,} parameters, {a.linear_parameters:,} in linear layers"),
        ("trained", f"{how[s.method]}: {planned.trained:,} parameters"),
        ("rows", f"{s.batch} of {s.sequence:,} tokens, {s.dtype}"),
        *((_SAID[name], size(value)) for name, value in planned.parts.items() if value),
        ("most at once", size(planned.total)),
    ]
    if planned.host:
        lines.append(("off the device", f"{size(planned.host)} of the optimiser may leave it"))
    lines.append(
        ("a parameter", f"{planned.bits_per_parameter:.2f} bits, without activations, loss and work")
    )
    if room is None or device is None:
        return lines
    name = device if device != "this" else "this machine"
    if planned.total <= room:
        return [*lines, ("fits", f"yes: {name} has {size(room)}, {size(room - planned.total)} to spare")]
    lines.append(("fits", f"no: {name} has {size(room)}, {size(planned.total - room)} too little"))
    for i, (said, then) in enumerate(changes):
        fits = ": fits" if then.total <= room else ""
        lines.append(("it would take" if i == 0 else "and then", f"{size(then.total)} to {said}{fits}"))
    least = changes[-1][1].total if changes else planned.total
    if least > room:
        lines.append(("otherwise", f"a device of {size(least)} or more, or a smaller model"))
    return lines
