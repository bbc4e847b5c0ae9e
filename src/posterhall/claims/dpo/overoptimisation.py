"""Why policies are tied to a reference: what becomes of the true reward when a learned one is pushed far."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from posterhall.claims import Axis, Budget, Claim, Figure, Line, Panel, Row, Strip, Threshold, claim
from posterhall.claims.dpo._draw import KL
from posterhall.claims.dpo.frontier import LABORATORY
from posterhall.claims.lines import numbers

_FEW = (
    f"{LABORATORY}; the reward model learns from the pairs of 64 prompts, so that it is as wrong as one is "
    "that has seen a vanishing part of all answers"
)
_SCALES = {
    "smoke": Budget(
        length=4, tested=3, texts_steps=100, prompts=64, steps=60, points=4, rollouts=40, seconds=5.0
    ),
    "laptop": Budget(
        length=5, tested=3, texts_steps=300, prompts=64, steps=200, points=8, rollouts=80, seconds=15.0
    ),
    "full": Budget(
        length=6,
        tested=8,
        texts_steps=3000,
        prompts=64,
        steps=1000,
        points=20,
        rollouts=2000,
        seeds=10,
        seconds=3000.0,
    ),
}
_POWERS = 11
"""Of four: the best of 1 to 1,048,576."""
_OTHERS = ("learned from a quarter", "learned from sixteen times as many")
"""Prompts, as there are: arms that the test does not look at."""


def _row(
    arm: str, seed: int, kls: Sequence[float], rewards: Sequence[float], learned: Sequence[float]
) -> Row:
    """A path towards a high learned reward, and what it has lost of the true one at its end."""
    best = max(range(len(rewards)), key=rewards.__getitem__)
    # What ends with a lower learned reward has not been pushed further.
    lost = rewards[best] - rewards[-1] if learned[-1] >= learned[best] else 0.0
    return Row(arm, seed, lost=lost, kls=kls, rewards=rewards, learned=learned)


def _figure(rows: Sequence[Row], arms: Sequence[str], caption: str) -> Figure:
    """One seed's paths, and the true reward that every seed has at the end of each."""
    first = min(row.seed for row in rows)
    shown = [row for arm in arms for row in rows if row.arm == arm and row.seed == first]
    true = [Line(row.arm, numbers(row, "kls"), numbers(row, "rewards")) for row in shown]
    learned = [
        Line(row.arm, numbers(row, "kls"), numbers(row, "learned"))
        for row in shown
        if row.arm != "true reward"
    ]
    return Figure(
        Panel(*true, x=KL, y=Axis("expected true reward"), title=f"Seed {first}"),
        Panel(*learned, x=KL, y=Axis("expected learned reward"), title=f"Seed {first}"),
        Panel(Strip.of(rows, "lost", arms), x=Axis("true reward lost at the end"), title="All seeds"),
        caption=caption,
    )


@claim(id="ppo-overoptimises", paper="dpo", where="§3 (why the KL term); the talk; Gao et al. 2023")
class PpoOveroptimises(Claim):
    """PPO on a learned reward without a tie to the reference, pushed on, loses at least 0.02 of the expected
    true reward that it had on its way, while the learned reward has risen.

    A path whose learned reward has not risen since its best point counts as having lost nothing. The laptop
    scale had 120 rollouts when it was first run; 80 were kept, for their time alone.
    """

    kind = Threshold(metric="lost", arm="learned reward", at_least=0.02)
    paper_value = "no number given (the KL term 'prevents the model from deviating too far')"
    refuted_by = "it loses less than 0.02"
    negative_control = "PPO on the true reward must not lose as much"
    control_arms = ("true reward",)
    deviates = _FEW
    scales = _SCALES

    def run(self, budget: Budget, seed: int) -> Iterator[Row]:
        from posterhall.claims.dpo._lab import Lab
        from posterhall.claims.dpo._training import on_reward, reward_model, true_scorer
        from posterhall.metrics.frontier import expected

        lab = Lab(budget, seed)
        model = reward_model(lab, lab.preferences(budget.prompts), steps=budget.steps)
        scores = model.scores(lab)
        how = {"beta": 0.0, "rollouts": budget.rollouts, "points": budget.points}
        for arm, scorer, values in (
            ("learned reward", model.scorer(), scores),
            ("true reward", true_scorer(lab), lab.reward),
        ):
            learnt = on_reward(lab, scorer, values=values, **how)
            points = [lab.start(), *learnt.points]
            learned = [expected(lab.logq, values), *learnt.values]
            yield _row(arm, seed, [p.kl for p in points], [p.reward for p in points], learned)

    def figure(self, rows: Sequence[Row]) -> Figure:
        return _figure(
            rows,
            ("learned reward", "true reward"),
            "PPO without a tie to the reference: the true reward on its way, the learned one, and what of "
            "the true one is lost at the end.",
        )


@claim(id="best-of-n-overoptimises", paper="dpo", where="§3 (why the KL term); the talk; Gao et al. 2023")
class BestOfNOveroptimises(Claim):
    """The best of n answers by a learned reward, n from 1 to 1,048,576, loses at least 0.02 of the expected
    true reward that it had at a smaller n, while the learned reward has risen.

    All n are exact: the distribution of the best is known. Reward models that have learnt from a quarter of
    the prompts, and from sixteen times as many, stand beside the test and do not count; they were added after
    it had been run once.
    """

    kind = Threshold(metric="lost", arm="learned reward", at_least=0.02)
    paper_value = "no number given (best of 128 is the largest tried)"
    refuted_by = "it loses less than 0.02"
    negative_control = "the best of n by the true reward must not lose as much"
    control_arms = ("true reward",)
    deviates = _FEW
    scales = {scale: budget.replace(seconds=budget.seconds / 3) for scale, budget in _SCALES.items()}

    def run(self, budget: Budget, seed: int) -> Iterator[Row]:
        from posterhall.claims.dpo._lab import Lab, Point
        from posterhall.claims.dpo._training import reward_model
        from posterhall.metrics import frontier

        lab = Lab(budget, seed)
        scores = {
            arm: reward_model(lab, lab.preferences(prompts), steps=budget.steps).scores(lab)
            for arm, prompts in (
                ("learned reward", budget.prompts),
                (_OTHERS[0], budget.prompts // 4),
                (_OTHERS[1], 16 * budget.prompts),
            )
        }
        for arm, values in (*scores.items(), ("true reward", lab.reward)):
            best = [frontier.best_of(lab.logq, values, 4**power) for power in range(_POWERS)]
            points = [Point.of(lab, each) for each in best]
            learned = [frontier.expected(each, values) for each in best]
            yield _row(arm, seed, [p.kl for p in points], [p.reward for p in points], learned)

    def figure(self, rows: Sequence[Row]) -> Figure:
        return _figure(
            rows,
            ("learned reward", *_OTHERS, "true reward"),
            "The best of 1 to 1,048,576 answers: the true reward, the learned one, and what of the true "
            "one is lost at the end.",
        )
