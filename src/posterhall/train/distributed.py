"""Several processes on one training: who we are, sums over all, and who gets which rows.

Started by torchrun (or whatever sets RANK, WORLD_SIZE, MASTER_ADDR and MASTER_PORT). They share the run
directory; the first process writes it.
"""

from __future__ import annotations

import contextlib
import gc
import os
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, cast

from posterhall.errors import DataError, PosterhallError
from posterhall.extras import nn, torch


@dataclass(frozen=True)
class World:
    """This process among those that train together."""

    rank: int = 0
    size: int = 1

    @property
    def first(self) -> bool:
        """Whether it is this one that writes."""
        return self.rank == 0

    def share(self, first: int, count: int) -> tuple[int, int]:
        """(first, count) of this process's part of consecutive rows; count may be 0."""
        begin, end = (first + count * rank // self.size for rank in (self.rank, self.rank + 1))
        return begin, end - begin

    def sum(self, values: list[float], device: torch.device) -> list[float]:
        """Each value summed over all processes."""
        if self.size == 1:
            return values
        tensor = torch.tensor(values, dtype=torch.float64, device=device)
        with _told():
            torch.distributed.all_reduce(tensor)
        result: list[float] = tensor.tolist()
        return result

    def wait(self) -> None:
        """Until all processes are here."""
        if self.size > 1:
            with _told():
                torch.distributed.barrier()


@contextlib.contextmanager
def _told() -> Iterator[None]:
    """A lost connection in words; what happened, the other process says."""
    try:
        yield
    except RuntimeError as error:
        raise PosterhallError(f"another process has failed ({str(error).splitlines()[0][:200]})") from None


def rank() -> int:
    """This process's number, 0 if it is alone."""
    return int(os.environ.get("RANK", "0"))


@contextlib.contextmanager
def world() -> Iterator[World]:
    """Join the other processes, if there are any.

    Raises:
        DataError: if the environment does not say where they meet.
    """
    size = int(os.environ.get("WORLD_SIZE", "1"))
    if size <= 1:
        yield World()
        return
    missing = [name for name in ("RANK", "MASTER_ADDR", "MASTER_PORT") if name not in os.environ]
    if missing:
        raise DataError(f"WORLD_SIZE is {size}, but {', '.join(missing)} is not set; start with torchrun")
    ours = not torch.distributed.is_initialized()
    if ours:
        if torch.cuda.is_available():
            torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", "0")))
        torch.distributed.init_process_group("nccl" if torch.cuda.is_available() else "gloo")
    here = World(torch.distributed.get_rank(), size)
    try:
        yield here
        if ours:
            here.wait()  # who leaves first must not take the meeting point along
    finally:
        if ours:
            # Wrappers hold on to the group, in cycles; at the interpreter's end its threads would abort it.
            gc.collect()
            torch.distributed.destroy_process_group()


class Pass(nn.Module):
    """A model and its objective as one module, whose forward is the loss.

    Data-parallel wrappers see only what happens inside `forward`; so the objective, which may call other
    methods of the model and use its weights, belongs inside.
    """

    def __init__(self, model: nn.Module, objective: Any) -> None:
        super().__init__()
        self.model = model
        self._objective = objective

    def forward(self, batch: dict[str, torch.Tensor]) -> Any:
        """(loss, metrics) of a batch."""
        return self._objective(self.model, batch)


def parallel(step: Pass, where: World, *, shard: bool) -> nn.Module:
    """The module to call: `step` itself, in DDP, or sharded in place by FSDP2 (`fully_shard`).

    Both average gradients over the processes. FSDP2 divides weights, gradients and optimiser among the
    processes, block by block for a model with `blocks`.
    """
    if where.size == 1:
        return step
    if not shard:
        return nn.parallel.DistributedDataParallel(step, gradient_as_bucket_view=True)
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard

    marks = {name: dict(vars(each)) for name, each in step.named_parameters()}
    kind = next(step.parameters()).device.type
    mesh = init_device_mesh(kind, (where.size,))
    for block in getattr(step.model, "blocks", ()):
        fully_shard(block, mesh=mesh)
    fully_shard(step, mesh=mesh)
    for name, each in step.named_parameters():  # new ones: they must still say how they are trained
        vars(each).update(marks[name])
    return step


@contextlib.contextmanager
def synchronised(module: nn.Module, wanted: bool) -> Iterator[None]:
    """Whether gradients of passes in this block are exchanged: only those of a step's last pass need be."""
    if isinstance(module, nn.parallel.DistributedDataParallel):
        with contextlib.nullcontext() if wanted else module.no_sync():
            yield
        return
    if hasattr(module, "set_requires_gradient_sync"):
        cast(Any, module).set_requires_gradient_sync(wanted)
    yield


def whole(tensor: torch.Tensor) -> torch.Tensor:
    """A tensor that may be sharded, as a whole; all processes must ask."""
    result: torch.Tensor = cast(Any, tensor).full_tensor() if hasattr(tensor, "full_tensor") else tensor
    return result


def like(source: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    """A whole tensor, sharded as `target` is."""
    if not hasattr(target, "full_tensor"):
        return source
    from torch.distributed.tensor import DTensor, distribute_tensor

    assert isinstance(target, DTensor)  # noqa: S101 - for the type checker
    return distribute_tensor(source.to(target.device), target.device_mesh, target.placements)
