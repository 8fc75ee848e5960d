"""Two-parameter games in which the whole of GAN training can be drawn, and worked out on paper.

A game has one parameter for the generator, ``theta``, and one for the discriminator, ``psi``. Each player goes down the
slope of its own loss; the two directions together are the game's *vector field*

    v(theta, psi) = (-d g_loss / d theta, -d d_loss / d psi).

Near the equilibrium, (0, 0) in every game here, a training step is a matrix, and the largest modulus of its eigenvalues
is the factor by which the distance to the equilibrium changes in a step (Mescheder et al. 2018, appendix A).
All in float64 NumPy.
"""

from __future__ import annotations

import math
import reprlib
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from dcgan_lib.errors import UserError

Array = NDArray[np.float64]
Field = Callable[[float, float], Array]

SCHEMES = ("simultaneous", "alternating", "continuous")
"""Both players move at once; D moves first and G answers; or both move all the time, with infinitely small steps."""

LOSSES = ("minimax", "non_saturating")
"""The generator's losses that :class:`DiracGAN` knows."""

_SUBSTEPS = 10  # Runge-Kutta steps in one step of the scheme "continuous": the error is far below what a figure shows


class Game(ABC):
    """What the games share: steps, trajectories, and what the eigenvalues at the equilibrium predict."""

    @abstractmethod
    def losses(self, theta: ArrayLike, psi: ArrayLike) -> tuple[Array, Array]:
        """Return D's and G's loss, each of the broadcast shape of ``theta`` and ``psi``.

        Raises:
            UserError: If the two are no numbers, or cannot be broadcast.
        """

    @abstractmethod
    def vector_field(self, theta: ArrayLike, psi: ArrayLike) -> Array:
        """Return ``(-d g_loss / d theta, -d d_loss / d psi)``, float64 (..., 2); the arguments are broadcast.

        Raises:
            UserError: As ``losses``.
        """

    @abstractmethod
    def jacobian(self, theta: float = 0.0, psi: float = 0.0) -> Array:
        """Return the vector field's derivative at one point, by default the equilibrium, float64 (2, 2).

        Row i, column j: how component i of the field changes with parameter j; theta is 0, psi is 1.

        Raises:
            UserError: If an argument is not one finite number.
        """

    def simultaneous_step(self, point: ArrayLike, learning_rate: float) -> Array:
        """Return the next point (2,) when both players answer the same present point.

        Raises:
            UserError: As ``trajectory``.
        """
        return self.trajectory(point, 1, learning_rate, "simultaneous")[1]

    def alternating_step(self, point: ArrayLike, learning_rate: float) -> Array:
        """Return the next point (2,) when D moves first and G answers the new D, as in GAN training.

        Raises:
            UserError: As ``trajectory``.
        """
        return self.trajectory(point, 1, learning_rate, "alternating")[1]

    def trajectory(
        self,
        start: ArrayLike,
        steps: int,
        learning_rate: float,
        scheme: str = "alternating",
        momentum: float = 0.0,
    ) -> Array:
        """Play from ``start``.

        Args:
            start: (theta, psi).
            steps: How many steps, 0 or more.
            learning_rate: The step's length h; in the scheme ``"continuous"`` the time that a step takes.
            scheme: One of ``SCHEMES``.
            momentum: The weight beta of the past in ``m = beta m + (1 - beta) v``, which then replaces v: what Adam
                calls beta1, without Adam's division. 0 for none; in the scheme ``"continuous"`` it must be 0.

        Returns:
            The points (theta, psi) before the first step and after each, float64 (steps + 1, 2).

        Raises:
            UserError: If an argument makes no sense.
        """
        advance = _stepper(learning_rate, scheme, momentum)
        if isinstance(steps, bool) or not isinstance(steps, int) or steps < 0:
            raise UserError(f"steps must be a whole number of steps, at least 0; got {steps!r}")
        state = np.concatenate([_point("start", start), np.zeros(2)])
        states = [state]
        for _ in range(steps):
            state = advance(self.vector_field, state)
            states.append(state)
        return np.stack(states)[:, :2]

    def update_matrix(self, learning_rate: float, scheme: str = "alternating", momentum: float = 0.0) -> Array:
        """Return the matrix M of one step close to the equilibrium: ``next point = M @ point``.

        Returns:
            float64 (2, 2); with momentum (4, 4), for (theta, psi, momentum of theta, momentum of psi).

        Raises:
            UserError: As ``trajectory``.
        """
        advance = _stepper(learning_rate, scheme, momentum)
        jacobian = self.jacobian()

        def linear(theta: float, psi: float) -> Array:
            return jacobian @ np.array([theta, psi])

        # A linear map's columns are what it makes of the unit vectors.
        matrix = np.stack([advance(linear, unit) for unit in np.eye(4)], axis=1)
        return matrix if momentum else matrix[:2, :2]

    def eigenvalues(
        self, learning_rate: float | None = None, scheme: str = "alternating", momentum: float = 0.0
    ) -> NDArray[np.complex128]:
        """Return the eigenvalues that decide about convergence, sorted by real, then imaginary part.

        Without a learning rate they are those of the Jacobian at the equilibrium: in continuous time the game converges
        where all real parts are below 0. With one they are those of ``update_matrix``: the steps converge where all
        moduli are below 1.

        Raises:
            UserError: As ``trajectory``.
        """
        if learning_rate is None:
            _stepper(1.0, scheme, momentum)  # for its checks: a name with a slip in it is an error here, too
            matrix = self.jacobian()
        else:
            matrix = self.update_matrix(learning_rate, scheme, momentum)
        return np.sort_complex(np.linalg.eigvals(matrix))

    def factor(self, learning_rate: float, scheme: str = "alternating", momentum: float = 0.0) -> float:
        """Return the predicted factor per step of the distance to the equilibrium: the largest modulus.

        Raises:
            UserError: As ``trajectory``.
        """
        return float(np.abs(np.linalg.eigvals(self.update_matrix(learning_rate, scheme, momentum))).max())


@dataclass(frozen=True)
class BilinearGame(Game):
    """``min over theta, max over psi of theta psi``: the smallest game that cannot be won by going downhill.

    It is the Dirac-GAN with Wasserstein's loss, with psi mirrored.
    """

    def losses(self, theta: ArrayLike, psi: ArrayLike) -> tuple[Array, Array]:
        """Return D's and G's loss, ``-theta psi`` and ``theta psi``."""
        theta, psi = _broadcast(theta, psi)
        return -theta * psi, theta * psi

    def vector_field(self, theta: ArrayLike, psi: ArrayLike) -> Array:
        """Return ``(-psi, theta)``, float64 (..., 2): the point turned by a right angle."""
        theta, psi = _broadcast(theta, psi)
        return np.stack([-psi, theta], axis=-1)

    def jacobian(self, theta: float = 0.0, psi: float = 0.0) -> Array:
        """Return ``[[0, -1], [1, 0]]``, the same at every point."""
        _point("theta, psi", (theta, psi))
        return np.array([[0.0, -1.0], [1.0, 0.0]])


@dataclass(frozen=True)
class DiracGAN(Game):
    """The smallest GAN (Mescheder et al. 2018, section 2).

    All real data is the number 0, all generated data is the number theta, and D's logit for x is ``psi x``, above 0
    for "real" as everywhere in this package. (The paper's logit is above 0 for "generated": its psi is our -psi.)

    Attributes:
        loss: The generator's loss, one of ``LOSSES``; D's is ``-log D(0) - log(1 - D(theta))`` in both.
        r1_gamma: The strength gamma of the R1 penalty ``gamma / 2 * E |d logit / dx|^2 = gamma / 2 * psi^2``, which is
            added to D's loss; 0 for none.
    """

    loss: str = "minimax"
    r1_gamma: float = 0.0

    def __post_init__(self) -> None:
        if self.loss not in LOSSES:
            raise UserError(f"loss must be one of {', '.join(LOSSES)}; got {self.loss!r}")
        if not (_is_number(self.r1_gamma) and self.r1_gamma >= 0):
            raise UserError(f"r1_gamma must be a number, at least 0; got {self.r1_gamma!r}")

    def losses(self, theta: ArrayLike, psi: ArrayLike) -> tuple[Array, Array]:
        """Return D's loss, penalty included, and G's."""
        theta, psi = _broadcast(theta, psi)
        logit = theta * psi
        d_loss = math.log(2) + np.logaddexp(0, logit) + self.r1_gamma / 2 * psi**2
        g_loss = -np.logaddexp(0, logit) if self.loss == "minimax" else np.logaddexp(0, -logit)
        return d_loss, g_loss

    def vector_field(self, theta: ArrayLike, psi: ArrayLike) -> Array:
        """Return the two players' directions of descent, float64 (..., 2)."""
        theta, psi = _broadcast(theta, psi)
        logit = theta * psi
        push = _sigmoid(logit) if self.loss == "minimax" else _sigmoid(-logit)
        return np.stack([push * psi, -_sigmoid(logit) * theta - self.r1_gamma * psi], axis=-1)

    def jacobian(self, theta: float = 0.0, psi: float = 0.0) -> Array:
        """Return the vector field's derivative, float64 (2, 2); ``[[0, 1/2], [-1/2, -gamma]]`` at the equilibrium."""
        theta, psi = _point("theta, psi", (theta, psi))
        logit = theta * psi
        d_push, slope = _sigmoid(logit), _sigmoid(logit) * _sigmoid(-logit)
        g_push, g_slope = (d_push, slope) if self.loss == "minimax" else (_sigmoid(-logit), -slope)
        return np.array(
            [
                [g_slope * psi**2, g_push + g_slope * logit],
                [-d_push - slope * logit, -slope * theta**2 - self.r1_gamma],
            ],
            dtype=np.float64,
        )


def radius(points: ArrayLike) -> Array:
    """Return the distance of each point (..., 2) from the equilibrium (0, 0), float64 (...).

    Raises:
        UserError: If ``points`` are not points of two numbers.
    """
    points = _numbers("points", points)
    if points.shape[-1:] != (2,):
        raise UserError(f"points must have shape (..., 2); got {points.shape}")
    return np.linalg.norm(points, axis=-1)


def measured_factor(points: ArrayLike) -> float:
    """Return the factor per step by which the distance to the equilibrium changed along a trajectory.

    It is the slope of the straight line through the logarithm of the distance, by least squares, as a factor; over
    several turns of a spiral that is not quite a circle the deviations cancel.

    Args:
        points: (N, 2), at least three.

    Raises:
        UserError: If there are fewer points, or one lies on the equilibrium or is not finite.
    """
    points = _numbers("points", points)
    if points.ndim != 2 or points.shape[1] != 2 or len(points) < 3:
        raise UserError(f"points must have shape (N, 2) with N at least 3; got {points.shape}")
    distances = radius(points)
    usable = np.isfinite(distances) & (distances > 0)
    if not usable.all():
        first = int(np.argmin(usable))
        raise UserError(f"points must be finite and off the equilibrium; points[{first}] is {points[first].tolist()}")
    slope, _ = np.polyfit(np.arange(len(points)), np.log(distances), 1)
    return math.exp(slope)


def _stepper(learning_rate: float, scheme: str, momentum: float) -> Callable[[Field, Array], Array]:
    """Return the function that makes one step from a state (theta, psi, momentum of theta, momentum of psi)."""
    if scheme not in SCHEMES:
        raise UserError(f"scheme must be one of {', '.join(SCHEMES)}; got {scheme!r}")
    if not (_is_number(learning_rate) and learning_rate > 0):
        raise UserError(f"learning_rate must be a number above 0; got {learning_rate!r}")
    if not (_is_number(momentum) and -1 < momentum < 1):
        raise UserError(f"momentum must be a number between -1 and 1; got {momentum!r}")
    if scheme == "continuous":
        if momentum:
            raise UserError(f"momentum must be 0 in the scheme 'continuous'; got {momentum!r}")
        return lambda field, state: _flow(field, state, learning_rate)
    together = scheme == "simultaneous"
    return lambda field, state: _players_step(field, state, learning_rate, momentum, together)


def _players_step(field: Field, state: Array, learning_rate: float, momentum: float, together: bool) -> Array:
    theta, psi, theta_momentum, psi_momentum = state
    before = field(theta, psi)
    psi_momentum = momentum * psi_momentum + (1 - momentum) * before[1]
    psi = psi + learning_rate * psi_momentum
    for_theta = before if together else field(theta, psi)
    theta_momentum = momentum * theta_momentum + (1 - momentum) * for_theta[0]
    return np.array([theta + learning_rate * theta_momentum, psi, theta_momentum, psi_momentum])


def _flow(field: Field, state: Array, time: float) -> Array:
    """Follow the vector field for a time, by the classical Runge-Kutta method of fourth order."""
    point, h = state[:2], time / _SUBSTEPS
    for _ in range(_SUBSTEPS):
        k1 = field(*point)
        k2 = field(*(point + h / 2 * k1))
        k3 = field(*(point + h / 2 * k2))
        k4 = field(*(point + h * k3))
        point = point + h / 6 * (k1 + 2 * k2 + 2 * k3 + k4)
    return np.concatenate([point, state[2:]])


def _broadcast(theta: ArrayLike, psi: ArrayLike) -> tuple[Array, Array]:
    theta, psi = _numbers("theta", theta), _numbers("psi", psi)
    try:
        return tuple(np.broadcast_arrays(theta, psi))
    except ValueError:
        raise UserError(f"theta and psi must have shapes that broadcast; got {theta.shape} and {psi.shape}") from None


def _numbers(name: str, value: ArrayLike) -> Array:
    try:
        if value is None:  # NumPy would make it a nan
            raise TypeError
        return np.asarray(value, np.float64)
    except (TypeError, ValueError):
        raise UserError(f"{name} must be a number or an array of numbers; got {reprlib.repr(value)}") from None


def _sigmoid(x: ArrayLike) -> Array:
    """The sigmoid without overflow, however large x is."""
    return np.exp(-np.logaddexp(0, -np.asarray(x, np.float64)))


def _is_number(value: object) -> bool:
    return isinstance(value, int | float | np.number) and not isinstance(value, bool) and math.isfinite(value)


def _point(name: str, value: ArrayLike) -> Array:
    try:
        point = np.asarray(value, np.float64)
    except (TypeError, ValueError):
        point = np.empty(0)
    if point.shape != (2,) or not np.isfinite(point).all():
        raise UserError(f"{name} must be two finite numbers (theta, psi); got {reprlib.repr(value)}")
    return point
