"""Based as layers of a decoder: which is where, and that it learns to recall."""

from __future__ import annotations

import pytest

from posterhall.errors import DataError
from posterhall.models import Decoder, DecoderConfig

torch = pytest.importorskip("torch")
from posterhall.models.mixers.base_conv import BaseConv  # noqa: E402
from posterhall.models.mixers.based import BasedSettings  # noqa: E402
from posterhall.models.mixers.linear_attention import LinearAttention  # noqa: E402
from posterhall.models.mixers.sliding_window import SlidingWindow  # noqa: E402


def decoder(layers, **given):
    torch.set_num_threads(1)
    config = DecoderConfig(
        vocab_size=11, dim=16, layers=layers, heads=2, ffn_dim=0, max_length=64,
        mixers=("based",), mixer_settings={"based": given},
    )  # fmt: skip
    return Decoder(config).eval()


def test_26_layers_stand_as_the_first_of_the_authors_27():
    kinds = [type(block.mixer) for block in decoder(26).blocks]
    assert [i for i, kind in enumerate(kinds) if kind is LinearAttention] == [1, 6, 11, 16, 21]
    assert [i for i, kind in enumerate(kinds) if kind is SlidingWindow] == [2, 7, 12, 17, 22]
    assert set(kinds) == {BaseConv, LinearAttention, SlidingWindow}


def test_a_pattern_of_ones_own():
    kinds = [type(block.mixer) for block in decoder(3, pattern="[window, linear]").blocks]
    assert kinds == [SlidingWindow, LinearAttention, SlidingWindow]


def test_a_prompt_in_pieces_is_the_prompt_at_once():
    model = decoder(5, window=3, feature_dim=4)
    ids = torch.randint(11, (2, 20), generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        whole = model(ids)
        cache = model.new_cache(2, 20)
        parts = [model(ids[:, a:b], cache=cache) for a, b in ((0, 7), (7, 8), (8, 20))]
    assert torch.allclose(torch.cat(parts, 1), whole, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("given", [{"pattern": ()}, {"taps": 0}, {"window": 0}, {"feature_dim": 0}])
def test_settings_out_of_range_are_refused(given):
    with pytest.raises(DataError, match=r"must be|pattern is empty"):
        BasedSettings(**given)
