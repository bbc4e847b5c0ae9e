"""Windows against softmax attention under a band."""

from __future__ import annotations

import pytest

from posterhall.errors import DataError
from posterhall.models import DecoderConfig

torch = pytest.importorskip("torch")
from posterhall.models.mixers import Placement  # noqa: E402
from posterhall.models.mixers.attention import Attention  # noqa: E402
from posterhall.models.mixers.sliding_window import SlidingWindow, SlidingWindowSettings  # noqa: E402


def pair(window, **shape):
    torch.set_num_threads(1)
    config = DecoderConfig(
        vocab_size=2, **{"dim": 32, "heads": 4, "kv_heads": 2, "init_std": 0.3, "max_length": 256, **shape}
    )
    mixer = SlidingWindow(config, SlidingWindowSettings(window=window)).double()
    mixer.initialise(torch.Generator().manual_seed(0))
    plain = Attention(config).double()
    plain.load_state_dict(mixer.state_dict())
    x = torch.empty(2, 45, 32, dtype=torch.float64).normal_(generator=torch.Generator().manual_seed(1))
    return mixer, plain, x


class Banded(Placement):
    """A placement whose mask sees a window only, for the attention that is compared with."""

    window = 1

    def mask(self):
        along = torch.arange(self.tokens)
        lag = along[:, None] - along
        return ((lag >= 0) & (lag < self.window))[None, None]


@pytest.mark.parametrize("positions", ["rotary", "none"])
@pytest.mark.parametrize("window", [1, 2, 7, 16, 44, 45, 100])
def test_it_is_attention_under_a_band(window, positions):
    mixer, plain, x = pair(window, positions=positions)
    banded = Banded(batch=2, tokens=45, device=x.device)
    banded.window = window
    with torch.no_grad():
        found = mixer(x, Placement(batch=2, tokens=45, device=x.device))
        assert torch.allclose(found, plain(x, banded), rtol=1e-11, atol=1e-12)


def test_a_window_of_one_token_sees_its_own_value_only():
    mixer, _, x = pair(1, kv_heads=4)
    with torch.no_grad():
        values = mixer.qkv(x)[..., 64:]
        assert torch.allclose(mixer(x, Placement(batch=2, tokens=45, device=x.device)), mixer.out(values))


def test_rows_of_different_length_go_on_in_long_chunks():
    mixer, _, x = pair(6)
    with torch.no_grad():
        whole = mixer(x, Placement(batch=2, tokens=45, device=x.device))
        state = mixer.new_state(2, 45, dtype=x.dtype, device=x.device)
        mixer(x[:, :9], Placement(batch=2, tokens=9, device=x.device, past=(0, 0), valid=(9, 4)), state)
        rest = torch.stack((x[0, 9:39], x[1, 4:34]))
        found = mixer(rest, Placement(batch=2, tokens=30, device=x.device, past=(9, 4)), state)
        assert torch.allclose(found[0], whole[0, 9:39], rtol=1e-11)
        assert torch.allclose(found[1], whole[1, 4:34], rtol=1e-11)
        assert state.nbytes == 2 * 6 * 2 * 2 * 8 * 8  # rows, window, keys and values, heads, entries, bytes


def test_no_window_is_refused():
    with pytest.raises(DataError, match="window is 0"):
        SlidingWindowSettings(window=0)
