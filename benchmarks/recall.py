"""Recall: rows of MQAR against the authors' way of drawing them, and seconds until it is solved.

    python -m benchmarks.recall [--rows 100000] [--without-training] [--json]

The authors draw keys, values and slots of each row by a call of numpy's `choice` (apply_along_axis); written
here anew with the same calls. They are timed on a tenth of the rows. The last case trains
the two models of `posterhall eval recall` as it does by default and tells CPU seconds until it stops, with
the accuracy on test rows beside: there Based is "ours" and attention the peer.
"""

from __future__ import annotations

import argparse
from typing import Any

from benchmarks._harness import Result, arguments, emit, interleaved

SIZES = ((64, 4, 8192), (64, 8, 256), (512, 64, 8192))


def main() -> None:
    """Time generators, then trainings."""

    def add(parser: argparse.ArgumentParser) -> None:
        parser.add_argument("--rows", type=int, default=100_000, help="rows a run draws")
        parser.add_argument("--without-training", action="store_true", help="generators only")

    chosen = arguments(__doc__.splitlines()[0], add)
    results = [_rows(size, chosen.rows, chosen.repeats) for size in SIZES]
    if not chosen.without_training:
        results.append(_solved())
    emit("recall", chosen.threads, results, as_json=chosen.json)


def _rows(size: tuple[int, int, int], rows: int, repeats: int) -> Result:
    import numpy as np

    from posterhall.data.synthetic.recall import Mqar

    length, pairs, vocab = size
    task = Mqar(length=length, pairs=pairs, vocab=vocab)
    few = max(rows // 10, 1)
    task.draw(10, np.random.default_rng(0))  # compiled
    timings = interleaved(
        {
            "ours": lambda: task.draw(rows, np.random.default_rng(1)),
            "theirs": lambda: _authors(task, few, np.random.RandomState(1)),
        },
        repeats=repeats,
    )
    ours, theirs = timings["ours"].cpu_median / rows, timings["theirs"].cpu_median / few
    return Result(
        case=f"MQAR rows, {length} tokens, {pairs} pairs, vocabulary {vocab}",
        ours=1 / ours,
        peer=1 / theirs,
        peer_name=f"numpy {np.__version__}, choice a row",
        unit="rows/CPU s",
        ratio=theirs / ours,
        quality={"seconds_for_rows": timings["ours"].cpu_median, "rows": rows, "runs": repeats},
    )


def _authors(task: Any, rows: int, rng: Any) -> Any:
    """Keys, values, slots, and the sequences made of them."""
    import numpy as np

    def draw(among: Any, **more: Any) -> Any:
        tiled = np.tile(among, (rows, 1))
        return np.apply_along_axis(rng.choice, 1, tiled, replace=False, size=task.pairs, **more)

    half, slots = task.vocab // 2, (task.length - task.context) // 2
    rates = np.arange(1, slots + 1) ** (task.power - 1)
    keys, values = draw(np.arange(1, half)), draw(np.arange(half, task.vocab))
    places = task.context + 2 * draw(np.arange(slots), p=rates / rates.sum())
    ids, labels = np.zeros((rows, task.length), np.int64), np.full((rows, task.length), -100)
    ids[:, 0 : task.context : 2], ids[:, 1 : task.context : 2] = keys, values
    np.put_along_axis(ids, places, keys, axis=1)
    np.put_along_axis(labels, places, values, axis=1)
    return ids, labels


def _solved() -> Result:
    from posterhall.evals.recall.jobs import evaluate

    attention, based = evaluate()["table"]
    return Result(
        case="MQAR solved, 64 tokens, 8 pairs, vocabulary 256, width 64",
        ours=based["seconds"],
        peer=attention["seconds"],
        peer_name="attention, the same decoder",
        unit="CPU s",
        ratio=attention["seconds"] / based["seconds"],
        quality={
            "accuracy_based": based["accuracy"],
            "accuracy_attention": attention["accuracy"],
            "steps_based": based["steps"],
            "steps_attention": attention["steps"],
            "state_bytes_based": based["state_bytes"],
            "state_bytes_attention": attention["state_bytes"],
        },
    )


if __name__ == "__main__":
    main()
