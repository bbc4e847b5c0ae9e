"""What follows from the equations alone: forms that agree, poles that overflow, steps that are too large."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from posterhall.claims import Budget, Claim, Equivalent, Ratio, Relative, Row, Threshold, claim

_FORGOTTEN = "the state forgotten between chunks"
_FORMS = "whole, in chunks and by steps"
_SEEN, _STABLE, _FORETOLD = "overflow seen", "overflow seen, poles stable", "overflow foretold"


@claim(id="one-model-three-forms", paper="state_space", where="§2; §3")
class OneModelThreeForms(Claim):
    """The same S4 and S4D weights give the same outputs, to a hundred-thousandth of the largest, as a
    convolution, in chunks and a step at a time.

    The largest difference of the forms and of both layers counts, in single precision.
    """

    kind = Threshold(metric="difference", arm=_FORMS, at_most=1e-5)
    paper_value = "equal by construction (eq. 3 to 5); no error given"
    refuted_by = "the forms differ by more than that"
    negative_control = "chunks between which the state is forgotten must not agree"
    control_arms = (_FORGOTTEN,)
    deviates = "random weights as a layer begins with them, before any training"
    scales = {
        "smoke": Budget(width=16, length=256, seconds=0.5),
        "laptop": Budget(width=64, length=1024, seconds=1.0),
        "full": Budget(width=256, length=16_384, seeds=10, seconds=300.0),
    }

    def run(self, budget: Budget, seed: int) -> Iterator[Row]:
        from posterhall.extras import torch
        from posterhall.models.config import DecoderConfig
        from posterhall.models.mixers import Placement, factory
        from posterhall.seeds import derive

        length = budget.length
        found: dict[str, list[float]] = {_FORMS: [], _FORGOTTEN: []}
        for name in ("s4", "s4d"):
            config = DecoderConfig(
                vocab_size=1, dim=budget.width, max_length=length, mixers=(name,), positions="none"
            )
            mixer: Any = factory(name)(config, 0)
            draw = torch.Generator().manual_seed(derive(seed, "system", name))
            mixer.initialise(draw)
            mixer.eval()
            x = torch.empty(2, length, budget.width).normal_(generator=draw)

            def by(sizes: list[int], *, keep: bool = True, mixer: Any = mixer, x: Any = x) -> Any:
                state, parts, at = None, [], 0
                for size in sizes:
                    if state is None or not keep:
                        state = mixer.new_state(2, length, dtype=x.dtype, device=x.device)
                    past = (at, at) if keep else (0, 0)
                    place = Placement(2, size, x.device, past=past)
                    parts.append(mixer(x[:, at : at + size], place, state))
                    at += size
                return torch.cat(parts, dim=1)

            third = length // 3
            with torch.no_grad():
                whole = mixer(x, Placement(2, length, x.device))
                scale = float(whole.abs().max())
                chunks = [third, 1, length - third - 1]
                for arm, given in (
                    (_FORMS, by(chunks)),
                    (_FORMS, by([1] * length)),
                    (_FORGOTTEN, by(chunks, keep=False)),
                ):
                    found[arm].append(float((given - whole).abs().max()) / scale)
        for arm, differences in found.items():
            yield Row(arm, seed, difference=max(differences))


@claim(id="unstable-poles-overflow", paper="state_space", where="§3 and app. (stability); Goel et al. 2022")
class UnstablePolesOverflow(Claim):
    """A state whose pole lies on the right overflows single precision within 5 % of the step foretold by
    ln(3.4e38) / (step size x real part), whatever noise drives it.

    Each seed draws poles, steps and inputs; steps are averaged over its poles. A state that has not
    overflown at three times the step foretold counts as that.
    """

    kind = Equivalent(metric="step", arms=(_SEEN, _FORETOLD), margin=Relative(0.05))
    paper_value = "no number given (stable if and only if all real parts are below 0)"
    refuted_by = "it overflows at another step"
    negative_control = "the same poles turned to the left must not overflow then"
    control_arms = (_STABLE, _FORETOLD)
    deviates = "poles by themselves, not those of a trained layer, where they cannot become unstable"
    scales = {
        "smoke": Budget(poles=32, seconds=0.3),
        "laptop": Budget(poles=1024, seconds=2.0),
        "full": Budget(poles=100_000, seeds=10, seconds=60.0),
    }

    def run(self, budget: Budget, seed: int) -> Iterator[Row]:
        import numpy as np

        from posterhall.extras import torch
        from posterhall.models.mixers.discretize import diagonal
        from posterhall.seeds import generator

        rng = generator(seed, "poles")
        real = rng.uniform(0.25, 1.0, budget.poles)
        turn = rng.uniform(-50.0, 50.0, budget.poles)
        step = np.exp(rng.uniform(np.log(0.03), np.log(0.1), budget.poles))
        foretold = np.log(np.finfo(np.float32).max) / (step * real)
        limit = int(3 * foretold.max()) + 1
        for arm, sign in ((_SEEN, 1.0), (_STABLE, -1.0)):
            pole = torch.from_numpy(sign * real + 1j * turn)
            log_a, b_bar = diagonal(pole, torch.from_numpy(step), "zoh")
            factor = torch.exp(log_a).numpy().astype(np.complex64)
            driven = b_bar.numpy().astype(np.complex64)
            noise = generator(seed, "noise")
            state = np.zeros(budget.poles, np.complex64)
            seen = 3 * foretold
            going = np.ones(budget.poles, bool)
            with np.errstate(over="ignore", invalid="ignore"):
                for k in range(1, limit):
                    state = factor * state + driven * noise.normal(size=budget.poles).astype(np.float32)
                    over = going & ~np.isfinite(state)
                    seen[over] = np.minimum(seen[over], k)
                    going &= ~over
            yield Row(arm, seed, step=float(seen.mean()))
        yield Row(_FORETOLD, seed, step=float(foretold.mean()))


@claim(id="euler-blows-up", paper="state_space", where="§2.3; app. (HiPPO-LegS)")
class EulerBlowsUp(Claim):
    """At the largest step S4 begins with, 0.1, the states of HiPPO-LegS of size 64 grow at least five times
    as much a step by Euler's method as by the bilinear one.

    Left alone from a random state; the growth a step is taken over the second half.
    """

    kind = Ratio(metric="growth", arms=("Euler", "bilinear"), at_least=5.0)
    paper_value = "no number given; by the eigenvalues -1 to -64: 5.40 against 0.905"
    refuted_by = "Euler's states grow no more than the bilinear ones"
    negative_control = "at a step of 0.01, where 64 steps make less than 2, Euler's must not grow more"
    control_arms = ("Euler, steps of 0.01", "bilinear, steps of 0.01")
    deviates = "nothing"
    scales = {
        "smoke": Budget(steps=150, seconds=0.1),
        "laptop": Budget(steps=150, seeds=20, seconds=0.1),
        "full": Budget(steps=150, seeds=100, seconds=0.1),
    }

    def run(self, budget: Budget, seed: int) -> Iterator[Row]:
        import numpy as np

        from posterhall.extras import torch
        from posterhall.models.mixers.discretize import Method, dense
        from posterhall.models.mixers.hippo import transition
        from posterhall.seeds import generator

        a, b = (torch.from_numpy(each) for each in transition("legs", 64))
        start = generator(seed, "state").normal(size=64)
        methods: dict[str, Method] = {"Euler": "euler", "bilinear": "bilinear"}
        for step, suffix in ((0.1, ""), (0.01, ", steps of 0.01")):
            for name, method in methods.items():
                matrix = dense(a, b, step, method)[0].numpy()
                state, sizes = start, [float(np.linalg.norm(start))]
                for _ in range(budget.steps):
                    state = matrix @ state
                    sizes.append(float(np.linalg.norm(state)))
                half = budget.steps // 2
                growth = (sizes[-1] / sizes[half]) ** (1 / (budget.steps - half))
                yield Row(name + suffix, seed, growth=growth)
