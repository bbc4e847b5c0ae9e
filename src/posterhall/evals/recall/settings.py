"""What determines an evaluation of recall: a grid of small models, and a task."""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass
from typing import Literal, get_args

from posterhall.data.synthetic.in_context import AssociativeRecall, InductionHeads, SelectiveCopying
from posterhall.data.synthetic.recall import Filler, Mqar, Task
from posterhall.errors import DataError
from posterhall.models.config import DecoderConfig, Positions, parsed_mixers

Kind = Literal["mqar", "associative", "induction", "copying"]


@dataclass(frozen=True)
class RecallSettings:
    """The grid (mixers, sizes, widths, rates, seeds), the task, and how every model is made and trained.

    Small models on few steps: what decides there is less the mixer than residuals, initial weights and
    positions. These defaults (pre-norm residuals without further norms, weights of 1 / sqrt(fan-in), no
    dropout, fresh rows all along) learn in seconds where the published harness stays on the plateau for
    minutes; they are the same for every mixer.

    Raises:
        DataError: for values out of range or that do not fit together.
    """

    mixers: tuple[str, ...] = ("attention", "based")
    """Arms: a mixer's name, with settings as based:feature_dim=8:window=32, with + between mixers that take
    turns over the layers."""
    task: Kind = "mqar"
    """mqar: many queries (Arora et al. 2023); associative: one query (Fu et al. 2023); induction: what
    followed the sign; copying: selective copying (Gu & Dao 2023)."""
    lengths: tuple[int, ...] = (64,)
    """Tokens of a row, before what the task adds to it."""
    pairs: tuple[int, ...] = (8,)
    """mqar: keys with a value; copying: tokens to be copied; one number for all lengths, or one a length."""
    widths: tuple[int, ...] = (64,)
    """Width of the models."""
    vocab: int = 256
    """Tokens there are (figure 2 of Arora et al. 2023: 8192)."""
    passes: int = 1
    """mqar: how often the pairs are written."""
    power: float = 0.01
    """mqar: exponent of the law by which queries stand near; 1 is uniform."""
    filler: Filler = "zero"
    """mqar: what stands between queries, zero or random."""
    layers: int = 2
    """Blocks of each model."""
    heads: int = 1
    """Heads, of mixers that have them."""
    ffn_dim: int = 0
    """Width of feed-forward layers; 0: blocks have none (as in the paper)."""
    positions: Positions = "rotary"
    """Of attention and windows: rotary, learned (then all mixers get them), or none."""
    conv: int = 0
    """Taps of a short convolution before every mixer; 0: none."""
    lr: tuple[float, ...] = (3e-3,)
    """Peak learning rates; each arm and size is told with the best one on validation rows."""
    seeds: int = 1
    """Models of each kind; model i has seed + i."""
    steps: int = 4000
    """Most steps of a training."""
    seconds: float | None = None
    """Most CPU seconds of a training, asked at each evaluation; none: only the steps count."""
    batch: int = 64
    """Fresh rows a step."""
    warmup: int = 100
    """Steps over which the rate rises."""
    weight_decay: float = 0.0
    """AdamW's, of matrices: no row comes twice, so nothing overfits (the paper on 100,000 rows: .1)."""
    eval_every: int = 100
    """Steps between evaluations."""
    enough: float = 0.995
    """Accuracy on validation rows above which a training ends; 1: never. At the paper's .99, test rows come
    out on either side of it."""
    validation_rows: int = 512
    """Rows that decide when to stop, and which rate is best."""
    test_rows: int = 2048
    """Rows, apart from those, that the table tells of."""
    seed: int = 0
    """Of everything drawn."""

    def __post_init__(self) -> None:
        for name in ("mixers", "lengths", "pairs", "widths", "lr"):
            given = getattr(self, name)
            if not given or (name != "pairs" and len(set(given)) < len(given)):
                raise DataError(f"{name} is {list(given)}; give one or more, each once")
        if self.task not in get_args(Kind):
            raise DataError(f"task is {self.task!r}; it must be one of: {', '.join(get_args(Kind))}")
        if len(self.pairs) not in (1, len(self.lengths)):
            raise DataError(
                f"pairs has {len(self.pairs)} numbers for {len(self.lengths)} lengths; give one for all of "
                "them, or one a length"
            )
        for name in ("seeds", "steps", "batch", "eval_every", "validation_rows", "test_rows"):
            if getattr(self, name) < 1:
                raise DataError(f"{name} is {getattr(self, name)}; it must be at least 1")
        for name in ("conv", "warmup"):
            if getattr(self, name) < 0:
                raise DataError(f"{name} is {getattr(self, name)}; it must be at least 0")
        for rate in self.lr:
            if not 0 < rate < math.inf:
                raise DataError(f"lr is {rate}; it must be above 0")
        if self.seconds is not None and not 0 < self.seconds < math.inf:
            raise DataError(f"seconds is {self.seconds}; it must be above 0, or none")
        if not 0 < self.enough <= 1:
            raise DataError(f"enough is {self.enough}; it must be above 0 and at most 1")
        for length, pairs in self.sizes:
            self.made(length, pairs)

    @property
    def sizes(self) -> list[tuple[int, int | None]]:
        """Lengths with their pairs; None for tasks that have none."""
        if self.task in ("associative", "induction"):
            return [(length, None) for length in self.lengths]
        return list(zip(self.lengths, itertools.cycle(self.pairs), strict=False))

    def made(self, length: int, pairs: int | None) -> Task:
        """The task at a size.

        Raises:
            DataError: if it does not fit.
        """
        if self.task == "associative":
            return AssociativeRecall(length=length, vocab=self.vocab)
        if self.task == "induction":
            return InductionHeads(length=length, vocab=self.vocab)
        count = self.pairs[0] if pairs is None else pairs
        if self.task == "copying":
            return SelectiveCopying(length=length, copied=count, vocab=self.vocab)
        return Mqar(length, count, self.vocab, self.passes, self.power, self.filler)

    def shape(self, arm: str, width: int, tokens: int) -> DecoderConfig:
        """The shape of an arm's models.

        Raises:
            DataError: for an arm that is not written as `mixers` tells, or a shape that cannot be.
        """
        names, given = parsed_mixers(arm)
        return DecoderConfig(
            vocab_size=self.vocab,
            dim=width,
            layers=self.layers,
            heads=self.heads,
            ffn_dim=self.ffn_dim,
            max_length=tokens,
            positions=self.positions,
            tie_embeddings=False,
            mixers=tuple(itertools.islice(itertools.cycle(names), self.layers)),
            mixer_settings=given,
            init_std=width**-0.5,
        )


@dataclass(frozen=True)
class Cell:
    """One model of the grid."""

    mixer: str
    """The arm, as given."""
    length: int
    pairs: int | None
    width: int
    lr: float
    seed: int

    @property
    def name(self) -> str:
        """What tells it from the others."""
        pairs = "" if self.pairs is None else f" pairs={self.pairs}"
        return f"{self.mixer} length={self.length}{pairs} width={self.width} lr={self.lr:g} seed={self.seed}"


def cells(settings: RecallSettings) -> list[Cell]:
    """All models of the grid; the seeds of one kind follow each other."""
    return [
        Cell(arm, length, pairs, width, lr, settings.seed + i)
        for (length, pairs), width, arm, lr, i in itertools.product(
            settings.sizes, settings.widths, settings.mixers, settings.lr, range(settings.seeds)
        )
    ]
