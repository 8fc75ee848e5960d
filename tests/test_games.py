"""The games against finite differences, autograd through the package's losses, closed forms and what is measured."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import torch
from torch.testing import assert_close

from dcgan_lib import losses
from dcgan_lib.errors import UserError
from dcgan_lib.games import LOSSES, BilinearGame, DiracGAN, measured_factor, radius

GAMES = [BilinearGame(), *(DiracGAN(loss, gamma) for loss in LOSSES for gamma in (0.0, 0.7))]
POINTS = [(0.0, 0.0), (1.3, -0.4), (-2.0, 0.9), (0.5, 3.0)]
STEP_SIZES = (0.05, 0.3, 1.0)


def close(actual, expected, **tolerances):
    """Compare in float64, or complex."""
    assert_close(np.asarray(actual) + 0j, np.asarray(expected) + 0j, **tolerances)


@pytest.mark.parametrize("game", GAMES, ids=str)
@pytest.mark.parametrize("point", POINTS)
def test_the_field_is_each_players_downhill_direction_and_the_jacobian_its_derivative(game, point):
    width = 1e-5
    slopes = np.empty(2)
    derivative = np.empty((2, 2))
    for parameter in range(2):
        plus, minus = np.array(point), np.array(point)
        plus[parameter] += width
        minus[parameter] -= width
        # Each player looks at its own loss: G at losses[1], D at losses[0].
        slopes[parameter] = (game.losses(*plus)[1 - parameter] - game.losses(*minus)[1 - parameter]) / (2 * width)
        derivative[:, parameter] = (game.vector_field(*plus) - game.vector_field(*minus)) / (2 * width)
    close(game.vector_field(*point), -slopes, rtol=1e-8, atol=1e-9)
    close(game.jacobian(*point), derivative, rtol=1e-8, atol=1e-9)


@pytest.mark.parametrize("name", LOSSES)
@pytest.mark.parametrize("gamma", [0.0, 0.7])
@pytest.mark.parametrize("point", POINTS)
def test_the_dirac_gan_is_a_gan_with_the_packages_own_losses(name, gamma, point):
    theta, psi = (torch.tensor(value, dtype=torch.float64, requires_grad=True) for value in point)
    real = torch.zeros(1, 1, dtype=torch.float64, requires_grad=True)  # all real data is the number 0
    real_logits, fake_logits = psi * real[:, 0], (psi * theta)[None]
    d_loss, g_loss = getattr(losses, name)(real_logits, fake_logits)
    d_loss = d_loss + gamma / 2 * losses.r1(real_logits, real)
    (g_slope,) = torch.autograd.grad(g_loss, theta, retain_graph=True)
    (d_slope,) = torch.autograd.grad(d_loss, psi)

    game = DiracGAN(name, gamma)
    close(game.vector_field(*point), [-g_slope.item(), -d_slope.item()], rtol=1e-12, atol=1e-15)
    close(game.losses(*point), [d_loss.item(), g_loss.item()], rtol=1e-12, atol=1e-15)


@pytest.mark.parametrize("game", GAMES, ids=str)
def test_the_field_takes_whole_grids(game):
    theta, psi = np.meshgrid(np.linspace(-2, 2, 3), np.linspace(-1, 1, 5))
    field = game.vector_field(theta, psi)
    assert field.shape == (5, 3, 2)
    assert field.dtype == np.float64
    close(field[4, 1], game.vector_field(theta[4, 1], psi[4, 1]))
    assert game.vector_field(0.5, np.zeros(4)).shape == (4, 2)


def test_a_very_sure_discriminator_does_not_overflow():
    with np.errstate(all="raise", under="ignore"):
        close(DiracGAN().vector_field(100.0, 100.0), [100.0, -100.0])
        close(DiracGAN().vector_field(100.0, -100.0), [0.0, 0.0])
        close(DiracGAN("non_saturating").vector_field(100.0, -100.0), [-100.0, 0.0])
        close(DiracGAN().losses(100.0, 100.0), [math.log(2) + 1e4, -1e4])


def test_simultaneous_players_look_at_one_point_and_alternating_ones_at_two():
    game, h = BilinearGame(), 0.5
    close(game.simultaneous_step((1, 2), h), [1 - h * 2, 2 + h * 1])
    psi = 2 + h * 1  # D first
    close(game.alternating_step((1, 2), h), [1 - h * psi, psi])

    game = DiracGAN("non_saturating", 0.3)
    theta, psi = 0.8, -0.5
    g, d = game.vector_field(theta, psi)
    close(game.simultaneous_step((theta, psi), h), [theta + h * g, psi + h * d])
    psi += h * d
    close(game.alternating_step((theta, -0.5), h), [theta + h * game.vector_field(theta, psi)[0], psi])


def test_a_trajectory_is_its_steps():
    game = DiracGAN(r1_gamma=0.4)
    points = game.trajectory((1.0, 0.5), 4, 0.2)
    assert points.shape == (5, 2)
    assert points.dtype == np.float64
    close(points[0], [1.0, 0.5])
    for before, after in itertools.pairwise(points):
        close(after, game.alternating_step(before, 0.2))
    assert game.trajectory((1.0, 0.5), 0, 0.2).shape == (1, 2)


@pytest.mark.parametrize("h", STEP_SIZES)
def test_bilinear_simultaneous_steps_grow_by_the_closed_form(h):
    game = BilinearGame()
    close(game.eigenvalues(h, "simultaneous"), [1 - 1j * h, 1 + 1j * h])
    close(game.factor(h, "simultaneous"), math.sqrt(1 + h * h))
    distances = radius(game.trajectory((1.0, -2.0), 50, h, "simultaneous"))
    close(distances, math.sqrt(5) * (1 + h * h) ** (np.arange(51) / 2), rtol=1e-12, atol=0)


@pytest.mark.parametrize("h", STEP_SIZES)
def test_bilinear_alternating_steps_stay_on_an_ellipse(h):
    game = BilinearGame()
    real = 1 - h * h / 2  # of the characteristic polynomial x^2 - (2 - h^2) x + 1
    close(game.eigenvalues(h), [real - 1j * math.sqrt(1 - real**2), real + 1j * math.sqrt(1 - real**2)])
    close(game.factor(h), 1.0)
    theta, psi = game.trajectory((1.0, -2.0), 2000, h).T
    close(theta**2 + psi**2 + h * theta * psi, np.full(2001, 1 + 4 - 2 * h), rtol=1e-10, atol=0)


def test_bilinear_alternating_steps_of_more_than_two_diverge():
    assert BilinearGame().factor(1.9) == pytest.approx(1)
    trace = 2 - 2.1**2
    assert BilinearGame().factor(2.1) == pytest.approx((abs(trace) + math.sqrt(trace**2 - 4)) / 2)


@pytest.mark.parametrize("name", LOSSES)
@pytest.mark.parametrize("gamma", [0.0, 0.4, 1.7])
def test_dirac_eigenvalues_in_continuous_time_are_those_of_the_paper(name, gamma):
    # Mescheder et al. (2018), with f'(0) = 1/2.
    root = np.emath.sqrt(gamma**2 / 4 - 1 / 4)
    game = DiracGAN(name, gamma)
    close(game.eigenvalues(), np.sort_complex(np.array([-gamma / 2 - root, -gamma / 2 + root]) + 0j))
    moduli = np.abs(np.exp(0.3 * game.eigenvalues()))
    assert game.factor(0.3, "continuous") == pytest.approx(moduli.max(), rel=1e-9)


@pytest.mark.parametrize("h", [0.05, 0.3])
@pytest.mark.parametrize("gamma", [0.0, 0.2, 0.7])
def test_dirac_factors_below_critical_damping(h, gamma):
    game = DiracGAN(r1_gamma=gamma)
    assert game.factor(h, "simultaneous") == pytest.approx(math.sqrt(1 - h * gamma + h * h / 4))
    assert game.factor(h, "alternating") == pytest.approx(math.sqrt(1 - h * gamma))


@pytest.mark.parametrize(("scheme", "best"), [("simultaneous", lambda h: 1.0), ("alternating", lambda h: 1 - h / 4)])
@pytest.mark.parametrize("h", [0.1, 0.5])
def test_critical_damping_is_the_best_strength(scheme, best, h):
    strengths = np.linspace(0, 2, 2001)
    factors = [DiracGAN(r1_gamma=float(gamma)).factor(h, scheme) for gamma in strengths]
    assert strengths[np.argmin(factors)] == pytest.approx(best(h), abs=1e-3)
    # At the best strength the two eigenvalues meet, where the root makes them sensitive to rounding.
    assert DiracGAN(r1_gamma=best(h)).factor(h, scheme) == pytest.approx(1 - h / 2, abs=1e-7)


@pytest.mark.parametrize("name", LOSSES)
@pytest.mark.parametrize("scheme", ["simultaneous", "alternating", "continuous"])
@pytest.mark.parametrize("gamma", [0.2, 0.7])
def test_the_measured_spiral_is_the_predicted_one(name, scheme, gamma):
    game = DiracGAN(name, gamma)
    points = game.trajectory((1e-3, 0.0), 1000, 0.2, scheme)
    points = points[radius(points) > 1e-150]
    assert measured_factor(points) == pytest.approx(game.factor(0.2, scheme), rel=3e-4)


@pytest.mark.parametrize("momentum", [-0.4, 0.5, 0.9])
@pytest.mark.parametrize("scheme", ["simultaneous", "alternating"])
def test_momentum_is_the_running_mean_of_the_field(momentum, scheme):
    game, h = DiracGAN(r1_gamma=0.3), 0.2
    (theta, psi), m = (0.7, -0.2), [0.0, 0.0]
    points = game.trajectory((theta, psi), 5, h, scheme, momentum)
    for expected in points[1:]:
        old = game.vector_field(theta, psi)
        m[1] = momentum * m[1] + (1 - momentum) * old[1]
        psi += h * m[1]
        new = game.vector_field(theta, psi)
        m[0] = momentum * m[0] + (1 - momentum) * (new if scheme == "alternating" else old)[0]
        theta += h * m[0]
        close([theta, psi], expected)


def test_momentum_decides_about_the_bilinear_game():
    game = BilinearGame()
    assert game.update_matrix(0.2, momentum=0.5).shape == (4, 4)
    assert game.update_matrix(0.2).shape == (2, 2)
    for momentum in (-0.3, 0.5, 0.9):
        measured = measured_factor(game.trajectory((1.0, 0.0), 2000, 0.2, "alternating", momentum)[50:])
        assert measured == pytest.approx(game.factor(0.2, "alternating", momentum), rel=2e-4)
        assert (measured > 1) == (momentum > 0)


def test_the_continuous_minimax_game_runs_in_circles_and_the_non_saturating_one_creeps_in():
    circle = radius(DiracGAN().trajectory((1.0, 1.0), 300, 0.1, "continuous"))
    close(circle, np.full(301, math.sqrt(2)), rtol=1e-8, atol=0)
    # d radius^2 / dt = -2 t tanh(t / 2) with t = theta psi, from the vector field with pen and paper.
    points = DiracGAN("non_saturating").trajectory((1.0, 1.0), 300, 0.1, "continuous")
    t = points.prod(axis=1)
    rate = -2 * t * np.tanh(t / 2)
    change = np.sum((rate[:-1] + rate[1:]) / 2) * 0.1
    assert radius(points)[-1] ** 2 - 2 == pytest.approx(change, rel=1e-2)
    assert change < -0.5


def test_a_measured_factor_is_that_of_a_geometric_spiral():
    angles = np.arange(40) * 0.3
    points = 0.93 ** np.arange(40)[:, None] * np.stack([np.cos(angles), np.sin(angles)], axis=1)
    assert measured_factor(points) == pytest.approx(0.93)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: DiracGAN("hinge"), "loss must be one of minimax, non_saturating; got 'hinge'"),
        (lambda: DiracGAN(r1_gamma=-0.1), "r1_gamma must be a number, at least 0; got -0.1"),
        (lambda: DiracGAN(r1_gamma=math.nan), "r1_gamma must be a number, at least 0; got nan"),
        (lambda: BilinearGame().factor(0.0), "learning_rate must be a number above 0; got 0.0"),
        (lambda: BilinearGame().simultaneous_step((1, 1), -1), "learning_rate must be a number above 0; got -1"),
        (lambda: BilinearGame().factor(0.1, "both"), "scheme must be one of .*; got 'both'"),
        (lambda: BilinearGame().factor(0.1, momentum=1), "momentum must be a number between -1 and 1; got 1"),
        (lambda: BilinearGame().factor(0.1, "continuous", 0.5), "momentum must be 0 in .* 'continuous'; got 0.5"),
        (lambda: BilinearGame().trajectory((1, 1), -2, 0.1), "steps must be a whole number .*; got -2"),
        (lambda: BilinearGame().trajectory((1, 1), 2.5, 0.1), "steps must be a whole number .*; got 2.5"),
        (lambda: BilinearGame().trajectory((1, 1, 1), 2, 0.1), r"start must be two finite numbers .*\(1, 1, 1\)"),
        (lambda: BilinearGame().trajectory("ab", 2, 0.1), "start must be two finite numbers .*'ab'"),
        (lambda: BilinearGame().trajectory((1, math.inf), 2, 0.1), "start must be two finite numbers .*inf"),
        (lambda: measured_factor([[1, 1], [2, 2]]), r"points must have shape \(N, 2\) .* got \(2, 2\)"),
        (lambda: measured_factor([[1, 1], [0, 0], [2, 2]]), r"points must be finite .* points\[1\] is \[0.0, 0.0\]"),
        (lambda: measured_factor("abc"), "points must be a number or an array of numbers; got 'abc'"),
        (lambda: radius([1, 2, 3]), r"points must have shape \(..., 2\); got \(3,\)"),
        (lambda: radius(3.0), r"points must have shape \(..., 2\); got \(\)"),
        (lambda: BilinearGame().losses("a", 1), "theta must be .* numbers; got 'a'"),
        (lambda: BilinearGame().vector_field(1, None), "psi must be .* numbers; got None"),
        (lambda: DiracGAN().vector_field([1, 2], [1, 2, 3]), r"theta and psi .* got \(2,\) and \(3,\)"),
        (lambda: DiracGAN().jacobian([1, 2], 1), r"theta, psi must be two finite numbers .*\(\[1, 2\], 1\)"),
        (lambda: BilinearGame().jacobian("a"), "theta, psi must be two finite numbers .*'a'"),
        (lambda: BilinearGame().factor(None), "learning_rate must be a number above 0; got None"),
        (lambda: BilinearGame().eigenvalues(None, "both"), "scheme must be one of .*; got 'both'"),
    ],
)
def test_wrong_arguments_are_named(call, message):
    with pytest.raises(UserError, match=message) as error:
        call()
    assert "\n" not in str(error.value)
