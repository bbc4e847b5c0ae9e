"""A small text, a model that learns it in a second, and one thread, so that results are exact."""

from __future__ import annotations

import numpy as np
import pytest


@pytest.fixture(autouse=True)
def _one_thread():
    torch = pytest.importorskip("torch")
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def sentences() -> str:
    """About 20 kB of sentences with little entropy."""
    rng = np.random.default_rng(0)
    towns = ["paris of france", "rome of italy", "cairo of egypt", "madrid of spain"]
    kings = ["old king", "young queen", "wise duke"]
    return "".join(f"the {kings[rng.integers(3)]} lives in {towns[rng.integers(4)]}.\n" for _ in range(500))


@pytest.fixture
def small(sentences):
    """`small()`: (model, rows, held-out rows), the same each time."""
    from posterhall.data.packing import Packed
    from posterhall.data.tokenizer import ByteTokenizer
    from posterhall.data.tokens import from_texts
    from posterhall.models import Decoder, DecoderConfig

    tokens = from_texts([sentences], ByteTokenizer()).ids

    def make(*, context: int = 16, dropout: float = 0.0, seed: int = 0):
        config = DecoderConfig(vocab_size=258, dim=16, layers=2, heads=2, max_length=32, dropout=dropout)
        return (
            Decoder(config, seed=seed),
            Packed(tokens[:16_000], context=context),
            Packed(tokens[16_000:18_000], context=context, shuffle=False, whole=True),
        )

    return make
