"""What of a model is trained: all of it, or an adapter over weights perhaps quantised. Needs no torch."""

from __future__ import annotations

from dataclasses import dataclass

from posterhall.errors import DataError
from posterhall.train.settings import TrainSettings

ALL_LINEAR = "all-linear"


@dataclass(frozen=True)
class AdapterSettings(TrainSettings):
    """Adapters and quantisation in a training.

    Raises:
        DataError: for a value outside its range.
    """

    quantize: str | None = None
    """Keep the frozen weights in this code, as nf4 (see `posterhall.quantize`); none: as they are. Needs an
    adapter, since quantised weights cannot be trained."""
    lora_rank: int | None = None
    """Train an adapter of this rank, >= 1 (QLoRA: 64); none: the adapter that the model has, or else all of
    its weights."""
    lora_alpha: float = 16.0
    """The adapter's product is scaled by lora_alpha / lora_rank, > 0 (QLoRA: 16)."""
    lora_dropout: float = 0.0
    """Share of the adapter's inputs dropped in training, in [0, 1) (QLoRA: 0.1 for 7B, 0.05 for larger
    models)."""
    lora_targets: tuple[str, ...] = (ALL_LINEAR,)
    """Layers with an adapter: all-linear (all but the head, which QLoRA needs to match full fine-tuning), or
    names as checkpoints have them, as q_proj, v_proj."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.lora_rank is not None and self.lora_rank < 1:
            raise DataError(f"lora_rank is {self.lora_rank}; it must be at least 1 (QLoRA: 64)")
        if not self.lora_alpha > 0:
            raise DataError(f"lora_alpha is {self.lora_alpha}; it must be above 0 (QLoRA: 16)")
        if not 0 <= self.lora_dropout < 1:
            raise DataError(f"lora_dropout is {self.lora_dropout}; it must be at least 0 and below 1")
        if not self.lora_targets or (ALL_LINEAR in self.lora_targets and len(self.lora_targets) > 1):
            raise DataError(
                f"lora_targets is {', '.join(self.lora_targets) or 'empty'}; give {ALL_LINEAR} alone, or "
                "names of layers"
            )
