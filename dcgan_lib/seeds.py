"""Where everything random in a data set or a run comes from: seeds, orders and batches that depend on nothing else."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import torch
from torch import Tensor


def shuffled(count: int, seed: int) -> np.ndarray:
    """Return the numbers 0 to count - 1 in a random order fixed by `seed`, int64 (count,).

    It sorts raw bits of the Philox generator, a stream NumPy guarantees; the order of ``Generator.permutation`` may
    change between releases (NumPy enhancement proposal 19).
    """
    return np.argsort(np.random.Philox(key=seed % 2**64).random_raw(count), kind="stable")


def mixed_seed(seed: int, index: int, stream: int = 0) -> int:
    """Return a 63-bit seed for one step or epoch of a run; those of neighbouring indices are independent."""
    return int(np.random.SeedSequence((seed, index, stream)).generate_state(1, np.uint64)[0]) >> 1


def batch_indices(count: int, batch_size: int, step: int, seed: int) -> Tensor:
    """Indices of the images of one training step: the data set is shuffled anew for every pass, and none is left out.

    A batch may begin in one pass and end in the next. It depends on nothing but the arguments.

    Args:
        count: Number of images in the data set.
        batch_size: Number of images in a batch.
        step: Number of the step, from 0.
        seed: Seed of the run.

    Returns:
        int64 (batch_size,).
    """
    first, last = step * batch_size, (step + 1) * batch_size
    parts = []
    for epoch in range(first // count, (last - 1) // count + 1):
        start = epoch * count  # cut before joining: an epoch may be long, and this happens in every step
        parts.append(_epoch_order(count, seed, epoch)[max(first - start, 0) : last - start])
    return torch.cat(parts)


@lru_cache(maxsize=2)
def _epoch_order(count: int, seed: int, epoch: int) -> Tensor:
    return torch.randperm(count, generator=torch.Generator().manual_seed(mixed_seed(seed, epoch, stream=1)))
