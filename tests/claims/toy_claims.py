"""Claims about coins and dice, cheap enough to run whole; some break in every way a claim can."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from posterhall.claims import (
    Axis,
    Budget,
    Claim,
    Equivalent,
    Figure,
    Line,
    Ordering,
    Paired,
    Panel,
    Row,
    Threshold,
    claim,
)
from posterhall.errors import DataError

SCALES = {
    "smoke": Budget(tosses=400),
    "laptop": Budget(tosses=4000),
    "full": Budget(tosses=40_000, seeds=10),
}


def heads(seed: int, bias: float, tosses: int) -> float:
    return float((np.random.default_rng(seed).random(tosses) < bias).mean())


@claim(id="loaded-coin", paper="coins", where="§1", headline=True)
class Loaded(Claim):
    """A loaded coin shows heads more often than a fair one."""

    kind = Paired(metric="heads", arms=("loaded", "fair"), margin=0.05)
    paper_value = "+0.30"
    refuted_by = "heads as often as the fair coin, or less"
    negative_control = "a second fair coin must not show heads more often"
    control_arms = ("fair again", "fair")
    deviates = "a generator of random numbers instead of a coin"
    scales = SCALES
    params = {"bias": 0.8, "wait": 0.0, "note": None}

    def run(self, budget: Budget, seed: int) -> Iterator[Row]:
        print("a claim may print; it goes to the log")
        time.sleep(float(self.params["wait"] or 0.0))
        bias = float(self.params["bias"] or 0.0)
        yield Row("loaded", seed, heads=heads(seed, bias, budget.tosses))
        yield Row("fair", seed, heads=heads(seed + 100, 0.5, budget.tosses))
        yield Row("fair again", seed, heads=heads(seed + 200, 0.5, budget.tosses))

    def figure(self, rows: list[Row]) -> Figure:
        line = Line.of(rows, "heads", {0.5: "fair", 0.8: "loaded"}, label="heads")
        return Figure(Panel(line, x=Axis("bias"), y=Axis("share of heads")), caption="More bias, more heads.")


@claim(id="fair-coin-is-loaded", paper="coins", where="§2")
class FairIsLoaded(Claim):
    """A fair coin shows heads less often than a coin that never does."""

    kind = Paired(metric="heads", arms=("fair", "never"), direction="lower")
    paper_value = "-0.1"
    refuted_by = "it shows heads as often or more often"
    negative_control = "nor does a second one"
    control_arms = ("fair again", "never")
    deviates = "nothing"
    scales = SCALES

    def run(self, budget: Budget, seed: int) -> Iterator[Row]:
        for i, (arm, bias) in enumerate({"fair": 0.5, "never": 0.0, "fair again": 0.5}.items()):
            yield Row(arm, seed, heads=heads(seed + 100 * i, bias, budget.tosses))


@claim(id="control-shows-it-too", paper="dice", where="§1", headline=True)
class Fooled(Claim):
    """A die that is always six beats one that is always one; so does its control."""

    kind = Threshold(metric="pips", arm="six", at_least=4.0)
    paper_value = "6"
    refuted_by = "fewer than four pips"
    negative_control = "a die without the mechanism must not reach four"
    control_arms = ("also six",)
    deviates = "nothing"
    scales = SCALES

    def run(self, budget: Budget, seed: int) -> Iterator[Row]:
        yield Row("six", seed, pips=6)
        yield Row("also six", seed, pips=6)


@claim(id="diverges", paper="dice", where="§2")
class Diverges(Claim):
    """A die with infinitely many pips equals one with six."""

    kind = Equivalent(metric="pips", arms=("infinite", "six"), margin=0.5)
    paper_value = "equal"
    refuted_by = "they differ by more than half a pip"
    negative_control = "a die of one pip must not equal six"
    control_arms = ("one", "six")
    deviates = "nothing"
    scales = SCALES

    def run(self, budget: Budget, seed: int) -> Iterator[Row]:
        yield Row("infinite", seed, pips=float("inf") if seed == 2 else 6.0)
        yield Row("six", seed, pips=6.0)
        yield Row("one", seed, pips=1.0)


@claim(id="alone", paper="dice", where="§3", exclusive=True)
class Alone(Claim):
    """With the machine to itself, threads are not limited."""

    kind = Ordering(metric="pips", arms=("three", "two", "one"))
    paper_value = "3 > 2 > 1"
    refuted_by = "any other order"
    negative_control = "equal dice must not come out ordered"
    control_arms = ("one", "one again")
    deviates = "nothing"
    scales = SCALES

    def run(self, budget: Budget, seed: int) -> Iterator[Row]:
        limited = float(os.environ.get("OPENBLAS_NUM_THREADS") == "1")
        for arm, pips in {"three": 3, "two": 2, "one": 1, "one again": 1}.items():
            yield Row(arm, seed, pips=pips, limited=limited)


class Broken(Claim):
    """A claim that breaks on its third seed."""

    kind = Threshold(metric="m", arm="a", at_least=0.5)
    paper_value = "1"
    refuted_by = "less than a half"
    negative_control = "nought must not reach a half"
    control_arms = ("b",)
    deviates = "nothing"
    scales = SCALES
    params = {"marker": None}

    def run(self, budget: Budget, seed: int) -> Iterator[Row]:
        mended = self.params["marker"] is not None and Path(str(self.params["marker"])).exists()
        if seed == 2 and not mended:
            self.fail()
        yield Row("a", seed, m=1.0)
        yield Row("b", seed, m=0.0)

    def fail(self) -> None:
        raise NotImplementedError


@claim(id="raises", paper="broken", where="§1")
class Raises(Broken):
    __doc__ = Broken.__doc__

    def fail(self) -> None:
        raise DataError("line 7 holds no number")


@claim(id="killed", paper="broken", where="§2")
class Killed(Broken):
    __doc__ = Broken.__doc__

    def fail(self) -> None:
        os.kill(os.getpid(), signal.SIGKILL)


@claim(id="exits", paper="broken", where="§3")
class Exits(Broken):
    __doc__ = Broken.__doc__

    def fail(self) -> None:
        os._exit(3)


@claim(id="forgets-an-arm", paper="broken", where="§4")
class Forgets(Broken):
    __doc__ = Broken.__doc__

    def run(self, budget: Budget, seed: int) -> Iterator[Row]:
        yield Row("a", seed, m=1.0)
