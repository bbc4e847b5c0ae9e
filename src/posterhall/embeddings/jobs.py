"""A training as a job: text files in, a vector file and a run directory out."""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

from posterhall.config import to_dict
from posterhall.data import corpus as corpora
from posterhall.data.sources import EncodingErrors
from posterhall.data.vocabulary import Vocabulary
from posterhall.embeddings import formats
from posterhall.embeddings.parameter_server.settings import DistributedSettings
from posterhall.embeddings.parameter_server.training import CHECKPOINT as SERVER_CHECKPOINT
from posterhall.embeddings.parameter_server.training import train_encoded
from posterhall.embeddings.settings import Word2VecSettings
from posterhall.embeddings.trainer import Snapshot, TrainingState, load_checkpoint, save_checkpoint
from posterhall.embeddings.word2vec import CBOW, CHECKPOINT, SkipGram, Word2Vec
from posterhall.errors import DataError, UsageError
from posterhall.progress import Progress
from posterhall.runs import Run, is_run, read_manifest

KIND = "embed train"
_VOCABULARY = "vocabulary.txt"
_STATE = "state.npz"


@dataclass(frozen=True)
class TrainSettings(Word2VecSettings):
    """Everything that determines the vectors of a job; a run's config.yaml holds these fields."""

    deterministic: bool = False
    """The same vectors whatever the number of threads."""
    encoding_errors: EncodingErrors = "strict"
    """Bytes that are not UTF-8: strict, replace or ignore."""

    @property
    def model_settings(self) -> Word2VecSettings:
        """Those of the estimator alone."""
        return Word2VecSettings(**{f.name: getattr(self, f.name) for f in fields(Word2VecSettings)})


@dataclass(frozen=True)
class Outputs:
    """Where a training writes."""

    vectors: Path
    """The vector file; its ending names the format."""
    run: Path | None = None
    """The run directory; default: the vector file's name with the ending .run."""
    format: formats.Format | None = None
    """The format, where the ending does not name it."""
    vocabulary: Path | None = None
    """Also write the vocabulary there, a line `word count` each."""
    keep_state: bool = False
    """Leave both matrices in the run, so that it can be grown."""

    @property
    def run_directory(self) -> Path:
        """`run`, or beside the vectors."""
        return self.run or self.vectors.with_name(self.vectors.name.removesuffix(".gz")).with_suffix(".run")


def train_file(
    settings: TrainSettings,
    sources: Sequence[Path],
    outputs: Outputs,
    *,
    threads: int,
    keep: Path | None = None,
    drop: Path | None = None,
    grow: Path | None = None,
    distributed: DistributedSettings | None = None,
    checkpoint_seconds: float = 60.0,
    overwrite: bool = False,
    resume: bool = False,
    quiet: bool = True,
) -> dict[str, Any]:
    """Train on files, with checkpoints, and write the vectors.

    Args:
        settings: what to learn.
        sources: text files, read in this order.
        outputs: where to write.
        threads: training threads; the result depends on them unless it is `deterministic`.
        keep: file of words to keep however rare, one a line.
        drop: file of words to leave out.
        grow: a run made with `keep_state`: go on from its vectors and settings, but for epochs, rate and
            minimal count, which `settings` gives; add the words that are new.
        distributed: train on a parameter server instead of threads on shared matrices (Hogwild).
        overwrite: replace a run that is there.
        resume: go on with the run that is there; a finished one is left as it is.

    Returns:
        What `posterhall embed train --json` prints.

    Raises:
        DataError: for bad input, or a run that is there already.
        UsageError: for what a parameter server cannot do: deterministic, grow, keep_state.
        Interrupted: on Ctrl-C, after a checkpoint.
    """
    format = outputs.format or formats.format_of(outputs.vectors)
    for source in sources:
        if not source.is_file():
            what = "is a directory" if source.is_dir() else "does not exist"
            raise DataError(f"{source} {what}; give text files")
    if distributed is not None and (settings.deterministic or grow is not None or outputs.keep_state):
        raise UsageError(
            "training on a parameter server is asynchronous and keeps no state of one machine: leave out "
            "--deterministic, --grow and --keep-state, or leave out --backend"
        )
    for written in (outputs.vectors, outputs.vocabulary):
        for read in (*sources, *(path for path in (keep, drop) if path)):
            if written is not None and written.resolve() == read.resolve():
                raise DataError(f"{written} is read and would be overwritten; write to another file with -o")
    kept, dropped = _words(keep), _words(drop)
    directory = outputs.run_directory
    if is_run(directory):
        status = read_manifest(directory)["status"]
        if resume and status == "done":
            return dict(read_manifest(directory)["facts"])
        if overwrite and status != "running":
            shutil.rmtree(directory)
    if grow is not None:
        old = restore(grow)
        given = {name: getattr(settings, name) for name in ("epochs", "alpha", "min_count")}
        model = Word2Vec.from_parameters(replace(old.settings, **given), old.vocabulary_, old.parameters_)
        settings = replace(settings, **{**to_dict(old.settings), **given})
    else:
        model = (SkipGram if settings.model == "skipgram" else CBOW)(settings.model_settings)
    config = to_dict(settings)
    if distributed is not None:
        config["distributed"] = to_dict(distributed)
    inputs = [*sources, *(path for path in (keep, drop) if path)]
    inputs += [grow / "artifacts" / _STATE] if grow else []
    with Run.start(
        directory, kind=KIND, config=config, inputs=inputs, seeds=[settings.seed], resume=resume
    ) as run:
        reading = {"keep": kept, "drop": dropped, "encoding_errors": settings.encoding_errors}
        if distributed is not None:
            facts = _train_on_servers(
                settings.model_settings, sources, outputs, format, distributed, run, reading, quiet
            )
        else:
            with _shown(f"train {settings.model}", quiet) as observe:
                common = {
                    "threads": threads,
                    "deterministic": settings.deterministic,
                    "run": run,
                    "checkpoint_seconds": checkpoint_seconds,
                    "observe": observe,
                }
                if grow is not None:
                    model.grow(list(sources), encoding_errors=settings.encoding_errors, **common)  # type: ignore[arg-type]
                else:
                    model.fit(list(sources), **reading, **common)  # type: ignore[arg-type]
            facts = _write(model, outputs, format, run)
        result = {"vectors": str(outputs.vectors), "dim": settings.dim, **facts, "run": str(directory)}
        run.checkpoint(CHECKPOINT).unlink(missing_ok=True)
        run.finish(**result)
    return result


def _write(model: Word2Vec, outputs: Outputs, format: formats.Format, run: Run) -> dict[str, Any]:
    """Write what a training left; returns the facts about it."""
    summary, history, vocabulary = model.summary_, model.history_, model.vocabulary_
    _save_vocabulary(vocabulary, outputs, run)
    if outputs.keep_state:
        save_checkpoint(run.artifact(_STATE), model.parameters_, TrainingState(), "")
    model.detach_vectors().save(outputs.vectors, format=format)
    return {
        "words": len(vocabulary),
        "corpus_words": vocabulary.total,
        "loss": [record.loss for record in history],
        "words_per_second": summary.words_per_second,
        "seconds": summary.seconds,
    }


def _train_on_servers(
    settings: Word2VecSettings,
    sources: Sequence[Path],
    outputs: Outputs,
    format: formats.Format,
    options: DistributedSettings,
    run: Run,
    reading: dict[str, Any],
    quiet: bool,
) -> dict[str, Any]:
    """Train with a parameter server and write the vectors; returns the facts."""
    vocabulary, encoded = corpora.read(
        list(sources),
        min_count=settings.min_count,
        max_vocabulary=settings.max_vocabulary,
        chunk_words=settings.chunk_words,
        spill=run.path,
        **reading,
    )
    total = encoded.tokens_total * settings.epochs
    with (
        encoded,
        Progress(
            total, label=f"train {settings.model} ({options.backend})", unit="words", quiet=quiet
        ) as shown,
    ):
        result = train_encoded(settings, vocabulary, encoded, options, run, shown)
    _save_vocabulary(vocabulary, outputs, run)
    result.vectors.save(outputs.vectors, format=format)
    run.checkpoint(SERVER_CHECKPOINT).unlink(missing_ok=True)
    return {
        "words": len(vocabulary),
        "corpus_words": vocabulary.total,
        "loss": result.report.losses,
        "words_per_second": result.report.words_per_second,
        "seconds": result.report.seconds,
        "distributed": result.report.to_dict(),
    }


def _save_vocabulary(vocabulary: Vocabulary, outputs: Outputs, run: Run) -> None:
    vocabulary.save(run.artifact(_VOCABULARY))
    if outputs.vocabulary is not None:
        vocabulary.save(outputs.vocabulary)


def restore(run: Path) -> Word2Vec:
    """The estimator of a run that kept its state, ready to `grow`.

    Raises:
        DataError: if there is no such run, or it kept no state.
    """
    manifest = read_manifest(run)
    if manifest["kind"] != KIND or not (run / "artifacts" / _STATE).exists():
        raise DataError(f"{run} has nothing to go on from; train with --keep-state to keep both matrices")
    names = [f.name for f in fields(Word2VecSettings)]
    settings = Word2VecSettings(**{k: v for k, v in manifest["config"].items() if k in names})
    vocabulary = Vocabulary.load(run / "artifacts" / _VOCABULARY)
    return Word2Vec.from_parameters(settings, vocabulary, load_checkpoint(run / "artifacts" / _STATE)[0])


def _words(path: Path | None) -> list[str]:
    if path is None:
        return []
    try:
        return path.read_text(encoding="utf-8").split()
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path}: cannot be read as a list of words: {error}") from error


@contextlib.contextmanager
def _shown(label: str, quiet: bool) -> Iterator[Callable[[Snapshot], None]]:
    """An observer that draws progress; the bar's speed leaves out what was done before a resumption."""
    with contextlib.ExitStack() as stack:
        shown: list[Progress] = []

        def observe(now: Snapshot) -> None:
            if not shown:
                progress = Progress(now.total_words, label=label, unit="words", quiet=quiet, start=now.words)
                shown.append(stack.enter_context(progress))
            shown[0].update(now.words, loss=now.loss, rate=now.rate)

        yield observe
