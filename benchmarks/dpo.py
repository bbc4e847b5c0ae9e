"""One epoch of DPO against TRL: the same weights, pairs, order and optimiser; losses compared step by step.

    python -m benchmarks.dpo [--threads 2] [--only "V 512"] [--json]

TRL runs as its users run it, once with its default (the reference beside the policy) and once with
`precompute_ref_log_probs`; the faster epoch of the two is the peer. Where references are computed before,
on either side, that is not part of the epoch; `whole_ratio` is of everything, references included. All pairs
of a case have the same lengths, so that nothing is gained from padding less.
"""

from __future__ import annotations

import argparse
import contextlib
import random
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks import _harness

ANSWER = 64
"""Tokens of an answer, its end included."""
BATCH, STEPS = 4, 4
"""Pairs of a step, and steps of an epoch."""
RATE, BETA = 1e-4, 0.1


@dataclass(frozen=True)
class Case:
    """A model, and how much longer a prompt is than an answer."""

    vocab_size: int
    dim: int
    layers: int
    heads: int
    ratio: int

    @property
    def name(self) -> str:
        """For people."""
        return f"V {self.vocab_size:,}, prompt:answer {self.ratio}:1"


CASES = tuple(Case(*shape, ratio) for shape in ((512, 384, 6, 6), (32000, 192, 9, 3)) for ratio in (1, 3, 8))


def preferences(case: Case) -> list[dict[str, str]]:
    """Random letters, each of which is a token."""
    draw = random.Random(case.ratio)

    def letters(count: int) -> str:
        return "".join(draw.choices("abcdefghijklmnopqrstuvwxyz ", k=count))

    length = ANSWER * case.ratio
    return [
        {"prompt": letters(length), "chosen": letters(ANSWER - 1), "rejected": letters(ANSWER - 1)}
        for _ in range(BATCH * STEPS)
    ]


@dataclass
class Epoch:
    """What an epoch gave."""

    losses: list[float]
    seconds: float
    """CPU seconds of the references before it."""


def ours(directory: Path, rows: list[dict[str, str]]) -> Callable[[], tuple[Callable[[], Any], Epoch]]:
    """A function that prepares an epoch and returns it, ready to run."""
    import torch

    from posterhall.data.preference import Preference
    from posterhall.data.preference_tokens import PreferenceBatches, encode
    from posterhall.data.tokenizer import ByteTokenizer
    from posterhall.models import hub
    from posterhall.train import DpoSettings, PreferenceObjective, fit
    from posterhall.train.references import reference_logprobs

    found = [Preference(row["prompt"], (row["chosen"], row["rejected"]), "") for row in rows]
    settings = DpoSettings(
        beta=BETA, lr=RATE, warmup=0, batch=BATCH, accumulate=1, clip=0, log_every=1, dtype="float32"
    )

    def prepare() -> tuple[Callable[[], Any], Epoch]:
        model = hub.load(directory, dtype=torch.float32)
        tokens = encode(found, ByteTokenizer(), max_length=model.config.max_length, begin=False)
        used = _harness.cpu_seconds()
        reference = reference_logprobs(model, tokens, dtype="float32")
        epoch = Epoch([], _harness.cpu_seconds() - used)
        data = PreferenceBatches(tokens, shuffle=False, reference=reference)

        def run() -> Any:
            trained = fit(model, data, objective=PreferenceObjective(settings), settings=settings)
            epoch.losses = [line["loss"] for line in trained.history]

        return run, epoch

    return prepare


def theirs(
    directory: Path, rows: list[dict[str, str]], *, precompute: bool
) -> Callable[[], tuple[Callable[[], Any], Epoch]]:
    """The same with TRL."""
    import datasets
    import transformers
    import trl

    datasets.disable_progress_bars()
    datasets.disable_caching()
    transformers.utils.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    tokenizer = transformers.AutoTokenizer.from_pretrained(directory)

    class Recording(trl.DPOTrainer):  # type: ignore[misc, name-defined, unused-ignore]
        def __init__(self, *arguments: Any, **named: Any) -> None:
            self.losses: list[float] = []
            self.reference_seconds = 0.0
            super().__init__(*arguments, **named)

        def _precompute_ref_logps(self, *arguments: Any, **named: Any) -> Any:
            used = _harness.cpu_seconds()
            done = super()._precompute_ref_logps(*arguments, **named)
            self.reference_seconds += _harness.cpu_seconds() - used
            return done

        def compute_loss(self, *arguments: Any, **named: Any) -> Any:
            found = super().compute_loss(*arguments, **named)
            self.losses.append(float((found[0] if isinstance(found, tuple) else found).detach()))
            return found

    def prepare() -> tuple[Callable[[], Any], Epoch]:
        trainer = Recording(
            model=str(directory),
            args=trl.DPOConfig(
                output_dir=str(directory / "trl"),
                beta=BETA,
                learning_rate=RATE,
                lr_scheduler_type="constant",
                per_device_train_batch_size=BATCH,
                num_train_epochs=1,
                max_length=None,
                max_grad_norm=0,
                precompute_ref_log_probs=precompute,
                train_sampling_strategy="sequential",
                use_cpu=True,
                bf16=False,
                gradient_checkpointing=False,
                save_strategy="no",
                disable_tqdm=True,
                report_to="none",
            ),
            train_dataset=datasets.Dataset.from_list(rows),
            processing_class=tokenizer,
        )
        epoch = Epoch(trainer.losses, trainer.reference_seconds)

        def train() -> Any:
            with contextlib.redirect_stdout(sys.stderr):  # it prints its losses where our JSON goes
                return trainer.train()

        return train, epoch

    return prepare


def measure(case: Case, repeats: int) -> _harness.Result:
    """Epochs of all sides in turn, after one of each to warm up."""
    import trl

    from posterhall.data.tokenizer import ByteTokenizer
    from posterhall.models import Decoder, DecoderConfig, hub, parameters_count

    config = DecoderConfig(
        vocab_size=case.vocab_size,
        dim=case.dim,
        layers=case.layers,
        heads=case.heads,
        max_length=ANSWER * (case.ratio + 1),
    )
    rows = preferences(case)
    with tempfile.TemporaryDirectory() as folder:
        directory = hub.save(Decoder(config, seed=0), Path(folder) / "model", tokenizer=ByteTokenizer())
        sides = {
            "ours": ours(directory, rows),
            "default": theirs(directory, rows, precompute=False),
            "precomputed": theirs(directory, rows, precompute=True),
        }
        wall: dict[str, list[float]] = {name: [] for name in sides}
        cpu: dict[str, list[float]] = {name: [] for name in sides}
        before: dict[str, list[float]] = {name: [] for name in sides}
        losses: dict[str, list[float]] = {}
        for turn in range(repeats + 1):
            for name in list(sides)[:: 1 if turn % 2 == 0 else -1]:
                run, epoch = sides[name]()
                began, used = time.perf_counter(), _harness.cpu_seconds()
                run()
                if turn:
                    cpu[name].append(_harness.cpu_seconds() - used)
                    wall[name].append(time.perf_counter() - began)
                    before[name].append(epoch.seconds)
                losses[name] = list(epoch.losses)
    timings = {name: _harness.Timing(tuple(wall[name]), tuple(cpu[name]), None) for name in sides}
    whole = {
        name: _harness.Timing((), tuple(a + b for a, b in zip(cpu[name], before[name], strict=True)), None)
        for name in sides
    }
    peers = ("default", "precomputed")
    peer = min(peers, key=lambda name: timings[name].cpu_median)
    difference = max(abs(a - b) for name in peers for a, b in zip(losses["ours"], losses[name], strict=True))
    tokens = BATCH * STEPS * 2 * ANSWER * (case.ratio + 1)
    return _harness.faster(
        f"{case.name}, {parameters_count(config).total / 1e6:.1f} M parameters",
        timings["ours"],
        timings[peer],
        f"TRL {trl.__version__} ({peer})",
        quality={
            "largest_loss_difference": difference,
            "first_loss": losses["ours"][0],
            "last_loss": losses["ours"][-1],
            "default_ratio": timings["default"].cpu_median / timings["ours"].cpu_median,
            "precomputed_ratio": timings["precomputed"].cpu_median / timings["ours"].cpu_median,
            "whole_ratio": min(whole[name].cpu_median for name in peers) / whole["ours"].cpu_median,
            "tokens_per_second": tokens / timings["ours"].wall_median,
        },
    )


def main() -> None:
    """Measure and print."""

    def add(parser: argparse.ArgumentParser) -> None:
        parser.add_argument("--only", default="", help="cases whose names contain this")

    chosen = _harness.arguments(__doc__ or "", add)
    results = [measure(case, chosen.repeats) for case in CASES if chosen.only in case.name]
    _harness.emit("dpo", chosen.threads, results, as_json=chosen.json)


if __name__ == "__main__":
    main()
