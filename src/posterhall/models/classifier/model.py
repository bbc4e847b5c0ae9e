"""The classifier: layers, the mean over a row's real positions, a head."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from posterhall import seeds
from posterhall.adapters.dropout import passing
from posterhall.errors import DataError
from posterhall.extras import functional, nn, torch
from posterhall.models.classifier.config import RECURRENT, ClassifierConfig
from posterhall.models.classifier.layers import FullAttention, Recurrent
from posterhall.models.decoder import Block, drop
from posterhall.models.layers import Linear, RMSNorm
from posterhall.models.mixers import MixerFactory, Placement, factory

_POSITION_STD = 0.02
"""Of learned positions at the beginning (Devlin et al. 2019; the Long Range Arena's Transformer too)."""


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
            self.stack.remember()
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
                for name, module in part.named_modules():
                    if isinstance(module, Linear):
                        std = module.in_features**-0.5
                        if name in ("out", "down"):  # what writes into the residual stream (GPT-2)
                            std /= (2 * self.config.layers) ** 0.5
                        module.weight.normal_(0.0, std, generator=drawn(place, layer, name))

    @property
    def looks_ahead(self) -> bool:
        """Whether some layer sees what comes after a position."""
        if self.config.recurrent:
            return self.config.both_ways
        return not all(mixer.causal for mixer in self._mixers())

    @property
    def continuous(self) -> bool:
        """Whether all mixers have steps in time, so that another sampling rate needs no training."""
        return not self.config.recurrent and all(hasattr(mixer, "rate") for mixer in self._mixers())

    @property
    def rate(self) -> float:
        """Factor of all steps: 0.5 for rows that are sampled twice as often as those of the training."""
        return float(self._mixers()[0].rate) if self.continuous else 1.0

    @rate.setter
    def rate(self, value: float) -> None:
        if not self.continuous:
            raise DataError(
                f"a model on {', '.join(dict.fromkeys(self.config.mixers))} counts positions and has no time "
                "to be scaled; models on s4, s4d, s5 and h3 have"
            )
        for mixer in self._mixers():
            mixer.rate = value

    def _mixers(self) -> list[Any]:
        return [block.mixer for block in self.blocks]

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
            both = self.means(inputs.flatten(0, 1), flat)
            u, v = both[::2], both[1::2]
            means = torch.cat((u, v, u - v, u * v), dim=-1)
        result: torch.Tensor = self.head(means)
        return result

    def means(self, inputs: torch.Tensor, lengths: torch.Tensor | None = None) -> torch.Tensor:
        """What the head is given: the mean over each row's real positions, (B, width).

        Args:
            inputs, lengths: as `forward`, of single rows.
        """
        placement = self._placement(inputs, lengths)
        x: torch.Tensor = self._embedded(inputs)
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
            projected: torch.Tensor = samples if self.config.recurrent else self.project(samples)
            return projected
        try:
            embedded: torch.Tensor = functional.embedding(inputs, self.embedding)
            return embedded
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


def _makers(config: ClassifierConfig, own: Mapping[str, MixerFactory]) -> dict[str, MixerFactory]:
    found: dict[str, MixerFactory] = {}
    for name in config.mixers:
        if name == "attention" and config.both_ways and name not in own:
            found[name] = lambda shape, layer: FullAttention(shape)
        else:
            found[name] = own[name] if name in own else factory(name, (*own, *RECURRENT))
    return found
