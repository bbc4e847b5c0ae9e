"""Models: the decoder and its sequence mixers, generation, Hugging Face in and out.

    config = DecoderConfig(vocab_size=512)
    model = Decoder(config, seed=0)
    save(model, "model");  model = load("model")

Names and modules are imported on first use; only using them needs torch.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from posterhall import lazy

if TYPE_CHECKING:
    from posterhall.models.cache import Cache
    from posterhall.models.causal import load
    from posterhall.models.config import DecoderConfig
    from posterhall.models.counts import flops_per_token, parameters_count
    from posterhall.models.decoder import Decoder
    from posterhall.models.generate import Generation
    from posterhall.models.hub import save

_MODULES = (
    "architectures", "best_of", "cache", "causal", "classifier", "config", "counts", "decoder", "enumeration",
    "foreign", "generate", "hub", "mixers", "monarch", "operations", "plan", "profile", "quantized", "reward",
    "reward_files",
)  # fmt: skip
_NAMES = {
    "Cache": "cache",
    "Decoder": "decoder",
    "DecoderConfig": "config",
    "Generation": "generate",
    "flops_per_token": "counts",
    "load": "causal",
    "parameters_count": "counts",
    "save": "hub",
}

__all__ = [
    "Cache",
    "Decoder",
    "DecoderConfig",
    "Generation",
    "flops_per_token",
    "load",
    "parameters_count",
    "save",
]

__getattr__, __dir__ = lazy.attributes(__name__, names=_NAMES, modules=_MODULES)
