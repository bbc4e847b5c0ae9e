"""The decoder: a stack of pre-norm blocks between an embedding and a head."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

from posterhall import seeds
from posterhall.adapters.dropout import again, passing
from posterhall.errors import DataError
from posterhall.extras import functional, nn, torch
from posterhall.models import _rows, monarch
from posterhall.models.cache import Cache
from posterhall.models.config import DecoderConfig
from posterhall.models.layers import FeedForward, RMSNorm
from posterhall.models.mixers import MixerFactory, Placement, Tree, factory
from posterhall.models.mixers.attention import Attention
from posterhall.objectives import products


class Decoder(nn.Module):
    """A language model: token ids to the logits of the next token.

    Args:
        config: its shape.
        seed: of the initial weights: the same seed gives the same weights, whatever was drawn elsewhere.
            None leaves them uninitialised, for weights that are loaded next.
        mixers: makers of mixers of one's own that `config.mixers` names beside those of
            `posterhall.models.mixers.MIXERS`.

    Attributes:
        config: its shape.
        gradient_checkpointing: compute each block once more in the backward pass instead of keeping its
            inner activations: about a third more time for a fraction of the memory.
        draws: training passes so far. What pass n drops follows from the seed and n alone, so
            a resumed training sets it to go on exactly.

    Raises:
        DataError: for a mixer that nobody makes.
    """

    def __init__(
        self,
        config: DecoderConfig,
        *,
        seed: int | None = 0,
        mixers: Mapping[str, MixerFactory] | None = None,
    ) -> None:
        super().__init__()
        self.config = config
        self.gradient_checkpointing = False
        self.draws = 0
        self._seed = seed or 0
        own = mixers or {}
        makers = {name: own[name] if name in own else factory(name, own) for name in config.mixers}
        self.embedding = nn.Parameter(torch.empty(config.vocab_size, config.dim))
        if config.positions == "learned":
            self.positions = nn.Parameter(torch.empty(config.max_length, config.dim))
        self.blocks = nn.ModuleList(
            Block(config, makers[name](config, layer), layer)
            for layer, name in enumerate(config.layer_mixers)
        )
        self.norm = RMSNorm(config.dim, config.norm_eps)
        if not config.tie_embeddings:
            self.head = nn.Parameter(torch.empty(config.vocab_size, config.dim))
        if seed is not None:
            self._initialise(seed)

    def _initialise(self, seed: int) -> None:
        config = self.config
        with torch.no_grad():
            for layer in range(config.layers):
                if hasattr(self._mixer(layer), "initialise"):
                    generator = torch.Generator().manual_seed(seeds.derive(seed, "decoder", "mixer", layer))
                    self._mixer(layer).initialise(generator)
            if config.ffn != "dense":
                for layer, block in enumerate(self.blocks):
                    fed: Any = block.feed_forward
                    fed.initialise(
                        torch.Generator().manual_seed(seeds.derive(seed, "decoder", "feed_forward", layer)),
                        std=config.init_std,
                        std_out=config.init_std / (2 * config.layers) ** 0.5,
                    )
            for name, parameter in self.named_parameters():
                if ".feed_forward." in name and config.ffn != "dense":
                    continue
                if ".mixer." in name and not isinstance(self._mixer(int(name.split(".")[1])), Attention):
                    continue  # others begin as they have it themselves
                if parameter.dim() < 2:
                    continue  # gains begin as ones
                into_stream = name.endswith(("mixer.out.weight", "feed_forward.down.weight"))
                std = config.init_std / ((2 * config.layers) ** 0.5 if into_stream else 1.0)
                generator = torch.Generator().manual_seed(seeds.derive(seed, "decoder", name))
                drawn = torch.empty(parameter.shape).normal_(0.0, std, generator=generator)
                parameter.copy_(drawn)

    def _mixer(self, layer: int) -> Any:
        return self.blocks[layer].mixer

    def hidden(
        self,
        ids: torch.Tensor,
        *,
        segments: torch.Tensor | None = None,
        trees: Sequence[Tree] | None = None,
        at: torch.Tensor | None = None,
        cache: Cache | None = None,
        valid: Sequence[int] | None = None,
        padding: Literal["right", "left"] = "right",
    ) -> torch.Tensor:
        """States after the last norm.

        Args:
            ids: (B, T) token ids, integers in [0, vocab_size).
            segments: (B, T) numbers of the documents packed into each row: no document sees another, and
                positions begin anew in each. Equal within a document, and not used again later in a row.
            trees: what the only row holds, one after the other: texts with continuations that share them.
            at: (M,) positions in the flattened ids whose states alone are wanted; the last feed-forward
                layer works only there. Not with a cache.
            cache: what was before; it takes up these tokens.
            valid: real tokens of each row; the others are padding, whose states mean nothing and which
                leaves no trace. Without a cache only what looks ahead or stands on the left needs it.
            padding: where a row's padding stands: at its end or at its beginning. Not on the left together
                with segments, trees or `at`.

        Returns:
            (B, T, D), or (M, D).

        Raises:
            DataError: for ids, lengths or shapes that do not fit.
        """
        batch, tokens = self._check(ids, segments, trees, cache, valid)
        if padding == "left" and valid is not None:
            if segments is not None or trees is not None or at is not None:
                raise DataError("padding on the left goes neither with segments nor with trees or at")
            # Mixers know padding at a row's end only: go there, and come back.
            ids = _rolled(ids, [count - tokens for count in valid])
            states = self.hidden(ids, cache=cache, valid=valid)
            return _rolled(states, [tokens - count for count in valid])
        placement = Placement(
            batch=batch,
            tokens=tokens,
            device=ids.device,
            past=tuple(cache.lengths) if cache is not None else None,
            valid=tuple(valid) if valid is not None else None,
            segments=segments,
            trees=tuple(trees) if trees is not None else None,
        )
        try:
            x = functional.embedding(ids, self.embedding)
        except IndexError as error:
            raise DataError(
                f"token ids from {int(ids.min())} to {int(ids.max())}; this model knows 0 to "
                f"{self.config.vocab_size - 1}. Is it another model's tokenizer?"
            ) from error
        if self.config.positions == "learned":
            # Only padding lies behind the longest sequence.
            x = x + self.positions[placement.positions().clamp(max=self.config.max_length - 1)]
        seed = self._pass()
        noise = seed if self.config.dropout else None
        if noise is not None:
            x = drop(x, self.config.dropout, noise, "embedding")
        with passing(seed):
            for layer, block in enumerate(self.blocks):
                wanted = at if layer == len(self.blocks) - 1 else None
                if cache is not None:
                    x = block(x, placement, cache.states[layer])
                elif self.gradient_checkpointing and self.training and torch.is_grad_enabled():
                    from torch.utils.checkpoint import checkpoint

                    x = checkpoint(
                        block, x, placement, None, noise, wanted,
                        use_reentrant=False, preserve_rng_state=False, context_fn=again,
                    )  # fmt: skip
                else:
                    x = block(x, placement, None, noise, wanted)
        if cache is not None:
            added = valid if valid is not None else [tokens] * batch
            cache.lengths = [past + new for past, new in zip(cache.lengths, added, strict=True)]
        result: torch.Tensor = self.norm(x)
        return result

    def projections(self) -> dict[str, tuple[tuple[str, int], ...]]:
        """What checkpoints call the linear layers that they call otherwise; see `_layouts.projections`."""
        from posterhall.models import _layouts

        return _layouts.projections(self)

    def head_weight(self) -> torch.Tensor:
        """(V, D): a hidden state's logits are its products with the rows."""
        return self.embedding if self.config.tie_embeddings else self.head

    def logits(self, states: torch.Tensor) -> torch.Tensor:
        """Logits (..., V) of states (..., D), in float32."""
        weight = self.head_weight()
        if _rows.takes(states, weight):
            return _rows.multiply(states, weight).float()
        return (states @ weight.t()).float()

    @property
    def device(self) -> torch.device:
        """Where its weights are."""
        return self.embedding.device

    @property
    def token_bytes(self) -> int:
        """What a token takes up in the states that grow, of all layers; at least 1."""
        config = self.config
        growing = [layer for layer in range(config.layers) if self._mixer(layer).growth == "linear"]
        numbers = 2 * len(growing) * config.key_value_heads * config.head_dim
        return max(1, numbers * self.embedding.element_size())

    def forward(
        self,
        ids: torch.Tensor,
        *,
        segments: torch.Tensor | None = None,
        cache: Cache | None = None,
        valid: Sequence[int] | None = None,
    ) -> torch.Tensor:
        """Logits (B, T, V); see `hidden` for the arguments.

        For training and scoring take `hidden` and `posterhall.objectives.lm`: logits of a large vocabulary
        are most of a step's memory and time.
        """
        hidden = self.hidden(ids, segments=segments, cache=cache, valid=valid)
        return products.linear(hidden, self.head_weight())

    def new_cache(self, batch: int, max_length: int | None = None) -> Cache:
        """An empty cache for `batch` rows of up to `max_length` tokens (None: the model's longest).

        Raises:
            DataError: if that is longer than the model's longest.
        """
        length = max_length or self.config.max_length
        if length > self.config.max_length:
            raise DataError(
                f"a cache of {length} tokens for a model of max_length {self.config.max_length}; "
                "shorten prompt and continuation"
            )
        weight = self.embedding
        states = [
            self._mixer(layer).new_state(batch, length, dtype=weight.dtype, device=weight.device)
            for layer in range(self.config.layers)
        ]
        return Cache(states, [0] * batch, length)

    def _pass(self) -> int | None:
        """The seed of what this pass drops; None if it is none of a training."""
        if not self.training:
            return None
        self.draws += 1
        return seeds.derive(self._seed, "dropout", self.draws)

    def _check(
        self,
        ids: torch.Tensor,
        segments: torch.Tensor | None,
        trees: Sequence[Tree] | None,
        cache: Cache | None,
        valid: Sequence[int] | None,
    ) -> tuple[int, int]:
        if ids.dim() != 2 or ids.shape[1] == 0 or ids.dtype not in (torch.int64, torch.int32):
            raise DataError(f"ids are {ids.dtype} of shape {tuple(ids.shape)}; give integers (B, T >= 1)")
        batch, tokens = ids.shape
        longest = tokens
        if trees is not None:
            self._check_trees(trees, batch, tokens, alone=segments is None and cache is None)
            longest = max(tree.trunk + max(tree.branches, default=0) for tree in trees)
        if longest > self.config.max_length:
            raise DataError(
                f"{longest} tokens for a model of max_length {self.config.max_length}; cut them, or make "
                "the model with a greater max_length"
            )
        if segments is not None and (segments.shape != ids.shape or cache is not None):
            raise DataError(
                f"segments of shape {tuple(segments.shape)} for ids {tuple(ids.shape)}"
                + (" with a cache; packed documents have none" if cache is not None else "; give the same")
            )
        if cache is not None and cache.batch != batch:
            raise DataError(f"ids have {batch} rows, the cache {cache.batch}")
        if valid is not None and (len(valid) != batch or not all(0 <= each <= tokens for each in valid)):
            raise DataError(f"valid is {list(valid)}; give {batch} numbers from 0 to {tokens}")
        if cache is not None:
            cache.room([tokens] * batch if valid is None else valid)
        return batch, tokens

    def _check_trees(self, trees: Sequence[Tree], batch: int, tokens: int, *, alone: bool) -> None:
        held = sum(tree.tokens for tree in trees)
        if not alone or batch != 1 or held != tokens:
            raise DataError(
                f"trees of {held} tokens for ids ({batch}, {tokens}); give ids (1, {held}), and neither "
                "segments nor a cache"
            )
        if any(tree.trunk < 1 or min(tree.branches, default=0) < 0 for tree in trees):
            raise DataError("a tree without a trunk; each has at least 1 token before it branches")
        others = sorted({name for name in self.config.layer_mixers if name != "attention"})
        if others:
            raise DataError(
                f"the model mixes by {', '.join(others)}, which knows no trees; give each text a row of its "
                "own"
            )


class Block(nn.Module):
    """x + mixer(norm(x)), then x + feed_forward(norm(x)) unless it has none."""

    def __init__(self, config: DecoderConfig, mixer: Any, layer: int) -> None:
        super().__init__()
        self.layer = layer
        self.dropout = config.dropout
        self.mixer_norm = RMSNorm(config.dim, config.norm_eps)
        self.mixer = mixer
        self.feeds = config.feed_forward_dim > 0
        if self.feeds:
            self.feed_forward_norm = RMSNorm(config.dim, config.norm_eps)
            self.feed_forward = (
                FeedForward(config.dim, config.feed_forward_dim)
                if config.ffn == "dense"
                else monarch.make(config)
            )

    def forward(
        self,
        x: torch.Tensor,
        placement: Placement,
        state: Any = None,
        noise: int | None = None,
        at: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """(B, T, D) to the same; `noise` is the pass's seed of dropout. With `at` (M,) only those, (M, D)."""
        mixed = self.mixer(self.mixer_norm(x), placement, state)
        if noise is not None:
            mixed = drop(mixed, self.dropout, noise, "mixer", self.layer)
        x = x + mixed
        if at is not None:
            x = x.flatten(0, 1).index_select(0, at)
        if not self.feeds:
            return x
        fed = self.feed_forward(self.feed_forward_norm(x))
        if noise is not None:
            fed = drop(fed, self.dropout, noise, "feed_forward", self.layer)
        result: torch.Tensor = x + fed
        return result


def _rolled(x: torch.Tensor, shifts: Sequence[int]) -> torch.Tensor:
    """x (B, T, ...) with the entries of each row moved round by so many places."""
    batch, tokens = x.shape[:2]
    along = torch.arange(tokens, device=x.device) - torch.tensor(shifts, device=x.device)[:, None]
    return x[torch.arange(batch, device=x.device)[:, None], along % tokens]


def drop(x: torch.Tensor, share: float, seed: int, *place: str | int) -> torch.Tensor:
    """Dropout (Srivastava et al. 2014) whose mask follows from a seed and a place.

    Torch's own draws from the process's generator: then a block computed again would need its state kept,
    and a resumed run would need it saved.
    """
    generator = torch.Generator(device=x.device).manual_seed(seeds.derive(seed, *place))
    kept = torch.empty_like(x).bernoulli_(1.0 - share, generator=generator)
    return x * kept.div_(1.0 - share)
