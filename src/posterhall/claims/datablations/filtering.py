"""Cleaning and then repeating what is left, against training on everything once."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from posterhall.claims.base import Claim, claim
from posterhall.claims.figures import Axis, Figure, Panel, Strip
from posterhall.claims.kinds import Paired
from posterhall.claims.regions import Relative
from posterhall.claims.rows import Budget, Row

if TYPE_CHECKING:
    from posterhall.claims.datablations._noise import Pool

_PIECE, _WORDS = 700, 60
"""Characters of a document about, and words of one at least."""
_CLEANED, _ALL, _RANDOM = "cleaned and repeated", "everything once", "a random part, repeated"


@claim(id="clean-then-repeat", paper="datablations", where="§7; Fig. 6; Table 13")
class CleanThenRepeat(Claim):
    """Of text with much noise, cleaning and repeating what is left beats everything once: after as many
    bytes, loss on clean text is lower by more than 1 %.

    Half of the text is clean, a quarter has its words shuffled, a quarter are near copies of clean documents.
    It is cleaned as in the paper and without knowing how much noise there is: duplicates go, then the half
    with the higher perplexity. The loss decides, because held-out text is clean here; the paper's, which is
    as noisy as its training text, rises by filtering, so that only its downstream scores gain. Ours is
    measured beside the loss and decides nothing.
    """

    kind = Paired(metric="val_loss", arms=(_CLEANED, _ALL), margin=Relative(0.01), direction="lower")
    paper_value = (
        "downstream only: perplexity, lowest 25 %, twice 22.2 to 25.3 (C4) and 21.4 to 23.3 (OSCAR); "
        "deduplicated 22.2 to 20.5 and 21.4 to 22.8; no gain at 2.8 B (20.9 to 21.0)"
    )
    refuted_by = "the loss is the same or higher"
    negative_control = "as large a part, drawn at random and repeated, must not beat everything once"
    control_arms = (_RANDOM, _ALL)
    deviates = (
        "byte-level models of 0.03 M to 0.12 M parameters; documentation of Python's standard library with "
        "noise that was put in, against noise as the web has it; near duplicates by MinHash at 0.8, "
        "perplexity by a 5-gram model of other files, lowest half, repeated two to three times"
    )
    scales = {
        "smoke": Budget(
            tokens=65_536, reference=100_000, questions=400, dim=32, layers=2, context=64, batch=8, lr=1e-2,
            held_out=16_000, seconds=4.5,
        ),
        "laptop": Budget(
            tokens=204_800, reference=300_000, questions=2000, dim=64, layers=2, context=64, batch=16,
            lr=6e-3, held_out=30_000, seconds=24.0,
        ),
        "full": Budget(
            tokens=1_073_741_824, reference=200_000_000, questions=20_000, dim=768, layers=12, context=1024,
            batch=256, lr=6e-4, held_out=20_000_000, seconds=12_000.0,
        ),
    }  # fmt: skip
    diverged = {"val_loss": math.log(256)}
    params = {"corpus": None}

    def run(self, budget: Budget, seed: int) -> Iterator[Row]:
        from posterhall.claims.datablations import _text, _train
        from posterhall.seeds import generator

        sizes = [budget.reference, 4 * budget.held_out, 2 * budget.tokens]
        reference, held, texts = _text.draw("prose", self.params["corpus"], sizes, seed)
        held_out, task = _text.stream(held), _train.endings(held, budget.questions, seed)
        pool = noisy(texts, budget.tokens, seed)
        kept = cleaned(pool, reference, seed)
        order = generator(seed, "datablations", "random part").permutation(len(pool.texts)).tolist()
        parts = {_CLEANED: kept, _ALL: list(range(len(pool.texts))), _RANDOM: order[: len(kept)]}
        for arm, chosen in parts.items():
            stream = _text.stream([pool.texts[i] for i in chosen])
            judged = _train.train(stream, held_out, budget, seed, total=budget.tokens)
            yield Row(
                arm,
                seed,
                val_loss=judged.loss,
                downstream=_train.downstream(judged.model, task),
                unique=judged.unique,
                tokens=judged.tokens,
                noise=sum(bool(pool.shuffled[i]) for i in chosen) / len(chosen),
            )

    def figure(self, rows: Sequence[Row]) -> Figure:
        arms = (_CLEANED, _ALL, _RANDOM)
        return Figure(
            Panel(
                Strip.of(rows, "val_loss", arms),
                x=Axis("loss on clean held-out text (nats a byte)"),
                title="decides",
            ),
            Panel(
                Strip.of(rows, "downstream", arms),
                x=Axis("accuracy above chance", percent=True),
                title="beside it",
            ),
            caption="Models trained on the same number of bytes; a dot is a seed.",
        )


def noisy(texts: Sequence[str], size: int, seed: int) -> Pool:
    """A pool of about `size` bytes and not fewer: half clean, a quarter shuffled, a quarter near copies.

    Raises:
        DataError: if the texts do not give so much.
    """
    import numpy as np

    from posterhall.claims.datablations import _noise, _text
    from posterhall.errors import DataError
    from posterhall.seeds import generator

    documents = _noise.distinct(_text.pieces(texts, _PIECE), words=_WORDS)
    order = generator(seed, "datablations", "documents").permutation(len(documents)).tolist()
    sizes = np.cumsum([len(documents[i].encode()) for i in order])
    # A little over, as copies are not of just the mean length.
    clean, shuffled = np.searchsorted(sizes, [0.52 * size, 0.78 * size]).tolist()
    if shuffled >= len(order):
        raise DataError(
            f"{size:,} bytes of noisy text need {0.78 * size:,.0f} of distinct documents of {_WORDS} words; "
            f"there are {sizes[-1] if order else 0:,}. Give more with --set corpus=PATH"
        )
    chosen = [documents[i] for i in order[: shuffled + 1]]
    return _noise.pool(
        chosen[: clean + 1], chosen[clean + 1 :], copies=(clean + 1) // 2, similarity=0.9, seed=seed
    )


def cleaned(pool: Pool, reference: Sequence[str], seed: int) -> list[int]:
    """Numbers of the documents that stay: no near duplicates, of the rest the half of lower perplexity."""
    import numpy as np

    from posterhall.curation import filters
    from posterhall.curation.dedup import MinHash, near_duplicates
    from posterhall.curation.ngram import NGramModel

    unlike = np.flatnonzero(near_duplicates(pool.texts, MinHash(threshold=0.8, seed=seed, threads=1)).keep)
    model = NGramModel.train(reference, order=5)
    scores = {"perplexity": model.perplexity([pool.texts[i] for i in unlike.tolist()])}
    kept: list[int] = unlike[filters.bottom("perplexity", 0.5).fit(scores).kept].tolist()
    return kept
