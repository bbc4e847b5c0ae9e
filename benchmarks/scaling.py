"""Fitting Chinchilla's law against scipy's L-BFGS-B from 4,500 starts, and 4,000 resamples.

Without a file it makes 240 points about a law. `--runs FILE` fits those of a CSV (params, tokens, loss).
The peer is what published fits do (Hoffmann et al. 2022, approach 3): the grid of a, b in 0..25, e in -1..1,
alpha and beta in 0..2, each start by L-BFGS-B with an analytic gradient in numpy. Ours must find an objective
that is no higher. The peer takes tens of seconds, so it is run `--peer-repeats` times; the exact route five.
"""

from __future__ import annotations

import argparse
import itertools
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks._harness import Result, arguments, emit, interleaved

if TYPE_CHECKING:
    import numpy as np

    from posterhall.scaling import Runs

DELTA = 1e-3
RESAMPLES = 4000
ALLOWED = 60.0
"""Seconds for all resamples."""


def _options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--runs", type=Path, help="table of params, tokens, loss [240 made points]")
    parser.add_argument("--columns", default="", help="as loss=val_loss,params=n")
    parser.add_argument("--seed", type=int, default=0, help="of the points that are made")
    parser.add_argument("--peer-repeats", type=int, default=1, help="runs of the 4,500-start grid")


def made(seed: int, count: int = 240) -> dict[str, Any]:
    """Points about Epoch's constants, spread like Chinchilla's; heavy tails of 1 % and five outliers."""
    import numpy as np

    rng = np.random.default_rng(seed)
    params = np.exp(rng.uniform(np.log(4e7), np.log(1.6e10), count))
    tokens = np.clip(10 ** rng.uniform(18.5, 22, count) / (6 * params), 1e9, 5e11)
    loss = 1.8172 + 482.01 / params**0.3478 + 2085.43 / tokens**0.3658
    loss *= np.exp(0.01 * rng.standard_t(3, count))
    loss[:5] *= np.exp(rng.uniform(0.05, 0.2, 5))
    return {"params": params, "tokens": tokens, "loss": loss}


def grid_fit(runs: Runs) -> tuple[float, np.ndarray]:
    """The best of 4,500 starts of scipy's L-BFGS-B, with analytic gradient."""
    import numpy as np
    from scipy.optimize import minimize

    n, d, seen = np.log(runs.params), np.log(runs.tokens), np.log(runs.loss)

    def objective(theta: np.ndarray) -> tuple[float, np.ndarray]:
        a, b, e, alpha, beta = theta
        terms = np.stack([a - alpha * n, b - beta * d, np.full_like(n, e)])
        top = terms.max(axis=0)
        parts = np.exp(terms - top)
        total = parts.sum(axis=0)
        parts /= total
        miss = top + np.log(total) - seen
        size = np.abs(miss)
        value = np.where(size <= DELTA, 0.5 * miss**2, DELTA * (size - 0.5 * DELTA)).sum()
        push = np.clip(miss, -DELTA, DELTA)
        first, second, third = (parts * push).sum(axis=1)
        return value, np.array(
            [first, second, third, -(push * parts[0] * n).sum(), -(push * parts[1] * d).sum()]
        )

    starts = itertools.product(
        np.arange(0, 30, 5.0), np.arange(0, 30, 5.0), np.arange(-1, 1.5, 0.5), *[np.arange(0, 2.5, 0.5)] * 2
    )
    found = min(
        (minimize(objective, start, jac=True, method="L-BFGS-B") for start in starts),
        key=lambda each: float(each.fun),
    )
    return float(found.fun), found.x


def once(work: Callable[[], Any], repeats: int) -> Any:
    """Time one side alone."""
    return interleaved({"side": work}, repeats=repeats)["side"]


def main() -> None:
    """Measure and print."""
    chosen = arguments(__doc__ or "", _options)

    import scipy

    from posterhall.scaling import Chinchilla, FitSettings, read
    from posterhall.scaling.table import pairs

    runs = read(chosen.runs or made(chosen.seed), columns=pairs([chosen.columns], "--columns"))
    plain = FitSettings(bootstrap=0, held_out=0, threads=chosen.threads)
    full = FitSettings(bootstrap=RESAMPLES, held_out=0, threads=chosen.threads)
    Chinchilla().fit(runs, settings=plain)  # loads the compiled kernels

    ours = once(lambda: Chinchilla().fit(runs, settings=plain), chosen.repeats)
    peer = once(lambda: grid_fit(runs), chosen.peer_repeats)
    drawn = once(lambda: Chinchilla().fit(runs, settings=full), 1)
    law, (objective, theta) = ours.value, peer.value
    quality = {
        "objective_ours": law.objective_,
        "objective_peer": objective,
        "no_higher": bool(law.objective_ <= objective),
        "alpha_ours": law.params_["alpha"],
        "alpha_peer": float(theta[3]),
        "beta_ours": law.params_["beta"],
        "beta_peer": float(theta[4]),
        "wall_ours": ours.wall_median,
        "wall_peer": peer.wall_median,
        "wall_ratio": peer.wall_median / ours.wall_median,
        "runs_ours": len(ours.wall),
        "runs_peer": len(peer.wall),
    }
    alpha, beta = (drawn.value.interval_[name] for name in ("alpha", "beta"))
    emit(
        "scaling",
        chosen.threads,
        [
            Result(
                case=f"Chinchilla's law, {len(runs)} points",
                ours=ours.cpu_median,
                peer=peer.cpu_median,
                peer_name=f"scipy {scipy.__version__} L-BFGS-B, 4,500 starts",
                unit="CPU s",
                ratio=peer.cpu_median / ours.cpu_median,
                quality=quality,
            ),
            Result(
                case=f"{RESAMPLES:,} resamples fitted",
                ours=drawn.wall_median,
                peer=ALLOWED,
                peer_name="the allowed time",
                unit="s",
                ratio=ALLOWED / drawn.wall_median,
                quality={
                    "cpu": drawn.cpu_median,
                    "alpha_low": alpha.low,
                    "alpha_high": alpha.high,
                    "beta_low": beta.low,
                    "beta_high": beta.high,
                },
            ),
        ],
        as_json=chosen.json,
    )


if __name__ == "__main__":
    main()
