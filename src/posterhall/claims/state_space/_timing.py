"""How long mixers take by length; only imported where torch is wanted."""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Mapping, Sequence
from typing import Any

from posterhall.claims.rows import Budget
from posterhall.extras import torch
from posterhall.models.config import DecoderConfig
from posterhall.models.mixers import Placement, factory, initial
from posterhall.seeds import derive

_LEAST = 0.03  # CPU seconds of a repetition: clocks of CPU time may be coarse


def timed(
    mixers: Mapping[str, str], lengths: Sequence[int], budget: Budget, seed: int
) -> dict[str, list[float]]:
    """CPU seconds of one call forward, over one sequence, at each length.

    Gradients are on, as in training: without them a layer of convolutions keeps its kernel's transform from
    call to call, and making it would not be counted. One thread, so that no waiting counts as work.

    Args:
        mixers: names in `posterhall.models.mixers.MIXERS`, by arm.
        lengths: in tokens.
        budget: width, and repeats, of which the median is taken; all arms take turns in each.
        seed: of weights and inputs.

    Returns:
        By arm, a time for each length.
    """
    draw = torch.Generator().manual_seed(derive(seed, "costs"))
    made = {arm: _made(name, budget.width, max(lengths), draw) for arm, name in mixers.items()}
    found: dict[str, list[float]] = {arm: [] for arm in made}
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        for length in lengths:
            x = torch.empty(1, length, budget.width).normal_(generator=draw)
            calls = {}
            for arm, mixer in made.items():
                _spent(mixer, x, 1)  # whatever is compiled or set up at the first call
                calls[arm] = math.ceil(_LEAST / max(_spent(mixer, x, 1), 1e-4))
            taken: dict[str, list[float]] = {arm: [] for arm in made}
            for _ in range(budget.repeats):
                for arm, mixer in made.items():
                    taken[arm].append(_spent(mixer, x, calls[arm]) / calls[arm])
            for arm, each in taken.items():
                found[arm].append(statistics.median(each))
    finally:
        torch.set_num_threads(threads)
    return found


def _made(name: str, width: int, longest: int, draw: torch.Generator) -> Any:
    config = DecoderConfig(
        vocab_size=1, dim=width, heads=1, max_length=longest, mixers=(name,), positions="none"
    )
    mixer = factory(name)(config, 0)
    if hasattr(mixer, "initialise"):
        mixer.initialise(draw)
    else:  # attention, which a decoder initialises itself
        initial.projections(mixer, config, draw)
    return mixer


def _spent(mixer: Any, x: torch.Tensor, calls: int) -> float:
    began = time.process_time()
    for _ in range(calls):
        mixer(x, Placement(1, x.shape[1], x.device))
    return time.process_time() - began
