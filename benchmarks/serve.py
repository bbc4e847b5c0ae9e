"""The server with 32 clients at once, against one request at a time, and against transformers.

A decoder of random weights, bytes as tokens, greedy, 24 new tokens for each of 64 prompts: a description that
all share, and 20 to 80 characters of their own. All are asked over HTTP (aiohttp, loopback), server
and clients in one process, so that CPU seconds count both.

    one client       the same server, the next request after the last reply
    batch of 1       32 clients, the server limited to one row at a time (--max-batch 1)
    transformers     the same weights in `generate`, in process without HTTP: a prompt at a time, and as
                     static batches of 32, padded on the left
"""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import Sequence
from typing import Any

from benchmarks._harness import Result, Timing, arguments, emit, interleaved

CLIENTS = 32
PROMPTS = 64
TOKENS = 24
LEAD = "Use each of the four numbers once, and basic arithmetic, to make 24. "


def prompts() -> list[str]:
    """What is asked."""
    import numpy as np

    rng = np.random.default_rng(0)
    return [
        LEAD + "".join(chr(97 + each) for each in rng.integers(0, 26, 20 + i % 60)) for i in range(PROMPTS)
    ]


def ask(lm: Any, clients: int) -> list[str]:
    """The texts, by so many clients at once."""
    import aiohttp

    from posterhall.lm.flow import gather
    from posterhall.lm.server.running import running

    async def story() -> list[str]:
        async with running({"model": lm}) as address, aiohttp.ClientSession() as session:

            async def one(prompt: str) -> str:
                body = {"model": "model", "prompt": prompt, "max_tokens": TOKENS, "temperature": 0}
                async with session.post(f"{address}/completions", json=body) as reply:
                    return str((await reply.json())["choices"][0]["text"])

            return await gather(one, prompts(), width=clients)

    return asyncio.run(story())


def echoed(lm: Any) -> float:
    """The largest difference between log-probabilities from the server and from `score`."""
    import aiohttp

    from posterhall.lm.server.running import running

    async def story() -> list[list[float]]:
        async with running({"model": lm}) as address, aiohttp.ClientSession() as session:
            found = []
            for prompt in prompts():
                body = {"model": "model", "prompt": prompt, "max_tokens": 0, "echo": True, "logprobs": 1}
                async with session.post(f"{address}/completions", json=body) as reply:
                    found.append((await reply.json())["choices"][0]["logprobs"]["token_logprobs"])
            return found

    served = asyncio.run(story())
    scored = [lm.score("", [each])[0].logprobs for each in prompts()]
    return max(abs(a - b) for x, y in zip(served, scored, strict=True) for a, b in zip(x, y, strict=True))


def main() -> None:
    """Measure and print."""
    chosen = arguments(__doc__ or "")

    import torch
    import transformers

    from posterhall.data.tokenizer import ByteTokenizer
    from posterhall.lm import LocalLM
    from posterhall.models import Decoder, DecoderConfig, save
    from posterhall.models.generate import generate

    transformers.logging.set_verbosity_error()
    torch.set_num_threads(chosen.threads)
    tokenizer = ByteTokenizer()
    shape = DecoderConfig(vocab_size=tokenizer.vocab_size, dim=256, layers=4, heads=8, init_std=0.1)
    model = Decoder(shape, seed=0)
    with tempfile.TemporaryDirectory() as folder:
        save(model, folder, tokenizer=tokenizer)
        peer = transformers.AutoModelForCausalLM.from_pretrained(folder).eval()
    lm, single = LocalLM(model, tokenizer), LocalLM(model, tokenizer, batch=1)
    rows = [[256, *each.encode()] for each in prompts()]

    def plain(size: int) -> list[str]:
        texts = []
        with torch.no_grad():
            for start in range(0, len(rows), size):
                part = rows[start : start + size]
                width = max(map(len, part))
                ids = torch.tensor([[257] * (width - len(each)) + each for each in part])
                mask = torch.tensor([[0] * (width - len(each)) + [1] * len(each) for each in part])
                made = peer.generate(
                    input_ids=ids, attention_mask=mask, max_new_tokens=TOKENS, do_sample=False,
                    eos_token_id=256, pad_token_id=257,
                )  # fmt: skip
                texts += [tokenizer.decode(each) for each in made[:, width:].tolist()]
        return texts

    sides: dict[str, Any] = {
        "ours": lambda: ask(lm, CLIENTS),
        "one client": lambda: ask(lm, 1),
        "batch of 1": lambda: ask(single, CLIENTS),
        "transformers 1": lambda: plain(1),
        "transformers 32": lambda: plain(32),
    }
    for side in sides.values():
        side()
    times = interleaved(sides, repeats=chosen.repeats)
    greedy = generate(model, rows, max_new_tokens=TOKENS, temperature=0.0, stop_ids=(256,))
    expected = [tokenizer.decode(each.ids) for each in greedy]
    difference = echoed(lm)
    peers = {
        "one client": "the same server, one client",
        "batch of 1": "the same server, --max-batch 1, 32 clients",
        "transformers 1": f"transformers {transformers.__version__}, a prompt at a time, no HTTP",
        "transformers 32": f"transformers {transformers.__version__}, static batches of 32, no HTTP",
    }
    emit(
        "serve",
        chosen.threads,
        [
            compare(times["ours"], times[side], name, expected, difference, parameters=lm.parameters or 0)
            for side, name in peers.items()
        ],
        as_json=chosen.json,
    )


def compare(
    ours: Timing, peer: Timing, name: str, expected: Sequence[str], difference: float, *, parameters: int
) -> Result:
    """Tokens a second of both sides, by wall time."""
    tokens = PROMPTS * TOKENS
    same = sum(a == b for a, b in zip(ours.value, expected, strict=True))
    return Result(
        case=f"{CLIENTS} clients, {PROMPTS} prompts of {TOKENS} tokens, {parameters / 1e6:.1f} M parameters",
        ours=tokens / ours.wall_median,
        peer=tokens / peer.wall_median,
        peer_name=name,
        unit="tokens/s",
        ratio=peer.wall_median / ours.wall_median,
        quality={
            "cpu_ratio": peer.cpu_median / ours.cpu_median,
            "texts_as_model_generate": same / PROMPTS,
            "texts_as_peer": sum(a == b for a, b in zip(ours.value, peer.value, strict=True)) / PROMPTS,
            "largest_difference_of_log_p": difference,
            "runs": len(ours.wall),
        },
    )


if __name__ == "__main__":
    main()
