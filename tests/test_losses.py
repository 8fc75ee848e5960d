import numpy as np
import pytest
import torch
from torch.nn import functional as F

from dcgan_lib import losses
from dcgan_lib.errors import UserError
from dcgan_lib.losses import LOSSES, gradient_penalty, r1

REAL = torch.linspace(-4.0, 5.0, 7, dtype=torch.float64)
FAKE = torch.linspace(-6.0, 3.0, 5, dtype=torch.float64)


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


# Written from the papers with probabilities and NumPy, where the package uses logits and softplus.
FORMULAS = {
    "minimax": lambda r, f: (
        -np.mean(np.log(sigmoid(r))) - np.mean(np.log(1 - sigmoid(f))),
        np.mean(np.log(1 - sigmoid(f))),
    ),
    "non_saturating": lambda r, f: (
        -np.mean(np.log(sigmoid(r))) - np.mean(np.log(1 - sigmoid(f))),
        -np.mean(np.log(sigmoid(f))),
    ),
    "least_squares": lambda r, f: (np.mean((r - 1) ** 2) / 2 + np.mean(f**2) / 2, np.mean((f - 1) ** 2) / 2),
    "hinge": lambda r, f: (np.mean(np.maximum(0, 1 - r)) + np.mean(np.maximum(0, 1 + f)), -np.mean(f)),
    "wasserstein": lambda r, f: (np.mean(f) - np.mean(r), -np.mean(f)),
}


@pytest.mark.parametrize("name", LOSSES)
def test_loss_is_its_formula(name):
    expected = FORMULAS[name](REAL.numpy(), FAKE.numpy())
    for dtype, tolerance in ((torch.float64, 1e-12), (torch.float32, 1e-5)):
        got = LOSSES[name](REAL.to(dtype), FAKE.to(dtype))
        assert got.d_loss.shape == got.g_loss.shape == ()
        assert got.d_loss.dtype == got.g_loss.dtype == dtype
        np.testing.assert_allclose([float(got.d_loss), float(got.g_loss)], expected, rtol=tolerance)


def test_every_loss_has_a_formula_here():
    assert set(FORMULAS) == set(LOSSES)
    assert all(LOSSES[name] is getattr(losses, name) for name in LOSSES)


def test_non_saturating_is_binary_cross_entropy_with_labels():
    got = losses.non_saturating(REAL, FAKE)
    ones, zeros = torch.ones_like, torch.zeros_like
    d_loss = F.binary_cross_entropy(REAL.sigmoid(), ones(REAL)) + F.binary_cross_entropy(FAKE.sigmoid(), zeros(FAKE))
    torch.testing.assert_close(got.d_loss, d_loss)
    torch.testing.assert_close(got.g_loss, F.binary_cross_entropy(FAKE.sigmoid(), ones(FAKE)))


def test_undecided_discriminator_costs_twice_log_two():
    got = losses.non_saturating(torch.zeros(3), torch.zeros(3))
    np.testing.assert_allclose([float(got.d_loss), float(got.g_loss)], [2 * np.log(2), np.log(2)], rtol=1e-6)


@pytest.mark.parametrize("name", LOSSES)
@pytest.mark.parametrize("size", [1e4, -1e4])
def test_extreme_logits_give_finite_losses_and_gradients(name, size):
    real = torch.full((3,), size, requires_grad=True)
    fake = torch.full((3,), -size, requires_grad=True)
    for loss in LOSSES[name](real, fake):
        assert torch.isfinite(loss)
        for gradient in torch.autograd.grad(loss, (real, fake), retain_graph=True, allow_unused=True):
            assert gradient is None or torch.isfinite(gradient).all()


def test_cross_entropy_is_exact_far_out_where_probabilities_round_to_one():
    got = losses.minimax(torch.tensor([-1e4]), torch.tensor([1e4]))
    assert float(got.d_loss) == 2e4
    assert float(got.g_loss) == -1e4
    # In float32 sigmoid(40) rounds to 1, whose logarithm is 0; the loss is exp(-40) all the same.
    logits = torch.tensor([40.0])
    np.testing.assert_allclose(float(losses.non_saturating(logits, logits).g_loss), np.exp(-40), rtol=1e-5)


def test_generator_gradients_saturate_in_the_minimax_game_only():
    """d/dl of log(1 - sigmoid(l)) is -sigmoid(l); of -log sigmoid(l) it is -(1 - sigmoid(l))."""
    logits = torch.tensor([-10.0, 0.0, 10.0], dtype=torch.float64, requires_grad=True)
    probability = sigmoid(logits.detach().numpy())
    (minimax,) = torch.autograd.grad(losses.minimax(REAL, logits).g_loss, logits)
    (non_saturating,) = torch.autograd.grad(losses.non_saturating(REAL, logits).g_loss, logits)
    np.testing.assert_allclose(minimax.numpy(), -probability / 3)
    np.testing.assert_allclose(non_saturating.numpy(), -(1 - probability) / 3)


@pytest.mark.parametrize("name", ["minimax", "non_saturating"])
def test_label_smoothing_is_one_sided(name):
    plain, smooth = LOSSES[name](REAL, FAKE), LOSSES[name](REAL, FAKE, real_label=0.9)
    d = sigmoid(REAL.numpy())
    real = -np.mean(0.9 * np.log(d) + 0.1 * np.log(1 - d))
    fake = -np.mean(np.log(1 - sigmoid(FAKE.numpy())))  # the fakes' target stays 0
    np.testing.assert_allclose(float(smooth.d_loss), real + fake, rtol=1e-12)
    assert smooth.g_loss == plain.g_loss
    # The smoothed optimum for real images is D(x) = 0.9, not 1.
    logit = torch.tensor([np.log(0.9 / 0.1)], requires_grad=True)
    (gradient,) = torch.autograd.grad(LOSSES[name](logit, FAKE, real_label=0.9).d_loss, logit)
    torch.testing.assert_close(gradient, torch.zeros_like(gradient), atol=1e-12, rtol=0)


@pytest.mark.parametrize("label", [0.0, -0.1, 1.1, float("nan")])
def test_impossible_labels_are_refused(label):
    with pytest.raises(UserError, match="must be above 0 and at most 1"):
        losses.non_saturating(REAL, FAKE, real_label=label)


def quadratic(seed):
    """D(x) = x^T A x / 2 + b^T x over flattened pixels, whose gradient (A x, A symmetric, plus b) is known."""
    random = np.random.default_rng(seed)
    a = random.normal(size=(12, 12))
    a, b = a + a.T, random.normal(size=12)
    matrix, vector = torch.from_numpy(a), torch.from_numpy(b)

    def discriminator(x):
        flat = x.flatten(1)
        return 0.5 * ((flat @ matrix) * flat).sum(1) + flat @ vector

    return discriminator, lambda x: x.reshape(len(x), -1) @ a + b


def test_r1_is_the_mean_squared_gradient_of_a_quadratic_discriminator():
    discriminator, gradient = quadratic(0)
    images = torch.randn(5, 3, 2, 2, dtype=torch.float64, requires_grad=True)
    penalty = r1(discriminator(images), images)
    expected = np.mean(np.sum(gradient(images.detach().numpy()) ** 2, axis=1))  # summed over pixels, mean over images
    np.testing.assert_allclose(float(penalty.detach()), expected)


def test_r1_can_be_differentiated_again():
    # D(x) = w x^2 / 2 + x: gradient w x + 1, R1 = mean (w x + 1)^2, and dR1/dw = mean 2 x (w x + 1).
    w = torch.tensor(1.5, dtype=torch.float64, requires_grad=True)
    images = torch.linspace(-1, 1, 4, dtype=torch.float64).reshape(4, 1, 1, 1).requires_grad_()
    logits = (0.5 * w * images.square() + images).flatten()
    (got,) = torch.autograd.grad(r1(logits, images), w)
    x = images.detach().numpy().ravel()
    np.testing.assert_allclose(float(got), np.mean(2 * x * (1.5 * x + 1)))


def test_gradient_penalty_is_taken_between_real_and_fake_images():
    discriminator, gradient = quadratic(1)
    real, fake = torch.randn(2, 6, 3, 2, 2, dtype=torch.float64)
    fake.requires_grad_()
    got = gradient_penalty(discriminator, real, fake, torch.Generator().manual_seed(5))
    share = torch.rand(6, 1, 1, 1, generator=torch.Generator().manual_seed(5), dtype=torch.float64).numpy()
    mixed = share * real.numpy() + (1 - share) * fake.detach().numpy()
    norm = np.sqrt(np.sum(gradient(mixed) ** 2, axis=1))
    np.testing.assert_allclose(float(got.detach()), np.mean((norm - 1) ** 2))
    assert fake.grad is None
    assert torch.autograd.grad(got, fake, allow_unused=True) == (None,)  # nothing flows to G


def test_gradient_penalty_vanishes_where_the_slope_is_one_and_is_two_sided():
    def slope(k):
        return lambda x: k * x.flatten(1).sum(1) / np.sqrt(12)

    real, fake = torch.randn(2, 4, 3, 2, 2, dtype=torch.float64)
    for k, expected in ((1.0, 0.0), (0.5, 0.25), (3.0, 4.0)):
        with torch.enable_grad():
            got = gradient_penalty(slope(torch.tensor(k, dtype=torch.float64, requires_grad=True)), real, fake)
        torch.testing.assert_close(got.detach(), torch.tensor(expected, dtype=torch.float64))


def test_gradient_penalty_refuses_batches_that_differ():
    with pytest.raises(UserError, match="must agree in shape"):
        gradient_penalty(lambda x: x.flatten(1).sum(1), torch.zeros(2, 1, 4, 4), torch.zeros(3, 1, 4, 4))
