"""Settings of word-vector training, with the values of the original code as defaults."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from posterhall.errors import DataError

Model = Literal["skipgram", "cbow"]
Loss = Literal["negative", "hierarchical", "hierarchical+negative", "nce", "softmax"]


@dataclass(frozen=True)
class Word2VecSettings:
    """What determines the vectors, beside the corpus.

    Defaults are those of word2vec.c (Mikolov et al. 2013), which suit corpora of millions of words;
    the NeurIPS paper's table for a billion words has dim 300 and subsample 1e-5.

    Raises:
        DataError: for a value outside its range, naming the field.
    """

    model: Model = "skipgram"
    """skipgram: each context word predicts the centre; cbow: their mean does."""
    loss: Loss = "negative"
    """Output layer: negative sampling, hierarchical softmax, both, NCE, or the full softmax."""
    dim: int = 100
    """Length of a vector, >= 1."""
    window: int = 5
    """Largest distance between centre and context, in words, >= 1."""
    shrink_windows: bool = True
    """Draw each window's reach uniformly from 1..window, which weighs near words more."""
    negative: int = 5
    """Noise words a centre; 5-20 for small corpora, 2-5 for large ones (paper, section 2.2)."""
    noise_shared: int | None = None
    """Consecutive centres served by one draw of noise words; None means 1 for skipgram (where the
    contexts of a centre share it already) and 2 for cbow (docs/log.md)."""
    noise_exponent: float = 0.75
    """Noise words are drawn in proportion to count ** noise_exponent (paper, section 2.2)."""
    subsample: float = 1e-3
    """Frequency t above which words are thinned out; 0 keeps everything (paper, section 2.3)."""
    subsample_formula: Literal["code", "paper"] = "code"
    """Probability to keep a word of frequency f: sqrt(t/f) + t/f (word2vec.c) or sqrt(t/f) (eq. 5)."""
    min_count: int = 5
    """Words seen less often are left out of the vocabulary."""
    max_vocabulary: int | None = None
    """Keep only this many of the most frequent words."""
    epochs: int = 5
    """Passes over the corpus, >= 1."""
    alpha: float | None = None
    """Initial learning rate; None means 0.025 for skipgram and 0.05 for cbow."""
    min_alpha_ratio: float = 1e-4
    """The rate falls linearly to this fraction of alpha."""
    initial_range: float = 1.0
    """Input vectors start uniform in ±initial_range / dim. word2vec.c has 0.5, gensim 1, which does a
    little better on small corpora (docs/log.md)."""
    cbow_mean: bool = True
    """CBOW: mean (else sum) of the context vectors."""
    cbow_divide_error: bool = False
    """CBOW: give each context vector the gradient of the mean instead of the whole error.

    The true gradient, but it wants a higher rate: measured worse at the default one.
    """
    max_sentence: int = 1000
    """A sentence is cut after this many surviving words, as in word2vec.c."""
    chunk_words: int = 10_000
    """Words between two readings of the learning rate; also the unit handed to a thread."""
    seed: int = 1
    """Everything drawn (initial vectors, subsampling, windows, noise) follows from it."""

    def __post_init__(self) -> None:
        at_least = {"dim": 1, "window": 1, "negative": 0, "epochs": 1, "min_count": 0, "max_sentence": 2}
        for name, least in at_least.items():
            if getattr(self, name) < least:
                raise DataError(f"{name} is {getattr(self, name)}; it must be at least {least}")
        if self.noise_shared is not None and self.noise_shared < 1:
            raise DataError(f"noise_shared is {self.noise_shared}; it must be at least 1 (or absent)")
        if self.chunk_words < 100:
            raise DataError(f"chunk_words is {self.chunk_words}; it must be at least 100")
        if self.max_vocabulary is not None and self.max_vocabulary < 2:
            raise DataError(f"max_vocabulary is {self.max_vocabulary}; it must be at least 2 (or absent)")
        if not 0 <= self.subsample < 1:
            raise DataError(
                f"subsample is {self.subsample}; it is a frequency, at least 0 and below 1 (0 = off)"
            )
        if not 0 < self.initial_range < float("inf"):
            raise DataError(f"initial_range is {self.initial_range}; it must be above 0")
        if self.alpha is not None and not 0 < self.alpha < float("inf"):
            raise DataError(f"alpha is {self.alpha}; a learning rate is above 0")
        if not 0 <= self.min_alpha_ratio <= 1:
            raise DataError(f"min_alpha_ratio is {self.min_alpha_ratio}; it lies between 0 and 1")
        if self.needs_noise and self.negative < 1:
            raise DataError(
                f"loss '{self.loss}' draws noise words: negative must be at least 1, not {self.negative}"
            )

    @property
    def needs_noise(self) -> bool:
        """Whether the loss draws noise words."""
        return self.loss in ("negative", "hierarchical+negative", "nce")

    @property
    def needs_tree(self) -> bool:
        """Whether the loss walks a Huffman tree."""
        return self.loss in ("hierarchical", "hierarchical+negative")

    @property
    def noise_sharing(self) -> int:
        """Consecutive centres served by one draw of noise words."""
        if self.noise_shared is not None:
            return self.noise_shared
        return 1 if self.model == "skipgram" else 2

    @property
    def initial_alpha(self) -> float:
        """The learning rate at the first word."""
        if self.alpha is not None:
            return self.alpha
        return 0.025 if self.model == "skipgram" else 0.05

    def rate(self, progress: float) -> float:
        """Learning rate after a share of all epochs, 0 <= progress <= 1: linear, with a floor."""
        return self.initial_alpha * max(self.min_alpha_ratio, 1.0 - progress)
