"""What determines a training by PPO. Needs no torch."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal, get_args

from posterhall.data.preference_tokens import TooLong
from posterhall.errors import DataError, did_you_mean
from posterhall.train.adapter_settings import AdapterSettings
from posterhall.train.settings import Schedule

KIND = "train ppo"
"""Of its runs."""

Estimator = Literal["k1", "k3"]
Advantage = Literal["gae", "leave_one_out", "group"]


@dataclass(frozen=True)
class PpoSettings(AdapterSettings):
    """Everything that determines a training by PPO, beside the model, the prompts and the reward.

    A rollout is `prompts` x `samples` answers; `passes` passes are made over it, in steps of `batch` x
    `accumulate` answers. A training is whole rollouts: a length in steps or epochs is rounded up to them (4
    steps, by default). Defaults are those of TRL's PPOTrainer where nothing else is said.

    Raises:
        DataError: for a value outside its range, or a rollout that is no multiple of a step.
    """

    reward: str = ""
    """What answers are worth, of a job (`posterhall.train.ppo.fit_ppo` is given a function instead): the
    directory or run of a reward model, lexicon:FILE, length:WORDS, classifier:DIR or judge:MODEL; see
    `posterhall.train.scorers`."""
    beta: float = 0.05
    """Price of a nat by which an answer leaves the reference, > 0 (TRL's kl_coef)."""
    estimator: Estimator = "k1"
    """How these nats are estimated: k1 or k3; see `posterhall.objectives.ppo.kl_estimate`."""
    target_kl: float | None = None
    """Nats an answer to which beta adapts (Ziegler et al. 2019, §2.2: 6 to 10), > 0; none: beta stays."""
    advantage: Advantage = "gae"
    """gae: with a value head on the policy's states. Without one: leave_one_out (RLOO, Ahmadian et al. 2024)
    or group (normalised in the group of a prompt's answers, GRPO, Shao et al. 2024), with samples >= 2."""
    prompts: int = 64
    """Prompts of a rollout, >= 1."""
    samples: int = 1
    """Answers to each, >= 1."""
    passes: int = 4
    """Passes over a rollout, >= 1."""
    max_new_tokens: int = 53
    """Most tokens of an answer, >= 1 (Stiennon et al. 2020; TRL)."""
    temperature: float = 0.7
    """Of the sampling, > 0. Policy and reference are taken at this temperature throughout."""
    missing_end_penalty: float = 0.0
    """Taken off the reward of an answer that did not end within max_new_tokens, >= 0 (TRL: off)."""
    discount: float = 1.0
    """gae: gamma, in [0, 1]."""
    trace: float = 0.95
    """gae: lambda, in [0, 1]."""
    clip_ratio: float = 0.2
    """Range of the ratio of new to old probability, > 0."""
    clip_value: float = 0.2
    """gae: range within which a value may move away from the old one, > 0."""
    value_weight: float = 0.1
    """gae: weight of the value loss, > 0."""
    too_long: TooLong = "refuse"
    """Prompts that leave no room for max_new_tokens: refuse (left out), or cut_prompt (its beginning)."""
    begin: bool = True
    """Put the tokeniser's token of beginning before a prompt."""
    eval_fraction: float = 0.05
    """Share of the prompts held out for evaluation where no other file is given for it; 0: none."""
    lr: float = 3e-6
    """Peak learning rate, > 0. Small models take 1e-5 to 1e-3."""
    schedule: Schedule = "linear"
    """Course after the warm-up; see TrainSettings."""
    min_lr_fraction: float = 0.0
    """Share of the peak rate at which the schedule ends, in [0, 1]."""
    warmup: float = 0.0
    """Linear warm-up: a share of all steps if below 1, else steps."""
    batch: int = 8
    """Answers of one pass through the model, >= 1."""
    accumulate: int = 8
    """Passes a step, >= 1."""
    beta2: float = 0.999
    """AdamW's decay of the mean square, in [0, 1)."""
    weight_decay: float = 0.0
    """AdamW's decoupled weight decay, >= 0; the tie to the reference is what holds the weights."""
    log_every: int = 4
    """Steps between two lines of metrics, which hold means over them, >= 1; 4 is a rollout by default."""

    def __post_init__(self) -> None:
        super().__post_init__()
        for name, allowed in (("estimator", Estimator), ("advantage", Advantage), ("too_long", TooLong)):
            given = getattr(self, name)
            if given not in get_args(allowed):
                raise DataError(
                    f"{name} is '{given}'; it must be one of {', '.join(get_args(allowed))}."
                    f"{did_you_mean(str(given), get_args(allowed))}"
                )
        for name in ("beta", "temperature", "clip_ratio", "clip_value", "value_weight"):
            if not 0 < getattr(self, name) < math.inf:
                raise DataError(f"{name} is {getattr(self, name)}; it must be above 0")
        if self.target_kl is not None and not 0 < self.target_kl < math.inf:
            raise DataError(f"target_kl is {self.target_kl}; it must be above 0, or left out")
        for name in ("prompts", "samples", "passes", "max_new_tokens"):
            if getattr(self, name) < 1:
                raise DataError(f"{name} is {getattr(self, name)}; it must be at least 1")
        if not 0 <= self.missing_end_penalty < math.inf:
            raise DataError(f"missing_end_penalty is {self.missing_end_penalty}; it must be at least 0")
        for name in ("discount", "trace"):
            if not 0 <= getattr(self, name) <= 1:
                raise DataError(f"{name} is {getattr(self, name)}; it must be from 0 to 1")
        if not 0 <= self.eval_fraction < 1:
            raise DataError(f"eval_fraction is {self.eval_fraction}; it must be at least 0 and below 1")
        if self.lora_dropout:
            raise DataError(
                f"lora_dropout is {self.lora_dropout}; PPO compares probabilities of the same model before "
                "and after a step, without dropout"
            )
        if self.advantage != "gae" and self.samples < 2:
            raise DataError(
                f"samples is {self.samples}; {self.advantage} compares the answers to a prompt: at least 2"
            )
        if self.rollout % self.rows_a_step:
            raise DataError(
                f"a rollout has {self.prompts} prompts x {self.samples} samples = {self.rollout} answers, a "
                f"step {self.batch} x {self.accumulate} = {self.rows_a_step} (batch x accumulate); the first "
                "must be a multiple of the second"
            )
        if self.tokens is not None:
            raise DataError("tokens is given, but answers are not rows of tokens; give steps or epochs")

    @property
    def rollout(self) -> int:
        """Answers of a rollout."""
        return self.prompts * self.samples

    @property
    def phase(self) -> int:
        """Answers that a rollout comes to over all passes."""
        return self.rollout * self.passes

    @property
    def has_critic(self) -> bool:
        """Whether there is a value head."""
        return self.advantage == "gae"

    def rows(self, *, items: int, item_tokens: int | None) -> int:
        """See `TrainSettings.rows`; whole rollouts, the last one rounded up."""
        wanted = super().rows(items=items, item_tokens=item_tokens)
        return -(-wanted // self.phase) * self.phase
