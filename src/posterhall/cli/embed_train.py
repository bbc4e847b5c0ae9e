"""`posterhall embed train`: options of our own and those of word2vec.c."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from posterhall.cli.output import ConfigFile, Json, Quiet, Resume, Seed, Sets, emit_json, emit_table
from posterhall.errors import UsageError


def train(
    corpus: Annotated[
        list[Path] | None,
        typer.Argument(help="Text, plain or .gz; words separated by white space, a sentence a line."),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(
            "--out", "-o", "-output", help="Vectors: .bin, .txt, .vec, .glove, .safetensors (+ .gz)."
        ),
    ] = None,
    model: Annotated[str | None, typer.Option("--model", help="skipgram or cbow.")] = None,
    loss: Annotated[
        str | None,
        typer.Option("--loss", help="negative, hierarchical, hierarchical+negative, nce or softmax."),
    ] = None,
    dim: Annotated[int | None, typer.Option("--dim", "-size", help="Length of a vector [100].")] = None,
    window: Annotated[int | None, typer.Option("--window", "-window", help="Reach in words [5].")] = None,
    negative: Annotated[
        int | None, typer.Option("--negative", "-negative", help="Noise words a centre [5].")
    ] = None,
    subsample: Annotated[
        float | None, typer.Option("--subsample", "-sample", help="Frequency threshold; 0 is off [1e-3].")
    ] = None,
    min_count: Annotated[
        int | None, typer.Option("--min-count", "-min-count", help="Drop rarer words [5].")
    ] = None,
    max_vocabulary: Annotated[
        int | None, typer.Option("--max-vocabulary", help="Keep only the most frequent words.")
    ] = None,
    epochs: Annotated[
        int | None, typer.Option("--epochs", "-iter", help="Passes over the corpus [5].")
    ] = None,
    alpha: Annotated[
        float | None, typer.Option("--alpha", "-alpha", help="Initial rate [0.025; cbow 0.05].")
    ] = None,
    seed: Seed = None,
    threads: Annotated[
        int | None, typer.Option("--threads", "-threads", "-t", min=1, help="Default: all usable cores.")
    ] = None,
    deterministic: Annotated[
        bool, typer.Option("--deterministic", help="The same vectors whatever the number of threads.")
    ] = False,
    keep: Annotated[
        Path | None, typer.Option("--keep", help="File of words to keep however rare, one a line.")
    ] = None,
    drop: Annotated[
        Path | None, typer.Option("--drop", help="File of words to leave out, one a line.")
    ] = None,
    encoding_errors: Annotated[
        str | None,
        typer.Option("--encoding-errors", help="Bytes that are not UTF-8: strict, replace or ignore."),
    ] = None,
    grow: Annotated[
        Path | None,
        typer.Option("--grow", metavar="RUN", help="Go on from a run kept with --keep-state, on new text."),
    ] = None,
    keep_state: Annotated[
        bool, typer.Option("--keep-state", help="Keep both matrices in the run, so that it can be grown.")
    ] = False,
    backend: Annotated[
        str | None,
        typer.Option("--backend", help="Train on a parameter server: processes, threads or ray."),
    ] = None,
    workers: Annotated[int | None, typer.Option("--workers", help="Server: replicas [2].")] = None,
    shards: Annotated[
        int | None, typer.Option("--shards", help="Server: parts of the parameters [2].")
    ] = None,
    n_push: Annotated[
        int | None, typer.Option("--n-push", help="Server: mini-batches between two pushes [100].")
    ] = None,
    n_fetch: Annotated[
        int | None, typer.Option("--n-fetch", help="Server: mini-batches between two pulls [100].")
    ] = None,
    server: Annotated[
        list[str] | None,
        typer.Option("--server", metavar="KEY=VALUE", help="Server: rule, gamma, bound, warm_start, ..."),
    ] = None,
    checkpoint_seconds: Annotated[
        float, typer.Option("--checkpoint-seconds", min=0.0, help="Time between checkpoints.")
    ] = 60.0,
    run_directory: Annotated[
        Path | None, typer.Option("--run", metavar="DIR", help="Run directory [OUT with the ending .run].")
    ] = None,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace a finished run and its vectors.")
    ] = False,
    resume: Resume = False,
    config: ConfigFile = None,
    sets: Sets = None,
    json: Json = False,
    quiet: Quiet = False,
    tool_train: Annotated[Path | None, typer.Option("-train", hidden=True)] = None,
    tool_cbow: Annotated[int | None, typer.Option("-cbow", min=0, max=1, hidden=True)] = None,
    tool_hs: Annotated[int | None, typer.Option("-hs", min=0, max=1, hidden=True)] = None,
    tool_binary: Annotated[int | None, typer.Option("-binary", min=0, max=1, hidden=True)] = None,
    tool_save_vocab: Annotated[Path | None, typer.Option("-save-vocab", hidden=True)] = None,
    tool_debug: Annotated[int, typer.Option("-debug", hidden=True)] = 2,
) -> None:
    """Learn word vectors from text (word2vec).

    The single-dash names of word2vec.c are accepted too: -train -output -size -window -sample -hs
    -negative -threads -iter -min-count -alpha -cbow -binary -save-vocab -debug.

    All other settings (noise_exponent, subsample_formula, shrink_windows, ...) go through --set.
    """
    from posterhall import config as settings_room
    from posterhall.devices import cores
    from posterhall.embeddings.jobs import Outputs, TrainSettings, train_file
    from posterhall.embeddings.parameter_server import DistributedSettings
    from posterhall.progress import duration, quantity

    sources = [*(corpus or []), *([tool_train] if tool_train else [])]
    if not sources:
        raise UsageError("no corpus given: posterhall embed train CORPUS.txt -o vectors.bin")
    if out is None:
        raise UsageError("no output given: add -o vectors.bin")
    if tool_hs is not None:
        if loss is not None:
            raise UsageError("-hs and --loss both choose the output layer; give one of them")
        # As in word2vec.c, where noise words are on unless -negative is 0.
        noise = negative is None or negative > 0
        loss = ("hierarchical+negative" if noise else "hierarchical") if tool_hs else "negative"
    if tool_cbow is not None:
        if model is not None:
            raise UsageError("-cbow and --model both choose the model; give one of them")
        model = "cbow" if tool_cbow else "skipgram"
    settings = settings_room.resolve(
        TrainSettings,
        file=config,
        sets=sets or (),
        flags={
            "model": model,
            "loss": loss,
            "dim": dim,
            "window": window,
            "negative": negative,
            "subsample": subsample,
            "min_count": min_count,
            "max_vocabulary": max_vocabulary,
            "epochs": epochs,
            "alpha": alpha,
            "seed": seed,
            "deterministic": deterministic or None,
            "encoding_errors": encoding_errors,
        },
    )
    exchange = {"workers": workers, "shards": shards, "n_push": n_push, "n_fetch": n_fetch}
    distributed = None
    if backend is not None:
        distributed = settings_room.resolve(
            DistributedSettings, sets=server or (), flags={"backend": backend, **exchange}, environ={}
        )
    elif server or any(value is not None for value in exchange.values()):
        raise UsageError("--workers, --shards, --n-push, --n-fetch and --server belong to a --backend")
    result = train_file(
        settings,
        sources,
        Outputs(
            vectors=out,
            run=run_directory,
            format=None if tool_binary is None else ("word2vec-text", "word2vec-binary")[tool_binary],
            vocabulary=tool_save_vocab,
            keep_state=keep_state,
        ),
        threads=threads or cores(),
        keep=keep,
        drop=drop,
        grow=grow,
        distributed=distributed,
        checkpoint_seconds=checkpoint_seconds,
        overwrite=overwrite,
        resume=resume,
        quiet=quiet or tool_debug == 0,
    )
    if json:
        emit_json(result)
        return
    losses = result["loss"]
    spread = result.get("distributed")
    emit_table(
        [
            ("vectors", f"{result['vectors']}  {result['words']:,} words x {result['dim']}"),
            ("loss", " ".join(f"{loss:.4f}" for loss in losses) + "  an epoch, nats"),
            ("speed", f"{quantity(result['words_per_second'])} words/s, {duration(result['seconds'])}"),
            ("run", str(result["run"])),
            *([("server", _server_line(spread))] if spread else []),
            *[("died", death) for death in (spread["deaths"] if spread else [])],
        ]
    )


def _server_line(spread: dict[str, Any]) -> str:
    stale = spread["staleness_summary"]
    return (
        f"{spread['workers']} workers, {spread['shards']} shards ({spread['backend']}); staleness mean "
        f"{stale['mean']:.2f}, 95 % {stale['p95']:.0f}; {spread['bytes_pushed_per_word']:.0f} B pushed a word"
    )
