"""Several processes that train one pair of networks together, each on its share of every batch.

``torchrun --nproc-per-node N -m dcgan_lib train ...`` starts the processes; PyTorch's ``DistributedDataParallel``
averages their gradients. Which images and latent vectors step ``t`` learns from follows from the seed, ``t`` and the
batch size, not from the number of processes, so that a run may go on with another number of them.
"""

from __future__ import annotations

import inspect
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import distributed as dist
from torch import nn

from dcgan_lib.errors import UserError


@dataclass(frozen=True)
class World:
    """The processes of a run, seen from one of them.

    Attributes:
        rank: Number of this process, from 0; process 0 alone writes files and prints.
        size: Number of processes.
        control: Process group (gloo) for numbers in main memory, such as losses and requests to stop; None for a single
            process.
    """

    rank: int = 0
    size: int = 1
    control: Any = None

    @property
    def is_first(self) -> bool:
        """Whether this process writes and prints."""
        return self.rank == 0

    def share(self, batch_size: int) -> slice:
        """The rows of a batch that are this process's.

        Raises:
            UserError: If the processes' shares would differ in size.
        """
        if batch_size % self.size:
            raise UserError(
                f"batch_size={batch_size} cannot be shared evenly by {self.size} processes; "
                f"choose a multiple of {self.size}"
            )
        rows = batch_size // self.size
        return slice(self.rank * rows, (self.rank + 1) * rows)

    def maximum(self, here: int) -> int:
        """The largest of the processes' numbers, the same in all of them."""
        if self.size == 1:
            return here
        number = torch.tensor(here)
        dist.all_reduce(number, dist.ReduceOp.MAX, group=self.control)
        return int(number)

    def mean(self, values: Mapping[str, float]) -> dict[str, float]:
        """Averages over the processes, the same in all of them."""
        if self.size == 1:
            return dict(values)
        total = torch.tensor(list(values.values()), dtype=torch.float64)
        dist.all_reduce(total, group=self.control)
        return dict(zip(values, (total / self.size).tolist(), strict=True))

    def wrap(self, network: nn.Module) -> nn.Module:
        """The network as the processes share it: equal weights to begin with, averaged gradients in every step.

        Each process keeps batch-norm statistics of its own share; the first one's are saved.
        """
        if self.size == 1:
            return network
        # Several forward passes precede one backward pass here; buffers that are sent round in between would spoil it.
        parallel = nn.parallel.DistributedDataParallel
        renamed = "forward_sync_buffers" in inspect.signature(parallel).parameters  # since PyTorch 2.14
        return parallel(network, **{"forward_sync_buffers" if renamed else "broadcast_buffers": False})


def current() -> World:
    """The world that :func:`join` entered; one process alone where there is none."""
    return _world


_world = World()


@contextmanager
def join(device: torch.device) -> Iterator[World]:
    """Join the other processes that ``torchrun`` started, if it started any.

    Args:
        device: Where this process computes; its type decides how gradients travel.

    Yields:
        The world, which :func:`current` returns meanwhile.

    Raises:
        UserError: If the processes do not find each other.
    """
    global _world
    size = int(os.environ.get("WORLD_SIZE", 1))
    if size == 1:
        yield _world
        return
    try:
        dist.init_process_group("nccl" if device.type == "cuda" else "gloo")
        _world = World(dist.get_rank(), size, dist.new_group(backend="gloo"))
    except (RuntimeError, ValueError) as error:
        raise UserError(f"the {size} processes did not find each other ({_first_line(error)}); use torchrun") from error
    try:
        yield _world
    finally:
        _world = World()
        dist.destroy_process_group()


@contextmanager
def lost_process(advice: str) -> Iterator[None]:
    """Turn the failure of a collective operation, which means that another process is gone, into one clear line.

    Args:
        advice: What to do then.

    Raises:
        UserError: In the place of PyTorch's own error.
    """
    try:
        yield
    except RuntimeError as error:
        if current().size == 1 or not _is_lost(error):
            raise
        raise UserError(
            f"process {current().rank} of this run lost another one, which ended before; {advice}"
        ) from error


def _is_lost(error: RuntimeError) -> bool:
    # NCCL's errors have a class of their own; gloo's are told by the place in its source that their text begins with.
    return isinstance(error, dist.DistError) or "gloo/" in str(error) or "Connection closed by peer" in str(error)


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]
