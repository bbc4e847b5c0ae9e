"""Text to keep-list: near-duplicate removal against rensa and datasketch, and shared passages.

    python -m benchmarks.dedup [--megabytes 210] [--json]

The text is English that lies on every machine with Python (reference topics, docstrings, comments), its
sentences put together to documents of 60 to 1,400 words, one word in twelve changed so that they share
little. Beside them stand copies whose true Jaccard similarity with their source, of sets of five words, is
known: .7, .8 and .9, and at most .01 above. All sides cut words at white space and take sets of five words,
with the threshold .7.

rensa gets its documented pipeline (`RMinHashDeduplicator.add_pairs` on token lists, 128 slots), datasketch
its own (`MinHash.update_batch`, `MinHashLSH.query` and `insert`, 128 permutations); the shingles that both
need are made in Python, as their users do. All work on the whole text.

Recall is the share of a level's copies that went; precision the share of what went whose similarity with an
earlier text reaches the threshold, counted on sets of words made by Python.
"""

from __future__ import annotations

import argparse
import os
import random
import sys
from typing import Any

from benchmarks._harness import Result, arguments, emit, faster, interleaved

THRESHOLD = 0.7
LEVELS = (0.7, 0.8, 0.9)
N = 5


def _options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--megabytes", type=float, default=210.0, help="of text, copies included")
    parser.add_argument("--copies", type=float, default=0.06, help="share of the documents that are copies")
    parser.add_argument("--no-peers", action="store_true", help="leave the peers out, to profile our side")


def shingles(text: str) -> list[str]:
    """Five words in a row, joined by spaces, as a list (a set is for the sketch to make)."""
    words = text.split()
    return [" ".join(five) for five in zip(*(words[i:] for i in range(N)), strict=False)] or [" ".join(words)]


def similarity(first: str, second: str) -> float:
    """True Jaccard similarity of the sets of five words."""
    a, b = set(shingles(first)), set(shingles(second))
    return len(a & b) / len(a | b)


def copy_of(text: str, level: float, rng: random.Random) -> str:
    """A copy with words changed one by one, down to just above a similarity."""
    words = text.split()
    source = set(shingles(text))
    for at in rng.sample(range(len(words)), len(words)):
        before, words[at] = words[at], f"{rng.randrange(10**9):x}"
        changed = set(shingles(" ".join(words)))
        value = len(source & changed) / len(source | changed)
        if value < level:
            words[at] = before
            if value > level - 0.02:
                break
    return " ".join(words)


def make(megabytes: float, share: float, seed: int = 0) -> tuple[list[str], dict[int, tuple[int, float]]]:
    """(texts, copies): the place of each copy, and its source's place and level; sources come first."""
    from posterhall.data.python_text import lines

    rng = random.Random(seed)
    sentences = [line.split() for line in lines()]
    vocabulary = sorted({word for words in sentences for word in words})
    originals: list[str] = []
    size = 0.0
    while size < megabytes * 1e6 * (1 - share):
        words: list[str] = []
        wanted = int(rng.lognormvariate(6.0, 0.8))
        while len(words) < min(max(wanted, 60), 1400):
            words += rng.choice(sentences)
        for at in range(rng.randrange(12), len(words), 12):
            words[at] = rng.choice(vocabulary)
        originals.append(" ".join(words))
        size += len(originals[-1])
    texts = list(originals)
    copies: dict[int, tuple[int, float]] = {}
    for source in rng.sample(range(len(originals)), int(len(originals) * share)):
        level = LEVELS[len(copies) % len(LEVELS)]
        copy = copy_of(originals[source], level, rng)
        if level <= similarity(originals[source], copy) <= level + 0.01:
            copies[len(texts)] = (source, level)
            texts.append(copy)
    return texts, copies


def ours(texts: list[str], threads: int) -> Any:
    """What goes, by our pipeline."""
    from posterhall.curation.dedup import MinHash, near_duplicates

    return near_duplicates(texts, MinHash(threshold=THRESHOLD, normalise=False, threads=threads))


def with_rensa(texts: list[str]) -> list[int]:
    """What goes, by rensa's deduplicator."""
    from rensa import RMinHashDeduplicator

    finder = RMinHashDeduplicator(THRESHOLD, 128, True)
    keep: list[bool] = finder.add_pairs((str(i), shingles(text)) for i, text in enumerate(texts))
    return [i for i, kept in enumerate(keep) if not kept]


def with_datasketch(texts: list[str]) -> list[int]:
    """What goes, by datasketch's index."""
    from datasketch import MinHash, MinHashLSH

    index = MinHashLSH(threshold=THRESHOLD, num_perm=128)
    gone = []
    for i, text in enumerate(texts):
        sketch = MinHash(num_perm=128)
        sketch.update_batch([shingle.encode() for shingle in shingles(text)])
        if index.query(sketch):
            gone.append(i)
        else:
            index.insert(i, sketch, check_duplication=False)
    return gone


def quality(texts: list[str], copies: dict[int, tuple[int, float]], gone: list[int]) -> dict[str, float]:
    """Recall by level, and precision. Originals share little; what goes beside copies is looked at."""
    dropped = set(gone)
    found: dict[str, float] = {}
    for level in LEVELS:
        mine = [i for i, (_, each) in copies.items() if each == level]
        found[f"recall_{level}"] = sum(i in dropped for i in mine) / max(len(mine), 1)
    right = sum(i in copies for i in gone)
    found["precision"] = right / max(len(gone), 1)
    return found


def peak_of(texts: list[str], threads: int) -> int:
    """Bytes that finding duplicates takes at its peak, beside the text itself; -1 where it is not known."""
    from posterhall import devices

    devices.release_memory()
    try:
        with open("/proc/self/clear_refs", "w") as file:  # starts the peak anew
            file.write("5")
    except OSError:
        return -1
    before = devices.peak_bytes()
    ours(texts, threads)
    return devices.peak_bytes() - before


def main() -> None:
    """Measure and print."""
    chosen = arguments(__doc__ or "", _options)
    os.environ["RAYON_NUM_THREADS"] = str(chosen.threads)

    texts, copies = make(chosen.megabytes, chosen.copies)
    megabytes = sum(map(len, texts)) / 1e6
    print(f"{len(texts):,} texts of {megabytes:.0f} MB, {len(copies):,} of them copies", file=sys.stderr)
    ours(texts[:100], chosen.threads)  # compiles
    peak = peak_of(texts, chosen.threads)
    sides: dict[str, Any] = {"ours": lambda: ours(texts, chosen.threads)}
    peers = {}
    if not chosen.no_peers:
        from importlib.metadata import version

        peers = {name: f"{name} {version(name)}" for name in ("rensa", "datasketch")}
        sides |= {"rensa": lambda: with_rensa(texts), "datasketch": lambda: with_datasketch(texts)}
    timed = interleaved(sides, repeats=chosen.repeats)
    found = timed["ours"].value
    mine = quality(texts, copies, found.dropped.tolist())
    # Every pair that was found counts by its true similarity.
    true = [similarity(texts[i], texts[found.match[i]]) for i in found.dropped.tolist()]
    mine["precision"] = sum(value >= THRESHOLD for value in true) / max(len(true), 1)
    facts = {
        "megabytes": round(megabytes, 1),
        "documents": len(texts),
        "megabytes_per_cpu_second": megabytes / timed["ours"].cpu_median,
        "peak_megabytes_beside_text": peak / 1e6,
        **mine,
        **{name: found.facts[name] for name in ("bands", "rows", "pairs_compared")},
    }
    results: list[Result] = []
    for name, title in peers.items():
        theirs = quality(texts, copies, timed[name].value)
        facts_here = {**facts, **{f"{key}_peer": value for key, value in theirs.items()}}
        results.append(
            faster(
                f"text to keep-list, {megabytes:.0f} MB",
                timed["ours"],
                timed[name],
                title,
                quality=facts_here,
            )
        )
    if not peers:
        results.append(faster("ours alone", timed["ours"], timed["ours"], "itself", quality=facts))
    emit("dedup", chosen.threads, results, as_json=chosen.json)


if __name__ == "__main__":
    main()
