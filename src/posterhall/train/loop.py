"""The training loop: any model, any objective, one process or many, from a notebook or as a job.

A step reads the next `batch * accumulate` items, takes the mean of the objective over all their labels
(so how they are cut into passes and processes does not matter), clips, and lets AdamW move. What it does
follows from settings, data and step number alone; with the weights and the optimiser's moments kept, a
resumed training makes the same bits as an uninterrupted one on a CPU.
"""

from __future__ import annotations

import contextlib
import math
import signal
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from types import FrameType
from typing import Any, Protocol, cast

from posterhall import devices
from posterhall.config import to_dict
from posterhall.errors import Interrupted, PosterhallError
from posterhall.extras import nn, torch
from posterhall.runs import Run
from posterhall.train import checkpoint, distributed, paged
from posterhall.train import optimiser as optimisers
from posterhall.train.metrics import Metrics
from posterhall.train.schedule import rate
from posterhall.train.settings import Precision, TrainSettings

CHECKPOINT, BEST = "state.safetensors", "best.safetensors"


class Items(Protocol):
    """Data as the loop takes them: an endless sequence of epochs, any stretch of which can be had.

    `posterhall.data.packing.Packed` is one. An attribute `context` (labels an item) lets training be
    measured in tokens. One `phase` (items, a multiple of a step's) says that what they hold follows from the
    weights at the last multiple of it: there alone training stops and leaves checkpoints.
    """

    items: int
    """Items an epoch."""

    def take(self, first: int, count: int) -> Mapping[str, Any]:
        """Arrays (or tensors) by name, their first axis being the items first to first + count."""


Objective = Callable[[Any, dict[str, Any]], tuple[Any, dict[str, Any]]]
"""(model, batch of tensors) -> (mean loss, metrics). metrics["tokens"], the number of labels of which it is
the mean, weighs it among other passes (1 if absent); metrics["nll_sum"], if there, is what evaluation adds
up instead of the loss, which may hold other terms. Everything else in it, numbers or 0-d tensors, is logged
beside the loss, averaged in the same way."""
Evaluation = Callable[[Any], Mapping[str, float]]
"""model -> named numbers, among them "loss", by which the best weights are chosen."""


@dataclass
class _State:
    """Where training stands, beside weights and optimiser; what a checkpoint's JSON holds."""

    step: int = 0
    items: int = 0
    """Items seen."""
    tokens: int = 0
    """Labels seen."""
    seconds: float = 0.0
    """Spent in steps, over all resumes."""
    loss_sum: float = 0.0
    weight_sum: float = 0.0
    other_sums: dict[str, float] = field(default_factory=dict)
    """Since the last line of metrics; the last, of what else the objective tells."""
    best_loss: float | None = None
    best_step: int | None = None
    evaluation: dict[str, float] = field(default_factory=dict)
    """The last one."""


@dataclass
class Trained:
    """What a training leaves."""

    model: Any
    """The model that was given, with the weights that `keep` asks for."""
    history: list[dict[str, Any]]
    """Lines of metrics: "step" and "loss", "lr", "grad_norm", "tokens" every `log_every` steps; "step" and
    "eval_loss" (and other names of the evaluation with "eval_") for each evaluation."""
    steps: int
    tokens: int
    """Labels seen."""
    loss: float
    """Mean over the last `log_every` steps, nats for a language model."""
    evaluation: dict[str, float]
    """The last evaluation; empty without one."""
    best_loss: float | None
    best_step: int | None
    """Of the best evaluation."""
    seconds: float
    """In steps, without evaluations, over all resumes."""

    @property
    def tokens_per_second(self) -> float:
        """Training speed."""
        return self.tokens / self.seconds if self.seconds else 0.0


def fit(
    model: nn.Module,
    data: Items,
    *,
    objective: Objective,
    settings: TrainSettings,
    out: Run | Path | str | None = None,
    evaluate: Items | Evaluation | None = None,
    enough: Callable[[Mapping[str, float]], bool] | None = None,
    resume: bool = False,
    checkpoint_seconds: float = 300.0,
    tensorboard: bool = False,
    shard: bool = False,
    quiet: bool = True,
) -> Trained:
    """Train a model in place.

    Args:
        model: on the device on which it is to be trained; its parameters stay float32.
        data: what to train on.
        objective: see `Objective`; `posterhall.train.next_token` for language models.
        settings: how.
        out: a run directory to be started (or gone on with), or a run already started: gets metrics and
            checkpoints. None keeps everything in memory.
        evaluate: held-out items, whose mean loss is taken with the same objective, or a function of
            the model.
        enough: asked after each evaluation, with its numbers; a yes ends the training there.
        resume: go on with the run in the directory `out`.
        checkpoint_seconds: time between checkpoints.
        tensorboard: also write event files into the run (tensorboard/).
        shard: with several processes: divide weights and optimiser among them (FSDP2).
        quiet: show no progress.

    Returns:
        The model with its history.

    Raises:
        PosterhallError: if the loss becomes infinite or NaN; the last checkpoint stays.
        Interrupted: on Ctrl-C or SIGTERM with a run, after a checkpoint.
        DataError: for a run that does not go with this model or these settings.
    """
    with contextlib.ExitStack() as stack:
        where = stack.enter_context(distributed.world())
        run: Run | None = None
        folder: Path | None = None
        if isinstance(out, Run):
            run, folder = out, out.path
        elif out is not None:
            folder = Path(out)
            if where.first:
                config = to_dict(settings)
                run = Run.start(folder, kind="train", config=config, seeds=[settings.seed], resume=resume)
                stack.enter_context(run)
        where.wait()  # until the first process has the run
        return _Training(model, data, objective, settings, evaluate, where, run, folder, shard).go(
            checkpoint_seconds, tensorboard, quiet, enough
        )


class _Training:
    def __init__(
        self,
        model: nn.Module,
        data: Items,
        objective: Objective,
        settings: TrainSettings,
        evaluate: Items | Evaluation | None,
        where: distributed.World,
        run: Run | None,
        folder: Path | None,
        shard: bool,
    ) -> None:
        self.model = cast(Any, model)
        self.data, self.settings = data, settings
        self.evaluate, self.where, self.run = evaluate, where, run
        self.device = next(model.parameters()).device
        self.module = distributed.parallel(distributed.Pass(model, objective), where, shard=shard)
        self.plain = distributed.Pass(model, objective) if where.size > 1 and not shard else self.module
        self.folder = folder / "checkpoints" if folder is not None else None
        self.budget = paged.Budget(settings, model)
        self.optimiser = optimisers.build(model, settings, self.folder)
        self.trained = [p for group in self.optimiser.param_groups for p in group["params"]]
        self.state = _State()
        self.rows = settings.rows(items=data.items, item_tokens=getattr(data, "context", None))
        self.steps = -(-self.rows // settings.rows_a_step)
        self.best_weights: dict[str, torch.Tensor] | None = None
        if self.folder is not None and (self.folder / CHECKPOINT).exists():
            self.state = _State(**checkpoint.load(self.folder / CHECKPOINT, model, self.optimiser))
        if hasattr(model, "gradient_checkpointing"):
            self.model.gradient_checkpointing = settings.gradient_checkpointing

    def go(
        self,
        checkpoint_seconds: float,
        tensorboard: bool,
        quiet: bool,
        enough: Callable[[Mapping[str, float]], bool] | None,
    ) -> Trained:
        """Train to the end."""
        state, settings, run = self.state, self.settings, self.run
        context = getattr(self.data, "context", None)
        loss = math.nan
        metrics = Metrics(
            run,
            step=state.step,
            total=self.rows * (context or 1),
            done=state.items * (context or 1),
            unit="tokens" if context else "items",
            label=None if quiet or not self.where.first else "train",
            tensorboard=run.path / "tensorboard" if tensorboard and run is not None else None,
        )
        saved = time.monotonic()
        stopping_signals = _stop_signals(self.folder is not None)
        short = devices.memory_told(paged.advice(settings))
        with metrics, stopping_signals as stop, _training_mode(self.model), short:
            while state.step < self.steps:
                begun = time.perf_counter()
                due = self.folder is not None and time.monotonic() - saved > checkpoint_seconds
                norm, stopping, saving = self._step(stop, due)
                state.seconds += time.perf_counter() - begun
                last = state.step == self.steps
                if state.step % settings.log_every == 0 or last:
                    loss = state.loss_sum / max(state.weight_sum, 1e-30)
                    others = {
                        name: float(value) / max(state.weight_sum, 1e-30)
                        for name, value in state.other_sums.items()
                    }
                    state.loss_sum = state.weight_sum = 0.0
                    state.other_sums = {}
                    lr = rate(settings, state.step - 1, self.steps)
                    metrics.log(
                        state.step, loss=loss, lr=lr, grad_norm=float(norm), tokens=state.tokens, **others
                    )
                    metrics.show(state.items * (context or 1), loss=loss)
                    self.budget.check()
                else:
                    metrics.show(state.items * (context or 1))
                if self.evaluate is not None and (
                    last or (settings.eval_every and state.step % settings.eval_every == 0)
                ):
                    self._evaluate(metrics)
                    if enough is not None and enough(state.evaluation):
                        break
                settled = state.items % getattr(self.data, "phase", 1) == 0
                if (stopping or saving) and settled and not last:
                    self._save()
                    saved = time.monotonic()
                if stopping and settled and not last:
                    raise Interrupted(
                        f"stopped at step {state.step:,} of {self.steps:,}; the same command with --resume "
                        "goes on from there"
                    )
        if settings.keep == "best" and state.best_step not in (None, state.step):
            self._restore_best()
        if math.isnan(loss):  # the run was finished but for its end
            loss = next((line["loss"] for line in reversed(metrics.history) if "loss" in line), math.nan)
        return Trained(
            self.model,
            metrics.history,
            steps=state.step,
            tokens=state.tokens,
            loss=loss,
            evaluation=state.evaluation,
            best_loss=state.best_loss,
            best_step=state.best_step,
            seconds=state.seconds,
        )

    def _step(self, heard: list[int], save: bool) -> tuple[Any, bool, bool]:
        """One update; returns the gradient's norm, and whether to stop and whether to save."""
        settings, state, world = self.settings, self.state, self.where
        count = min(settings.rows_a_step, self.rows - state.items)
        passes = [
            (state.items + at, min(settings.batch, count - at)) for at in range(0, count, settings.batch)
        ]
        alone = len(passes) == 1 and world.size == 1
        loss_sum: Any = 0.0
        weight_sum: Any = 0
        others: dict[str, Any] = {}
        for number, (first, size) in enumerate(passes):
            first, size = world.share(first, size)
            # Who has no row of a last, short batch takes part with one that does not count.
            batch = self._batch(first if size else 0, max(size, 1))
            if hasattr(self.model, "draws"):  # dropout follows from the place of the pass in the training
                self.model.draws = (state.step * settings.accumulate + number) * world.size + world.rank
            with distributed.synchronised(self.module, number == len(passes) - 1):
                with autocast(self.settings.dtype, self.device):
                    loss, said = self.module(batch)
                weight = said.get("tokens", 1) if size else 0
                (loss if alone else loss * weight).backward()
            loss_sum = loss_sum + loss.detach() * weight
            weight_sum = weight_sum + weight
            _add(others, said, weight)
        stop = bool(heard)
        synchronous = self.device.type == "cpu" or (state.step + 1) % settings.log_every == 0
        if world.size > 1:
            sums = [float(loss_sum), float(weight_sum), float(stop), float(save and world.first)]
            sums += [float(value) for value in others.values()]
            loss_sum, weight_sum, told, wanted, *sums = world.sum(sums, self.device)
            stop, save = told > 0, wanted > 0
            others = dict(zip(others, sums, strict=True))
        if not alone:
            # Processes have averaged their sums; the mean over all labels is wanted.
            factor = world.size / max(float(weight_sum), 1e-30)
            torch._foreach_mul_([p.grad for p in self.trained if p.grad is not None], factor)
        norm = nn.utils.clip_grad_norm_(self.trained, settings.clip or math.inf)
        norm = distributed.whole(norm)
        if (synchronous or stop or save) and not (
            math.isfinite(float(loss_sum)) and math.isfinite(float(norm))
        ):
            raise PosterhallError(
                f"the loss is not finite at step {state.step + 1:,} (loss {float(loss_sum):.3g}, gradient "
                f"{float(norm):.3g}): training diverged. Lower lr ({settings.lr:g}), warm up longer, clip "
                f"lower, or use float32{'; the last checkpoint is kept' if self.run else ''}"
            )
        for group in self.optimiser.param_groups:
            group["lr"] = rate(settings, state.step, self.steps) * group.get("lr_scale", 1.0)
        self.optimiser.step()
        self.optimiser.zero_grad(set_to_none=True)
        state.step += 1
        state.items += count
        state.tokens += int(weight_sum)
        state.loss_sum += float(loss_sum) if self.device.type == "cpu" or world.size > 1 else loss_sum
        state.weight_sum += float(weight_sum)
        for name, value in others.items():
            state.other_sums[name] = state.other_sums.get(name, 0.0) + value
        return norm, stop, save

    def _batch(self, first: int, count: int, data: Items | None = None) -> dict[str, Any]:
        arrays = (data or self.data).take(first, count)
        return {
            name: torch.as_tensor(array).to(self.device, non_blocking=True) for name, array in arrays.items()
        }

    def _evaluate(self, metrics: Metrics) -> None:
        state = self.state
        evaluate = self.evaluate
        with _evaluation_mode(self.model):
            if callable(evaluate):
                found = {name: float(value) for name, value in evaluate(self.model).items()}
            else:
                assert evaluate is not None  # noqa: S101 - for the type checker
                found = self._held_out(evaluate)
        state.evaluation = found
        metrics.log(state.step, **{f"eval_{name}": value for name, value in found.items()})
        if "loss" in found and (state.best_loss is None or found["loss"] < state.best_loss):
            state.best_loss, state.best_step = found["loss"], state.step
            if self.settings.keep == "best" and state.step < self.steps:
                self._keep_best()

    def _held_out(self, data: Items) -> dict[str, float]:
        """The mean loss over all items, those of other processes included."""
        batch = max(self.settings.batch, self.where.size)
        total: Any = 0.0
        weight: Any = 0.0
        others: dict[str, Any] = {}
        for at in range(0, data.items, batch):
            first, count = self.where.share(at, min(batch, data.items - at))
            with autocast(self.settings.dtype, self.device):
                loss, said = self.plain(self._batch(first if count else 0, max(count, 1), data))
            tokens = said.get("tokens", 1) if count else 0
            if count:
                total = total + (said["nll_sum"] if "nll_sum" in said else loss * tokens)
            weight = weight + tokens
            _add(others, said, tokens)
        sums = [float(total), float(weight), *(float(value) for value in others.values())]
        total, weight, *sums = self.where.sum(sums, self.device)
        means = {name: value / max(weight, 1e-30) for name, value in zip(others, sums, strict=True)}
        return {"loss": total / max(weight, 1e-30), "tokens": weight, **means}

    def _save(self) -> None:
        assert self.folder is not None  # noqa: S101 - nobody asks otherwise
        others = {name: float(value) for name, value in self.state.other_sums.items()}
        state = {**asdict(self.state), "loss_sum": float(self.state.loss_sum), "other_sums": others}
        path = self.folder / CHECKPOINT
        checkpoint.save(path, self.model, self.optimiser, state, write=self.where.first)
        self.where.wait()

    def _keep_best(self) -> None:
        if self.folder is None:
            self.best_weights = {name: t.cpu().clone() for name, t in checkpoint.weights(self.model).items()}
        else:
            checkpoint.save(self.folder / BEST, self.model, None, {}, write=self.where.first)

    def _restore_best(self) -> None:
        if self.best_weights is not None:
            checkpoint.set_weights(self.model, self.best_weights)
        elif self.folder is not None:
            self.where.wait()
            checkpoint.load(self.folder / BEST, self.model)


def _add(sums: dict[str, Any], said: Mapping[str, Any], weight: Any) -> None:
    """Add what an objective tells beside the loss, times a weight."""
    for name, value in said.items():
        if name not in ("tokens", "nll_sum"):
            sums[name] = sums.get(name, 0.0) + value * weight


def autocast(wanted: Precision, device: torch.device) -> contextlib.AbstractContextManager[Any]:
    """In which passes compute in the precision of `TrainSettings.dtype`."""
    if wanted == "auto":
        able = device.type == "cuda" and torch.cuda.is_bf16_supported()
        wanted = "bfloat16" if able else "float32"
    if wanted == "float32":
        return contextlib.nullcontext()
    return torch.autocast(device.type, torch.bfloat16)


@contextlib.contextmanager
def _stop_signals(wanted: bool) -> Iterator[list[int]]:
    """Ctrl-C and SIGTERM fill the list, to be looked at between steps; a second one raises at once."""
    heard: list[int] = []
    if not wanted or threading.current_thread() is not threading.main_thread():
        yield heard
        return

    def hear(number: int, frame: FrameType | None) -> None:
        if heard:
            raise KeyboardInterrupt
        heard.append(number)

    before = {number: signal.signal(number, hear) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield heard
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextlib.contextmanager
def _training_mode(model: nn.Module) -> Iterator[None]:
    before = model.training
    model.train()
    try:
        yield
    finally:
        model.train(before)


@contextlib.contextmanager
def _evaluation_mode(model: nn.Module) -> Iterator[None]:
    model.eval()
    try:
        with torch.no_grad():
            yield
    finally:
        model.train()
