"""Classifiers of another size: as many parameters as another one has, or longer rows."""

from __future__ import annotations

import functools
from dataclasses import replace

from posterhall.errors import DataError
from posterhall.extras import nn, torch
from posterhall.models.classifier.config import ClassifierConfig
from posterhall.models.classifier.model import Classifier

_WIDEST = 4096


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

    @functools.cache
    def count(times: int) -> int | None:
        nonlocal refused
        try:
            return parameters(Classifier(replace(config, dim=times * multiple), seed=None))
        except DataError as error:  # some widths do not suit some mixers
            refused = error
            return None

    def first(start: int, stop: int) -> tuple[int, int] | None:
        """The first width from one multiple to before another that can be, and its parameters."""
        counts = ((times, count(times)) for times in range(start, stop))
        return next(((times, many) for times, many in counts if many is not None), None)

    low: tuple[int, int] | None = None
    high: tuple[int, int] | None = None
    times = 1
    while high is None and times * multiple <= _WIDEST:
        found = first(times, 2 * times)
        if found is not None and found[1] >= wanted:
            high = found
        else:
            low, times = found or low, 2 * times
    # Parameters grow with the width: the two that enclose what is wanted are found by halving.
    floor, ceiling = (low[0] if low else 0), (high[0] if high else 0)
    while ceiling - floor > 1:
        middle = (floor + ceiling) // 2
        found = first(middle, ceiling)
        if found is None or found[1] >= wanted:
            high, ceiling = found or high, middle
        else:
            low, floor = found, found[0]
    candidates = [each for each in (low, high) if each is not None]
    if not candidates:
        assert refused is not None  # noqa: S101 - for the type checker
        raise refused
    times = min(candidates, key=lambda each: abs(each[1] - wanted))[0]
    return replace(config, dim=times * multiple)


def lengthened(model: Classifier, max_length: int) -> Classifier:
    """The same weights in a model for rows of up to so many positions, in evaluation mode.

    Raises:
        DataError: for a model whose weights or outputs depend on its longest row (long_conv, hyena,
            base_conv, linformer, mega, learned positions).
    """
    config = model.config
    longer = Classifier(replace(config, max_length=max_length), seed=None).eval()
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
