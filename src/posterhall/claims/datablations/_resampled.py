"""Lives refitted to resamples of the published runs, or of runs made from them; shared by the claims here."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from posterhall.scaling.effective import Array
    from posterhall.scaling.table import Runs


def lives(runs: Runs, resamples: int, seed: int) -> tuple[Array, Array]:
    """R_D* and R_N* on resamples of runs, the other constants frozen at C4's: (resamples,) each."""
    from posterhall.scaling import DataConstrained, FitSettings
    from posterhall.seeds import derive

    settings = FitSettings(
        bootstrap=resamples,
        profile=False,
        held_out=0,
        threads=1,
        seed=derive(seed, "datablations", "resamples"),
    )
    fit = DataConstrained().fit(runs, frozen="c4", settings=settings).fit_
    columns = list(fit.values)
    return fit.draws[:, columns.index("R_D")], fit.draws[:, columns.index("R_N")]


def simulated(seed: int) -> Runs:
    """The published runs with losses of the published law, times residuals drawn from the real ones."""
    from dataclasses import replace

    import numpy as np

    from posterhall.scaling import DataConstrained, runs182
    from posterhall.seeds import generator

    runs = runs182.runs()
    law = DataConstrained().loss(runs.params, runs.tokens, runs.unique_tokens)
    residuals = np.log(runs.loss / law)
    drawn = generator(seed, "datablations", "simulated").choice(residuals, size=len(runs))
    return replace(runs, loss=law * np.exp(drawn - np.median(residuals)))


def shuffled(seed: int) -> Runs:
    """The published runs with their losses dealt out anew."""
    from dataclasses import replace

    from posterhall.scaling import runs182
    from posterhall.seeds import generator

    runs = runs182.runs()
    return replace(runs, loss=generator(seed, "datablations", "shuffled").permutation(runs.loss))
