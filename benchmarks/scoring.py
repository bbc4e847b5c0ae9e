"""Scoring of 4-option items against the plain way in transformers: every option a sequence of its own.

The same weights on both sides, in float32. The plain way is that of the usual harnesses: context and option
as one row, rows sorted by length and padded in batches, logits at every position. Ours reads a context once
for its options, and what all contexts share once for all items.

    long context     each item has a context of its own of 400 tokens, and four options of 8
    few-shot         all items share 600 tokens of examples, and have 60 of their own; options are one token

lm-evaluation-harness does the plain way, but for one thing: options of one token after an equal context take
one row together, which is a fourth of the second case's rows.
"""

from __future__ import annotations

import tempfile
from typing import Any

from benchmarks._harness import arguments, emit, faster, interleaved

ITEMS = 16
BATCH = 16
"""Rows of the plain way at once."""


def texts(case: str) -> list[tuple[str, list[str]]]:
    """Items of random letters; tokens are bytes."""
    import numpy as np

    rng = np.random.default_rng(0)

    def letters(count: int) -> str:
        return "".join(chr(97 + each) for each in rng.integers(0, 26, count))

    if case == "long context":
        return [(letters(400), [" " + letters(7) for _ in range(4)]) for _ in range(ITEMS)]
    lead = letters(600)
    return [(lead + letters(60), list("ABCD")) for _ in range(ITEMS)]


def main() -> None:
    """Measure and print."""
    chosen = arguments(__doc__ or "")

    import torch
    import transformers

    from posterhall.data.tokenizer import ByteTokenizer
    from posterhall.lm import LocalLM
    from posterhall.models import Decoder, DecoderConfig, save

    transformers.logging.set_verbosity_error()
    torch.set_num_threads(chosen.threads)
    tokenizer = ByteTokenizer()
    shape = DecoderConfig(vocab_size=tokenizer.vocab_size, dim=256, layers=8, heads=8, init_std=0.1)
    model = Decoder(shape, seed=0)
    with tempfile.TemporaryDirectory() as folder:
        save(model, folder, tokenizer=tokenizer)
        peer = transformers.AutoModelForCausalLM.from_pretrained(folder).eval()
    lm = LocalLM(model, tokenizer)

    def ours(items: list[tuple[str, list[str]]]) -> list[float]:
        return [each.total for scored in lm.score_many(items) for each in scored]

    def plain(items: list[tuple[str, list[str]]]) -> list[float]:
        rows = []
        for context, options in items:
            before = [256, *context.encode()]
            rows += [(before, list(option.encode())) for option in options]
        totals = [0.0] * len(rows)
        order = sorted(range(len(rows)), key=lambda i: -len(rows[i][0]) - len(rows[i][1]))
        with torch.no_grad():
            for start in range(0, len(order), BATCH):
                batch = order[start : start + BATCH]
                read = [(rows[i][0] + rows[i][1])[:-1] for i in batch]
                width = max(map(len, read))
                ids = torch.tensor([each + [0] * (width - len(each)) for each in read])
                logprobs = peer(input_ids=ids).logits.log_softmax(-1)
                for row, i in enumerate(batch):
                    first = len(rows[i][0]) - 1
                    places = range(first, first + len(rows[i][1]))
                    totals[i] = sum(
                        logprobs[row, at, label].item() for at, label in zip(places, rows[i][1], strict=True)
                    )
        return totals

    results = []
    for case in ("long context", "few-shot"):
        items = texts(case)
        sides: dict[str, Any] = {
            "ours": lambda items=items: ours(items),
            "plain": lambda items=items: plain(items),
        }
        for side in sides.values():
            side()
        times = interleaved(sides, repeats=chosen.repeats)
        difference = max(abs(a - b) for a, b in zip(times["ours"].value, times["plain"].value, strict=True))
        parameters = sum(each.numel() for each in model.parameters())
        results.append(
            faster(
                f"{case}: {ITEMS} items of 4 options, {parameters / 1e6:.1f} M parameters",
                times["ours"],
                times["plain"],
                f"transformers {transformers.__version__}, a row an option",
                quality={
                    "items_per_second_ours": ITEMS / times["ours"].wall_median,
                    "items_per_second_peer": ITEMS / times["plain"].wall_median,
                    "largest_difference_of_log_p": difference,
                },
            )
        )
    emit("scoring", chosen.threads, results, as_json=chosen.json)


if __name__ == "__main__":
    main()
