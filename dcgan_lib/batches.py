"""The real images of each training step, on the device: resident there, or fetched from where they are."""

from __future__ import annotations

from concurrent.futures import Future, ThreadPoolExecutor

import torch
from torch import Tensor

from dcgan_lib.data import ImageDataset, to_model_range
from dcgan_lib.seeds import batch_indices

AHEAD = 2
"""Batches fetched before they are asked for, where another device computes meanwhile."""

_MOST_OF_MEMORY = 0.5  # of the device's free memory, for resident images; the rest is for training


class Batches:
    """Batches by step: which images a step sees follows from the arguments and the step alone.

    Args:
        dataset: The images; a tensor in memory, or a store on disk.
        batch_size: Images in a whole batch.
        seed: Seed of the run.
        device: Where the images are wanted.
        share: The rows of every batch that are wanted; the others are for other processes.
    """

    def __init__(self, dataset: ImageDataset, batch_size: int, seed: int, device: torch.device, share: slice) -> None:
        self.device, self.batch_size, self.seed, self.share = device, batch_size, seed, share
        self.images = dataset.images
        self.resident = isinstance(self.images, Tensor) and _fits(self.images, device)
        if self.resident:
            self.images = self.images.to(device)
        # On a CPU that computes, a reading thread made training 9 % slower, reading in between only about 2 %.
        self.ahead = 0 if device.type == "cpu" else AHEAD
        self.pool: ThreadPoolExecutor | None = None
        self.coming: dict[int, Future[Tensor]] = {}

    def real(self, step: int) -> Tensor:
        """The real images of one step in [-1, 1], float32 (n, C, S, S) on the device, channels last."""
        images = self._resident(step) if self.resident else self._fetched(step)
        return to_model_range(images).contiguous(memory_format=torch.channels_last)

    def close(self) -> None:
        """End the thread that fetches."""
        if self.pool is not None:
            self.pool.shutdown(cancel_futures=True)
        self.pool, self.coming = None, {}

    def _indices(self, step: int) -> Tensor:
        return batch_indices(len(self.images), self.batch_size, step, self.seed)[self.share]

    def _resident(self, step: int) -> Tensor:
        return self.images[self._indices(step).to(self.device, non_blocking=True)]

    def _fetched(self, step: int) -> Tensor:
        """Take a batch that a thread has read meanwhile; what failed there is raised here."""
        if not self.ahead:
            return self._read(step)
        if self.pool is None:
            self.pool = ThreadPoolExecutor(1, thread_name_prefix="batches")
        self.coming = {number: future for number, future in self.coming.items() if number >= step}
        for number in range(step, step + 1 + self.ahead):
            if number not in self.coming:
                self.coming[number] = self.pool.submit(self._read, number)
        # A copy from pinned memory goes on while the device computes.
        return self.coming.pop(step).result().to(self.device, non_blocking=True)

    def _read(self, step: int) -> Tensor:
        images = self.images[self._indices(step)]
        return images.pin_memory() if self.device.type == "cuda" else images


def _fits(images: Tensor, device: torch.device) -> bool:
    if device.type != "cuda":
        return True  # the CPU has them already, and Apple's GPUs share the CPU's memory
    free, _ = torch.cuda.mem_get_info(device)
    return images.nbytes <= _MOST_OF_MEMORY * free
