"""Sequence mixers: layers (B, T, D) -> (B, T, D) through which the positions of a sequence meet.

A mixer is an `nn.Module` with the attributes and the methods of `Mixer`. It has three forms that must
agree (`check_mixer` in the tests holds every mixer to it):

- parallel: a whole sequence at once, `mixer(x, placement)`;
- chunk-continued: the next T tokens after those that a state remembers, `mixer(x, placement, state)`;
- step: the same with T = 1.

A decoder makes one for each layer by its name in `DecoderConfig.mixers`: one of `MIXERS`, or a name that
the caller brings, `Decoder(config, mixers={"mine": lambda config, layer: Mine(config.dim)})`. A mixer's
settings are a frozen dataclass in its own file, filled by `settings_of`.

A mixer begins as its `initialise(generator)` has it, where there is one (a decoder calls it with a generator
of its own for each layer), and otherwise as its constructor has. Padding at a row's beginning never reaches
a mixer: the decoder moves it to the end, where `Placement.valid` tells of it.
"""

from __future__ import annotations

import importlib
import re
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, Protocol, TypeVar, cast, runtime_checkable

from posterhall.config import resolve
from posterhall.errors import DataError, did_you_mean
from posterhall.extras import torch

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

    from posterhall.models.config import DecoderConfig

MIXERS: dict[str, str] = {
    "attention": "posterhall.models.mixers.attention:make",
    "mamba": "posterhall.models.mixers.mamba:make",
    "mamba2": "posterhall.models.mixers.mamba2:make",
    "s4d": "posterhall.models.mixers.s4d:make",
    "s4": "posterhall.models.mixers.s4:make",
    "s5": "posterhall.models.mixers.s5:make",
    "h3": "posterhall.models.mixers.h3:make",
    "long_conv": "posterhall.models.mixers.long_conv:make",
    "hyena": "posterhall.models.mixers.hyena:make",
    "base_conv": "posterhall.models.mixers.base_conv:make",
    "sliding_window": "posterhall.models.mixers.sliding_window:make",
    "linear_attention": "posterhall.models.mixers.linear_attention:make",
    "based": "posterhall.models.mixers.based:make",
    "rwkv": "posterhall.models.mixers.rwkv:make",
    "mega": "posterhall.models.mixers.mega:make",
    "performer": "posterhall.models.mixers.performer:make",
    "linformer": "posterhall.models.mixers.linformer:make",
}
"""The mixers at hand: name to "module:factory", imported when one is made; a factory is a `MixerFactory`."""

Growth = Literal["constant", "linear"]
"""How the memory of a state grows with the tokens it has seen."""

MixerFactory = Callable[["DecoderConfig", int], Any]
"""Makes the mixer of a layer (counted from 0), from the decoder's shape."""

Settings = TypeVar("Settings", bound="DataclassInstance")


def factory(name: str, known: Collection[str] = ()) -> MixerFactory:
    """The maker of a mixer of `MIXERS`.

    Args:
        name: of the mixer.
        known: further names for the message, which are the caller's own.

    Raises:
        DataError: for an unknown name.
    """
    if name not in MIXERS:
        names = [*MIXERS, *known]
        raise DataError(
            f"no mixer '{name}'; there is {', '.join(names)}.{did_you_mean(name, names)} "
            "Bring your own with Decoder(config, mixers={'name': factory})"
        )
    module, _, maker = MIXERS[name].partition(":")
    return cast("MixerFactory", getattr(importlib.import_module(module), maker))


@dataclass(frozen=True)
class NoSettings:
    """Of a mixer that has no settings of its own."""


def settings_of(config: DecoderConfig, name: str, cls: type[Settings]) -> Settings:
    """The settings of a mixer in a decoder: its defaults, and what `config.mixer_settings` says of it.

    Values may be text, as they come from a command line.

    Raises:
        DataError: for an unknown setting, or a value of the wrong type or out of range.
    """
    stated = config.mixer_settings.get(name, {})
    given = {key: "none" if each is None else each for key, each in stated.items()}
    try:
        return resolve(cls, flags=given, environ={})
    except DataError as error:
        raise DataError(f"mixer_settings of {name}: {re.sub(r'^--[^ ]+: ', '', str(error))}") from None


def check(config: DecoderConfig) -> None:
    """Make one mixer of each kind that a language model has, to see early whether its settings serve.

    Raises:
        DataError: if one does not exist, cannot be made, or looks ahead.
    """
    for layer, name in enumerate(config.layer_mixers):
        if name not in config.layer_mixers[:layer] and not factory(name)(config, layer).causal:
            raise DataError(
                f"{name} looks ahead as it is set, and a language model would see what it is to predict; "
                "take another mixer, or leave its setting bidirectional out"
            )


@runtime_checkable
class State(Protocol):
    """What a mixer remembers of the tokens so far, for B rows; the mixer changes it in place."""

    def select(self, rows: Sequence[int]) -> State:
        """A copy of some rows, in this order; a row may be taken several times."""

    def join(self, other: Any, rows: Sequence[int]) -> None:
        """Take copies of some rows of another state of the same mixer, behind one's own."""

    def keep(self, rows: Sequence[int]) -> None:
        """Be only these of one's rows, in this order, each at most once."""

    def resize(self, max_length: int) -> None:
        """Have room for rows of up to so many tokens, at least as many as are there."""


@runtime_checkable
class Recall(State, Protocol):
    """A state that grows linearly and holds apart what it remembers of each token, so that a prompt's
    beginning can be kept and given to another row."""

    def read(self, row: int, start: int, stop: int) -> torch.Tensor:
        """A copy of what a row remembers of its tokens from `start` to before `stop`."""

    def write(self, row: int, start: int, pieces: Sequence[torch.Tensor]) -> None:
        """Let a row remember such pieces, one behind the other, from `start` on."""


@runtime_checkable
class Mixer(Protocol):
    """What every mixer has. `parameters()` and the rest come from `nn.Module`."""

    causal: bool
    """Whether position t depends on none after it. What is not causal has no state."""
    growth: Growth
    """How its state grows."""

    def __call__(self, x: torch.Tensor, placement: Placement, state: State | None = None) -> torch.Tensor:
        """Mix.

        Args:
            x: (B, T, D), any float type.
            placement: where these tokens stand.
            state: what was before them, and takes them up; None: nothing was, and nothing is kept.

        Returns:
            (B, T, D), of x's type.
        """

    def new_state(self, batch: int, max_length: int, *, dtype: torch.dtype, device: torch.device) -> State:
        """An empty state for `batch` rows of up to `max_length` tokens."""


@dataclass(frozen=True, slots=True)
class Tree:
    """A text with several continuations, none of which sees another."""

    trunk: int
    """Tokens of the text, >= 1."""
    branches: tuple[int, ...]
    """Tokens of each continuation, >= 0; the positions of all go on after the trunk."""

    @property
    def tokens(self) -> int:
        """Of all of it."""
        return self.trunk + sum(self.branches)


@dataclass
class Placement:
    """Where the T tokens of a chunk stand, for the B rows of a batch; all layers of one pass share it."""

    batch: int
    """Rows B."""
    tokens: int
    """Tokens T of the chunk."""
    device: torch.device
    """Where the tokens are."""
    past: tuple[int, ...] | None = None
    """Tokens each row had before, with states; None: there are no states."""
    valid: tuple[int, ...] | None = None
    """Real tokens of each row's chunk; those after them are padding. None: all are real. A state must
    not remember padding, or must be able to forget it: the next chunk starts at past + valid. What is not
    causal must not look at padding either; nobody reads the results there."""
    segments: torch.Tensor | None = None
    """(B, T) numbers of the documents packed into a row, equal within a document and never repeated by a
    later one in the same row; tokens of other documents are out of sight. Not together with states."""
    trees: tuple[Tree, ...] | None = None
    """What the only row consists of, one after the other: a trunk, then its branches. Not together with
    states or segments."""
    _kept: dict[str, torch.Tensor | None] = field(default_factory=dict, repr=False)

    @property
    def start(self) -> int | None:
        """Where all rows start, if they start at the same place; None: they do not, or are packed."""
        if self.segments is not None or self.trees is not None:
            return None
        if self.past is None:
            return 0
        return self.past[0] if len(set(self.past)) == 1 else None

    @property
    def end(self) -> int:
        """Positions that a state is filled to afterwards, at most."""
        return self.tokens + (max(self.past) if self.past else 0)

    def positions(self) -> torch.Tensor:
        """(B, T) position of each token in its document, from 0."""
        return self._keep("positions", self._positions)  # type: ignore[return-value]

    def starts(self) -> torch.Tensor:
        """(B,) tokens each row had before."""
        return self._keep("starts", self._starts)  # type: ignore[return-value]

    def mask(self) -> torch.Tensor | None:
        """(B or 1, 1, T, S) bool, true where token t sees position s of S = `end`; None: just causal."""
        return self._keep("mask", self._mask)

    def _keep(self, name: str, make: Callable[[], torch.Tensor | None]) -> torch.Tensor | None:
        if name not in self._kept:
            self._kept[name] = make()
        return self._kept[name]

    def _starts(self) -> torch.Tensor:
        return torch.tensor(self.past or (0,) * self.batch, device=self.device)

    def _positions(self) -> torch.Tensor:
        along = torch.arange(self.tokens, device=self.device)
        if self.segments is not None:
            fresh = torch.ones_like(self.segments, dtype=torch.bool)
            fresh[:, 1:] = self.segments[:, 1:] != self.segments[:, :-1]
            return along - torch.where(fresh, along, 0).cummax(1).values
        if self.trees is not None:
            parts = []
            for tree in self.trees:
                parts.append(torch.arange(tree.trunk))
                parts += [torch.arange(tree.trunk, tree.trunk + each) for each in tree.branches]
            return torch.cat(parts).to(self.device)[None]
        if self.past is not None:
            return self.starts()[:, None] + along
        return along.expand(self.batch, self.tokens)

    def _mask(self) -> torch.Tensor | None:
        if self.segments is not None:
            same = self.segments[:, :, None] == self.segments[:, None, :]
            return same.tril()[:, None]
        if self.trees is not None:
            return self._tree_mask()[None, None]
        if self.start == 0:
            return None
        seen = torch.arange(self.end, device=self.device) <= self.positions()[..., None]
        if self.start is not None:  # all rows alike
            seen = seen[:1]
        return seen[:, None]

    def _tree_mask(self) -> torch.Tensor:
        """(T, T): causal within a tree, but for the tokens of its earlier branches."""
        assert self.trees is not None  # noqa: S101 - for the type checker
        sees = torch.zeros((self.tokens, self.tokens), dtype=torch.bool, device=self.device)
        at = 0
        for tree in self.trees:
            trunk = slice(at, at + tree.trunk)
            sees[trunk, trunk] = True
            at += tree.trunk
            for each in tree.branches:
                branch = slice(at, at + each)
                sees[branch, trunk] = True
                sees[branch, branch] = True
                at += each
        return sees.tril()
