"""Every mixer against the contract, and the contract against mixers that break it."""

from __future__ import annotations

import pytest
import torch
from mixer import check_mixer

from posterhall.models import DecoderConfig
from posterhall.models.mixers.attention import Attention


def attention(**shape):
    torch.set_num_threads(1)
    config = DecoderConfig(vocab_size=2, max_length=64, **shape)
    mixer = Attention(config)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in mixer.parameters():
            parameter.normal_(0.0, 0.3, generator=generator)
    return mixer


@pytest.mark.parametrize(
    "shape",
    [{"dim": 24, "heads": 3}, {"dim": 32, "heads": 4, "kv_heads": 2}, {"dim": 8, "heads": 4, "kv_heads": 1}],
)
def test_attention_keeps_it(shape):
    check_mixer(attention(**shape), shape["dim"])


class Average(torch.nn.Module):
    """The mean of what was so far; with a constant state. Small enough to break on purpose."""

    causal, growth = True, "constant"

    def __init__(self, *, fault=None):
        super().__init__()
        self.fault = fault
        if fault == "claims to look ahead":
            self.causal = False

    def new_state(self, batch, max_length, *, dtype, device):
        return Sums(torch.zeros(batch, 1, dtype=dtype), torch.zeros(batch, 1, dtype=dtype))

    def forward(self, x, placement, state=None):
        batch, tokens, _ = x.shape
        if placement.segments is not None and self.fault != "ignores documents":
            seen = placement.mask()[:, 0].to(x.dtype)
        else:
            seen = torch.ones(tokens, tokens, dtype=x.dtype).tril().expand(batch, -1, -1)
        if self.fault == "looks ahead":
            seen = torch.ones_like(seen)
        count = seen.sum(-1, keepdim=True)
        total = seen @ x
        if state is None:
            return total / count
        before = state.total if state.total.shape[-1] == x.shape[-1] else torch.zeros(batch, x.shape[-1])
        out = (total + before[:, None]) / (count + state.count[:, None])
        last = torch.tensor(placement.valid or (tokens,) * batch)
        if self.fault == "remembers padding":
            last = torch.full((batch,), tokens)
        state.total = before + total[torch.arange(batch), last - 1]
        state.count = state.count + last[:, None]
        if self.fault == "forgets":
            state.total = torch.zeros_like(state.total)
        return out


class Sums:
    def __init__(self, total, count):
        self.total, self.count = total, count

    def select(self, rows):
        return Sums(self.total[rows], self.count[rows])

    def join(self, other, rows):
        taken = other.select(rows)
        self.total = torch.cat((self.total, taken.total))
        self.count = torch.cat((self.count, taken.count))

    def keep(self, rows):
        self.total, self.count = self.total[rows], self.count[rows]

    def resize(self, max_length):
        """Takes the same room for any length."""


def test_a_running_mean_keeps_it():
    check_mixer(Average(), 4)


@pytest.mark.parametrize(
    "fault", ["looks ahead", "claims to look ahead", "forgets", "remembers padding", "ignores documents"]
)
def test_the_contract_notices(fault):
    with pytest.raises(AssertionError):
        check_mixer(Average(fault=fault), 4)
