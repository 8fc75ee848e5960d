"""Points of the latent space: sampling them, moving between them, and the images they stand for.

A latent vector z has ``latent_dim`` independent standard normal components, so in D dimensions its length is close to
sqrt(D): nearly all of the probability lies in a thin shell. Whatever makes new vectors here says what it does to the
length, because a generator has only ever seen vectors from that shell.
"""

from __future__ import annotations

import math
import operator
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import nn

from dcgan_lib.errors import UserError

# Row i of a sample uses the random stream (seed, i); the noise of `neighbours` must not be one of those rows.
_NEIGHBOUR_STREAM = 2**64 - 1

# A network has one mode, whoever runs it, and JupyterLab lets a widget run it in a thread of its own. Two threads that
# change the mode and put it back by turns would have one of them run, and leave, the network in the mode it must not.
_MODES = threading.RLock()


def sample_latent(n: int, latent_dim: int, seed: int, first: int = 0) -> torch.Tensor:
    """Draw latent vectors from N(0, I), each row from a random stream of its own.

    Row i depends on ``(seed, i)`` alone: asking for more rows never changes the earlier ones, and image 7 of seed 3 is
    the same image in a grid of 8 and in a grid of 10,000.

    Args:
        n: Number of vectors, at least 1.
        latent_dim: Components of each, at least 1.
        seed: 0 to 2**64 - 1.
        first: The row to begin with: rows ``first`` to ``first + n - 1`` are drawn.

    Returns:
        float32 tensor (n, latent_dim) on the CPU.

    Raises:
        UserError: If an argument is out of range.

    Source:
        Philox, a counter-based generator with independent streams by key: Salmon et al. (2011), "Parallel random
        numbers: as easy as 1, 2, 3".
    """
    n, latent_dim, seed = _count("n", n), _count("latent_dim", latent_dim), check_seed(seed)
    rows = np.empty((n, latent_dim), dtype=np.float32)
    for index, row in enumerate(rows, start=_count("first", first, least=0)):
        _stream(seed, index).standard_normal(latent_dim, dtype=np.float32, out=row)
    return torch.from_numpy(rows)


def generate(generator: nn.Module, z: torch.Tensor, batch_size: int = 64) -> torch.Tensor:
    """Make the images of given latent vectors.

    The generator runs in evaluation mode, where batch norm uses its stored statistics, so an image depends on its own z
    and not on the rest of the batch; afterwards every module is back in the mode it was in.

    Args:
        generator: A network with ``latent_dim`` and ``forward((N, latent_dim)) -> (N, C, S, S)``, on any device.
        z: (N, latent_dim), N >= 1, on any device.
        batch_size: Images made at once; only memory and speed depend on it.

    Returns:
        float32 tensor (N, C, S, S) on the CPU, in [-1, 1].

    Raises:
        UserError: If ``z`` does not fit the generator.
    """
    with evaluating(generator):
        parts = [generator(part).float().cpu() for part in _batches(generator, z, batch_size)]
    return torch.cat(parts)  # made outside inference mode, so an ordinary tensor: autograd may use it


def sample(generator: nn.Module, n: int, seed: int) -> torch.Tensor:
    """Generate ``n`` images from ``seed``; image i depends on ``(seed, i)`` alone.

    Returns:
        float32 tensor (n, C, S, S) on the CPU, in [-1, 1].
    """
    return generate(generator, sample_latent(n, generator.latent_dim, seed))


def lerp(a: torch.Tensor, b: torch.Tensor, t: float | torch.Tensor) -> torch.Tensor:
    """Interpolate along the straight line from ``a`` to ``b``.

    Half-way between two independent samples the vector is only 1/sqrt(2) = 0.71 times as long as they are: the line
    leaves the shell in which the generator was trained. :func:`slerp` does not.

    Args:
        a: (..., D) floating point.
        b: Of the same shape.
        t: A number in [0, 1], or a 1-D tensor of T of them.

    Returns:
        ``(1 - t) a + t b``: the shape of ``a``, with T in front if ``t`` is a tensor.

    Raises:
        UserError: If the shapes differ or ``t`` leaves [0, 1].
    """
    start, end, weight = _endpoints(a, b, t)
    return ((1 - weight) * start + weight * end).to(a)


def slerp(a: torch.Tensor, b: torch.Tensor, t: float | torch.Tensor) -> torch.Tensor:
    """Interpolate along the great circle from the direction of ``a`` to that of ``b``, at constant angular speed.

    The length goes linearly from that of ``a`` to that of ``b``, so a path between two typical vectors stays typical.
    For vectors of equal length this is Shoemake's formula ``(sin((1 - t) w) a + sin(t w) b) / sin(w)``, w the angle
    between them. It is computed in the plane of the two vectors, which needs no division by sin(w):

    * parallel vectors: the straight line between them;
    * opposite vectors: every half circle is as short as any other; the one taken goes by way of a coordinate axis;
    * a zero vector has no direction: the direction of the other one is kept and the length changes.

    Args:
        a: (..., D) floating point, D >= 2.
        b: Of the same shape; leading dimensions are pairs, interpolated one by one.
        t: A number in [0, 1], or a 1-D tensor of T of them.

    Returns:
        A tensor with the shape of ``a``, with T in front if ``t`` is a tensor.

    Raises:
        UserError: If the shapes differ, D < 2 or ``t`` leaves [0, 1].

    Source:
        Shoemake (1985), "Animating rotation with quaternion curves"; for latent spaces White (2016), "Sampling
        generative networks".
    """
    start, end, weight = _endpoints(a, b, t)
    if a.shape[-1] < 2:
        raise UserError("slerp needs vectors of at least two components; use lerp for one")
    start_length = start.norm(dim=-1, keepdim=True)
    end_length = end.norm(dim=-1, keepdim=True)
    u, v = _unit(start), _unit(end)
    u, v = torch.where(start_length > 0, u, v), torch.where(end_length > 0, v, u)

    # This form of the angle is exact near 0 and pi, where arccos loses half of the digits (Kahan).
    angle = 2 * torch.atan2((u - v).norm(dim=-1, keepdim=True), (u + v).norm(dim=-1, keepdim=True))
    side = _perpendicular(u, v)
    direction = torch.cos(weight * angle) * u + torch.sin(weight * angle) * side
    return (((1 - weight) * start_length + weight * end_length) * direction).to(a)


def walk(z_keys: torch.Tensor, steps: int, method: str = "slerp") -> torch.Tensor:
    """Walk through several latent vectors in turn.

    Args:
        z_keys: (K, D), K >= 2: the vectors to pass through.
        steps: Steps from each to the next; key k is row ``k * steps`` of the result.
        method: ``"slerp"`` or ``"lerp"``.

    Returns:
        ((K - 1) * steps + 1, D): both ends included, no row twice.

    Raises:
        UserError: If there are fewer than two keys, ``steps`` < 1, or the method is unknown.
    """
    methods = {"slerp": slerp, "lerp": lerp}
    if method not in methods:
        raise UserError(f"unknown method {method!r}; choose one of {', '.join(methods)}")
    if z_keys.ndim != 2 or len(z_keys) < 2:
        raise UserError(
            f"a walk needs at least two latent vectors as rows of a matrix, got shape {tuple(z_keys.shape)}"
        )
    steps = _count("steps", steps)
    t = torch.arange(steps, dtype=torch.float64) / steps
    path = methods[method](z_keys[:-1], z_keys[1:], t)  # (steps, K - 1, D)
    return torch.cat([path.transpose(0, 1).flatten(0, 1), z_keys[-1:]])


def mean_latent(z: torch.Tensor) -> torch.Tensor:
    """Return the mean (D,) of latent vectors (n, D): one vector for what their images have in common.

    One sample carries much besides the attribute it was chosen for; the paper found results with single samples
    unstable and took means of three (Radford et al. 2015, section 6.3.2).
    """
    if z.ndim != 2 or len(z) == 0:
        raise UserError(f"expected latent vectors of shape (n, D) with n >= 1, got {tuple(z.shape)}")
    return z.mean(dim=0)


def arithmetic(a: torch.Tensor, b: torch.Tensor, c: torch.Tensor) -> torch.Tensor:
    """Vector arithmetic on concepts: ``mean(a) - mean(b) + mean(c)``.

    With a = smiling women, b = neutral women and c = neutral men the paper obtains smiling men.

    A mean of three independent samples has variance 1/3 in each component, and the three means together have
    3 * 1/3 = 1: means of three, and of no other number, give a result about as long as an ordinary sample.

    Args:
        a: (n, D) latent vectors of images with the attribute; the paper uses n = 3.
        b: (m, D) latent vectors of images like those, without it.
        c: (k, D) latent vectors of the images that are to get it.

    Returns:
        One latent vector (D,).

    Source:
        Radford et al. (2015), section 6.3.2 and figure 7.
    """
    if not a.shape[-1:] == b.shape[-1:] == c.shape[-1:]:
        sizes = ", ".join(str(tuple(z.shape)) for z in (a, b, c))
        raise UserError(f"the three groups must have latent vectors of one size, got shapes {sizes}")
    return mean_latent(a) - mean_latent(b) + mean_latent(c)


def neighbours(z: torch.Tensor, count: int = 9, scale: float = 0.25, seed: int = 0) -> torch.Tensor:
    """Return a vector together with others near it, as in the 3 x 3 blocks of the paper's figure 7.

    Args:
        z: (D,) one latent vector.
        count: Vectors to return, ``z`` itself included.
        scale: Each component of the others moves by uniform noise in [-scale, scale].
        seed: Seed of that noise.

    Returns:
        (count, D); the middle row, ``count // 2``, is ``z`` unchanged.
    """
    if z.ndim != 1:
        raise UserError(f"expected one latent vector of shape (D,), got {tuple(z.shape)}")
    if not (math.isfinite(scale) and scale >= 0):
        raise UserError(f"scale must be a finite number of at least 0, got {scale}")
    count = _count("count", count)
    noise = _stream(check_seed(seed), _NEIGHBOUR_STREAM).uniform(-scale, scale, size=(count, len(z)))
    noise[count // 2] = 0
    return z + torch.from_numpy(noise).to(z)


def factor_direction(z: torch.Tensor, labels: torch.Tensor, method: str = "least_squares") -> torch.Tensor:
    """Find the direction of latent space along which a known yes-or-no attribute changes.

    Args:
        z: (N, D) latent vectors.
        labels: (N,) bool, or 0 and 1: whether the image of each has the attribute.
        method: ``"difference"``: mean of those with it minus mean of those without. ``"least_squares"``: the weights of
            the linear regression from z to the label. For N(0, I) both estimate the same direction; the regression
            also removes chance correlations between the components and needs N well above D.

    Returns:
        (D,) of length 1, in the type of ``z``, pointing to where the attribute is present.

    Raises:
        UserError: If the shapes disagree, a class has no sample, or the result has no direction.
    """
    if z.ndim != 2 or labels.shape != z.shape[:1]:
        raise UserError(f"expected z (N, D) and labels (N,), got {tuple(z.shape)} and {tuple(labels.shape)}")
    if not ((labels == 0) | (labels == 1)).all():
        raise UserError("labels must be bool, or 0 and 1; compare a factor with one value first, as in labels == 3")
    has = labels.cpu().bool()
    if has.all() or not has.any():
        raise UserError("labels must contain both classes; take more samples or another attribute")
    points = z.cpu().double()
    if method == "difference":
        direction = points[has].mean(dim=0) - points[~has].mean(dim=0)
    elif method == "least_squares":
        # Centring both sides fits the intercept.
        target = has.double() - has.double().mean()
        direction = torch.linalg.pinv(points - points.mean(dim=0)) @ target
    else:
        raise UserError(f"unknown method {method!r}; choose one of least_squares, difference")
    length = direction.norm()
    if not length > 1e-12:
        raise UserError("the two classes have the same mean: no direction tells them apart")
    return (direction / length).to(z)


def principal_directions(generator: nn.Module, n: int, k: int, seed: int = 0, layer: int = 0) -> torch.Tensor:
    """Find the latent directions along which a generator's early activations vary most; no labels are needed.

    Principal components of the activations of ``layer`` over ``n`` samples, each carried back to z by linear
    regression from the samples' coordinates on the component to their z.

    Args:
        generator: A network with ``latent_dim`` and ``features(z)``, a list of activation maps.
        n: Samples, more than ``k``; a few hundred are enough for the first components, and the time grows as n**3.
        k: Directions wanted, at most ``latent_dim``.
        seed: Seed of the samples.
        layer: Index into ``generator.features(z)``; 0 is the map next to z.

    Returns:
        float32 (k, latent_dim), rows of length 1, most variance first; the largest component of each is positive.

    Raises:
        UserError: If ``k`` is too large for ``n`` or the latent space, or the layer does not exist.

    Source:
        Haerkoenen et al. (2020), "GANSpace: Discovering interpretable GAN controls", section 2.1.
    """
    n, k = _count("n", n), _count("k", k)
    if k >= n or k > generator.latent_dim:
        raise UserError(f"k={k} directions need n > k samples and latent_dim >= k; n={n}, {generator.latent_dim=}")
    z = sample_latent(n, generator.latent_dim, seed)
    activations = _activations(generator, z, layer).double()
    activations -= activations.mean(dim=0)
    # The Gram matrix (n, n) has the left singular vectors of the activations as eigenvectors, and is far smaller than
    # their covariance. A sample's coordinates on a component are those times a number, and they are orthogonal, so
    # regressing z on one coordinate is a product with its vector; its scale goes when the result is normalised.
    _, vectors = torch.linalg.eigh(activations @ activations.T)
    directions = vectors.flip(1)[:, :k].T @ z.double()
    directions = _unit(directions)
    largest = directions.gather(1, directions.abs().argmax(dim=1, keepdim=True))
    return (directions * largest.sign()).float()


def check_seed(seed: int) -> int:
    """Return ``seed`` as an int, or raise ``UserError`` unless it is a whole number from 0 to 2**64 - 1."""
    try:
        value = operator.index(seed)
    except TypeError:
        raise UserError(f"seed must be a whole number, got {seed!r}") from None
    if not 0 <= value < 2**64:
        raise UserError(f"seed must be between 0 and 2**64 - 1, got {value}")
    return value


def _count(name: str, value: Any, least: int = 1) -> int:
    try:
        number = operator.index(value)
    except TypeError:
        raise UserError(f"{name} must be a whole number, got {value!r}") from None
    if number < least:
        raise UserError(f"{name} must be at least {least}, got {number}")
    return number


def _stream(seed: int, index: int) -> np.random.Generator:
    return np.random.Generator(np.random.Philox(key=np.array([seed, index], dtype=np.uint64)))


@contextmanager
def evaluating(module: nn.Module) -> Iterator[None]:
    """Evaluation mode without gradients; afterwards each sub-module is back in its own mode, not in its parent's."""
    with _MODES:
        modes = [(part, part.training) for part in module.modules()]
        module.eval()
        try:
            with torch.inference_mode():
                yield
        finally:
            for part, training in modes:
                part.training = training


def _batches(generator: nn.Module, z: torch.Tensor, batch_size: int) -> Iterator[torch.Tensor]:
    if z.ndim != 2 or len(z) == 0 or z.shape[1] != generator.latent_dim:
        raise UserError(f"this generator takes z of shape (N, {generator.latent_dim}), N >= 1; got {tuple(z.shape)}")
    parameter = next(generator.parameters(), z)
    for part in z.split(_count("batch_size", batch_size)):
        yield part.to(device=parameter.device, dtype=parameter.dtype)


def _activations(generator: nn.Module, z: torch.Tensor, layer: int) -> torch.Tensor:
    """Activations (N, features) of one layer, float32 on the CPU."""
    parts = []
    with evaluating(generator):
        for part in _batches(generator, z, 64):
            maps = generator.features(part)
            if not 0 <= layer < len(maps):
                raise UserError(f"layer must be between 0 and {len(maps) - 1} for this generator, got {layer}")
            parts.append(maps[layer].flatten(1).float().cpu())
    return torch.cat(parts)


def _endpoints(
    a: torch.Tensor, b: torch.Tensor, t: float | torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Both ends in float64 on the CPU (Apple's GPUs have no float64), and t shaped to broadcast in front of them."""
    if a.shape != b.shape or a.ndim == 0:
        raise UserError(f"both ends must be vectors of one shape, got {tuple(a.shape)} and {tuple(b.shape)}")
    weight = torch.as_tensor(t, dtype=torch.float64, device="cpu")
    if weight.ndim > 1:
        raise UserError(f"t must be a number or a 1-D tensor, got shape {tuple(weight.shape)}")
    if not ((weight >= 0) & (weight <= 1)).all():
        raise UserError("t must lie between 0 (the first vector) and 1 (the second)")
    return a.cpu().double(), b.cpu().double(), weight.reshape(weight.shape + (1,) * a.ndim)


def _unit(vectors: torch.Tensor) -> torch.Tensor:
    """Vectors scaled to length 1; zero stays zero."""
    length = vectors.norm(dim=-1, keepdim=True)
    return vectors / torch.where(length > 0, length, 1.0)


def _perpendicular(u: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
    """The unit vector at right angles to ``u`` on the side of ``v``; where v = u or -u, one in any such direction."""
    side = v - (u * v).sum(dim=-1, keepdim=True) * u
    # The coordinate axis that u leans on least can not be parallel to it.
    axis = torch.zeros_like(u).scatter(-1, u.abs().argmin(dim=-1, keepdim=True), 1.0)
    spare = axis - (u * axis).sum(dim=-1, keepdim=True) * u
    return _unit(torch.where(side.norm(dim=-1, keepdim=True) > 1e-12, side, spare))
