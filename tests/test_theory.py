import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import integrate, stats
from scipy.optimize import minimize_scalar

from dcgan_lib import losses, theory
from dcgan_lib.densities import sign_changes
from dcgan_lib.errors import UserError
from dcgan_lib.theory import Custom, Mixture, Normal, Uniform

P = Mixture((Normal(-1.5, 0.7), Normal(1.5, 0.7)), (0.4, 0.6))
Q = Normal(0.0, 2.0)
APART = Uniform(0, 1), Uniform(3, 4)
LOG2 = math.log(2)

means, stds = st.floats(-4, 4), st.floats(0.3, 3)
normals = st.builds(Normal, means, stds)
uniforms = st.builds(lambda low, length: Uniform(low, low + length), means, stds)
any_density = st.one_of(normals, uniforms, st.builds(lambda a, b: Mixture((a, b), (0.25, 0.75)), normals, uniforms))


def p_pdf(x):
    return 0.4 * stats.norm(-1.5, 0.7).pdf(x) + 0.6 * stats.norm(1.5, 0.7).pdf(x)


def q_pdf(x):
    return stats.norm(0, 2).pdf(x)


def quad(function, low=-20, high=20):
    return integrate.quad(function, low, high, epsabs=1e-13, epsrel=1e-12, limit=500, points=(-1.5, 0, 1.5))[0]


def test_optimal_discriminator_is_p_over_p_plus_q():
    x = np.linspace(-6, 6, 101)
    expected = p_pdf(x) / (p_pdf(x) + q_pdf(x))
    np.testing.assert_allclose(theory.optimal_discriminator(P, Q)(torch.from_numpy(x)), expected, rtol=1e-12)
    np.testing.assert_allclose(
        theory.optimal_logit(P, Q)(torch.from_numpy(x)), np.log(p_pdf(x) / q_pdf(x)), rtol=1e-10, atol=1e-12
    )


def test_optimal_logit_is_right_where_both_densities_round_to_zero():
    x = torch.tensor([60.0])
    assert float(Normal(0, 1).pdf(x)) == float(Normal(1, 1).pdf(x)) == 0
    torch.testing.assert_close(
        theory.optimal_logit(Normal(0, 1), Normal(1, 1))(x), torch.tensor([0.5 - 60.0], dtype=torch.float64)
    )


def test_optimal_discriminator_is_free_where_nobody_has_mass():
    d = theory.optimal_discriminator(*APART, real_label=0.9, fake_label=0.2)(torch.tensor([0.5, 2.0, 3.5]))
    np.testing.assert_allclose(d, [0.9, math.nan, 0.2])


@pytest.mark.parametrize("labels", [(1.0, 0.0), (0.9, 0.0), (0.9, 0.1), (1.0, 0.3)])
@pytest.mark.parametrize("x", [-3.0, -1.0, 0.2, 2.5])
def test_optimal_discriminator_maximises_the_objective_at_every_point(labels, x):
    a, b = labels
    p, q = p_pdf(x), q_pdf(x)

    def cross_entropy(d):
        return -(a * p + b * q) * math.log(d) - ((1 - a) * p + (1 - b) * q) * math.log(1 - d)

    best = minimize_scalar(cross_entropy, bounds=(1e-9, 1 - 1e-9), method="bounded", options={"xatol": 1e-12}).x
    got = float(theory.optimal_discriminator(P, Q, a, b)(x))
    assert math.isclose(got, best, abs_tol=1e-6)


@pytest.mark.parametrize("labels", [(1.0, 0.0), (0.9, 0.0), (0.9, 0.1)])
def test_value_is_that_of_scipy(labels):
    a, b = labels

    def integrand(x):
        d = 1 / (1 + math.exp(-math.sin(x)))
        return p_pdf(x) * (a * math.log(d) + (1 - a) * math.log(1 - d)) + q_pdf(x) * (
            b * math.log(d) + (1 - b) * math.log(1 - d)
        )

    assert math.isclose(theory.value(torch.sin, P, Q, a, b), quad(integrand), abs_tol=1e-11)


def test_value_is_minus_the_discriminators_loss_on_samples():
    real, fake = (density.sample(200_000, seed) for seed, density in enumerate((P, Q)))
    loss = losses.minimax(torch.sin(real), torch.sin(fake), 0.9).d_loss
    assert math.isclose(theory.value(torch.sin, P, Q, 0.9), -float(loss), abs_tol=0.005)


def test_value_at_the_optimum_is_twice_js_minus_log_four():
    assert math.isclose(theory.value(theory.optimal_logit(P, Q), P, Q), 2 * theory.js(P, Q) - 2 * LOG2, abs_tol=1e-12)
    assert theory.value(theory.optimal_logit(P, P), P, P) == pytest.approx(-2 * LOG2, abs=1e-12)


def test_value_of_perfect_and_of_certainly_wrong_discriminators():
    perfect = theory.optimal_logit(*APART)
    assert theory.value(lambda x: perfect(x).nan_to_num(nan=0.0, posinf=math.inf, neginf=-math.inf), *APART) == 0
    assert theory.value(perfect, *APART) == 0  # NaN between the two supports counts nothing
    assert theory.value(lambda x: -perfect(x), *APART) == -math.inf


@pytest.mark.parametrize(("a", "b", "c", "d"), [(0.0, 1.0, 1.0, 2.0), (1.5, 0.5, -1.0, 0.7), (0.0, 1.0, 6.0, 1.0)])
def test_divergences_of_normals_are_their_closed_forms(a, b, c, d):
    p, q = Normal(a, b), Normal(c, d)
    expected = math.log(d / b) + (b**2 + (a - c) ** 2) / (2 * d**2) - 0.5
    assert math.isclose(theory.kl(p, q), expected, rel_tol=1e-12)
    if b == d:
        assert math.isclose(theory.wasserstein(p, q), abs(a - c), rel_tol=1e-12)
        expected = 2 * stats.norm.cdf(abs(a - c) / (2 * b)) - 1
        assert math.isclose(theory.total_variation(p, q), expected, rel_tol=1e-12)


def test_divergences_are_those_of_scipy():
    def middle(x):
        return (p_pdf(x) + q_pdf(x)) / 2

    js = quad(lambda x: p_pdf(x) * np.log(p_pdf(x) / middle(x)) + q_pdf(x) * np.log(q_pdf(x) / middle(x))) / 2
    assert math.isclose(theory.js(P, Q), js, abs_tol=1e-11)
    assert math.isclose(theory.kl(P, Q), quad(lambda x: p_pdf(x) * np.log(p_pdf(x) / q_pdf(x))), abs_tol=1e-10)
    assert math.isclose(theory.total_variation(P, Q), quad(lambda x: abs(p_pdf(x) - q_pdf(x))) / 2, abs_tol=1e-9)

    def gap(x):
        return abs(0.4 * stats.norm.cdf(x, -1.5, 0.7) + 0.6 * stats.norm.cdf(x, 1.5, 0.7) - stats.norm.cdf(x, 0, 2))

    assert math.isclose(theory.wasserstein(P, Q), quad(gap), abs_tol=1e-8)


def test_wasserstein_is_that_of_samples():
    u = (torch.arange(200_000, dtype=torch.float64) + 0.5) / 200_000
    expected = stats.wasserstein_distance(P.quantile(u).numpy(), Q.quantile(u).numpy())
    assert math.isclose(theory.wasserstein(P, Q), expected, abs_tol=1e-4)


def test_disjoint_densities():
    assert math.isclose(theory.js(*APART), LOG2, rel_tol=1e-13)
    assert math.isclose(theory.total_variation(*APART), 1, rel_tol=1e-13)
    assert theory.kl(*APART) == math.inf
    assert math.isclose(theory.wasserstein(*APART), 3, rel_tol=1e-12)


@pytest.mark.parametrize("shift", [0.0, 0.25, 0.8, 1.0, 2.5])
def test_shifted_uniform_densities_have_closed_forms(shift):
    p, q = Uniform(0, 1), Uniform(shift, 1 + shift)
    assert math.isclose(theory.js(p, q), min(shift, 1) * LOG2, abs_tol=1e-13)
    assert math.isclose(theory.total_variation(p, q), min(shift, 1), abs_tol=1e-13)
    assert math.isclose(theory.wasserstein(p, q), shift, abs_tol=1e-13)


@settings(max_examples=40, deadline=None)
@given(any_density, any_density)
def test_divergences_keep_their_inequalities(p, q):
    js, tv, w = theory.js(p, q), theory.total_variation(p, q), theory.wasserstein(p, q)
    assert -1e-12 <= js <= LOG2 + 1e-12
    assert math.isclose(js, theory.js(q, p), abs_tol=1e-11)
    assert math.isclose(w, theory.wasserstein(q, p), abs_tol=1e-10)
    assert tv**2 / 2 - 1e-10 <= js <= tv * LOG2 + 1e-10  # Pinsker on each half; Lin 1991, theorem 3
    assert math.isclose(theory.value(theory.optimal_logit(p, q), p, q), 2 * js - 2 * LOG2, abs_tol=1e-10)
    points, weights = theory.grid(p, q)
    mean_gap = float(weights @ (points * (p.pdf(points) - q.pdf(points))))
    assert w >= abs(mean_gap) - 1e-9


@settings(max_examples=30, deadline=None)
@given(any_density, any_density)
def test_critic_is_lipschitz_and_reaches_the_distance(p, q):
    critic = theory.optimal_critic(p, q)
    points = theory.grid(p, q).points
    assert ((critic(points[1:]) - critic(points[:-1])).abs() <= points[1:] - points[:-1] + 1e-12).all()
    kinks = sign_changes(lambda x: p.cdf(x) - q.cdf(x), p, q)
    reached = theory.integrate(lambda x: critic(x) * (p.pdf(x) - q.pdf(x)), p, q, splits=kinks)
    assert math.isclose(reached, theory.wasserstein(p, q), abs_tol=1e-9)


def test_critic_of_shifted_densities_is_a_ramp():
    critic = theory.optimal_critic(Normal(0, 1), Normal(2, 1))
    x = torch.linspace(-5, 5, 11, dtype=torch.float64)
    torch.testing.assert_close(critic(x) - critic(torch.zeros(())), -x)


def test_generator_slopes_are_the_derivatives_of_the_losses():
    logits = np.linspace(-30, 30, 61)
    d = 1 / (1 + np.exp(-logits))
    slopes = theory.generator_slopes(torch.from_numpy(logits))
    np.testing.assert_allclose(slopes.minimax, -d, rtol=1e-14)
    np.testing.assert_allclose(slopes.non_saturating, -1 / (1 + np.exp(logits)), rtol=1e-14)
    step = 1e-5
    for name in ("minimax", "non_saturating"):
        loss = getattr(losses, name)
        for index in range(0, 61, 6):
            near = [torch.tensor([logits[index] + sign * step], dtype=torch.float64) for sign in (1, -1)]
            up, down = (float(loss(logit, logit).g_loss) for logit in near)
            assert math.isclose(float(getattr(slopes, name)[index]), (up - down) / (2 * step), abs_tol=1e-9)


@pytest.mark.parametrize(("mean", "std"), [(0.5, 1.0), (-1.0, 0.6), (4.0, 1.5)])
def test_generator_gradients_are_those_of_divergences(mean, std):
    def numerically(function, h=1e-4):
        by_mean = function(Normal(mean + h, std)) - function(Normal(mean - h, std))
        by_std = function(Normal(mean, std + h)) - function(Normal(mean, std - h))
        return torch.tensor([by_mean, by_std], dtype=torch.float64) / (2 * h)

    got = theory.normal_generator_gradients(P, mean, std)
    js_gradient = numerically(lambda q: 2 * theory.js(P, q))
    kl_gradient = numerically(lambda q: theory.kl(q, P))
    torch.testing.assert_close(got.minimax, js_gradient, rtol=1e-6, atol=1e-7)
    torch.testing.assert_close(got.non_saturating, kl_gradient - js_gradient, rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("labels", [(1.0, 0.0), (0.9, 0.0), (0.9, 0.1), (1.0, 0.2)])
def test_generator_gradients_are_those_of_the_losses_at_a_fixed_discriminator(labels):
    mean, std, h = 1.2, 0.8, 1e-4
    d = theory.optimal_discriminator(P, Normal(mean, std), *labels)

    def numerically(function):
        loss = [theory.integrate(lambda x, q=q: function(d(x)) * q.pdf(x), P, Normal(mean, std), q) for q in near]
        return torch.tensor([loss[0] - loss[1], loss[2] - loss[3]], dtype=torch.float64) / (2 * h)

    near = Normal(mean + h, std), Normal(mean - h, std), Normal(mean, std + h), Normal(mean, std - h)
    got = theory.normal_generator_gradients(P, mean, std, *labels)
    torch.testing.assert_close(got.minimax, numerically(lambda d: (1 - d).log()), rtol=1e-6, atol=1e-7)
    torch.testing.assert_close(got.non_saturating, numerically(lambda d: -d.log()), rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("labels", [(1.0, 0.0), (0.9, 0.1)])
def test_fitted_discriminator_comes_near_the_optimum(labels):
    p, q = Normal(-1, 1), Normal(1, 1)
    discriminator = theory.fit_discriminator(p, q, *labels, steps=400, batch=512, seed=1)
    x = torch.linspace(-3, 3, 61, dtype=torch.float64)
    best = theory.optimal_discriminator(p, q, *labels)(x)
    gap = (discriminator(x).sigmoid() - best).abs().max()
    assert 0 < float(gap) < 0.06
    best_value = theory.value(lambda x: theory.optimal_discriminator(p, q, *labels)(x).logit(), p, q, *labels)
    lost = best_value - theory.value(discriminator, p, q, *labels)
    assert 0 < lost < 0.005


def test_fitting_depends_on_the_seed_alone():
    state = torch.get_rng_state()
    first, again, other = (theory.fit_discriminator(P, Q, steps=2, batch=8, seed=seed) for seed in (0, 0, 1))
    x = torch.zeros(1, dtype=torch.float64)
    assert torch.equal(first(x), again(x))
    assert not torch.equal(first(x), other(x))
    assert torch.equal(state, torch.get_rng_state())
    assert first(x).dtype == torch.float64
    assert not first(x).requires_grad


def test_fitting_does_not_depend_on_the_default_dtype():
    x = torch.linspace(-2, 2, 5, dtype=torch.float64)
    expected = theory.fit_discriminator(P, Q, steps=2, batch=8)(x)
    torch.set_default_dtype(torch.float64)
    try:
        assert torch.equal(theory.fit_discriminator(P, Q, steps=2, batch=8)(x), expected)
    finally:
        torch.set_default_dtype(torch.float32)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: theory.optimal_discriminator(P, Q, 1.05), r"real_label=1.05, fake_label=0.0"),
        (
            lambda: theory.optimal_discriminator(P, Q, 0.4, 0.5),
            r"0 <= fake < real <= 1: real_label=0.4, fake_label=0.5",
        ),
        (lambda: theory.optimal_discriminator(P, Q, 0.9, -0.1), r"real_label=0.9, fake_label=-0.1"),
        (lambda: theory.optimal_discriminator(P, Q, math.nan), r"real_label=nan"),
        (lambda: theory.value(torch.sin, P, Q, 0.9, 0.9), r"real_label=0.9, fake_label=0.9"),
        (lambda: theory.normal_generator_gradients(P, 0.0, -1.0), r"std=-1.0 must be above 0"),
        (lambda: theory.normal_generator_gradients(P, 0.0, 1.0, 1.2), r"real_label=1.2"),
        (lambda: theory.fit_discriminator(P, Q, 1.2), r"real_label=1.2"),
        (lambda: theory.fit_discriminator(P, Q, steps=0), r"steps=0 must be at least 1"),
        (lambda: theory.fit_discriminator(P, Q, batch=0), r"batch=0 must be at least 1"),
        (lambda: theory.kl(P, Q, nodes=0), r"nodes=0 must be at least 1"),
        (lambda: theory.js(P, Custom(lambda x: 0 * x + 2, (0.0, 1.0))), r"function integrates to 2 between"),
        (lambda: theory.value(lambda x: x.log(), P, Q), r"function is not a number at x="),
        (lambda: theory.value(lambda x: x[:1], P, Q), r"logit gives shape \(1,\) for points of shape"),
        (lambda: theory.value(lambda x: 0.0, P, Q), r"logit gives float, not a tensor, for points of shape"),
        (lambda: theory.value(3, P, Q), r"logit=3 must be a function of points"),
        (lambda: theory.value(torch.sin, 3, Q), r"p=3 must be a density"),
        (lambda: theory.value(torch.sin, P, Q, "real"), r"real_label='real' must be a finite number"),
        (lambda: theory.optimal_logit(3, Q), r"p=3 must be a density"),
        (lambda: theory.optimal_discriminator(P, None), r"q=None must be a density"),
        (lambda: theory.kl(P, 3), r"q=3 must be a density"),
        (lambda: theory.js(3, P), r"p=3 must be a density"),
        (lambda: theory.total_variation(P, 3), r"q=3 must be a density"),
        (lambda: theory.wasserstein(P, 3), r"q=3 must be a density"),
        (lambda: theory.optimal_critic(P, 3), r"q=3 must be a density"),
        (lambda: theory.optimal_critic(P, Q)(math.nan), r"x must be numbers, got NaN"),
        (lambda: theory.generator_slopes(math.nan), r"logit must be numbers, got NaN"),
        (lambda: theory.normal_generator_gradients(3, 0.0, 1.0), r"p=3 must be a density"),
        (lambda: theory.normal_generator_gradients(P, math.nan, 1.0), r"mean=nan must be a finite number"),
        (lambda: theory.normal_generator_gradients(Uniform(0, 1), 0.0, 1.0), r"p=Uniform\(.*\) is zero at x=-9.99"),
        (lambda: theory.LineDiscriminator(scale=-1.0), r"scale=-1.0 must be above 0"),
        (lambda: theory.LineDiscriminator(centre=math.nan), r"centre=nan must be a finite number"),
        (lambda: theory.LineDiscriminator(hidden=0), r"hidden=0 must be at least 1"),
        (
            lambda: theory.LineDiscriminator()(torch.zeros(2, 3)),
            r"x of shape \(2, 3\) must be a tensor of points, \(N,\)",
        ),
        (lambda: theory.fit_discriminator(P, 3), r"q=3 must be a density"),
        (lambda: theory.fit_discriminator(P, Q, steps=1.5), r"steps=1.5 must be at least 1, a whole number"),
        (lambda: theory.fit_discriminator(P, Q, seed=0.5), r"seed=0.5 must be a whole number"),
    ],
)
def test_wrong_arguments_are_named(call, message):
    with pytest.raises(UserError, match=message) as caught:
        call()
    assert "\n" not in str(caught.value)
