"""Small random decoders, whose weights are large enough for their logits to differ."""

from __future__ import annotations

import torch

from posterhall.models import Decoder, DecoderConfig

torch.set_num_threads(1)

SHAPES = {
    "plain": {"vocab_size": 61, "dim": 24, "layers": 2, "heads": 3},
    "grouped": {"vocab_size": 50, "dim": 32, "layers": 3, "heads": 4, "kv_heads": 2, "ffn_dim": 37},
    "one key head, untied": {
        "vocab_size": 33, "dim": 40, "layers": 1, "heads": 4, "kv_heads": 1, "tie_embeddings": False,
    },
    "odd": {
        "vocab_size": 7, "dim": 6, "layers": 2, "heads": 1, "ffn_dim": 1, "rope_theta": 500.0,
        "norm_eps": 1e-3,
    },
}  # fmt: skip


def decoder(name="plain", *, seed=0, **more):
    """A decoder in evaluation mode."""
    config = DecoderConfig(**{"max_length": 48, "init_std": 0.3, **SHAPES[name], **more})
    return Decoder(config, seed=seed).eval()


def tokens(model, batch=2, length=17, *, seed=0):
    """Random ids (batch, length)."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, model.config.vocab_size, (batch, length), generator=generator)
