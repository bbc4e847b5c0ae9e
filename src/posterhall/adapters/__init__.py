"""Adapters: a few trained numbers beside frozen, possibly quantised weights.

    model = add_lora(load("model", quantize="nf4"), rank=64, alpha=16)
    with disabled(model): ...             # the model as it was
    save(model, "adapter", base="model")  # as PEFT does
    merge(model)                          # into plain weights, in place

Names and modules are imported on first use; only using them needs torch.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from posterhall import lazy

if TYPE_CHECKING:
    from posterhall.adapters.lora import LoraLinear, LoraSettings
    from posterhall.adapters.merging import Erased, erased, merge
    from posterhall.adapters.placing import add_lora, disabled, lora_parameters
    from posterhall.adapters.saving import load, save

_MODULES = ("dropout", "lora", "merging", "placing", "saving")
_NAMES = {
    "Erased": "merging",
    "LoraLinear": "lora",
    "LoraSettings": "lora",
    "add_lora": "placing",
    "disabled": "placing",
    "erased": "merging",
    "load": "saving",
    "lora_parameters": "placing",
    "merge": "merging",
    "save": "saving",
}

__all__ = [
    "Erased",
    "LoraLinear",
    "LoraSettings",
    "add_lora",
    "disabled",
    "erased",
    "load",
    "lora_parameters",
    "merge",
    "save",
]

__getattr__, __dir__ = lazy.attributes(__name__, names=_NAMES, modules=_MODULES)
