"""Peak memory of training on a large corpus, against what the result itself needs.

    python -m benchmarks.memory [--gigabytes 1] [--words 200000] [--dim 300] [--json]

Writes a corpus of random words with Zipf frequencies, trains on it in a process of its own, and compares
that process's peak resident memory, less what it had after its imports, with the two parameter matrices
plus the vocabulary (the words' bytes, an eight-byte count and an index entry each).
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from posterhall import devices

_CHILD = """
import json, sys, time
from posterhall import devices
from posterhall.embeddings.jobs import Outputs, TrainSettings, train_file
from pathlib import Path
corpus, out, dim, threads = Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4])
small = corpus.with_name("small.txt")
settings = TrainSettings(model="cbow", dim=dim, epochs=1)
# Kernels are compiled or loaded before the measurement, as imports are.
train_file(settings, [small], Outputs(vectors=out.with_name("small.bin")), threads=threads)
before = devices.peak_bytes()
began = time.perf_counter()
result = train_file(settings, [corpus], Outputs(vectors=out), threads=threads)
print(json.dumps({"before": before, "after": devices.peak_bytes(), "seconds": time.perf_counter() - began,
                  "words": result["words"], "corpus_words": result["corpus_words"]}))
"""


def write_corpus(path: Path, gigabytes: float, words: int, seed: int = 0) -> None:
    """Random words `w0` to `w<words - 1>`, Zipf frequencies with a floor so that all pass min_count."""
    rng = np.random.default_rng(seed)
    weight = 1.0 / (np.arange(words) + 20.0) ** 0.9
    cumulative = np.cumsum(weight / weight.sum())
    names = np.array([f"w{i}" for i in range(words)], dtype=object)
    size, wanted = 0, gigabytes * 1e9
    with path.open("w") as file:
        while size < wanted:
            drawn = names[np.minimum(np.searchsorted(cumulative, rng.random(1_000_000)), words - 1)]
            for line in np.array_split(drawn, 1000):
                size += file.write(" ".join(line) + "\n")


def measure(gigabytes: float, words: int, dim: int, threads: int) -> dict[str, object]:
    """Train once; return the row of the report."""
    with tempfile.TemporaryDirectory() as folder:
        corpus = Path(folder) / "corpus.txt"
        write_corpus(corpus, gigabytes, words)
        with corpus.open() as file:
            corpus.with_name("small.txt").write_text("".join(next(file) for _ in range(20)))
        done = subprocess.run(
            [sys.executable, "-c", _CHILD, str(corpus), str(Path(folder) / "v.bin"), str(dim), str(threads)],
            check=True, capture_output=True, text=True,
        )  # fmt: skip
        size = corpus.stat().st_size
    found = json.loads(done.stdout)
    vocabulary = found["words"] * (len(str(words)) + 1 + 8 + 8)
    floor = 2 * found["words"] * dim * 4 + vocabulary
    above = found["after"] - found["before"]
    return {
        "case": f"cbow, {size / 1e9:.2f} GB corpus, {found['words']:,} words, d {dim}",
        "ours": above / 1e6,
        "peer": floor / 1e6,
        "peer_name": "two matrices plus vocabulary",
        "unit": "MB",
        "ratio": floor / above,
        "quality": {
            "peak over floor": above / floor,
            "corpus words": found["corpus_words"],
            "seconds": found["seconds"],
        },
    }


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--gigabytes", type=float, default=1.0)
    parser.add_argument("--words", type=int, default=200_000)
    parser.add_argument("--dim", type=int, default=300)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()
    began = time.time()
    row = measure(args.gigabytes, args.words, args.dim, args.threads)
    report = {
        "name": "memory", "machine": devices.describe(), "threads": args.threads, "results": [row]
    }  # fmt: skip
    if args.json:
        print(json.dumps(report, indent=2))
    else:
        print(
            f"{row['case']}: {row['ours']:.0f} MB above imports, {row['peer']:.0f} MB needed: "
            f"{row['quality']['peak over floor']:.2f} times ({time.time() - began:.0f} s)"
        )  # type: ignore[index]


if __name__ == "__main__":
    main()
