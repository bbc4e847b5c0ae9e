"""Perplexity by slice as a job: models and a text in, perplexities of hits and others and a run out."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from posterhall.config import finite, plain, to_dict
from posterhall.data.documents import documents
from posterhall.data.tokenizer import Tokenizer
from posterhall.errors import DataError
from posterhall.evals.recall import slices
from posterhall.evals.recall.slices import Floats, Ints, Slice
from posterhall.extras import torch
from posterhall.progress import Progress
from posterhall.runs import Run, write_atomic
from posterhall.seeds import generator

KIND = "eval slices"
SCORES = "slices.json"
_LOGITS = 1 << 25  # at once


@dataclass(frozen=True)
class SliceSettings:
    """What determines the slices, beside the models and the texts."""

    context: int = 1024
    """Most tokens of a context, >= 3; documents are cut so, and the first token of each is not predicted."""
    tokens: int | None = None
    """Most tokens of the text, from its beginning; none: all."""
    cap: int | None = None
    """Most occurrences of a pair in the training text, >= 0; none: the paper's 1250 for 10^10 tokens, in
    proportion, at least 10."""
    control: int = 0
    """Hits (at most) that are scored once more without the first occurrence of their pair; 0: none."""
    batch: int = 8
    """Contexts at once, >= 1."""
    seed: int = 0
    """Of the draw of hits for the control."""

    def __post_init__(self) -> None:
        for name, least in (("context", 3), ("tokens", 3), ("cap", 0), ("control", 0), ("batch", 1)):
            value = getattr(self, name)
            if value is not None and value < least:
                raise DataError(f"{name} is {value}; it must be at least {least}")


def evaluate(
    models: Sequence[Path | str],
    corpus: Sequence[Path | str],
    settings: SliceSettings | None = None,
    *,
    train: Sequence[Path | str] = (),
    device: str = "cpu",
    out: Path | None = None,
    quiet: bool = True,
) -> dict[str, Any]:
    """Score a text by one model or more, and tell hits of associative recall from other tokens.

    Args:
        models: checkpoints on one tokenizer; gaps are between the first and each of the others.
        corpus: the text, see `posterhall.data.documents`.
        settings: the cut; None means the defaults.
        train: the text that the models were trained on, or a part of it, whose pairs are counted. Without
            it every repeated pair is a hit.
        device: of the models.
        out: directory of the run; None keeps nothing.
        quiet: no progress on stderr.

    Returns:
        What slices.json holds; see docs/reference/json.md.

    Raises:
        DataError: for models on different tokenizers, a context longer than a model's, no token, or a model
            whose probabilities are not finite.
    """
    settings = settings or SliceSettings()
    from posterhall.data import tokenizer as tokenizers
    from posterhall.models import causal, hub

    places = [hub.locate(each) for each in models]
    found = [tokenizers.load(causal.text_files(place)) for place in places]
    for name, each in zip(models, found, strict=True):
        if each.digest != found[0].digest:
            raise DataError(
                f"{name} has another tokenizer than {models[0]}; perplexities are of tokens, and can only be "
                "compared on the same ones"
            )
    if out is None:
        return _work(models, places, corpus, train, found[0], settings, device, None, quiet)
    inputs = [Path(each) for each in (*corpus, *train)]
    with Run.start(
        out, kind=KIND, config=to_dict(settings), inputs=[*places, *inputs], seeds=[settings.seed]
    ) as run:
        result = _work(models, places, corpus, train, found[0], settings, device, run, quiet)
        text = json.dumps(finite(plain(result)), indent=2, ensure_ascii=False) + "\n"
        write_atomic(run.artifact(SCORES), text)
        run.finish(models=result["models"], hits=result["hits"])
    return result


def contexts(
    paths: Sequence[Path | str], tokenizer: Tokenizer, length: int, limit: int | None
) -> Iterator[Ints]:
    """The documents of a text, cut into contexts of at least 3 tokens, up to a number of tokens in all."""
    left = float("inf") if limit is None else limit
    for document in _encoded(paths, tokenizer):
        for at in range(0, len(document), length):
            context = document[at : at + int(min(length, left))]
            if len(context) >= 3:
                yield context
                left -= len(context)
            if left < 3:
                return


def nll(model: Any, batch: Sequence[Ints]) -> list[Floats]:
    """-log p of every token of contexts but their first, in nats; (T - 1,) each."""
    longest = max(map(len, batch))
    ids = torch.zeros((len(batch), longest), dtype=torch.int64)
    for row, context in enumerate(batch):
        ids[row, : len(context)] = torch.from_numpy(context)
    ids = ids.to(model.device)
    found = []
    with torch.no_grad():
        # Padding is behind the tokens, where a causal model does not look.
        states = model.hidden(ids)
        step = max(1, _LOGITS // model.config.vocab_size)
        for row, context in enumerate(batch):
            parts = []
            for at in range(0, len(context) - 1, step):
                part = slice(at, min(at + step, len(context) - 1))
                chances = torch.log_softmax(model.logits(states[row, part]).float(), dim=-1)
                wanted = ids[row, part.start + 1 : part.stop + 1, None]
                parts.append(-chances.gather(-1, wanted)[:, 0].double().cpu())
            found.append(torch.cat(parts).numpy())
    return found


def without_first(context: Ints, at: int, first: int) -> Ints:
    """The context up to a token, without an earlier pair that ended at `first`."""
    return np.delete(context[: at + 1], [first - 1, first])


def _work(
    models: Sequence[Path | str],
    places: Sequence[Path],
    corpus: Sequence[Path | str],
    train: Sequence[Path | str],
    tokenizer: Tokenizer,
    settings: SliceSettings,
    device: str,
    run: Run | None,
    quiet: bool,
) -> dict[str, Any]:
    from posterhall.models import causal

    cut = list(contexts(corpus, tokenizer, settings.context, settings.tokens))
    if not cut:
        raise DataError(
            f"no context of 3 tokens or more in {', '.join(map(str, corpus))}; give a longer text"
        )
    known = slices.count(_encoded(train, tokenizer)) if train else None
    masks = [slices.hits(context, known, settings.cap)[1:] for context in cut]
    chosen = np.concatenate(masks)
    drawn = _drawn(cut, masks, settings)
    # Contexts of like length together, so that little is padding.
    order = sorted(range(len(cut)), key=lambda i: -len(cut[i]))
    told, parts = [], []
    with Progress(len(models) * len(cut), label="slices", unit="contexts", quiet=quiet) as progress:
        for number, (name, place) in enumerate(zip(models, places, strict=True)):
            model = causal.load(place, device=device).eval()
            if settings.context > model.config.max_length:
                raise DataError(
                    f"a context of {settings.context} tokens for {name}, whose longest is "
                    f"{model.config.max_length}; give a shorter one (--context)"
                )
            losses: list[Floats] = [np.zeros(0)] * len(cut)
            for first in range(0, len(order), settings.batch):
                rows = order[first : first + settings.batch]
                for row, loss in zip(rows, nll(model, [cut[i] for i in rows]), strict=True):
                    losses[row] = loss
                progress.update(number * len(cut) + first + len(rows))
            together = np.concatenate(losses)
            without = int((~np.isfinite(together)).sum())
            if without:
                raise DataError(
                    f"{name} gives {without:,} of {len(together):,} tokens no finite probability; its "
                    "weights are broken, take another checkpoint"
                )
            parts.append(slices.cut(together, chosen))
            everything, inside, outside = parts[-1]
            told.append(
                {
                    "model": str(name),
                    "all": _slice(everything),
                    "hits": _slice(inside),
                    "others": _slice(outside),
                    "control": _control(model, cut, drawn, losses, settings) if drawn else None,
                }
            )
    return {
        "models": told,
        "gaps": [
            _gap(models[0], other, parts[0], theirs)
            for other, theirs in zip(models[1:], parts[1:], strict=True)
        ],
        "hits": float(chosen.mean()),
        "tokens": len(chosen),
        "contexts": len(cut),
        "context": settings.context,
        "train_tokens": known.tokens if known else None,
        "cap": None if known is None else known.cap if settings.cap is None else settings.cap,
        "run": str(run.path) if run else None,
    }


def _encoded(paths: Sequence[Path | str], tokenizer: Tokenizer) -> Iterator[Ints]:
    for document in documents([Path(each) for each in paths]):
        yield np.asarray(tokenizer.encode_batch([document.text])[0], np.int64)


def _drawn(
    cut: Sequence[Ints], masks: Sequence[slices.Mask], settings: SliceSettings
) -> list[tuple[int, int, int]]:
    """Hits for the control (context, place, place of the first occurrence): pairs seen once before, apart."""
    if not settings.control:
        return []
    found = []
    for number, (context, mask) in enumerate(zip(cut, masks, strict=True)):
        first, times = slices.earlier(context)
        places = np.flatnonzero(mask) + 1
        places = places[(times[places] == 1) & (first[places] < places - 1)]
        found += [
            (number, at, place) for at, place in zip(places.tolist(), first[places].tolist(), strict=True)
        ]
    order = generator(settings.seed, "recall", "control").permutation(len(found))[: settings.control]
    return [found[i] for i in sorted(order)]


def _control(
    model: Any,
    cut: Sequence[Ints],
    drawn: Sequence[tuple[int, int, int]],
    losses: Sequence[Floats],
    settings: SliceSettings,
) -> dict[str, Any]:
    """The same hits with and without the first occurrence of their pair."""
    before = [float(losses[number][at - 1]) for number, at, _ in drawn]
    after = []
    for first in range(0, len(drawn), settings.batch):
        batch = [
            without_first(cut[number], at, place)
            for number, at, place in drawn[first : first + settings.batch]
        ]
        after += [float(loss[-1]) for loss in nll(model, batch)]
    return {
        "hits": len(drawn),
        "nll": float(np.mean(before)),
        "nll_without": float(np.mean(after)),
        "worse": float(np.mean(np.array(after) > np.array(before))),
    }


def _slice(part: Slice) -> dict[str, Any]:
    return {"tokens": part.tokens, "perplexity": part.perplexity}


def _gap(
    one: Path | str, other: Path | str, first: Sequence[Slice], second: Sequence[Slice]
) -> dict[str, Any]:
    """Between two models, the one with the higher perplexity as the worse."""
    if first[0].nll >= second[0].nll:
        worse, better, high, low = one, other, first, second
    else:
        worse, better, high, low = other, one, second, first
    share, why = None, None
    try:
        share = slices.gap_share(high, low)
    except DataError as error:
        why = str(error)
    nats = (high[0].nll - low[0].nll) / high[0].tokens
    return {"worse": str(worse), "better": str(better), "nats": nats, "share": share, "why": why}
