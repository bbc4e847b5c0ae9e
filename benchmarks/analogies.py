"""Analogy evaluation against gensim's `evaluate_word_analogies`, at the same protocol.

Without files it makes vectors with planted relations over 30,000 words and questions like those of
questions-words.txt. `--vectors FILE --questions FILE` measures on real ones.
"""

from __future__ import annotations

import argparse
import logging
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks._harness import arguments, emit, faster, interleaved

if TYPE_CHECKING:
    from posterhall.embeddings.vectors import WordVectors

RESTRICT = 30_000
SECTIONS, PAIRS = 14, 20


def _options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--vectors", type=Path, help="word2vec, GloVe or safetensors file")
    parser.add_argument("--questions", type=Path, help="lines `a b c d`, sections `: name`")
    parser.add_argument("--dimensions", type=int, default=100, help="of the vectors that are made")


def planted(dimensions: int) -> tuple[WordVectors, str]:
    """30,000 words; in each section PAIRS pairs whose difference is a relation plus noise.

    There is so much noise that about two questions in three are answered rightly.
    """
    import numpy as np

    from posterhall.embeddings.vectors import WordVectors

    rng = np.random.default_rng(0)
    matrix = rng.normal(size=(RESTRICT, dimensions)).astype(np.float32)
    words = [f"w{i}" for i in range(RESTRICT)]
    lines = []
    for section in range(SECTIONS):
        lines.append(f": {'gram' if section >= 5 else 'section'}{section}")
        left = rng.choice(RESTRICT // 2, PAIRS, replace=False) + (section % 2)
        right = RESTRICT // 2 + section * PAIRS + np.arange(PAIRS)
        relation = rng.normal(size=dimensions)
        matrix[right] = matrix[left] + relation + 1.8 * rng.normal(size=(PAIRS, dimensions))
        pairs = [(words[a], words[b]) for a, b in zip(left.tolist(), right.tolist(), strict=True)]
        lines += [f"{a} {b} {c} {d}" for a, b in pairs for c, d in pairs if a != c]
    return WordVectors(words, matrix), "\n".join(lines) + "\n"


def main() -> None:
    """Measure and print."""
    chosen = arguments(__doc__ or "", _options)

    import gensim
    import numpy as np
    from gensim.models import KeyedVectors

    from posterhall.embeddings import analogies, formats

    logging.getLogger("gensim").setLevel(logging.ERROR)
    with tempfile.TemporaryDirectory() as folder:
        vectors, text = planted(chosen.dimensions)
        questions = Path(folder) / "questions.txt"
        questions.write_text(text)
        if chosen.vectors is not None:
            vectors = formats.load(chosen.vectors, limit=RESTRICT)
        if chosen.questions is not None:
            questions = chosen.questions
        peer = KeyedVectors(vectors.dimensions)
        peer.add_vectors(list(vectors.words), np.array(vectors.matrix))

        def ours() -> Any:
            return analogies.evaluate(
                vectors, questions, protocol="strict", restrict=RESTRICT, threads=chosen.threads
            )

        def theirs() -> Any:
            return peer.evaluate_word_analogies(str(questions), restrict_vocab=RESTRICT)[1][-1]

        ours()  # loads the compiled kernels; both keep the vectors' lengths from here on
        peer.fill_norms()
        times = interleaved({"ours": ours, "gensim": theirs}, repeats=chosen.repeats)
        total, theirs_total = times["ours"].value.total, times["gensim"].value
    right = len(theirs_total["correct"])
    emit(
        "analogies",
        chosen.threads,
        [
            faster(
                f"{total.covered:,} questions, {min(len(vectors), RESTRICT):,} words x {vectors.dimensions}",
                times["ours"],
                times["gensim"],
                f"gensim {gensim.__version__}",
                quality={
                    "right_ours": total.correct,
                    "right_peer": right,
                    "asked_ours": total.covered,
                    "asked_peer": right + len(theirs_total["incorrect"]),
                },
            )
        ],
        as_json=chosen.json,
    )


if __name__ == "__main__":
    main()
