"""The running average of a generator's weights."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from dcgan_lib.config import TrainingConfig
from dcgan_lib.models import Generator


class WeightAverage:
    """An exponential moving average of G's weights and batch-norm statistics (Yazici et al. 2019).

    With the half-life ``h``, in images, ``average = decay * average + (1 - decay) * weights`` after each step, with
    ``decay = 0.5 ** (batch_size / h)``; ``h`` is at most a twentieth of the images seen so far, so that the first
    weights are soon forgotten. PyTorch's ``AveragedModel`` keeps its count of updates where the host has to wait for
    it; here the step is given, and the host never waits for the device.

    Attributes:
        generator: The averaged generator.
    """

    def __init__(self, generator: Generator, config: TrainingConfig) -> None:
        self.generator = copy.deepcopy(generator).requires_grad_(False)
        self.batch_size, self.half_life = config.batch_size, config.average_half_life

    def update(self, generator: Generator, step: int) -> None:
        """Take the weights after step number ``step``, counted from 1, into the average."""
        half_life = min(self.half_life, 0.05 * self.batch_size * step)
        weight = 1.0 if step == 1 else 1 - 0.5 ** (self.batch_size / half_life)
        averages, values = (_by_kind(network) for network in (self.generator, generator))
        torch._foreach_lerp_(averages[True], values[True], weight)
        torch._foreach_copy_(averages[False], values[False])  # batch norm's count of batches

    def state_dict(self) -> dict[str, Any]:
        """Weights and statistics of the averaged generator."""
        return self.generator.state_dict()

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from what ``state_dict`` returned."""
        self.generator.load_state_dict(state)


def _by_kind(generator: Generator) -> dict[bool, list[Tensor]]:
    """Parameters and buffers, detached: those that are floating-point numbers, and the others."""
    tensors = [tensor.detach() for tensor in generator.state_dict().values()]
    return {kind: [tensor for tensor in tensors if tensor.is_floating_point() == kind] for kind in (True, False)}
