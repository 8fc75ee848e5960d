"""Scores against independent formulas, on ordinary and degenerate inputs, and on broken generators."""

import json

import numpy as np
import pytest
import torch
from scipy import linalg
from torch import nn

from dcgan_lib import metrics
from dcgan_lib.data import ImageDataset, load_dataset, to_model_range
from dcgan_lib.errors import UserError
from dcgan_lib.features import load_reader


def reference_frechet(a: torch.Tensor, b: torch.Tensor) -> float:
    """The formula by singular values of the centred data: no matrix square root, no eigenvalues of a product."""
    a, b = a.double().numpy(), b.double().numpy()
    mean_a, mean_b = a.mean(axis=0), b.mean(axis=0)
    a, b = (a - mean_a) / np.sqrt(len(a) - 1), (b - mean_b) / np.sqrt(len(b) - 1)
    cross = linalg.svdvals(np.linalg.qr(a, mode="r") @ np.linalg.qr(b, mode="r").T).sum()
    return float(((mean_a - mean_b) ** 2).sum() + (a**2).sum() + (b**2).sum() - 2 * cross)


def normal(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


MIX = normal(24, 24, seed=9)
PAIRS = {
    "ordinary": (normal(400, 24), 1.3 * normal(300, 24, seed=1) + 0.2),
    "correlated": (normal(400, 24) @ MIX, normal(400, 24, seed=1) @ MIX + 0.5),
    "far from the origin": (normal(400, 24) + 1e4, normal(400, 24, seed=1) + 1e4),
    "fewer samples than features": (normal(10, 24), normal(15, 24, seed=1)),
    "different subspaces": (normal(300, 5) @ MIX[:5], normal(300, 7, seed=1) @ MIX[10:17]),
    "constant against varied": (torch.ones(10, 24).double(), normal(300, 24)),
    "two constants": (torch.ones(10, 24).double(), torch.zeros(12, 24).double()),
    "two samples": (normal(2, 24), normal(2, 24, seed=1)),
    "float32": (normal(300, 24).float(), 2 * normal(300, 24, seed=1).float()),
}


@pytest.mark.parametrize("pair", PAIRS.values(), ids=PAIRS.keys())
def test_frechet_distance_agrees_with_an_independent_formula(pair):
    assert metrics.frechet_distance(*pair) == pytest.approx(reference_frechet(*pair), rel=1e-4)


def test_frechet_distance_agrees_with_the_square_root_of_a_matrix():
    a, b = PAIRS["correlated"]
    cov_a, cov_b = np.cov(a.numpy().T), np.cov(b.numpy().T)
    root = linalg.sqrtm(cov_a @ cov_b).real
    expected = ((a.mean(0) - b.mean(0)) ** 2).sum().item() + np.trace(cov_a + cov_b - 2 * root)
    assert metrics.frechet_distance(a, b) == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("pair", PAIRS.values(), ids=PAIRS.keys())
def test_the_fallback_agrees_too(pair):
    a, b = (features.double() for features in pair)
    assert metrics._symmetric_frechet_distance(a, b) == pytest.approx(reference_frechet(a, b), rel=1e-4)


@pytest.mark.parametrize("rank", [24, 3])
def test_frechet_distance_of_a_set_to_itself_is_zero(rank):
    features = normal(200, rank) @ MIX[:rank]
    size = features.var(dim=0).sum().item()
    assert 0 <= metrics.frechet_distance(features, features.flip(0)) < 1e-5 * size


def test_frechet_distance_of_shifted_gaussians_is_the_squared_shift():
    features = normal(500, 6)
    assert metrics.frechet_distance(features, features + 2) == pytest.approx(6 * 2**2, rel=1e-6)


@pytest.mark.parametrize(
    ("a", "b", "message"),
    [
        (torch.zeros(5, 3), torch.zeros(5, 4), "columns"),
        (torch.zeros(5), torch.zeros(5), "columns"),
        (torch.zeros(1, 3), torch.zeros(5, 3), "at least 2 samples"),
        (torch.full((5, 3), float("nan")), torch.zeros(5, 3), "NaN"),
    ],
)
def test_frechet_distance_refuses(a, b, message):
    with pytest.raises(UserError, match=message):
        metrics.frechet_distance(a, b)


NAMES = {"colour": ("red", "green", "blue"), "shape": ("round", "square")}


def test_coverage_counts():
    labels = torch.tensor([[0, 0]] * 10 + [[0, 1]] * 7 + [[1, 1]] * 3)
    found = metrics.coverage(labels, NAMES)
    assert found.factors["colour"].shares == {"red": 0.85, "green": 0.15, "blue": 0.0}
    assert found.factors["colour"].present == 2
    assert found.factors["colour"].missing == ["blue"]
    assert found.factors["shape"].missing == []
    assert (found.samples, found.combinations) == (20, 3)


def test_coverage_threshold_is_a_third_of_the_true_share():
    # One in nine is exactly a third of a third.
    labels = torch.tensor([[0, 0]] * 8 + [[1, 0]])
    assert metrics.coverage(labels, NAMES).factors["colour"].present == 2
    labels = torch.tensor([[0, 0]] * 9 + [[1, 0]])
    assert metrics.coverage(labels, NAMES).factors["colour"].present == 1


def test_coverage_against_real_shares():
    real = torch.tensor([[0, 0]] * 9 + [[1, 0]])
    found = metrics.coverage(torch.tensor([[0, 0]] * 19 + [[1, 1]]), NAMES, real)
    assert found.factors["colour"].present == found.factors["colour"].possible == 2  # blue does not occur at all
    assert found.factors["shape"].possible == 1
    assert found.factors["colour"].true_shares == {"red": 0.9, "green": 0.1, "blue": 0.0}


@pytest.mark.parametrize("labels", [torch.zeros(0, 2).long(), torch.zeros(3, 1).long(), torch.tensor([[3, 0]])])
def test_coverage_refuses(labels):
    with pytest.raises(UserError):
        metrics.coverage(labels, NAMES)


def test_nearest_neighbours_against_all_pairs():
    generator = torch.Generator().manual_seed(0)
    real = torch.randint(0, 256, (4500, 1, 8, 8), dtype=torch.uint8, generator=generator)
    dataset = ImageDataset(real, torch.zeros(4500, 0).long(), {}, "noise")
    images = torch.randint(0, 256, (20, 1, 8, 8), dtype=torch.uint8, generator=generator)
    images[3], images[4] = real[4321], real[1]
    found = metrics.nearest_neighbours(images, dataset)
    every = (images.double().numpy()[:, None] - real.double().numpy()[None]).reshape(20, 4500, -1)
    every = np.sqrt((every**2).mean(axis=2))
    np.testing.assert_array_equal(found.indices.numpy(), every.argmin(axis=1))
    np.testing.assert_allclose(found.distances.numpy(), every.min(axis=1))
    assert found.distances[[3, 4]].tolist() == [0.0, 0.0]
    floats = metrics.nearest_neighbours(to_model_range(images), dataset)
    torch.testing.assert_close(floats, found)


def test_nearest_neighbours_refuses_another_size():
    dataset = ImageDataset(torch.zeros(3, 1, 8, 8).byte(), torch.zeros(3, 0).long(), {}, "noise")
    with pytest.raises(UserError, match="shape"):
        metrics.nearest_neighbours(torch.zeros(2, 3, 8, 8), dataset)


def test_pixel_features_are_block_means():
    images = torch.rand(5, 3, 32, 32, generator=torch.Generator().manual_seed(0)) * 2 - 1
    expected = images.double().numpy().reshape(5, 3, 8, 4, 8, 4).mean(axis=(3, 5)).reshape(5, -1)
    np.testing.assert_allclose(metrics.pixel_features(images).numpy(), expected, atol=1e-7)


class Replay(nn.Module):
    """A stand-in for a generator: z's first component picks one of the images it holds."""

    def __init__(self, images: torch.Tensor) -> None:
        super().__init__()
        self.images = nn.Parameter(to_model_range(images), requires_grad=False)
        self.latent_dim, self.channels, self.image_size = 4, images.shape[1], images.shape[-1]

    def forward(self, z: torch.Tensor) -> torch.Tensor:
        quantile = 0.5 * (1 + torch.erf(z[:, 0] / 2**0.5))
        return self.images[(quantile * len(self.images)).long().clamp(max=len(self.images) - 1)]


@pytest.fixture(scope="module")
def cats():
    return load_dataset("cats", 32, limit=2000)


@pytest.fixture(scope="module")
def fresh():
    return load_dataset("cats", 32, split="test", limit=2000, seed=5).images


def test_a_perfect_generator_reaches_the_floor(cats, fresh):
    scores = metrics.evaluate(Replay(fresh), cats, samples=1000)
    assert scores.frechet_distance < 2 * scores.frechet_floor
    for factor in ("body", "eyes", "accessory"):
        assert scores.coverage.factors[factor].missing == []
    assert (scores.extractor, scores.extractor_sha256) == ("reader-cats", load_reader("cats").sha256)
    assert json.loads(json.dumps(scores.to_dict())) == scores.to_dict()
    table = scores.table()
    assert "1,000 samples" in table
    assert scores.extractor_sha256[:12] in table
    assert "15/15" in table


def blurred(images: torch.Tensor) -> torch.Tensor:
    return nn.functional.avg_pool2d(images.float(), 5, stride=1, padding=2, count_include_pad=False).byte()


def noisy(images: torch.Tensor) -> torch.Tensor:
    noise = 40 * torch.randn(images.shape, generator=torch.Generator().manual_seed(0))
    return (images.float() + noise).clamp(0, 255).byte()


BROKEN = {"blur": blurred, "noise": noisy, "one image": lambda x: x[:1], "20 images": lambda x: x[:20]}


@pytest.mark.parametrize("damage", BROKEN.values(), ids=BROKEN.keys())
def test_the_frechet_distance_notices_a_broken_generator(damage, cats, fresh):
    scores = metrics.evaluate(Replay(damage(fresh)), cats, samples=1000)
    assert scores.frechet_distance > 3 * scores.frechet_floor


def test_coverage_notices_a_missing_colour(cats):
    without = load_dataset("cats", 32, split="test", limit=2000, seed=5)
    without = without.images[without.labels[:, 0] != 8]
    scores = metrics.evaluate(Replay(without), cats, samples=1000)
    assert scores.coverage.factors["body"].missing == [cats.label_names["body"][8]]


def test_scores_repeat_and_depend_on_the_seed(cats, fresh):
    first, again, other = (metrics.evaluate(Replay(fresh), cats, samples=600, seed=seed) for seed in (0, 0, 1))
    assert first == again
    assert first.frechet_distance != other.frechet_distance


def test_a_data_set_without_reader_is_scored_by_its_pixels(cats, fresh):
    photographs = ImageDataset(cats.images, torch.zeros(len(cats), 0).long(), {}, "folder:photographs")
    scores = metrics.evaluate(Replay(fresh), photographs)
    assert (scores.samples, scores.frechet_samples, scores.features) == (1000, 1000, 192)
    assert (scores.extractor, scores.extractor_sha256, scores.coverage) == ("pixels-8x8", "", None)
    assert "pixels-8x8" in scores.table()
    assert "not measured" in scores.table()
    broken = metrics.evaluate(Replay(fresh[:20]), photographs)
    assert broken.frechet_distance > 5 * scores.frechet_distance


def test_evaluate_refuses(cats, fresh):
    with pytest.raises(UserError, match="too few for these features"):
        metrics.evaluate(Replay(fresh), cats, samples=100)
    few = ImageDataset(cats.images[:100], cats.labels[:100], cats.label_names, "cats")
    with pytest.raises(UserError, match="real images are too few"):
        metrics.evaluate(Replay(fresh), few, samples=1000)
    with pytest.raises(UserError, match="1 channels"):
        metrics.evaluate(Replay(fresh[:, :1]), cats, samples=1000)
    foreign = ImageDataset(cats.images, cats.labels[:, :1], {"class": ("a", "b")}, "folder:x")
    with pytest.raises(UserError, match="does not know the factors"):
        metrics.evaluate(Replay(fresh), foreign, reader=load_reader("cats"), samples=1000)
    broken = Replay(fresh)
    broken.images[5] = float("nan")
    with pytest.raises(UserError, match="NaN"):
        metrics.evaluate(broken, cats, samples=1000)
