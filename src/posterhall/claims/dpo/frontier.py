"""Reward against divergence: where methods stand to each other, and to the best that can be had."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import lru_cache
from typing import TYPE_CHECKING

from posterhall.claims import Axis, Budget, Claim, Figure, Paired, Panel, Row, Strip, Threshold, claim
from posterhall.claims.dpo._draw import frontier_panels
from posterhall.claims.dpo._language import Labels

if TYPE_CHECKING:
    from posterhall.claims.dpo._lab import Lab, Point

BETAS = (0.05, 0.1, 1.0, 5.0)
"""DPO's, as in the paper (§6.1)."""
PRICES = (0.3, 0.1, 0.05, 0.02)
"""Of a nat, for PPO: the best policies at these have a KL of about .5 to 4 nats."""
ALPHAS = (0.05, 0.1, 0.5, 1.0)
"""Of unlikelihood, as in the paper."""
LABELLED: tuple[tuple[str, Labels], ...] = (("DPO", "better"), ("DPO, labels at random", "random"))
"""Arms of DPO that differ in their labels."""

LABORATORY = (
    "a language of ten words, answers of five to prompts of two and a decoder of 17,000 parameters, all "
    "answers enumerated, against GPT-2-large on film reviews; the true reward is a sum of valences with "
    "negation through a sigmoid, preferences follow it without error; AdamW at rates tuned for each kind "
    "of method"
)
SCALES = {
    "smoke": Budget(
        length=4, tested=2, texts_steps=100, prompts=300, steps=40, points=2, rollouts=16, seconds=7.0
    ),
    "laptop": Budget(
        length=5, tested=3, texts_steps=300, prompts=1500, steps=160, points=4, rollouts=120, seconds=40.0
    ),
    "full": Budget(
        length=6,
        tested=8,
        texts_steps=3000,
        prompts=25_000,
        steps=2000,
        points=10,
        rollouts=1500,
        seeds=10,
        seconds=3000.0,
    ),
}


@lru_cache(maxsize=32)
def dpo_points(
    budget: Budget, seed: int, *, purpose: str = "pairs", labels: Labels = "better"
) -> tuple[Point, ...]:
    """Of DPO at all of BETAS, on the way and at the end; kept, since several claims look at the same."""
    from posterhall.claims.dpo._lab import Lab
    from posterhall.claims.dpo._training import on_preferences

    lab = Lab(budget, seed)
    pairs = lab.preferences(budget.prompts, labels=labels, purpose=purpose)
    how = {"steps": budget.steps, "points": budget.points, "loss": "dpo"}
    return tuple(point for beta in BETAS for point in on_preferences(lab, pairs, beta=beta, **how).points)


def points_row(arm: str, seed: int, points: Sequence[Point], **metrics: float) -> Row:
    """A method's points, and what else is measured of it."""
    row = Row(
        arm,
        seed,
        kls=[p.kl for p in points],
        rewards=[p.reward for p in points],
        gaps=[p.gap for p in points],
    )
    row.metrics.update(metrics)
    return row


def frontier_row(lab: Lab, seed: int, most: float = 10.0) -> Row:
    """The best that can be had, for the figure."""
    import numpy as np

    kls = np.linspace(0.0, most, 81)
    return Row("frontier", seed, kls=kls, rewards=[lab.frontier.bound(float(kl)) for kl in kls])


def _compared(lab: Lab, seed: int, methods: Mapping[str, Sequence[Point]]) -> Iterator[Row]:
    """Rows with the reward that each method has at equal KL."""
    from posterhall.claims.dpo._lab import common_range, envelope

    at = common_range(*methods.values())
    for arm, points in methods.items():
        reached = envelope(lab, points, at)
        yield points_row(arm, seed, points, reward_at_equal_kl=float(reached.mean()), up_to=float(at[-1]))
    yield frontier_row(lab, seed)


@claim(id="dpo-dominates-ppo", paper="dpo", where="§6.1; Fig. 2 (left)", headline=True)
class DpoDominatesPpo(Claim):
    """At equal KL, DPO's expected true reward is higher than that of PPO on the true reward itself, by more
    than 0.005.

    Each method has four strengths of its tie to the reference and is measured on its way too; between its
    points, and from the reference to its first one, it is given what mixing two of its policies at random
    would have. Compared is the mean over all KL from 0 to the largest that both have reached. PPO has no
    critic (an answer's baseline are the other answers to its prompt).
    """

    kind = Paired(metric="reward_at_equal_kl", arms=("DPO", "PPO-GT"), margin=0.005)
    paper_value = "DPO's points lie above 26 of 27, 28 of 29 and 34 of 35 points of PPO's (read off Fig. 2)"
    refuted_by = "PPO on the true reward has as much reward at equal KL, or more"
    negative_control = "DPO must not come out above DPO on other pairs"
    control_arms = ("DPO", "DPO, other pairs")
    deviates = LABORATORY
    scales = SCALES

    def run(self, budget: Budget, seed: int) -> Iterator[Row]:
        from posterhall.claims.dpo._lab import Lab
        from posterhall.claims.dpo._training import on_reward, true_scorer

        lab = Lab(budget, seed)
        ppo = [
            point
            for price in PRICES
            for point in on_reward(
                lab, true_scorer(lab), beta=price, rollouts=budget.rollouts, points=budget.points
            ).points
        ]
        yield from _compared(
            lab,
            seed,
            {
                "DPO": dpo_points(budget, seed),
                "DPO, other pairs": dpo_points(budget, seed, purpose="other pairs"),
                "PPO-GT": ppo,
            },
        )

    def figure(self, rows: Sequence[Row]) -> Figure:
        return Figure(
            *frontier_panels(rows, self.kind.names),
            Panel(
                Strip.of(rows, "reward_at_equal_kl", (*self.kind.names, "DPO, other pairs")),
                x=Axis("mean reward over the KL that all have reached"),
            ),
            caption="Expected true reward against divergence from the reference, all strengths, on the way "
            "of training; how far below its own frontier each of these points lies; and what is compared.",
        )


@claim(id="dpo-near-the-frontier", paper="dpo", where="§4; §6.1 (no bound is given there)")
class DpoNearTheFrontier(Claim):
    """After training, DPO's expected true reward is at most 0.05 below the most that any policy at its KL can
    have, at the worst of four strengths.

    The bound is exact: the least over beta of beta KL + beta log Z, from all answers.
    """

    kind = Threshold(metric="gap", arm="DPO", at_most=0.05)
    paper_value = "no number given (DPO 'achieves the highest reward for all KL values')"
    refuted_by = "a mean gap above 0.05"
    negative_control = "DPO on labels at random must not end within 0.05"
    control_arms = ("DPO, labels at random",)
    deviates = LABORATORY
    scales = SCALES

    def run(self, budget: Budget, seed: int) -> Iterator[Row]:
        from posterhall.claims.dpo._lab import Lab

        lab = Lab(budget, seed)
        for arm, labels in LABELLED:
            points = dpo_points(budget, seed, labels=labels)
            ends = points[budget.points - 1 :: budget.points]
            yield points_row(arm, seed, ends, gap=max(p.gap for p in ends))
        yield frontier_row(lab, seed)

    def figure(self, rows: Sequence[Row]) -> Figure:
        arms = (*self.kind.names, *self.control_arms)
        return Figure(
            *frontier_panels(rows, arms),
            Panel(Strip.of(rows, "gap", arms), x=Axis("reward below the frontier, worst strength")),
            caption="Where DPO ends with four strengths of its tie to the reference, how far below its own "
            "frontier that is, and the worst of the four.",
        )


@claim(id="dpo-above-likelihood-training", paper="dpo", where="§6.1; Fig. 2 (left)")
class DpoAboveLikelihoodTraining(Claim):
    """At equal KL, DPO's expected true reward is higher than the better of Preferred-FT's and Unlikelihood's,
    by more than 0.005.

    Compared as in dpo-dominates-ppo; the two rivals' points are taken together, so that at each KL the better
    one counts.
    """

    kind = Paired(metric="reward_at_equal_kl", arms=("DPO", "Preferred-FT and Unlikelihood"), margin=0.005)
    paper_value = "no number given (Fig. 2, left: both far below DPO)"
    refuted_by = "one of the two has as much reward at equal KL, or more"
    negative_control = "DPO must not come out above DPO on other pairs"
    control_arms = ("DPO", "DPO, other pairs")
    deviates = LABORATORY
    scales = SCALES

    def run(self, budget: Budget, seed: int) -> Iterator[Row]:
        from posterhall.claims.dpo._lab import Lab
        from posterhall.claims.dpo._training import on_preferences

        lab = Lab(budget, seed)
        pairs = lab.preferences(budget.prompts)
        how = {"steps": budget.steps, "points": budget.points}
        preferred = on_preferences(lab, pairs, loss="preferred_ft", **how).points
        unlikely = [
            point
            for alpha in ALPHAS
            for point in on_preferences(lab, pairs, loss="unlikelihood", alpha=alpha, **how).points
        ]
        methods = {
            "DPO": dpo_points(budget, seed),
            "DPO, other pairs": dpo_points(budget, seed, purpose="other pairs"),
            "Preferred-FT and Unlikelihood": [*preferred, *unlikely],
        }
        yield from _compared(lab, seed, methods)
        yield points_row("Preferred-FT", seed, preferred)
        yield points_row("Unlikelihood", seed, unlikely)

    def figure(self, rows: Sequence[Row]) -> Figure:
        return Figure(
            *frontier_panels(rows, ("DPO", "Preferred-FT", "Unlikelihood")),
            Panel(
                Strip.of(rows, "reward_at_equal_kl", (*self.kind.names, "DPO, other pairs")),
                x=Axis("mean reward over the KL that all have reached"),
            ),
            caption="Expected true reward against divergence from the reference, all strengths, on the way "
            "of training; how far below its own frontier each of these points lies; and what is compared.",
        )
