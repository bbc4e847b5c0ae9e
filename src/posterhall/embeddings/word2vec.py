"""word2vec (Mikolov et al. 2013) as estimators: `SkipGram` and `CBOW`."""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import fields, replace
from typing import Any, ClassVar, Self

from posterhall.config import digest, to_dict
from posterhall.data import corpus as corpora
from posterhall.data.corpus import Encoded, Source
from posterhall.data.sources import EncodingErrors
from posterhall.data.vocabulary import Vocabulary
from posterhall.devices import cores, release_memory
from posterhall.embeddings.plans import Planner, empty_matrix
from posterhall.embeddings.settings import Model, Word2VecSettings
from posterhall.embeddings.trainer import (
    EpochRecord,
    Parameters,
    Snapshot,
    Trainer,
    draw_inputs,
    load_checkpoint,
    save_checkpoint,
)
from posterhall.embeddings.vectors import WordVectors
from posterhall.errors import Interrupted, UsageError, did_you_mean
from posterhall.runs import Run

CHECKPOINT = "state.npz"


class Word2Vec:
    """What skip-gram and CBOW share.

    Args:
        settings: start from these; the model is the class's own.
        **changes: fields of `Word2VecSettings`.

    Attributes:
        settings: a frozen `Word2VecSettings`.
        vocabulary_: after fit, the vocabulary.
        vectors_: after fit, the `WordVectors` (input vectors).
        history_: after fit, one `EpochRecord` an epoch with the mean loss.
    """

    _model: ClassVar[Model]

    def __init__(self, settings: Word2VecSettings | None = None, **changes: Any) -> None:
        known = [f.name for f in fields(Word2VecSettings) if f.name != "model"]
        for name in changes:
            if name not in known:
                raise UsageError(
                    f"{type(self).__name__} has no setting '{name}'.{did_you_mean(name, known)} "
                    f"It has: {', '.join(known)}"
                )
        self.settings = replace(settings or Word2VecSettings(), model=self._model, **changes)
        self._vocabulary: Vocabulary | None = None
        self._parameters: Parameters | None = None
        self._trainer: Trainer | None = None

    def __repr__(self) -> str:
        plain = Word2VecSettings(model=self._model)
        changed = {k: v for k, v in to_dict(self.settings).items() if v != getattr(plain, k)}
        return f"{type(self).__name__}({', '.join(f'{k}={v!r}' for k, v in changed.items())})"

    @property
    def vocabulary_(self) -> Vocabulary:
        """The vocabulary, most frequent first."""
        return self._fitted("vocabulary_")[0]

    @property
    def parameters_(self) -> Parameters:
        """Both matrices."""
        return self._fitted("parameters_")[1]

    @property
    def vectors_(self) -> WordVectors:
        """The input vectors, a copy."""
        vocabulary, parameters = self._fitted("vectors_")
        words = [str(item) for item in vocabulary.items]
        return WordVectors(words, parameters.inputs[:, : self.settings.dim].copy(), vocabulary.counts)

    def detach_vectors(self) -> WordVectors:
        """`vectors_` at a lower peak of memory: the estimator is unfitted afterwards."""
        self.parameters_.outputs = empty_matrix(0, self.settings.dim)
        vectors = self.vectors_
        self._vocabulary = self._parameters = None
        return vectors

    @property
    def history_(self) -> list[EpochRecord]:
        """One record an epoch: mean loss and number of terms."""
        return self._trained("history_").state.history

    @property
    def summary_(self) -> Snapshot:
        """Words gone through and speed."""
        return self._trained("summary_").snapshot()

    @classmethod
    def from_parameters(
        cls, settings: Word2VecSettings, vocabulary: Vocabulary, parameters: Parameters
    ) -> Word2Vec:
        """A fitted estimator from its parts, ready to `grow`."""
        model = (SkipGram if settings.model == "skipgram" else CBOW)(settings)
        model._vocabulary, model._parameters = vocabulary, parameters
        return model

    def _fitted(self, name: str) -> tuple[Vocabulary, Parameters]:
        if self._vocabulary is None or self._parameters is None:
            raise UsageError(f"{type(self).__name__} has no {name} before fit(corpus)")
        return self._vocabulary, self._parameters

    def _trained(self, name: str) -> Trainer:
        if self._trainer is None:
            raise UsageError(f"{type(self).__name__} has no {name} before fit(corpus)")
        return self._trainer

    def fit(
        self,
        corpus: Source,
        *,
        threads: int = 1,
        deterministic: bool = False,
        keep: Collection[Any] = (),
        drop: Collection[Any] = (),
        encoding_errors: EncodingErrors = "strict",
        run: Run | None = None,
        checkpoint_seconds: float = 60.0,
        observe: Callable[[Snapshot], None] | None = None,
    ) -> Self:
        """Learn vectors from a corpus.

        Args:
            corpus: a path, paths, sentences of any hashable items, or an integer array (see
                `posterhall.data.corpus`).
            threads: training threads.
            deterministic: the same result whatever the number of threads (see `trainer`).
            keep: items that stay in the vocabulary however rare.
            drop: items left out.
            encoding_errors: strict, replace or ignore, for bytes that are not UTF-8.
            run: checkpoints go there, and training goes on from the one found there.
            checkpoint_seconds: between checkpoints.
            observe: called several times a second with the state of training.

        Raises:
            DataError: for a corpus that cannot be read or is too small, a diverging rate, or a checkpoint of
                another corpus or other settings.
            Interrupted: on Ctrl-C, after a checkpoint was written to `run`.
        """
        vocabulary, encoded = corpora.read(
            corpus,
            min_count=self.settings.min_count,
            max_vocabulary=self.settings.max_vocabulary,
            keep=keep,
            drop=drop,
            threads=threads,
            encoding_errors=encoding_errors,
            chunk_words=self.settings.chunk_words,
            spill=run.path if run is not None else None,
        )
        release_memory()  # what counting needed would otherwise stay beside the matrices
        return self.fit_encoded(
            vocabulary,
            encoded,
            threads=threads,
            deterministic=deterministic,
            run=run,
            checkpoint_seconds=checkpoint_seconds,
            observe=observe,
        )

    def fit_encoded(
        self,
        vocabulary: Vocabulary,
        encoded: Encoded,
        *,
        threads: int = 1,
        deterministic: bool = False,
        run: Run | None = None,
        checkpoint_seconds: float = 60.0,
        observe: Callable[[Snapshot], None] | None = None,
    ) -> Self:
        """`fit` on a corpus that is already counted and encoded, so that several models can share it."""
        self._train(vocabulary, encoded, None, threads, deterministic, run, checkpoint_seconds, observe)
        return self

    def grow(
        self,
        corpus: Source,
        *,
        epochs: int | None = None,
        alpha: float | None = None,
        threads: int = 1,
        deterministic: bool = False,
        encoding_errors: EncodingErrors = "strict",
        run: Run | None = None,
        checkpoint_seconds: float = 60.0,
        observe: Callable[[Snapshot], None] | None = None,
    ) -> Self:
        """Train on new text, adding its words to the vocabulary; known words keep their vectors and ids.

        Counts add up, so subsampling and noise follow both texts. Only the new text is trained on: words
        that it lacks stay where they are while others move, so mix in old text where that matters.

        Args:
            corpus: the new text, as for `fit`.
            epochs: passes over the new text; default as in the settings.
            alpha: initial rate; default as in the settings. A lower one disturbs old vectors less.

        Raises:
            UsageError: for hierarchical losses, whose tree of inner nodes a new vocabulary would redraw.
        """
        vocabulary, old = self._fitted("vectors to grow")
        if self.settings.needs_tree:
            raise UsageError(
                f"loss '{self.settings.loss}' cannot grow: new words redraw the Huffman tree, and its node "
                "vectors would lose their meaning. Fit both texts together, or use negative, nce or softmax"
            )
        settings = replace(
            self.settings,
            epochs=epochs or self.settings.epochs,
            alpha=self.settings.initial_alpha if alpha is None else alpha,
            seed=self.settings.seed,
        )
        corpus = corpora.Corpus.of(corpus, encoding_errors=encoding_errors)
        new = corpora.count(corpus, min_count=1, threads=threads)
        grown = vocabulary.extend(new, min_count=settings.min_count)
        encoded = corpora.encode(corpus, grown, chunk_words=settings.chunk_words, threads=threads)
        # Losses that can grow have one output row a word.
        parameters = Parameters(*(empty_matrix(len(grown), settings.dim) for _ in range(2)))
        parameters.inputs[: len(vocabulary)] = old.inputs
        parameters.outputs[: len(vocabulary)] = old.outputs
        draw_inputs(parameters.inputs, settings, first=len(vocabulary))
        self.settings = settings
        self._train(grown, encoded, parameters, threads, deterministic, run, checkpoint_seconds, observe)
        return self

    def _train(
        self,
        vocabulary: Vocabulary,
        encoded: Encoded,
        parameters: Parameters | None,
        threads: int,
        deterministic: bool,
        run: Run | None,
        checkpoint_seconds: float,
        observe: Callable[[Snapshot], None] | None,
    ) -> None:
        if threads < 1:
            raise UsageError(f"threads is {threads}; give at least 1 (this machine has {cores()} cores)")
        planner = Planner(self.settings, vocabulary.counts)
        identity = _identity(self.settings, vocabulary, encoded) if run is not None else ""
        state = None
        if run is not None and run.checkpoint(CHECKPOINT).exists():
            parameters, state = load_checkpoint(run.checkpoint(CHECKPOINT), identity)
        trainer = Trainer(self.settings, planner, encoded, parameters=parameters, state=state)
        self._vocabulary, self._trainer, self._parameters = vocabulary, trainer, trainer.parameters
        if run is None:
            trainer.train(threads=threads, deterministic=deterministic, observe=observe)
            return
        logged = len(trainer.state.history)
        run.rewind(epoch=logged)

        def keep() -> None:
            save_checkpoint(run.checkpoint(CHECKPOINT), trainer.parameters, trainer.state, identity)

        try:
            while not trainer.done:
                trainer.train(
                    threads=threads, deterministic=deterministic, seconds=checkpoint_seconds, observe=observe
                )
                if not trainer.done:
                    keep()
                for record in trainer.state.history[logged:]:
                    run.log(epoch=record.epoch, loss=record.loss, terms=record.terms)
                logged = len(trainer.state.history)
        except KeyboardInterrupt:  # in training, or while a checkpoint was being written
            keep()
            raise Interrupted(
                f"stopped at {100 * trainer.progress():.1f} %; the same command with --resume goes on "
                "from there"
            ) from None


class SkipGram(Word2Vec):
    """Continuous skip-gram: each context word predicts the centre word.

    `SkipGram(dim=300, negative=5, subsample=1e-5).fit("corpus.txt", threads=8).vectors_`
    """

    _model = "skipgram"


class CBOW(Word2Vec):
    """Continuous bag of words: the mean of the context predicts the centre word."""

    _model = "cbow"


def _identity(settings: Word2VecSettings, vocabulary: Vocabulary, encoded: Encoded) -> str:
    return digest(
        {"settings": to_dict(settings), "vocabulary": vocabulary.digest(), "corpus": encoded.digest}
    )
