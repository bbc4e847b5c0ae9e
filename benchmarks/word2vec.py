"""Training against gensim: words per second at equal quality.

    python -m benchmarks.word2vec --corpus text8 --questions questions-words.txt \\
        --similarity wordsim353.tsv --json

Both sides get the same text in lines of 1,000 words (gensim's `corpus_file` trains on almost nothing of a
corpus that is one line), the same vocabulary, d 100, window 5, five noise words, sample 1e-3, five epochs,
the same rate and the same number of threads. They take turns; every turn has its own seed, so that the
trained vectors of all turns give the quality with an interval over seeds. Counting words is not timed.
gensim's workers each take their own share of an epoch for all of its progress, so that with several of
them its rate falls more slowly than the formula says. Ours starts at a rate that gives the same mean rate
(1.1 times as high for two workers and five epochs); with equal initial rates both would get the same
number of updates, but not the same amount of learning.
"""

from __future__ import annotations

import argparse
import gzip
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks._harness import Result, Timing, arguments, emit, interleaved

if TYPE_CHECKING:
    from posterhall.embeddings.vectors import WordVectors

ALPHA = {"skipgram": 0.025, "cbow": 0.05}


def _options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--corpus", type=Path, help="text, plain or .gz")
    parser.add_argument("--questions", type=Path, help="analogies, as questions-words.txt")
    parser.add_argument("--similarity", type=Path, help="judged pairs, as wordsim353.tsv")
    parser.add_argument("--models", default="skipgram,cbow", help="which (default: both)")
    parser.add_argument("--dim", type=int, default=100)
    parser.add_argument("--epochs", type=int, default=5)


def rate_factor(epochs: int, workers: int) -> float:
    """Mean rate of gensim's `corpus_file` schedule over the mean rate of a linear one."""
    gensim_progress = ((epochs - 1) / 2 + 1 / (2 * workers)) / epochs
    return (1 - gensim_progress) / 0.5


def reflowed(corpus: Path | None, target: Path) -> int:
    """Write the corpus in lines of 1,000 words; returns the number of words."""
    if corpus is None:
        from posterhall.data import python_text

        words = " ".join(python_text.lines()).split()
    else:
        with gzip.open(corpus, "rt") if corpus.suffix == ".gz" else corpus.open() as file:
            words = file.read().split()
    with target.open("w") as out:
        for first in range(0, len(words), 1000):
            out.write(" ".join(words[first : first + 1000]) + "\n")
    return len(words)


def scores(vectors: WordVectors, chosen: Any) -> dict[str, float]:
    """Quality of one training: accuracy on the questions, correlation with the judgements."""
    from posterhall.embeddings import analogies, similarity

    found = {}
    if chosen.questions:
        result = analogies.evaluate(vectors, chosen.questions, restrict=30_000, intervals=False)
        found["analogies"] = result.total.accuracy
    if chosen.similarity:
        rank = similarity.evaluate(vectors, chosen.similarity).spearman
        found["similarity"] = rank.estimate if rank is not None else float("nan")
    return found


def compare(model: str, text: Path, words: int, chosen: Any) -> Result:
    """Train both sides in turn, each turn with another seed."""
    from gensim import __version__ as gensim_version
    from gensim.models import Word2Vec

    from posterhall.data import corpus
    from posterhall.embeddings import CBOW, SkipGram, WordVectors

    vocabulary, encoded = corpus.read(text, threads=chosen.threads)
    estimator = SkipGram if model == "skipgram" else CBOW
    trained: dict[str, list[Any]] = {"ours": [], "gensim": []}

    def prepared(seed: int) -> Any:
        peer = Word2Vec(
            vector_size=chosen.dim, window=5, negative=5, sample=1e-3, min_count=5, alpha=ALPHA[model],
            epochs=chosen.epochs, sg=int(model == "skipgram"), workers=chosen.threads, seed=seed,
        )  # fmt: skip
        peer.build_vocab(corpus_file=str(text))
        return peer

    waiting = [prepared(seed) for seed in range(1, chosen.repeats + 1)]
    if len(waiting[0].wv) != len(vocabulary):
        raise SystemExit(f"vocabularies differ: {len(vocabulary):,} and gensim's {len(waiting[0].wv):,}")

    def ours() -> None:
        rate = ALPHA[model] * rate_factor(chosen.epochs, chosen.threads)
        fitted = estimator(dim=chosen.dim, epochs=chosen.epochs, alpha=rate, seed=len(trained["ours"]) + 1)
        trained["ours"].append(fitted.fit_encoded(vocabulary, encoded, threads=chosen.threads))

    def gensim() -> None:
        peer = waiting.pop(0)
        peer.train(
            corpus_file=str(text), total_words=peer.corpus_total_words, total_examples=peer.corpus_count,
            epochs=chosen.epochs,
        )  # fmt: skip
        trained["gensim"].append(peer)

    # Compiled or loaded before anything is timed.
    estimator(dim=chosen.dim, epochs=1).fit([["warm", "up"] * 50] * 20)
    sides: dict[str, Callable[[], None]] = {"ours": ours, "gensim": gensim}
    timings = interleaved(sides, repeats=chosen.repeats)
    quality = {
        "ours": [scores(each.vectors_, chosen) for each in trained["ours"]],
        "gensim": [
            scores(WordVectors(each.wv.index_to_key, each.wv.vectors), chosen) for each in trained["gensim"]
        ],
    }
    return _result(model, timings, quality, words * chosen.epochs, gensim_version, len(vocabulary), chosen)


def _result(
    model: str,
    timings: dict[str, Timing],
    quality: dict[str, Any],
    words: int,
    version: str,
    known: int,
    chosen: Any,
) -> Result:
    from posterhall.stats import mean_interval

    ours, peer = timings["ours"], timings["gensim"]
    facts: dict[str, Any] = {
        "words_per_cpu_second_ours": words / ours.cpu_median,
        "words_per_cpu_second_peer": words / peer.cpu_median,
        "cpu_ratio": peer.cpu_median / ours.cpu_median,
        "runs": len(ours.wall),
    }
    for name in quality["ours"][0]:
        for side in ("ours", "gensim"):
            found = mean_interval([each[name] for each in quality[side]])
            facts[f"{name}_{side}"] = found.estimate
            facts[f"{name}_{side}_interval"] = [found.low, found.high]
        # Seeds pair nothing across two programs: an interval of the difference of independent means.
        facts[f"{name}_difference_interval"] = list(
            welch([e[name] for e in quality["ours"]], [e[name] for e in quality["gensim"]])
        )
    return Result(
        case=f"{model}, {words / chosen.epochs / 1e6:.2f} M words x {chosen.epochs}, "
        f"{known:,} words, d {chosen.dim}",
        ours=words / ours.wall_median,
        peer=words / peer.wall_median,
        peer_name=f"gensim {version}",
        unit="words/s",
        ratio=peer.wall_median / ours.wall_median,
        quality=facts,
    )


def welch(a: list[float], b: list[float]) -> tuple[float, float]:
    """95 % interval of mean(a) - mean(b), variances not assumed equal (Welch 1947)."""
    from scipy.stats import ttest_ind

    interval = ttest_ind(a, b, equal_var=False).confidence_interval(0.95)
    return float(interval.low), float(interval.high)


def main() -> None:
    """Measure and print."""
    chosen = arguments(__doc__ or "", _options)
    with tempfile.TemporaryDirectory() as folder:
        text = Path(folder) / "corpus.txt"
        words = reflowed(chosen.corpus, text)
        results = [compare(model, text, words, chosen) for model in chosen.models.split(",")]
    emit("word2vec", chosen.threads, results, as_json=chosen.json)


if __name__ == "__main__":
    main()
