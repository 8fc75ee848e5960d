"""Scores against independent formulas, on ordinary and degenerate inputs, and on broken generators."""

import json

import numpy as np
import pytest
import torch
from scipy import linalg, stats
from torch import nn

from dcgan_lib import metrics
from dcgan_lib.data import ImageDataset, load_dataset, to_model_range
from dcgan_lib.errors import UserError
from dcgan_lib.features import load_reader
from dcgan_lib.metrics.distances import _symmetric_frechet_distance
from dcgan_lib.metrics.evaluation import _compare


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
    assert _symmetric_frechet_distance(a, b) == pytest.approx(reference_frechet(a, b), rel=1e-4)


@pytest.mark.parametrize("rank", [24, 3])
def test_frechet_distance_of_a_set_to_itself_is_zero(rank):
    features = normal(200, rank) @ MIX[:rank]
    size = features.var(dim=0).sum().item()
    assert 0 <= metrics.frechet_distance(features, features.flip(0)) < 1e-5 * size


def test_frechet_distance_of_shifted_gaussians_is_the_squared_shift():
    features = normal(500, 6)
    assert metrics.frechet_distance(features, features + 2) == pytest.approx(6 * 2**2, rel=1e-6)


@pytest.mark.parametrize("distance", [metrics.frechet_distance, metrics.kernel_distance, metrics.density_coverage])
@pytest.mark.parametrize(
    ("a", "b", "message"),
    [
        (torch.zeros(9, 3), torch.zeros(9, 4), "columns"),
        (torch.zeros(9), torch.zeros(9), "columns"),
        (torch.zeros(0, 3), torch.zeros(9, 3), "at least [12] samples"),
        (torch.full((9, 3), float("nan")), torch.zeros(9, 3), "NaN"),
        (torch.zeros(9, 3), torch.full((9, 3), float("inf")), "infinity"),
    ],
)
def test_distances_refuse(distance, a, b, message):
    with pytest.raises(UserError, match=message):
        distance(a, b)


def test_density_and_coverage_need_more_images_than_neighbours():
    with pytest.raises(UserError, match="5 real images have no 5 neighbours each"):
        metrics.density_coverage(normal(9, 3), normal(5, 3))


def reference_kernel(a: torch.Tensor, b: torch.Tensor, block: int) -> float:
    """The unbiased estimate, sum by sum, in float64; the mean over disjoint blocks."""
    a, b = a.double().numpy(), b.double().numpy()
    count = min(len(a), len(b))
    blocks = max(1, count // block)
    size, found = count // blocks, []
    for number in range(blocks):
        x, y = (each[number * size : (number + 1) * size] for each in (a, b))
        (xx, yy, xy) = ((p @ q.T / x.shape[1] + 1) ** 3 for p, q in ((x, x), (y, y), (x, y)))
        within = [(k.sum() - np.trace(k)) / (size * (size - 1)) for k in (xx, yy)]
        found.append(within[0] + within[1] - 2 * xy.mean())
    return float(np.mean(found))


# At 10,000 the third powers leave no digit of a difference to compare.
KERNEL_PAIRS = {name: pair for name, pair in PAIRS.items() if name != "far from the origin"}


@pytest.mark.parametrize("pair", KERNEL_PAIRS.values(), ids=KERNEL_PAIRS.keys())
@pytest.mark.parametrize("block", [100, 1000])
def test_kernel_distance_agrees_with_an_independent_formula(pair, block):
    expected = reference_kernel(*pair, block)
    assert metrics.kernel_distance(*pair, block) == pytest.approx(expected, rel=1e-4, abs=1e-9)


def test_kernel_distance_has_no_bias_and_leaves_the_random_state_alone():
    before = torch.get_rng_state()
    found = [metrics.kernel_distance(normal(50, 8, seed=s), normal(50, 8, seed=100 + s)) for s in range(40)]
    assert torch.equal(torch.get_rng_state(), before)
    error = np.std(found) / 40**0.5
    assert abs(np.mean(found)) < 3 * error
    assert min(found) < 0 < max(found)


def reference_manifold(fake: torch.Tensor, real: torch.Tensor, k: int) -> tuple[float, float]:
    """The definitions, image by image, in float64."""
    fake, real = fake.double().numpy(), real.double().numpy()
    inside, covered = 0, 0
    for index, image in enumerate(real):
        others = np.delete(real, index, axis=0)
        radius = np.sort(np.sqrt(((others - image) ** 2).sum(axis=1)))[k - 1]
        hits = np.sqrt(((fake - image) ** 2).sum(axis=1)) <= radius * (1 + 1e-6)
        inside, covered = inside + hits.sum(), covered + hits.any()
    return inside / (k * len(fake)), covered / len(real)


@pytest.mark.parametrize("pair", PAIRS.values(), ids=PAIRS.keys())
@pytest.mark.parametrize("k", [1, 5])
def test_density_and_coverage_agree_with_their_definitions(pair, k):
    fake, real = pair
    if len(real) <= k:
        fake, real = fake.repeat(k, 1), real.repeat(k, 1)  # duplicates: neighbours at distance 0
    assert tuple(metrics.density_coverage(fake, real, k)) == pytest.approx(reference_manifold(fake, real, k), rel=1e-4)


def test_a_set_covers_itself_and_a_point_far_away_covers_nothing():
    real = normal(300, 6)
    assert metrics.density_coverage(real, real).coverage == 1
    assert metrics.density_coverage(torch.full((10, 6), 50.0), real) == (0, 0)
    crowded = metrics.density_coverage(real[:1].repeat(300, 1), real)
    assert crowded.coverage < 0.1


def test_the_same_distribution_has_density_1_and_the_coverage_of_the_paper():
    found = metrics.density_coverage(normal(2000, 8), normal(2000, 8, seed=1))
    assert found.density == pytest.approx(1, abs=0.05)
    assert found.coverage == pytest.approx(1 - 2**-5, abs=0.02)


def test_part_of_the_neighbourhoods_is_what_the_part_alone_gives():
    fake, real = normal(60, 4), normal(80, 4, seed=1)
    rows = torch.arange(60) % 3 != 0, torch.arange(80) % 3 != 0
    found = metrics.Neighbourhoods(fake, real).scores(*(torch.arange(len(each))[each] for each in rows))
    assert found == metrics.density_coverage(fake[rows[0]], real[rows[1]])


def test_jackknife_of_a_mean_is_its_standard_error():
    x = normal(1000, 1)[:, 0]
    (found,) = metrics.jackknife(lambda rows, _: [x[rows].mean().item()], 1000, 1000, at_least=-10)
    groups = np.array([x[torch.arange(1000) % 10 == group].mean() for group in range(10)])
    expected = stats.t.ppf(0.975, 9) * groups.std(ddof=1) / 10**0.5
    assert found.value == x.mean().item()
    assert found.high - found.value == pytest.approx(expected, rel=1e-3)
    assert found.value - found.low == pytest.approx(expected, rel=1e-3)


def test_intervals_of_the_frechet_distance_hold_what_other_samples_give():
    """Ten other draws of both sets: about one in twenty may lie outside."""

    def pair(seed):
        return normal(500, 5, seed=seed), 1.2 * normal(500, 5, seed=seed + 50)

    fake, real = pair(0)
    (found,) = metrics.jackknife(lambda f, r: [metrics.frechet_distance(fake[f], real[r])], 500, 500)
    others = np.array([metrics.frechet_distance(*pair(seed)) for seed in range(1, 21)])
    assert 0.4 < (found.high - found.low) / 2 / (1.96 * others.std(ddof=1)) < 2.5


def test_the_interval_of_the_kernel_distance_is_over_as_many_blocks():
    fake, real = 1.1 * normal(2100, 3), normal(2100, 3, seed=1)
    found = _compare(fake, real, real, len(fake))["kernel"]
    (expected,) = metrics.jackknife(
        lambda f, r: [reference_kernel(fake[f], real[r], len(f) // 2)], 2100, 2100, at_least=-10
    )
    assert (found.value, found.low, found.high) == pytest.approx(
        (expected.value, expected.low, expected.high), rel=1e-6
    )


def test_an_interval_does_not_pass_the_smallest_value():
    (found,) = metrics.jackknife(lambda rows, _: [float(rows[0] == 0)], 40, 40)
    assert found.low == 0


@pytest.mark.parametrize(("count", "total"), [(0, 20), (3, 20), (20, 20), (499, 5000)])
def test_shares_have_wilsons_interval(count, total):
    found = metrics.share_of(count, total)
    expected = stats.binomtest(count, total).proportion_ci(0.95, method="wilson")
    assert found.value == count / total
    assert (found.low, found.high) == pytest.approx((expected.low, expected.high), abs=1e-4)


def test_a_floor_is_the_mean_of_the_repeats_and_seldom_rejects_another():
    draw = np.random.default_rng(0).normal(3, 0.5, size=(4000, 9))
    floors = [metrics.floor_of(row[:8].tolist()) for row in draw]
    assert floors[0].value == pytest.approx(draw[0, :8].mean())
    assert floors[0].high - floors[0].value == pytest.approx(4 * draw[0, :8].std(ddof=1))
    assert floors[0].value - floors[0].low == pytest.approx(4 * draw[0, :8].std(ddof=1))
    alarms = np.mean([not floor.holds(row[8]) for floor, row in zip(floors, draw, strict=True)])
    assert alarms == pytest.approx(2 * stats.t.sf(4 / (1 + 1 / 8) ** 0.5, 7), abs=0.003)
    assert alarms == pytest.approx(1 / 140, abs=0.003)


def test_a_floor_without_spread_holds_itself_only():
    floor = metrics.floor_of([0, 0, 0])
    assert (floor.holds(0), floor.holds(1), floor.holds(-1)) == (True, False, False)
    with pytest.raises(UserError, match="two repeats"):
        metrics.floor_of([1.0])


@pytest.mark.parametrize("count", [0, 1, 2, 3, 10, 500, 49_500])
def test_the_limit_of_a_count_is_that_of_the_chi_squared_distribution(count):
    assert metrics.poisson_limit(count) == pytest.approx(stats.chi2.ppf(0.95, 2 * (count + 1)) / 2, rel=1e-8)


@pytest.mark.parametrize(("samples", "others", "rank"), [(300, 1000, 10), (1000, 1000, 10), (50, 100, 1), (7, 3, 3)])
def test_the_share_by_chance_is_exact(samples, others, rank):
    """The share below the r-th of M values is Beta(r, M + 1 - r), and given it the samples are independent."""
    expected = stats.betabinom(samples, rank, others + 1 - rank).ppf(0.975) / samples
    assert metrics.chance_share(samples, others, rank) == expected


def test_the_share_by_chance_is_seldom_exceeded():
    draw = np.random.default_rng(0)
    high = metrics.chance_share(300, 200, 2)
    shares = [np.mean(draw.normal(size=300) < np.sort(draw.normal(size=200))[1]) for _ in range(2000)]
    assert 0.01 < np.mean(np.array(shares) > high) <= 0.033
    binomial = stats.binom(300, 0.01).ppf(0.975) / 300  # as if the limit were known
    assert np.mean(np.array(shares) > binomial) > 0.05


def test_intervals_refuse():
    with pytest.raises(UserError, match="19 samples are too few for an interval"):
        metrics.jackknife(lambda *_: [0.0], 19, 100)
    with pytest.raises(UserError, match="5 of 4 is no share"):
        metrics.share_of(5, 4)
    with pytest.raises(UserError, match="-1 is no count"):
        metrics.poisson_limit(-1)
    with pytest.raises(UserError, match="no place 4 among 3"):
        metrics.chance_share(10, 3, 4)


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


def test_entropy_is_in_bits():
    labels = torch.tensor([[0, 0], [1, 0], [0, 1], [1, 1]])
    found = metrics.coverage(labels, NAMES, labels).factors
    assert found["colour"].entropy == found["shape"].true_entropy == 1.0
    assert metrics.coverage(labels[:1], NAMES).factors["colour"].entropy == 0
    assert metrics.coverage(labels, NAMES).factors["colour"].true_entropy == pytest.approx(np.log2(3))


def test_unseen_pairs_are_counted_against_independent_factors():
    real = torch.tensor([[0, 0]] * 4 + [[0, 1]] * 4 + [[1, 0]] * 8)  # never colour 1 with shape 1
    made = torch.tensor([[0, 0]] * 95 + [[1, 1]] * 5)
    pairs = [{"colour": "green", "shape": "square"}, {"colour": "red", "shape": "round"}, {"colour": "blue"}]
    found = metrics.pair_coverage(made, NAMES, real, pairs)
    assert list(found.shares.values()) == [0.05, 0.95, 0.0]
    assert list(found.expected.values()) == [0.5 * 0.25, 0.5 * 0.75, 0.0]
    assert found.present == 2
    rare = torch.tensor([[0, 0]] * 96 + [[1, 1]] * 4)  # 0.04 is less than a third of 0.125
    assert metrics.pair_coverage(rare, NAMES, real, pairs[:1]).present == 0
    with pytest.raises(UserError, match="no such pair of values"):
        metrics.pair_coverage(made, NAMES, real, [{"colour": "mauve"}])


def test_birthday_counts_coincident_rows():
    labels = torch.tensor([[0, 0], [0, 1], [0, 0], [1, 1], [0, 0], [1, 1]])
    found = metrics.birthday(labels)
    assert (found.samples, found.collisions, found.support) == (6, 3 + 1, 15 / 4)
    none = metrics.birthday(torch.arange(10)[:, None])
    assert (none.collisions, none.support) == (0, None)
    assert none.at_least == pytest.approx(45 / -np.log(0.05))  # e**-c = 0.05
    with pytest.raises(UserError, match="2 rows"):
        metrics.birthday(labels[:1])


def test_birthday_estimates_the_number_of_images():
    drawn = torch.randint(5000, (1000, 1), generator=torch.Generator().manual_seed(0))
    found = metrics.birthday(drawn)
    assert found.support == pytest.approx(5000, rel=0.3)
    assert found.at_least < 5000


def test_birthday_estimates_one_over_the_sum_of_squared_probabilities():
    """Half of the draws fall on 100 values, half on 900: 1 / (0.5**2 / 100 + 0.5**2 / 900) = 360, and not 1,000."""
    draw = np.random.default_rng(0)
    support = []
    for _ in range(30):
        values = np.where(draw.random(400) < 0.5, draw.integers(100, size=400), draw.integers(100, 1000, size=400))
        support.append(metrics.birthday(torch.from_numpy(values)[:, None]).support)
    assert np.mean(support) == pytest.approx(360, rel=0.05)


def test_the_end_of_the_birthday_interval_is_missed_in_one_case_in_twenty_at_most():
    """Five coincidences are expected; the interval ends too high where 0 or 1 come, which e**-5 * 6 = 4 % have."""
    draw = torch.Generator().manual_seed(0)
    found = [metrics.birthday(torch.randint(3980, (200, 1), generator=draw)) for _ in range(1000)]
    misses = np.mean([each.at_least > 3980 for each in found])
    assert misses == pytest.approx(stats.poisson.cdf(1, 5), abs=0.015)


def test_birthday_by_distance_finds_repetitions_only():
    random = torch.Generator().manual_seed(0)
    real, made = torch.randint(0, 256, (2, 60, 1, 8, 8), dtype=torch.uint8, generator=random)
    real[7] = real[3]  # a data set with an image in it twice
    assert metrics.birthday_by_distance(made, real).collisions == 0
    made[10:20] = made[:10]
    assert metrics.birthday_by_distance(made, real).collisions == 10
    near = made.clone()
    near[10:20] += 1
    assert metrics.birthday_by_distance(near, real).collisions == 10
    with pytest.raises(UserError, match="as many real images"):
        metrics.birthday_by_distance(made, real[:-1])


def test_birthday_by_distance_asks_for_half_the_smallest_real_distance():
    real = torch.tensor([0, 100, 140], dtype=torch.uint8).reshape(3, 1, 1, 1)
    near, far = real.clone(), real.clone()
    near[2], far[2] = 100 + 19, 100 + 20
    assert metrics.birthday_by_distance(near, real).collisions == 1
    assert metrics.birthday_by_distance(far, real).collisions == 0


def test_copies_are_told_from_new_images():
    random = torch.Generator().manual_seed(0)
    pixels = torch.randint(0, 256, (5000, 1, 8, 8), dtype=torch.uint8, generator=random)
    known = ImageDataset(pixels[:400], torch.zeros(400, 0).long(), {}, "noise")
    honest = metrics.copies(pixels[400:1400], known, held_out=pixels[2000:])
    assert honest.share.low < 0.01 < honest.share.high
    assert honest.share.value < honest.chance == metrics.chance_share(1000, 3000, 30)
    real = metrics.nearest_neighbours(pixels[2000:], known).distances.numpy()
    assert honest.limit == np.sort(real)[29]
    copied = metrics.copies(pixels[:300], known, held_out=pixels[2000:])
    assert (copied.nearest, copied.share.value) == (0.0, 1.0)
    assert copied.held_out_nearest == honest.held_out_nearest > 30
    half = metrics.copies(torch.cat([pixels[:150], pixels[400:550]]), known, held_out=pixels[2000:])
    assert half.share.value == pytest.approx(0.5, abs=0.03)
    with pytest.raises(UserError, match="99 held-out images are too few"):
        metrics.copies(pixels[:10], known, held_out=pixels[2000:2099])


def test_held_out_images_that_are_training_images_hide_no_copies():
    random = torch.Generator().manual_seed(0)
    pixels = torch.randint(0, 256, (1000, 1, 8, 8), dtype=torch.uint8, generator=random)
    known = ImageDataset(pixels[:400], torch.zeros(400, 0).long(), {}, "noise")
    clean = metrics.copies(pixels[:300], known, held_out=pixels[400:])
    mixed = metrics.copies(pixels[:300], known, held_out=torch.cat([pixels[400:], pixels[:30]]))
    assert mixed == clean
    assert clean.share.value == 1.0


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
    assert scores.frechet.value < 2 * scores.frechet.floor
    assert scores.kernel.low < 0.01
    assert scores.density.value == pytest.approx(1, abs=0.1)
    assert scores.coverage.value == pytest.approx(scores.coverage.floor, abs=0.05)
    for factor in ("body", "eyes", "accessory"):
        assert scores.factors.factors[factor].missing == []
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
    assert scores.frechet.low > 3 * scores.frechet.floor
    assert scores.kernel.low > 10 * abs(scores.kernel.floor)


def test_coverage_notices_a_missing_colour(cats):
    without = load_dataset("cats", 32, split="test", limit=2000, seed=5)
    without = without.images[without.labels[:, 0] != 8]
    scores = metrics.evaluate(Replay(without), cats, samples=1000)
    assert scores.factors.factors["body"].missing == [cats.label_names["body"][8]]


def test_scores_repeat_and_depend_on_the_seed(cats, fresh):
    first, again, other = (metrics.evaluate(Replay(fresh), cats, samples=600, seed=seed) for seed in (0, 0, 1))
    assert first == again
    assert first.frechet != other.frechet


def test_a_data_set_without_reader_is_scored_by_its_pixels(cats, fresh):
    photographs = ImageDataset(cats.images, torch.zeros(len(cats), 0).long(), {}, "folder:photographs")
    scores = metrics.evaluate(Replay(fresh), photographs)
    assert (scores.samples, scores.compared, scores.features) == (1000, 1000, 192)
    assert (scores.extractor, scores.extractor_sha256, scores.factors) == ("pixels-8x8", "", None)
    assert "pixels-8x8" in scores.table()
    assert "not counted" in scores.table()
    broken = metrics.evaluate(Replay(fresh[:20]), photographs)
    assert broken.frechet.value > 5 * scores.frechet.value
    assert broken.birthday.collisions > 100 * (1 + scores.birthday.collisions)


def test_density_and_coverage_compare_no_more_than_memory_holds(cats, fresh, monkeypatch):
    whole = metrics.evaluate(Replay(fresh), cats, samples=600)
    monkeypatch.setattr("dcgan_lib.metrics.evaluation.MOST", 200)
    fewer = metrics.evaluate(Replay(fresh), cats, samples=600)
    assert (whole.neighbours, fewer.neighbours, fewer.compared) == (600, 200, 600)
    assert "; density and coverage: 200\n" in fewer.table()
    assert "density and coverage:" not in whole.table()
    assert fewer.frechet == whole.frechet
    monkeypatch.setattr("dcgan_lib.metrics.manifold.MOST", 100)
    with pytest.raises(UserError, match="compare at most 100 on each side"):
        metrics.evaluate(Replay(fresh), cats, samples=600)


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
