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
_ONE_SIDED = 0.05  # beyond the limit of a one-sided 95 % interval
_ONE_IN_FORTY = 0.025  # beyond one end of a two-sided one


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


@dataclass(frozen=True)
class Floor:
    """What a score is between real images and other real ones, and where else it may lie between them by chance.

    Attributes:
        value: The mean over the repeats.
        low: Lower end of the range.
        high: Upper end.
    """

    value: float
    low: float
    high: float

    def holds(self, score: float) -> bool:
        """Whether a score is one that real images might have."""
        return self.low <= score <= self.high


def floor_of(repeats: Sequence[float], deviations: float = 4.0) -> Floor:
    """A score's floor and its range, from repeats with real images in the place of generated ones.

    With eight repeats and four deviations, a ninth lies outside in one case in 140, if the score is normally
    distributed (Student's t with 7 degrees of freedom).

    Args:
        repeats: The score of two or more sets of real images, as many in each as will be generated.
        deviations: Half the width of the range, in standard deviations of the repeats.
    """
    if len(repeats) < 2:
        raise UserError("a range needs two repeats or more")
    value, reach = statistics.mean(repeats), deviations * statistics.stdev(repeats)
    return Floor(value, value - reach, value + reach)


def jackknife(
    scores: Callable[[Tensor, Tensor], Sequence[float]], fake_count: int, real_count: int, at_least: float = 0.0
) -> list[Score]:
    """Compute scores, and their intervals by the grouped jackknife: leave out each of ten groups in turn.

    A group is every tenth generated sample together with every tenth real one, so the interval holds the choice of
    both. The bias that a Frechet distance has from its number of samples is not in the interval: it belongs to the
    score, which is why two scores compare only at the same number. The interval is cautious: scores of fresh
    samples spread less than it says.

    Args:
        scores: From rows of the generated and rows of the real samples, int64, to one or several numbers.
        fake_count: Number of generated samples, at least 20; they must be in random order.
        real_count: Number of real ones.
        at_least: The smallest value that a score can have; no interval goes below it.

    Raises:
        UserError: If there are too few samples.

    Source:
        Shao and Wu 1989, "A general theory for jackknife variance estimation".
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

    Samples that repeat each other are not independent: then the interval is too narrow.

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


def poisson_limit(count: int) -> float:
    """The largest mean of a Poisson distribution that fits a count: smaller ones come with 5 % or more.

    That is the upper end of an exact one-sided 95 % interval: 3.00 for 0, 4.74 for 1, 6.30 for 2.

    Args:
        count: What was seen, 0 or more.

    Source:
        Garwood 1936, "Fiducial limits for the Poisson distribution".
    """
    if count < 0:
        raise UserError(f"{count} is no count")
    low, high = float(count), count + 5 * math.sqrt(count) + 5
    shape = torch.tensor(count + 1.0, dtype=torch.float64)
    while high - low > 1e-10 * high:
        mean = (low + high) / 2
        # The regularised upper incomplete gamma function is the probability of `count` or fewer.
        fits = torch.special.gammaincc(shape, torch.tensor(mean, dtype=torch.float64)).item() > _ONE_SIDED
        low, high = (mean, high) if fits else (low, mean)
    return low


def chance_share(samples: int, others: int, rank: int) -> float:
    """How many of some samples lie below the ``rank``-th smallest of other values by chance, as a share.

    All the values are drawn from one distribution, so every order of them is equally likely, and that number has a
    negative hypergeometric distribution: exactly, and whatever the values are. It is wider than a binomial one because
    the limit is itself drawn.

    Args:
        samples: Number of samples, N.
        others: Number of other values, M.
        rank: 1 for the smallest of them, to M.

    Returns:
        The share that is exceeded in one case in forty at most.

    Source:
        Wilks 1942, "Statistical prediction with special reference to the problem of tolerance limits".
    """
    if samples < 1 or not 1 <= rank <= others:
        raise UserError(f"there is no place {rank} among {others} values for {samples} samples")
    below = torch.arange(samples + 1, dtype=torch.float64)
    logs = _log_choose(below + rank - 1, below) + _log_choose(samples - below + others - rank, samples - below)
    chances = (logs - _log_choose(torch.tensor(samples + others).double(), torch.tensor(samples).double())).exp()
    return int((chances.cumsum(dim=0) < 1 - _ONE_IN_FORTY).sum()) / samples


def _log_choose(n: Tensor, k: Tensor) -> Tensor:
    return torch.lgamma(n + 1) - torch.lgamma(k + 1) - torch.lgamma(n - k + 1)
