"""Time by length."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from posterhall.claims import Budget, Claim, Paired, Row, claim

_MIXERS = {"attention": "attention", "S4D": "s4d", "long convolution": "long_conv"}


@claim(id="convolutions-grow-slower", paper="state_space", where="§3.4; Table 1", exclusive=True)
class ConvolutionsGrowSlower(Claim):
    """The time of exact attention grows with a power of the length that is greater by over 0.4 than that of
    an S4D layer.

    Slopes of log CPU seconds by log length, forward, one sequence, the least of interleaved repetitions.
    """

    kind = Paired(metric="slope", arms=("attention", "S4D"), margin=0.4)
    paper_value = "L^2 against L log L (no measured slope given)"
    refuted_by = "attention's time grows with no greater power"
    negative_control = "a long convolution must not grow with a greater power than S4D"
    control_arms = ("long convolution", "S4D")
    deviates = "one layer, torch's tiled attention on a CPU; lengths at which projections still count"
    scales = {
        "smoke": Budget(width=32, shortest=1024, longest=4096, repeats=3, seconds=1.0),
        "laptop": Budget(width=64, shortest=1024, longest=8192, repeats=5, seconds=8.0),
        "full": Budget(width=64, shortest=2048, longest=32_768, repeats=5, seconds=200.0),
    }

    def run(self, budget: Budget, seed: int) -> Iterator[Row]:
        import time

        import numpy as np

        from posterhall.extras import torch
        from posterhall.models.config import DecoderConfig
        from posterhall.models.mixers import Placement, factory
        from posterhall.seeds import derive

        lengths = [budget.shortest]
        while lengths[-1] < budget.longest:
            lengths.append(2 * lengths[-1])
        draw = torch.Generator().manual_seed(derive(seed, "costs"))
        mixers: dict[str, Any] = {}
        for arm, name in _MIXERS.items():
            config = DecoderConfig(
                vocab_size=1,
                dim=budget.width,
                heads=1,
                max_length=lengths[-1],
                mixers=(name,),
                positions="none",
            )
            mixers[arm] = factory(name)(config, 0)
            if hasattr(mixers[arm], "initialise"):
                mixers[arm].initialise(draw)
            else:
                for parameter in mixers[arm].parameters():
                    torch.nn.init.normal_(parameter, std=budget.width**-0.5, generator=draw)
        least = {arm: [np.inf] * len(lengths) for arm in mixers}
        for at, length in enumerate(lengths):
            x = torch.empty(1, length, budget.width).normal_(generator=draw)
            # With gradients on, as in training: without them a layer keeps its kernel's transform from call
            # to call, and making it would not be counted. The first repetition warms up.
            for repeat in range(budget.repeats + 1):
                for arm, mixer in mixers.items():
                    began = time.process_time()
                    mixer(x, Placement(1, length, x.device))
                    took = time.process_time() - began
                    if repeat:
                        least[arm][at] = min(least[arm][at], took)
        for arm, times in least.items():
            slope = np.polyfit(np.log(lengths), np.log(times), 1)[0]
            yield Row(arm, seed, slope=float(slope), times=times, lengths=lengths)
