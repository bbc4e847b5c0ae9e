"""`posterhall embed`: ask, score, convert, group and draw word vectors."""

from __future__ import annotations

import contextlib
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from posterhall.cli import embed_train
from posterhall.cli.output import Json, Threads, emit_json, emit_table
from posterhall.errors import DataError, UsageError

if TYPE_CHECKING:
    from posterhall.embeddings.vectors import Neighbor, WordVectors

app = typer.Typer(help="Word vectors: train, query, evaluate, convert.", no_args_is_help=True)
app.command("train")(embed_train.train)

Vectors = Annotated[
    Path, typer.Argument(help="word2vec binary or text, GloVe, .vec or .safetensors; plain or .gz.")
]
Restrict = Annotated[
    int | None, typer.Option("--restrict", min=1, help="Know only the first, most frequent words.")
]
Top = Annotated[int, typer.Option("--top", "-n", min=1, help="How many answers.")]
IncludeQuery = Annotated[
    bool, typer.Option("--include-query", help="The words that were given may be answers too.")
]
EncodingErrors = Annotated[
    str,
    typer.Option(
        help="Words that are not UTF-8: strict, replace, ignore or surrogateescape (kept as they are)."
    ),
]


def _load(path: Path, restrict: int | None = None, **options: Any) -> WordVectors:
    """Read vectors, memory-mapped where their format allows it."""
    from posterhall.embeddings import formats

    name = options.pop("format", None) or formats.detect(path)
    with _warnings_as_lines():
        return formats.load(path, format=name, limit=restrict, mmap=name == "safetensors", **options)


@contextlib.contextmanager
def _warnings_as_lines() -> Iterator[None]:
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always", UserWarning)
        yield
    for each in told:
        print(f"warning: {each.message}", file=sys.stderr)


def _emit_neighbors(neighbors: list[Neighbor], json: bool, **facts: Any) -> None:
    if json:
        emit_json({**facts, "neighbors": [{"word": word, "score": score} for word, score in neighbors]})
    else:
        emit_table([(word, f"{score:.2f}") for word, score in neighbors], gap=4)


@app.command()
def nearest(
    vectors: Vectors,
    words: Annotated[list[str], typer.Argument(help="A word, or several to add up.")],
    minus: Annotated[
        list[str] | None, typer.Option("--minus", help="A word to subtract; repeatable.")
    ] = None,
    top: Top = 10,
    restrict: Restrict = None,
    include_query: IncludeQuery = False,
    json: Json = False,
) -> None:
    """The nearest words to a word or a sum, with their cosines."""
    if vectors.suffix == ".usearch":
        from posterhall.embeddings.ann import AnnIndex

        if len(words) > 1 or minus or restrict or include_query:
            raise UsageError(
                "an approximate index answers one word and takes no other options than --top; give the "
                "vectors that it was made of"
            )
        found = AnnIndex.load(vectors).nearest(words[0], top)
    else:
        query = words[0] if len(words) == 1 else words
        found = _load(vectors, restrict).nearest(query, top, minus=minus or None, include_query=include_query)
    _emit_neighbors(found, json, query=words, minus=minus or [])


@app.command()
def analogy(
    vectors: Vectors,
    a: Annotated[str, typer.Argument(help="a is to b")],
    b: Annotated[str, typer.Argument(help="as c")],
    c: Annotated[str, typer.Argument(help="is to the answer.")],
    method: Annotated[str, typer.Option("--method", help="3cosadd or 3cosmul.")] = "3cosadd",
    top: Top = 10,
    restrict: Restrict = None,
    include_query: IncludeQuery = False,
    json: Json = False,
) -> None:
    """What is to C as B is to A: man king woman."""
    known = _load(vectors, restrict)
    found = known.analogy(a, b, c, method=method, top=top, include_query=include_query)  # type: ignore[arg-type]
    _emit_neighbors(found, json, a=a, b=b, c=c, method=method)


@app.command()
def similarity(vectors: Vectors, a: str, b: str, restrict: Restrict = None, json: Json = False) -> None:
    """The cosine of two words."""
    cosine = _load(vectors, restrict).similarity(a, b)
    if json:
        emit_json({"a": a, "b": b, "cosine": cosine})
    else:
        print(f"{cosine:.4f}")


@app.command("odd-one-out")
def odd_one_out(
    vectors: Vectors,
    words: Annotated[list[str], typer.Argument(help="Three words or more.")],
    restrict: Restrict = None,
    json: Json = False,
) -> None:
    """The word that fits the others least."""
    fit = _load(vectors, restrict).coherence(words)
    if json:
        emit_json({"odd": fit[0].word, "cosines": [{"word": word, "cosine": score} for word, score in fit]})
    else:
        print(fit[0].word)


@app.command()
def evaluate(
    vectors: Vectors,
    analogies: Annotated[
        Path | None, typer.Option("--analogies", help="Questions: lines `a b c d`, sections `: name`.")
    ] = None,
    pairs: Annotated[
        list[Path] | None,
        typer.Option("--similarity", help="Judged pairs: WordSim-353, SimLex-999, MEN...; repeatable."),
    ] = None,
    protocol: Annotated[
        str,
        typer.Option("--protocol", help="original (as compute-accuracy.c) or strict (as gensim)."),
    ] = "original",
    method: Annotated[str, typer.Option("--method", help="3cosadd or 3cosmul.")] = "3cosadd",
    restrict: Restrict = None,
    include_query: Annotated[
        bool, typer.Option("--include-query", help="Also score with the question's words as answers.")
    ] = False,
    match_case: Annotated[
        bool, typer.Option("--match-case", help="Tell upper and lower case apart.")
    ] = False,
    threads: Threads = None,
    json: Json = False,
) -> None:
    """Score analogies and word similarity, always with the share of questions that could be asked."""
    if analogies is None and not pairs:
        raise UsageError("nothing to evaluate: add --analogies FILE, --similarity FILE or both")
    if threads is not None:
        from posterhall.devices import limit_threads

        limit_threads(threads)
    from posterhall.embeddings import analogies as analogy_room
    from posterhall.embeddings import similarity as similarity_room

    # Files of questions are small: what is wrong with them is told before the vectors are read.
    questions = None if analogies is None else analogy_room.read_questions(analogies)
    sets = [similarity_room.read_pairs(path) for path in pairs or []]
    known = _load(vectors, restrict)
    scores = None
    if questions is not None:
        scores = analogy_room.evaluate(
            known,
            questions,
            protocol=protocol,  # type: ignore[arg-type]
            method=method,  # type: ignore[arg-type]
            restrict=restrict,
            ignore_case=not match_case,
            include_query=include_query,
            nearest=True,
            threads=threads,
        )
    similar = [similarity_room.evaluate(known, each, ignore_case=not match_case) for each in sets]
    if json:
        emit_json(
            {
                "vectors": str(vectors),
                "words": len(known),
                "dimensions": known.dimensions,
                "analogies": None if scores is None else scores.to_dict(),
                "similarity": [each.to_dict() for each in similar],
            }
        )
        return
    if scores is not None:
        _emit_analogies(scores)
    if scores is not None and similar:
        print()
    if similar:
        _emit_similarity(similar)


def _emit_analogies(scores: Any) -> None:
    def row(score: Any, name: str | None = None) -> tuple[object, ...]:
        share = f"{score.accuracy:.1%}" if score.covered else None
        between = None
        if score.interval is not None:
            between = f"{score.interval.low:.1%} to {score.interval.high:.1%}"
        return (name or score.name, share, score.correct, score.covered, score.asked, between)

    table = [row(section) for section in scores.sections]
    table += [row(group) for group in (scores.semantic, scores.syntactic, scores.total) if group.asked]
    table.append(row(scores.nearest, "nearest to c"))
    if scores.include_query is not None:
        table.append(row(scores.include_query, "query words allowed"))
    emit_table(table, header=("section", "accuracy", "right", "covered", "asked", "95 %"), right=(1, 2, 3, 4))
    total = scores.total
    print(
        f"\n{total.coverage:.1%} of the questions could be asked; "
        f"{total.accuracy_of_all:.1%} right if the others count as wrong"
    )


def _emit_similarity(scores: list[Any]) -> None:
    def row(score: Any) -> tuple[object, ...]:
        rho, between, r = None, None, None
        if score.spearman is not None:
            rho, r = f"{score.spearman.estimate:.3f}", f"{score.pearson:.3f}"
            between = f"{score.spearman.low:.3f} to {score.spearman.high:.3f}"
        return (score.name, rho, r, score.covered, score.asked, between)

    emit_table(
        [row(score) for score in scores],
        header=("set", "spearman", "pearson", "covered", "asked", "95 %"),
        right=(1, 2, 3, 4),
    )


@app.command()
def convert(
    source: Annotated[Path, typer.Argument(help="Vectors in any known format.")],
    target: Annotated[
        Path, typer.Argument(help=".bin, .txt, .vec, .glove (+ .gz), .safetensors, or .usearch (an index).")
    ],
    from_format: Annotated[
        str | None, typer.Option("--from", help="Format of the source, if it is not found out.")
    ] = None,
    to_format: Annotated[
        str | None,
        typer.Option("--to", help="word2vec-binary, word2vec-text, glove, fasttext or safetensors."),
    ] = None,
    newline: Annotated[
        bool,
        typer.Option(
            "--newline/--no-newline", help="word2vec binary: a newline after each vector; gensim: none."
        ),
    ] = True,
    numbers: Annotated[
        str, typer.Option("--numbers", help="Text: shortest (exact) or original (six decimals).")
    ] = "shortest",
    on_space: Annotated[
        str, typer.Option("--on-space", help="Words with white space: error or underscore.")
    ] = "error",
    restrict: Restrict = None,
    encoding_errors: EncodingErrors = "strict",
    counts: Annotated[
        Path | None,
        typer.Option("--counts", help="Vocabulary file, lines `word count`, to keep in safetensors."),
    ] = None,
    json: Json = False,
) -> None:
    """Write vectors in another format, or as an index for approximate search."""
    from posterhall.embeddings import formats

    if target.suffix != ".usearch":
        formats.format_of(target, to_format)  # before a large file is read for nothing
    options: dict[str, Any] = {"format": from_format, "counts": counts, "encoding_errors": encoding_errors}
    known = _load(source, restrict, **options)
    if target.suffix == ".usearch":
        from posterhall.embeddings.ann import AnnIndex

        AnnIndex.build(known).save(target)
    else:
        formats.save(
            known,
            target,
            format=to_format,  # type: ignore[arg-type]
            newline=newline,
            numbers=numbers,  # type: ignore[arg-type]
            on_space=on_space,  # type: ignore[arg-type]
            encoding_errors=encoding_errors,  # type: ignore[arg-type]
        )
    if json:
        emit_json({"target": str(target), "words": len(known), "dimensions": known.dimensions})
    else:
        print(f"{target}  {len(known):,} words x {known.dimensions}")


@app.command()
def classes(
    vectors: Vectors,
    k: Annotated[int, typer.Option("-k", "--classes", min=1, help="How many classes.")] = 500,
    out: Annotated[
        Path | None, typer.Option("--out", "-o", help="Lines `word class`; default: stdout.")
    ] = None,
    start: Annotated[
        str, typer.Option("--start", help="modulo (as word2vec.c) or plusplus (until no word moves).")
    ] = "modulo",
    iterations: Annotated[int | None, typer.Option("--iterations", min=1, help="At most so many.")] = None,
    order: Annotated[str, typer.Option("--order", help="Sort by class or vocabulary.")] = "class",
    seed: Annotated[int, typer.Option("--seed", help="Of plusplus.")] = 0,
    restrict: Restrict = None,
    json: Json = False,
) -> None:
    """Group words by meaning with spherical K-means."""
    if order not in ("class", "vocabulary"):
        raise UsageError(f"--order is '{order}'; choose class or vocabulary")
    if json and out is None:
        raise UsageError("--json and the classes both go to stdout; add -o FILE")
    from posterhall.embeddings import clusters
    from posterhall.runs import atomic_file

    known = _load(vectors, restrict)
    found = clusters.classes(known, k, start=start, iterations=iterations, seed=seed)  # type: ignore[arg-type]
    lines = found.lines(known, order)  # type: ignore[arg-type]
    if out is None:
        sys.stdout.writelines(lines)
        return
    with atomic_file(out) as file:
        file.writelines(line.encode("utf-8", "surrogateescape") for line in lines)
    facts = {"iterations": found.iterations, "converged": found.converged, "cohesion": found.cohesion}
    if json:
        emit_json({"out": str(out), "classes": k, "words": len(known), **facts})
    else:
        print(f"{out}  {len(known):,} words in {k:,} classes, mean cosine {found.cohesion:.2f}")


@app.command()
def plot(
    vectors: Vectors,
    out: Annotated[Path, typer.Option("--out", "-o", help=".svg, .png or .pdf.")],
    pairs: Annotated[Path | None, typer.Option("--pairs", help="File of two words a line.")] = None,
    words: Annotated[
        str | None, typer.Option("--words", help="a,b,c or pairs a:b,c:d; on the command line.")
    ] = None,
    normalize: Annotated[
        bool, typer.Option("--normalize", help="Scale vectors to length 1 first; frequency counts less.")
    ] = False,
    title: Annotated[str, typer.Option("--title", help="Above the picture.")] = "",
    restrict: Restrict = None,
    json: Json = False,
) -> None:
    """Draw words on their first two principal components, pairs joined by arrows."""
    from posterhall.embeddings import projection
    from posterhall.report import vector_plot

    joined = [] if pairs is None else projection.read_pair_file(pairs)
    single = []
    for part in (words or "").split(","):
        ends = [end.strip() for end in part.split(":")]
        if len(ends) == 2 and all(ends):
            joined.append((ends[0], ends[1]))
        elif len(ends) == 1 and ends[0]:
            single.append(ends[0])
        elif part.strip():
            raise DataError(f"--words holds '{part.strip()}'; write a,b,c for words or a:b,c:d for pairs")
    if not joined and not single:
        raise UsageError("no words to draw: add --pairs FILE or --words france:paris,italy:rome")
    plane = projection.plane(_load(vectors, restrict), single, pairs=joined, normalize=normalize)
    with _warnings_as_lines():
        vector_plot.draw(plane, out, title=title)
    if json:
        emit_json({"out": str(out), **plane.to_dict()})
        return
    parallel = "" if plane.parallel is None else f", mean cosine between differences {plane.parallel:.2f}"
    print(f"{out}  {len(plane.words)} words{parallel}")


@app.command()
def info(vectors: Vectors, json: Json = False) -> None:
    """What a file of vectors holds."""
    import numpy as np

    from posterhall.embeddings import formats

    kind = formats.detect(vectors)
    known = _load(vectors, format=kind, allow_nonfinite=True)
    norms = known.norms
    finite = norms[np.isfinite(norms)]
    low, middle, high = np.quantile(finite, (0.0, 0.5, 1.0)).tolist() if finite.size else (None,) * 3
    facts = {
        "file": str(vectors),
        "format": kind,
        "bytes": vectors.stat().st_size,
        "words": len(known),
        "dimensions": known.dimensions,
        "counts": known.counts is not None,
        "norms": {"least": low, "median": middle, "largest": high},
        "zero": int((norms == 0).sum()),
        "nonfinite": int((~np.isfinite(norms)).sum()),
        "first": list(known.words[:5]),
    }
    if json:
        emit_json(facts)
        return
    emit_table(
        [
            ("format", kind),
            ("words", f"{len(known):,}"),
            ("dimensions", known.dimensions),
            ("counts", "yes" if facts["counts"] else "no"),
            ("norms", "none is finite" if low is None else f"{low:.3g} to {high:.3g}, median {middle:.3g}"),
            ("zero vectors", facts["zero"]),
            ("not finite", facts["nonfinite"]),
            ("first words", ", ".join(known.words[:5])),
        ]
    )
