"""`posterhall model profile`: where the time and the operations of a model go."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from posterhall.cli.output import ConfigFile, Json, Quiet, Seed, Sets, Threads, emit_json, emit_table
from posterhall.errors import UsageError

if TYPE_CHECKING:
    from posterhall.models.decoder import Decoder
    from posterhall.models.profile import Crossing, Profile, ProfileSettings


def profile(
    model: Annotated[
        str | None,
        typer.Argument(
            metavar="[MODEL]",
            help="Directory of a model or of a training run, or a hub id; none: random weights of a shape.",
        ),
    ] = None,
    mixers: Annotated[
        str | None,
        typer.Option(
            "--mixers",
            metavar="LIST",
            help="Without MODEL: a model each, with settings as mamba:state=32, with + between mixers that "
            "take turns over the layers; commas between [attention].",
        ),
    ] = None,
    dim: Annotated[int | None, typer.Option("--dim", help="Without MODEL: width [256].")] = None,
    layers: Annotated[int | None, typer.Option("--layers", help="Without MODEL: blocks [4].")] = None,
    heads: Annotated[int | None, typer.Option("--heads", help="Without MODEL: query heads [4].")] = None,
    ffn: Annotated[
        str | None,
        typer.Option(
            "--ffn",
            metavar="LIST",
            help="Feed-forward layers, a model each: dense, monarch, block_diagonal [dense, or MODEL's].",
        ),
    ] = None,
    ffn_blocks: Annotated[
        int | None, typer.Option("--ffn-blocks", help="Blocks of matrices that are not dense [4].")
    ] = None,
    lengths: Annotated[
        str | None, typer.Option("--lengths", metavar="LIST", help="Tokens of a row [512,2048].")
    ] = None,
    batch: Annotated[int | None, typer.Option("--batch", help="Rows of a pass [1].")] = None,
    backward: Annotated[
        bool | None,
        typer.Option("--backward/--no-backward", help="A training step instead of a forward pass [no]."),
    ] = None,
    repeats: Annotated[
        int | None, typer.Option("--repeats", help="Passes, of which the median counts [5].")
    ] = None,
    device: Annotated[str, typer.Option("--device", help="As cpu, cuda or cuda:1.")] = "cpu",
    dtype: Annotated[
        str | None,
        typer.Option("--dtype", help="float32, bfloat16 or float16 [float32, or that of MODEL's files]."),
    ] = None,
    seed: Seed = None,
    threads: Threads = None,
    config: ConfigFile = None,
    sets: Sets = None,
    json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Time the mixers and the feed-forward layers of a model, count their operations, and say at which
    length they cost the same.

    --set changes anything else of a shape (ffn_dim, vocab_size, kv_heads, positions).
    """
    from posterhall import config as settings_room
    from posterhall import devices
    from posterhall.cli.model import device_of
    from posterhall.extras import require

    shape = {"mixers": mixers, "dim": dim, "layers": layers, "heads": heads}
    given = [f"--{name}" for name, value in shape.items() if value is not None]
    if model is not None and given:
        raise UsageError(f"{given[0]} makes a model with random weights; give it, or MODEL")
    require("torch", "train", "profiling a model")

    from posterhall.models import hub
    from posterhall.models.decoder import Decoder
    from posterhall.models.profile import ProfileSettings, ShapeSettings, measure, variants

    devices.limit_threads(threads or devices.cores())
    place = device_of(device)
    flags: dict[str, Any] = {
        "ffn": ffn,
        "ffn_blocks": ffn_blocks,
        "lengths": lengths,
        "batch": batch,
        "backward": backward,
        "repeats": repeats,
        "seed": seed,
    }
    settings: ProfileSettings
    if model is not None:
        settings = settings_room.resolve(ProfileSettings, file=config, sets=sets or (), flags=flags)
        found = {model: hub.load(model, dtype=dtype, device=place)}
    else:
        settings = settings_room.resolve(ShapeSettings, file=config, sets=sets or (), flags=flags | shape)
        found = {
            name: Decoder(each, seed=settings.seed).to(place, hub.dtype_of(dtype or "float32")).eval()
            for name, each in settings.shapes().items()
        }
    models: dict[str, Decoder] = {}
    for name, decoder in found.items():
        for kind, each in variants(decoder, settings).items():
            models[f"{name}, {kind}"] = each
    profiles = measure(models, settings, quiet=quiet)
    result = _facts(models, profiles, settings, threads or devices.cores())
    if json:
        emit_json(result)
        return
    _show(result)


_SAID = {
    "mixer": "mixer",
    "feed_forward": "feed-forward",
    "norms": "norms, residual",
    "embedding": "embedding, head",
}


def _facts(
    models: dict[str, Decoder], profiles: dict[str, list[Profile]], settings: ProfileSettings, threads: int
) -> dict[str, Any]:
    from posterhall.cli.model import parameters_of
    from posterhall.models.profile import crossing_of_seconds, crossing_of_work

    found = []
    for name, model in models.items():
        config = model.config
        measured = profiles[name]
        feeds = config.feed_forward_dim > 0
        found.append(
            {
                "name": name,
                "mixers": list(config.mixers),
                "ffn": config.ffn if feeds else None,
                "ffn_blocks": config.ffn_blocks if feeds and config.ffn != "dense" else None,
                "dim": config.dim,
                "layers": config.layers,
                "parameters": parameters_of(config),
                "lengths": [_length(each) for each in measured],
                "crossing": None
                if not feeds
                else {
                    "seconds": _crossing(crossing_of_seconds(measured)),
                    "operations": _crossing(crossing_of_work(model, training=settings.backward)),
                },
            }
        )
    return {
        "backward": settings.backward,
        "batch": settings.batch,
        "repeats": settings.repeats,
        "threads": threads,
        "models": found,
    }


def _length(measured: Profile) -> dict[str, Any]:
    whole = measured.total
    return {
        "tokens": measured.tokens,
        "seconds": whole.seconds,
        "cpu_seconds": whole.cpu_seconds,
        "operations": whole.work.total,
        "parts": {
            name: {
                "seconds": part.seconds,
                "cpu_seconds": part.cpu_seconds,
                "share_of_seconds": part.seconds / whole.seconds,
                "operations": part.work.total,
                "products": part.work.products,
                "share_of_operations": part.work.total / whole.work.total,
            }
            for name, part in measured.parts.items()
        },
    }


def _crossing(found: Crossing) -> dict[str, Any]:
    return {"length": found.length, "dearer": found.dearer}


def _show(result: dict[str, Any]) -> None:
    from posterhall.progress import quantity

    rows: list[tuple[str, ...]] = []
    for model in result["models"]:
        for length in model["lengths"]:
            whole = {"share_of_seconds": 1.0, "share_of_operations": 1.0, **length}
            for name, part in {**length["parts"], "all": whole}.items():
                rows.append(
                    (
                        model["name"],
                        f"{length['tokens']:,}",
                        _SAID.get(name, name),
                        f"{part['seconds']:.3g}",
                        f"{part['cpu_seconds']:.3g}",
                        f"{100 * part['share_of_seconds']:.1f}",
                        quantity(part["operations"]),
                        f"{100 * part['share_of_operations']:.1f}",
                        quantity(part["operations"] / part["seconds"]) if part["seconds"] else "-",
                    )
                )
    emit_table(
        rows,
        header=("model", "length", "part", "seconds", "CPU s", "%", "operations", "%", "a second"),
        right=(1, 3, 4, 5, 6, 7, 8),
    )
    print()
    emit_table(
        [
            (
                model["name"],
                f"{model['parameters']['total']:,}",
                f"{model['parameters']['attention'] + model['parameters']['mixers']:,}",
                f"{model['parameters']['feed_forward']:,}",
                *_met(model),
            )
            for model in result["models"]
        ],
        header=(
            "model",
            "parameters",
            "in mixers",
            "in feed-forward",
            "same seconds at",
            "same operations at",
        ),
        right=(1, 2, 3, 4, 5),
    )


def _met(model: dict[str, Any]) -> tuple[str, str]:
    """Where mixer and feed-forward layer cost the same, by seconds and by operations."""
    if model["crossing"] is None:
        return "-", "-"
    measured = [each["tokens"] for each in model["lengths"]]
    words = []
    for kind in ("seconds", "operations"):
        found = model["crossing"][kind]
        if found["length"] is not None:
            words.append(f"{found['length']:,.0f} tokens")
        elif kind == "seconds":
            beyond = (
                f"over {max(measured):,}" if found["dearer"] == "feed_forward" else f"under {min(measured):,}"
            )
            words.append(beyond)
        else:
            words.append("none" if found["dearer"] == "feed_forward" else "1 token")
    return words[0], words[1]
