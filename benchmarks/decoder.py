"""Training a decoder against transformers' LlamaForCausalLM: the same weights, batches, loop and optimiser.

    python -m benchmarks.decoder [--threads 2] [--steps 4] [--json]

Both are trained with fused AdamW on the same batches of random tokens, all positions labelled, no dropout,
float32. Weights are copied over before, and the losses of the first steps compared. Each side runs the loop
that its users would write: transformers takes the labels and returns its loss.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks import _harness

COMPARED = 5
"""Steps whose losses are compared."""


@dataclass(frozen=True)
class Case:
    """A model and its batches."""

    name: str
    vocab_size: int
    dim: int
    layers: int
    heads: int
    batch: int
    context: int


CASES = (
    Case("V 32,000, all labels", 32000, 192, 6, 3, 4, 256),
    Case("V 512", 512, 384, 6, 6, 4, 256),
    Case("V 512, small", 512, 128, 5, 4, 16, 128),
)


def trainers(case: Case, steps: int) -> tuple[dict[str, Callable[[], list[float]]], int]:
    """Functions that train `steps` steps further and return the losses, and the model's parameters."""
    import torch
    import transformers

    from posterhall.models import Decoder, DecoderConfig, parameters_count, save
    from posterhall.objectives.lm import lm_loss

    config = DecoderConfig(
        vocab_size=case.vocab_size,
        dim=case.dim,
        layers=case.layers,
        heads=case.heads,
        max_length=case.context,
    )
    ours = Decoder(config, seed=0)
    with tempfile.TemporaryDirectory() as folder:
        transformers.utils.logging.disable_progress_bar()
        theirs = transformers.AutoModelForCausalLM.from_pretrained(save(ours, Path(folder) / "model"))
    ours.train()
    theirs.train()
    optimisers = {
        "ours": torch.optim.AdamW(ours.parameters(), lr=1e-3, fused=True),
        "theirs": torch.optim.AdamW(theirs.parameters(), lr=1e-3, fused=True),
    }
    generator = torch.Generator().manual_seed(0)
    shape = (COMPARED, case.batch, case.context + 1)
    drawn = torch.randint(0, case.vocab_size, shape, generator=generator)
    batches = [(ids[:, :-1].contiguous(), ids[:, 1:].contiguous()) for ids in drawn]

    def our_loss(ids: Any, labels: Any) -> Any:
        return lm_loss(ours.hidden(ids), ours.head_weight(), labels)[0]

    def their_loss(ids: Any, labels: Any) -> Any:
        # shift_labels: position t's label is the next token, as ours; `labels` alone would drop the last.
        return theirs(input_ids=ids, labels=labels, shift_labels=labels, use_cache=False).loss

    def train(name: str, loss_of: Callable[[Any, Any], Any]) -> Callable[[], list[float]]:
        def run() -> list[float]:
            losses = []
            for step in range(steps):
                loss = loss_of(*batches[step % COMPARED])
                loss.backward()
                optimisers[name].step()
                optimisers[name].zero_grad(set_to_none=True)
                losses.append(loss.item())
            return losses

        return run

    sides = {"ours": train("ours", our_loss), "theirs": train("theirs", their_loss)}
    return sides, parameters_count(config).total


def measure(case: Case, steps: int, repeats: int) -> _harness.Result:
    """Compare the first losses (which also warms both up), then time the sides in turn."""
    import transformers

    from posterhall.objectives import products

    first, parameters = trainers(case, COMPARED)
    losses = {name: run() for name, run in first.items()}
    difference = max(abs(a - b) for a, b in zip(losses["ours"], losses["theirs"], strict=True))
    sides, _ = trainers(case, steps)
    for run in sides.values():
        run()
    timings = _harness.interleaved(sides, repeats=repeats)
    tokens = case.batch * case.context * steps
    pairs = zip(timings["theirs"].cpu, timings["ours"].cpu, strict=True)
    return _harness.faster(
        f"{case.name}, {parameters / 1e6:.1f} M parameters, batch {case.batch} x {case.context}",
        timings["ours"],
        timings["theirs"],
        f"transformers {transformers.__version__} LlamaForCausalLM",
        quality={
            "loss_difference": difference,
            "tokens_per_second_ours": tokens / timings["ours"].wall_median,
            "tokens_per_second_peer": tokens / timings["theirs"].wall_median,
            "ratio_of_pairs": statistics.median(peer / own for peer, own in pairs),
            "onednn": "/".join(
                name for name, used in zip(products.FORMS, products.chosen(), strict=True) if used
            )
            or "none",
        },
    )


def main() -> None:
    """Command line."""

    def add(parser: argparse.ArgumentParser) -> None:
        parser.add_argument("--steps", type=int, default=4, help="training steps of one timed run")
        parser.add_argument("--cases", type=int, nargs="*", help="only these, counted from 0")

    chosen = _harness.arguments(__doc__.split("\n")[0], add)
    import torch

    torch.set_num_threads(chosen.threads)
    cases = [CASES[i] for i in chosen.cases] if chosen.cases else CASES
    results = [measure(case, chosen.steps, chosen.repeats) for case in cases]
    _harness.emit("decoder", chosen.threads, results, as_json=chosen.json)


if __name__ == "__main__":
    main()
