"""A tournament's ratings: Elo over 10,000 random orders, and Bradley-Terry, on 4,467 games of 8 models.

    python -m benchmarks.arena [--orderings 10000] [--json]

The games are GPT-4's verdicts that ship with the package. Peers: the loop over a data frame in which Elo is
usually written (a shuffle, and a row at a time), and evalica where it is installed (Elo in one order a call,
and Bradley-Terry; from names each time, where ours has numbers). A peer plays fewer orders and its time is
scaled up. Both means over orders must agree within what the orders leave open, both fits to 0.05 points.
"""

from __future__ import annotations

import argparse
import importlib.util
from typing import Any

from benchmarks._harness import Result, arguments, emit, faster, interleaved


def _options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--orderings", type=int, default=10_000)


def frame(verdicts: Any) -> Any:
    """The games as a data frame of names and the first player's score."""
    import numpy as np
    import pandas as pd

    return pd.DataFrame(
        {
            "a": np.array(verdicts.players)[verdicts.first],
            "b": np.array(verdicts.players)[verdicts.second],
            "score": np.array([1.0, 0.0, 0.5])[verdicts.result],
        }
    )


def one_order(games: Any, seed: int) -> dict[str, float]:
    """Elo in one random order, by the loop that one writes."""
    rating: dict[str, float] = {}
    shuffled = games.sample(frac=1, random_state=seed)
    for a, b, score in shuffled.itertuples(index=False):
        x, y = rating.setdefault(a, 1000.0), rating.setdefault(b, 1000.0)
        moved = 32 * (score - 1 / (1 + 10 ** ((y - x) / 400)))
        rating[a], rating[b] = x + moved, y - moved
    return rating


def elo_against_a_loop(verdicts: Any, games: Any, options: Any) -> Result:
    """All orders, ours, against 100 of the loop's, scaled."""
    import numpy as np
    import pandas as pd

    from posterhall.evals.arena import elo

    few = 100
    sides = {
        "ours": lambda: elo.rate(verdicts, orderings=options.orderings, resamples=0, threads=options.threads),
        "peer": lambda: [one_order(games, seed) for seed in range(few)],
    }
    sides["ours"]()  # compiles
    timed = interleaved(sides, repeats=options.repeats)
    mean = np.array([np.mean([each[name] for each in timed["peer"].value]) for name in verdicts.players])
    apart = float(np.abs(timed["ours"].value.rating - mean).max())
    if apart > 4 * 45 / np.sqrt(few):
        raise SystemExit(f"the two sides' ratings are {apart:.0f} points apart")
    scale = options.orderings / few
    ours = timed["ours"].cpu_median
    peer = timed["peer"].cpu_median * scale
    return Result(
        case=f"Elo, {options.orderings:,} orders of {len(verdicts):,} games",
        ours=ours,
        peer=peer,
        peer_name=f"a loop over pandas {pd.__version__}",
        unit="CPU s",
        ratio=peer / ours,
        quality={
            "wall_ours": timed["ours"].wall_median,
            "runs": len(timed["ours"].cpu),
            "peer_orders": few,
            "ns_a_game": 1e9 * ours / options.orderings / len(verdicts),
            "points_apart": apart,
        },
    )


def fit_against_evalica(verdicts: Any, games: Any, options: Any) -> list[Result]:
    """Bradley-Terry from the games to the ratings, and one order of Elo; nothing without evalica."""
    if importlib.util.find_spec("evalica") is None:
        return []
    import evalica
    import numpy as np

    from posterhall.evals.arena import bradley_terry

    winners = np.array([evalica.Winner.X, evalica.Winner.Y, evalica.Winner.Draw])[verdicts.result].tolist()
    left, right = games["a"].tolist(), games["b"].tolist()
    times = 20
    sides = {
        "ours": lambda: [bradley_terry.rate(verdicts, resamples=0) for _ in range(times)][-1],
        "peer": lambda: [evalica.bradley_terry(left, right, winners, tolerance=1e-10) for _ in range(times)][
            -1
        ],
    }
    for side in sides.values():
        side()
    timed = interleaved(sides, repeats=options.repeats)
    strength = timed["peer"].value.scores
    other = 400 * np.log10([strength[name] for name in verdicts.players])
    apart = float(np.abs((other - other.mean()) - (timed["ours"].value.rating - 1000)).max())
    if apart > 0.05:
        raise SystemExit(f"the two fits are {apart:.2f} points apart")
    facts = {"fits": times, "points_apart": apart, "ms_ours": 1e3 * timed["ours"].cpu_median / times}
    fits = faster(
        f"Bradley-Terry with covariance, {len(verdicts):,} games, {times} times",
        timed["ours"],
        timed["peer"],
        f"evalica {evalica.__version__}",
        quality=facts,
    )
    return [fits, orders(verdicts, left, right, winners, options)]


def orders(verdicts: Any, left: list[str], right: list[str], winners: list[Any], options: Any) -> Result:
    """All orders of Elo, ours, against calls of evalica in one order each, scaled."""
    import evalica

    from posterhall.evals.arena import elo

    few = 20
    sides = {
        "ours": lambda: elo.rate(verdicts, orderings=options.orderings, resamples=0, threads=options.threads),
        "peer": lambda: [evalica.elo(left, right, winners, initial=1000.0, k=32.0) for _ in range(few)],
    }
    timed = interleaved(sides, repeats=options.repeats)
    ours, peer = timed["ours"].cpu_median, timed["peer"].cpu_median * options.orderings / few
    return Result(
        case=f"Elo, {options.orderings:,} orders of {len(verdicts):,} games",
        ours=ours,
        peer=peer,
        peer_name=f"evalica {evalica.__version__}",
        unit="CPU s",
        ratio=peer / ours,
        quality={"runs": len(timed["ours"].cpu), "peer_orders": few, "wall_ours": timed["ours"].wall_median},
    )


def main() -> None:
    options = arguments(str(__doc__), _options)
    from posterhall.evals.arena.verdicts import example

    verdicts = example().judged()
    games = frame(verdicts)
    results = [elo_against_a_loop(verdicts, games, options), *fit_against_evalica(verdicts, games, options)]
    emit("arena", options.threads, results, as_json=options.json)


if __name__ == "__main__":
    main()
