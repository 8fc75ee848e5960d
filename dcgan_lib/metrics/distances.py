"""Distances between two sets of features: Frechet distance and kernel distance (KID), computed by torchmetrics.

Both are squares of distances, as in the papers that introduced them: a shift twice as far scores four times as much.
"""

from __future__ import annotations

import warnings

import torch
from torch import Tensor, nn

from dcgan_lib.errors import UserError

BLOCK = 1000


def frechet_distance(features_a: Tensor, features_b: Tensor) -> float:
    r"""Frechet distance between two sets of features, each summarised as a Gaussian.

    .. math:: \|\mu_a - \mu_b\|^2 + \operatorname{tr}(\Sigma_a + \Sigma_b - 2 (\Sigma_a \Sigma_b)^{1/2})

    Computed in float64 by torchmetrics, with unbiased covariances. Defined for any number of samples; with few of them
    per feature it is mostly noise, and :func:`~dcgan_lib.metrics.evaluate` then refuses.

    Args:
        features_a: (N, D) with N >= 2, floating point.
        features_b: (M, D) with M >= 2.

    Returns:
        The squared distance, 0 or more, in squared units of the features.

    Raises:
        UserError: If the shapes do not fit, there are fewer than two rows, or a value is NaN or infinite.

    Source:
        Heusel et al. 2017, arXiv:1706.08500, eq. 6.
    """
    from torchmetrics.image.fid import FrechetInceptionDistance  # imports matplotlib: only when needed

    a, b = checked(features_a, features_b, at_least=2)
    metric = FrechetInceptionDistance(feature=_identity(a.shape[1]), normalize=True)
    # torchmetrics subtracts n * mean * mean^T from sums of products; without a common offset fewer digits cancel.
    offset = torch.cat([a, b]).mean(dim=0)
    metric.update(a - offset, real=True)
    metric.update(b - offset, real=False)
    try:
        return max(0.0, metric.compute().item())
    except torch.linalg.LinAlgError:  # eigenvalues of the unsymmetric product need not converge, as for two constants
        return max(0.0, _symmetric_frechet_distance(a, b))


def kernel_distance(features_a: Tensor, features_b: Tensor, block: int = BLOCK) -> float:
    r"""Kernel distance (KID): the squared maximum mean discrepancy with the kernel :math:`(x \cdot y / D + 1)^3`.

    Unlike the Frechet distance it assumes no Gaussians and has no bias from the number of samples: for two samples of
    the same distribution it is 0 on average, and may be below. Computed in float64 by torchmetrics, as the mean over
    disjoint blocks of one size, which is ``block`` or more and less than twice as much; what does not fill another row
    of all blocks is left out.

    Args:
        features_a: (N, D) with N >= 2, floating point, in random order.
        features_b: (M, D) with M >= 2. Of the larger set, the first min(N, M) rows count.
        block: Fewest samples of a block; all of them if there are fewer. Larger ones take longer and are hardly more
            exact.

    Returns:
        The squared distance.

    Raises:
        UserError: If the shapes do not fit, there are fewer than two rows, or a value is NaN or infinite.

    Source:
        Binkowski et al. 2018, arXiv:1801.01401, section 4.
    """
    from torchmetrics.image.kid import KernelInceptionDistance

    a, b = checked(features_a, features_b, at_least=2)
    count = min(len(a), len(b))
    blocks = max(1, count // max(2, block))
    size = count // blocks
    distances = []
    for start in range(0, blocks * size, size):
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="Metric `Kernel Inception Distance`")  # its use of memory
            metric = KernelInceptionDistance(feature=_identity(a.shape[1]), subsets=1, subset_size=size)
        metric.update(a[start : start + size], real=True)
        metric.update(b[start : start + size], real=False)
        with torch.random.fork_rng(devices=[]):  # it shuffles the block, which may change the last digit
            torch.default_generator.manual_seed(0)
            distances.append(metric.compute()[0].item())
    return sum(distances) / blocks


def checked(features_a: Tensor, features_b: Tensor, at_least: int) -> tuple[Tensor, Tensor]:
    """Two sets of features as float64 on the CPU.

    Raises:
        UserError: If the shapes do not fit, there are too few rows, or a value is NaN or infinite.
    """
    if features_a.ndim != 2 or features_b.ndim != 2 or features_a.shape[1] != features_b.shape[1]:
        shapes = f"{tuple(features_a.shape)} and {tuple(features_b.shape)}"
        raise UserError(f"features must be two matrices with as many columns, not {shapes}")
    if min(len(features_a), len(features_b)) < at_least:
        raise UserError(f"this score needs at least {at_least} samples on each side")
    a, b = (features.detach().cpu().double() for features in (features_a, features_b))
    if not bool(torch.isfinite(a).all() and torch.isfinite(b).all()):
        raise UserError("the features contain NaN or infinity")
    return a, b


def _identity(dimension: int) -> nn.Module:
    identity = nn.Identity()
    identity.num_features = dimension  # torchmetrics would otherwise push a random image through it
    return identity


def _symmetric_frechet_distance(a: Tensor, b: Tensor) -> float:
    # The trace of (A B)^(1/2) is the sum of the roots of the eigenvalues of A^(1/2) B A^(1/2), which is symmetric.
    covariance_a, covariance_b = (torch.cov(x.T).reshape(x.shape[1], x.shape[1]) for x in (a, b))
    values, vectors = torch.linalg.eigh(covariance_a)
    root = vectors * values.clamp(min=0).sqrt() @ vectors.T
    cross = torch.linalg.eigvalsh(root @ covariance_b @ root).clamp(min=0).sqrt().sum()
    shift = (a.mean(dim=0) - b.mean(dim=0)).square().sum()
    return (shift + covariance_a.trace() + covariance_b.trace() - 2 * cross).item()
