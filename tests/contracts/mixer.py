"""`check_mixer`: what every sequence mixer must be, whoever wrote it."""

from __future__ import annotations

import itertools
from typing import get_args

import torch

from posterhall.models.mixers import Growth, Mixer, Placement, State


def check_mixer(mixer: torch.nn.Module, dim: int, *, length: int = 11, tolerance: float = 1e-5) -> None:
    """Hold a mixer to the protocol: its forms agree, it is causal if it says so, rows are independent.

    Args:
        mixer: a mixer of width `dim`, float32, on the CPU.
        dim: D.
        length: tokens to try, >= 6.
        tolerance: of entries whose size is about 1.
    """
    assert isinstance(mixer, torch.nn.Module)
    assert isinstance(mixer, Mixer)
    assert isinstance(mixer.causal, bool)
    assert mixer.growth in get_args(Growth)
    mixer.eval()
    generator = torch.Generator().manual_seed(7)
    x = torch.empty(3, length, dim).normal_(generator=generator)

    def place(tokens: int, past: tuple[int, ...] | None = None, **more: object) -> Placement:
        return Placement(batch=3, tokens=tokens, device=x.device, past=past, **more)  # type: ignore[arg-type]

    def close(a: torch.Tensor, b: torch.Tensor) -> bool:
        return bool((a - b).abs().max() <= tolerance * max(1.0, float(b.abs().max())))

    with torch.no_grad():
        whole = mixer(x, place(length))
        assert whole.shape == x.shape
        assert whole.dtype == x.dtype
        assert torch.isfinite(whole).all()
        alone = mixer(x[1:2], Placement(batch=1, tokens=length, device=x.device))
        assert close(alone[0], whole[1]), "a row must not depend on its neighbours"

        changed = x.clone()
        changed[:, length // 2 :] += 1.0
        early = mixer(changed, place(length))[:, : length // 2]
        if mixer.causal:
            assert close(early, whole[:, : length // 2]), "it says it is causal, and sees what comes later"
        else:
            assert not close(early, whole[:, : length // 2]), "it says it is not causal, and it is"
            return

        state = new_state(mixer, x, length)
        steps = [mixer(x[:, t : t + 1], place(1, (t,) * 3), state) for t in range(length)]
        assert close(torch.cat(steps, 1), whole), "steps must agree with the whole"

        state = new_state(mixer, x, length)
        cuts = (0, 2, 3, length)
        chunks = [mixer(x[:, a:b], place(b - a, (a,) * 3), state) for a, b in itertools.pairwise(cuts)]
        assert close(torch.cat(chunks, 1), whole), "chunks must agree with the whole"

        # Rows of different length: padding after the real tokens leaves no trace.
        state = new_state(mixer, x, length)
        lengths = (4, 1, 3)
        first = mixer(x[:, :4], place(4, (0, 0, 0), valid=lengths), state)
        picked = state.select([2, 0, 1])
        rows = [2, 0, 1]
        rest = torch.stack([x[row, lengths[row] : lengths[row] + 2] for row in rows])
        second = mixer(rest, place(2, tuple(lengths[row] for row in rows)), picked)
        for at, row in enumerate(rows):
            seen = lengths[row]
            assert close(first[row, :seen], whole[row, :seen]), "padding must not show"
            assert close(second[at], whole[row, seen : seen + 2]), "rows must go on from where they were"

        # Rows that come and go: row 1 leaves, rows 0 and 2 of another state come, longer ones.
        state, other = new_state(mixer, x, 4), new_state(mixer, x, length)
        mixer(x[:, :3], place(3, (0,) * 3), state)
        mixer(x[:, :5], place(5, (0,) * 3), other)
        state.keep([0, 2])
        state.join(other, [2, 0])
        state.resize(length)
        rows, past = [0, 2, 2, 0], (3, 3, 5, 5)
        rest = torch.stack([x[row, seen : seen + 1] for row, seen in zip(rows, past, strict=True)])
        step = mixer(rest, Placement(batch=4, tokens=1, device=x.device, past=past), state)
        for at, (row, seen) in enumerate(zip(rows, past, strict=True)):
            assert close(step[at, 0], whole[row, seen]), "rows that joined must go on from where they were"

        # Two documents in a row are as two rows.
        segments = (torch.arange(length) >= 5).long().expand(3, -1)
        packed = mixer(x, place(length, segments=segments))
        assert close(packed[:, :5], mixer(x[:, :5], place(5))), "a later document must not show"
        assert close(packed[:, 5:], mixer(x[:, 5:], place(length - 5))), "an earlier document must not show"

    if mixer.growth == "constant":
        assert memory(new_state(mixer, x, 8)) == memory(new_state(mixer, x, 64))


def new_state(mixer: torch.nn.Module, x: torch.Tensor, length: int) -> State:
    """An empty state for the rows of x."""
    state = mixer.new_state(len(x), length, dtype=x.dtype, device=x.device)  # type: ignore[operator]
    assert isinstance(state, State)
    return state


def memory(state: State) -> int:
    """Bytes of all tensors that a state holds."""
    return sum(each.nbytes for each in vars(state).values() if isinstance(each, torch.Tensor))
