"""What generation and scoring need of a language model, whoever has written it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from posterhall.errors import DataError, MissingExtra

if TYPE_CHECKING:
    from posterhall.extras import nn, torch
    from posterhall.models.cache import Cache


class Shape(Protocol):
    """Of a model."""

    @property
    def vocab_size(self) -> int:
        """Tokens that it knows."""

    @property
    def dim(self) -> int:
        """Entries of a state."""

    @property
    def max_length(self) -> int:
        """Its longest sequence, in tokens."""


class CausalModel(Protocol):
    """A `Decoder`, or a model of another library made to look like one (`posterhall.models.foreign`)."""

    training: bool

    @property
    def config(self) -> Shape:
        """Its shape."""

    @property
    def device(self) -> torch.device:
        """Where its weights are."""

    @property
    def token_bytes(self) -> int:
        """What a token takes up in a cache, of all layers."""

    def hidden(
        self, ids: torch.Tensor, *, cache: Cache | None = None, valid: Sequence[int] | None = None
    ) -> torch.Tensor:
        """States (B, T, D) of tokens (B, T); see `Decoder.hidden`."""

    def logits(self, states: torch.Tensor) -> torch.Tensor:
        """Logits (..., V) of states (..., D), in float32."""

    def new_cache(self, batch: int, max_length: int | None = None) -> Cache:
        """An empty cache for `batch` rows of up to `max_length` tokens."""

    def train(self, mode: bool = True) -> Any:
        """Into training mode, or out of it."""

    def eval(self) -> Any:
        """Out of training mode."""

    def parameters(self) -> Iterator[nn.Parameter]:
        """Its weights."""

    def named_parameters(self) -> Iterator[tuple[str, nn.Parameter]]:
        """The same with their names."""


def load(path: Path | str, *, dtype: Any = None, device: Any = "cpu") -> CausalModel:
    """Read a checkpoint: as a `Decoder` if it is a Llama as plain as that, else with transformers.

    Args:
        path: see `posterhall.models.hub.load`.
        dtype: a torch type, or its name; None keeps that of the files.
        device: where to put it.

    Raises:
        DataError: for what is not there, damaged, pickled, or no causal model.
        MissingExtra: without torch or safetensors; without transformers, if it is needed.
    """
    from posterhall.models import foreign, hub

    directory = hub.locate(path)
    try:
        hub.read_config(directory)
    except DataError as error:
        try:
            return foreign.load(directory, dtype=dtype, device=device)
        except MissingExtra:
            raise MissingExtra("hf", f"{error}; reading it with transformers") from None
    return hub.load(directory, dtype=dtype, device=device)
