"""The running average of a generator's weights."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

import torch
from torch.optim.swa_utils import update_bn

from dcgan_lib.config import TrainingConfig
from dcgan_lib.latent import sample_latent
from dcgan_lib.models import Generator

BATCHES, BATCH_SIZE = 16, 128
SEED = 2**40  # far from the seeds of samples, which readers count up from 0


class WeightAverage:
    """An exponential moving average of G's weights (Yazici et al. 2019), with batch-norm statistics of its own.

    With the half-life ``h``, in images, ``average = decay * average + (1 - decay) * weights`` after each step, with
    ``decay = 0.5 ** (batch_size / h)``; ``h`` is at most a twentieth of the images seen so far, so that the first
    weights are soon forgotten. PyTorch's ``AveragedModel`` keeps its count of updates where the host has to wait for
    it; here the step is given, and the host never waits for the device.

    Averaged weights make other activations than any of the weights that were averaged, so the statistics of batch norm
    are not averaged along: :meth:`measure` measures them, as Izmailov et al. (2018, section 3.2) do.

    Attributes:
        generator: The averaged generator; sample from what :meth:`measure` returns.
    """

    def __init__(self, generator: Generator, config: TrainingConfig) -> None:
        self.generator = copy.deepcopy(generator).requires_grad_(False)
        self.batch_size, self.half_life = config.batch_size, config.average_half_life
        self._measured = False

    def update(self, generator: Generator, step: int) -> None:
        """Take the weights after step number ``step``, counted from 1, into the average."""
        half_life = min(self.half_life, 0.05 * self.batch_size * step)
        weight = 1.0 if step == 1 else 1 - 0.5 ** (self.batch_size / half_life)
        pairs = zip(self.generator.parameters(), generator.parameters(), strict=True)
        averages, values = zip(*((average.detach(), value.detach()) for average, value in pairs), strict=True)
        torch._foreach_lerp_(averages, values, weight)
        self._measured = False

    def measure(self) -> Generator:
        """The averaged generator with the batch-norm statistics of ``BATCHES * BATCH_SIZE`` images of its own.

        The z are the same each time, so the statistics follow from the weights alone; nothing is measured twice.
        """
        if not self._measured:
            device = next(self.generator.parameters()).device
            z = sample_latent(BATCHES * BATCH_SIZE, self.generator.latent_dim, SEED)
            update_bn(z.split(BATCH_SIZE), self.generator, device)
            self._measured = True
        return self.generator

    def state_dict(self) -> dict[str, Any]:
        """Weights and statistics of the averaged generator."""
        return self.generator.state_dict()

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from what ``state_dict`` returned."""
        self.generator.load_state_dict(state)
        self._measured = False
