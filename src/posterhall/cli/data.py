"""`posterhall data`: text before training; phrases and counts here, pools in the files beside."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, cast

import typer

from posterhall.cli import data_dedup, data_filter, data_mix, data_pairs, pools
from posterhall.cli.output import Json, Quiet, Threads, emit_json, emit_table
from posterhall.errors import DataError, UsageError

if TYPE_CHECKING:
    from posterhall.data.corpus import Corpus

app = typer.Typer(
    help="Text before training: phrases, duplicates, filters, mixtures, statistics.", no_args_is_help=True
)
app.command("dedup")(data_dedup.dedup)
app.command("filter")(data_filter.filter)
app.command("scores")(data_filter.scores)
app.command("mix")(data_mix.mix)
app.command("pairs")(data_pairs.pairs)

Texts = Annotated[
    list[Path] | None,
    typer.Argument(
        metavar="CORPUS...", help="Text, plain or .gz; words apart by white space, a sentence a line."
    ),
]
Top = Annotated[int, typer.Option("--top", "-n", min=0, help="How many to print.")]


@app.command()
def phrases(
    corpus: Texts = None,
    out: Annotated[
        Path | None,
        typer.Option("--out", "-o", "-output", help="The text with phrases joined; gzipped if named .gz."),
    ] = None,
    threshold: Annotated[
        list[float] | None,
        typer.Option(
            "--threshold",
            "-threshold",
            help="Of the last pass, doubled for each before it; or repeat it, one a pass "
            "[lift 100, npmi 0.5, gensim 10].",
        ),
    ] = None,
    min_count: Annotated[
        int, typer.Option("--min-count", "-min-count", help="Rarer words and pairs take no part.")
    ] = 5,
    discount: Annotated[
        float | None, typer.Option("--discount", help="Taken off each pair's count [the minimum count].")
    ] = None,
    scorer: Annotated[str, typer.Option("--scorer", help="lift, paper, npmi or gensim.")] = "lift",
    passes: Annotated[int, typer.Option("--passes", min=1, help="2 also joins three and four words.")] = 1,
    connectors: Annotated[
        str | None,
        typer.Option(
            "--connectors",
            metavar="FILE|english",
            help="Words that may stand inside a phrase (bank of america), one a line.",
        ),
    ] = None,
    delimiter: Annotated[str, typer.Option("--delimiter", help="Put between joined words.")] = "_",
    export: Annotated[
        Path | None,
        typer.Option(
            "--export-phrases", metavar="FILE", help="Write phrases, counts and scores, tab-separated."
        ),
    ] = None,
    known: Annotated[
        Path | None,
        typer.Option(
            "--phrases", metavar="FILE", help="Join the phrases of such a file instead of finding any."
        ),
    ] = None,
    encoding_errors: pools.Errors = "strict",
    threads: Threads = None,
    top: Top = 20,
    json: Json = False,
    quiet: Quiet = False,
    tool_train: Annotated[Path | None, typer.Option("-train", hidden=True)] = None,
    tool_debug: Annotated[int | None, typer.Option("-debug", hidden=True)] = None,
) -> None:
    """Find words that belong together and join them: new york -> new_york.

    Takes the options of the word2phrase tool too (-train, -output, -threshold, -min-count). Prints the
    phrases with the best scores.
    """
    del tool_debug  # the tool's verbosity
    source = _corpus([*(corpus or []), *([tool_train] if tool_train else [])], encoding_errors)
    if out is None and export is None and not json and top == 0:
        raise UsageError("nothing would come of it: give -o FILE, --export-phrases FILE or --top N")

    from posterhall import devices
    from posterhall.data.phrases import ENGLISH_CONNECTORS, Phrases, Scorer

    joiner = Phrases(
        min_count=min_count,
        threshold=threshold[0] if threshold and len(threshold) == 1 else threshold,
        discount=discount,
        scorer=cast("Scorer", scorer),
        connectors=ENGLISH_CONNECTORS if connectors == "english" else _words(connectors),
        passes=passes,
        delimiter=delimiter,
        threads=threads or devices.cores(),
    )
    words: tuple[int, int] | None = None
    with pools.stages(quiet, _unit) as watch:
        if known is not None:
            joiner.load(known)
        else:
            joiner.fit(source, watch=watch)
        if out is not None:
            words = joiner.write(source, out, watch=watch)
    if export is not None:
        joiner.save(export)

    found = joiner.phrases_
    best = sorted(found.items(), key=lambda pair: -pair[1].score)[:top]
    if json:
        emit_json(
            {
                "phrases": len(found),
                "by_pass": [len(level) for level in joiner.passes_],
                "scorer": scorer,
                "thresholds": joiner.thresholds,
                "output": out,
                "words_in": words[0] if words else None,
                "words_out": words[1] if words else None,
                "top": [
                    {"phrase": name, "count": p.count, "score": p.score, "pass": p.level} for name, p in best
                ],
            }
        )
        return
    if top:
        emit_table(
            [(name, f"{p.count:,}", _score(p.score)) for name, p in best],
            header=("phrase", "count", "score"),
            right=(1, 2),
        )
        print()
    print(f"{len(found):,} phrases")
    if words:
        print(f"{words[0]:,} words became {words[1]:,} in {out}")


@app.command()
def vocabulary(
    corpus: Texts = None,
    out: Annotated[
        Path | None, typer.Option("--out", "-o", help="Lines of a word and its count (word2vec -save-vocab).")
    ] = None,
    min_count: Annotated[int, typer.Option("--min-count", "-min-count", help="Leave out rarer words.")] = 5,
    max_vocabulary: Annotated[
        int | None, typer.Option("--max-vocabulary", help="Keep only the most frequent words.")
    ] = None,
    keep: Annotated[
        Path | None, typer.Option("--keep", help="File of words to keep however rare, one a line.")
    ] = None,
    drop: Annotated[
        Path | None, typer.Option("--drop", help="File of words to leave out, one a line.")
    ] = None,
    encoding_errors: pools.Errors = "strict",
    threads: Threads = None,
    top: Top = 20,
    json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Count the words of a corpus, most frequent first."""
    source = _corpus(corpus or [], encoding_errors)

    from posterhall import devices
    from posterhall.data.corpus import count

    with pools.stages(quiet, _unit) as watch:
        size = source.size
        source.on_bytes = lambda done: watch("count", done, size)
        counted = count(
            source,
            min_count=min_count,
            max_vocabulary=max_vocabulary,
            keep=_words(keep),
            drop=_words(drop),
            threads=threads or devices.cores(),
        )
    if out is not None:
        counted.save(out)
    best = list(zip(counted.items[:top], counted.counts[:top].tolist(), strict=True))
    if json:
        emit_json(
            {
                "words": len(counted),
                "tokens": counted.total,
                "distinct_before_pruning": counted.raw_distinct,
                "tokens_before_pruning": counted.raw_tokens,
                "approximate": counted.approximate,
                "not_found": list(counted.unseen),
                "output": out,
                "top": [{"word": word, "count": n} for word, n in best],
            }
        )
        return
    if best:
        emit_table([(word, f"{n:,}") for word, n in best], header=("word", "count"), right=(1,))
        print()
    tokens = f"{counted.total:,} of {counted.raw_tokens:,} tokens"
    print(f"{len(counted):,} of {counted.raw_distinct:,} words, {tokens}")
    if counted.unseen:
        print(f"not in the corpus: {', '.join(counted.unseen)}")


@app.command()
def stats(
    corpus: Texts = None,
    encoding_errors: pools.Errors = "strict",
    text_field: Annotated[
        str | None, typer.Option("--text-field", help="Of a pool: field that holds the text [text].")
    ] = None,
    split: Annotated[
        str | None,
        typer.Option("--split", help="Take plain text as a pool, a document each file, line or blank block."),
    ] = None,
    max_document: pools.MaxDocument = None,
    threads: Threads = None,
    json: Json = False,
    quiet: Quiet = False,
) -> None:
    """What a corpus or a pool holds.

    Of a corpus: sentences, words, and what each minimum count would leave. Of a pool (JSON lines, Parquet,
    folders, .zst, or with --split): documents, their lengths, and the share of exact duplicates.
    """
    if corpus and (text_field or split or any(map(data_filter.is_pool, corpus))):
        reading = pools.reading(text_field or "text", split or "file", encoding_errors, max_document)
        data_filter.describe_pool(corpus, reading, json=json, quiet=quiet)
        return
    if max_document is not None:
        raise UsageError("--max-document is of pools; a corpus is read a word at a time")
    source = _corpus(corpus or [], encoding_errors)

    from posterhall import devices
    from posterhall.data.statistics import describe

    with pools.stages(quiet, _unit) as watch:
        size = source.size
        source.on_bytes = lambda done: watch("read", done, size)
        found = describe(source, threads=threads or devices.cores())
    if json:
        emit_json(found)
        return
    emit_table(
        [
            ("bytes of text", f"{found.bytes:,}"),
            ("sentences", f"{found.sentences:,}"),
            ("words a sentence", f"{found.words / found.sentences:,.1f}, longest {found.longest_sentence:,}"),
            ("words", f"{found.words:,}"),
            ("distinct words", f"{found.distinct:,}"),
        ]
    )
    print()
    emit_table(
        [
            (floor, f"{left.vocabulary:,}", f"{left.words:,}", f"{100 * left.words / found.words:.2f} %")
            for floor, left in found.min_counts.items()
        ],
        header=("min-count", "vocabulary", "words left", "share"),
        right=(0, 1, 2, 3),
    )


def _score(value: float) -> str:
    return f"{value:,.0f}" if value >= 1000 else f"{value:.4g}"


def _corpus(paths: list[Path], encoding_errors: str) -> Corpus:
    if not paths:
        raise UsageError("no corpus: name one or more text files")
    if encoding_errors not in ("strict", "replace", "ignore"):
        raise UsageError(f"--encoding-errors is {encoding_errors!r}; allowed are strict, replace and ignore")

    from posterhall.data.corpus import Corpus
    from posterhall.data.sources import EncodingErrors

    return Corpus(paths, encoding_errors=cast("EncodingErrors", encoding_errors))


def _words(path: Path | str | None) -> list[str]:
    if path is None:
        return []
    try:
        return Path(path).read_text(encoding="utf-8").split()
    except UnicodeDecodeError as error:
        raise DataError(f"{path}: not UTF-8 at byte {error.start}; give a text file of words") from None


def _unit(stage: str) -> str:
    return "words" if stage.startswith("pass") else "bytes"
