"""`check_mixer`: what every sequence mixer must be, whoever wrote it."""

from __future__ import annotations

import copy
import itertools
from typing import get_args

import pytest
import torch
from safetensors.torch import load, save

from posterhall.errors import DataError
from posterhall.models.mixers import Growth, Mixer, Placement, State


def check_mixer(mixer: torch.nn.Module, dim: int, *, length: int = 11, tolerance: float = 1e-5) -> None:
    """Hold a mixer to the protocol: its forms agree, it is causal if it says so, rows are independent.

    Args:
        mixer: a mixer of width `dim`, float32, on the CPU.
        dim: D.
        length: tokens to try, >= 6.
        tolerance: of entries whose size is about 1; in float64 it is 1e-11.
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
            with pytest.raises(DataError):  # there is no state in which the future is known
                new_state(mixer, x, length)
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

    few, many = (memory(new_state(mixer, x, tokens)) for tokens in (8, 48))
    assert few == many if mixer.growth == "constant" else few < many
    check_exactly(mixer, x)
    check_kept(mixer, x)


def check_exactly(mixer: torch.nn.Module, x: torch.Tensor) -> None:
    """In float64: every split of a sequence in two agrees with the whole to 1e-11, the float32 forms compute
    the same, and gradients are those of differences."""
    double, wide = copy.deepcopy(mixer).double(), x.double()
    rows, length, _ = x.shape

    def place(tokens: int, past: int | None = None) -> Placement:
        before = None if past is None else (past,) * rows
        return Placement(batch=rows, tokens=tokens, device=x.device, past=before)

    with torch.no_grad():
        whole = double(wide, place(length))
        scale = max(1.0, float(whole.abs().max()))
        assert (mixer(x, place(length)) - whole).abs().max() <= 1e-4 * scale
        for cut in range(1, length):
            state = new_state(double, wide, length)
            parts = [double(wide[:, :cut], place(cut, 0), state)]
            parts.append(double(wide[:, cut:], place(length - cut, cut), state))
            assert (torch.cat(parts, 1) - whole).abs().max() <= 1e-11 * scale, f"split after {cut}"
        padded = torch.cat((wide, torch.full_like(wide[:, :2], 9.0)), 1)[:, ::1].transpose(0, 1).contiguous()
        assert (double(padded.transpose(0, 1), place(length + 2))[:, :length] - whole).abs().max() <= (
            1e-11 * scale
        ), "memory that is not contiguous, and what is behind, must not show"

    weight = torch.empty_like(whole).normal_(generator=torch.Generator().manual_seed(11))
    leaves = {"x": wide.clone().requires_grad_(), **dict(double.named_parameters())}
    (double(leaves["x"], place(length)) * weight).sum().backward()
    for name, leaf in leaves.items():
        if not leaf.requires_grad:
            continue
        assert leaf.grad is not None, f"{name} has no gradient"
        way = torch.empty_like(leaf).normal_(generator=torch.Generator().manual_seed(13))
        losses = []
        with torch.no_grad():
            for sign in (1, -1):
                leaf.add_(way, alpha=sign * 1e-8)
                losses.append(float((double(leaves["x"], place(length)) * weight).sum()))
                leaf.sub_(way, alpha=sign * 1e-8)
        slope, difference = float((leaf.grad * way).sum()), (losses[0] - losses[1]) / 2e-8
        size = max(1.0, float(leaf.grad.norm()))
        assert abs(slope - difference) <= 1e-4 * size, f"gradient of {name}: {slope}, not {difference}"
        if name != "x":
            single = dict(mixer.named_parameters())[name]
            single.grad = None
    if not dict(mixer.named_parameters()):
        return
    (mixer(x, place(length)) * weight.float()).sum().backward()
    for name, single in mixer.named_parameters():
        if single.grad is not None:
            exact = leaves[name].grad
            assert (single.grad - exact).norm() <= 1e-3 * max(1e-3, float(exact.norm())), name
        single.grad = None


def check_kept(mixer: torch.nn.Module, x: torch.Tensor) -> None:
    """A file brings the same mixer back, and half precision goes in and comes out."""
    rows, length, _ = x.shape
    place = Placement(batch=rows, tokens=length, device=x.device)
    other = copy.deepcopy(mixer)
    with torch.no_grad():
        whole = mixer(x, place)
        for parameter in other.parameters():
            parameter.mul_(0.9)
        other.load_state_dict(load(save({n: each.contiguous() for n, each in mixer.state_dict().items()})))
        assert torch.equal(other(x, place), whole)
        half = copy.deepcopy(mixer).bfloat16()
        got = half(x.bfloat16(), place)
        assert got.dtype == torch.bfloat16
        assert (got.float() - whole).abs().max() <= 0.1 * max(1.0, float(whole.abs().max()))


def new_state(mixer: torch.nn.Module, x: torch.Tensor, length: int) -> State:
    """An empty state for the rows of x."""
    state = mixer.new_state(len(x), length, dtype=x.dtype, device=x.device)  # type: ignore[operator]
    assert isinstance(state, State)
    return state


def memory(state: object) -> int:
    """Bytes of all tensors that a state holds, in its parts too."""
    if isinstance(state, torch.Tensor):
        return state.nbytes
    if isinstance(state, list | tuple):
        return sum(map(memory, state))
    return sum(map(memory, vars(state).values())) if hasattr(state, "__dict__") else 0
