"""The parameter server's processes against the trainer's threads: words per second on one host.

    python -m benchmarks.parameter_server --corpus text8 --similarity wordsim353.tsv --json

The same skip-gram job (d 100, window 5, five noise words, sample 1e-3) with as many workers as threads.
Workers pull rows and push differences every `--n-push` mini-batches (of 200 words). The peer is our own
thread trainer, which shares one matrix without any exchange, so that a ratio of 1 would mean that the
exchange is free. Words per second are those of training; the seconds that workers take to start stand
beside them.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path
from typing import Any

from benchmarks._harness import Result, arguments, emit, interleaved
from benchmarks.word2vec import reflowed, scores


def _options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--corpus", type=Path, help="text, plain or .gz")
    parser.add_argument("--questions", type=Path, help="analogies, as questions-words.txt")
    parser.add_argument("--similarity", type=Path, help="judged pairs, as wordsim353.tsv")
    parser.add_argument("--n-push", type=int, default=100, help="mini-batches between two pushes")
    parser.add_argument("--epochs", type=int, default=5)


def compare(text: Path, chosen: Any) -> Result:
    """Train on threads and on processes in turn, each turn with another seed."""
    from posterhall.data import corpus
    from posterhall.embeddings import SkipGram
    from posterhall.embeddings.parameter_server import DistributedSettings, train_encoded
    from posterhall.embeddings.settings import Word2VecSettings
    from posterhall.stats import mean_interval

    vocabulary, encoded = corpus.read(text, threads=chosen.threads)
    options = DistributedSettings(
        backend="processes", workers=chosen.threads, n_push=chosen.n_push, n_fetch=chosen.n_push
    )
    speeds: dict[str, list[float]] = {"threads": [], "processes": []}
    quality: dict[str, list[dict[str, float]]] = {"threads": [], "processes": []}
    startups: list[float] = []

    def threads() -> None:
        model = SkipGram(dim=100, epochs=chosen.epochs, seed=len(speeds["threads"]) + 1)
        began = time.perf_counter()
        model.fit_encoded(vocabulary, encoded, threads=chosen.threads)
        seconds = time.perf_counter() - began
        speeds["threads"].append(encoded.tokens_total * chosen.epochs / seconds)
        quality["threads"].append({"loss": model.history_[-1].loss, **scores(model.vectors_, chosen)})

    def processes() -> None:
        settings = Word2VecSettings(dim=100, epochs=chosen.epochs, seed=len(speeds["processes"]) + 1)
        found = train_encoded(settings, vocabulary, encoded, options)
        speeds["processes"].append(found.report.words_per_second)
        startups.append(found.report.startup_seconds)
        quality["processes"].append({"loss": found.report.losses[-1], **scores(found.vectors, chosen)})

    with encoded:
        SkipGram(dim=100, epochs=1).fit([["warm", "up"] * 50] * 20)  # compiled before anything is timed
        timings = interleaved({"processes": processes, "threads": threads}, repeats=chosen.repeats)
    ours, peer = sorted(speeds["processes"]), sorted(speeds["threads"])
    facts: dict[str, Any] = {
        "n_push": chosen.n_push,
        "startup_seconds": max(startups),
        "cpu_seconds_ours": timings["processes"].cpu_median,
        "cpu_seconds_peer": timings["threads"].cpu_median,
        "runs": len(ours),
    }
    for name in quality["threads"][0]:
        for side, found in quality.items():
            interval = mean_interval([each[name] for each in found])
            facts[f"{name}_{side}"] = interval.estimate
            facts[f"{name}_{side}_interval"] = [interval.low, interval.high]
    middle = len(ours) // 2
    return Result(
        case=f"processes, {encoded.tokens_total / 1e6:.2f} M words x {chosen.epochs}, d 100",
        ours=ours[middle],
        peer=peer[middle],
        peer_name="own thread trainer",
        unit="words/s",
        ratio=ours[middle] / peer[middle],
        quality=facts,
    )


def main() -> None:
    """Measure and print."""
    chosen = arguments(__doc__ or "", _options)
    with tempfile.TemporaryDirectory() as folder:
        text = Path(folder) / "corpus.txt"
        reflowed(chosen.corpus, text)
        results = [compare(text, chosen)]
    emit("parameter_server", chosen.threads, results, as_json=chosen.json)


if __name__ == "__main__":
    main()
