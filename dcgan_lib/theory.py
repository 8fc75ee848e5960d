"""The theory of GANs for two densities on a line: the best discriminator, the value of the game, and divergences.

Everything takes `p`, the density of the real data, and `q`, that of the generated data, in this order. Discriminators
are functions from points to logits, as everywhere in this package, so that nothing is lost where D is nearly 0 or 1.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from dcgan_lib.arguments import as_points, require_counts, require_finite, require_shape
from dcgan_lib.densities import (
    NODES,
    Custom,
    Density,
    Grid,
    Mixture,
    Normal,
    Uniform,
    grid,
    integrate,
    integrate_absolute,
    require_densities,
    sign_changes,
)
from dcgan_lib.errors import UserError

__all__ = [
    "Custom",
    "Density",
    "GeneratorSlopes",
    "Grid",
    "LineDiscriminator",
    "Mixture",
    "Normal",
    "Uniform",
    "fit_discriminator",
    "generator_slopes",
    "grid",
    "integrate",
    "integrate_absolute",
    "js",
    "kl",
    "normal_generator_gradients",
    "optimal_critic",
    "optimal_discriminator",
    "optimal_logit",
    "sign_changes",
    "total_variation",
    "value",
    "wasserstein",
]

Function = Callable[[Tensor], Tensor]


def optimal_logit(p: Density, q: Density) -> Function:
    """The logit of the best discriminator, ``log p(x) - log q(x)`` (Goodfellow et al. 2014, proposition 1).

    Returns:
        A function of points; plus or minus infinity where only one density has mass, NaN where none has: any value is
        as good as any other there.

    Raises:
        UserError: If `p` or `q` is not a density.
    """
    require_densities(p=p, q=q)
    return lambda x: p.log_pdf(x) - q.log_pdf(x)


def optimal_discriminator(p: Density, q: Density, real_label: float = 1.0, fake_label: float = 0.0) -> Function:
    """The best discriminator for targets `real_label` and `fake_label` (Salimans et al. 2016, section 3.4).

    Args:
        p: Density of the real data.
        q: Density of the generated data.
        real_label: D's target a for real data.
        fake_label: D's target b for generated data; ``0 <= b < a <= 1``.

    Returns:
        A function from points to ``(a p + b q) / (p + q)`` in [b, a]; NaN where neither density has mass.

    Raises:
        UserError: If the labels are not in order.
    """
    _check_labels(real_label, fake_label)
    logit = optimal_logit(p, q)
    return lambda x: fake_label + (real_label - fake_label) * logit(x).sigmoid()


def value(
    logit: Function, p: Density, q: Density, real_label: float = 1.0, fake_label: float = 0.0, nodes: int = NODES
) -> float:
    """The value of the game, ``E_p log D + E_q log(1 - D)``: D wants it large (Goodfellow et al. 2014, equation 1).

    With labels a and b it is ``E_p[a log D + (1-a) log(1-D)] + E_q[b log D + (1-b) log(1-D)]``: in every case minus
    the cross-entropy that D minimises.

    Args:
        logit: D's logit as a function of points, float64 (M,); where no density has mass it may be anything.
        p: Density of the real data.
        q: Density of the generated data.
        real_label: D's target for real data.
        fake_label: D's target for generated data.
        nodes: Points in a panel of the quadrature.

    Returns:
        The value in nats; minus infinity if D is wrong with certainty somewhere.

    Raises:
        UserError: If the labels are not in order, or the logits have a wrong shape.
    """
    _check_labels(real_label, fake_label)
    if not callable(logit):
        raise UserError(f"logit={logit!r} must be a function of points")
    require_densities(p=p, q=q)

    def integrand(x: Tensor) -> Tensor:
        density_p, density_q, a = p.pdf(x), q.pdf(x), logit(x)
        require_shape("logit", a, x)
        says_real = real_label * density_p + fake_label * density_q
        says_fake = (1 - real_label) * density_p + (1 - fake_label) * density_q
        return _times(says_real, F.logsigmoid(a)) + _times(says_fake, F.logsigmoid(-a))

    return integrate(integrand, p, q, nodes=nodes)


def kl(p: Density, q: Density, nodes: int = NODES) -> float:
    """The Kullback-Leibler divergence ``E_p log(p / q)`` in nats; infinite if p has mass where q has none."""
    require_densities(p=p, q=q)
    return integrate(lambda x: _times(p.pdf(x), p.log_pdf(x) - q.log_pdf(x)), p, q, nodes=nodes)


def js(p: Density, q: Density, nodes: int = NODES) -> float:
    """The Jensen-Shannon divergence in nats, from 0 to log 2: half of ``KL(p, m) + KL(q, m)``, m the mean of both."""
    require_densities(p=p, q=q)
    middle = Mixture((p, q))
    return 0.5 * (kl(p, middle, nodes) + kl(q, middle, nodes))


def total_variation(p: Density, q: Density, nodes: int = NODES) -> float:
    """The total variation distance, from 0 to 1: half of the integral of ``|p - q|``."""
    require_densities(p=p, q=q)
    return 0.5 * integrate_absolute(lambda x: p.pdf(x) - q.pdf(x), p, q, nodes=nodes)


def wasserstein(p: Density, q: Density, nodes: int = NODES) -> float:
    """The Wasserstein-1 distance, in the units of x: on a line, the integral of ``|F_p - F_q|`` of the cdfs."""
    require_densities(p=p, q=q)
    return integrate_absolute(lambda x: p.cdf(x) - q.cdf(x), p, q, nodes=nodes)


def optimal_critic(p: Density, q: Density) -> Function:
    """The best critic with slopes of at most 1: its mean under p minus that under q is the Wasserstein distance.

    It rises with slope 1 where ``F_q > F_p`` and falls with slope 1 where ``F_q < F_p``.

    Returns:
        A function from points to values, 0 at the left end of the densities' grid and constant beyond its ends.

    Raises:
        UserError: If `p` or `q` is not a density.
    """
    require_densities(p=p, q=q)

    def difference(x: Tensor) -> Tensor:
        return q.cdf(x) - p.cdf(x)

    points, weights = grid(p, q)
    ends = points[[0, -1]].tolist()
    knots = torch.tensor([ends[0], *sign_changes(difference, p, q), ends[1]], dtype=torch.float64)
    # The sign of the whole integral over a piece: safer than that of one value, which may be a rounding error.
    piece = torch.bucketize(points, knots[1:-1])
    slopes = torch.zeros(len(knots) - 1, dtype=torch.float64).index_add(0, piece, weights * difference(points)).sign()
    lengths = knots[1:] - knots[:-1]

    def critic(x: Tensor) -> Tensor:
        x = as_points(x)[..., None]
        return (slopes * torch.minimum((x - knots[:-1]).clamp(min=0), lengths)).sum(-1)

    return critic


class GeneratorSlopes(NamedTuple):
    """Derivatives of the generator's two losses."""

    minimax: Tensor
    non_saturating: Tensor


def generator_slopes(logit: Tensor) -> GeneratorSlopes:
    """The derivatives of ``log(1 - D)`` and ``-log D``, for one sample, by D's logit: ``-D`` and ``-(1 - D)``.

    Args:
        logit: D's logits, of any shape.

    Returns:
        Both derivatives, float64, in the shape of the logits.

    Raises:
        UserError: If a logit is NaN.
    """
    logit = as_points(logit, "logit")
    return GeneratorSlopes(-torch.sigmoid(logit), -torch.sigmoid(-logit))


def normal_generator_gradients(
    p: Density, mean: float, std: float, real_label: float = 1.0, fake_label: float = 0.0
) -> GeneratorSlopes:
    """Gradients of both losses for the generator ``G(z) = mean + std * z``, z standard normal, against the best D.

    D is the best one for this generator and the labels, and held fixed, as in a step of training.

    Args:
        p: Density of the real data: positive and smooth on the whole line, so that D is.
        mean: The generator's first parameter.
        std: Its second one, above 0.
        real_label: D's target a for real data.
        fake_label: D's target b for generated data.

    Returns:
        For each loss its derivatives by mean and std, float64 (2,).

    Raises:
        UserError: If the labels are not in order, `std` is not above 0, or `p` is zero where G puts a point.
    """
    _check_labels(real_label, fake_label)
    logit = optimal_logit(p, Normal(mean, std))
    z, weights = grid(Normal(0, 1))
    weights = weights * Normal(0, 1).pdf(z)  # weights @ f(z) is now the mean of f(z)
    parameters = torch.tensor([mean, std], dtype=torch.float64, requires_grad=True)
    x = parameters[0] + parameters[1] * z
    a = logit(x)
    if not bool(a.isfinite().all()):
        empty = float(x.detach()[~a.isfinite()][0])
        raise UserError(f"p={p} is zero at x={empty:g}, where a generator with mean={mean}, std={std} puts points")
    # D is (a p + b q) / (p + q), and the logit is log p - log q.
    a_log, b_log, not_a, not_b = torch.tensor(
        [real_label, fake_label, 1 - real_label, 1 - fake_label], dtype=torch.float64
    ).log()
    log_d = torch.logaddexp(a + a_log, b_log) + F.logsigmoid(-a)
    log_not_d = torch.logaddexp(a + not_a, not_b) + F.logsigmoid(-a)
    gradients = [torch.autograd.grad(weights @ loss, parameters, retain_graph=True)[0] for loss in (log_not_d, -log_d)]
    return GeneratorSlopes(*gradients)


class LineDiscriminator(nn.Module):
    """A small multilayer perceptron from points (N,) to logits (N,), with two hidden layers of SiLU units.

    Args:
        centre: Where the points are, roughly.
        scale: How far they spread, above 0; the network sees ``(x - centre) / scale``.
        hidden: Units in a hidden layer.

    Raises:
        UserError: If `centre` is not finite, `scale` not above 0, or `hidden` less than 1.
    """

    def __init__(self, centre: float = 0.0, scale: float = 1.0, hidden: int = 32) -> None:
        super().__init__()
        require_finite(centre=centre, scale=scale)
        require_counts(hidden=hidden)
        if not scale > 0:
            raise UserError(f"scale={scale} must be above 0")
        self.centre, self.scale = centre, scale
        sizes = ((1, hidden), (hidden, hidden), (hidden, 1))
        first, second, last = (nn.Linear(*size, dtype=torch.float32) for size in sizes)
        self.layers = nn.Sequential(first, nn.SiLU(), second, nn.SiLU(), last)

    def forward(self, x: Tensor) -> Tensor:
        """Return the logits of points, both (N,), in the dtype of the weights."""
        if not isinstance(x, Tensor) or x.ndim != 1:
            raise UserError(f"x of shape {tuple(torch.as_tensor(x).shape)} must be a tensor of points, (N,)")
        return self.layers(((x - self.centre) / self.scale)[:, None])[:, 0]


def fit_discriminator(
    p: Density,
    q: Density,
    real_label: float = 1.0,
    fake_label: float = 0.0,
    steps: int = 3000,
    batch: int = 1024,
    seed: int = 0,
) -> LineDiscriminator:
    """Train a discriminator against two fixed densities, from fresh samples in every step.

    Args:
        p: Density of the real data.
        q: Density of the generated data.
        real_label: Target for real data.
        fake_label: Target for generated data.
        steps: Steps of Adam; the learning rate falls from 0.01 to 0 along half a cosine.
        batch: Real samples in a step, and as many generated ones.
        seed: Of weights and samples.

    Returns:
        The discriminator in float64, without gradients.

    Raises:
        UserError: If the labels are not in order, steps or batch are less than 1, or p or q is not a density.
    """
    _check_labels(real_label, fake_label)
    require_counts(steps=steps, batch=batch)
    require_densities(p=p, q=q)
    if not isinstance(seed, int):
        raise UserError(f"seed={seed!r} must be a whole number")
    random = torch.Generator().manual_seed(seed)
    first = torch.cat([p.sample(batch, random), q.sample(batch, random)])
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = LineDiscriminator(float(first.mean()), max(float(first.std()), 1e-12))
    labels = torch.tensor([real_label, fake_label]).float().repeat_interleave(batch)
    optimizer = torch.optim.Adam(network.parameters(), lr=1e-2)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    for _ in range(steps):
        x = torch.cat([p.sample(batch, random), q.sample(batch, random)]).float()
        loss = F.binary_cross_entropy_with_logits(network(x), labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
    return network.double().requires_grad_(False)


def _times(density: Tensor, other: Tensor) -> Tensor:
    """The product, and 0 where the density is 0, whatever the other factor is: the convention 0 log 0 = 0."""
    return torch.where(density > 0, density * other, 0.0)


def _check_labels(real_label: float, fake_label: float) -> None:
    require_finite(real_label=real_label, fake_label=fake_label)
    if not 0 <= fake_label < real_label <= 1:
        raise UserError(f"labels must satisfy 0 <= fake < real <= 1: real_label={real_label}, fake_label={fake_label}")
