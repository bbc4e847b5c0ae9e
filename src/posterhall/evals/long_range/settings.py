"""What determines an evaluation of long range: task, arms, lengths, and how every model is trained."""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from posterhall.errors import DataError, did_you_mean
from posterhall.models.config import parsed_mixers

if TYPE_CHECKING:
    from posterhall.data.labelled import Divided
    from posterhall.models.classifier import ClassifierConfig

GENERATED = {"digits": 64, "pathfinder": 1024, "path-x": 16384, "list-ops": 2000}
"""Tasks that need no files, and their lengths unless told: the least for digits, else as published."""
FROM_FILES = {"mnist": 784, "cifar": 1024, "lra": 0, "audio": 0, "dna": 0}
"""Tasks read from a path behind a colon; 0 is the data's own length."""
TRANSFORMER = "transformer"
"""The arm that is attention both ways with learned positions and feed-forward layers."""


@dataclass(frozen=True)
class LongRangeSettings:
    """The grid (arms, lengths, seeds), the task, and how every model is made and trained.

    The first arm has the width given; every other one gets the width whose number of parameters comes
    nearest, since published tables compare models of unequal sizes (the Long Range Arena's Transformer for
    images has one layer of width 128, S4 six of 512). All are tuned over the same rates on validation rows;
    test rows are looked at once, by the one model that is chosen for each arm, length and seed.

    Raises:
        DataError: for values out of range or that do not fit together.
    """

    mixers: tuple[str, ...] = ("s4d", "transformer", "lstm", "gru")
    """Arms: a mixer's name, with settings as s4d:state=32:init=inv, with + between mixers that take turns
    over the layers; transformer, lstm or gru."""
    task: str = "digits"
    """digits, pathfinder, path-x or list-ops; or, with a path, mnist:DIR, cifar:DIR, lra:DIR, audio:DIR or
    dna:FILE."""
    lengths: tuple[int, ...] = ()
    """Positions of a row in training; none: the task's own."""
    evaluate_at: tuple[int, ...] = ()
    """Further lengths at which every trained model is tested, where it can be."""
    rates: tuple[float, ...] = ()
    """Sampling rates, by the training's, at which every trained model is tested without training; samples
    only."""
    width: int = 48
    """Of the first arm."""
    layers: int = 3
    """Of each model (the Long Range Arena: 1 to 6)."""
    heads: int = 4
    """Heads, of mixers that have them."""
    both_ways: bool = False
    """Let see what comes after each position what can (S4 on the Long Range Arena)."""
    feed_forward: float | None = None
    """Width of feed-forward layers by the model's; none: 2, but none after mixers that are stacked without
    (`posterhall.models.classifier.WHOLE`)."""
    dropout: float = 0.0
    """After the input, each mixer and each feed-forward layer (S4: 0, images .1)."""
    lr: tuple[float, ...] = (1e-3, 4e-3, 1e-2)
    """Peak rates, from which each model's is chosen (S4: .001 to .01)."""
    seeds: int = 5
    """Models of each kind; model i has seed + i: division or rows, weights and order follow from it."""
    steps: int = 500
    """Of each training."""
    seconds: float | None = None
    """Most CPU seconds of a training, asked at each evaluation; none: only the steps count."""
    batch: int = 64
    """Rows a step (S4: 16 to 64)."""
    warmup: float = 0.1
    """Share of the steps over which the rate rises (S4); then it falls to a tenth (cosine)."""
    weight_decay: float = 0.01
    """AdamW's, of matrices (S4: .01 to .05)."""
    eval_every: int = 100
    """Steps between evaluations on validation rows; the weights with the least loss are kept."""
    train_rows: int = 10_000
    """Rows of tasks that are generated (published: 96,000 of ListOps, 160,000 of Pathfinder)."""
    validation_rows: int = 1000
    """The same for choosing."""
    test_rows: int = 2000
    """The same for testing."""
    sample_rate: int = 16_000
    """audio: Hz of the training."""
    colour: bool = False
    """cifar: three channels; otherwise grey, as the Long Range Arena has it."""
    dashes: int | None = None
    """pathfinder, path-x: dashes of a long contour; none: 14 at 32 pixels a side, and in proportion."""
    distractors: int | None = None
    """pathfinder, path-x: short contours; none: 5 at 32 pixels a side, and in proportion."""
    max_depth: int = 10
    """list-ops: nodes from the root to the deepest digit at most."""
    max_args: int = 10
    """list-ops: arguments of a list at most."""
    device: str = "cpu"
    """Where models are trained: cpu, cuda, ..."""
    seed: int = 0
    """Of everything drawn."""

    def __post_init__(self) -> None:
        for name in ("mixers", "lr"):
            given = getattr(self, name)
            if not given or len(set(given)) < len(given):
                raise DataError(f"{name} is {list(given)}; give one or more, each once")
        for name in ("lengths", "evaluate_at", "rates"):
            given = getattr(self, name)
            if len(set(given)) < len(given):
                raise DataError(f"{name} is {list(given)}; give each once")
        for name in ("lengths", "evaluate_at"):
            for length in getattr(self, name):
                if length < 1:
                    raise DataError(f"{name} has {length}; rows have at least 1 position")
        least = dict.fromkeys(("width", "layers", "heads", "seeds", "steps", "batch", "eval_every"), 1)
        least |= dict.fromkeys(("train_rows", "validation_rows", "test_rows"), 2)
        for name, bound in least.items():
            if getattr(self, name) < bound:
                raise DataError(f"{name} is {getattr(self, name)}; it must be at least {bound}")
        for name in ("lr", "rates"):
            for each in getattr(self, name):
                if not 0 < each < math.inf:
                    raise DataError(f"{name} has {each}; it must be above 0")
        if self.seconds is not None and not 0 < self.seconds < math.inf:
            raise DataError(f"seconds is {self.seconds}; it must be above 0, or none")
        if not 0 <= self.warmup <= 1:
            raise DataError(f"warmup is {self.warmup}; it must be a share of the steps, from 0 to 1")
        if not 0 <= self.weight_decay < math.inf:
            raise DataError(f"weight_decay is {self.weight_decay}; it must be at least 0")
        if self.sample_rate < 1:
            raise DataError(f"sample_rate is {self.sample_rate}; it must be at least 1 Hz")
        kind = self.kind
        if kind in GENERATED and ":" in self.task:
            raise DataError(f"task is {self.task!r}; {kind} needs no path: write --task {kind}")
        if kind not in (*GENERATED, *FROM_FILES):
            known = [*GENERATED, *(f"{name}:PATH" for name in FROM_FILES)]
            raise DataError(
                f"there is no task {self.task!r}; there is {', '.join(known)}."
                + did_you_mean(kind, [*GENERATED, *FROM_FILES])
            )
        if kind in FROM_FILES and not self.task.partition(":")[2]:
            raise DataError(f"task is {self.task!r}; say where its files are: --task {kind}:PATH")
        if any(rate != 1 for rate in self.rates) and kind in ("list-ops", "dna"):
            raise DataError(f"rates are given, and {kind} is made of tokens, which have no sampling rate")
        for arm in self.mixers:
            self._named(arm)

    @property
    def kind(self) -> str:
        """The task's name, without a path."""
        return self.task.partition(":")[0]

    @property
    def path(self) -> Path | None:
        """Where the task's files are; None for those that need none."""
        return Path(self.task.partition(":")[2]).expanduser() if self.kind in FROM_FILES else None

    @property
    def trained_lengths(self) -> tuple[int, ...]:
        """`lengths`, or the task's own; 0 is that of the data."""
        return self.lengths or ((GENERATED | FROM_FILES)[self.kind],)

    def shape(self, arm: str, data: Divided, length: int) -> ClassifierConfig:
        """The shape of an arm's models, at the width given.

        Args:
            arm: as `mixers` has it.
            data: what is to be classified.
            length: positions of its rows.

        Raises:
            DataError: for an arm that cannot be.
        """
        from posterhall.models.classifier import ClassifierConfig

        names, given = self._named(arm)
        transformer = names == [TRANSFORMER]
        turns = tuple(itertools.islice(itertools.cycle(names), self.layers if len(names) > 1 else 1))
        rows = data.train.inputs
        return ClassifierConfig(
            classes=data.classes,
            channels=rows.shape[-1] if data.vocab is None else None,
            vocab=data.vocab,
            pairs=data.train.lengths.ndim == 2,
            max_length=length,
            dim=self.width,
            layers=self.layers,
            heads=self.heads,
            mixers=("attention",) if transformer else turns,
            mixer_settings=given,
            both_ways=self.both_ways or transformer,
            positions="learned" if transformer else "rotary",
            feed_forward=self.feed_forward,
            dropout=self.dropout,
        )

    def _named(self, arm: str) -> tuple[list[str], dict[str, dict[str, bool | int | float | str | None]]]:
        names, given = parsed_mixers(arm)
        if TRANSFORMER in names and (len(names) > 1 or given):
            raise DataError(
                f"'{arm}' among the mixers; {TRANSFORMER} is a model by itself and has no settings; with + "
                "take attention"
            )
        return names, {name: dict(each) for name, each in given.items()}


@dataclass(frozen=True)
class Cell:
    """One model of the grid, at its best rate."""

    mixer: str
    """The arm, as given."""
    length: int
    """In training; 0 is that of the data."""
    seed: int

    @property
    def name(self) -> str:
        """What tells it from the others."""
        return f"{self.mixer} length={self.length or 'own'} seed={self.seed}"


def cells(settings: LongRangeSettings) -> list[Cell]:
    """All models of the grid; those on the same rows follow each other, so that rows are made once."""
    return [
        Cell(arm, length, settings.seed + i)
        for length, i, arm in itertools.product(
            settings.trained_lengths, range(settings.seeds), settings.mixers
        )
    ]
