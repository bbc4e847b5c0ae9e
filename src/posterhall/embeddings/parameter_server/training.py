"""Word vectors trained by workers around a sharded parameter server: the face of this package."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass, fields, replace
from typing import Any, Self

import numpy as np

from posterhall import devices
from posterhall.config import digest, to_dict
from posterhall.data import corpus as corpora
from posterhall.data.corpus import Encoded, Source
from posterhall.data.vocabulary import Vocabulary
from posterhall.embeddings.parameter_server.control import Checkpoints, Outcome, conduct
from posterhall.embeddings.parameter_server.fleet import Fleet, Plan, Standing, ThreadFleet
from posterhall.embeddings.parameter_server.processes import ProcessFleet
from posterhall.embeddings.parameter_server.settings import DistributedReport, DistributedSettings
from posterhall.embeddings.parameter_server.words import (
    lease_size,
    lease_words,
    word_load,
    word_recipe,
    word_tables,
)
from posterhall.embeddings.plans import Planner
from posterhall.embeddings.settings import Word2VecSettings
from posterhall.embeddings.trainer import _DIVERGED, Parameters, _chance_loss
from posterhall.embeddings.vectors import WordVectors
from posterhall.errors import DataError, UsageError, did_you_mean
from posterhall.progress import Progress
from posterhall.runs import Run

CHECKPOINT = "server.npz"


@dataclass(frozen=True)
class DistributedResult:
    """Vocabulary, vectors, and how training went.

    Attributes:
        outputs: the output matrix, float32 (output rows, dim).
    """

    vocabulary: Vocabulary
    vectors: WordVectors
    outputs: np.ndarray[Any, np.dtype[np.float32]]
    report: DistributedReport


def train_distributed(
    settings: Word2VecSettings,
    source: Source,
    options: DistributedSettings,
    run: Run | None = None,
    progress: Progress | None = None,
    *,
    checkpoint_seconds: float = 60.0,
) -> DistributedResult:
    """Learn word vectors with a parameter server (Dean et al. 2012; Mikolov et al. 2013a, section 4.4).

    Args:
        settings: the model, as for one machine.
        source: the corpus (see `posterhall.data.corpus`).
        options: workers, shards, exchange, backend.
        run: snapshots go there, and training goes on from the one found there.
        progress: told the words trained, with the mean loss; its total should be
            words of the corpus x epochs, or None.
        checkpoint_seconds: between snapshots.

    Raises:
        DataError: for an unusable corpus, a snapshot of another job, parameters larger than memory.
        PosterhallError: if every worker died, with their reasons (divergence among them).
        Interrupted: on Ctrl-C, after a snapshot was written to `run`.
        MissingExtra: for the Ray backend without Ray.
    """
    vocabulary, encoded = corpora.read(
        source,
        min_count=settings.min_count,
        max_vocabulary=settings.max_vocabulary,
        chunk_words=settings.chunk_words,
        spill=run.path if run is not None else None,
    )
    with encoded:
        return train_encoded(
            settings, vocabulary, encoded, options, run, progress, checkpoint_seconds=checkpoint_seconds
        )


def train_encoded(
    settings: Word2VecSettings,
    vocabulary: Vocabulary,
    encoded: Encoded,
    options: DistributedSettings,
    run: Run | None = None,
    progress: Progress | None = None,
    *,
    checkpoint_seconds: float = 60.0,
    observe: Callable[[Standing, Fleet], None] | None = None,
) -> DistributedResult:
    """`train_distributed` on a corpus that is already counted and encoded.

    Args:
        observe: called several times a second with how far the work is.
    """
    planner = Planner(settings, vocabulary.counts)
    _check_memory(settings, planner, options)
    centres = max(options.n_fetch, options.n_push) * options.batch_words
    lease_chunks = lease_size(settings, vocabulary.counts, encoded, centres)
    recipe = word_recipe(
        settings,
        vocabulary.counts,
        encoded,
        shards=options.shards,
        batch_words=options.batch_words,
        lease_chunks=lease_chunks,
        worst_loss=_DIVERGED * _chance_loss(settings, planner),
    )
    plan = Plan(recipe, recipe.build(), lease_words(encoded, lease_chunks), settings.epochs, options)
    initial = Parameters.initial(settings, planner.words, planner.output_rows)
    checkpoints = None
    if run is not None:
        identity = digest(
            {
                "settings": to_dict(settings),
                "vocabulary": vocabulary.digest(),
                "corpus": encoded.digest,
                "shards": options.shards,
                "lease_chunks": lease_chunks,
                "rule": asdict(options.update_rule),
            }
        )
        checkpoints = Checkpoints(run.checkpoint(CHECKPOINT), identity, checkpoint_seconds)
    fleet = open_fleet(plan)

    def watch(standing: Standing) -> None:
        if progress is not None:
            loss = standing.loss_sum / standing.terms if standing.terms else float("nan")
            progress.update(standing.words, loss=loss)
        if observe is not None:
            observe(standing, fleet)

    loads = word_load(planner, vocabulary.counts)
    outcome: Outcome = conduct(
        fleet,
        plan,
        [initial.inputs[:, : settings.dim], initial.outputs[:, : settings.dim]],
        checkpoints=checkpoints,
        observe=watch,
        imbalance={
            table.name: placement.imbalance(load)
            for table, placement, load in zip(plan.job.tables, plan.job.placements, loads, strict=True)
        },
    )
    if run is not None:
        for epoch, loss in enumerate(outcome.report.losses, 1):
            run.log(epoch=epoch, loss=loss)
        for death in outcome.report.deaths:
            run.log(death=str(death))
    inputs, outputs = outcome.values
    words = [str(item) for item in vocabulary.items]
    return DistributedResult(
        vocabulary, WordVectors(words, inputs, vocabulary.counts), outputs, outcome.report
    )


def open_fleet(plan: Plan) -> Fleet:
    """The workers of a plan, on the backend that its options name."""
    if plan.options.backend == "threads":
        return ThreadFleet(plan)
    if plan.options.backend == "processes":
        return ProcessFleet(plan)
    from posterhall.embeddings.parameter_server.ray_cluster import RayFleet

    return RayFleet(plan)


class Downpour:
    """Word vectors by asynchronous stochastic gradient descent on a sharded parameter server.

    `Downpour(Word2VecSettings(dim=300), workers=4, n_push=100).fit("corpus.txt").vectors_`

    Args:
        settings: the model; default skip-gram with negative sampling.
        options: start from these.
        **changes: fields of `DistributedSettings`.

    Attributes:
        vocabulary_: after fit, the vocabulary.
        vectors_: after fit, the `WordVectors`.
        report_: after fit, a `DistributedReport`: words/s, bytes a word, staleness, deaths.
    """

    def __init__(
        self,
        settings: Word2VecSettings | None = None,
        options: DistributedSettings | None = None,
        **changes: Any,
    ) -> None:
        known = [f.name for f in fields(DistributedSettings)]
        for name in changes:
            if name not in known:
                raise UsageError(
                    f"Downpour has no option '{name}'.{did_you_mean(name, known)} It has: {', '.join(known)}"
                )
        self.settings = settings or Word2VecSettings()
        self.options = replace(options or DistributedSettings(), **changes)
        self._result: DistributedResult | None = None

    def fit(self, corpus: Source, *, run: Run | None = None, progress: Progress | None = None) -> Self:
        """Learn vectors from a corpus; see `train_distributed`."""
        self._result = train_distributed(self.settings, corpus, self.options, run, progress)
        return self

    def _fitted(self, name: str) -> DistributedResult:
        if self._result is None:
            raise UsageError(f"Downpour has no {name} before fit(corpus)")
        return self._result

    @property
    def vocabulary_(self) -> Vocabulary:
        """The vocabulary, most frequent first."""
        return self._fitted("vocabulary_").vocabulary

    @property
    def vectors_(self) -> WordVectors:
        """The input vectors."""
        return self._fitted("vectors_").vectors

    @property
    def report_(self) -> DistributedReport:
        """How training went."""
        return self._fitted("report_").report


def _check_memory(settings: Word2VecSettings, planner: Planner, options: DistributedSettings) -> None:
    """Refuse parameters that do not fit before anything is allocated."""
    tables = word_tables(settings, planner)
    copies = 3 if options.rule == "adagrad" else 2  # the shards, their squares, and the result
    needed = copies * sum(table.bytes for table in tables)
    left = devices.memory()
    if needed > left:
        raise DataError(
            f"{planner.words:,} words x {settings.dim} dimensions need {needed / 1e9:.1f} GB on the server; "
            f"{left / 1e9:.1f} GB are free. Raise min_count, set max_vocabulary or lower dim"
        )
