"""What DPO's updates do: how pairs are weighed, what becomes of the chosen answers, what is learnt in the
end."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from posterhall.claims import (
    Axis,
    Budget,
    Claim,
    Equivalent,
    Figure,
    Panel,
    Region,
    Row,
    Strip,
    Threshold,
    claim,
)
from posterhall.claims.dpo._language import Labels
from posterhall.claims.dpo.frontier import LABELLED, LABORATORY, frontier_row, points_row

_BETA = 0.1
"""The paper's (App. B)."""
_DRAWN: tuple[tuple[str, Labels], ...] = (
    ("drawn preferences", "bradley-terry"),
    ("preferences always right", "better"),
)
_SCALES = {
    "smoke": Budget(length=4, tested=2, texts_steps=100, prompts=300, steps=60, points=4, seconds=3.0),
    "laptop": Budget(length=5, tested=3, texts_steps=300, prompts=1500, steps=160, points=4, seconds=12.0),
    "full": Budget(
        length=6, tested=8, texts_steps=3000, prompts=25_000, steps=2000, points=4, seeds=10, seconds=600.0
    ),
}


@claim(id="gradient-weight-falls", paper="dpo", where="§4 (the gradient of the loss)")
class GradientWeightFalls(Claim):
    """As pairs are learnt, the weight that DPO's gradient gives a pair falls from a half to at most a
    quarter.

    The weight is sigmoid(-beta h), a half for a pair of which nothing is known yet; the mean over the pairs
    of the last quarter of the steps.
    """

    kind = Threshold(metric="gradient_weight", arm="DPO", at_most=0.25)
    paper_value = "no number given (pairs ordered wrongly by the implicit reward weigh more)"
    refuted_by = "a mean weight above a quarter"
    negative_control = "with labels at random, which cannot be learnt, the weight must not fall so far"
    control_arms = ("DPO, labels at random",)
    deviates = LABORATORY
    scales = _SCALES

    def run(self, budget: Budget, seed: int) -> Iterator[Row]:
        from posterhall.claims.dpo._lab import Lab
        from posterhall.claims.dpo._training import on_preferences

        lab = Lab(budget, seed)
        for arm, labels in LABELLED:
            pairs = lab.preferences(budget.prompts, labels=labels)
            learnt = on_preferences(
                lab, pairs, steps=budget.steps, points=budget.points, loss="dpo", beta=_BETA
            )
            weights = [line["gradient_weight"] for line in learnt.history]
            right = learnt.history[-1]["reward_accuracy"]
            yield Row(arm, seed, gradient_weight=weights[-1], weights=weights, reward_accuracy=right)


@claim(id="chosen-falls-reward-rises", paper="dpo", where="not in it (Rafailov et al. 2024; its users ask)")
class ChosenFallsRewardRises(Claim):
    """DPO lowers the log-probability of the chosen answers themselves, by more than half a nat an answer,
    while the expected true reward rises by more than 0.1.

    A seed whose reward does not rise so far counts as a fall of nothing.
    """

    kind = Threshold(metric="fall", arm="DPO", at_least=0.5, refuted=Region(high=0.0))
    paper_value = "no number given"
    refuted_by = "the chosen answers become as likely as they were, or more"
    negative_control = "fine-tuning on the chosen answers must not lower them"
    control_arms = ("Preferred-FT",)
    deviates = LABORATORY
    scales = _SCALES

    def run(self, budget: Budget, seed: int) -> Iterator[Row]:
        from posterhall.claims.dpo._lab import Lab
        from posterhall.claims.dpo._training import mean_logp, on_preferences

        lab = Lab(budget, seed)
        pairs = lab.preferences(budget.prompts)
        before = mean_logp(lab.reference, pairs)
        for arm, loss in (
            ("DPO", {"loss": "dpo", "beta": _BETA}),
            ("DPO, β = 1", {"loss": "dpo", "beta": 1.0}),
            ("DPO, β = 5", {"loss": "dpo", "beta": 5.0}),
            ("Preferred-FT", {"loss": "preferred_ft"}),
        ):
            learnt = on_preferences(lab, pairs, steps=budget.steps, points=1, **loss)
            gained = learnt.end.reward - lab.frontier.reference
            chosen, rejected = (
                was - now for was, now in zip(before, mean_logp(learnt.model, pairs), strict=True)
            )
            yield Row(
                arm,
                seed,
                fall=chosen if gained > 0.1 else 0.0,
                chosen_fall=chosen,
                rejected_fall=rejected,
                gained=gained,
                kl=learnt.end.kl,
            )

    def figure(self, rows: Sequence[Row]) -> Figure:
        arms = ("DPO", "DPO, β = 1", "DPO, β = 5", "Preferred-FT")
        return Figure(
            Panel(Strip.of(rows, "chosen_fall", arms), x=Axis("chosen answers: fall of log p (nats)")),
            Panel(Strip.of(rows, "rejected_fall", arms), x=Axis("rejected answers: fall of log p (nats)")),
            Panel(Strip.of(rows, "gained", arms), x=Axis("rise of the expected true reward")),
            caption="How far the log-probabilities of the answers that were compared fall in training "
            "(below 0: rise), and how far the expected true reward rises.",
        )


@claim(id="rankings-match-pairs", paper="dpo", where="App. A.3; the talk ('decompose into pairwise')")
class RankingsMatchPairs(Claim):
    """At equal KL, DPO on rankings of four answers (Plackett-Luce) and DPO on the six pairs of each expect
    the same true reward, within 0.01.

    The same prompts and answers, of those prompts whose answers all differ; equally many steps of equally
    many prompts; beta 1. Compared as in dpo-dominates-ppo.
    """

    kind = Equivalent(metric="reward_at_equal_kl", arms=("rankings", "pairs"), margin=0.01)
    paper_value = "no number given (the two likelihoods differ, both are consistent)"
    refuted_by = "a difference of more than 0.01"
    negative_control = "pairs at random must not come out the same as pairs"
    control_arms = ("pairs, labels at random", "pairs")
    deviates = LABORATORY
    scales = _SCALES

    def run(self, budget: Budget, seed: int) -> Iterator[Row]:
        import numpy as np

        from posterhall.claims.dpo._lab import Lab, common_range, envelope
        from posterhall.claims.dpo._training import on_preferences

        lab = Lab(budget, seed)
        known = lab.preferences(budget.prompts)
        first, second = np.triu_indices(known.rankings.shape[1], 1)
        pairs = np.stack([known.rankings[:, first].ravel(), known.rankings[:, second].ravel()], axis=1)
        guessed = lab.preferences(budget.prompts, labels="random").pairs
        points = {
            arm: on_preferences(
                lab, known, items=items, loss=loss, beta=1.0, steps=budget.steps, points=budget.points
            ).points
            for arm, loss, items in (
                ("rankings", "plackett_luce", known.rankings),
                ("pairs", "dpo", pairs),
                ("pairs, labels at random", "dpo", guessed),
            )
        }
        # Labels at random lead nowhere: their small KL must not narrow what the two are compared over.
        at = common_range(points["rankings"], points["pairs"])
        for arm, reached in points.items():
            yield points_row(arm, seed, reached, reward_at_equal_kl=float(envelope(lab, reached, at).mean()))
        yield frontier_row(lab, seed)

    def figure(self, rows: Sequence[Row]) -> Figure:
        from posterhall.claims.dpo._draw import frontier_panels

        return Figure(
            *frontier_panels(rows, self.kind.names),
            Panel(
                Strip.of(rows, "reward_at_equal_kl", ("rankings", "pairs")),
                x=Axis("mean reward over the KL that both have reached"),
            ),
            caption="Expected true reward against divergence from the reference, on the way "
            "of training; how far below its own frontier each of these points lies; and what is compared.",
        )


@claim(id="implicit-reward-is-the-reward", paper="dpo", where="§4, eq. 4 to 7; §5.1")
class ImplicitRewardIsTheReward(Claim):
    """With preferences drawn by the Bradley-Terry model and many large steps, DPO's implicit reward is the
    reward that they were drawn by, up to a constant for each prompt: within a quarter of its standard
    deviation.

    The reward is the score here (what goes through the sigmoid elsewhere), beta is 1, and the deviation is
    the root mean square over the reference's answers, as a share of the score's standard deviation over them:
    1 for an implicit reward that says nothing. The laptop scale had twice as many steps when it was first
    run, and was halved for its time alone.
    """

    kind = Threshold(metric="deviation", arm="drawn preferences", at_most=0.25)
    paper_value = "no number given (a theorem, for as many preferences as one likes)"
    refuted_by = "a mean deviation above a quarter"
    negative_control = "with preferences that are always right, which fit no finite reward, it must not be"
    control_arms = ("preferences always right",)
    deviates = LABORATORY
    scales = {
        "smoke": Budget(length=4, tested=2, texts_steps=100, prompts=1000, steps=100, batches=2, seconds=6.0),
        "laptop": Budget(
            length=5, tested=3, texts_steps=300, prompts=6000, steps=150, batches=4, seconds=18.0
        ),
        "full": Budget(
            length=6,
            tested=8,
            texts_steps=3000,
            prompts=100_000,
            steps=4000,
            batches=16,
            seeds=10,
            seconds=5000.0,
        ),
    }

    def run(self, budget: Budget, seed: int) -> Iterator[Row]:
        from posterhall.claims.dpo._lab import Lab
        from posterhall.claims.dpo._training import REWARD_LR, on_preferences, reward_model

        lab = Lab(budget, seed)
        for arm, labels in _DRAWN:
            pairs = lab.preferences(budget.prompts, labels=labels)
            learnt = on_preferences(
                lab,
                pairs,
                steps=budget.steps,
                points=1,
                loss="dpo",
                beta=1.0,
                lr=REWARD_LR,
                at_once=budget.batches,
            )
            implicit = lab.enumerate(learnt.model) - lab.logq
            yield Row(arm, seed, deviation=lab.deviation(implicit), loss=learnt.history[-1]["loss"])
            if labels == "bradley-terry":
                model = reward_model(lab, pairs, steps=budget.steps)
                yield Row("reward model", seed, deviation=lab.deviation(model.scores(lab)))

    def figure(self, rows: Sequence[Row]) -> Figure:
        arms = ("drawn preferences", "reward model", "preferences always right")
        return Figure(
            Panel(
                Strip.of(rows, "deviation", arms), x=Axis("deviation from the reward (standard deviations)")
            ),
            caption="How far DPO's implicit reward, and a reward model's, are from the reward that "
            "preferences were drawn by, up to a constant for each prompt.",
        )
