"""Latent vectors against closed forms in float64, and images against the bare generator."""

import math
import threading

import numpy as np
import pytest
import torch
from scipy import stats
from torch import nn
from torch.testing import assert_close

from dcgan_lib import latent
from dcgan_lib.errors import UserError
from dcgan_lib.models import build_generator


@pytest.fixture
def generator():
    """A small generator whose batch-norm statistics are not the initial ones, left in training mode."""
    network = build_generator(image_size=32, channels=3, latent_dim=12, width=4)
    with torch.no_grad():
        network(latent.sample_latent(32, 12, seed=99))
    return network


def random(*shape, seed=0):
    return torch.from_numpy(np.random.default_rng(seed).standard_normal(shape))


# Sampling


def test_a_row_depends_on_seed_and_index_alone():
    rows = latent.sample_latent(20, 7, seed=3)
    assert rows.dtype == torch.float32
    assert torch.equal(latent.sample_latent(5, 7, seed=3), rows[:5])
    assert torch.equal(latent.sample_latent(4, 7, seed=3, first=15), rows[15:19])
    for index in (0, 19):
        stream = np.random.Generator(np.random.Philox(key=[3, index]))
        assert rows[index].tolist() == stream.standard_normal(7, dtype=np.float32).tolist()
    assert len(torch.unique(torch.cat([rows, latent.sample_latent(20, 7, seed=4)]))) == 2 * 20 * 7


def test_samples_keep_their_values_from_release_to_release():
    # What seed 0 shows is printed in the book.
    expected = torch.tensor([[0.059911, 0.0155596, -1.1644385], [-1.431463, 1.6707169, -0.402724]])
    assert_close(latent.sample_latent(2, 3, seed=0), expected, rtol=0, atol=1e-6)


def test_samples_are_standard_normal():
    values = latent.sample_latent(2000, 50, seed=1).double()
    assert stats.kstest(values.flatten().numpy(), "norm").pvalue > 1e-3
    # Rows are independent: squared lengths follow the chi-squared distribution.
    assert stats.kstest(values.square().sum(1).numpy(), "chi2", args=(50,)).pvalue > 1e-3


def test_global_random_state_is_untouched():
    torch.manual_seed(0)
    np.random.seed(0)  # noqa: NPY002
    before = torch.random.get_rng_state(), np.random.get_state()[1].tolist()  # noqa: NPY002
    latent.sample_latent(3, 4, seed=1)
    assert torch.equal(torch.random.get_rng_state(), before[0])
    assert np.random.get_state()[1].tolist() == before[1]  # noqa: NPY002


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((0, 5, 0), "n must be at least 1"),
        ((-3, 5, 0), "n must be at least 1"),
        ((2.5, 5, 0), "whole number"),
        ((2, 0, 0), "latent_dim"),
        ((2, 5, -1), "seed"),
        ((2, 5, 2**64), "seed"),
        ((2, 5, 1.5), "seed"),
        ((2, 5, None), "seed"),
        ((2, 5, 0, -1), "first must be at least 0"),
    ],
)
def test_impossible_samples_are_refused_in_one_line(arguments, message):
    with pytest.raises(UserError, match=message) as caught:
        latent.sample_latent(*arguments)
    assert "\n" not in str(caught.value)


# Images


def test_images_are_those_of_the_generator_in_evaluation_mode(generator):
    z = latent.sample_latent(5, 12, seed=0)
    made = latent.generate(generator, z, batch_size=2)
    generator.eval()
    with torch.no_grad():
        expected = generator(z)
        generator.train()
        by_batch = generator(z)
    assert made.shape == (5, 3, 32, 32)
    assert made.dtype == torch.float32
    assert_close(made, expected)
    assert (made - by_batch).abs().max() > 0.01  # in training mode they would have been others


def test_an_image_does_not_depend_on_its_batch(generator):
    assert_close(latent.sample(generator, 9, seed=5)[:2], latent.sample(generator, 2, seed=5))


def test_every_module_keeps_its_own_mode_and_nothing_is_learnt(generator):
    frozen = generator.layers[0][1]
    frozen.eval()
    modes = {name: module.training for name, module in generator.named_modules()}
    statistics = {name: value.clone() for name, value in generator.state_dict().items()}
    latent.sample(generator, 2, seed=0)
    latent.principal_directions(generator, n=8, k=2)
    assert {name: module.training for name, module in generator.named_modules()} == modes
    assert set(modes.values()) == {True, False}
    for name, value in generator.state_dict().items():
        assert torch.equal(value, statistics[name])


def test_modes_come_back_after_an_error(generator):
    with pytest.raises(UserError, match=r"\(N, 12\)"):
        latent.generate(generator, torch.zeros(2, 13))
    assert all(module.training for module in generator.modules())


def test_two_threads_that_run_one_network_do_not_mix_up_its_mode(generator):
    first_is_in, first_is_out, seen = threading.Event(), threading.Event(), []

    def second():
        first_is_in.wait(10)
        with latent.evaluating(generator):
            first_is_out.wait(10)
            seen.append(generator.training)

    widget = threading.Thread(target=second)
    widget.start()
    with latent.evaluating(generator):
        first_is_in.set()
        widget.join(0.2)  # time to come in, if it may
    first_is_out.set()
    widget.join(10)
    assert seen == [False]
    assert all(module.training for module in generator.modules())


def test_images_may_be_used_with_autograd(generator):
    made = latent.sample(generator, 1, seed=0)
    weight = torch.ones((), requires_grad=True)
    (made * weight).sum().backward()
    assert_close(weight.grad, made.sum())


@pytest.mark.parametrize("z", [torch.zeros(12), torch.zeros(0, 12), torch.zeros(2, 11)])
def test_z_of_another_shape_is_refused(generator, z):
    with pytest.raises(UserError, match="takes z of shape"):
        latent.generate(generator, z)


# Interpolation


def test_lerp_is_the_straight_line():
    a, b = random(4, seed=1), random(4, seed=2)
    t = torch.tensor([0.0, 0.25, 1.0], dtype=torch.float64)
    assert_close(latent.lerp(a, b, t), torch.stack([a, 0.75 * a + 0.25 * b, b]))
    assert_close(latent.lerp(a, b, 0.25), 0.75 * a + 0.25 * b)


def test_slerp_is_shoemakes_formula_for_vectors_of_equal_length():
    a, b = random(100, seed=1), random(100, seed=2)
    b *= a.norm() / b.norm()
    angle = math.acos(float(a @ b / a.norm() ** 2))
    for t in (0.0, 0.1, 0.5, 0.9, 1.0):
        expected = (math.sin((1 - t) * angle) * a + math.sin(t * angle) * b) / math.sin(angle)
        assert_close(latent.slerp(a, b, t), expected, rtol=1e-12, atol=1e-12)


def test_slerp_has_constant_angular_speed_and_linear_length():
    a, b = random(50, seed=3), 2.5 * random(50, seed=4)
    t = torch.linspace(0, 1, 11, dtype=torch.float64)
    path = latent.slerp(a, b, t)
    lengths = path.norm(dim=1)
    assert_close(lengths, (1 - t) * a.norm() + t * b.norm())
    cosines = (path[1:] * path[:-1]).sum(1) / (lengths[1:] * lengths[:-1])
    angle = math.acos(float(a @ b / (a.norm() * b.norm())))
    assert_close(torch.arccos(cosines), torch.full((10,), angle / 10, dtype=torch.float64))


@pytest.mark.parametrize("tilt", [0.0, 1e-3, 1e-9, 1e-15])
@pytest.mark.parametrize("sign", [1, -1])
def test_slerp_of_nearly_parallel_and_opposite_vectors_stays_exact(tilt, sign):
    a = torch.tensor([1.0, 0.0, 0.0], dtype=torch.float64)
    b = sign * torch.tensor([math.cos(tilt), math.sin(tilt), 0.0], dtype=torch.float64)
    path = latent.slerp(a, b, torch.linspace(0, 1, 5, dtype=torch.float64))
    assert_close(path[0], a)
    assert_close(path[-1], b, rtol=0, atol=1e-12)
    angle = tilt if sign == 1 else math.pi - tilt
    expected = torch.tensor([math.cos(k * angle / 4) for k in range(5)], dtype=torch.float64)
    assert_close(path[:, 0], expected, rtol=0, atol=1e-12)
    assert_close(path.norm(dim=1), torch.ones(5, dtype=torch.float64))


def test_slerp_from_zero_keeps_the_other_direction():
    b = random(6)
    zero = torch.zeros_like(b)
    assert_close(latent.slerp(zero, b, 0.25), 0.25 * b)
    assert_close(latent.slerp(b, zero, 0.25), 0.75 * b)
    assert torch.equal(latent.slerp(zero, zero, 0.5), zero)


def test_slerp_of_pairs_equals_slerp_one_by_one():
    a, b = random(3, 8, seed=1).float(), random(3, 8, seed=2).float()
    t = torch.tensor([0.2, 0.7])
    together = latent.slerp(a, b, t)
    assert together.shape == (2, 3, 8)
    assert together.dtype == torch.float32
    for i, weight in enumerate((0.2, 0.7)):
        for j in range(3):
            assert_close(together[i, j], latent.slerp(a[j], b[j], weight))


@pytest.mark.parametrize("interpolate", [latent.lerp, latent.slerp])
@pytest.mark.parametrize("t", [-0.01, 1.01, float("nan"), torch.tensor([0.5, 2.0])])
def test_t_outside_the_segment_is_refused(interpolate, t):
    with pytest.raises(UserError, match="between 0"):
        interpolate(torch.ones(2), torch.ones(2), t)


def test_ends_of_different_shape_are_refused():
    with pytest.raises(UserError, match="one shape"):
        latent.slerp(torch.ones(2), torch.ones(3), 0.5)
    with pytest.raises(UserError, match="1-D"):
        latent.lerp(torch.ones(2), torch.ones(2), torch.zeros(1, 1))
    with pytest.raises(UserError, match="two components"):
        latent.slerp(torch.ones(1), torch.ones(1), 0.5)


@pytest.mark.parametrize(("method", "interpolate"), [("slerp", latent.slerp), ("lerp", latent.lerp)])
def test_walk_passes_every_key_once(method, interpolate):
    keys = random(3, 5)
    path = latent.walk(keys, steps=4, method=method)
    assert path.shape == (9, 5)
    assert_close(path[::4], keys)
    assert_close(path[5], interpolate(keys[1], keys[2], 0.25))


def test_impossible_walks_are_refused():
    with pytest.raises(UserError, match="two latent vectors"):
        latent.walk(torch.ones(1, 4), 3)
    with pytest.raises(UserError, match="steps"):
        latent.walk(torch.ones(2, 4), 0)
    with pytest.raises(UserError, match="slerp, lerp"):
        latent.walk(torch.ones(2, 4), 3, method="cubic")


# Arithmetic and directions


def test_arithmetic_is_a_minus_b_plus_c_of_means():
    a, b, c = (random(3, 6, seed=seed) for seed in range(3))
    assert_close(latent.arithmetic(a, b, c), (a.sum(0) - b.sum(0) + c.sum(0)) / 3)


def test_arithmetic_on_means_of_three_has_the_length_of_a_sample():
    groups = latent.sample_latent(9, 20_000, seed=0).double().split(3)
    assert_close(float(latent.arithmetic(*groups).square().mean()), 1.0, rtol=0.05, atol=0)


def test_arithmetic_on_different_spaces_is_refused():
    with pytest.raises(UserError, match="one size"):
        latent.arithmetic(torch.ones(3, 4), torch.ones(3, 5), torch.ones(3, 4))
    with pytest.raises(UserError, match="n >= 1"):
        latent.mean_latent(torch.ones(0, 4))


def test_neighbours_are_uniform_around_the_centre():
    z = random(4000)
    around = latent.neighbours(z, seed=2)
    assert around.shape == (9, 4000)
    assert torch.equal(around[4], z)
    noise = torch.cat([around[:4], around[5:]]) - z
    assert stats.kstest(noise.flatten().numpy(), "uniform", args=(-0.25, 0.5)).pvalue > 1e-3
    assert torch.equal(around, latent.neighbours(z, seed=2))
    with pytest.raises(UserError, match="scale"):
        latent.neighbours(z, scale=-1)
    with pytest.raises(UserError, match="one latent vector"):
        latent.neighbours(z[None])


@pytest.mark.parametrize("method", ["least_squares", "difference"])
def test_factor_direction_finds_the_normal_of_a_known_boundary(method):
    z = latent.sample_latent(20_000, 10, seed=0).double()
    truth = random(10, seed=7)
    truth /= truth.norm()
    direction = latent.factor_direction(z, z @ truth > 0.5, method)
    assert_close(float(direction.norm()), 1.0)
    assert float(direction @ truth) > 0.99


def test_least_squares_direction_is_numpys_regression():
    z = random(200, 5)
    labels = z[:, 0] + 0.5 * z[:, 1] > 0.2
    design = np.column_stack([z.numpy(), np.ones(200)])
    weights = np.linalg.lstsq(design, labels.double().numpy(), rcond=None)[0][:5]
    expected = torch.from_numpy(weights / np.linalg.norm(weights))
    assert_close(latent.factor_direction(z, labels, "least_squares"), expected)


@pytest.mark.parametrize(
    ("labels", "method", "message"),
    [
        (torch.ones(4), "difference", "both classes"),
        (torch.tensor([0, 1, 2, 1]), "difference", "0 and 1"),
        (torch.ones(3), "difference", r"labels \(N,\)"),
        (torch.tensor([0, 1, 0, 1]), "magic", "least_squares, difference"),
    ],
)
def test_labels_that_define_no_direction_are_refused(labels, method, message):
    with pytest.raises(UserError, match=message):
        latent.factor_direction(random(4, 3), labels, method)
    with pytest.raises(UserError, match="same mean"):
        latent.factor_direction(torch.ones(4, 3), torch.tensor([0, 1, 0, 1]))


class LinearGenerator(nn.Module):
    """Activations ``z @ mixing``: the principal components of which are known."""

    def __init__(self, mixing):
        super().__init__()
        self.latent_dim = len(mixing)
        self.mixing = nn.Parameter(mixing)

    def features(self, z):
        return [z @ self.mixing]


def test_principal_directions_of_a_linear_map_are_its_singular_vectors():
    basis, _ = torch.linalg.qr(random(5, 5, seed=1))
    rotation, _ = torch.linalg.qr(random(30, 5, seed=2))
    gains = torch.tensor([256.0, 64.0, 16.0, 4.0, 1.0], dtype=torch.float64)
    generator = LinearGenerator((basis * gains) @ rotation.T)
    found = latent.principal_directions(generator, n=500, k=3, seed=0).double()
    assert found.shape == (3, 5)
    assert_close(found.norm(dim=1), torch.ones(3, dtype=torch.float64))
    for index in range(3):
        assert abs(float(found[index] @ basis[:, index])) > 0.99
        assert found[index, found[index].abs().argmax()] > 0


def test_principal_directions_equal_pca_followed_by_regression(generator):
    n, k = 64, 4
    z = latent.sample_latent(n, 12, seed=5)
    with torch.no_grad():
        activations = generator.eval().features(z)[1].flatten(1).double().numpy()
    centred = activations - activations.mean(axis=0)
    components = np.linalg.svd(centred, full_matrices=False)[2][:k]
    regression = np.linalg.lstsq(centred @ components.T, z.double().numpy(), rcond=None)[0]
    regression /= np.linalg.norm(regression, axis=1, keepdims=True)
    regression *= np.sign(regression[np.arange(k), np.abs(regression).argmax(axis=1)])[:, None]
    found = latent.principal_directions(generator, n=n, k=k, seed=5, layer=1)
    assert_close(found.double(), torch.from_numpy(regression), rtol=1e-3, atol=1e-4)


def test_impossible_principal_directions_are_refused(generator):
    with pytest.raises(UserError, match="k=13"):
        latent.principal_directions(generator, n=50, k=13)
    with pytest.raises(UserError, match="n > k"):
        latent.principal_directions(generator, n=3, k=3)
    with pytest.raises(UserError, match="layer must be between 0 and 3"):
        latent.principal_directions(generator, n=8, k=2, layer=9)
