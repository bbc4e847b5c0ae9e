"""Causal models of `transformers` with a decoder's face: any architecture that it has.

Its layers hand their keys and values to the states that our own attention has, so that rows of any length
are read beside each other, join, leave and forget tokens, and prompts' beginnings are kept. What remembers
in another way (recurrent models, say) is read anew from its first token with each step: slow, and right.
Loading tries the first, and compares it with the model read plainly.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from posterhall import seeds
from posterhall.adapters import placing
from posterhall.adapters.dropout import again, passing
from posterhall.adapters.lora import features
from posterhall.errors import DataError
from posterhall.extras import nn, require, torch
from posterhall.models import hub, quantized
from posterhall.models.cache import Cache
from posterhall.models.mixers import Placement
from posterhall.models.mixers.attention import AttentionState
from posterhall.models.quantized import Quantization

_LENGTHS = ("max_position_embeddings", "n_positions", "n_ctx", "max_seq_len", "max_sequence_length")
_ENDLESS = 1 << 20
"""Longest sequence of a model that names none."""
_FULL, _SLIDING = "full_attention", "sliding_attention"
_Layers = dict[int, tuple[int, ...]]
"""By the number that a layer has in the model: heads of keys, and entries of each."""


@dataclass(frozen=True)
class ForeignConfig:
    """The shape of a model, as far as others need it."""

    vocab_size: int
    """Logits."""
    dim: int
    """Entries of a state."""
    max_length: int
    """Longest sequence, in tokens."""
    architecture: str
    """Its class."""
    settings: str
    """Its config.json."""

    @classmethod
    def of(cls, model: Any, head: Any, vocab_size: int) -> ForeignConfig:
        """Of a model of transformers and the layer that works on its states."""
        settings = model.config.get_text_config()
        lengths = (getattr(settings, name, None) for name in _LENGTHS)
        return cls(
            vocab_size=vocab_size,
            dim=int(head.weight.shape[1]),
            max_length=next((int(each) for each in lengths if each), _ENDLESS),
            architecture=type(model).__name__,
            settings=model.config.to_json_string(),
        )


class Foreign(nn.Module):
    """A model of `transformers` as a `CausalModel`.

    Args:
        model: an `AutoModelForCausalLM`, in evaluation mode.

    Attributes:
        config: its shape.
        remembers: whether keys and values are kept; if not, each step reads the whole text again.
        draws: training passes so far; see `Decoder`. What adapters drop in a pass follows from it.

    Raises:
        DataError: if its logits are not what its head makes of its states.
    """

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.model = model
        self.draws = 0
        self._checkpointing = False
        settings = model.config.get_text_config()
        head = model.get_output_embeddings()
        if head is None:
            raise DataError(f"{type(model).__name__} has no head that gives logits; it is no language model")
        self.config = ForeignConfig.of(model, head, int(head.weight.shape[0]))
        self._softcap = getattr(settings, "final_logit_softcapping", None)
        self._scale = getattr(settings, "logit_scale", None) or 1 / getattr(settings, "logits_scaling", 1)
        self._window = getattr(settings, "sliding_window", None)
        kinds = set(getattr(settings, "layer_types", None) or [_SLIDING if self._window else _FULL])
        self._kinds = sorted(kinds)
        self._layers: _Layers = {}
        self.remembers = kinds <= {_FULL, _SLIDING} and self._finds_layers() and self._agrees()
        if not self.remembers:
            self._layers = {}
            if not self._agrees():
                raise DataError(
                    f"{self.config.architecture} makes its logits in a way that is not known here; serve it "
                    "with vLLM or llama.cpp and connect to that: http://HOST/v1#NAME"
                )

    @property
    def device(self) -> torch.device:
        """Where its weights are."""
        found: torch.device = next(self.model.parameters()).device
        return found

    @property
    def token_bytes(self) -> int:
        """Of the keys and values of a token, in all layers; a number, where only that is kept."""
        size: int = next(self.model.parameters()).element_size()
        return max(8, sum(2 * heads * entries * size for heads, entries in self._layers.values()))

    def new_cache(self, batch: int, max_length: int | None = None) -> Cache:
        """An empty cache; see `Decoder.new_cache`."""
        length = max_length or self.config.max_length
        if length > self.config.max_length:
            raise DataError(
                f"a cache of {length} tokens for a model of {self.config.max_length}; "
                "shorten prompt and continuation"
            )
        if not self._layers:
            return Cache([_Texts([[] for _ in range(batch)])], [0] * batch, length)
        first = next(self.model.parameters())
        return Cache(
            [
                AttentionState(
                    torch.zeros((2, batch, heads, length, size), dtype=first.dtype, device=first.device)
                )
                for heads, size in self._layers.values()
            ],
            [0] * batch,
            length,
        )

    def hidden(
        self,
        ids: torch.Tensor,
        *,
        at: torch.Tensor | None = None,
        cache: Cache | None = None,
        valid: Sequence[int] | None = None,
    ) -> torch.Tensor:
        """States after the last norm; see `Decoder.hidden`. Padding is at the end of rows."""
        batch, tokens = ids.shape
        if cache is None:
            self.draws += self.training
            with passing(seeds.derive(0, "dropout", self.draws) if self.training else None):
                states = self._plain(ids)
            return states if at is None else states.flatten(0, 1).index_select(0, at)
        added = [tokens] * batch if valid is None else list(valid)
        cache.room(added)
        text = cache.states[0]
        if isinstance(text, _Texts):
            states = self._whole(ids, text, cache.lengths, added)
        else:
            states = self._continued(ids, cache, added)
        cache.lengths = [past + new for past, new in zip(cache.lengths, added, strict=True)]
        return states

    @property
    def gradient_checkpointing(self) -> bool:
        """Whether blocks are computed once more in the backward pass; see `Decoder`.

        Raises:
            DataError: when it is set for a model that cannot.
        """
        return self._checkpointing

    @gradient_checkpointing.setter
    def gradient_checkpointing(self, wanted: bool) -> None:
        if wanted == self._checkpointing:
            return
        # New versions of transformers call it so; in the old ones it is "gradient".
        new = hasattr(self.model, "activation_checkpointing_enable")
        kind = "activation" if new else "gradient"
        change = getattr(self.model, f"{kind}_checkpointing_{'enable' if wanted else 'disable'}")
        try:
            change(*([{"use_reentrant": False, "context_fn": again}] if wanted else []))
        except ValueError as error:
            raise DataError(f"gradient_checkpointing: {error}") from None
        self._checkpointing = wanted

    @property
    def plain_head(self) -> bool:
        """Whether logits are products with the rows of `head_weight` and nothing more."""
        head = self.model.get_output_embeddings()
        return self._softcap is None and self._scale == 1 and getattr(head, "bias", None) is None

    def projections(self) -> dict[str, tuple[tuple[str, int], ...]]:
        """What checkpoints call the linear layers: what transformers does."""
        return {
            path: ((path.removeprefix("model."), features(layer)[1]),)
            for path, layer in placing.linear_layers(self)
        }

    def head_weight(self) -> torch.Tensor:
        """(V, D): a hidden state's logits are its products with the rows.

        Raises:
            DataError: for a model that does something more to make them.
        """
        if not self.plain_head:
            raise DataError(
                f"{self.config.architecture} does more to its head's products than take them for logits; "
                "this needs a model whose logits they are"
            )
        weight: torch.Tensor = self.model.get_output_embeddings().weight
        return weight

    def logits(self, states: torch.Tensor) -> torch.Tensor:
        """Logits (..., V) of states (..., D), in float32."""
        found: torch.Tensor = self.model.get_output_embeddings()(states).float() * self._scale
        return found if self._softcap is None else self._softcap * torch.tanh(found / self._softcap)

    # -- reading ------------------------------------------------------------------------------------

    def _backbone(self) -> Any:
        return self.model.get_decoder() if hasattr(self.model, "get_decoder") else self.model.base_model

    def _plain(self, ids: torch.Tensor) -> torch.Tensor:
        found: torch.Tensor = self._backbone()(input_ids=ids, use_cache=False)[0]
        return found

    def _continued(self, ids: torch.Tensor, cache: Cache, valid: Sequence[int]) -> torch.Tensor:
        batch, tokens = ids.shape
        placement = Placement(
            batch=batch, tokens=tokens, device=ids.device, past=tuple(cache.lengths), valid=tuple(valid)
        )
        states = dict(zip(self._layers, cache.states, strict=True))

        def extend(layer: int, keys: torch.Tensor, values: torch.Tensor) -> Any:
            state: Any = states[layer]
            return state.extend(keys, values, placement)

        return self._through(ids, placement, extend)

    def _through(
        self, ids: torch.Tensor, placement: Placement, extend: Callable[[int, Any, Any], Any]
    ) -> torch.Tensor:
        backbone = self._backbone()
        handed = _handing()(extend, max(placement.past or (0,)), placement.end)
        masks = {kind: self._mask(placement, kind) for kind in self._kinds}
        found: torch.Tensor = backbone(
            input_ids=ids,
            attention_mask=masks if len(masks) > 1 else next(iter(masks.values())),
            # Only padding lies behind the longest sequence.
            position_ids=placement.positions().clamp(max=self.config.max_length - 1),
            use_cache=True,
            **{_cache_name(type(backbone).forward): handed},
        )[0]
        return found

    def _mask(self, placement: Placement, kind: str) -> torch.Tensor:
        """(B, 1, T, S): 0 where a token is seen, and the least number where it is not."""
        positions = placement.positions()[..., None]
        along = torch.arange(placement.end, device=placement.device)
        seen = along <= positions
        if kind == _SLIDING and self._window:
            seen &= along > positions - self._window
        dtype = next(self.model.parameters()).dtype
        mask = torch.zeros(seen.shape, dtype=dtype, device=placement.device)
        return mask.masked_fill_(~seen, torch.finfo(dtype).min)[:, None]

    def _whole(
        self, ids: torch.Tensor, text: _Texts, lengths: Sequence[int], valid: Sequence[int]
    ) -> torch.Tensor:
        """Read everything again. Padding is at the end, where nothing causal sees it."""
        text.rows = [
            [*row[:past], *new[:count]]
            for row, past, new, count in zip(text.rows, lengths, ids.tolist(), valid, strict=True)
        ]
        width = max(lengths) + ids.shape[1]
        padded = [[*row, *[0] * (width - len(row))] for row in text.rows]
        states = self._plain(torch.tensor(padded, device=ids.device))
        places = torch.tensor(list(lengths), device=ids.device)[:, None]
        places = places + torch.arange(ids.shape[1], device=ids.device)
        return states[torch.arange(len(padded), device=ids.device)[:, None], places]

    # -- at the beginning ---------------------------------------------------------------------------

    def _finds_layers(self) -> bool:
        """Whether keys and values are handed over, both of one shape; notes these."""

        def extend(layer: int, keys: torch.Tensor, values: torch.Tensor) -> Any:
            if keys.shape != values.shape or keys.dim() != 4 or keys.shape[2] != 1:
                raise ValueError("not a key and a value for each token")
            self._layers[layer] = (int(keys.shape[1]), int(keys.shape[3]))
            return keys, values

        one = torch.zeros((1, 1), dtype=torch.long, device=self.device)
        placement = Placement(batch=1, tokens=1, device=self.device, past=(0,))
        try:
            with torch.no_grad():
                self._through(one, placement, extend)
        except Exception:  # whatever an architecture does with what it does not expect
            return False
        return bool(self._layers)

    def _agrees(self) -> bool:
        """Whether rows of unequal length, read in pieces, give the logits of the model read plainly."""
        size = min(7, self.config.max_length)
        ids = (torch.arange(2 * size, device=self.device).view(2, size) * 37 + 11) % self.config.vocab_size
        first = [size - 2, max(1, size - 4)]
        rest = torch.stack([row[at : at + 2] for row, at in zip(ids, first, strict=True)])
        try:
            with torch.no_grad():
                expected = self.model(input_ids=ids, use_cache=False).logits.float()
                cache = self.new_cache(2, size)
                self.hidden(ids[:, : max(first)], cache=cache, valid=first)
                found = self.logits(self.hidden(rest, cache=cache))
        except Exception:  # see above
            return False
        expected = torch.stack([row[at : at + 2] for row, at in zip(expected, first, strict=True)])
        exact = next(self.model.parameters()).dtype in (torch.float32, torch.float64)
        limit = (1e-3 if exact else 0.1) * max(1.0, float(expected.std()))
        return found.shape == expected.shape and float((found - expected).abs().max()) <= limit


class Headless(nn.Module):
    """A classifier of `transformers` as the model below a reward model: states, and nothing else.

    Args:
        classifier: an `AutoModelForSequenceClassification` whose `score` works on the last states.

    Attributes:
        classifier: the whole.
        config: its shape.
    """

    def __init__(self, classifier: Any) -> None:
        super().__init__()
        self.classifier = classifier
        words = int(classifier.config.get_text_config().vocab_size)
        self.config = ForeignConfig.of(classifier, classifier.score, words)

    def hidden(self, ids: torch.Tensor, *, at: torch.Tensor) -> torch.Tensor:
        """States after the last norm at some places, (M, D); see `Decoder.hidden`."""
        states: torch.Tensor = self.classifier.base_model(input_ids=ids, use_cache=False)[0]
        return states.flatten(0, 1).index_select(0, at)


class _Texts:
    """The state of what has none to be kept: the tokens of each row."""

    def __init__(self, rows: list[list[int]]) -> None:
        self.rows = rows

    def select(self, rows: Sequence[int]) -> _Texts:
        return _Texts([list(self.rows[row]) for row in rows])

    def join(self, other: _Texts, rows: Sequence[int]) -> None:
        self.rows += [list(other.rows[row]) for row in rows]

    def keep(self, rows: Sequence[int]) -> None:
        self.rows = [self.rows[row] for row in rows]

    def resize(self, max_length: int) -> None:
        """Lists grow by themselves."""

    def read(self, row: int, start: int, stop: int) -> torch.Tensor:
        return torch.tensor(self.rows[row][start:stop])

    def write(self, row: int, start: int, pieces: Sequence[torch.Tensor]) -> None:
        self.rows[row][start:] = torch.cat(list(pieces)).tolist()


@functools.cache
def _handing() -> Any:
    """A cache, as the layers of `transformers` see it, that hands on what it is given."""
    from transformers.cache_utils import Cache as Theirs

    class Handing(Theirs):
        def __init__(self, extend: Callable[[int, Any, Any], Any], past: int, end: int) -> None:
            self.layers: list[Any] = []
            self.layer_class_to_replicate = None
            self.offloading = False
            self._extend, self._past, self._end = extend, past, end

        def update(self, key_states: Any, value_states: Any, layer_idx: int, *_: Any, **__: Any) -> Any:
            return self._extend(layer_idx, key_states, value_states)

        def get_seq_length(self, *_: Any, **__: Any) -> int:
            return self._past

        def get_mask_sizes(self, *_: Any, **__: Any) -> tuple[int, int]:
            return self._end, 0

    return Handing


@functools.cache
def _cache_name(forward: Callable[..., Any]) -> str:
    """What the cache is called: "cache" in new versions of transformers, "past_key_values" before."""
    names = inspect.signature(forward).parameters
    return "cache" if "cache" in names else "past_key_values"


def load(
    path: Path | str,
    *,
    dtype: Any = None,
    device: Any = "cpu",
    quantize: str | Quantization | None = None,
) -> Foreign:
    """Read a checkpoint of any causal architecture of `transformers`.

    No code of the checkpoint is run, and no pickle is opened.

    Args:
        path: see `posterhall.models.hub.load`.
        dtype: a torch type, or its name; None keeps that of the files.
        device: where to put it.
        quantize: see `posterhall.models.hub.load`.

    Raises:
        DataError: for what is not there, damaged, pickled, no causal model, or one that brings its own code.
        MissingExtra: without transformers.
    """
    from posterhall.models import foreign_files

    require("transformers", "hf", "a model of an architecture that is not Llama's")
    directory = hub.locate(path)
    hub.weight_files(directory)
    how, wanted = quantized.of(quantize), hub.dtype_of(dtype)
    hub.check_quantized_once(directory, how)
    if hub.read_quantization(directory) is not None:
        return Foreign(foreign_files.read_quantized(directory, wanted).to(device).eval()).eval()
    model = foreign_files.read(directory, wanted)
    if how is not None:
        quantized.quantize_layers(model, how)
    return Foreign(model.to(device).eval()).eval()
