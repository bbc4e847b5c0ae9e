"""Mamba on a CPU against transformers and mambapy: scan, block, training step, reading, writing, streaming.

The scan is the recurrence with the softplus of its steps, the skip and the gate. Peers are transformers'
token-by-token loop, transformers with mambapy's parallel scan, and transformers compiled with torch's
associative scan (`--compiled`: compiling takes half a minute, and is not counted). Weights are random and the
same on both sides; `quality` says how far results lie apart, relatively to their largest entry.
"""

from __future__ import annotations

import argparse
import functools
import tempfile
from collections.abc import Callable
from typing import Any

from benchmarks._harness import Result, Timing, arguments, emit, faster, interleaved, several

_CASES = ("scan", "block", "step", "prefill", "decode", "quantised", "stream")


def _options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--cases", default=",".join(_CASES), help=f"of: {', '.join(_CASES)}")
    parser.add_argument("--length", type=int, default=512, help="tokens of scan, block and step")
    parser.add_argument("--layers", type=int, default=24, help="of the model of step, prefill and decode")
    parser.add_argument("--tokens", type=int, default=1_000_000, help="of the stream")
    parser.add_argument("--compiled", action="store_true", help="also transformers compiled")


def scan_arguments(length: int, width: int = 1536, size: int = 16) -> tuple[Any, ...]:
    """x, delta, gate, A (N, E), B, C, D, bias of one row."""
    import torch

    generator = torch.Generator().manual_seed(0)

    def normal(*shape: int) -> Any:
        return torch.empty(shape).normal_(generator=generator)

    a = -torch.arange(1.0, size + 1)[:, None].expand(size, width).contiguous()
    sides = (1, length, width), (1, length, size)
    return (
        normal(*sides[0]), normal(*sides[0]), normal(*sides[0]), a, normal(*sides[1]), normal(*sides[1]),
        normal(width), normal(width) - 4.0,
    )  # fmt: skip


def peer_scan(kind: str) -> Callable[..., Any]:
    """transformers' scan, on the same arguments."""
    import torch
    from transformers.models.mamba import modeling_mamba

    plain = modeling_mamba.mamba_selective_scan
    plain = getattr(plain, "__wrapped__", plain)

    def scan(x: Any, delta: Any, gate: Any, a: Any, b: Any, c: Any, d: Any, bias: Any) -> Any:
        turned = (each.transpose(1, 2) for each in (x, delta))
        return plain(
            *turned, a.t(), b.transpose(1, 2), c.transpose(1, 2), d, z=gate.transpose(1, 2), delta_bias=bias,
            delta_softplus=True, use_mambapy=kind == "mambapy", use_associative_scan=kind == "compiled",
        ).transpose(1, 2)  # fmt: skip

    return torch.compile(scan) if kind == "compiled" else scan


def _apart(ours: Any, peer: Any) -> float:
    return float((ours - peer).abs().max() / peer.abs().max())


def _trained(function: Callable[..., Any], given: tuple[Any, ...]) -> Callable[[], Any]:
    """Forward and backward; returns the gradient of the first argument."""
    leaves = [each.clone().requires_grad_() for each in given]

    def run() -> Any:
        for leaf in leaves:
            leaf.grad = None
        function(*leaves).sum().backward()
        return leaves[0].grad

    return run


def scan(chosen: Any, kinds: list[str]) -> list[Result]:
    """The operator, forward, and with gradients."""
    import torch

    from posterhall.models.mixers._scan import selective_scan

    def ours(*given: Any) -> Any:
        return selective_scan(*given)[0]

    given, found = scan_arguments(chosen.length), []
    for form in ("forward", "forward and backward"):
        for kind in kinds:
            both = {"ours": ours, "peer": peer_scan(kind)}
            if form == "forward":
                sides = {side: functools.partial(each, *given) for side, each in both.items()}
            else:
                sides = {side: _trained(each, given) for side, each in both.items()}
            with torch.set_grad_enabled(form != "forward"):
                # The loop's backward pass takes many seconds: it makes a whole tensor of zeros a token.
                slow = kind == "eager" and form != "forward"
                timed = several(**sides, repeats=1 if slow else chosen.repeats, calls=(40, 1 if slow else 4))
            apart = _apart(timed["ours"].value, timed["peer"].value)
            case = f"scan, {form}, 1 x {chosen.length} x 1536 x 16"
            found.append(faster(case, timed["ours"], timed["peer"], _name(kind), quality={"apart": apart}))
    return found


def models(layers: int, kind: str) -> tuple[Any, Any]:
    """The shape of Mamba 130M with random weights: ours and transformers'."""
    from transformers import AutoModelForCausalLM

    from posterhall.models import Decoder, DecoderConfig, hub

    shape = DecoderConfig(vocab_size=50280, dim=768, layers=layers, heads=1, ffn_dim=0, mixers=("mamba",))
    with tempfile.TemporaryDirectory() as directory:
        hub.save(Decoder(shape), directory)
        peer = AutoModelForCausalLM.from_pretrained(directory, use_mambapy=kind == "mambapy").eval()
        return hub.load(directory), peer


def block(chosen: Any, kinds: list[str]) -> list[Result]:
    """One mixer with its projections."""
    import torch

    from posterhall.models.mixers import Placement

    found = []
    for kind in (each for each in kinds if each != "compiled"):
        ours, peer = models(1, kind)
        own, theirs = ours.blocks[0].mixer, peer.backbone.layers[0].mixer
        x = torch.empty(1, chosen.length, 768).normal_(generator=torch.Generator().manual_seed(0))
        place = Placement(1, chosen.length, x.device)
        sides = {"ours": lambda own=own, x=x, p=place: own(x, p), "peer": lambda t=theirs, x=x: t(x)}
        with torch.no_grad():
            timed = several(**sides, repeats=chosen.repeats, calls=(10, 2))
        apart = _apart(timed["ours"].value, timed["peer"].value)
        case = f"block, forward, 1 x {chosen.length} x 768"
        found.append(faster(case, timed["ours"], timed["peer"], _name(kind), quality={"apart": apart}))
    return found


def step(chosen: Any, kinds: list[str]) -> list[Result]:
    """Forward and backward of a whole model on one sequence, with the loss."""
    import torch

    from posterhall.objectives.lm import lm_loss

    kind = "mambapy" if "mambapy" in kinds else kinds[0]
    ours, peer = models(chosen.layers, kind)
    ids = torch.randint(0, 50280, (1, chosen.length + 1), generator=torch.Generator().manual_seed(0))

    def own() -> Any:
        ours.zero_grad()
        loss, _ = lm_loss(ours.hidden(ids[:, :-1]), ours.head_weight(), ids[:, 1:])
        loss.backward()
        return loss.detach()

    def theirs() -> Any:
        peer.zero_grad()
        logits = peer(ids[:, :-1], use_cache=False).logits
        loss = torch.nn.functional.cross_entropy(logits.flatten(0, 1), ids[:, 1:].flatten())
        loss.backward()
        return loss.detach()

    ours.train(), peer.train()
    own(), theirs()
    timed = interleaved({"ours": own, "peer": theirs}, repeats=chosen.repeats)
    apart = _apart(timed["ours"].value, timed["peer"].value)
    case = f"training step, {chosen.layers} x 768, {chosen.length} tokens"
    return [faster(case, timed["ours"], timed["peer"], _name(kind), quality={"apart": apart})]


def prefill(chosen: Any, kinds: list[str]) -> list[Result]:
    """Reading 256 tokens into a state, and the logits of what follows."""
    import torch

    kind = "mambapy" if "mambapy" in kinds else kinds[0]
    ours, peer = models(chosen.layers, "eager")
    peers = {"eager": peer} if kind == "eager" else {"eager": peer, kind: models(chosen.layers, kind)[1]}
    ids = torch.randint(0, 50280, (1, 256), generator=torch.Generator().manual_seed(0))

    def own() -> Any:
        cache = ours.new_cache(1)
        return ours.logits(ours.hidden(ids, cache=cache)[:, -1:])

    found = []
    for name, model in peers.items():
        sides = {"ours": own, "peer": lambda m=model: m(ids, logits_to_keep=1, use_cache=True).logits[:, -1:]}
        with torch.no_grad():
            for side in sides.values():
                side()
            timed = interleaved(sides, repeats=chosen.repeats)
        apart = _apart(timed["ours"].value, timed["peer"].value)
        case = f"prefill, {chosen.layers} x 768, 256 tokens"
        found.append(faster(case, timed["ours"], timed["peer"], _name(name), quality={"apart": apart}))
    return found


def decode(chosen: Any, kinds: list[str]) -> list[Result]:
    """Sixteen tokens, one after the other, the likeliest each: one row and eight; both sides of a type."""
    import torch

    ours, peer = models(chosen.layers, "eager")
    found = []
    with torch.no_grad():
        for rows, kind in ((1, "float32"), (8, "float32"), (1, "bfloat16"), (8, "bfloat16")):
            dtype = getattr(torch, kind)
            ours.to(dtype), peer.to(dtype)
            found.append(_written(ours, peer, rows, kind, chosen))
    return found


def quantised(chosen: Any, kinds: list[str]) -> list[Result]:
    """The same with weights of 4 bits here against float32 there, which is another model."""
    import torch

    from posterhall.models.quantized import Quantization, quantize_layers

    ours, peer = models(chosen.layers, "eager")
    quantize_layers(ours, Quantization("nf4"))
    with torch.no_grad():
        return [_written(ours, peer, 1, "nf4 against float32", chosen)]


def _written(ours: Any, peer: Any, rows: int, what: str, chosen: Any) -> Result:
    import copy

    import torch

    ids = torch.randint(0, 50280, (rows, 8), generator=torch.Generator().manual_seed(0))
    cache = ours.new_cache(rows)
    first = ours.logits(ours.hidden(ids, cache=cache)[:, -1:]).argmax(-1)
    state = peer(ids, use_cache=True).cache

    def own() -> Any:
        mine, token, said = cache.select(range(rows)), first, []
        for _ in range(16):
            token = ours.logits(ours.hidden(token, cache=mine)).argmax(-1)
            said.append(token)
        return torch.cat(said, 1)

    def theirs() -> Any:
        mine, token, said = copy.deepcopy(state), first, []
        for _ in range(16):
            token = peer(token, cache=mine, use_cache=True).logits.argmax(-1)
            said.append(token)
        return torch.cat(said, 1)

    own(), theirs()
    timed = interleaved({"ours": own, "peer": theirs}, repeats=chosen.repeats)
    same = float((timed["ours"].value == timed["peer"].value).float().mean())
    case = f"decode, {what}, {chosen.layers} x 768, {rows} x 16 tokens"
    return faster(case, timed["ours"], timed["peer"], _name("eager"), quality={"same_tokens": same})


def stream(chosen: Any, kinds: list[str]) -> list[Result]:
    """A long text token by token through a small model whose state does not grow; a token of either side."""
    import resource

    import torch
    from transformers import AutoModelForCausalLM

    from posterhall.models import Decoder, DecoderConfig, hub

    shape = DecoderConfig(
        vocab_size=256, dim=64, layers=2, heads=1, ffn_dim=0, mixers=("mamba",), max_length=1 << 20
    )
    with tempfile.TemporaryDirectory() as directory, torch.no_grad():
        hub.save(Decoder(shape), directory)
        ours, peer = hub.load(directory), AutoModelForCausalLM.from_pretrained(directory).eval()
        ids = torch.randint(0, 256, (1, chosen.tokens), generator=torch.Generator().manual_seed(0))
        begun = [cache := ours.new_cache(1, chosen.tokens), peer(ids[:, :1], use_cache=True).cache]
        ours.hidden(ids[:, :1], cache=cache)
        held, peak = cache.states[0].nbytes, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        place = iter(range(1, chosen.tokens))

        def own() -> Any:
            for _ in range((chosen.tokens - 1) // chosen.repeats):
                t = next(place)
                states = ours.hidden(ids[:, t : t + 1], cache=cache)
            return states

        def theirs() -> Any:
            for t in range(1, 201):
                states = peer(ids[:, t : t + 1], cache=begun[1], use_cache=True).logits
            return states

        timed = interleaved({"ours": own, "peer": theirs}, repeats=chosen.repeats)
    counts = {"ours": (chosen.tokens - 1) // chosen.repeats, "peer": 200}
    each = {
        side: Timing(tuple(w / counts[side] for w in t.wall), tuple(c / counts[side] for c in t.cpu), None)
        for side, t in timed.items()
    }
    grown = 1024 * (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - peak)
    quality = {
        "tokens": sum(cache.lengths), "seconds": sum(timed["ours"].wall), "grown_bytes": grown,
        "state_grown_bytes": cache.states[0].nbytes - held,
    }  # fmt: skip
    case = f"stream, step by step, 2 x 64, {chosen.tokens} tokens; a token"
    return [faster(case, each["ours"], each["peer"], _name("eager"), quality=quality)]


def _name(kind: str) -> str:
    from importlib.metadata import version

    name = f"transformers {version('transformers')}"
    return {
        "eager": name,
        "mambapy": f"{name} with mambapy",
        "compiled": f"{name}, compiled",
    }[kind]


def main() -> None:
    """Run the cases."""
    chosen = arguments(str(__doc__).partition("\n")[0], _options)
    import importlib.util

    import torch

    torch.set_num_threads(chosen.threads)
    kinds = ["eager"]
    if importlib.util.find_spec("mambapy") is not None:
        kinds.append("mambapy")
    if chosen.compiled:
        kinds.append("compiled")
    results = []
    cases = {
        "scan": scan, "block": block, "step": step, "prefill": prefill, "decode": decode,
        "quantised": quantised, "stream": stream,
    }  # fmt: skip
    for case in chosen.cases.split(","):
        results += cases[case](chosen, kinds)
    emit("mixers", chosen.threads, results, as_json=chosen.json)


if __name__ == "__main__":
    main()
