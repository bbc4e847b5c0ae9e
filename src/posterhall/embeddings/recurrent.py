"""Word vectors of a recurrent language model: the baseline that word2vec was measured against.

Mikolov et al. 2010 ("Recurrent neural network based language model"), as compared in Mikolov et al. 2013a
("Efficient Estimation of Word Representations in Vector Space"), Table 3. The word read at t moves a
state, the state predicts the next word, and the vector of a word is what it adds to the state:

    h_t = tanh(U[w_t] + W h_{t-1} + b)          p(w_{t+1}) = softmax(V h_t + c)

What differs from the RNNLM tool: tanh for the sigmoid, the full softmax for classes of words, Adagrad for
a rate halved by hand, and many places of the text read at once, each with a state of its own, so that the
work is matrix products. All four are in the model's favour; numpy's BLAS does the arithmetic.

    vectors = RecurrentLM(dim=32, alpha=0.1).fit_encoded(vocabulary, encoded, cpu_seconds=10).vectors_
"""

from __future__ import annotations

import math
import time
from dataclasses import dataclass, fields, replace
from typing import Any, Self, cast

import numpy as np
from numpy.typing import NDArray

from posterhall.data.encoded import Encoded
from posterhall.data.vocabulary import Vocabulary
from posterhall.embeddings.vectors import WordVectors
from posterhall.errors import DataError, UsageError, did_you_mean
from posterhall.seeds import generator

Array = NDArray[Any]  # float32 in training; the tests' float64 gives their finite differences


@dataclass(frozen=True)
class RecurrentSettings:
    """What determines the model, beside the corpus and the time it is given.

    Raises:
        DataError: for a value outside its range, naming the field.
    """

    dim: int = 100
    """Length of the state, and so of a word's vector, >= 1."""
    alpha: float = 0.1
    """Adagrad's rate."""
    steps: int = 10
    """Words back in time that an error reaches; the state itself is carried on (truncated BPTT)."""
    streams: int = 32
    """Places of the text read at once; fewer if the text is short."""
    epochs: int = 5
    """Passes over the corpus."""
    seed: int = 1
    """The initial weights follow from it."""

    def __post_init__(self) -> None:
        for name in ("dim", "steps", "streams", "epochs"):
            if getattr(self, name) < 1:
                raise DataError(f"{name} is {getattr(self, name)}; it must be at least 1")
        if not 0 < self.alpha < math.inf:
            raise DataError(f"alpha is {self.alpha}; a learning rate is above 0")


@dataclass
class Weights:
    """The model's parameters, or as many gradients."""

    inputs: Array
    """U, (V, d): the word vectors."""
    recurrent: Array
    """W, (d, d)."""
    bias: Array
    """b, (d,)."""
    outputs: Array
    """V, (V, d)."""
    output_bias: Array
    """c, (V,)."""

    @classmethod
    def initial(cls, settings: RecurrentSettings, counts: NDArray[np.int64]) -> Weights:
        """Small random vectors, a fading memory, and the unigram distribution as first prediction."""
        rng = generator(settings.seed, "recurrent")
        words, d = len(counts), settings.dim

        def normal(*shape: int, scale: float) -> Array:
            return rng.standard_normal(shape, np.float32) * np.float32(scale)

        return cls(
            inputs=normal(words, d, scale=0.1),
            recurrent=normal(d, d, scale=0.5 / math.sqrt(d)),
            bias=np.zeros(d, np.float32),
            outputs=np.zeros((words, d), np.float32),
            output_bias=np.log(np.maximum(counts, 1) / counts.sum()).astype(np.float32),
        )


def loss_and_gradients(
    weights: Weights, tokens: NDArray[np.int32], state: Array
) -> tuple[float, Weights, Array]:
    """Back-propagate through a block of text.

    Args:
        weights: the parameters, unchanged.
        tokens: word ids, (T + 1, B): B streams of T words to read, each predicting the one below it.
        state: h before the first word, (B, d).

    Returns:
        The mean over the T x B predictions of -log p, in nats; its gradients; the state after T words.
    """
    steps, streams = tokens.shape[0] - 1, tokens.shape[1]
    d = state.shape[1]
    states = np.empty((steps + 1, streams, d), state.dtype)
    states[0] = state
    for t in range(steps):
        states[t + 1] = np.tanh(weights.inputs[tokens[t]] + states[t] @ weights.recurrent.T + weights.bias)

    # The largest array by far, (T B, V), goes from logits to probabilities to their gradient in place.
    flat = states[1:].reshape(-1, d)
    error = flat @ weights.outputs.T
    error += weights.output_bias
    error -= error.max(axis=1, keepdims=True)
    target = (np.arange(steps * streams), tokens[1:].reshape(-1))
    loss = -error[target].sum(dtype=np.float64)
    np.exp(error, out=error)
    total = error.sum(axis=1, keepdims=True)
    loss += np.log(total, dtype=np.float64).sum()
    error /= total
    error[target] -= 1
    error /= steps * streams

    d_states = (error @ weights.outputs).reshape(steps, streams, d)
    d_inner = np.empty((steps, streams, d), state.dtype)
    later = np.zeros((streams, d), state.dtype)
    for t in reversed(range(steps)):
        d_inner[t] = (d_states[t] + later) * (1 - states[t + 1] ** 2)
        later = d_inner[t] @ weights.recurrent
    inner = d_inner.reshape(-1, d)
    d_inputs = np.zeros_like(weights.inputs)
    np.add.at(d_inputs, tokens[:-1].reshape(-1), inner)
    gradients = Weights(
        inputs=d_inputs,
        recurrent=inner.T @ states[:-1].reshape(-1, d),
        bias=inner.sum(axis=0),
        outputs=error.T @ flat,
        output_bias=error.sum(axis=0),
    )
    return float(loss) / (steps * streams), gradients, states[-1]


class RecurrentLM:
    """A recurrent language model as an estimator of word vectors.

    Args:
        settings: start from these.
        **changes: fields of `RecurrentSettings`.

    Attributes:
        settings: a frozen `RecurrentSettings`.
        vectors_: after fit, the `WordVectors`: what each word adds to the state.
        weights_: after fit, all parameters.
        history_: after fit, the mean loss of each epoch in nats a word; of the last, the part it got through.
        words_: after fit, words read in all.
    """

    def __init__(self, settings: RecurrentSettings | None = None, **changes: Any) -> None:
        known = [f.name for f in fields(RecurrentSettings)]
        for name in changes:
            if name not in known:
                raise UsageError(f"RecurrentLM has no setting '{name}'.{did_you_mean(name, known)}")
        self.settings = replace(settings or RecurrentSettings(), **changes)
        self._vocabulary: Vocabulary | None = None
        self.weights_: Weights
        self.history_: list[float]
        self.words_: int

    @property
    def vectors_(self) -> WordVectors:
        """The vectors, with the vocabulary's words and counts."""
        if self._vocabulary is None:
            raise UsageError("RecurrentLM has no vectors_ before fit_encoded(vocabulary, encoded)")
        words = [str(item) for item in self._vocabulary.items]
        return WordVectors(words, self.weights_.inputs, self._vocabulary.counts)

    def fit_encoded(self, vocabulary: Vocabulary, encoded: Encoded, *, cpu_seconds: float = math.inf) -> Self:
        """Train on an encoded corpus; its sentences are read on end, as the RNNLM tool does.

        Args:
            vocabulary: of the corpus.
            encoded: the corpus; it is held in memory, 4 bytes a word.
            cpu_seconds: stop when the process has used so many, if that is before all epochs.

        Raises:
            DataError: for a corpus of fewer than two words, or if training diverges.
        """
        began = time.process_time()
        s = self.settings
        text = np.concatenate([encoded.read(i) for i in range(len(encoded))])
        text = text[text >= 0]
        streams = min(s.streams, len(text) // 2)
        if streams < 1:
            raise DataError(f"the corpus has {len(text)} known words; predicting the next one needs two")
        length = len(text) // streams
        tokens = np.ascontiguousarray(text[: length * streams].reshape(streams, length).T)
        weights = Weights.initial(s, vocabulary.counts)
        squares = Weights(**{f.name: np.zeros_like(getattr(weights, f.name)) for f in fields(Weights)})
        self._vocabulary, self.weights_, self.history_, self.words_ = vocabulary, weights, [], 0
        for epoch in range(s.epochs):
            state = np.zeros((streams, s.dim), np.float32)
            losses, read = 0.0, 0
            for first in range(0, length - 1, s.steps):
                block = tokens[first : first + s.steps + 1]
                loss, gradients, state = loss_and_gradients(weights, block, state)
                if not math.isfinite(loss):
                    raise DataError(
                        f"training diverges in epoch {epoch + 1}; the rate is {s.alpha:g}: lower it"
                    )
                _adagrad(weights, squares, gradients, s.alpha)
                count = (block.shape[0] - 1) * streams
                losses, read = losses + loss * count, read + count
                if time.process_time() - began > cpu_seconds:
                    break
            self.history_.append(losses / read)
            self.words_ += read
            if time.process_time() - began > cpu_seconds:
                break
        return self


def _adagrad(weights: Weights, squares: Weights, gradients: Weights, rate: float) -> None:
    """w -= rate g / sqrt(sum of g^2 so far) (Duchi et al. 2011), in place; `gradients` are used up."""
    for f in fields(Weights):
        w, total, g = (cast("Array", getattr(x, f.name)) for x in (weights, squares, gradients))
        total += g * g
        g *= np.float32(rate)
        g /= np.sqrt(total) + np.float32(1e-8)
        w -= g
