"""GAN losses as pure functions of logits, and gradient penalties.

Every loss has one signature, ``loss(real_logits, fake_logits) -> GANLosses``, and is named for what it is. They use
logits and ``softplus``, never ``log(sigmoid(x) + eps)``: ``-log sigmoid(x) = softplus(-x)``, whose value and slope keep
float32's precision for every x.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from dcgan_lib.errors import UserError


class GANLosses(NamedTuple):
    """The two scalars to be minimised: one by the discriminator's parameters, one by the generator's."""

    d_loss: Tensor
    g_loss: Tensor


GANLoss = Callable[..., GANLosses]


def minimax(real_logits: Tensor, fake_logits: Tensor, real_label: float = 1.0) -> GANLosses:
    """The zero-sum game of Goodfellow et al. (2014), equation 1: G minimises ``E log(1 - D(G(z)))``.

    Where D is sure that a sample is fake this loss is flat, and G learns nothing: see ``non_saturating``.

    Args:
        real_logits: D's logits for real images, float (N,).
        fake_logits: D's logits for generated images, float (M,).
        real_label: D's target for real images; below 1 it is one-sided label smoothing (Salimans et al. 2016).
    """
    return GANLosses(_cross_entropy(real_logits, fake_logits, real_label), -F.softplus(fake_logits).mean())


def non_saturating(real_logits: Tensor, fake_logits: Tensor, real_label: float = 1.0) -> GANLosses:
    """The loss used in practice (Goodfellow et al. 2014, section 3): G minimises ``-E log D(G(z))``.

    D's loss is that of ``minimax``; with D at 1/2 everywhere it is ``2 log 2`` and G's is ``log 2``.

    Args:
        real_logits: D's logits for real images, float (N,).
        fake_logits: D's logits for generated images, float (M,).
        real_label: D's target for real images; below 1 it is one-sided label smoothing (Salimans et al. 2016).
    """
    return GANLosses(_cross_entropy(real_logits, fake_logits, real_label), F.softplus(-fake_logits).mean())


def least_squares(real_logits: Tensor, fake_logits: Tensor) -> GANLosses:
    """Least-squares GAN (Mao et al. 2017), equation 9, with targets 0 and 1 for D's raw outputs."""
    d_loss = 0.5 * ((real_logits - 1).square().mean() + fake_logits.square().mean())
    return GANLosses(d_loss, 0.5 * (fake_logits - 1).square().mean())


def hinge(real_logits: Tensor, fake_logits: Tensor) -> GANLosses:
    """Hinge loss (Lim and Ye 2017; Miyato et al. 2018, equations 16 and 17)."""
    return GANLosses(F.relu(1 - real_logits).mean() + F.relu(1 + fake_logits).mean(), -fake_logits.mean())


def wasserstein(real_logits: Tensor, fake_logits: Tensor) -> GANLosses:
    """Wasserstein loss (Arjovsky et al. 2017); it needs a Lipschitz D, for example by ``gradient_penalty``."""
    return GANLosses(fake_logits.mean() - real_logits.mean(), -fake_logits.mean())


LOSSES: dict[str, GANLoss] = {
    loss.__name__: loss for loss in (minimax, non_saturating, least_squares, hinge, wasserstein)
}
"""The losses by name."""


def r1(real_logits: Tensor, real_images: Tensor) -> Tensor:
    """The R1 penalty of Mescheder et al. (2018), equation 9, without its factor ``gamma / 2``.

    The squared gradient is summed over an image's pixels first and then averaged over the batch.

    Args:
        real_logits: D's logits for ``real_images``, float (N,), with the graph that leads to them.
        real_images: The images, float (N, C, S, S), with ``requires_grad``.

    Returns:
        The mean squared gradient norm, a scalar that can be differentiated again.
    """
    (gradient,) = torch.autograd.grad(real_logits.sum(), real_images, create_graph=True)
    return gradient.square().flatten(1).sum(1).mean()


def gradient_penalty(
    discriminator: Callable[[Tensor], Tensor], real: Tensor, fake: Tensor, random: torch.Generator | None = None
) -> Tensor:
    """The two-sided penalty of WGAN-GP (Gulrajani et al. 2017), equation 3, without its factor lambda.

    Args:
        discriminator: Maps images (N, C, S, S) to outputs (N,).
        real: Real images, float (N, C, S, S).
        fake: As many generated images; no gradient flows to them.
        random: Source of the mixing weights, which are uniform in [0, 1], one for each pair.

    Raises:
        UserError: If the two batches differ in shape.
    """
    if real.shape != fake.shape:
        raise UserError(f"real images {tuple(real.shape)} and fake images {tuple(fake.shape)} must agree in shape")
    share = torch.rand(len(real), *[1] * (real.ndim - 1), generator=random, device=real.device, dtype=real.dtype)
    mixed = torch.lerp(fake.detach(), real.detach(), share).requires_grad_()
    (gradient,) = torch.autograd.grad(discriminator(mixed).sum(), mixed, create_graph=True)
    return (gradient.flatten(1).norm(dim=1) - 1).square().mean()


def _cross_entropy(real_logits: Tensor, fake_logits: Tensor, real_label: float) -> Tensor:
    if not 0 < real_label <= 1:
        raise UserError(f"real_label={real_label} must be above 0 and at most 1")
    real = F.binary_cross_entropy_with_logits(real_logits, torch.full_like(real_logits, real_label))
    return real + F.softplus(fake_logits).mean()
