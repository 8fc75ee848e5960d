"""Fidelity and diversity apart: density and coverage of the neighbourhoods of real images."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from dcgan_lib.errors import UserError
from dcgan_lib.metrics.distances import checked

NEIGHBOURS = 5
MOST = 10_000  # samples on a side: memory goes with their square, and these take 2 GB


class DensityCoverage(NamedTuple):
    """How generated samples lie among real ones.

    Attributes:
        density: Mean number of real neighbourhoods that a sample lies in, over its expectation of k: about 1 for
            samples like the real ones, near 0 for samples unlike them; above 1 where they crowd at the densest places.
        coverage: Share of real images with at least one sample in their neighbourhood, in [0, 1].
    """

    density: float
    coverage: float


def density_coverage(fake: Tensor, real: Tensor, neighbours: int = NEIGHBOURS) -> DensityCoverage:
    """Density and coverage.

    The neighbourhood of a real image reaches to its k-th nearest other real image. With as many samples from the same
    distribution as real images, the expected coverage is about 1 - 2**-k, 0.97 for k = 5. With more real images the
    neighbourhoods are smaller, and show finer differences: compare scores at equal numbers only.

    Args:
        fake: Features of generated images, (M, D), M from 1 to 10,000.
        real: Features of real images, (N, D), N from k + 1 to 10,000.
        neighbours: k.

    Raises:
        UserError: If the shapes do not fit, there are too few rows or too many, or a value is NaN or infinite.

    Source:
        Naeem et al. 2020, arXiv:2002.09797, eqs. 4 to 6.
    """
    return Neighbourhoods(fake, real, neighbours).scores()


class Neighbourhoods:
    """All distances among real and generated features, from which the scores of any part of them follow.

    Args:
        fake: As in :func:`density_coverage`.
        real: Likewise.
        neighbours: Likewise.
    """

    def __init__(self, fake: Tensor, real: Tensor, neighbours: int = NEIGHBOURS) -> None:
        if max(len(fake), len(real)) > MOST:
            raise UserError(f"density and coverage hold all distances in memory: compare at most {MOST:,} on each side")
        fake, real = checked(fake, real, at_least=1)
        offset = real.mean(dim=0)  # around 0, float32 has digits enough
        fake, real = (fake - offset).float(), (real - offset).float()
        self.neighbours = neighbours
        # From differences, not from products: equal rows are at distance 0, and ties stay ties.
        options = {"compute_mode": "donot_use_mm_for_euclid_dist"}
        self.among_real = torch.cdist(real, real, **options).fill_diagonal_(torch.inf)  # nobody is his own neighbour
        self.to_fake = torch.cdist(real, fake, **options)

    def scores(self, fake_rows: Tensor | None = None, real_rows: Tensor | None = None) -> DensityCoverage:
        """Density and coverage of some of the generated and the real images; None for all of them."""
        among_real, to_fake = self.among_real, self.to_fake
        if real_rows is not None:
            among_real, to_fake = among_real[real_rows][:, real_rows], to_fake[real_rows]
        if fake_rows is not None:
            to_fake = to_fake[:, fake_rows]
        k = self.neighbours
        if len(among_real) <= k:
            raise UserError(f"{len(among_real)} real images have no {k} neighbours each: use more of them")
        radius = among_real.topk(k, dim=1, largest=False).values[:, -1:]
        reached = to_fake <= radius
        density = reached.sum().item() / (k * to_fake.shape[1])
        return DensityCoverage(density, reached.any(dim=1).double().mean().item())
