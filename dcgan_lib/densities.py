"""Probability densities on a line, and quadrature that is exact for them to about twelve digits.

Points and results are float64 tensors, and `log_pdf` can be differentiated. A density names the points between which it
is smooth; the quadrature puts panels between them, so that the jump at the edge of a uniform density costs nothing.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from numbers import Real
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from dcgan_lib.arguments import as_points, require_counts, require_finite, require_shape
from dcgan_lib.errors import UserError

NODES = 32
"""Gauss-Legendre nodes in a panel."""

_REACH = 10  # standard deviations to each side of a normal's mean; 2e-23 of the mass lies beyond
_PANELS = 8  # between two edges of a density that was given as a function
_HALVINGS = 64  # of an interval, in bisection: down to neighbouring floats


class Density(ABC):
    """A probability density on the line."""

    @property
    @abstractmethod
    def edges(self) -> tuple[float, ...]:
        """Increasing points between which the density is smooth; no mass that counts lies outside of them."""

    @abstractmethod
    def log_pdf(self, x: Tensor | Sequence[float] | float) -> Tensor:
        """Return the logarithm of the density at points of any shape, float64; minus infinity where it is zero."""

    @abstractmethod
    def cdf(self, x: Tensor | Sequence[float] | float) -> Tensor:
        """Return the mass to the left of points of any shape, float64 in [0, 1]."""

    def pdf(self, x: Tensor | Sequence[float] | float) -> Tensor:
        """Return the density at points of any shape, float64."""
        return self.log_pdf(x).exp()

    def quantile(self, u: Tensor | Sequence[float] | float) -> Tensor:
        """Return the points with mass `u` to their left, for `u` in [0, 1] of any shape: the inverse of `cdf`.

        For `u` of 0 and 1 that is the first and the last of the edges, for a normal ten standard deviations out.

        Raises:
            UserError: If a `u` lies outside of [0, 1].
        """
        u = as_points(u, "u")
        if bool(((u < 0) | (u > 1)).any()):
            raise UserError(f"u must lie between 0 and 1, got values from {float(u.min())} to {float(u.max())}")
        low, high = torch.full_like(u, self.edges[0]), torch.full_like(u, self.edges[-1])
        return bisect(lambda x: self.cdf(x) - u, low, high)

    def sample(self, n: int, seed: int | torch.Generator = 0) -> Tensor:
        """Draw `n` independent points, float64 (n,).

        Args:
            n: How many, at least 1.
            seed: A seed, or a generator that goes on from where it stands.

        Raises:
            UserError: If `n` is not a whole number of at least 1, or `seed` neither a whole number nor a generator.
        """
        require_counts(n=n)
        if isinstance(seed, torch.Generator):
            return self._draw(n, seed)
        if not isinstance(seed, int):
            raise UserError(f"seed={seed!r} must be a whole number or a torch.Generator")
        return self._draw(n, torch.Generator().manual_seed(seed))

    def _draw(self, n: int, random: torch.Generator) -> Tensor:
        return self.quantile(torch.rand(n, generator=random, dtype=torch.float64))


@dataclass(frozen=True)
class Normal(Density):
    """The normal density.

    Args:
        mean: Where its centre is.
        std: Its standard deviation, above 0.
    """

    mean: float = 0.0
    std: float = 1.0

    def __post_init__(self) -> None:
        require_finite(mean=self.mean, std=self.std)
        if not self.std > 0:
            raise UserError(f"std={self.std} must be above 0")

    @property
    def edges(self) -> tuple[float, ...]:
        """One panel for each standard deviation, ten to each side."""
        return tuple(self.mean + self.std * step for step in range(-_REACH, _REACH + 1))

    def log_pdf(self, x: Tensor | Sequence[float] | float) -> Tensor:
        """Return the logarithm of the density, float64."""
        z = (as_points(x) - self.mean) / self.std
        return -0.5 * z.square() - math.log(self.std * math.sqrt(2 * math.pi))

    def cdf(self, x: Tensor | Sequence[float] | float) -> Tensor:
        """Return the mass to the left of `x`, float64."""
        return torch.special.ndtr((as_points(x) - self.mean) / self.std)

    def _draw(self, n: int, random: torch.Generator) -> Tensor:
        return self.mean + self.std * torch.randn(n, generator=random, dtype=torch.float64)


@dataclass(frozen=True)
class Uniform(Density):
    """The uniform density on an interval.

    Args:
        low: The interval's left end.
        high: Its right end, above `low`.
    """

    low: float = 0.0
    high: float = 1.0

    def __post_init__(self) -> None:
        require_finite(low=self.low, high=self.high)
        if not self.low < self.high:
            raise UserError(f"low={self.low} must be below high={self.high}")

    @property
    def edges(self) -> tuple[float, ...]:
        """The two ends."""
        return (self.low, self.high)

    def log_pdf(self, x: Tensor | Sequence[float] | float) -> Tensor:
        """Return the logarithm of the density, float64; minus infinity outside of the interval."""
        x = as_points(x)
        inside = (x >= self.low) & (x <= self.high)
        return torch.full_like(x, -math.inf).masked_fill(inside, -math.log(self.high - self.low))

    def cdf(self, x: Tensor | Sequence[float] | float) -> Tensor:
        """Return the mass to the left of `x`, float64."""
        return ((as_points(x) - self.low) / (self.high - self.low)).clamp(0, 1)


@dataclass(frozen=True)
class Mixture(Density):
    """A weighted sum of densities: to draw from it, choose a component by its weight and draw from that.

    Args:
        components: At least one density.
        weights: As many numbers above 0 that sum to 1; by default all equal.
    """

    components: tuple[Density, ...]
    weights: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        if not isinstance(self.components, Sequence) or not self.components:
            raise UserError(f"components={self.components!r} must hold at least one density, in a tuple")
        require_densities(**{f"components[{index}]": part for index, part in enumerate(self.components)})
        if not isinstance(self.weights, Sequence) or not all(isinstance(weight, Real) for weight in self.weights):
            raise UserError(f"weights={self.weights!r} must be numbers, in a tuple")
        if not self.weights:
            object.__setattr__(self, "weights", (1 / len(self.components),) * len(self.components))
        if len(self.weights) != len(self.components):
            raise UserError(f"weights={self.weights}: {len(self.components)} components need as many weights")
        if not all(weight > 0 for weight in self.weights) or not math.isclose(math.fsum(self.weights), 1, rel_tol=1e-9):
            raise UserError(f"weights={self.weights} must be above 0 and sum to 1, not {math.fsum(self.weights):g}")

    @property
    def edges(self) -> tuple[float, ...]:
        """Those of all components."""
        return _merged(self.components)

    def log_pdf(self, x: Tensor | Sequence[float] | float) -> Tensor:
        """Return the logarithm of the density, float64."""
        x = as_points(x)
        parts = zip(self.weights, self.components, strict=True)
        return torch.stack([math.log(weight) + part.log_pdf(x) for weight, part in parts]).logsumexp(0)

    def cdf(self, x: Tensor | Sequence[float] | float) -> Tensor:
        """Return the mass to the left of `x`, float64."""
        x = as_points(x)
        parts = zip(self.weights, self.components, strict=True)
        return torch.stack([weight * part.cdf(x) for weight, part in parts]).sum(0)

    def _draw(self, n: int, random: torch.Generator) -> Tensor:
        weights = torch.tensor(self.weights, dtype=torch.float64)
        chosen = torch.multinomial(weights, n, replacement=True, generator=random)
        drawn = torch.stack([part.sample(n, random) for part in self.components])
        return drawn.gather(0, chosen[None])[0]


@dataclass(frozen=True)
class Custom(Density):
    """A density given by a formula of your own; that it is one is checked.

    Args:
        function: Maps points, float64 of any shape, to densities of the same shape.
        ends: Increasing points: the two ends of the interval, outside of which the density is zero, and between them
            all points where it has a jump or a kink.
    """

    function: Callable[[Tensor], Tensor]
    ends: tuple[float, ...]

    def __post_init__(self) -> None:
        if not isinstance(self.ends, Sequence):
            raise UserError(f"ends={self.ends} must be two or more increasing points")
        require_finite(**{f"ends[{index}]": end for index, end in enumerate(self.ends)})
        if len(self.ends) < 2 or any(a >= b for a, b in pairwise(self.ends)):
            raise UserError(f"ends={self.ends} must be two or more increasing points")
        points, weights = self._panels
        values = _evaluate(self.function, points)
        if bool((values < 0).any()) or not bool(values.isfinite().all()):
            worst = values[(values < 0) | ~values.isfinite()][0]
            raise UserError(f"function gives {float(worst):g} between {self.ends[0]} and {self.ends[-1]}: no density")
        mass = float(weights @ values)
        if not math.isclose(mass, 1, rel_tol=1e-6):
            between = f"between {self.ends[0]} and {self.ends[-1]}"
            raise UserError(f"function integrates to {mass:.6g} {between}; a density must integrate to 1")

    @cached_property
    def edges(self) -> tuple[float, ...]:
        """The ends, with eight panels between any two of them."""
        pieces = [np.linspace(a, b, _PANELS, endpoint=False) for a, b in pairwise(self.ends)]
        return (*np.concatenate(pieces).tolist(), self.ends[-1])

    @cached_property
    def _panels(self) -> Grid:
        return _gauss_legendre(self.edges, NODES)

    def _values(self, x: Tensor) -> Tensor:
        return self.function(x).to(torch.float64)

    def log_pdf(self, x: Tensor | Sequence[float] | float) -> Tensor:
        """Return the logarithm of the density, float64; minus infinity outside of the ends."""
        x = as_points(x)
        inside = (x >= self.ends[0]) & (x <= self.ends[-1])
        return torch.where(inside, self._values(x.clamp(self.ends[0], self.ends[-1])).log(), -math.inf)

    def cdf(self, x: Tensor | Sequence[float] | float) -> Tensor:
        """Return the mass to the left of `x`, float64: whole panels, and the part of the one that holds `x`."""
        x = as_points(x).clamp(self.ends[0], self.ends[-1])
        edges = torch.tensor(self.edges, dtype=torch.float64)
        points, weights = self._panels
        masses = (weights * self._values(points)).reshape(-1, NODES).sum(1)
        before = torch.cat([torch.zeros(1, dtype=torch.float64), masses.cumsum(0)])
        panel = (torch.searchsorted(edges, x.contiguous(), right=True) - 1).clamp(0, len(masses) - 1)
        nodes, shares = (torch.from_numpy(part) for part in np.polynomial.legendre.leggauss(NODES))
        half = ((x - edges[panel]) / 2)[..., None]
        return before[panel] + (half * shares * self._values(edges[panel][..., None] + half * (1 + nodes))).sum(-1)


class Grid(NamedTuple):
    """Where a quadrature looks, and what each value counts."""

    points: Tensor
    """Increasing, float64 (M,)."""
    weights: Tensor
    """float64 (M,); they sum to the length of the interval."""


def grid(*densities: Density, nodes: int = NODES, splits: Sequence[float] = ()) -> Grid:
    """Lay a quadrature over the line, fine enough for all of the densities.

    Every piece between two neighbouring edges is a Gauss-Legendre panel: no panel is wider than a standard deviation of
    a normal within its reach, and none contains a jump.

    Args:
        *densities: At least one.
        nodes: Points in a panel, at least 1.
        splits: Further edges.

    Raises:
        UserError: If there are no densities or no nodes, a split is not a finite number, or the mass of a density on
            the grid is not 1: it is no density, or narrower than float64 can tell from the rest.
    """
    if not densities:
        raise UserError(f"densities={densities}: a grid needs at least one density")
    require_densities(**{f"densities[{index}]": density for index, density in enumerate(densities)})
    if not isinstance(splits, Sequence):
        raise UserError(f"splits={splits!r} must be numbers, in a list or tuple")
    require_finite(**{f"splits[{index}]": split for index, split in enumerate(splits)})
    laid = _gauss_legendre(_merged(densities, splits), nodes)
    for density in densities:
        mass = float(laid.weights @ density.pdf(laid.points).detach())
        if not abs(mass - 1) < 1e-4:
            raise UserError(
                f"{density} has mass {mass:.4g}, not 1: no density, or too narrow for float64 where it lies"
            )
    return laid


def integrate(
    function: Callable[[Tensor], Tensor], *densities: Density, nodes: int = NODES, splits: Sequence[float] = ()
) -> float:
    """Integrate a function over the line where the densities live.

    Args:
        function: Maps points, float64 (M,), to values (M,); smooth wherever the densities are.
        *densities: What determines the grid.
        nodes: Points in a panel. With half as many you see how far the result can be trusted.
        splits: Points where the function has a kink or a jump of its own.

    Raises:
        UserError: If the function gives NaN or a wrong shape, is infinite with both signs, or `grid` refuses.
    """
    points, weights = grid(*densities, nodes=nodes, splits=splits)
    total = float(weights @ _evaluate(function, points))
    if math.isnan(total):
        raise UserError("function is inf at some points and -inf at others: it has no integral")
    return total


def integrate_absolute(function: Callable[[Tensor], Tensor], *densities: Density, nodes: int = NODES) -> float:
    """Integrate the absolute value of a function, which has a kink at each of its zeros.

    The arguments and errors are those of `integrate`.
    """
    zeros = sign_changes(function, *densities, nodes=nodes)
    return integrate(lambda x: function(x).abs(), *densities, nodes=nodes, splits=zeros)


def sign_changes(function: Callable[[Tensor], Tensor], *densities: Density, nodes: int = NODES) -> list[float]:
    """Return where a function changes its sign between two points of the densities' grid, in increasing order."""
    points = grid(*densities, nodes=nodes).points
    values = _evaluate(function, points)
    nonzero = values != 0
    points, values = points[nonzero], values[nonzero]
    change = values[:-1].sign() != values[1:].sign()
    rising = values[1:][change].sign()
    return bisect(lambda x: rising * function(x), points[:-1][change], points[1:][change]).tolist()


def bisect(function: Callable[[Tensor], Tensor], low: Tensor, high: Tensor) -> Tensor:
    """Find where a function, at or below 0 at `low` and above it at `high`, passes 0; for many intervals at once."""
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        below = function(middle) < 0
        low, high = torch.where(below, middle, low), torch.where(below, high, middle)
    return (low + high) / 2


def _gauss_legendre(edges: Sequence[float], nodes: int) -> Grid:
    require_counts(nodes=nodes)
    places, shares = (torch.from_numpy(part) for part in np.polynomial.legendre.leggauss(nodes))
    ends = torch.tensor(edges, dtype=torch.float64)
    half = (ends[1:] - ends[:-1])[:, None] / 2
    return Grid((ends[:-1, None] + half * (1 + places)).flatten(), (half * shares).flatten())


def _evaluate(function: Callable[[Tensor], Tensor], points: Tensor) -> Tensor:
    if not callable(function):
        raise UserError(f"function={function!r} must be a function of points")
    with torch.no_grad():
        values = function(points)
    require_shape("function", values, points)
    if bool(values.isnan().any()):
        raise UserError(f"function is not a number at x={float(points[values.isnan()][0]):g}")
    return values.to(torch.float64)


def _merged(densities: Sequence[Density], splits: Sequence[float] = ()) -> tuple[float, ...]:
    """All edges in order; of two that differ by rounding only, one."""
    edges = sorted([*splits, *(edge for density in densities for edge in density.edges)])
    least = 1e-14 * (edges[-1] - edges[0])
    return (edges[0], *(b for a, b in pairwise(edges) if b - a > least))


def require_densities(**densities: Any) -> None:
    """Raise `UserError` unless each argument is a density."""
    for name, density in densities.items():
        if not isinstance(density, Density):
            raise UserError(f"{name}={density!r} must be a density, such as Normal(0, 1)")
