"""Small models of small languages, trained from scratch where they are needed and kept for the next time.

Experiments that need a language model for a made-up task (puzzles, mazes, graphs) train one in about a
minute on one core. `small_model` gives the directory of an ordinary checkpoint: `posterhall.lm.connect`,
``--model PATH`` and `transformers` load it.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import shutil
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

import posterhall
from posterhall.config import to_dict
from posterhall.data.packing import IGNORED
from posterhall.data.tokenizer import Tokenizer
from posterhall.data.tokens import locked
from posterhall.data.words import word_tokenizer
from posterhall.errors import DataError
from posterhall.models.config import DecoderConfig
from posterhall.runs.files import write_atomic
from posterhall.seeds import generator
from posterhall.train.settings import TrainSettings

Lesson = str | tuple[str, str]
"""A text to be learnt, or a prompt and what is to follow it: then only what follows is learnt."""

RECIPE = "recipe.json"
"""What a kept model was made from, and the checksums of its files."""
_TRAINING = 1
"""Raised when the same recipe would give another model, so that those kept are not taken for it."""
_LOOKED_AT = 256  # lessons; a change of what makes them shows in the first ones
_WINDOW = 32  # batches among which lessons are sorted by length
_BLOCK = 1 << 20


@dataclass(frozen=True)
class SmallSettings(TrainSettings):
    """What determines a small model, beside what it is to learn.

    Defaults are those of a tenth of a million parameters that learn in about a minute on one core.

    Raises:
        DataError: for a value outside its range.
    """

    lr: float = 3e-3
    """Peak learning rate, > 0."""
    warmup: float = 0.05
    """Linear warm-up: a share of all steps if below 1, else steps."""
    beta2: float = 0.98
    """AdamW's decay of the mean square, in [0, 1)."""
    weight_decay: float = 0.01
    """AdamW's decoupled weight decay, of matrices only, >= 0."""
    batch: int = 128
    """Lessons a step, >= 1."""
    dim: int = 64
    """Width of the model, a multiple of 2 x heads."""
    layers: int = 2
    """Blocks, >= 1."""
    heads: int = 4
    """Query heads."""
    ffn_dim: int | None = 256
    """Width of the feed-forward layer; none: 8/3 dim, rounded up to a multiple of 64."""
    max_length: int = 128
    """The model's longest text, in words."""
    rope_theta: float = 100.0
    """Base of the rotary wavelengths, > 0: for texts of some dozens of words, not of thousands."""
    tie_embeddings: bool = False
    """One matrix for the embedding and the head."""
    init_std: float | None = None
    """Standard deviation of the initial weights; none: dim^-1/2, with which small models learn faster than
    with the .02 of large ones."""

    def __post_init__(self) -> None:
        super().__post_init__()
        self.shape(8)

    def shape(self, vocab_size: int) -> DecoderConfig:
        """The model's shape."""
        return DecoderConfig(
            vocab_size=vocab_size,
            dim=self.dim,
            layers=self.layers,
            heads=self.heads,
            ffn_dim=self.ffn_dim,
            max_length=self.max_length,
            rope_theta=self.rope_theta,
            tie_embeddings=self.tie_embeddings,
            init_std=self.dim**-0.5 if self.init_std is None else self.init_std,
        )


def small_model(
    lessons: Iterable[Lesson],
    settings: SmallSettings,
    *,
    recipe: Mapping[str, Any],
    init: Path | None = None,
    cache: Path | str | None = None,
    quiet: bool = True,
) -> Path:
    """Train a small model, or find the one that was trained from the same recipe before.

    The model's words are those of the lessons (`posterhall.data.words`). Each lesson is a row of its own,
    between two tokens for the end of a text, so that a prompt stands at generation where it stood in
    training. What determines the model, and its place in the cache, is the recipe, the settings and the
    first 256 lessons, by which a change of what makes them is noticed; of a generator no more than those
    are drawn where the model is kept already. Of several processes that ask at once one trains and the
    others wait; what a killed one left, and what was damaged since, is made anew.

    Args:
        lessons: what to learn; read once, and held in memory as tokens.
        settings: how.
        recipe: what determines all lessons, as names and JSON values (kind of task, sizes, seeds).
        init: a checkpoint whose training is gone on with, under the settings' rate and length; its shape and
            words stay. None begins anew.
        cache: where models are kept; None takes ``models`` in the user's cache directory.
        quiet: show no progress.

    Returns:
        The directory of the checkpoint, with its tokenizer.json.

    Raises:
        DataError: if there is no lesson, one is too long for the model, a recipe is no JSON, `init` is no
            checkpoint, or nothing can be kept there.
        MissingExtra: without torch or tokenizers.
    """
    if init is not None and not init.is_dir():
        raise DataError(f"{init}: there is no checkpoint to go on with; give the directory of one")
    drawn = iter(lessons)
    first = list(itertools.islice(drawn, _LOOKED_AT))
    if not first:
        raise DataError("there are no lessons; a model has to be trained on something")
    made_from = _made_from(first, settings, recipe, init)
    digest = hashlib.sha256(json.dumps(made_from, sort_keys=True).encode()).hexdigest()[:32]
    place = Path(cache) if cache is not None else _user_cache()
    directory = place / digest
    try:
        with locked(place / ".locks" / digest):
            if not _is_whole(directory):
                beside = place / f".{digest}.part"
                shutil.rmtree(beside, ignore_errors=True)
                shutil.rmtree(directory, ignore_errors=True)
                facts = _train(itertools.chain(first, drawn), settings, init, beside, quiet)
                files = {each.name: _checksum(each) for each in sorted(beside.iterdir())}
                text = json.dumps({"made_from": made_from, "facts": facts, "files": files}, indent=1)
                write_atomic(beside / RECIPE, text + "\n")
                beside.rename(directory)
    except OSError as error:
        raise DataError(
            f"cannot keep a model in {place}: {error.strerror or error}; free some room there, or set "
            "XDG_CACHE_HOME to another place"
        ) from error
    return directory


class Lessons:
    """Lessons as rows to train on: each a row, batches of rows of like length, a new order each epoch.

    Within a window of some batches lessons are sorted by their length, so that little of a batch is
    padding; which lessons share a window, and the order of batches in it, are drawn.

    Args:
        rows: ids of each lesson, with the tokens around it.
        learnt: place of the first id of each row that is to be predicted, >= 1.
        batch: rows of a batch.
        seed: of the order.

    Attributes:
        items: rows an epoch.
    """

    def __init__(
        self, rows: list[NDArray[np.int32]], learnt: NDArray[np.int64], *, batch: int, seed: int
    ) -> None:
        self.items = len(rows)
        self._lengths = np.array([len(row) for row in rows])
        self._starts = np.cumsum(self._lengths) - self._lengths
        # Reading beyond a row's end is cut off by its length; the last row needs something to be read.
        self._ids = np.concatenate([*rows, np.zeros(int(self._lengths.max()), np.int32)])
        self._learnt = learnt
        self._batch = batch
        self._seed = seed
        self._epoch = -1
        self._order = np.zeros(0, np.int64)

    def take(self, first: int, count: int) -> dict[str, NDArray[np.int64]]:
        """Rows `first` to `first + count` of the endless sequence of epochs.

        Returns:
            "ids" and "labels", each (count, T) int64 with T the longest row's ids less one; labels are
            IGNORED in prompts and beyond a row's end.
        """
        parts = []
        while count > 0:
            epoch, index = divmod(first, self.items)
            part = self._order_of(epoch)[index : index + count]
            parts.append(part)
            first, count = first + len(part), count - len(part)
        rows = np.concatenate(parts)
        lengths = self._lengths[rows][:, None]
        columns = np.arange(int(lengths.max()))
        ids = self._ids[self._starts[rows][:, None] + columns].astype(np.int64)
        ids[columns >= lengths] = 0
        learnt = (columns >= self._learnt[rows][:, None]) & (columns < lengths)
        return {"ids": ids[:, :-1], "labels": np.where(learnt, ids, IGNORED)[:, 1:]}

    def _order_of(self, epoch: int) -> NDArray[np.int64]:
        if epoch != self._epoch:
            rng = generator(self._seed, "lessons", epoch)
            order = rng.permutation(self.items)
            for begin in range(0, self.items, _WINDOW * self._batch):
                window = order[begin : begin + _WINDOW * self._batch]
                window = window[np.argsort(self._lengths[window], kind="stable")]
                whole = len(window) // self._batch
                batches = window[: whole * self._batch].reshape(whole, self._batch)
                order[begin : begin + len(window)] = np.concatenate(
                    [batches[rng.permutation(whole)].ravel(), window[whole * self._batch :]]
                )
            self._order, self._epoch = order, epoch
        return self._order


def _made_from(
    first: list[Lesson], settings: SmallSettings, recipe: Mapping[str, Any], init: Path | None
) -> dict[str, Any]:
    try:
        given = json.loads(json.dumps(dict(recipe), sort_keys=True, allow_nan=False))
    except (TypeError, ValueError) as error:
        raise DataError(f"a recipe holds names and JSON values only: {error}") from None
    before = {} if init is None else {"init": {each.name: _checksum(each) for each in sorted(init.iterdir())}}
    return {
        **before,
        "posterhall": posterhall.__version__,
        "training": _TRAINING,
        "recipe": given,
        "settings": to_dict(settings),
        "first_lessons": hashlib.sha256(json.dumps(first).encode()).hexdigest(),
    }


def _train(
    lessons: Iterable[Lesson], settings: SmallSettings, init: Path | None, directory: Path, quiet: bool
) -> dict[str, Any]:
    from posterhall.data import tokenizer as tokenizers
    from posterhall.models import hub
    from posterhall.models.decoder import Decoder
    from posterhall.train.language import next_token
    from posterhall.train.loop import fit

    pairs = [(each, "") if isinstance(each, str) else each for each in lessons]
    tokenizer: Tokenizer
    if init is None:
        tokenizer = word_tokenizer(sorted({word for pair in pairs for text in pair for word in _words(text)}))
        model = Decoder(settings.shape(tokenizer.vocab_size), seed=settings.seed)
    else:
        tokenizer, model = tokenizers.load(init), hub.load(init)
    data = _rows(pairs, tokenizer, settings)
    trained = fit(model, data, objective=next_token, settings=settings, quiet=quiet)
    hub.save(model.eval(), directory, tokenizer=tokenizer)
    return {
        "params": sum(each.numel() for each in model.parameters()),
        "vocab_size": tokenizer.vocab_size,
        "lessons": len(pairs),
        "steps": trained.steps,
        "tokens": trained.tokens,
        "loss": trained.loss,
        "tokens_per_second": trained.tokens_per_second,
        "seconds": trained.seconds,
    }


def _rows(pairs: list[tuple[str, str]], tokenizer: Tokenizer, settings: SmallSettings) -> Lessons:
    end = np.array([tokenizer.eos_id], np.int32)
    prompts, answers = (tokenizer.encode_batch(texts) for texts in zip(*pairs, strict=True))
    rows = [np.concatenate([end, *both, end]) for both in zip(prompts, answers, strict=True)]
    # A text that stands alone is learnt from its first word on.
    learnt = [1 + len(prompt) * bool(len(answer)) for prompt, answer in zip(prompts, answers, strict=True)]
    longest = max(range(len(rows)), key=lambda i: len(rows[i]))
    if len(rows[longest]) - 1 > settings.max_length:
        raise DataError(
            f"lesson {longest} has {len(rows[longest]) - 2} words and the model's max_length is "
            f"{settings.max_length}, one of which begins a text; raise it, or shorten the lesson"
        )
    return Lessons(rows, np.array(learnt), batch=settings.batch, seed=settings.seed)


def _words(text: str) -> list[str]:
    words = text.split()
    return [*words, "\n"] if "\n" in text else words


def _user_cache() -> Path:
    import platformdirs

    return Path(platformdirs.user_cache_dir("posterhall")) / "models"


def _is_whole(directory: Path) -> bool:
    """Whether all files are there as they were written."""
    try:
        files = json.loads((directory / RECIPE).read_bytes())["files"]
        return bool(files) and all(_checksum(directory / name) == said for name, said in files.items())
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return False


def _checksum(file: Path) -> str:
    hasher = hashlib.sha256()
    with file.open("rb") as opened:
        while block := opened.read(_BLOCK):
            hasher.update(block)
    return hasher.hexdigest()
