"""Filters and deduplication on noise that was put in, so that what they should find is known."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from posterhall.claims.base import Claim, claim
from posterhall.claims.figures import Axis, Figure, Panel, Strip
from posterhall.claims.kinds import Threshold
from posterhall.claims.regions import Region
from posterhall.claims.rows import Budget, Row

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from posterhall.claims.datablations._noise import Pool

_PIECE, _WORDS = 700, 60
"""Characters of a document about, and words of one at least."""
_DIFFERS = (
    "documents of about 700 characters from the documentation of Python's standard library, and noise that "
    "was put in; nothing is trained but the n-gram model"
)


@claim(id="perplexity-finds-shuffled", paper="datablations", where="§7; App. N")
class PerplexityFindsShuffled(Claim):
    """A filter by perplexity finds documents whose words were shuffled: when as many are dropped as there
    are, at least 90 % of those dropped are noise.

    A quarter of the documents is shuffled. As many are dropped as there is noise, so precision and recall are
    the same number. The reference is a 5-gram model of prose from other files.
    """

    kind = Threshold(metric="found", arm="5-grams", at_least=0.9, refuted=Region(0.0, 0.75))
    paper_value = "no number given: documents are kept by KenLM 5-gram perplexity, the lowest 25 % or 50 %"
    refuted_by = "fewer than 75 % of those dropped are noise"
    negative_control = "a model of single words, which does not see their order, must not find them"
    control_arms = ("single words",)
    deviates = f"{_DIFFERS}; the paper trains on Wikipedia and has no noise of known truth"
    scales = {
        "smoke": Budget(documents=400, reference=300_000, seconds=3.0),
        "laptop": Budget(documents=800, reference=700_000, seeds=10, seconds=5.0),
        "full": Budget(documents=200_000, reference=200_000_000, seeds=10, seconds=900.0),
    }
    params = {"corpus": None}

    def run(self, budget: Budget, seed: int) -> Iterator[Row]:
        import numpy as np

        from posterhall.claims.datablations import _noise, _text

        reference, texts = _text.draw(
            "prose", self.params["corpus"], [budget.reference, 2 * _PIECE * budget.documents], seed
        )
        documents = _noise.distinct(_text.pieces(texts, _PIECE), words=_WORDS)[: budget.documents]
        quarter = len(documents) // 4
        pool = _noise.pool(documents[quarter:], documents[:quarter], copies=0, similarity=0.5, seed=seed)
        for arm, order in (("5-grams", 5), ("2-grams", 2), ("single words", 1)):
            dropped, kept_half = by_perplexity(pool, reference, order)
            yield Row(
                arm,
                seed,
                found=float(np.mean(pool.shuffled[dropped])),
                among_kept_half=float(np.mean(pool.shuffled[kept_half])),
                documents=len(pool.texts),
            )

    def figure(self, rows: Sequence[Row]) -> Figure:
        arms = ("5-grams", "2-grams", "single words")
        return Figure(
            Panel(
                Strip.of(rows, "found", arms),
                x=Axis("noise among as many dropped as there is", percent=True, low=0, high=1),
            ),
            Panel(
                Strip.of(rows, "among_kept_half", arms),
                x=Axis("noise in the half with the lowest perplexity", percent=True, low=0),
            ),
            caption="A quarter of all documents has its words shuffled, so a filter that sees nothing is at "
            "25 %. A dot is a seed.",
        )


def by_perplexity(
    pool: Pool, reference: Sequence[str], order: int
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Documents dropped when as many go as there is noise, and those kept when half go."""
    import numpy as np

    from posterhall.curation import filters
    from posterhall.curation.ngram import NGramModel

    scores = {"perplexity": NGramModel.train(reference, order=order).perplexity(pool.texts)}
    clean = 1 - float(np.mean(pool.shuffled))
    kept, half = (filters.bottom("perplexity", share).fit(scores).kept for share in (clean, 0.5))
    return np.flatnonzero(~kept), np.flatnonzero(half)


_NEAR, _FAR = "near copies", "copies of similarity 0.5"
_SPANS = "near copies, by shared passages"


@claim(id="deduplication-finds-copies", paper="datablations", where="§7; App. N")
class DeduplicationFindsCopies(Claim):
    """Deduplication at Jaccard similarity 0.8 finds near copies of 0.8 to 0.9 that were put in: precision and
    recall together (F1) are at least 0.95.

    A third of the documents gets a copy. A pair is found if exactly one of its two documents goes; any other
    document that goes is a mistake. After a first run documents had to have 60 words instead of 40, so that
    every copy that is put in really has a similarity of 0.8; it was supported before and after.
    """

    kind = Threshold(metric="f1", arm=_NEAR, at_least=0.95, refuted=Region(0.0, 0.85))
    paper_value = (
        "no number given: documents that share 100 characters are dropped (talk: 'fuzzy deduplication')"
    )
    refuted_by = "F1 is below 0.85"
    negative_control = "copies of similarity 0.5, which are no duplicates by that measure, must not be found"
    control_arms = (_FAR,)
    deviates = (
        f"{_DIFFERS}; by MinHash, with the paper's own way (shared passages of 100 characters, the first "
        "document of each kept) beside it"
    )
    scales = {
        "smoke": Budget(documents=300, seconds=3.0),
        "laptop": Budget(documents=900, seeds=10, seconds=6.0),
        "full": Budget(documents=200_000, seeds=10, seconds=900.0),
    }
    params = {"corpus": None}

    def run(self, budget: Budget, seed: int) -> Iterator[Row]:
        from posterhall.claims.datablations import _noise, _text
        from posterhall.curation.dedup import MinHash, Substring, near_duplicates, shared_spans

        (texts,) = _text.draw("prose", self.params["corpus"], [2 * _PIECE * budget.documents], seed)
        documents = _noise.distinct(_text.pieces(texts, _PIECE), words=_WORDS)[: budget.documents]
        settings = MinHash(threshold=0.8, seed=seed, threads=1)
        for arm, similarity in ((_NEAR, 0.9), (_FAR, 0.5)):
            pool = _noise.pool(documents, [], copies=len(documents) // 3, similarity=similarity, seed=seed)
            alike = float(pool.similarity[pool.copies].mean())
            keeps = {arm: near_duplicates(pool.texts, settings).keep}
            if arm == _NEAR:
                keeps[_SPANS] = shared_spans(pool.texts, Substring(keep="first", threads=1)).keep
            for name, keep in keeps.items():
                precision, recall, f1 = found(pool, keep)
                yield Row(name, seed, similarity=alike, precision=precision, recall=recall, f1=f1)

    def figure(self, rows: Sequence[Row]) -> Figure:
        arms = (_NEAR, _SPANS, _FAR)
        return Figure(
            *(
                Panel(Strip.of(rows, metric, arms), x=Axis(metric, percent=True, low=0, high=1))
                for metric in ("precision", "recall")
            ),
            caption="Similarity is that of the sets of five words in a row. A dot is a seed.",
        )


def found(pool: Pool, keep: NDArray[np.bool_]) -> tuple[float, float, float]:
    """Precision, recall and F1 of what goes, pair by pair."""
    copies = pool.copies
    bases = pool.source[copies]
    right = int((keep[copies] ^ keep[bases]).sum())
    dropped = int((~keep).sum())
    precision = right / dropped if dropped else 0.0
    recall = right / max(len(copies), 1)
    f1 = 2 * precision * recall / (precision + recall) if right else 0.0
    return precision, recall, f1
