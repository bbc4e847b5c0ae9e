"""Speculative decoding with a one-layer draft against the same four-layer model alone.

Both are trained here by `posterhall train lm` on the project's documentation (a minute or two; `--models DIR`
keeps them there and uses them again). Measured are tokens a second, one text at a time and eight together, at
temperature 0, where both sides must say the same, and at 0.8; and how the time of a pass grows with the
tokens in it, which is what decides: a model whose pass costs little more for five tokens than for one gains.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from benchmarks._harness import Result, arguments, emit, interleaved

TOKENS, LOOKAHEADS = 96, (2, 4)
PROMPTS = (
    "# How to", "The command ", "Give ", "Options:\n", "A model ", "`posterhall ", "With --json ", "Results ",
)  # fmt: skip
_DOCS = Path(__file__).parents[1] / "docs"
_SHAPES = {
    "target": ["--layers", "4", "--dim", "256", "--steps", "220", "--lr", "1.5e-3"],
    "draft": ["--layers", "1", "--dim", "128", "--steps", "400", "--lr", "2e-3"],
}


def train(folder: Path, threads: int) -> None:
    """The two models, where they are not there yet."""
    for name, shape in _SHAPES.items():
        if not (folder / name / "artifacts" / "model" / "config.json").exists():
            command = [sys.executable, "-m", "posterhall", "train", "lm", str(_DOCS / "how-to")]
            command += [str(_DOCS / "reference"), "-o", str(folder / name), "--context", "256", "--quiet"]
            command += ["--batch", "16", "--threads", str(threads), *shape]
            subprocess.run(command, check=True, stdout=subprocess.DEVNULL)


def options(parser: argparse.ArgumentParser) -> None:
    """Those of this benchmark alone."""
    parser.add_argument("--models", type=Path, metavar="DIR", help="keep the trained models here")


def main() -> None:
    """Train, measure and print."""
    chosen = arguments(__doc__ or "", options)

    import torch

    from posterhall.models import causal
    from posterhall.models.speculative import Draft

    torch.set_num_threads(chosen.threads)
    with tempfile.TemporaryDirectory() as temporary:
        folder = chosen.models or Path(temporary)
        train(folder, chosen.threads)
        target, small = (causal.load(folder / name) for name in _SHAPES)
    cost = pass_costs(target, chosen.repeats)
    results = [
        compare(target, Draft(small, lookahead), rows, temperature, chosen.repeats, cost)
        for temperature in (0.0, 0.8)
        for rows in (1, 8)
        for lookahead in LOOKAHEADS
    ]
    emit("speculative", chosen.threads, results, as_json=chosen.json)


def compare(
    target: Any, draft: Any, rows: int, temperature: float, repeats: int, cost: dict[str, float]
) -> Result:
    """Tokens a second of CPU time with the draft and without."""
    from posterhall.models.generate import generate
    from posterhall.models.speculative import Speculation

    prompts = [[256, *each.encode()] for each in PROMPTS]
    counts = Speculation()

    def say(draft: Any) -> list[list[int]]:
        made = generate(
            target, prompts, max_new_tokens=TOKENS, temperature=temperature, batch=rows, draft=draft,
            counts=counts,
        )  # fmt: skip
        return [each.ids for each in made]

    sides = {"ours": lambda: say(draft), "alone": lambda: say(None)}
    for side in sides.values():
        side()
    times = interleaved(sides, repeats=repeats)
    made = {name: sum(map(len, time.value)) for name, time in times.items()}
    ours, alone = (made[name] / time.cpu_median for name, time in times.items())
    return Result(
        case=f"{rows} at a time, temperature {temperature:g}, {draft.lookahead} drafted",
        ours=ours,
        peer=alone,
        peer_name="the same model without a draft",
        unit="tokens/CPU s",
        ratio=ours / alone,
        quality={
            "acceptance": counts.acceptance,
            "tokens_a_round": 1 + counts.accepted / max(1, counts.rounds),
            "same_text": times["ours"].value == times["alone"].value if temperature == 0 else None,
            "wall_ratio": times["alone"].wall_median
            / times["ours"].wall_median
            * made["ours"]
            / made["alone"],
            **cost,
        },
    )


def pass_costs(target: Any, repeats: int) -> dict[str, float]:
    """CPU seconds of a pass of 5 tokens over those of a pass of 1, after 64 tokens."""
    import torch

    def passes(size: int) -> None:
        with torch.no_grad():
            cache = target.new_cache(1, 128)
            target.hidden(torch.zeros((1, 64), dtype=torch.long), cache=cache)
            for _ in range(100):
                cache.forget([64])
                target.hidden(torch.zeros((1, size), dtype=torch.long), cache=cache)

    times = interleaved({"5": lambda: passes(5), "1": lambda: passes(1)}, repeats=repeats)
    return {"pass_of_5": times["5"].cpu_median / times["1"].cpu_median}


if __name__ == "__main__":
    main()
