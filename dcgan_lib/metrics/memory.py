"""Does a generator repeat its training images, or itself? Nearest neighbours, copies and a birthday test."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from dcgan_lib.data import ImageDataset
from dcgan_lib.errors import UserError
from dcgan_lib.images import as_uint8
from dcgan_lib.metrics.intervals import Score, chance_share, poisson_limit, share_of

PIECE = 2000  # real images in memory at once, a multiple of what the extractors take at a time
SUSPICIOUS = 0.01  # share of held-out real images that lie as near to a training image as a suspected copy
FEWEST_HELD_OUT = round(1 / SUSPICIOUS)

# Two samples coincide if they are nearer to each other than this part of the way between the two nearest real images.
_SAME = 0.5


class Neighbours(NamedTuple):
    """The nearest real image of each image.

    Attributes:
        indices: int64 (N,), rows of the data set.
        distances: float64 (N,), root-mean-square difference in grey levels, 0 (a copy) to 255.
    """

    indices: Tensor
    distances: Tensor


@dataclass(frozen=True)
class Copies:
    """How near samples are to training images, against real images that were not trained on.

    Attributes:
        samples: Generated images that were compared.
        held_out: Real images that were not trained on, without those that also are training images.
        nearest: The smallest distance of a sample to a training image, in grey levels.
        held_out_nearest: The same of the held-out images.
        limit: The distance below which one in a hundred held-out images lies, in grey levels.
        share: Share of the samples below this limit; about 0.01 for new images. Its interval is over the choice of
            independent samples, at this limit.
        chance: Share that new images would exceed in one case in forty, with the luck of the limit included.
    """

    samples: int
    held_out: int
    nearest: float
    held_out_nearest: float
    limit: float
    share: Score
    chance: float


@dataclass(frozen=True)
class Birthday:
    """How many pairs of samples coincide, and how many different images that suggests.

    Attributes:
        samples: Number of samples, n.
        collisions: Pairs of them, of n (n - 1) / 2, that coincide.
        support: n (n - 1) / 2 over the coincidences. It estimates 1 / sum(p ** 2) over the probabilities p of all
            images: their number if they are equally likely, and less if some are more frequent. None if there are no
            coincidences.
        at_least: Lower end of its one-sided 95 % interval, exact if coincidences are rare (a Poisson distribution).
            Where most samples coincide with others, as in a collapse, pairs depend on each other and it is too close.
    """

    samples: int
    collisions: int
    support: float | None
    at_least: float


def nearest_neighbours(images: Tensor, dataset: ImageDataset) -> Neighbours:
    """Find the real image nearest to each image, pixel by pixel: a copy has distance 0.

    Args:
        images: (N, C, S, S), float in [-1, 1] or uint8.
        dataset: Real images of the same shape.

    Returns:
        Rows of the data set and distances.

    Raises:
        UserError: If the shapes differ or the images are not finite.
    """
    if images.shape[1:] != dataset.images.shape[1:]:
        expected, got = tuple(dataset.images.shape[1:]), tuple(images.shape[1:])
        raise UserError(f"images of {dataset.name!r} have the shape {expected}, not {got}")
    pixels = as_uint8(images).flatten(1)
    best = torch.full((len(pixels),), math.inf)
    indices = torch.zeros(len(pixels), dtype=torch.int64)
    centred = pixels.float() - 127.5  # smaller numbers, smaller rounding errors
    for start in range(0, len(dataset), PIECE):
        block = dataset.images[start : start + PIECE].flatten(1).float() - 127.5
        # |x - r|^2 without |x|^2, which is the same for all r
        distance, nearest = (block.square().sum(dim=1) - 2 * centred @ block.T).min(dim=1)
        closer = distance < best
        best[closer], indices[closer] = distance[closer], nearest[closer] + start
    pairs = zip(pixels, dataset.images[indices].flatten(1), strict=True)
    exact = [(image.double() - other.double()).square().mean().sqrt() for image, other in pairs]
    return Neighbours(indices, torch.stack(exact))


def copies(images: Tensor, dataset: ImageDataset, held_out: Tensor) -> Copies:
    """Compare samples' distances to their nearest training images with those of real images that were held out.

    A generator that has learnt its training images by heart comes nearer to them than new real images do. One that
    also adds some noise, more than the limit, is not found.

    Args:
        images: Samples, (N, C, S, S), float in [-1, 1] or uint8.
        dataset: The training images.
        held_out: Real images that are not among them, (M, C, S, S), drawn as the training images were. Those that do
            occur among them, pixel by pixel, are left out; M >= 100 must remain.

    Raises:
        UserError: If the shapes differ, the images are not finite, or too few images were held out.
    """
    made, real = (nearest_neighbours(each, dataset).distances for each in (images, held_out))
    real = real[real > 0]  # else one photograph in a hundred that is there twice would hide every copy
    if len(real) < FEWEST_HELD_OUT:
        raise UserError(f"{len(real)} held-out images are too few to tell what is near: use {FEWEST_HELD_OUT} or more")
    rank = round(SUSPICIOUS * len(real))
    limit = real.sort().values[rank - 1].item()
    near = share_of(int((made < limit).sum()), len(made))
    by_chance = chance_share(len(made), len(real), rank)
    return Copies(len(made), len(real), made.min().item(), real.min().item(), limit, near, by_chance)


def birthday(labels: Tensor) -> Birthday:
    """Estimate from coincidences among samples how many different images there are.

    Among 23 people two often share a birthday: about n**2 / 2 pairs meet one of n**2 / 2 days. Here two images coincide
    if every factor does.

    Args:
        labels: What is known about each sample, (N, F), N >= 2.

    Raises:
        UserError: If there are fewer than two rows.

    Source:
        Arora and Zhang 2017, arXiv:1706.08224.
    """
    if labels.ndim != 2 or len(labels) < 2:
        raise UserError(f"a birthday test needs a matrix with 2 rows or more, not {tuple(labels.shape)}")
    counts = labels.unique(dim=0, return_counts=True)[1]
    return _birthday(len(labels), int((counts * (counts - 1) // 2).sum()))


def birthday_by_distance(images: Tensor, real: Tensor) -> Birthday:
    """The birthday test for images of which no factors are known.

    Two samples coincide if they are nearer to each other, pixel by pixel, than half the distance of the two nearest of
    as many different real images. That finds repetitions. By chance, a pair comes as near in the following share of
    comparisons of 1,000 real images with 1,000 others: 2 % for ``cats`` at 32 pixels, 6 % for ``fashion-mnist``, and
    none for photographs of clothes; without the half, it would be 50 % everywhere.

    Args:
        images: Samples, (N, C, S, S), float in [-1, 1] or uint8.
        real: As many different real images.

    Raises:
        UserError: If the shapes differ, there are fewer than two images, or all real ones are the same.
    """
    if images.shape != real.shape or len(images) < 2:
        raise UserError(f"compare as many real images, two or more: {tuple(images.shape)} and {tuple(real.shape)}")
    made, among_real = _pair_distances(images), _pair_distances(real)
    among_real = among_real[among_real > 0]  # some data sets hold an image twice
    if not len(among_real):
        raise UserError("the real images are all the same, so there is no telling which samples coincide")
    limit = _SAME * among_real.min()
    return _birthday(len(images), int((made < limit).sum()))


def _birthday(samples: int, collisions: int) -> Birthday:
    pairs = samples * (samples - 1) / 2
    return Birthday(samples, collisions, pairs / collisions if collisions else None, pairs / poisson_limit(collisions))


def _pair_distances(images: Tensor) -> Tensor:
    """Distances of all pairs, float32 (N (N - 1) / 2,)."""
    return torch.pdist(as_uint8(images).flatten(1).float())
