"""What training takes in memory, added up from a model's shape before anything is loaded.

    planned = plan(find("LLaMA-65B"), PlanSettings(method="qlora", sequence=528))
    planned.total, planned.parts

N parameters, of which L are in linear layers, in blocks of B; P trained ones; b
bytes of an entry; for each block and token the widths D (stream), Q (queries), K (keys), F (feed-forward)
and r (rank).

- weights: b N; or by QLoRA L bits / 8, scales 4 L / B (quantised twice: L / B + 4 L / 256 B), and b (N - L);
- adapters: P = r (inputs + outputs) of every linear layer, in float32 or another type;
- gradients: as many bytes as what is trained; Adam's states: 8 P (2 P in 8 bits);
- activations kept for the backward pass, of each block and token: inputs and outputs of both norms, 4 D;
  queries, keys and values, Q + 2 K; what attention gives, Q, and a logarithm for each head; the gate, the
  other half and their product, 3 F (2 F without a gate); with adapters r for each. With blocks computed
  again: D, and all of that for one block;
- the loss: D thrice, and a chunk of logits in float32;
- work: what the backward pass of one block holds beside (3 F + 2 D, or 2 Q + 4 K + 3 D if that is more), and
  the panel into which 4-bit weights are restored.

Not all of that is there at once: activations shrink while gradients grow. `total` is the most at any time.
These are the bytes of this package's own training; models that run through `transformers` keep more. What the
driver, the libraries and a fragmented heap take comes on top: allow for 1 GB on a GPU.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from posterhall import devices
from posterhall.errors import DataError, did_you_mean
from posterhall.models.architectures import Architecture
from posterhall.quantize.blockwise import LARGEST_BLOCK, bits_per_parameter
from posterhall.quantize.codebooks import codebook

Method = Literal["full", "lora", "qlora"]
Type = Literal["float32", "bfloat16", "float16"]
Optimizer = Literal["adamw", "adamw-8bit", "sgd"]

_BYTES: dict[str, int] = {"float32": 4, "bfloat16": 2, "float16": 2}
_STATES: dict[str, float] = {"adamw": 8.0, "adamw-8bit": 2.0 + 8 / 256, "sgd": 0.0}
"""Bytes for each trained parameter; in 8 bits each state is a byte, and a float32 for 256 of them."""
_PANEL = 1 << 23
_CHUNK, _FEWEST = 3 << 21, 64
"""Entries restored at a time; logits at a time, and the fewest tokens of these: as on a CPU, see
`posterhall.quantize.linear` and `posterhall.objectives.lm`. On a GPU they are larger, and hardly matter."""

CARDS: dict[str, int] = {
    "RTX 3060": 12, "RTX 3090": 24, "RTX 4060 Ti": 16, "RTX 4080": 16, "RTX 4090": 24, "RTX 5090": 32,
    "RTX A6000": 48, "T4": 16, "L4": 24, "L40S": 48, "V100": 32, "A10": 24, "A100-40GB": 40, "A100-80GB": 80,
    "H100": 80, "H200": 141, "MI300X": 192,
}  # fmt: skip
"""Memory of accelerators in GiB, as their makers sell it."""
THIS = "this"
"""The machine itself: its first accelerator, or its memory."""


@dataclass(frozen=True)
class PlanSettings:
    """How a model is to be trained. Defaults are QLoRA's (Dettmers et al. 2023, App. B)."""

    method: Method = "qlora"
    """full: all parameters; lora: adapters on all linear layers; qlora: the same over quantised ones."""
    rank: int = 64
    """Of adapters, >= 1."""
    sequence: int = 512
    """Tokens of a row, >= 1."""
    batch: int = 1
    """Rows of a pass, >= 1. Accumulating passes costs no more memory than one."""
    optimizer: Optimizer = "adamw"
    """adamw: two states in float32; adamw-8bit: in 8 bits; sgd: none."""
    paged: bool = False
    """Whether the optimiser's states may leave the device."""
    dtype: Type = "bfloat16"
    """Of weights that are not quantised, of gradients to them, and of activations."""
    adapter_dtype: Type = "float32"
    """Of adapters and their gradients. Guanaco's were bfloat16."""
    gradient_checkpointing: bool = False
    """Whether blocks are computed again in the backward pass instead of keeping their activations."""
    code: str = "nf4"
    """qlora: the codebook, see `posterhall.quantize`."""
    block: int = 64
    """qlora: weights that share a scale, a multiple of 8."""
    double: bool = True
    """qlora: whether scales are quantised too."""

    def __post_init__(self) -> None:
        for name in ("rank", "sequence", "batch"):
            if getattr(self, name) < 1:
                raise DataError(f"{name} is {getattr(self, name)}; it must be at least 1")
        if not 8 <= self.block <= LARGEST_BLOCK or self.block % 8:
            raise DataError(f"block is {self.block}; it must be a multiple of 8 from 8 to {LARGEST_BLOCK}")
        codebook(self.code)


@dataclass(frozen=True)
class Plan:
    """Bytes of a training. All are of the device, except `host`."""

    architecture: Architecture
    settings: PlanSettings
    trained: int
    """Parameters that are trained."""
    weights: float
    """Quantised linear layers: codes. Otherwise: all weights."""
    scales: float
    """Of quantised blocks; 0 without."""
    others: float
    """Embedding, head, norms and biases beside quantised layers; 0 without."""
    adapters: float
    gradients: float
    optimizer: float
    """States, also where they may leave the device."""
    activations: float
    """Kept for the backward pass."""
    loss: float
    """Logits, and gradients to the last states."""
    work: float
    """Of one block's backward pass, and a restored panel."""
    total: float
    """Most at any time, without states that may leave the device."""

    @property
    def parts(self) -> dict[str, float]:
        """Bytes by what they are for, without the total."""
        names = (
            "weights",
            "scales",
            "others",
            "adapters",
            "gradients",
            "optimizer",
            "activations",
            "loss",
            "work",
        )
        return {name: getattr(self, name) for name in names}

    @property
    def host(self) -> float:
        """Bytes that may leave the device."""
        return self.optimizer if self.settings.paged else 0.0

    @property
    def bits_per_parameter(self) -> float:
        """Weights, adapters, gradients and states, in bits for each of the model's parameters.

        Full fine-tuning in 16 bits with Adam in 32: 16 + 16 + 64 = 96.
        """
        held = self.weights + self.scales + self.others + self.adapters + self.gradients + self.optimizer
        return 8 * held / self.architecture.parameters


def plan(architecture: Architecture, settings: PlanSettings | None = None) -> Plan:
    """Add up what a training takes; see the module for the formula."""
    s = settings or PlanSettings()
    size, n = _BYTES[s.dtype], architecture.parameters
    linear, scales, others = float(size * n), 0.0, 0.0
    if s.method == "qlora":
        bits, quantised = codebook(s.code).bits, architecture.linear_parameters
        linear = bits * quantised / 8
        scales = (bits_per_parameter(bits, s.block, double=s.double) - bits) * quantised / 8
        others = float(size * (n - quantised))
    adapted = s.method != "full"
    trained = architecture.adapter_parameters(s.rank) if adapted else n
    own = _BYTES[s.adapter_dtype] if adapted else size
    gradients, states = float(own * trained), _STATES[s.optimizer] * trained
    adapters = gradients if adapted else 0.0

    block, work = _block(architecture, s), _work(architecture, s)
    stream = float(s.batch * s.sequence * architecture.dim * size)
    kept = architecture.layers * (stream if s.gradient_checkpointing else block)
    loss = 3 * stream + _logits(architecture, s)
    head = 0.0 if adapted else float(size * architecture.vocab_size * architecture.dim)
    inside = work + (block if s.gradient_checkpointing else 0.0)
    begins = kept + head + max(loss, 3 * stream + inside)
    # A tied matrix gets two gradients, which are added up: of the head, and at the very end of the embedding.
    ends = (
        gradients
        + stream
        + max(inside + (0.0 if s.gradient_checkpointing else block), head * architecture.tied)
    )
    fixed = linear + scales + others + adapters + (0.0 if s.paged else states)
    return Plan(
        architecture=architecture,
        settings=s,
        trained=trained,
        weights=linear,
        scales=scales,
        others=others,
        adapters=adapters,
        gradients=gradients,
        optimizer=states,
        activations=kept + (block if s.gradient_checkpointing else 0.0),
        loss=loss,
        work=work,
        total=fixed + max(begins, ends),
    )


def _block(architecture: Architecture, s: PlanSettings) -> float:
    """What one block keeps for its backward pass."""
    a = architecture
    entries = 4 * a.dim + 2 * a.query_dim + 2 * a.key_dim + (3 if a.gated else 2) * a.ffn_dim
    if s.method != "full":
        entries += s.rank * len(a.projections)
    exact = 4 * (a.heads + 2)  # logarithms of attention's sums, and the norms' factors: always float32
    return float(s.batch * s.sequence * (entries * _BYTES[s.dtype] + exact))


def _work(architecture: Architecture, s: PlanSettings) -> float:
    a = architecture
    entries = max((3 if a.gated else 2) * a.ffn_dim + 2 * a.dim, 2 * a.query_dim + 4 * a.key_dim + 3 * a.dim)
    largest = max(each.outputs * each.inputs for each in a.projections)
    panel = min(_PANEL, largest) if s.method == "qlora" else 0
    return float((s.batch * s.sequence * entries + panel) * _BYTES[s.dtype])


def _logits(architecture: Architecture, s: PlanSettings) -> float:
    tokens = min(s.batch * s.sequence, max(_FEWEST, _CHUNK // architecture.vocab_size))
    copies = 4 + (_BYTES[s.dtype] if s.dtype != "float32" else 0)
    return float(tokens * architecture.vocab_size * copies)


def memory_of(device: str) -> int:
    """Bytes of a device.

    Args:
        device: an amount ("48 GB", "24 GiB"), one of `CARDS`, or "this" machine.

    Raises:
        DataError: for anything else.
    """
    text = device.strip()
    amount = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([kMGT]i?)?B", text, re.IGNORECASE)
    if amount:
        prefix = (amount[2] or "").lower()
        step = 1024 if prefix.endswith("i") else 1000
        return int(float(amount[1]) * step ** " kmgt".index(prefix[:1] or " "))
    if text.lower() == THIS:
        return _own_memory()
    plain = {_plain(name): gigabytes for name, gigabytes in CARDS.items()}
    if _plain(text) in plain:
        return plain[_plain(text)] << 30
    raise DataError(
        f"no device '{device}'; give an amount as '48 GB' or '24 GiB', '{THIS}' for this machine, or one of "
        f"{', '.join(CARDS)}.{did_you_mean(device, CARDS)}"
    )


def _plain(name: str) -> str:
    return re.sub(r"[-_ ]|nvidia|geforce|amd", "", name.lower())


def _own_memory() -> int:
    import importlib.util

    if importlib.util.find_spec("torch") is not None:
        import torch

        if torch.cuda.is_available():
            return int(torch.cuda.get_device_properties(0).total_memory)
    return devices.memory_total()


def cheaper(planned: Plan) -> Iterator[tuple[str, Plan]]:
    """Changes that take less memory, each on top of those before it, the least harmful first.

    Yields:
        What is changed, and the plan with it; only changes that save something.
    """
    changes: list[tuple[str, dict[str, object]]] = [
        ("quantise the scales too", {"double": True}),
        ("compute blocks again (gradient checkpointing)", {"gradient_checkpointing": True}),
        ("one row a pass, accumulated", {"batch": 1}),
        ("let the optimiser's states leave the device (paged)", {"paged": True}),
        ("adapters instead of all parameters (lora)", {"method": "lora"}),
        ("16-bit weights", {"dtype": "bfloat16"}),
        ("4-bit weights (qlora)", {"method": "qlora", "code": "nf4", "double": True}),
        ("16-bit adapters", {"adapter_dtype": "bfloat16"}),
        ("adapters of rank 16", {"rank": min(16, planned.settings.rank)}),
        ("rows of half the length", {"sequence": max(1, planned.settings.sequence // 2)}),
    ]
    now = planned
    for said, change in changes:
        if change.get("method") == "lora" and now.settings.method == "qlora":
            continue
        then = plan(planned.architecture, dataclasses.replace(now.settings, **change))  # type: ignore[arg-type]
        if then.total < now.total * (1 - 1e-3):
            now = then
            yield said, then
