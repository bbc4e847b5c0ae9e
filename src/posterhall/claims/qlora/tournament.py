"""The tournament: the published table replayed from the verdicts, and what its "± 1" is an interval of.

The 4,480 verdicts of GPT-4 on the Vicuna prompts come with the package; nothing is asked of any model.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from posterhall.claims.base import Claim, claim
from posterhall.claims.figures import Axis, Bars, Figure, Panel
from posterhall.claims.kinds import Threshold
from posterhall.claims.rows import Budget, Row

if TYPE_CHECKING:
    from posterhall.evals.arena.verdicts import Verdicts

PUBLISHED = {
    "gpt4": 1348,
    "guanaco-65b": 1022,
    "guanaco-33b": 992,
    "vicuna-13b": 974,
    "gpt35": 966,
    "guanaco-13b": 916,
    "bard": 902,
    "guanaco-7b": 879,
}
"""Elo of Table 1 (Table 7 has 913 for Guanaco-13B), best first, under the names that the verdicts have."""

_SCALES = {
    "smoke": Budget(orderings=10_000, resamples=200, seconds=3.0),
    "laptop": Budget(orderings=10_000, resamples=1000, seeds=10, seconds=5.0),
    "full": Budget(orderings=100_000, resamples=10_000, seeds=10, seconds=60.0),
}


@claim(id="elo-table-replayed", paper="qlora", where="Table 1; Table 7")
class EloTableReplayed(Claim):
    """Playing the released verdicts in 10,000 random orders ranks the eight models as published: all 28 pairs
    stand in the published order."""

    kind = Threshold(metric="pairs_as_published", arm="released verdicts", at_least=1.0)
    paper_value = "1348, 1022, 992, 974, 966, 916, 902 and 879, from GPT-4 to Guanaco-7B"
    refuted_by = "a pair of models stands the other way round"
    negative_control = "verdicts dealt out anew must not rank them so"
    control_arms = ("verdicts dealt anew",)
    deviates = "orders of games drawn anew; the authors' code for this was not released"
    scales = _SCALES

    def run(self, budget: Budget, seed: int) -> Iterator[Row]:
        import dataclasses

        from posterhall.evals.arena import verdicts
        from posterhall.seeds import generator

        games = verdicts.example().judged()
        dealt = dataclasses.replace(
            games, result=games.result[generator(seed, "qlora", "dealt").permutation(len(games))]
        )
        for arm, played in (("released verdicts", games), ("verdicts dealt anew", dealt)):
            rating, _, _ = _rated(played, budget.orderings, 0, seed)
            right = [rating[a] > rating[b] for i, a in enumerate(PUBLISHED) for b in list(PUBLISHED)[i + 1 :]]
            off = {name: rating[name] - points for name, points in PUBLISHED.items()}
            yield Row(
                arm, seed, pairs_as_published=sum(right) / len(right),
                most_off=max(map(abs, off.values())), ratings=list(rating.values()),
            )  # fmt: skip

    def figure(self, rows: Sequence[Row]) -> Figure:
        import numpy as np

        found = [row["ratings"] for row in rows if row.arm == "released verdicts"]
        replayed = np.mean(np.array(found), axis=0)
        names = tuple(PUBLISHED)
        return Figure(
            Panel(
                Bars("published", names, tuple(map(float, PUBLISHED.values()))),
                Bars("replayed", names, tuple(replayed.tolist())),
                y=Axis("Elo"),
            ),
            caption="Ratings by GPT-4's verdicts on the 80 Vicuna prompts, mean over random orders of games.",
        )


@claim(id="elo-known-to-one-point", paper="qlora", where="Table 1 ('± 1'); Table 7")
class EloKnownToOnePoint(Claim):
    """The ratings are known to a point: over other prompts of the same kind their 95 % intervals reach no
    further than 2 points, on average over the models.

    The published ± 1 is the error of a mean over 10,000 orders of the same games, which more orders make as
    small as one likes. Here the prompts are resampled.
    """

    kind = Threshold(metric="half_width", arm="prompts resampled", at_most=2.0)
    paper_value = "± 1"
    refuted_by = "the intervals reach further than 2 points"
    negative_control = "the rating after one random order of the games must not be known to 2 points"
    control_arms = ("one order of the games",)
    deviates = "intervals by resampling the 80 prompts, each with all its games"
    scales = _SCALES

    def run(self, budget: Budget, seed: int) -> Iterator[Row]:
        from posterhall.evals.arena import verdicts

        games = verdicts.example()
        _, half, spread = _rated(games, budget.orderings, budget.resamples, seed)
        mean_spread = sum(spread.values()) / len(spread)
        two_sided = 1.96
        for arm, width in (
            ("prompts resampled", sum(half.values()) / len(half)),
            ("one order of the games", two_sided * mean_spread),
            ("mean over orders of the games", two_sided * mean_spread / budget.orderings**0.5),
        ):
            yield Row(arm, seed, half_width=width)


def _rated(
    games: Verdicts, orderings: int, resamples: int, seed: int
) -> tuple[dict[str, float], dict[str, float], dict[str, float]]:
    """By published name: rating, half width of its interval over prompts, spread over orders of the games."""
    from posterhall.evals.arena import elo

    found = elo.rate(games, orderings=orderings, resamples=resamples, seed=seed, threads=1)
    place = {name: games.player(name) for name in PUBLISHED}
    return (
        {name: float(found.rating[i]) for name, i in place.items()},
        {name: float(found.high[i] - found.low[i]) / 2 for name, i in place.items()},
        {name: float(found.ordering_sd[i]) for name, i in place.items()},
    )
