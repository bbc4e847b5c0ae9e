"""`posterhall model`: what a model is, and text from it."""

from __future__ import annotations

import itertools
import math
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from posterhall.cli.model_merge import merge
from posterhall.cli.model_plan import plan
from posterhall.cli.model_profile import profile
from posterhall.cli.model_quantize import quantize
from posterhall.cli.output import Json, Seed, Threads, emit_json, emit_table, printable
from posterhall.errors import DataError, UsageError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from posterhall.data.tokenizer import Tokenizer
    from posterhall.models.config import DecoderConfig
    from posterhall.models.quantized import Quantization

app = typer.Typer(
    help="Generate text, see what a model is and costs, quantise it, merge adapters, plan memory.",
    no_args_is_help=True,
)
app.command()(quantize)
app.command()(merge)
app.command()(plan)
app.command()(profile)

Model = Annotated[
    str, typer.Argument(metavar="MODEL", help="Directory of a model or of a training run, or a hub id.")
]


@app.command()
def info(model: Model, json: Json = False) -> None:
    """Show a model's shape, parameters, files, tokenizer and, of a run, its training."""
    from posterhall.models import causal, hub
    from posterhall.models.counts import flops_per_token

    place = hub.locate(model)
    texts = causal.text_files(place)
    adapter, directory, quantization = _adapter(place)
    quantization = quantization or hub.read_quantization(directory)
    count, dtypes, weights = hub.stored(directory)
    tokenizer = _tokenizer(texts)
    named = hub.read_json(directory / hub.CONFIG).get("architectures") or ["unknown"]
    facts: dict[str, Any] = {"model": model, "path": place, "architecture": named[0]}
    try:
        config = hub.read_config(directory)
    except DataError:  # of another architecture: transformers knows its shape
        facts |= dict.fromkeys((*_SHAPE, "parameters", "training_flops_per_token"))
    else:
        facts |= {
            **_shape(config),
            "parameters": parameters_of(config),
            "training_flops_per_token": flops_per_token(config, config.max_length),
        }
    facts |= {
        "stored_parameters": count,
        "dtypes": dtypes,
        "bytes": weights,
        "quantization": None
        if quantization is None
        else {"code": quantization.code, "block": quantization.block, "double": quantization.double},
        "adapter": adapter,
        "tokenizer": None
        if tokenizer is None
        else {
            "name": tokenizer.name,
            "vocab_size": tokenizer.vocab_size,
            "bos_id": tokenizer.bos_id,
            "eos_id": tokenizer.eos_id,
        },
        "training": _training(Path(model)),
    }
    if json:
        emit_json(facts)
        return
    emit_table(_lines(facts))


@app.command()
def generate(
    model: Model,
    prompt: Annotated[str | None, typer.Option("--prompt", "-p", help="What to continue.")] = None,
    prompt_file: Annotated[
        Path | None,
        typer.Option("--prompt-file", metavar="FILE|-", help="The same from a file or standard input."),
    ] = None,
    max_new_tokens: Annotated[
        int, typer.Option("--max-new-tokens", "-n", min=1, help="Most tokens of a continuation.")
    ] = 128,
    temperature: Annotated[
        float, typer.Option("--temperature", min=0.0, help="0 takes the likeliest token each time.")
    ] = 1.0,
    top_k: Annotated[
        int | None, typer.Option("--top-k", min=1, help="Draw from so many of the likeliest tokens.")
    ] = None,
    top_p: Annotated[
        float | None, typer.Option("--top-p", help="Draw from the likeliest with this probability together.")
    ] = None,
    samples: Annotated[int, typer.Option("--samples", min=1, help="Continuations.")] = 1,
    stop: Annotated[
        list[str] | None, typer.Option("--stop", help="Text that ends a continuation; may be repeated.")
    ] = None,
    device: Annotated[str, typer.Option("--device", help="As cpu, cuda or cuda:1.")] = "cpu",
    dtype: Annotated[
        str | None, typer.Option("--dtype", help="float32, bfloat16 or float16 [that of the files].")
    ] = None,
    draft: Annotated[
        str | None,
        typer.Option(
            "--draft", metavar="MODEL", help="A smaller model with the same tokenizer, which drafts."
        ),
    ] = None,
    lookahead: Annotated[
        int | None, typer.Option("--lookahead", min=1, help="Most tokens drafted before they are judged [4].")
    ] = None,
    best_of: Annotated[
        int | None, typer.Option("--best-of", min=2, help="Draw so many, and print the best by --reward.")
    ] = None,
    reward: Annotated[
        str | None,
        typer.Option(
            "--reward",
            metavar="REWARD",
            help="A reward model's directory or run, lexicon:FILE, length:WORDS, classifier:DIR or "
            "judge:MODEL.",
        ),
    ] = None,
    scores: Annotated[
        bool, typer.Option("--scores", help="With --best-of: all rewards, and what fewer draws would give.")
    ] = False,
    seed: Seed = None,
    threads: Threads = None,
    json: Json = False,
) -> None:
    """Continue a text. Sample i of a seed is the same, however many are drawn."""
    if (prompt is None) == (prompt_file is None):
        raise UsageError("give either --prompt TEXT or --prompt-file FILE (- is standard input)")
    if stop and not all(stop):
        raise UsageError("--stop is empty; give the text that ends a continuation")
    if lookahead is not None and draft is None:
        raise UsageError("--lookahead is for drafts; give --draft MODEL too")
    if (best_of is None) != (reward is None) or (scores and best_of is None):
        raise UsageError("--best-of N, --reward and --scores go together; give --best-of 16 --reward REWARD")
    if best_of is not None and (samples > 1 or temperature == 0):
        raise UsageError(
            "--best-of prints one of its draws, which must differ: no --samples, no temperature 0"
        )
    if prompt is None:
        prompt = _read(prompt_file)

    import time

    from posterhall import devices
    from posterhall.extras import require
    from posterhall.models import causal, hub
    from posterhall.models.generate import generate as continue_prompts

    require("torch", "train", "generating text")

    from posterhall.lm.local import load_draft
    from posterhall.models.speculative import Speculation

    devices.limit_threads(threads or devices.cores())
    directory = hub.locate(model)
    beside = causal.text_files(directory)
    tokenizer = _tokenizer(beside)
    if tokenizer is None:
        raise DataError(
            f"{directory} has no tokenizer.json, so text cannot become tokens; save one beside it"
        )
    place = device_of(device)
    decoder = causal.load(directory, dtype=dtype, device=place)
    small = None if draft is None else load_draft(draft, tokenizer, lookahead, dtype=dtype, device=place)
    counts = Speculation()
    if tokenizer.vocab_size > decoder.config.vocab_size:
        raise DataError(
            f"{directory}: the tokenizer has {tokenizer.vocab_size} tokens, the model "
            f"{decoder.config.vocab_size}; they do not belong together"
        )
    first = tokenizer.bos_id if tokenizer.bos_id is not None else tokenizer.eos_id
    ids = ([] if first is None else [first]) + tokenizer.encode(prompt)
    if not ids:
        raise DataError("the prompt is empty, and this tokenizer has no token to begin a text with")
    ends = tuple(stop or ())

    def watch(_: int, new: list[int]) -> bool:
        return bool(ends) and any(each in tokenizer.decode(new) for each in ends)

    began = time.perf_counter()
    found = continue_prompts(
        decoder,
        [ids] * (best_of or samples),
        max_new_tokens=max_new_tokens,
        temperature=temperature,
        top_k=top_k,
        top_p=top_p,
        seeds=seed or 0,
        stop_ids=hub.end_ids(beside) | (set() if tokenizer.eos_id is None else {tokenizer.eos_id}),
        watch=watch if ends else None,
        return_logprobs=True,
        draft=small,
        counts=counts,
    )
    took = time.perf_counter() - began
    texts = [_before(tokenizer.decode(each.ids), ends) for each in found]
    judged = None if reward is None else _judged(reward, prompt, texts, place)
    if json:
        emit_json(
            {
                "model": model,
                "prompt": prompt,
                "prompt_tokens": len(ids),
                "samples": [
                    {
                        "text": text,
                        "tokens": len(each.ids),
                        "logprob": sum(each.logprobs or ()),
                        "stopped": each.stopped,
                    }
                    for text, each in zip(texts, found, strict=True)
                ],
                "tokens_per_second": sum(len(each.ids) for each in found) / took,
                "draft": None
                if draft is None
                else {
                    "model": draft,
                    "proposed": counts.proposed,
                    "judged": counts.judged,
                    "accepted": counts.accepted,
                    "acceptance": counts.acceptance,
                },
                "best_of": judged,
            }
        )
        return
    if judged is not None:
        if scores:
            _show_scores(judged)
        texts = [texts[judged["best"]]]
    for number, text in enumerate(texts, 1):
        if samples > 1:
            print(f"--- {number}")
        for line in text.split("\n"):  # a line's tabs and controls must not steer the terminal
            print(printable(line.replace("\t", "    ")))


def _judged(reward: str, prompt: str, texts: Sequence[str], device: Any) -> dict[str, Any]:
    """Which of several continuations is the best, and what their rewards tell."""
    import numpy as np

    from posterhall.models import best_of
    from posterhall.train.scorers import scorer

    with scorer(reward, device=device) as scored:
        rewards = scored.score([prompt] * len(texts), texts)
    read = np.flatnonzero(np.isfinite(rewards))
    if not len(read):
        raise DataError(
            f"{reward} gives none of {len(texts):,} answers a score, so none is the best; if it is a judge, "
            "see what it replies: posterhall lm ask"
        )
    return {
        "reward": reward,
        "rewards": rewards,
        "best": int(read[best_of.best(rewards[read])]),
        "expected_best": best_of.expected_best(rewards[read]),
        "kl_bound": best_of.kl_bound(len(texts)),
    }


def _show_scores(judged: dict[str, Any]) -> None:
    """On stderr: each draw's reward, and the expected best of as many draws."""

    def cell(number: float | None) -> str | None:
        return f"{number:.4g}" if number is not None and math.isfinite(number) else None

    # Answers without a score make no draws: there are fewer expectations then.
    both = itertools.zip_longest(judged["rewards"], judged["expected_best"])
    rows = [
        (number, cell(reward), cell(expected), "best" if number - 1 == judged["best"] else "")
        for number, (reward, expected) in enumerate(both, 1)
    ]
    emit_table(rows, header=("n", "reward", "best of n", ""), right=(0, 1, 2), stream=sys.stderr)


_SHAPE = (
    "vocab_size", "dim", "layers", "mixers", "heads", "kv_heads", "ffn_dim", "ffn", "ffn_blocks", "context",
    "positions", "rope_theta", "tied",
)  # fmt: skip


def _tokenizer(directory: Path) -> Tokenizer | None:
    from posterhall.data import tokenizer as tokenizers

    if not (directory / tokenizers.FILE).is_file():
        return None
    return tokenizers.load(directory)


def _read(path: Path | None) -> str:
    try:
        data = sys.stdin.buffer.read() if str(path) == "-" else Path(str(path)).read_bytes()
        return data.decode("utf-8")
    except OSError as error:
        raise DataError(f"cannot read the prompt {path}: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise DataError(f"{path}: not UTF-8 at byte {error.start}; convert it first") from None


def device_of(name: str) -> Any:
    """The device of a --device, tried.

    Raises:
        DataError: if it cannot be used.
    """
    from posterhall.extras import torch

    try:
        device = torch.device(name)
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError) as error:
        reason = str(error).strip().partition("\n")[0]
        raise DataError(f"--device {name} cannot be used: {reason}") from None
    return device


def _before(text: str, ends: Sequence[str]) -> str:
    """The text before the first of the stop strings."""
    places = [place for place in (text.find(end) for end in ends) if place >= 0]
    return text[: min(places)] if places else text


def _adapter(place: Path) -> tuple[dict[str, Any] | None, Path, Quantization | None]:
    """What an adapter is, where its base is, and how that has to be quantised; of a model, itself alone."""
    from posterhall.adapters import saving
    from posterhall.models import causal, hub

    if not hub.is_adapter(place):
        return None, place, None
    said = saving.read_config(place)
    below, how = causal.base_of(place)
    count, _, stored = hub.stored_in([place / saving.WEIGHTS])
    facts = {
        "base": said.base,
        "rank": said.settings.rank,
        "alpha": said.settings.alpha,
        "dropout": said.settings.dropout,
        "targets": list(said.targets),
        "parameters": count,
        "bytes": stored,
    }
    return facts, below, how


def _shape(config: DecoderConfig) -> dict[str, Any]:
    return {
        "vocab_size": config.vocab_size,
        "dim": config.dim,
        "layers": config.layers,
        "mixers": list(config.mixers),
        "heads": config.heads,
        "kv_heads": config.key_value_heads,
        "ffn_dim": config.feed_forward_dim,
        "ffn": config.ffn,
        "ffn_blocks": None if config.ffn == "dense" else config.ffn_blocks,
        "context": config.max_length,
        "positions": config.positions,
        "rope_theta": config.rope_theta if config.positions == "rotary" else None,
        "tied": config.tie_embeddings,
    }


def parameters_of(config: DecoderConfig) -> dict[str, int]:
    """Parameters by part, as JSON shows them."""
    from dataclasses import asdict

    from posterhall.models.counts import parameters_count

    parts = parameters_count(config)
    return {"total": parts.total, "non_embedding": parts.non_embedding, **asdict(parts)}


def _training(run: Path) -> dict[str, Any] | None:
    """What the manifest of a run says of its training; None if the model is not in one."""
    from posterhall import runs

    if not runs.is_run(run):
        return None
    manifest = runs.read_manifest(run)
    return {
        "kind": manifest["kind"],
        "status": manifest["status"],
        "start": manifest["start"],
        "wall_seconds": manifest["wall_seconds"],
        "facts": manifest.get("facts", {}),
    }


def _lines(facts: dict[str, Any]) -> list[tuple[str, str]]:
    from posterhall.progress import duration, size

    tokenizer, training, adapter = facts["tokenizer"], facts["training"], facts["adapter"]
    lines = [("model", str(facts["path"]))]
    if adapter is not None:
        lines += [
            (
                "adapter",
                f"rank {adapter['rank']}, alpha {adapter['alpha']:g}, {adapter['parameters']:,} numbers",
            ),
            ("", f"on {', '.join(adapter['targets'])}"),
            ("base", adapter["base"]),
        ]
    lines += _shape_lines(facts)
    lines.append(("weights", f"{size(facts['bytes'])}, {', '.join(facts['dtypes'])}"))
    if facts["quantization"] is not None:
        how = facts["quantization"]
        scales = ", scales too" if how["double"] else ""
        lines.append(("quantised", f"linear layers in {how['code']}, blocks of {how['block']}{scales}"))
    lines.append(
        ("tokenizer", f"{tokenizer['name']}, {tokenizer['vocab_size']:,} tokens" if tokenizer else "none")
    )
    if training is not None:
        lines.append(
            (
                "run",
                f"{training['kind']}, {training['status']}, {training['start'][:10]}, "
                f"{duration(training['wall_seconds'])}",
            )
        )
        lines += [("", f"{key} = {value}") for key, value in training["facts"].items()]
    return lines


def _shape_lines(facts: dict[str, Any]) -> list[tuple[str, str]]:
    from posterhall.progress import quantity

    parts = facts["parameters"]
    if parts is None:
        return [("architecture", facts["architecture"])]
    tied = "tied" if facts["tied"] else "untied"
    named = ("embedding", "positions", "attention", "mixers", "feed_forward", "norms", "head")
    heads = f", {facts['heads']} heads ({facts['kv_heads']} of keys)" if facts["heads"] > 1 else ""
    blocks = f" ({facts['ffn']}, {facts['ffn_blocks']} blocks)" if facts["ffn_blocks"] else ""
    base = f", rotary base {facts['rope_theta']:g}" if facts["rope_theta"] else ""
    return [
        ("architecture", f"{facts['architecture']}, {tied} head"),
        (
            "shape",
            f"{facts['layers']} layers of {facts['dim']} ({', '.join(facts['mixers'])}){heads}, "
            f"feed-forward {facts['ffn_dim']}{blocks}",
        ),
        ("context", f"{facts['context']:,} tokens{base}"),
        ("parameters", f"{parts['total']:,}; without embeddings {parts['non_embedding']:,}"),
        *(("", f"{name.replace('_', '-')} {parts[name]:,}") for name in named if parts[name]),
        ("training", f"{quantity(facts['training_flops_per_token'])} operations a token at full context"),
    ]
