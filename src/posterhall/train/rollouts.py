"""Answers that a policy draws, what they are worth, and batches of them for the training loop.

A rollout follows from the weights, the settings and its number alone: prompts come in the order of an
endless sequence of epochs, and every answer has a seed of its own.
"""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from posterhall import adapters
from posterhall.data.epochs import Epochs
from posterhall.data.preference_tokens import Layout, PreferenceTokens, pack
from posterhall.errors import DataError
from posterhall.extras import functional, nn, torch
from posterhall.models.generate import generate
from posterhall.models.reward import Backed
from posterhall.objectives import ppo
from posterhall.objectives.lm import token_logprobs
from posterhall.seeds import derive, generator
from posterhall.train.language import trees
from posterhall.train.loop import autocast
from posterhall.train.ppo_settings import PpoSettings

Reward = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]
"""(ids (B, T), mask (B, T) bool) -> rewards (B,): whole texts, padded at the end with 0, and which of their
tokens are the answer's, its end included if it came to one."""

TOLD = (
    "reward",
    "reward_std",
    "kl",
    "objective",
    "beta",
    "entropy",
    "length",
    "ended",
    "explained_variance",
)
"""What is said of a rollout: mean reward and its standard deviation, KL to the reference (nats an answer,
k1), reward less what the KL costs, the price of a nat; -log p a token (an estimate of the entropy at the
sampling temperature), tokens an answer, share of answers that ended; and how well the values foresaw the
returns."""


class ActorCritic(Backed):
    """A policy, a value head on its states, and the price of a nat, as one thing to train and to keep.

    Args:
        policy: a `Decoder`, or what has its `hidden`, `head_weight` and what generation needs.
        settings: of the training.
    """

    beta: torch.Tensor

    def __init__(self, policy: Any, settings: PpoSettings) -> None:
        super().__init__(policy)
        self.temperature = settings.temperature
        device = next(policy.parameters()).device
        self.register_buffer("beta", torch.tensor(settings.beta, dtype=torch.float32, device=device))
        self.head = None
        if settings.has_critic:
            # Zeros: values begin as the constant that says nothing, and disturb no state.
            self.head = nn.Parameter(torch.zeros(policy.config.dim, device=device))
            self.offset = nn.Parameter(torch.zeros((), device=device))
        if settings.gradient_checkpointing and (dropping := _drops(policy)):
            raise DataError(
                f"gradient_checkpointing is on and the model has dropout ({dropping}), which would make the "
                "ratio of new to old probabilities one of noise; set its dropout to 0"
            )

    def train(self, mode: bool = True) -> ActorCritic:
        """The policy stays as it was when it drew, without dropout, except where it is computed twice."""
        super().train(mode)
        self.backbone.train(mode and self.gradient_checkpointing)
        return self

    def read(self, batch: dict[str, torch.Tensor]) -> tuple[torch.Tensor, torch.Tensor | None]:
        """log p of the answers' tokens of a batch of `pack`, at the sampling temperature, and the values of
        the states before them (None without a critic); both (M,), float32."""
        states = answer_states(self.backbone, batch)
        logp = logprobs(self.backbone, states, batch["labels"], self.temperature)
        return logp, None if self.head is None else states.float() @ self.head + self.offset


def layout_of(model: Any) -> Layout:
    """trees for models that know them, rows for others."""
    mixers = getattr(model.config, "layer_mixers", None)
    return "trees" if mixers is not None and set(mixers) == {"attention"} else "rows"


def answer_states(model: Any, batch: dict[str, torch.Tensor]) -> torch.Tensor:
    """(M, D) states from which the answers' tokens of a batch of `pack` are predicted."""
    shape = {"trees": trees(batch)} if "trunks" in batch else {}
    found: torch.Tensor = model.hidden(batch["ids"], at=batch["sources"], **shape)
    return found


def logprobs(model: Any, states: torch.Tensor, labels: torch.Tensor, temperature: float) -> torch.Tensor:
    """log p (M,) of tokens at a temperature, of the states (M, D) before them."""
    if getattr(model, "plain_head", True):  # then dividing the states divides the logits
        return token_logprobs(states / temperature, model.head_weight(), labels)
    return -functional.cross_entropy(model.logits(states) / temperature, labels, reduction="none")


@dataclass(frozen=True)
class Reference:
    """A policy as it was."""

    model: Any
    adapters: tuple[tuple[torch.Tensor, torch.Tensor], ...] = ()
    """Of a policy of which only adapters are trained, each of their tensors with what it was; then the model
    is the policy itself."""

    @classmethod
    def of(cls, policy: nn.Module) -> Reference:
        """The policy with its adapters as they are now, if nothing else is trained; else a copy."""
        if any(isinstance(part, adapters.LoraLinear) for part in policy.modules()):
            trained = {id(each) for each in policy.parameters() if each.requires_grad}
            own = adapters.lora_parameters(policy)
            if trained == {id(each) for each in own}:
                return cls(policy, tuple((each, each.detach().clone()) for each in own))
        return cls(copy.deepcopy(policy).requires_grad_(False).eval())

    def logprobs(self, batch: dict[str, torch.Tensor], temperature: float) -> torch.Tensor:
        """log q of the answers' tokens of a batch of `pack`, at the sampling temperature, (M,)."""
        with self._as_it_was(), torch.no_grad():
            states = answer_states(self.model, batch)
            return logprobs(self.model, states, batch["labels"], temperature)

    @contextlib.contextmanager
    def _as_it_was(self) -> Iterator[None]:
        now = [each.data for each, _ in self.adapters]
        try:
            for each, before in self.adapters:
                each.data = before
            yield
        finally:
            for (each, _), after in zip(self.adapters, now, strict=True):
                each.data = after


@dataclass(frozen=True)
class Drawn:
    """Answers, and what they are worth."""

    tokens: PreferenceTokens
    ended: torch.Tensor
    """(R,) bool: whether the model ended the answer itself."""
    rewards: torch.Tensor
    """(R,) as the reward gives them, float32."""
    old: torch.Tensor
    """(M,) log p of all tokens, one answer after the other."""
    values: torch.Tensor | None
    """(M,) of the states before them."""
    kl: torch.Tensor
    """(M,) log p - log q."""
    reference: torch.Tensor
    """(M,) log q."""

    @property
    def lengths(self) -> list[int]:
        """Tokens of each answer."""
        return [len(each) for each in self.tokens.answers]


class Sampler:
    """Draws answers and finds out what they are worth.

    Args:
        actor: what draws.
        reward: what they are worth.
        reference: what they are tied to.
        settings: of the training.
        stop_ids: tokens that end an answer.
        layout: see `posterhall.data.preference_tokens.pack`.
    """

    def __init__(
        self,
        actor: ActorCritic,
        reward: Reward,
        reference: Reference,
        settings: PpoSettings,
        *,
        stop_ids: Sequence[int],
        layout: Layout,
    ) -> None:
        self.actor, self.reward, self.reference = actor, reward, reference
        self.settings, self.layout = settings, layout
        self._stops = frozenset(stop_ids)

    def draw(self, prompts: Sequence[NDArray[np.int32]], names: Sequence[str], *purpose: str | int) -> Drawn:
        """Answers to prompts, `samples` each; the seed of each follows from the purpose.

        Raises:
            DataError: if a reward is not finite, or there is not one for each answer.
        """
        settings, policy = self.settings, self.actor.backbone
        rows = [ids for ids in prompts for _ in range(settings.samples)]
        place = np.repeat(np.arange(len(prompts)), settings.samples)
        found = generate(
            policy,
            [ids.tolist() for ids in rows],
            max_new_tokens=settings.max_new_tokens,
            temperature=settings.temperature,
            seeds=[derive(settings.seed, *purpose, row) for row in range(len(rows))],
            # Watched instead of stopped: the end is a token that the policy chose, and learns to choose.
            watch=(lambda _, ids: ids[-1] in self._stops) if self._stops else None,
            batch=max(32, settings.batch),
        )
        answers = [np.array(each.ids, np.int32) for each in found]
        ended = torch.tensor([each.stopped for each in found])
        rewards = self._rewards(rows, answers, [names[at] for at in place.tolist()])
        tokens = PreferenceTokens(
            prompts=list(prompts), answers=answers, prompt_of=place, items=np.zeros((0, 2), np.int64)
        )
        old, values, reference = self._read(tokens)
        return Drawn(tokens, ended, rewards, old, values, old - reference, reference)

    def _rewards(
        self, prompts: Sequence[NDArray[np.int32]], answers: Sequence[NDArray[np.int32]], names: Sequence[str]
    ) -> torch.Tensor:
        width = max(len(p) + len(a) for p, a in zip(prompts, answers, strict=True))
        ids = torch.zeros((len(answers), width), dtype=torch.int64)
        mask = torch.zeros((len(answers), width), dtype=torch.bool)
        for row, (prompt, answer) in enumerate(zip(prompts, answers, strict=True)):
            end = len(prompt) + len(answer)
            ids[row, :end] = torch.from_numpy(np.concatenate((prompt, answer)).astype(np.int64))
            mask[row, len(prompt) : end] = True
        device = self.actor.beta.device
        with torch.no_grad():
            rewards = torch.as_tensor(self.reward(ids.to(device), mask.to(device))).detach().cpu().float()
        if rewards.shape != (len(answers),):
            raise DataError(
                f"the reward of {len(answers)} answers has the shape {tuple(rewards.shape)}; it must be "
                f"({len(answers)},)"
            )
        if not bool(torch.isfinite(rewards).all()):
            bad = int((~torch.isfinite(rewards)).nonzero()[0])
            raise DataError(
                f"{names[bad]}: the reward of answer {bad + 1:,} of the rollout is {rewards[bad]:g}, of "
                f"tokens {answers[bad][:12].tolist()}{' ...' if len(answers[bad]) > 12 else ''}; rewards "
                "must be finite. Nothing was learnt from this rollout; the last checkpoint is kept"
            )
        return rewards

    def _read(self, tokens: PreferenceTokens) -> tuple[torch.Tensor, torch.Tensor | None, torch.Tensor]:
        """log p, values and log q of all tokens, by passes of the size of the training's."""
        settings, device = self.settings, self.actor.beta.device
        old, values, reference = [], [], []
        was = self.actor.training
        self.actor.eval()
        try:
            with torch.no_grad(), autocast(settings.dtype, device):
                for at in range(0, len(tokens.answers), settings.batch):
                    some = np.arange(at, min(at + settings.batch, len(tokens.answers)))
                    batch = {
                        name: torch.as_tensor(array).to(device)
                        for name, array in pack(tokens, some, layout=self.layout).items()
                    }
                    logp, foreseen = self.actor.read(batch)
                    old.append(logp.cpu())
                    reference.append(self.reference.logprobs(batch, settings.temperature).cpu())
                    if foreseen is not None:
                        values.append(foreseen.cpu())
        finally:
            self.actor.train(was)
        return torch.cat(old), torch.cat(values) if values else None, torch.cat(reference)


class Rollouts:
    """Answers as the training loop takes them, drawn anew by the policy as it is when a rollout begins.

    Args:
        sampler: what draws them.
        prompts: ids of each, at least one.
        names: what each is called in messages.

    Attributes:
        items: answers an epoch, which takes every prompt once, over all passes.
        phase: answers of a rollout over all passes.
    """

    def __init__(self, sampler: Sampler, prompts: Sequence[NDArray[np.int32]], names: Sequence[str]) -> None:
        settings = sampler.settings
        self._sampler, self._settings = sampler, settings
        self._prompts, self._names = prompts, names
        self.items = len(prompts) * settings.samples * settings.passes
        self.phase = settings.phase
        self._epochs = Epochs(
            len(prompts), lambda epoch: generator(settings.seed, "prompts", epoch).permutation(len(prompts))
        )
        self._number = -1
        self._tokens: PreferenceTokens
        self._columns: dict[str, list[torch.Tensor]] = {}
        self._told: torch.Tensor

    def take(self, first: int, count: int) -> dict[str, Any]:
        """Answers `first` to `first + count` of the endless sequence: what `pack` has of them, and "old",
        "advantages", with a critic "old_values" and "returns", all (M,), and "told", see `TOLD`."""
        number, at = divmod(first, self.phase)
        if number != self._number:
            self._draw(number)
        turn, index = divmod(at, self._settings.rollout)
        order = generator(self._settings.seed, "answers", number, turn).permutation(self._settings.rollout)
        some = np.sort(order[index : index + count])  # answers of one prompt are neighbours
        batch: dict[str, Any] = dict(pack(self._tokens, some, layout=self._sampler.layout))
        for name, column in self._columns.items():
            batch[name] = torch.cat([column[answer] for answer in some.tolist()])
        return batch | {"told": self._told}

    def _draw(self, number: int) -> None:
        settings, actor = self._settings, self._sampler.actor
        chosen = self._epochs.drawn(number * settings.prompts, settings.prompts).tolist()
        drawn = self._sampler.draw(
            [self._prompts[i] for i in chosen], [self._names[i] for i in chosen], "rollout", number
        )
        beta = float(actor.beta)
        lengths = drawn.lengths
        columns, explained = _credited(drawn, beta, settings)
        self._columns = {name: list(torch.split(column, lengths)) for name, column in columns.items()}
        self._tokens, self._number = drawn.tokens, number
        told = summary(drawn, beta)
        self._told = torch.tensor([told.get(name, explained) for name in TOLD])
        if settings.target_kl is not None:
            # In the module, so that a checkpoint has it; from now on, so that this rollout keeps its price.
            actor.beta.fill_(ppo.adapted(beta, told["kl"], settings.target_kl))


def summary(drawn: Drawn, beta: float) -> dict[str, float]:
    """What is said of answers; see `TOLD`, without what needs a critic."""
    rewards = drawn.rewards.double()
    count = len(rewards)
    kl = float(drawn.kl.double().sum()) / count
    reward = float(rewards.mean())
    return {
        "reward": reward,
        "reward_std": float(rewards.std()) if count > 1 else 0.0,
        "kl": kl,
        "objective": reward - beta * kl,
        "beta": beta,
        "entropy": -float(drawn.old.double().mean()),
        "length": sum(drawn.lengths) / count,
        "ended": float(drawn.ended.double().mean()),
    }


def _credited(drawn: Drawn, beta: float, settings: PpoSettings) -> tuple[dict[str, torch.Tensor], float]:
    """What each token is held to, (M,) each, and the explained variance (NaN without a critic)."""
    lengths = torch.tensor(drawn.lengths)
    mask = torch.arange(int(lengths.max())) < lengths[:, None]

    def table(flat: torch.Tensor) -> torch.Tensor:
        return torch.zeros(mask.shape, dtype=flat.dtype).masked_scatter(mask, flat)

    scores = ppo.without_end(drawn.rewards, drawn.ended, settings.missing_end_penalty)
    kl = table(ppo.kl_estimate(drawn.old, drawn.reference, estimator=settings.estimator))
    if drawn.values is None:
        worth = (scores - beta * kl.sum(1)).view(-1, settings.samples)
        baseline = ppo.leave_one_out if settings.advantage == "leave_one_out" else ppo.group_normalised
        return {"old": drawn.old, "advantages": baseline(worth).view(-1).repeat_interleave(lengths)}, float(
            "nan"
        )
    rewards, values = ppo.token_rewards(scores, kl, mask, beta=beta), table(drawn.values)
    advantages, returns = ppo.gae(rewards, values, mask, discount=settings.discount, trace=settings.trace)
    columns = {
        "old": drawn.old,
        "advantages": ppo.whiten(advantages, mask)[mask],
        "old_values": drawn.values,
        "returns": returns[mask],
    }
    return columns, float(ppo.explained_variance(values, returns, mask))


def _drops(model: nn.Module) -> str | None:
    """The first part of a model that drops at random in training."""
    for name, part in model.named_modules():
        held = part.settings if hasattr(part, "settings") else part
        share = part.p if isinstance(part, nn.Dropout) else getattr(held, "dropout", 0.0)
        if isinstance(share, float) and share > 0:
            return name or type(model).__name__
    return None
