"""What each process of the distributed tests runs: python together.py OUT MODE, under torchrun's variables.

MODE: plain, shard, or die (sharded, killed after a few steps with a checkpoint). Leaves the weights and the
history in OUT.safetensors and OUT.json.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save_file

from posterhall.data.packing import Packed
from posterhall.models import Decoder, DecoderConfig
from posterhall.train import TrainSettings, checkpoint, distributed, fit, next_token


def main(out: Path, mode: str) -> None:
    """Train a small decoder for a few steps; seven rows a pass do not divide by two processes."""
    torch.set_num_threads(1)
    rng = np.random.default_rng(0)
    tokens = np.cumsum(rng.integers(0, 3, 3000)) % 50
    rows = Packed(tokens[:2000], context=16)
    held = Packed(tokens[2000:2500], context=16, shuffle=False, whole=True)
    config = DecoderConfig(vocab_size=50, dim=16, layers=2, heads=2, max_length=16)
    model = Decoder(config, seed=1)
    calls = 0

    def objective(model, batch):
        nonlocal calls
        calls += model.training
        if mode == "die" and calls == 9:
            os._exit(7)
        labels = batch["labels"].clone()
        labels[batch["ids"][:, 0] % 2 == 0, 3:] = -100  # rows of different weight
        return next_token(model, {**batch, "labels": labels})

    settings = TrainSettings(
        lr=3e-3, batch=7, accumulate=2, steps=8, eval_every=4, log_every=2, epochs=None, seed=3
    )
    with distributed.world() as world:
        trained = fit(
            model,
            rows,
            objective=objective,
            settings=settings,
            evaluate=held,
            out=out,
            resume=out.exists(),
            checkpoint_seconds=0.0,
            shard=mode != "plain",
        )
        weights = checkpoint.weights(model)
        if world.first:
            save_file({name: t.contiguous() for name, t in weights.items()}, f"{out}.safetensors")
            result = {"history": trained.history, "tokens": trained.tokens, "loss": trained.evaluation}
            Path(f"{out}.json").write_text(json.dumps(result))


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2])
