"""Where the time of a decoder goes: seconds and operations in mixers, feed-forward layers, norms and head.

    found = measure({"mamba": Decoder(config)}, ProfileSettings(lengths=(512, 2048)))
    crossing_of_seconds(found["mamba"]).length

Mixing the positions of a sequence and mixing the entries of each token share the cost of a model; which of
the two is worth making faster depends on the length. Fu et al. 2023 (Monarch Mixer, arXiv 2310.12109) take
the feed-forward layers on once mixers are linear: `ffn` sets those of block-diagonal matrices beside dense
ones.
"""

from __future__ import annotations

import contextlib
import dataclasses
import itertools
import math
import statistics
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from posterhall import devices, seeds
from posterhall.errors import DataError
from posterhall.extras import torch
from posterhall.models import quantized
from posterhall.models.config import DecoderConfig, FeedForwardKind, Positions, parsed_mixers
from posterhall.models.decoder import Decoder
from posterhall.models.operations import PARTS, Work, of_parts
from posterhall.objectives.lm import lm_loss
from posterhall.progress import Progress

_LONGEST = 1 << 20
"""Tokens up to which a crossing of operations is looked for."""


@dataclass(frozen=True)
class ProfileSettings:
    """What is measured.

    Raises:
        DataError: for a value outside its range.
    """

    lengths: tuple[int, ...] = (512, 2048)
    """Tokens of a row, each >= 1."""
    batch: int = 1
    """Rows of a pass, >= 1."""
    backward: bool = False
    """A training step, forward and backward with its loss and without an optimiser, instead of a forward
    pass."""
    repeats: int = 5
    """Passes of each, of which the median counts, >= 1; one before them warms up."""
    ffn: tuple[FeedForwardKind, ...] = ()
    """Also the same shape with random weights and feed-forward layers of these kinds: dense, monarch,
    block_diagonal. None: as the model is."""
    ffn_blocks: int = 4
    """Blocks of matrices that are not dense."""
    seed: int = 0
    """Of random weights and tokens."""

    def __post_init__(self) -> None:
        if not self.lengths or min(self.lengths) < 1 or len(set(self.lengths)) < len(self.lengths):
            raise DataError(
                f"lengths are {list(self.lengths)}; give one or more numbers of tokens, at least 1, each once"
            )
        for name in ("batch", "repeats"):
            if getattr(self, name) < 1:
                raise DataError(f"{name} is {getattr(self, name)}; it must be at least 1")
        if len(set(self.ffn)) < len(self.ffn):
            raise DataError(f"ffn is {list(self.ffn)}; give each kind once")


@dataclass(frozen=True)
class ShapeSettings(ProfileSettings):
    """The same, and the shape of models with random weights.

    Raises:
        DataError: for a value outside its range.
    """

    ffn: tuple[FeedForwardKind, ...] = ("dense",)
    """Matrices of feed-forward layers: dense, monarch, block_diagonal; a model each."""
    mixers: tuple[str, ...] = ("attention",)
    """A model each: the mixer of all its layers, with settings as mamba:state=32, or several with + between,
    which take turns over the layers."""
    dim: int = 256
    """Width, a multiple of 2 x heads."""
    layers: int = 4
    """Blocks, >= 1."""
    heads: int = 4
    """Query heads."""
    kv_heads: int | None = None
    """Key and value heads; none: as many."""
    ffn_dim: int | None = None
    """Width of feed-forward layers; none: 8/3 dim, rounded up to a multiple of 64; 0: none."""
    vocab_size: int = 8192
    """Tokens, of which the head makes logits."""
    positions: Positions = "rotary"
    """rotary, learned or none."""

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("mixers", "ffn"):
            given = getattr(self, name)
            if not given or len(set(given)) < len(given):
                raise DataError(f"{name} is {list(given)}; give one or more, each once")
        self.shapes()

    def shapes(self) -> dict[str, DecoderConfig]:
        """The models, by mixer."""
        found = {}
        for arm in self.mixers:
            names, given = parsed_mixers(arm)
            found[arm] = DecoderConfig(
                vocab_size=self.vocab_size,
                dim=self.dim,
                layers=self.layers,
                heads=self.heads,
                kv_heads=self.kv_heads,
                ffn_dim=self.ffn_dim,
                max_length=max(self.lengths),
                positions=self.positions,
                mixers=tuple(itertools.islice(itertools.cycle(names), self.layers)),
                mixer_settings={name: each for name, each in given.items() if name in names[: self.layers]},
            )
        return found


@dataclass(frozen=True)
class Part:
    """Of a model, in one pass over rows of one length."""

    seconds: float
    """Wall seconds, the median over passes."""
    cpu_seconds: float
    """CPU seconds of all threads, the median."""
    work: Work
    """Operations."""


@dataclass(frozen=True)
class Profile:
    """A model at one length."""

    tokens: int
    """Of a row."""
    batch: int
    """Rows."""
    parts: Mapping[str, Part]
    """By the names of `operations.PARTS`."""

    @property
    def total(self) -> Part:
        """Of all parts: they leave nothing of a pass out."""
        every = self.parts.values()
        return Part(
            sum(each.seconds for each in every),
            sum(each.cpu_seconds for each in every),
            sum((each.work for each in every), Work()),
        )


@dataclass(frozen=True)
class Crossing:
    """Where mixing costs as much as the feed-forward layers."""

    length: float | None
    """Tokens; None: nowhere in what was looked at."""
    dearer: Literal["mixer", "feed_forward"]
    """What costs more from there on, or all along."""


def variants(model: Decoder, settings: ProfileSettings) -> dict[FeedForwardKind, Decoder]:
    """A model, or the same shape with random weights and feed-forward layers of other kinds.

    Raises:
        DataError: if the blocks do not fit, or the model has no feed-forward layers.
    """
    found = {}
    for kind in settings.ffn or (model.config.ffn,):
        if kind == model.config.ffn:
            found[kind] = model
            continue
        shape = dataclasses.replace(model.config, ffn=kind, ffn_blocks=settings.ffn_blocks)
        made = Decoder(shape, seed=settings.seed).to(model.device, model.embedding.dtype)
        found[kind] = made
    return found


def measure(
    models: Mapping[str, Decoder], settings: ProfileSettings, *, quiet: bool = True
) -> dict[str, list[Profile]]:
    """Time the parts of some models, one pass of each in turn, so that a busy machine slows all of them.

    Args:
        models: by name. Gradients that they hold are dropped.
        settings: what to do.
        quiet: show no progress.

    Returns:
        By name, a profile for each length, in the order of the settings.

    Raises:
        DataError: for a length beyond a model's, or a training step of a quantised model.
    """
    for name, model in models.items():
        _check(name, model, settings)
    found: dict[str, list[Profile]] = {name: [] for name in models}
    passes = len(settings.lengths) * len(models) * (1 + settings.repeats)
    with Progress(passes, label="profiling", unit="passes", quiet=quiet) as progress:
        for tokens in settings.lengths:
            taken: dict[str, list[Mapping[str, Sequence[float]]]] = {name: [] for name in models}
            for turn in range(1 + settings.repeats):
                for name, model in models.items():
                    with devices.memory_told(
                        f"{tokens:,} tokens are too many for this machine: give shorter rows"
                    ):
                        seconds = _one_pass(model, tokens, settings)
                    if turn:
                        taken[name].append(seconds)
                    progress.update(progress.done + 1)
            for name, model in models.items():
                work = of_parts(model, tokens, batch=settings.batch, training=settings.backward)
                parts = {
                    part: Part(
                        statistics.median(each[part][0] for each in taken[name]),
                        statistics.median(each[part][1] for each in taken[name]),
                        work[part],
                    )
                    for part in PARTS
                }
                found[name].append(Profile(tokens, settings.batch, parts))
    return found


def crossing_of_seconds(profiles: Sequence[Profile]) -> Crossing:
    """The last length at which mixing becomes the dearer of the two, or ceases to be, between two that were
    measured: where straight lines between the logarithms of seconds meet."""
    ordered = sorted(profiles, key=lambda each: each.tokens)
    ratios = [math.log(each.parts["mixer"].seconds / each.parts["feed_forward"].seconds) for each in ordered]
    length = None
    for (left, before), (right, after) in itertools.pairwise(zip(ordered, ratios, strict=True)):
        if (before < 0) != (after < 0):
            share = before / (before - after)
            length = left.tokens * (right.tokens / left.tokens) ** share
    return Crossing(length, "feed_forward" if ratios[-1] < 0 else "mixer")


def crossing_of_work(model: Decoder, *, training: bool = False) -> Crossing:
    """The least length at which mixing takes more operations than the feed-forward layers, up to a million
    tokens; whatever length the model is made for."""

    def is_dearer(tokens: int) -> bool:
        work = of_parts(model, tokens, training=training)
        return work["mixer"].total > work["feed_forward"].total

    if is_dearer(1):
        return Crossing(None, "mixer")
    high = 1
    while not is_dearer(high):
        if high >= _LONGEST:
            return Crossing(None, "feed_forward")
        high *= 2
    low = high // 2
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if is_dearer(middle) else (middle, high)
    return Crossing(high, "mixer")


def _check(name: str, model: Decoder, settings: ProfileSettings) -> None:
    longest = max(settings.lengths)
    if longest > model.config.max_length:
        raise DataError(
            f"{name}: {longest} tokens for a model of max_length {model.config.max_length}; give shorter "
            "lengths"
        )
    if settings.backward and quantized.describe(model) is not None:
        raise DataError(
            f"{name} is quantised, and its layers have no gradients to be timed; profile the model that it "
            "was made from, or leave the backward pass out"
        )


def _one_pass(model: Decoder, tokens: int, settings: ProfileSettings) -> Mapping[str, Sequence[float]]:
    """Wall and CPU seconds by part."""
    generator = torch.Generator().manual_seed(seeds.derive(settings.seed, "profile", tokens))
    shape = (settings.batch, tokens)
    ids = torch.randint(model.config.vocab_size, shape, generator=generator).to(model.device)
    was = model.training
    model.train(settings.backward)
    clock = _Clock(model.device)
    with _watched(model, clock, backward=settings.backward), torch.set_grad_enabled(settings.backward):
        clock.enter("embedding")
        if settings.backward:
            loss, _ = lm_loss(model.hidden(ids), model.head_weight(), ids)
            loss.backward()  # type: ignore[no-untyped-call]
        else:
            model(ids)
        clock.enter(None)
    model.zero_grad(set_to_none=True)
    model.train(was)
    return clock.taken


class _Clock:
    """Adds up wall and CPU seconds by the part that a pass is in."""

    def __init__(self, device: torch.device) -> None:
        self.taken = {part: [0.0, 0.0] for part in PARTS}
        self._device, self._part = device, ""
        self._last = (0.0, 0.0)

    def enter(self, part: str | None) -> None:
        """What runs from now on belongs to another part."""
        if self._device.type == "cuda":  # what was asked for is not done yet
            torch.cuda.synchronize(self._device)
        now = (time.perf_counter(), time.process_time())
        if self._part:
            for i, (before, after) in enumerate(zip(self._last, now, strict=True)):
                self.taken[self._part][i] += after - before
        self._part, self._last = part or "", now


@contextlib.contextmanager
def _watched(model: Decoder, clock: _Clock, *, backward: bool) -> Iterator[None]:
    """Let a clock know where in a model a pass is.

    What lies between the blocks' parts is norms and the residual stream; what comes before the first block
    and after the last norm is embedding, head and loss.
    """
    handles: list[Any] = []

    def on(module: Any, before: str, after: str) -> None:
        handles.append(module.register_forward_pre_hook(lambda *_: clock.enter(before)))
        handles.append(module.register_forward_hook(lambda *_: clock.enter(after)))
        if backward:
            handles.append(module.register_full_backward_pre_hook(lambda *_: clock.enter(before)))
            handles.append(module.register_full_backward_hook(lambda *_: clock.enter(after)))

    for block in model.blocks:
        on(block.mixer, "mixer", "norms")
        if block.feeds:
            on(block.feed_forward, "feed_forward", "norms")
    first = model.blocks[0]
    handles.append(first.register_forward_pre_hook(lambda *_: clock.enter("norms")))
    handles.append(model.norm.register_forward_hook(lambda *_: clock.enter("embedding")))
    if backward:
        handles.append(model.norm.register_full_backward_pre_hook(lambda *_: clock.enter("norms")))
        handles.append(first.register_full_backward_hook(lambda *_: clock.enter("embedding")))
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
