"""Classifiers of whole sequences, of tokens or of samples, on any mixer, with the baselines they are held to.

    config = ClassifierConfig(classes=10, channels=1, mixers=("s4d",), max_length=784)
    model = Classifier(config, seed=0)
    model(samples, lengths)                # (B, 784, 1), (B,) -> logits (B, 10)

Layers, the mean over a row's real positions, and a linear head, as the Long Range Arena's models have them
(Tay et al. 2021, arXiv 2011.04006; Gu et al. 2022, arXiv 2111.00396, app. D). Padding behind a row's end is
never counted, and never seen by what looks ahead. Files: `posterhall.models.classifier_files`.
"""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from posterhall import seeds
from posterhall.adapters.dropout import passing
from posterhall.errors import DataError
from posterhall.extras import functional, nn, torch
from posterhall.models.config import DecoderConfig, Positions, Scalar
from posterhall.models.decoder import Block, drop
from posterhall.models.encoding import FullAttention, Recurrent
from posterhall.models.layers import Linear, RMSNorm
from posterhall.models.mixers import MixerFactory, Placement, factory

RECURRENT = ("lstm", "gru")
"""Baselines that are no mixers: a stack of torch's own layers, without norms and residuals."""
BOTH_WAYS = ("s4", "s4d", "s5", "long_conv", "mega", "performer")
"""Mixers with a setting `bidirectional`."""
WHOLE = ("s4", "s4d", "s5", "long_conv", "mamba", "mamba2")
"""Mixers that mix channels by a gate of their own, and are stacked without feed-forward layers in their
papers."""
_POSITION_STD = 0.02
"""Of learned positions at the beginning (Devlin et al. 2019; the Long Range Arena's Transformer too)."""
_WIDEST = 4096


@dataclass(frozen=True)
class ClassifierConfig:
    """The shape of a classifier. Give `vocab` for tokens, or `channels` for samples.

    Raises:
        DataError: if a value is out of range or two do not fit together.
    """

    classes: int
    """Classes, >= 2."""
    channels: int | None = None
    """Numbers at each position, >= 1, of samples; None: rows are tokens."""
    vocab: int | None = None
    """Tokens, padding (0) included, >= 2; None: rows are samples."""
    pairs: bool = False
    """Classify two rows at a time, by their means u and v as [u, v, u - v, u * v] (the Long Range Arena's
    retrieval)."""
    max_length: int = 1024
    """Longest row; longer ones are an error, never cut."""
    dim: int = 64
    """Width D."""
    layers: int = 2
    """Layers, >= 1."""
    heads: int = 4
    """Heads, of mixers that have them."""
    mixers: tuple[str, ...] = ("s4d",)
    """One of `posterhall.models.mixers.MIXERS` for all layers, or one a layer; or lstm or gru alone."""
    mixer_settings: Mapping[str, Mapping[str, Scalar]] = field(default_factory=dict, hash=False)
    """See `DecoderConfig`."""
    both_ways: bool = False
    """Let see what comes after each position what can: `BOTH_WAYS`, attention, lstm, gru."""
    positions: Positions = "rotary"
    """Of attention and windows: rotary; a vector for each position, for all mixers (learned); or none."""
    feed_forward: float | None = None
    """Width of feed-forward layers (SwiGLU) by the model's; 0: there are none; None: 2, and none after
    `WHOLE`."""
    dropout: float = 0.0
    """Share of entries dropped after the input, each mixer and each feed-forward layer, in [0, 1)."""

    def __post_init__(self) -> None:
        if self.classes < 2:
            raise DataError(f"classes is {self.classes}; it must be at least 2")
        if (self.channels is None) == (self.vocab is None):
            raise DataError(
                f"channels is {self.channels} and vocab {self.vocab}; give one of them: channels of samples, "
                "or the number of tokens"
            )
        for name, least in (("channels", 1), ("vocab", 2), ("dim", 1), ("layers", 1), ("max_length", 1)):
            value = getattr(self, name)
            if value is not None and value < least:
                raise DataError(f"{name} is {value}; it must be at least {least}")
        if self.feed_forward is not None and not 0 <= self.feed_forward <= 64:
            raise DataError(f"feed_forward is {self.feed_forward}; it must be from 0 to 64, or none")
        if not 0 <= self.dropout < 1:
            raise DataError(f"dropout is {self.dropout}; it must be at least 0 and below 1")
        among = [name for name in self.mixers if name in RECURRENT]
        if among and (len(self.mixers) > 1 or self.mixer_settings):
            raise DataError(
                f"{among[0]} stands with {', '.join(self.mixers)} or has settings; it is a model by itself "
                "and has none"
            )
        object.__setattr__(self, "mixers", tuple(self.mixers))
        object.__setattr__(
            self, "mixer_settings", {name: dict(each) for name, each in self.mixer_settings.items()}
        )
        if not among:
            self.shape(0)

    @property
    def recurrent(self) -> bool:
        """Whether it is an LSTM or a GRU."""
        return self.mixers[0] in RECURRENT

    @property
    def layer_mixers(self) -> tuple[str, ...]:
        """The name of each layer's mixer."""
        return self.mixers if len(self.mixers) == self.layers else self.mixers * self.layers

    def shape(self, layer: int) -> DecoderConfig:
        """What a layer's mixer and block are made from; weights begin as N(0, 1 / D)."""
        given = {name: dict(each) for name, each in self.mixer_settings.items()}
        if self.both_ways:
            for name in set(self.mixers) & set(BOTH_WAYS):
                given[name] = {"bidirectional": True, **given.get(name, {})}
        factor = self.feed_forward
        if factor is None:
            factor = 0.0 if self.layer_mixers[layer % len(self.layer_mixers)] in WHOLE else 2.0
        return DecoderConfig(
            vocab_size=1,
            dim=self.dim,
            layers=self.layers,
            heads=self.heads,
            ffn_dim=max(1, round(factor * self.dim)) if factor else 0,
            max_length=self.max_length,
            positions=self.positions,
            mixers=self.mixers,
            mixer_settings=given,
            dropout=self.dropout,
            init_std=self.dim**-0.5,
        )


class Classifier(nn.Module):
    """Rows to the logits of their classes.

    Blocks are the decoder's: x + mixer(norm(x)), then x + feed_forward(norm(x)) where there is one.

    Args:
        config: its shape.
        seed: of the initial weights and of dropout; None leaves them as torch does, for weights loaded next.
        mixers: makers of mixers of one's own, as for `Decoder`.

    Attributes:
        config: its shape.
        draws: training passes so far; what pass n drops follows from the seed and n alone.
        shift, scale: (channels,), what samples lose and are divided by first; see `standardise`.

    Raises:
        DataError: for a mixer that nobody makes, or that cannot be made so.
    """

    shift: torch.Tensor
    scale: torch.Tensor

    def __init__(
        self,
        config: ClassifierConfig,
        *,
        seed: int | None = 0,
        mixers: Mapping[str, MixerFactory] | None = None,
    ) -> None:
        super().__init__()
        self.config = config
        self.draws = 0
        self._seed = seed or 0
        inputs = config.dim
        if config.vocab is not None:
            self.embedding = nn.Parameter(torch.empty(config.vocab, config.dim))
        else:
            channels = config.channels or 1
            self.register_buffer("shift", torch.zeros(channels))
            self.register_buffer("scale", torch.ones(channels))
            if config.recurrent:  # its first layer is a projection already
                inputs = channels
            else:
                self.project = nn.Linear(channels, config.dim)
        if config.recurrent:
            self.stack = Recurrent(
                config.mixers[0], inputs, config.dim, config.layers, both_ways=config.both_ways
            )
            width = self.stack.width
        else:
            if config.positions == "learned":
                self.positions = nn.Parameter(torch.empty(config.max_length, config.dim))
            makers = _makers(config, mixers or {})
            self.blocks = nn.ModuleList(
                Block(config.shape(layer), makers[name](config.shape(layer), layer), layer)
                for layer, name in enumerate(config.layer_mixers)
            )
            self.norm = RMSNorm(config.dim, 1e-5)
            width = config.dim
        self.head = nn.Linear(4 * width if config.pairs else width, config.classes)
        if seed is not None:
            with torch.no_grad():
                self._initialise(seed)

    def _initialise(self, seed: int) -> None:
        def drawn(*place: str | int) -> torch.Generator:
            return torch.Generator().manual_seed(seeds.derive(seed, "classifier", *place))

        if self.config.recurrent:
            bound = self.config.dim**-0.5
            generator = drawn("recurrent")
            for parameter in self.parameters():  # as torch has it, but from a generator
                parameter.uniform_(-bound, bound, generator=generator)
            if self.config.vocab is not None:
                self.embedding.normal_(0.0, bound, generator=drawn("embedding"))
            return
        for name, parameter in self.named_parameters():
            place, _, _ = name.partition(".")
            if place == "blocks":
                continue
            if place == "positions":
                parameter.normal_(0.0, _POSITION_STD, generator=drawn(name))
            elif parameter.dim() == 2:
                parameter.normal_(0.0, parameter.shape[-1] ** -0.5, generator=drawn(name))
            elif name.endswith("bias"):
                parameter.zero_()
        for layer, block in enumerate(self.blocks):
            mixer: Any = block.mixer
            if hasattr(mixer, "initialise"):
                mixer.initialise(drawn("mixer", layer))
            own = () if hasattr(mixer, "initialise") else (("mixer", mixer),)
            fed = (("feed_forward", block.feed_forward),) if block.feeds else ()
            for place, part in (*own, *fed):
                for name, module in part.named_modules():  # type: ignore[union-attr]
                    if isinstance(module, Linear):
                        std = module.in_features**-0.5
                        if name in ("out", "down"):  # what writes into the residual stream (GPT-2)
                            std /= (2 * self.config.layers) ** 0.5
                        module.weight.normal_(0.0, std, generator=drawn(place, layer, name))

    @property
    def looks_ahead(self) -> bool:
        """Whether every layer sees what comes after a position."""
        if self.config.recurrent:
            return self.config.both_ways
        return not any(block.mixer.causal for block in self.blocks)

    @property
    def continuous(self) -> bool:
        """Whether all mixers have steps in time, so that another sampling rate needs no training."""
        return not self.config.recurrent and all(hasattr(block.mixer, "rate") for block in self.blocks)

    @property
    def rate(self) -> float:
        """Factor of all steps: 0.5 for rows that are sampled twice as often as those of the training."""
        return float(self.blocks[0].mixer.rate) if self.continuous else 1.0  # type: ignore[arg-type, union-attr]

    @rate.setter
    def rate(self, value: float) -> None:
        if not self.continuous:
            raise DataError(
                f"a model on {', '.join(dict.fromkeys(self.config.mixers))} counts positions and has no time "
                "to be scaled; models on s4, s4d, s5 and h3 have"
            )
        for block in self.blocks:
            block.mixer.rate = value  # type: ignore[union-attr]

    def standardise(self, samples: NDArray[np.float32], lengths: NDArray[np.int64]) -> None:
        """Let `shift` and `scale` be mean and standard deviation of each channel over real positions.

        Args:
            samples: (n, T, channels), of the training.
            lengths: (n,).
        """
        real = samples[np.arange(samples.shape[1]) < lengths[:, None]].astype(np.float64)
        deviation = real.std(axis=0)
        self.shift.copy_(torch.from_numpy(real.mean(axis=0)))
        self.scale.copy_(torch.from_numpy(np.where(deviation > 0, deviation, 1.0)))

    def forward(self, inputs: torch.Tensor, lengths: torch.Tensor | None = None) -> torch.Tensor:
        """Logits.

        Args:
            inputs: tokens (B, T), integers, or samples (B, T, channels), any float type; of pairs with one
                axis more after the first: (B, 2, T).
            lengths: real positions of each row, (B,) or (B, 2), at least 1; None: all are.

        Returns:
            (B, classes).

        Raises:
            DataError: for inputs of another shape, empty rows, and rows above `max_length`.
        """
        if not self.config.pairs:
            means = self.means(inputs, lengths)
        else:
            flat = None if lengths is None else lengths.flatten(0, 1)
            u, v = self.means(inputs.flatten(0, 1), flat).unflatten(0, (-1, 2)).unbind(1)
            means = torch.cat((u, v, u - v, u * v), dim=-1)
        result: torch.Tensor = self.head(means)
        return result

    def means(self, inputs: torch.Tensor, lengths: torch.Tensor | None = None) -> torch.Tensor:
        """What the head is given: the mean over each row's real positions, (B, width).

        Args:
            inputs, lengths: as `forward`, of single rows.
        """
        placement = self._placement(inputs, lengths)
        x = self._embedded(inputs)
        seed = self._pass()
        noise = seed if self.config.dropout else None
        if noise is not None:
            x = drop(x, self.config.dropout, noise, "input")
        if self.config.recurrent:
            x = self.stack(x, placement.valid, self.config.dropout, noise)
        else:
            if self.config.positions == "learned":
                x = x + self.positions[: placement.tokens]
            with passing(seed):
                for block in self.blocks:
                    x = block(x, placement, None, noise)
            x = self.norm(x)
        if placement.valid is None:
            return x.mean(dim=1)
        count = torch.tensor(placement.valid, device=x.device)
        real = torch.arange(placement.tokens, device=x.device) < count[:, None]
        # What stands on padding may be anything, infinities too: masked, not multiplied by zero.
        return x.masked_fill(~real[..., None], 0.0).sum(dim=1) / count[:, None].to(x.dtype)

    def _embedded(self, inputs: torch.Tensor) -> torch.Tensor:
        if self.config.vocab is None:
            samples = (inputs.to(self.shift.dtype) - self.shift) / self.scale
            return samples if self.config.recurrent else self.project(samples)
        try:
            return functional.embedding(inputs, self.embedding)
        except IndexError as error:
            raise DataError(
                f"tokens from {int(inputs.min())} to {int(inputs.max())}; this model knows 0 (padding) to "
                f"{self.config.vocab - 1}"
            ) from error

    def _placement(self, inputs: torch.Tensor, lengths: torch.Tensor | None) -> Placement:
        config = self.config
        if config.vocab is None:
            fits = inputs.dim() == 3 and inputs.shape[2] == config.channels and inputs.is_floating_point()
            wanted = f"floats (rows, positions, {config.channels})"
        else:
            fits = inputs.dim() == 2 and inputs.dtype in (torch.int64, torch.int32)
            wanted = "integers (rows, positions)"
        if not fits or 0 in inputs.shape[:2]:
            raise DataError(
                f"inputs are {inputs.dtype} of shape {tuple(inputs.shape)}; give {wanted}, at least one of "
                "each" + (", two rows for each pair" if config.pairs else "")
            )
        batch, tokens = inputs.shape[:2]
        if tokens > config.max_length:
            raise DataError(
                f"rows of {tokens:,} positions for a model of max_length {config.max_length:,}; nothing is "
                "cut silently: give shorter rows, or make the model with a greater max_length"
            )
        valid = None if lengths is None else tuple(lengths.tolist())
        if valid is not None:
            if len(valid) != batch or not all(1 <= each <= tokens for each in valid):
                raise DataError(
                    f"lengths are {list(valid)[:8]} for {batch} rows of {tokens} positions; give one for "
                    f"each row, from 1 to {tokens}"
                )
            if min(valid) == tokens:
                valid = None
        return Placement(batch, tokens, inputs.device, valid=valid)

    def _pass(self) -> int | None:
        """The seed of what this pass drops; None if it is none of a training."""
        if not self.training:
            return None
        self.draws += 1
        return seeds.derive(self._seed, "dropout", self.draws)


def parameters(model: nn.Module) -> int:
    """How many numbers a model learns."""
    return sum(each.numel() for each in model.parameters())


def sized(config: ClassifierConfig, wanted: int, *, multiple: int = 1) -> ClassifierConfig:
    """The same shape with the width whose number of parameters comes nearest to the one wanted.

    Args:
        config: whose width does not matter.
        wanted: parameters, >= 1.
        multiple: widths are multiples of it, >= 1.

    Raises:
        DataError: if no width can be (mixers or settings that do not exist).
    """
    refused: DataError | None = None
    best: tuple[int, ClassifierConfig] | None = None
    for dim in itertools.count(multiple, multiple):
        try:
            each = dataclasses.replace(config, dim=dim)
            count = parameters(Classifier(each, seed=None))
        except DataError as error:  # some widths do not suit some mixers
            refused = error
            if dim > _WIDEST:
                break
            continue
        if best is None or abs(count - wanted) < abs(best[0] - wanted):
            best = count, each
        if count >= wanted or dim > _WIDEST:
            break
    if best is None:
        assert refused is not None  # noqa: S101 - for the type checker
        raise refused
    return best[1]


def lengthened(model: Classifier, max_length: int) -> Classifier:
    """The same weights in a model for rows of up to so many positions, in evaluation mode.

    Raises:
        DataError: for a model whose weights or outputs depend on its longest row (long_conv, hyena,
            base_conv, linformer, mega, learned positions).
    """
    config = model.config
    longer = Classifier(dataclasses.replace(config, max_length=max_length), seed=None).eval()
    bound = DataError(
        f"{', '.join(dict.fromkeys(config.mixers))}"
        f"{' with learned positions' if config.positions == 'learned' else ''}: bound to rows of up to "
        f"{config.max_length:,} positions; {max_length:,} need a model trained at that length"
    )
    try:
        longer.load_state_dict(model.state_dict())
    except RuntimeError:
        raise bound from None
    if model.continuous:
        longer.rate = model.rate
    # Some functions of a position have no weights for each of them, but depend on the longest all the same.
    tokens = min(config.max_length, max_length)
    if config.vocab is None:
        probe = torch.linspace(-1, 1, tokens)[None, :, None].expand(1, tokens, config.channels or 1)
    else:
        probe = torch.arange(tokens)[None] % config.vocab
    was = model.training
    with torch.no_grad():
        before = model.eval().means(probe)
        after = longer.means(probe)
    model.train(was)
    if not torch.allclose(before, after, rtol=1e-3, atol=1e-4 * float(before.abs().max())):
        raise bound
    return longer


def _makers(config: ClassifierConfig, own: Mapping[str, MixerFactory]) -> dict[str, MixerFactory]:
    found: dict[str, MixerFactory] = {}
    for name in config.mixers:
        if name == "attention" and config.both_ways and name not in own:
            found[name] = lambda shape, layer: FullAttention(shape)
        else:
            found[name] = own[name] if name in own else factory(name, (*own, *RECURRENT))
    return found
