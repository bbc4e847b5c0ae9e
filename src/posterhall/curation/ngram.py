"""N-gram language models with modified Kneser-Ney smoothing, and the perplexity of texts under them.

    model = NGramModel.train(texts, order=5)
    model.perplexity(more_texts)           # (n,) float64
    model.save("reference.npz")

What is well said in the language of the texts trained on has a low perplexity. So has boilerplate:
a band (25 to 75 %) may serve better than the lowest share. Training sorts packed n-grams in memory, about
150 bytes a running word; see `_kneser_ney` for the formulas.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from posterhall.curation import _ngram_files as files
from posterhall.curation import _ngram_kernels as kernels
from posterhall.curation._kneser_ney import Trie, estimate
from posterhall.curation._vocabulary import Words, pruned
from posterhall.errors import DataError, UsageError

_UNITS = ("words", "whitespace")
_PIECES = "pieces:"
Texts = Iterable[str] | Iterable[Any]
"""Texts: strings, or Arrow arrays of strings."""

MIN_WORDS = 5
"""Fewer words than this say nothing: such a text has no perplexity."""

_AT_ONCE = 1 << 23


@dataclass(frozen=True)
class NGramModel:
    """A trained model; make one with `train`, `load` or `read_arpa`.

    Attributes:
        trie: the n-grams and their probabilities.
        words: the vocabulary.
        unit: how text is cut. "words": runs of letters in lower case, runs of digits as the word 0, every
            other character by itself, and so the letters of scripts without spaces (Chinese, Japanese,
            Thai and the like). "whitespace": as it stands between white space. "pieces:byte" and
            "pieces:PATH": tokens of a tokeniser (see `posterhall.data.tokenizer.load`), by their numbers.
            In all of them, a line that is not blank is a sentence.
        tokenizer: the tokeniser of pieces, otherwise None.
    """

    trie: Trie
    words: Words = field(repr=False)
    unit: str = "words"
    tokenizer: Any = field(default=None, repr=False)

    @classmethod
    def train(cls, texts: Texts, *, order: int = 5, min_count: int = 1, unit: str = "words") -> NGramModel:
        """Learn from texts.

        Args:
            texts: what a good text is like.
            order: longest n-gram, 1 to 8.
            min_count: rarer words count as the unknown word. It saves memory, but makes the unknown word
                a common one, so that gibberish no longer surprises; with 1, as usual, the unknown word has
                nothing but its share of the uniform distribution.
            unit: how text is cut, see the class.

        Raises:
            DataError: if the texts hold no word that is frequent enough.
            UsageError: for arguments out of range.
        """
        if not 1 <= order <= kernels.LONGEST_ORDER:
            raise UsageError(f"order is {order}; allowed are 1 to {kernels.LONGEST_ORDER}")
        if min_count < 1:
            raise UsageError(f"min_count is {min_count}; it must be at least 1")
        tokenizer = _tokenizer_of(unit)
        words = Words()
        parts = [_cut(words, each, unit, tokenizer, grow=True)[0] for each in _arrays(texts)]
        ids = np.concatenate(parts) if parts else np.zeros(0, np.int32)
        if ids.size == 0:
            raise DataError("the texts to learn from hold no word")
        words, ids = pruned(words, ids, min_count)
        return cls(estimate(ids, words.count, order), words, unit, tokenizer)

    @property
    def order(self) -> int:
        """Longest n-gram."""
        return self.trie.order

    def score(self, texts: Texts) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
        """Natural log-probability of each text, and the number of words it is a sum over.

        The end of each sentence counts as a word. An empty text has 0 and 0.
        """
        sums, counts = [np.zeros(0)], [np.zeros(0, np.int64)]
        for each in _arrays(texts):
            ids, ends = _cut(self.words, each, self.unit, self.tokenizer, grow=False)
            total, many = np.empty(len(ends)), np.empty(len(ends), np.int64)
            kernels.add_up(self._log_probabilities(ids), ends, total, many)
            sums.append(total)
            counts.append(many)
        return np.concatenate(sums), np.concatenate(counts)

    def perplexity(self, texts: Texts, *, min_words: int = MIN_WORDS) -> NDArray[np.float64]:
        """exp(-log-probability / words) of each text: normalised by its length.

        Args:
            texts: (n,) texts.
            min_words: texts with fewer words, ends of sentences included, get NaN.
        """
        return _perplexity(*self.score(texts), min_words)

    def log_probabilities(self, text: str) -> NDArray[np.float64]:
        """Natural log-probability of each word of a text, ends of sentences included."""
        cut = _cut(self.words, pa.array([text]), self.unit, self.tokenizer, grow=False)
        return self._log_probabilities(cut[0])

    def save(self, path: Path | str) -> None:
        """Write the model as .npz (arrays only, no code), or as .arpa for other programs.

        Raises:
            UsageError: for another ending.
        """
        unit = self.unit if self.tokenizer is None else _PIECES + self.tokenizer.digest
        files.save(Path(path), self.trie, self.words.bytes(), unit)

    @classmethod
    def load(cls, path: Path | str, *, unit: str | None = None) -> NGramModel:
        """Read a model that was saved, or any ARPA file (.arpa, .arpa.gz).

        Args:
            path: the file.
            unit: how to cut text for an ARPA file, which does not say; by default at white space. For a
                model of pieces, where their tokeniser is: the file holds only its digest.

        Raises:
            DataError: for what is no such file.
        """
        tokenizer = None if unit is None else _tokenizer_of(unit)
        trie, words, stored = files.load(Path(path))
        if stored is not None and stored.startswith(_PIECES):
            if tokenizer is None or tokenizer.digest != stored.removeprefix(_PIECES):
                which = "a" if tokenizer is None else "another"
                raise DataError(
                    f"{path}: was trained on the pieces of {which} tokeniser; give the unit 'pieces:PATH' "
                    "with the path of that one"
                )
        elif stored is not None and stored not in _UNITS:
            raise DataError(f"{path}: the unit '{stored}' is unknown; written by a later version?")
        elif stored is not None and unit not in (None, stored):
            raise DataError(f"{path}: was trained on the unit '{stored}'; leave out '{unit}'")
        return cls(trie, Words(words), unit or stored or "whitespace", tokenizer)

    def _log_probabilities(self, ids: NDArray[np.int32]) -> NDArray[np.float64]:
        out = np.empty(len(ids))
        t = self.trie
        kernels.log_probabilities(ids, t.order, t.children, t.words, t.probabilities, t.backoffs, out)
        return out


class KenLM:
    """A model in KenLM's own binary form, through the package kenlm: the same `score` and `perplexity`.

    Args:
        path: the file, which KenLM's build_binary wrote.

    Text is cut at white space: bring it into the form that the model was trained on.

    Raises:
        MissingExtra: without the package.
        DataError: if it cannot read the file.
    """

    def __init__(self, path: Path | str) -> None:
        from posterhall.extras import require

        kenlm = require("kenlm", "kenlm", "reading KenLM's binary files")
        try:
            self._model = kenlm.Model(str(path))
        except (OSError, RuntimeError) as error:
            raise DataError(f"{path}: KenLM cannot read it ({str(error).splitlines()[0]})") from None

    def score(self, texts: Texts) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
        """See `NGramModel.score`."""
        sums, counts = [], []
        for each in _arrays(texts):
            for text in each.to_pylist():
                lines = [line.split() for line in text.split("\n") if line.strip()]
                total = sum(self._model.score(" ".join(line), bos=True, eos=True) for line in lines)
                sums.append(total * np.log(10))
                counts.append(sum(len(line) + 1 for line in lines))
        return np.array(sums, np.float64), np.array(counts, np.int64)

    def perplexity(self, texts: Texts, *, min_words: int = MIN_WORDS) -> NDArray[np.float64]:
        """See `NGramModel.perplexity`."""
        return _perplexity(*self.score(texts), min_words)


def open_model(path: Path | str, *, unit: str | None = None) -> NGramModel | KenLM:
    """Open a model by its ending: .npz and .arpa here, anything else with KenLM.

    Args:
        path: the file.
        unit: see `NGramModel.load`; KenLM's files are always cut at white space.
    """
    path = Path(path)
    return NGramModel.load(path, unit=unit) if files.is_ours(path) else KenLM(path)


def _perplexity(sums: NDArray[np.float64], counts: NDArray[np.int64], min_words: int) -> NDArray[np.float64]:
    with np.errstate(invalid="ignore", divide="ignore", over="ignore"):
        found: NDArray[np.float64] = np.exp(-sums / counts)
    found[counts < max(min_words, 1)] = np.nan
    return found


def _arrays(texts: Texts) -> Iterator[Any]:
    """Arrow arrays of a few megabytes."""
    if isinstance(texts, str):
        raise UsageError("one string is not a list of texts; give [text]")
    if isinstance(texts, pa.Array | pa.ChunkedArray):
        yield from (texts.chunks if isinstance(texts, pa.ChunkedArray) else [texts])
        return
    held: list[str] = []
    size = 0
    for each in texts:
        if isinstance(each, pa.Array | pa.ChunkedArray):
            yield each
            continue
        held.append(each)
        size += len(each)
        if size > _AT_ONCE:
            yield pa.array(held, pa.large_string())
            held, size = [], 0
    if held:
        yield pa.array(held, pa.large_string())


def _tokenizer_of(unit: str) -> Any:
    """The tokeniser that a unit names, or None if it names none."""
    if unit in _UNITS:
        return None
    if not unit.startswith(_PIECES) or unit == _PIECES:
        raise UsageError(f"unit is {unit!r}; allowed are words, whitespace, pieces:byte and pieces:PATH")
    from posterhall.data import tokenizer

    return tokenizer.load(unit.removeprefix(_PIECES))


def _cut(
    words: Words, texts: Any, unit: str, tokenizer: Any, *, grow: bool
) -> tuple[NDArray[np.int32], NDArray[np.int64]]:
    """Numbers of the words or pieces of texts, and where each text ends."""
    if tokenizer is None:
        return words.cut(texts, unit, grow=grow)
    lines = [[line for line in text.split("\n") if line.strip()] for text in texts.to_pylist()]
    encoded = iter(tokenizer.encode_batch([line for each in lines for line in each]))
    numbers = ["\n".join(" ".join(map(str, next(encoded).tolist())) for _ in each) for each in lines]
    return words.cut(pa.array(numbers, pa.large_string()), "whitespace", grow=grow)
