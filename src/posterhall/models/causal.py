"""What generation and scoring need of a language model, whoever has written it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from posterhall.errors import DataError, MissingExtra

if TYPE_CHECKING:
    from posterhall.extras import nn, torch
    from posterhall.models.cache import Cache
    from posterhall.models.quantized import Quantization


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


def load(
    path: Path | str,
    *,
    dtype: Any = None,
    device: Any = "cpu",
    quantize: str | Quantization | None = None,
    base: Path | str | None = None,
) -> CausalModel:
    """Read a checkpoint: as a `Decoder` if it is a Llama as plain as that, else with transformers.

    Args:
        path: see `posterhall.models.hub.load`; or the directory of an adapter, which is put on its base,
            quantised as it was when the adapter was trained.
        dtype: a torch type, or its name; None keeps that of the files.
        device: where to put it.
        quantize: quantise the linear layers but the head: a code as "nf4", with QLoRA's settings, or a
            `posterhall.models.quantized.Quantization`.
        base: of an adapter, where its base is; None: where the adapter says.

    Raises:
        DataError: for what is not there, damaged, pickled, no causal model, or quantised already.
        MissingExtra: without torch or safetensors; without transformers, if it is needed.
    """
    from posterhall import adapters
    from posterhall.adapters import saving
    from posterhall.models import foreign, hub
    from posterhall.models.quantized import of

    directory = hub.locate(path)
    if hub.is_adapter(directory):
        if saving.read_config(directory).classifies:
            raise saving.judging(directory)
        below, how = base_of(directory, base=base)
        model: Any = load(below, dtype=dtype, device=device, quantize=quantize or how)
        adapted: CausalModel = adapters.load(model, directory, fingerprint=hub.fingerprint(below)).eval()
        return adapted
    if base is not None:
        raise DataError(f"{directory} is a whole model and no adapter; it has no base")
    try:
        hub.read_config(directory)
    except DataError as error:
        try:
            return foreign.load(directory, dtype=dtype, device=device, quantize=quantize)
        except MissingExtra:
            raise MissingExtra("hf", f"{error}; reading it with transformers") from None
    if hub.has_halves(directory, of(quantize)):
        return foreign.load(directory, dtype=dtype, device=device, quantize=quantize)
    return hub.load(directory, dtype=dtype, device=device, quantize=quantize)


def text_files(directory: Path) -> Path:
    """Where the tokeniser, the chat template and the tokens that end a text are: with a model; of an adapter
    that has no tokeniser beside it, with its base.

    Raises:
        DataError: if that base is not there.
    """
    from posterhall.data import tokenizer
    from posterhall.models import hub

    if hub.is_adapter(directory) and not (directory / tokenizer.FILE).is_file():
        return base_of(directory)[0]
    return directory


def base_of(directory: Path, *, base: Path | str | None = None) -> tuple[Path, Quantization | None]:
    """Where the base of an adapter is, and how it has to be quantised to be what the adapter was trained on.

    Args:
        directory: of the adapter.
        base: where it is; None: where the adapter says, relative to here or to the adapter.

    Returns:
        Its directory; None if nothing is to be quantised (any more).

    Raises:
        DataError: if it is not there, or is an adapter itself.
    """
    from posterhall.adapters import saving
    from posterhall.models import hub
    from posterhall.models.quantized import Quantization

    config = saving.read_config(directory)
    named = str(base) if base is not None else config.base
    if not named:
        raise DataError(f"{directory}: the adapter does not say what it was trained on; say where that is")
    beside = directory / named
    try:
        below = hub.locate(beside if beside.is_dir() and not Path(named).is_dir() else named)
    except DataError as error:
        raise DataError(
            f"{directory}: the base of the adapter cannot be read: {error}. Say where it is (base, --base), "
            f"or change base_model_name_or_path in {saving.CONFIG}"
        ) from None
    if hub.is_adapter(below):
        raise DataError(f"{below} is an adapter too; the base of an adapter is a whole model")
    noted = config.quantization
    if noted is None or hub.read_quantization(below) is not None:
        return below, None
    try:
        return below, Quantization(**noted)
    except (DataError, TypeError) as error:
        raise DataError(f"{directory}: the note of how its base was quantised is damaged: {error}") from None
