"""Bytes that a training holds, counted and planned."""

from __future__ import annotations

import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from posterhall.claims.rows import Budget
from posterhall.seeds import derive, generator

if TYPE_CHECKING:
    from posterhall.models.plan import Method, PlanSettings

_HEADS = 4


class Held:
    """Bytes of the tensors that are alive, and the most there were at any time."""

    def __init__(self) -> None:
        self.now = self.most = 0
        self._known: set[int] = set()

    def add(self, tensor: Any) -> None:
        """Count a tensor's memory, once, until nobody holds it any more."""
        storage = tensor.untyped_storage()
        key, size = storage._cdata, storage.nbytes()
        if key in self._known or not size:
            return
        self._known.add(key)
        self.now += size
        self.most = max(self.most, self.now)
        weakref.finalize(storage, self._gone, key, size)

    def _gone(self, key: int, size: int) -> None:
        self._known.discard(key)
        self.now -= size


@contextmanager
def counted(*tensors: Any) -> Iterator[Held]:
    """Count what torch allocates within the block, beside tensors that are there before it."""
    from torch.utils._python_dispatch import TorchDispatchMode
    from torch.utils._pytree import tree_leaves

    from posterhall.extras import torch

    held = Held()

    class Counting(TorchDispatchMode):  # type: ignore[no-untyped-call]
        def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            found = func(*args, **(kwargs or {}))
            for each in tree_leaves(found):
                if isinstance(each, torch.Tensor):
                    held.add(each)
            return found

    for each in tensors:
        held.add(each)
    with Counting():  # type: ignore[no-untyped-call]
        yield held


def trained(shape: dict[str, Any], method: Method, settings: PlanSettings, *, steps: int, seed: int) -> int:
    """Most bytes that a decoder's training holds over a few steps: weights, states and all.

    Args:
        shape: vocab_size, dim, layers, heads and ffn_dim of the decoder.
        method: full, lora or qlora.
        settings: of the plan that this is held against; its dtype must be float32.
        steps: at least 2: states of the optimiser are there after the first.
        seed: of weights and tokens.
    """
    from posterhall.extras import torch
    from posterhall.models import Decoder, DecoderConfig
    from posterhall.models.quantized import Quantization, quantize_layers
    from posterhall.objectives.lm import lm_loss
    from posterhall.quantize import QuantizedLinear

    config = DecoderConfig(**shape, max_length=settings.sequence, tie_embeddings=False)
    model: Any = Decoder(config, seed=seed)
    if method == "qlora":
        quantize_layers(model, Quantization(settings.code, block=settings.block, double=settings.double))
    if method != "full":
        from posterhall.adapters import add_lora

        add_lora(model, rank=settings.rank, seed=seed)
    model.gradient_checkpointing = settings.gradient_checkpointing
    parameters = [each for each in model.parameters() if each.requires_grad]
    optimiser = torch.optim.AdamW(parameters, lr=1e-4, fused=True)
    draws = torch.Generator().manual_seed(derive(seed, "qlora", "tokens"))
    size = (settings.batch, settings.sequence + 1)
    ids = torch.randint(0, shape["vocab_size"], size, generator=draws)
    quantised = [layer for layer in model.modules() if isinstance(layer, QuantizedLinear)]
    codes = sum(int(each.nbytes) for layer in quantised for each in layer.parts)
    with counted(*model.parameters()) as held:
        for _ in range(steps):
            hidden = model.train().hidden(ids[:, :-1])
            loss: Any = lm_loss(hidden, model.head_weight(), ids[:, 1:].contiguous())[0]
            loss.backward()
            del hidden, loss
            optimiser.step()
            optimiser.zero_grad(set_to_none=True)
    return held.most + codes


def drawn(budget: Budget, seed: int, method: Method) -> tuple[int, float]:
    """Measured and planned bytes of a training whose shape the seed draws."""
    from posterhall.models.architectures import Architecture
    from posterhall.models.plan import PlanSettings, plan

    rng = generator(seed, "qlora", "bytes")
    unit = 2 * _HEADS * 4
    dim = unit * int(rng.integers(budget.least // unit, budget.most // unit + 1))
    shape: dict[str, Any] = {
        "vocab_size": int(rng.integers(500, 4000)),
        "dim": dim,
        "layers": int(rng.integers(2, 7)),
        "heads": _HEADS,
        "ffn_dim": 64 * max(1, round(float(rng.uniform(2, 4)) * dim / 64)),
    }
    settings = PlanSettings(
        method=method,
        rank=int(rng.choice([4, 8, 16])),
        sequence=int(rng.integers(64, 257)),
        batch=int(rng.integers(1, 5)),
        dtype="float32",
        gradient_checkpointing=bool(rng.integers(2)),
    )
    architecture = Architecture("drawn", "llama", **shape)
    return (
        trained(shape, method, settings, steps=budget.steps, seed=seed),
        plan(architecture, settings).total,
    )


def guanaco(name: str, method: Method, sequence: int) -> float:
    """Planned bytes of tuning a known model by Guanaco's recipe."""
    from posterhall.models.architectures import find
    from posterhall.models.plan import PlanSettings, plan

    recipe = PlanSettings(
        method=method, sequence=sequence, gradient_checkpointing=True, adapter_dtype="bfloat16"
    )
    return plan(find(name), recipe).total
