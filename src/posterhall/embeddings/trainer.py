"""The training loop of word vectors: threads over chunks, the schedule, the loss, checkpoints.

Two ways to run it:

- Hogwild (Niu et al. 2011): threads take chunks from one cursor and update the shared matrices without
  locks. Fast; the result depends on timing unless there is one thread.
- deterministic: updates are applied in corpus order by one thread while the others draw plans ahead, so
  the result does not depend on the number of threads: it is that of one Hogwild thread, bit for bit.

Either may stop between two chunks and go on from a checkpoint; what a chunk draws depends only on the
seed, the epoch and the chunk's number.
"""

from __future__ import annotations

import json
import math
import threading
import time
import zipfile
from collections import deque
from collections.abc import Callable, Generator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from dataclasses import asdict, dataclass, field
from pathlib import Path

import numpy as np

from posterhall.data.corpus import Encoded
from posterhall.embeddings.plans import Matrix, Plan, Planner, apply, empty_matrix
from posterhall.embeddings.settings import Word2VecSettings
from posterhall.errors import DataError
from posterhall.runs import atomic_file
from posterhall.seeds import derive, generator

_DIVERGED = 5.0
"""A mean loss this many times that of untrained vectors is divergence: a healthy run never gets near."""


@dataclass
class Parameters:
    """The two matrices, float32 with the kernels' row stride (`plans.empty_matrix`)."""

    inputs: Matrix
    outputs: Matrix

    @classmethod
    def initial(cls, settings: Word2VecSettings, words: int, output_rows: int) -> Parameters:
        """Inputs uniform in ±initial_range / dim, outputs zero."""
        parameters = cls(empty_matrix(words, settings.dim), empty_matrix(output_rows, settings.dim))
        draw_inputs(parameters.inputs, settings, first=0)
        return parameters


def draw_inputs(inputs: Matrix, settings: Word2VecSettings, *, first: int) -> None:
    """Fill rows `first` onward with initial vectors, block by block to spare memory."""
    rng = generator(settings.seed, "initial vectors", first)
    for low in range(first, len(inputs), 4096):
        block = inputs[low : low + 4096, : settings.dim]
        scale = np.float32(2 * settings.initial_range / settings.dim)
        block[...] = (rng.random(block.shape, np.float32) - np.float32(0.5)) * scale


@dataclass
class EpochRecord:
    """One finished epoch."""

    epoch: int
    """1 for the first."""
    loss: float
    """Mean over the epoch's terms (pairs, or positions for CBOW), in nats."""
    terms: int
    """Terms trained."""


@dataclass
class TrainingState:
    """Where training stands, beside the matrices."""

    epoch: int = 0
    chunk: int = 0
    """The next chunk of this epoch; all before it are trained."""
    loss: float = 0.0
    terms: int = 0
    """Sums over this epoch so far."""
    tokens: int = 0
    """Corpus tokens, sentence ends included, trained in all epochs so far."""
    seconds: float = 0.0
    """Spent training, over all resumptions."""
    history: list[EpochRecord] = field(default_factory=list)

    def to_json(self) -> str:
        """As text; floats survive exactly."""
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> TrainingState:
        """Inverse of `to_json`."""
        raw = json.loads(text)
        return cls(**{**raw, "history": [EpochRecord(**record) for record in raw["history"]]})


@dataclass(frozen=True)
class Snapshot:
    """What an observer is told while training goes on."""

    progress: float
    """Share of all epochs done, 0 to 1."""
    epoch: int
    loss: float
    """Mean of the epoch so far (of the last one, between two), in nats; nan before the first chunk."""
    rate: float
    words: float
    """Words of the corpus gone through, over all epochs."""
    total_words: float
    """`words` when all epochs are done."""
    words_per_second: float
    seconds: float
    """Spent training."""


class Trainer:
    """Trains the parameters of one corpus.

    Args:
        settings: model, loss, schedule, seed.
        planner: draws plans for the vocabulary that the corpus was encoded with.
        corpus: the encoded corpus.
        parameters: start from these instead of initial ones; they are trained in place.
        state: start from here.

    Attributes:
        parameters: the matrices.
        state: how far training is.
    """

    def __init__(
        self,
        settings: Word2VecSettings,
        planner: Planner,
        corpus: Encoded,
        *,
        parameters: Parameters | None = None,
        state: TrainingState | None = None,
    ) -> None:
        self.settings = settings
        self.corpus = corpus
        self.planner = planner
        self.parameters = parameters or Parameters.initial(settings, planner.words, planner.output_rows)
        self.state = state or TrainingState()
        self._lock = threading.Lock()
        self._stop = threading.Event()
        self._failure: BaseException | None = None
        self._chance_loss = _chance_loss(settings, planner)

    @property
    def done(self) -> bool:
        """Whether all epochs are trained."""
        return self.state.epoch >= self.settings.epochs

    def progress(self, epoch: int | None = None, chunk: int | None = None) -> float:
        """Share of all epochs that lies before a chunk (default: the next one), 0 to 1."""
        epoch = self.state.epoch if epoch is None else epoch
        chunk = self.state.chunk if chunk is None else chunk
        within = float(self.corpus.chunks[chunk] / max(1, self.corpus.tokens_total))
        return (epoch + within) / self.settings.epochs

    def train(
        self,
        *,
        threads: int = 1,
        deterministic: bool = False,
        seconds: float = math.inf,
        observe: Callable[[Snapshot], None] | None = None,
    ) -> None:
        """Train until done, or until about `seconds` have passed; then `state` tells where it stopped.

        Stopping leaves a consistent state: every chunk before `state.chunk` is trained, none after it.
        So does an exception raised by `observe` or by the user (Ctrl-C).

        Raises:
            DataError: if the loss diverges, with advice.
        """
        began = time.monotonic()
        before = self.state.seconds
        run = self._in_order if deterministic or threads == 1 else self._hogwild
        self._stop.clear()
        try:
            with closing(run(threads)) as steps:  # closing joins the threads, also after an exception
                for _ in steps:
                    self.state.seconds = before + time.monotonic() - began
                    if observe is not None:
                        observe(self.snapshot())
                    if time.monotonic() - began > seconds:
                        break
        finally:
            self.state.seconds = before + time.monotonic() - began

    def snapshot(self) -> Snapshot:
        """The state of training, for people."""
        state = self.state
        words = state.tokens * self.corpus.words / self.corpus.tokens_total
        loss = state.loss / state.terms if state.terms else math.nan
        if not state.terms and state.history:  # between two epochs
            loss = state.history[-1].loss
        return Snapshot(
            progress=self.progress(),
            epoch=state.epoch,
            loss=loss,
            rate=self.settings.rate(self.progress()),
            words=words,
            total_words=float(self.corpus.words * self.settings.epochs),
            words_per_second=words / state.seconds if state.seconds else 0.0,
            seconds=state.seconds,
        )

    def _plan(self, epoch: int, chunk: int, plan: Plan) -> Plan:
        return self.planner.plan(
            self.corpus.read(chunk), derive(self.settings.seed, "chunk", epoch, chunk), plan
        )

    def _apply(self, epoch: int, chunk: int, plan: Plan) -> tuple[float, int]:
        rate = self.settings.rate(self.progress(epoch, chunk))
        result = apply(plan, self.parameters.inputs, self.parameters.outputs, self.settings, rate)
        self._check(epoch, chunk, *result)
        return result

    def _count(self, chunk: int, loss: float, terms: int) -> None:
        """Add a trained chunk to the sums."""
        self.state.loss += loss
        self.state.terms += terms
        self.state.tokens += int(self.corpus.chunks[chunk + 1] - self.corpus.chunks[chunk])

    def _end_epoch(self) -> None:
        state = self.state
        mean = state.loss / state.terms if state.terms else math.nan
        state.history.append(EpochRecord(state.epoch + 1, mean, state.terms))
        state.epoch, state.chunk, state.loss, state.terms = state.epoch + 1, 0, 0.0, 0

    def _check(self, epoch: int, chunk: int, loss: float, terms: int) -> None:
        if terms and not loss / terms <= _DIVERGED * self._chance_loss:  # also true for NaN
            raise DataError(
                f"training diverges: mean loss {loss / terms:.3g} in epoch {epoch + 1} at "
                f"{100 * self.progress(epoch, chunk):.1f} % (untrained: {self._chance_loss:.3g}); "
                f"the learning rate started at {self.settings.initial_alpha:g}. Lower it (alpha 0.025 for "
                "skipgram and 0.05 for cbow suit most corpora), or the window"
            )

    def _in_order(self, threads: int) -> Generator[None]:
        """Apply chunks one after the other; further threads draw plans ahead."""
        ahead: deque[tuple[int, Future[Plan]]] = deque()
        spare = [Plan() for _ in range(2 * threads)]
        with ThreadPoolExecutor(max(1, threads - 1)) as pool:
            while not self.done:
                following = self.state.chunk
                chunks = len(self.corpus)
                try:
                    while self.state.chunk < chunks:
                        while following < chunks and len(ahead) < 2 * threads - 1:
                            plan = spare.pop()
                            ahead.append(
                                (following, pool.submit(self._plan, self.state.epoch, following, plan))
                            )
                            following += 1
                        chunk, future = ahead.popleft()
                        plan = future.result()
                        self._count(chunk, *self._apply(self.state.epoch, chunk, plan))
                        self.state.chunk = chunk + 1
                        spare.append(plan)
                        yield
                finally:
                    for _, future in ahead:
                        future.cancel()
                self._end_epoch()

    def _hogwild(self, threads: int) -> Generator[None]:
        """Let threads train chunks of one epoch at a time; yields now and then while they work."""
        plans = [Plan() for _ in range(threads)]
        while not self.done:
            self._stop.clear()
            workers = [threading.Thread(target=self._work, args=(plan,), daemon=True) for plan in plans]
            for worker in workers:
                worker.start()
            try:
                while any(worker.is_alive() for worker in workers):
                    for worker in workers:
                        worker.join(0.02)
                    if any(worker.is_alive() for worker in workers):
                        yield
            finally:
                self._stop.set()
                for worker in workers:
                    worker.join()
            if self._failure is not None:
                failure, self._failure = self._failure, None
                raise failure
            if self.state.chunk == len(self.corpus):
                self._end_epoch()
            yield

    def _work(self, plan: Plan) -> None:
        epoch = self.state.epoch
        try:
            while not self._stop.is_set():
                with self._lock:
                    chunk = self.state.chunk
                    if chunk == len(self.corpus):
                        return
                    self.state.chunk = chunk + 1
                result = self._apply(epoch, chunk, self._plan(epoch, chunk, plan))
                with self._lock:
                    self._count(chunk, *result)
        except BaseException as error:
            self._failure = error
            self._stop.set()


def _chance_loss(settings: Word2VecSettings, planner: Planner) -> float:
    """Upper estimate of the mean loss of a term before training."""
    if settings.loss == "softmax":
        return math.log(planner.words)
    binary = (settings.negative + 1) * math.log(2) if settings.needs_noise else 0.0
    if settings.loss == "nce":  # logits start at -log(k P_n), not at 0
        binary += math.log(planner.words) + math.log(settings.negative + 1)
    if settings.needs_tree:
        binary += planner.longest_path * math.log(2)
    return binary


def save_checkpoint(path: Path, parameters: Parameters, state: TrainingState, identity: str) -> None:
    """Write matrices and state to one .npz file, atomically.

    Args:
        identity: digest of everything a resumption must agree with (settings, vocabulary, corpus).
    """
    with atomic_file(path) as file:
        np.savez(
            file,
            inputs=parameters.inputs,
            outputs=parameters.outputs,
            state=np.array(state.to_json()),
            identity=np.array(identity),
        )


def load_checkpoint(path: Path, identity: str | None = None) -> tuple[Parameters, TrainingState]:
    """Read what `save_checkpoint` wrote.

    Raises:
        DataError: if the file is damaged or belongs to other settings or another corpus.
    """
    try:
        with np.load(path, allow_pickle=False) as stored:
            found = str(stored["identity"])
            if identity is not None and found != identity:
                raise DataError(
                    f"{path}: the checkpoint belongs to other settings, words or corpus; "
                    "resume with the same ones, or start anew elsewhere"
                )
            state = TrainingState.from_json(str(stored["state"]))
            return Parameters(stored["inputs"], stored["outputs"]), state
    except (OSError, KeyError, ValueError, EOFError, zipfile.BadZipFile) as error:
        if isinstance(error, DataError):
            raise
        raise DataError(f"{path}: not a readable checkpoint ({error}); start anew elsewhere") from error
