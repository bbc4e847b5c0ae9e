"""One step of QLoRA (forward, backward, AdamW on the adapters) against PEFT with bitsandbytes.

    python -m benchmarks.qlora [--threads 2] [--dim 768] [--layers 12] [--tokens 512] [--json]

Both sides load the same checkpoint of random weights: ours as a decoder with quantised layers, the peer as
transformers' LlamaForCausalLM with bitsandbytes' Linear4bit. NF4 with quantised scales, adapters of rank 64
on all linear layers that begin with equal A (and a B that is not zero, so that all gradients count), float32,
no dropout, the same tokens, labels everywhere. Losses of the first steps are compared. Each side trains in a
process of its own, which the other side's turn stops: so the peak memory is each one's own.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from benchmarks import _harness

RANK, ALPHA, LR = 64, 16.0, 2e-4
COMPARED = 4
"""Steps whose losses are compared; they also warm both sides up."""


def _adapters(shapes: dict[str, tuple[int, int]]) -> dict[str, tuple[Any, Any]]:
    """A and B by projection, the same on both sides."""
    import torch

    draws = torch.Generator().manual_seed(7)
    return {
        name: (
            torch.empty(RANK, inputs).uniform_(-(inputs**-0.5), inputs**-0.5, generator=draws),
            torch.empty(outputs, RANK).normal_(0.0, 0.02, generator=draws),
        )
        for name, (outputs, inputs) in sorted(shapes.items())
    }


def _ours(checkpoint: str) -> tuple[list[Any], Any]:
    import torch

    from posterhall.adapters import add_lora, lora_parameters
    from posterhall.adapters.placing import adapters
    from posterhall.models import causal
    from posterhall.objectives.lm import lm_loss

    model: Any = causal.load(checkpoint, quantize="nf4")
    add_lora(model, rank=RANK, alpha=ALPHA)
    pairs = {part.name: (a, b) for _, layer in adapters(model) for part, a, b in layer.pairs()}
    wanted = _adapters({name: (len(b), a.shape[1]) for name, (a, b) in pairs.items()})
    with torch.no_grad():
        for name, (a, b) in pairs.items():
            a.copy_(wanted[name][0])
            b.copy_(wanted[name][1])
    model.train()

    def loss_of(ids: Any, labels: Any) -> Any:
        return lm_loss(model.hidden(ids), model.head_weight(), labels)[0]

    return lora_parameters(model), loss_of


def _theirs(checkpoint: str) -> tuple[list[Any], Any]:
    import logging

    import peft
    import torch
    import transformers

    logging.disable(logging.WARNING)
    transformers.utils.logging.disable_progress_bar()
    quantization = transformers.BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=torch.float32,
    )
    model = transformers.AutoModelForCausalLM.from_pretrained(
        checkpoint, quantization_config=quantization, dtype=torch.float32
    )
    model = peft.get_peft_model(
        model,
        peft.LoraConfig(
            r=RANK, lora_alpha=ALPHA, lora_dropout=0.0, target_modules="all-linear", task_type="CAUSAL_LM"
        ),
    )
    start, layers = "base_model.model.", {}
    for name, module in model.named_modules():
        if hasattr(module, "lora_A"):
            layers[name.removeprefix(start)] = module
    pairs = {n: (m.lora_A["default"].weight, m.lora_B["default"].weight) for n, m in layers.items()}
    wanted = _adapters({name: (len(b), a.shape[1]) for name, (a, b) in pairs.items()})
    with torch.no_grad():
        for name, (a, b) in pairs.items():
            a.copy_(wanted[name][0])
            b.copy_(wanted[name][1])
    model.train()

    def loss_of(ids: Any, labels: Any) -> Any:
        return model(input_ids=ids, labels=labels, shift_labels=labels, use_cache=False).loss

    return [each for each in model.parameters() if each.requires_grad], loss_of


def serve(side: str, checkpoint: str, tokens: int, threads: int) -> None:
    """Train one step for each line that comes in; answer with its loss and seconds."""
    import torch

    from posterhall import devices

    torch.set_num_threads(threads)
    parameters, loss_of = (_ours if side == "ours" else _theirs)(checkpoint)
    loaded = devices.peak_bytes()
    optimiser = torch.optim.AdamW(parameters, lr=LR, weight_decay=0.0, fused=True)
    vocabulary = json.loads((Path(checkpoint) / "config.json").read_text())["vocab_size"]
    draws = torch.Generator().manual_seed(0)
    ids = torch.randint(0, vocabulary, (1, tokens + 1), generator=draws)
    inputs, labels = ids[:, :-1].contiguous(), ids[:, 1:].contiguous()
    for _ in sys.stdin:
        began, used = time.perf_counter(), _harness.cpu_seconds()
        loss = loss_of(inputs, labels)
        loss.backward()
        optimiser.step()
        optimiser.zero_grad(set_to_none=True)
        answer = {
            "loss": loss.item(),
            "wall": time.perf_counter() - began,
            "cpu": _harness.cpu_seconds() - used,
            "peak": devices.peak_bytes(),
            "held": _resident(),
            "loaded": loaded,
            "trained": sum(each.numel() for each in parameters),
        }
        print(json.dumps(answer), flush=True)


def _resident() -> int:
    """Memory that only this process holds, and its share of what it holds with others (PSS), in bytes."""
    for line in Path("/proc/self/smaps_rollup").read_text().splitlines():
        if line.startswith("Pss:"):
            return int(line.split()[1]) * 1024
    return 0


class _Side:
    """A process that trains when it is asked to."""

    def __init__(self, side: str, checkpoint: Path, tokens: int, threads: int) -> None:
        command = [sys.executable, "-m", "benchmarks.qlora", "--serve", side]
        command += ["--checkpoint", str(checkpoint), "--tokens", str(tokens), "--threads", str(threads)]
        self.process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
            env={**os.environ, "PYTHONPATH": os.getcwd()},
        )  # fmt: skip

    def step(self) -> dict[str, Any]:
        assert self.process.stdin is not None and self.process.stdout is not None  # noqa: PT018
        self.process.stdin.write("\n")
        self.process.stdin.flush()
        answer: dict[str, Any] = json.loads(self.process.stdout.readline())
        return answer

    def end(self) -> None:
        assert self.process.stdin is not None
        self.process.stdin.close()
        self.process.wait()


def measure(chosen: Any) -> _harness.Result:
    """Steps in turn, after the losses of the first ones have been compared."""
    import bitsandbytes
    import peft

    from posterhall.models import Decoder, DecoderConfig, parameters_count, save

    config = DecoderConfig(
        vocab_size=chosen.vocabulary,
        dim=chosen.dim,
        layers=chosen.layers,
        heads=chosen.dim // 64,
        max_length=max(chosen.tokens, 64),
        tie_embeddings=False,
    )
    with tempfile.TemporaryDirectory() as folder:
        checkpoint = save(Decoder(config, seed=0), Path(folder) / "model")
        sides = {name: _Side(name, checkpoint, chosen.tokens, chosen.threads) for name in ("ours", "theirs")}
        first = {name: [side.step()["loss"] for _ in range(COMPARED)] for name, side in sides.items()}
        steps: dict[str, list[dict[str, Any]]] = {name: [] for name in sides}
        for run in range(chosen.repeats):
            for name in list(sides)[:: 1 if run % 2 == 0 else -1]:
                steps[name].append(sides[name].step())
        for side in sides.values():
            side.end()
    timings = {
        name: _harness.Timing(tuple(s["wall"] for s in found), tuple(s["cpu"] for s in found), found[-1])
        for name, found in steps.items()
    }
    last = {name: found[-1] for name, found in steps.items()}
    pairs = zip(timings["theirs"].wall, timings["ours"].wall, strict=True)
    return _harness.faster(
        f"QLoRA step, {parameters_count(config).total / 1e6:.0f} M parameters, {chosen.tokens} tokens",
        timings["ours"],
        timings["theirs"],
        f"peft {peft.__version__} + bitsandbytes {bitsandbytes.__version__}",
        quality={
            "loss_difference": max(abs(a - b) for a, b in zip(first["ours"], first["theirs"], strict=True)),
            "loss": first["ours"][-1],
            "trained_ours": last["ours"]["trained"],
            "trained_peer": last["theirs"]["trained"],
            "peak_mb_ours": last["ours"]["peak"] / 1e6,
            "peak_mb_peer": last["theirs"]["peak"] / 1e6,
            "held_mb_ours": statistics.median(s["held"] for s in steps["ours"]) / 1e6,
            "held_mb_peer": statistics.median(s["held"] for s in steps["theirs"]) / 1e6,
            "wall_ratio_of_pairs": statistics.median(peer / own for peer, own in pairs),
        },
    )


def main() -> None:
    """Command line."""

    def add(parser: argparse.ArgumentParser) -> None:
        parser.add_argument("--dim", type=int, default=768, help="width, a multiple of 64")
        parser.add_argument("--layers", type=int, default=12)
        parser.add_argument("--vocabulary", type=int, default=32_000)
        parser.add_argument("--tokens", type=int, default=512, help="of the one row of a step")
        parser.add_argument("--serve", choices=["ours", "theirs"], help=argparse.SUPPRESS)
        parser.add_argument("--checkpoint", help=argparse.SUPPRESS)

    chosen = _harness.arguments(__doc__.split("\n")[0], add)
    if chosen.serve:
        serve(chosen.serve, chosen.checkpoint, chosen.tokens, chosen.threads)
        return
    _harness.emit("qlora", chosen.threads, [measure(chosen)], as_json=chosen.json)


if __name__ == "__main__":
    main()
