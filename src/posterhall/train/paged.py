"""Optimisers whose moments need not be in memory, and the memory that a training may take.

QLoRA's paged optimisers (Dettmers et al. 2023, §3) keep moments where the system can move them out when
something else needs the room, so that a long sequence does not end a training. On a GPU that is CUDA's
managed memory, through bitsandbytes. On a CPU it is a file mapped into memory: its pages are written back and
dropped under pressure, and come again when the optimiser gets to them. The numbers are those of torch's
optimisers, which compute them.
"""

from __future__ import annotations

import errno
import os
import tempfile
from pathlib import Path
from typing import Any

from posterhall.errors import DataError, PosterhallError
from posterhall.extras import nn, require, torch
from posterhall.train.settings import TrainSettings

CHUNK = 1 << 20
"""Entries that RMSprop updates at a time: its temporary takes 4 MiB, not as much as the largest matrix."""
_ALIGNED = 64
"""Entries to a multiple of which each parameter's moments begin."""


def page(optimiser: torch.optim.Optimizer, names: tuple[str, ...], folder: Path | None) -> None:
    """Give an optimiser of torch its moments, zeros, in a mapped file before it makes them in memory.

    The file has no name once it is mapped, so that it is gone with the process however that ends.

    Args:
        optimiser: that has made no step; its parameters float32 on the CPU.
        names: the moments that it keeps for a parameter.
        folder: where the file is; made if need be. None: among the system's temporary files.

    Raises:
        DataError: for other parameters, or if there is no room.
    """
    parameters = [each for group in optimiser.param_groups for each in group["params"]]
    for parameter in parameters:
        if parameter.dtype != torch.float32 or hasattr(parameter, "full_tensor"):
            sharded = ", sharded" if hasattr(parameter, "full_tensor") else ""
            raise DataError(
                f"a parameter is {parameter.dtype}{sharded}; moments can be paged (paged=true) for float32 "
                "weights that are whole"
            )
    sizes = [-(-parameter.numel() // _ALIGNED) * _ALIGNED for parameter in parameters]
    flat = _mapped(sum(sizes) * len(names), folder)
    at = 0
    for parameter, size in zip(parameters, sizes, strict=True):
        state = optimiser.state[parameter]
        state["step"] = torch.zeros((), dtype=torch.float32)
        for name in names:
            state[name] = flat[at : at + parameter.numel()].view(parameter.shape)
            at += size


def _mapped(entries: int, folder: Path | None) -> torch.Tensor:
    """float32 zeros in a file without a name."""
    try:
        if folder is not None:
            folder.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(prefix=".pages.", dir=folder)
        try:
            # All of it now: where the disk gets full later, a write into the map would kill the process.
            os.posix_fallocate(handle, 0, max(1, 4 * entries))
            return torch.from_file(name, shared=True, size=entries, dtype=torch.float32)
        finally:
            os.close(handle)
            os.unlink(name)
    except OSError as error:
        hint = ""
        if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            hint = f": {4 * entries:,} bytes are needed there; choose another place with -o, or paged=false"
        raise DataError(
            f"cannot keep the optimiser's pages in {folder or tempfile.gettempdir()} ({error.strerror}){hint}"
        ) from error


def rmsprop(
    groups: list[dict[str, object]], settings: TrainSettings, folder: Path | None
) -> torch.optim.Optimizer:
    """torch's RMSprop, with its mean squares in a file if settings say so."""
    optimiser = RMSprop(groups, lr=settings.lr, alpha=settings.rms_decay, eps=settings.eps, foreach=False)
    if settings.paged:
        page(optimiser, ("square_avg",), folder)
    return optimiser


class RMSprop(torch.optim.RMSprop):
    """torch's RMSprop (without momentum, not centred), a chunk of each parameter at a time."""

    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        """One update with the gradients that are there."""
        del closure
        with torch.no_grad():
            for group in self.param_groups:
                for parameter in group["params"]:
                    if parameter.grad is not None:
                        self._move(parameter, group)

    def _move(self, parameter: torch.Tensor, group: dict[str, Any]) -> None:
        from torch.optim.rmsprop import rmsprop as update

        state = self.state[parameter]
        if not state:
            state["step"] = torch.zeros((), dtype=torch.float32)
            state["square_avg"] = torch.zeros_like(parameter)
        assert parameter.grad is not None  # noqa: S101 - for the type checker
        flat = [
            each.view(-1).split(CHUNK)
            for each in (parameter, parameter.grad.contiguous(), state["square_avg"])
        ]
        for piece, slope, squares in zip(*flat, strict=True):
            update(
                [piece],
                [slope],
                [squares],
                [],
                [],
                [state["step"].clone()],
                foreach=False,
                lr=group["lr"],
                alpha=group["alpha"],
                eps=group["eps"],
                weight_decay=group["weight_decay"],
                momentum=0.0,
                centered=False,
            )
        state["step"] += 1


def on_device(groups: list[dict[str, object]], settings: TrainSettings) -> torch.optim.Optimizer:
    """bitsandbytes' AdamW with moments in CUDA's managed memory."""
    device = next(iter(groups[0]["params"])).device.type  # type: ignore[call-overload]
    if device != "cuda" or settings.optimiser != "adamw":
        raise DataError(
            f"paged is set for {settings.optimiser} on {device}; moments can be paged on a CPU, and AdamW's "
            "on CUDA. Set paged=false, or optimiser=adamw"
        )
    bitsandbytes = require("bitsandbytes", "bench", "a paged optimiser on CUDA")
    made: torch.optim.Optimizer = bitsandbytes.optim.PagedAdamW32bit(
        groups, lr=settings.lr, betas=(settings.beta1, settings.beta2), eps=settings.eps
    )
    return made


def anonymous_bytes() -> int | None:
    """Bytes that this process holds in memory and that are no file's; None if the system does not tell."""
    try:
        for line in Path("/proc/self/status").read_text().splitlines():
            if line.startswith("RssAnon:"):
                return int(line.split()[1]) << 10
    except (OSError, ValueError):
        pass
    return None


class Budget:
    """Watches what a training holds in memory.

    Args:
        settings: whose `memory_budget` is the limit; without it nothing is looked at.
        model: what is trained, before the first step.

    Raises:
        DataError: if gradients and moments cannot fit beside what is there already, or the system does not
            tell what a process holds.
    """

    def __init__(self, settings: TrainSettings, model: nn.Module) -> None:
        self._limit, self._advice = settings.memory_budget, advice(settings)
        if self._limit is None:
            return
        held = anonymous_bytes()
        if held is None:
            raise DataError(
                "memory_budget is set, but this system does not tell what a process holds; leave it out"
            )
        trained = sum(each.numel() * each.element_size() for each in model.parameters() if each.requires_grad)
        moments = 0 if settings.paged else trained * (1 if settings.optimiser == "rmsprop" else 2)
        if held + trained + moments > self._limit:
            raise DataError(
                f"memory_budget is {self._limit:,} bytes; {held:,} are held, and gradients take "
                f"{trained:,} more"
                + (f" and the optimiser {moments:,}" if moments else "")
                + f". {self._advice}"
            )

    def check(self) -> None:
        """Look now.

        Raises:
            PosterhallError: if more is held than the budget.
        """
        if self._limit is None:
            return
        held = anonymous_bytes() or 0
        if held > self._limit:
            raise PosterhallError(
                f"the training holds {held:,} bytes of memory; memory_budget is {self._limit:,}. "
                + self._advice
            )


_OTHERS = (
    "Lower batch (and raise accumulate), set gradient_checkpointing=true, or train an adapter (--lora-rank)"
)
_ADVICE = f"Keep the optimiser's moments in a file: --set paged=true. Or: {_OTHERS[0].lower()}{_OTHERS[1:]}"


def advice(settings: TrainSettings) -> str:
    """What to do where a training does not fit into memory."""
    return _OTHERS if settings.paged else _ADVICE
