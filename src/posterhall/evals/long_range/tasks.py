"""What there is to classify: a task's rows at a length, and the same signals at another sampling rate."""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Callable

import numpy as np

from posterhall.data import audio, dna, image_sequences, long_range
from posterhall.data.labelled import Divided, Sequences
from posterhall.data.synthetic.list_ops import ListOps
from posterhall.data.synthetic.pathfinder import Pathfinder, path_x
from posterhall.errors import DataError
from posterhall.evals.long_range.settings import LongRangeSettings

_PUBLISHED_SIDE = 32


@functools.lru_cache(maxsize=4)
def load(settings: LongRangeSettings, length: int, seed: int, rate: float = 1.0) -> Divided:
    """A task's rows.

    Args:
        settings: whose task it is.
        length: positions of a row at rate 1; 0 is that of the data.
        seed: of what is drawn: rows, or the division into parts.
        rate: of sampling, by that of the training. Sounds are read anew at it (polyphase, against aliases);
            in other samples each position is held for so many, or the mean of so many taken, which is what a
            zero-order hold takes a signal for.

    Returns:
        Its parts; test rows at one length and rate are never training rows at another of the same seed.

    Raises:
        DataError: for a length or rate that the task cannot have, or files that are not right.
    """
    path = settings.path
    kind = settings.kind
    if path is None:
        found = _generated(settings, length, seed)
    elif kind == "mnist":
        found = _resized(image_sequences.mnist(path, seed=seed), length)
    elif kind == "cifar":
        found = _resized(image_sequences.cifar10(path, grey=not settings.colour, seed=seed), length)
    elif kind == "lra":
        found = long_range.read(path, length=length, seed=seed)
    elif kind == "dna":
        found = dna.labelled(path, length=length, seed=seed)
    else:
        return _sounds(settings, length, seed, rate)
    return _mapped(found, lambda rows: _held(rows, rate, found)) if rate != 1 else found


def positions(rows: Sequences) -> int:
    """Positions of the rows, padding included."""
    return int(rows.inputs.shape[rows.lengths.ndim])


def _generated(settings: LongRangeSettings, length: int, seed: int) -> Divided:
    if settings.kind == "digits":
        return image_sequences.digits(length=length, seed=seed)
    task: ListOps | Pathfinder
    if settings.kind == "list-ops":
        # Long Range Arena's lists have 500 to 2,000 tokens, both excluded.
        task = ListOps(length // 4, length + 1, settings.max_depth, settings.max_args)
        classes, vocab = 10, 16
    else:
        task, classes, vocab = _paths(settings, length), 2, None
    parts = (
        ("train", settings.train_rows),
        ("validation", settings.validation_rows),
        ("test", settings.test_rows),
    )
    train, validation, test = (task.draw(rows, seed=seed, split=split) for split, rows in parts)
    return Divided(train, validation, test, classes=classes, vocab=vocab)


def _paths(settings: LongRangeSettings, length: int) -> Pathfinder:
    side = _side(length, settings.kind)
    if settings.kind == "path-x":
        task = path_x(side)
    else:
        scale = side / _PUBLISHED_SIDE
        dashes = max(2, int(14 * scale))
        task = Pathfinder(
            side,
            dashes=dashes,
            radius=min(1.5 * scale, side / 8),
            distractors=int(5 * scale),
            short=min(4, dashes),
        )
    dashes = settings.dashes if settings.dashes is not None else task.dashes
    distractors = settings.distractors if settings.distractors is not None else task.distractors
    return dataclasses.replace(task, dashes=dashes, short=min(task.short, dashes), distractors=distractors)


def _side(length: int, kind: str) -> int:
    side = math.isqrt(max(length, 0))
    if side * side != length:
        raise DataError(
            f"length is {length:,}; images of {kind} are square: {side**2:,} or {(side + 1) ** 2:,} would do"
        )
    return side


def _resized(data: Divided, length: int) -> Divided:
    """Images at another number of pixels: each pixel k x k times, or means of k x k."""
    given = positions(data.train)
    side, wanted = math.isqrt(given), _side(length, "this set")
    if side * side != given or (wanted % side and side % max(wanted, 1)) or not wanted:
        raise DataError(
            f"length is {length:,} for images of {side} x {side}; sides are enlarged or reduced by whole "
            f"numbers: {given:,}, {4 * given:,}" + (f", {given // 4:,}" if side % 2 == 0 else "") + ", ..."
        )

    def resize(rows: Sequences) -> Sequences:
        n, _, channels = rows.inputs.shape
        images = rows.inputs.reshape(n, side, side, channels)
        if wanted >= side:
            times = wanted // side
            images = images.repeat(times, axis=1).repeat(times, axis=2)
        else:
            times = side // wanted
            images = images.reshape(n, wanted, times, wanted, times, channels).mean(axis=(2, 4))
        inputs = np.ascontiguousarray(images.reshape(n, length, channels), np.float32)
        return Sequences(inputs, rows.labels, np.full(n, length))

    return data if wanted == side else _mapped(data, resize)


def _held(rows: Sequences, rate: float, data: Divided) -> Sequences:
    if data.vocab is not None:
        raise DataError(f"rate is {rate:g}, and this task is made of tokens, which have no sampling rate")
    times = round(max(rate, 1 / rate))
    length = positions(rows)
    if not math.isclose(times, max(rate, 1 / rate)) or (rate < 1 and length % times):
        raise DataError(
            f"rate is {rate:g} for rows of {length:,} positions; allowed are whole numbers, and 1 over those "
            "that divide the length (0.5, 0.25, ...)"
        )
    if rate > 1:
        return Sequences(rows.inputs.repeat(times, axis=1), rows.labels, rows.lengths * times)
    n, _, channels = rows.inputs.shape
    inputs = rows.inputs.reshape(n, length // times, times, channels).mean(axis=2)
    return Sequences(inputs, rows.labels, -(-rows.lengths // times))


def _sounds(settings: LongRangeSettings, length: int, seed: int, rate: float) -> Divided:
    hertz = settings.sample_rate * rate
    if not math.isclose(hertz, round(hertz)) or hertz < 1:
        raise DataError(
            f"rate is {rate:g} at a sample_rate of {settings.sample_rate:,} Hz; their product must be a "
            "whole number of Hz"
        )
    assert settings.path is not None  # noqa: S101 - for the type checker
    data = audio.read_folder(settings.path, rate=round(hertz), seed=seed)
    wanted, longest = math.ceil(length * rate), positions(data.train)
    if not length:
        return data
    if longest > wanted:
        raise DataError(
            f"{settings.path}: the longest sound has {longest:,} samples at {round(hertz):,} Hz, and the "
            f"length is {wanted:,}; nothing is cut: give at least {math.ceil(longest / rate):,}, or a lower "
            "sample_rate"
        )

    def pad(rows: Sequences) -> Sequences:
        more = ((0, 0), (0, wanted - longest), (0, 0))
        return Sequences(np.pad(rows.inputs, more), rows.labels, rows.lengths)

    return _mapped(data, pad)


def _mapped(data: Divided, change: Callable[[Sequences], Sequences]) -> Divided:
    train, validation, test = (change(each) for each in (data.train, data.validation, data.test))
    return dataclasses.replace(data, train=train, validation=validation, test=test)
