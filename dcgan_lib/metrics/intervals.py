"""How sure a score is: intervals over the choice of samples."""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from dcgan_lib.errors import UserError

GROUPS = 10
_STUDENT_9 = 2.262  # 97.5th percentile of Student's t with GROUPS - 1 degrees of freedom
_NORMAL = 1.960  # 97.5th percentile of the normal distribution


@dataclass(frozen=True)
class Score:
    """A number and its 95 % interval over the choice of samples, at this number of them.

    Attributes:
        value: The score.
        low: Lower end of the interval.
        high: Upper end.
        floor: The same score of real images against other real ones, where there is such a thing: what a perfect
            generator would get.
    """

    value: float
    low: float
    high: float
    floor: float | None = None

    def __str__(self) -> str:
        return f"{self.value:.3f} ({self.low:.3f} to {self.high:.3f})"


def jackknife(
    scores: Callable[[Tensor, Tensor], Sequence[float]], fake_count: int, real_count: int, at_least: float = 0.0
) -> list[Score]:
    """Compute scores, and their intervals by leaving out each of ten groups of the samples in turn.

    The bias that a Frechet distance has from its number of samples is not in the interval: it belongs to the score,
    which is why two scores compare only at the same number.

    Args:
        scores: From rows of the generated and rows of the real samples, int64, to one or several numbers.
        fake_count: Number of generated samples, at least 20; they must be in random order.
        real_count: Number of real ones.
        at_least: The smallest value that a score can have; no interval goes below it.

    Raises:
        UserError: If there are too few samples.

    Source:
        Shao and Wu 1989, "A general theory for jackknife variance estimation" (delete-d jackknife).
    """
    if min(fake_count, real_count) < 2 * GROUPS:
        raise UserError(f"{min(fake_count, real_count)} samples are too few for an interval: use {2 * GROUPS} or more")
    rows = [torch.arange(count) for count in (fake_count, real_count)]
    values = list(scores(*rows))
    without = [scores(*(each[each % GROUPS != group] for each in rows)) for group in range(GROUPS)]
    found = []
    for value, parts in zip(values, zip(*without, strict=True), strict=True):
        error = math.sqrt((GROUPS - 1) ** 2 / GROUPS) * statistics.stdev(parts)
        found.append(Score(value, max(at_least, value - _STUDENT_9 * error), value + _STUDENT_9 * error))
    return found


def share_of(count: int, total: int) -> Score:
    """A share of independent trials, with Wilson's interval.

    Args:
        count: Trials that succeeded.
        total: All trials, at least 1.

    Source:
        Wilson 1927, "Probable inference, the law of succession, and statistical inference".
    """
    if not 0 <= count <= total or total < 1:
        raise UserError(f"{count} of {total} is no share")
    value, z = count / total, _NORMAL
    middle = (value + z**2 / (2 * total)) / (1 + z**2 / total)
    half = z / (1 + z**2 / total) * math.sqrt(value * (1 - value) / total + z**2 / (4 * total**2))
    return Score(value, max(0.0, middle - half), min(1.0, middle + half))
