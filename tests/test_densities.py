import math
from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import integrate as scipy_integrate
from scipy import stats

from dcgan_lib import densities
from dcgan_lib.densities import Custom, Mixture, Normal, Uniform
from dcgan_lib.errors import UserError

TRIANGLE = Custom(lambda x: 1 - x.abs(), (-1.0, 0.0, 1.0))
TWO_BUMPS = Mixture((Normal(-1.5, 0.7), Uniform(0.5, 2.0)), (0.4, 0.6))

# The same densities in SciPy; the mixture is summed up here.
REFERENCES = [
    (Normal(0.3, 1.7), stats.norm(0.3, 1.7).pdf, stats.norm(0.3, 1.7).cdf),
    (Uniform(-1.0, 3.0), stats.uniform(-1, 4).pdf, stats.uniform(-1, 4).cdf),
    (TRIANGLE, stats.triang(0.5, -1, 2).pdf, stats.triang(0.5, -1, 2).cdf),
    (
        TWO_BUMPS,
        lambda x: 0.4 * stats.norm(-1.5, 0.7).pdf(x) + 0.6 * stats.uniform(0.5, 1.5).pdf(x),
        lambda x: 0.4 * stats.norm(-1.5, 0.7).cdf(x) + 0.6 * stats.uniform(0.5, 1.5).cdf(x),
    ),
]
NAMES = [type(density).__name__ for density, *_ in REFERENCES]
POINTS = torch.linspace(-6, 6, 241, dtype=torch.float64)


@pytest.mark.parametrize(("density", "pdf", "cdf"), REFERENCES, ids=NAMES)
def test_pdf_and_cdf_are_those_of_scipy(density, pdf, cdf):
    np.testing.assert_allclose(density.pdf(POINTS), pdf(POINTS.numpy()), rtol=1e-12, atol=1e-15)
    np.testing.assert_allclose(density.cdf(POINTS), cdf(POINTS.numpy()), rtol=1e-12, atol=1e-14)
    with np.errstate(divide="ignore"):
        np.testing.assert_allclose(density.log_pdf(POINTS), np.log(pdf(POINTS.numpy())), rtol=1e-11, atol=1e-14)
    assert density.pdf(POINTS).dtype == density.cdf(POINTS).dtype == torch.float64


@pytest.mark.parametrize(("density", "pdf", "cdf"), REFERENCES, ids=NAMES)
def test_shape_is_kept(density, pdf, cdf):
    points = POINTS[:12].reshape(3, 4)
    for function in (density.pdf, density.cdf, density.log_pdf):
        torch.testing.assert_close(function(points).flatten(), function(points.flatten()))
        assert function(points).shape == (3, 4)
        assert function(0.5).shape == ()


@pytest.mark.parametrize(("density", "pdf", "cdf"), REFERENCES, ids=NAMES)
def test_quantile_inverts_the_cdf(density, pdf, cdf):
    u = torch.linspace(0.001, 0.999, 57, dtype=torch.float64)
    np.testing.assert_allclose(cdf(density.quantile(u).numpy()), u, rtol=0, atol=1e-12)


def test_quantile_of_a_normal_is_that_of_scipy():
    u = torch.linspace(0.001, 0.999, 57, dtype=torch.float64)
    np.testing.assert_allclose(Normal(2.0, 3.0).quantile(u), stats.norm(2, 3).ppf(u.numpy()), rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize(("density", "pdf", "cdf"), REFERENCES, ids=NAMES)
def test_samples_follow_the_density(density, pdf, cdf):
    drawn = density.sample(20_000, seed=3)
    assert drawn.shape == (20_000,)
    assert drawn.dtype == torch.float64
    assert stats.kstest(drawn.numpy(), cdf).pvalue > 0.01
    assert torch.equal(drawn, density.sample(20_000, seed=3))
    assert not torch.equal(drawn, density.sample(20_000, seed=4))


def test_a_generator_goes_on_and_the_global_one_stays():
    random = torch.Generator().manual_seed(5)
    state = torch.get_rng_state()
    first, second = TWO_BUMPS.sample(10, random), TWO_BUMPS.sample(10, random)
    assert not torch.equal(first, second)
    torch.testing.assert_close(first, TWO_BUMPS.sample(10, seed=5))
    assert torch.equal(state, torch.get_rng_state())


@pytest.mark.parametrize(("density", "pdf", "cdf"), REFERENCES, ids=NAMES)
def test_integrals_are_those_of_scipy(density, pdf, cdf):
    got = densities.integrate(lambda x: density.pdf(x) * torch.cos(x), density)
    edges = [edge for edge in density.edges if abs(edge) < 12]
    expected = sum(
        scipy_integrate.quad(lambda x: pdf(x) * math.cos(x), a, b, epsabs=1e-14, epsrel=1e-13)[0]
        for a, b in pairwise(edges)
    )
    assert math.isclose(got, expected, abs_tol=1e-12)
    assert math.isclose(densities.integrate(density.pdf, density), 1, abs_tol=1e-12)


@settings(max_examples=50, deadline=None)
@given(
    st.floats(-50, 50),
    st.floats(0.01, 20),
    st.floats(-50, 50),
    st.floats(0.01, 20),
)
def test_grid_resolves_densities_of_different_width(mean, std, low, length):
    normal, uniform = Normal(mean, std), Uniform(low, low + length)
    points, weights = densities.grid(normal, uniform)
    assert (points[1:] >= points[:-1]).all()
    for density in (normal, uniform, Mixture((normal, uniform), (0.3, 0.7))):
        assert math.isclose(float(weights @ density.pdf(points)), 1, abs_tol=1e-11)
    second = float(weights @ (normal.pdf(points) * (points - mean).square()))
    assert math.isclose(second, std**2, rel_tol=1e-10)
    assert math.isclose(float(weights @ (uniform.pdf(points) * points)), low + length / 2, abs_tol=1e-10)


def test_panels_integrate_polynomials_exactly_up_to_twice_the_nodes():
    for nodes in (1, 2, 5):
        degree = 2 * nodes - 1
        got = densities.integrate(lambda x, n=degree: x**n, Uniform(0, 2), nodes=nodes)
        assert math.isclose(got, 2 ** (degree + 1) / (degree + 1), rel_tol=1e-13)
        above = densities.integrate(lambda x, n=degree + 1: x**n, Uniform(0, 2), nodes=nodes)
        assert not math.isclose(above, 2 ** (degree + 2) / (degree + 2), rel_tol=1e-6)


def test_absolute_value_is_split_at_the_zeros():
    wide = Uniform(-1, 2)
    cubic = lambda x: x * (x - 0.3) * (x - 1.7)  # noqa: E731
    expected = scipy_integrate.quad(lambda x: abs(cubic(x)), -1, 2, points=(0, 0.3, 1.7), epsabs=1e-14)[0]
    assert math.isclose(densities.integrate_absolute(cubic, wide), expected, rel_tol=1e-12)
    np.testing.assert_allclose(densities.sign_changes(cubic, wide), [0, 0.3, 1.7], atol=1e-12)
    assert abs(densities.integrate(lambda x: cubic(x).abs(), wide) - expected) > 1e-6  # what splitting is for
    split = densities.integrate(lambda x: cubic(x).abs(), wide, splits=(0, 0.3, 1.7))
    assert math.isclose(split, expected, rel_tol=1e-12)


def test_log_pdf_can_be_differentiated():
    x = torch.tensor([-1.0, 0.2, 2.0], dtype=torch.float64, requires_grad=True)
    (got,) = torch.autograd.grad(Normal(0.5, 2.0).log_pdf(x).sum(), x)
    torch.testing.assert_close(got, -(x.detach() - 0.5) / 4)


class Doubled(Normal):
    """Not a density: twice one."""

    def log_pdf(self, x):
        return super().log_pdf(x) + math.log(2)


def test_a_density_may_be_given_in_single_precision():
    single = Custom(lambda x: (1 - x.abs()).float(), (-1.0, 0.0, 1.0))
    for name in ("pdf", "log_pdf", "cdf"):
        got, expected = getattr(single, name)(POINTS), getattr(TRIANGLE, name)(POINTS)
        assert got.dtype == torch.float64
        torch.testing.assert_close(got, expected, rtol=1e-5, atol=1e-6)


def test_mixture_weights_default_to_equal_ones():
    assert Mixture((Normal(), Normal(1.0))).weights == (0.5, 0.5)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Normal(0, -1.0), r"std=-1.0 must be above 0"),
        (lambda: Normal(0, 0), r"std=0 must be above 0"),
        (lambda: Normal(math.nan), r"mean=nan must be a finite number"),
        (lambda: Normal(0, math.inf), r"std=inf must be a finite number"),
        (lambda: Uniform(2.0, 1.0), r"low=2.0 must be below high=1.0"),
        (lambda: Uniform(1.0, 1.0), r"low=1.0 must be below high=1.0"),
        (lambda: Uniform(-math.inf, 1.0), r"low=-inf must be a finite number"),
        (lambda: Mixture(()), r"components=\(\) must hold at least one"),
        (lambda: Mixture((Normal(),), (0.5, 0.5)), r"weights=\(0.5, 0.5\): 1 components need as many weights"),
        (lambda: Mixture((Normal(), Normal()), (0.5, 0.6)), r"weights=\(0.5, 0.6\) .* sum to 1, not 1.1"),
        (lambda: Mixture((Normal(), Normal()), (1.5, -0.5)), r"weights=\(1.5, -0.5\) must be above 0"),
        (lambda: Mixture((Normal(), Normal()), (math.nan, 0.5)), r"weights=\(nan, 0.5\) must be above 0"),
        (lambda: Mixture((Normal(), Normal()), ("a", 0.5)), r"weights=\('a', 0.5\) must be numbers"),
        (lambda: Mixture((Normal(), Normal()), 0.5), r"weights=0.5 must be numbers, in a tuple"),
        (lambda: Mixture(Normal()), r"components=Normal\(mean=0.0, std=1.0\) must hold at least one density"),
        (lambda: Mixture((Normal(), 3)), r"components\[1\]=3 must be a density"),
        (lambda: Normal("wide"), r"mean='wide' must be a finite number"),
        (lambda: Custom(3, (0.0, 1.0)), r"function=3 must be a function of points"),
        (
            lambda: Custom(lambda x: 1.0, (0.0, 1.0)),
            r"function gives float, not a tensor, for points of shape \(256,\)",
        ),
        (lambda: Custom(lambda x: x[:1], (0.0, 1.0)), r"function gives shape \(1,\) for points of shape \(256,\)"),
        (lambda: Custom(lambda x: x / 0 * 0, (0.0, 1.0)), r"function is not a number at x="),
        (lambda: Custom(lambda x: x, 1.0), r"ends=1.0 must be two or more increasing points"),
        (lambda: Normal().pdf("far"), r"x='far' must be numbers"),
        (lambda: Normal().sample(2.5), r"n=2.5 must be at least 1, a whole number"),
        (lambda: Normal().sample(3, seed=0.5), r"seed=0.5 must be a whole number or a torch.Generator"),
        (lambda: densities.grid(Normal(), 3), r"densities\[1\]=3 must be a density"),
        (lambda: densities.grid(Normal(), nodes=2.5), r"nodes=2.5 must be at least 1"),
        (lambda: densities.grid(Normal(), splits=[0.0, math.nan]), r"splits\[1\]=nan must be a finite number"),
        (lambda: densities.grid(Normal(), splits=3), r"splits=3 must be numbers, in a list or tuple"),
        (lambda: densities.grid(Normal(1e20, 1)), r"Normal\(mean=1e\+20, std=1\) has mass 0, not 1"),
        (lambda: densities.grid(Normal(0, 1e-9), Normal(1e6, 1)), r"Normal\(mean=0, std=1e-09\) has mass 0, not 1"),
        (lambda: densities.grid(Doubled()), r"has mass 2, not 1: no density"),
        (lambda: densities.integrate(3, Normal()), r"function=3 must be a function of points"),
        (lambda: densities.integrate(lambda x: None, Normal()), r"function gives NoneType, not a tensor"),
        (lambda: densities.integrate(lambda x: x * math.inf, Normal()), r"inf at some points and -inf at others"),
        (lambda: densities.integrate_absolute(lambda x: x * math.nan, Normal()), r"function is not a number at x="),
        (lambda: densities.sign_changes(torch.sin), r"densities=\(\): a grid needs at least one"),
        (lambda: Custom(lambda x: 0 * x + 0.3, (0.0, 2.0)), r"function integrates to 0.6 between 0.0 and 2.0"),
        (lambda: Custom(lambda x: 3 * x.square() - 0.5, (0.0, 1.0)), r"function gives -0.\d+ between 0.0 and 1.0"),
        (lambda: Custom(lambda x: x / 0, (0.0, 1.0)), r"function gives inf between 0.0 and 1.0"),
        (lambda: Custom(lambda x: x, (1.0,)), r"ends=\(1.0,\) must be two or more increasing points"),
        (lambda: Custom(lambda x: x, (1.0, 0.0)), r"ends=\(1.0, 0.0\) must be two or more increasing points"),
        (lambda: Custom(lambda x: x, (1.0, math.inf)), r"ends\[1\]=inf must be a finite number"),
        (lambda: Normal().pdf([0.0, math.nan]), r"x must be numbers, got NaN at 1 of 2 points"),
        (lambda: Normal().cdf(math.nan), r"x must be numbers, got NaN at 1 of 1 points"),
        (lambda: Normal().quantile([0.5, 1.5]), r"u must lie between 0 and 1, got values from 0.5 to 1.5"),
        (lambda: Normal().quantile(math.nan), r"u must be numbers, got NaN"),
        (lambda: Normal().sample(0), r"n=0 must be at least 1"),
        (lambda: densities.grid(), r"densities=\(\): a grid needs at least one density"),
        (lambda: densities.grid(Normal(), nodes=0), r"nodes=0 must be at least 1"),
        (lambda: densities.integrate(torch.sum, Normal()), r"function gives shape \(\) for points of shape \(640,\)"),
        (lambda: densities.integrate(lambda x: x.log(), Uniform(-1, 1)), r"function is not a number at x=-0.99"),
    ],
)
def test_wrong_arguments_are_named(make, message):
    with pytest.raises(UserError, match=message) as caught:
        make()
    assert "\n" not in str(caught.value)
