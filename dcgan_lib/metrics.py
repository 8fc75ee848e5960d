"""Numbers for generated images: Frechet distance, coverage of known factors, nearest training images.

Every score says how many samples it used, which feature extractor, and what the same score is between two halves of
the real images. Scores with another extractor or another number of samples do not compare.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from dcgan_lib.data import ImageDataset, to_model_range
from dcgan_lib.errors import UserError
from dcgan_lib.features import Reader, load_reader, released_readers
from dcgan_lib.images import as_uint8
from dcgan_lib.latent import generate, sample_latent

PIXELS = "pixels-8x8"
"""The extractor for data sets without a reader: no network, just colours averaged over an 8x8 grid."""

DEFAULT_SAMPLES = 5000

# Fewer than this many samples per feature, and the covariance is mostly sampling noise.
SAMPLES_PER_FEATURE = 2

_PIECE = 2000  # real images in memory at once, a multiple of what the extractors take at a time

# A value counts as present from this part of its true share on: rarer, but not lost.
PRESENT_FROM = 1 / 3


@dataclass(frozen=True)
class FactorCoverage:
    """How often each value of one factor occurs.

    Attributes:
        shares: Value -> share of the samples, in [0, 1].
        true_shares: Value -> its share among the real images.
        present: Number of values with at least a third of their true share.
        possible: Number of values that occur among the real images.
    """

    shares: dict[str, float]
    true_shares: dict[str, float]
    present: int
    possible: int

    @property
    def missing(self) -> list[str]:
        """Values with less than a third of their true share."""
        return [value for value, share in self.shares.items() if share < PRESENT_FROM * self.true_shares[value]]


@dataclass(frozen=True)
class Coverage:
    """Which factor values, and which combinations of them, a set of labels contains.

    Attributes:
        samples: Number of label rows.
        factors: Factor -> its coverage.
        combinations: Number of distinct rows.
    """

    samples: int
    factors: dict[str, FactorCoverage]
    combinations: int


@dataclass(frozen=True)
class Evaluation:
    """The scores of one generator, with all it takes to repeat them.

    Attributes:
        dataset: Name of the real images.
        image_size: S, in pixels.
        samples: Number of generated images.
        seed: Seed of the generated images and of the choice of real ones.
        extractor: Name of the feature extractor.
        extractor_sha256: Hash of its weights; empty if it has none.
        features: Length of its feature vector.
        frechet_samples: Number of images on each side of the Frechet distances.
        frechet_distance: Generated against real images.
        frechet_floor: Real against other real images: what a perfect generator would get.
        coverage: Of the factors as the reader sees them; None without a reader.
        confidence: Factor -> mean probability the reader gives to its answer, in [0, 1]; None without a reader.
        real_confidence: The same on real images.
    """

    dataset: str
    image_size: int
    samples: int
    seed: int
    extractor: str
    extractor_sha256: str
    features: int
    frechet_samples: int
    frechet_distance: float
    frechet_floor: float
    coverage: Coverage | None = None
    confidence: dict[str, float] | None = None
    real_confidence: dict[str, float] | None = None

    def to_dict(self) -> dict[str, Any]:
        """Return everything as dictionaries, lists, numbers and strings, ready for JSON."""
        return asdict(self)

    def table(self) -> str:
        """Return the scores as a text table."""
        weights = f", sha256 {self.extractor_sha256[:12]}" if self.extractor_sha256 else ", no network"
        lines = [
            f"{self.samples:,} samples (seed {self.seed}) against {self.dataset}, {self.image_size}x{self.image_size}",
            f"features            {self.extractor} ({self.features} numbers{weights})",
            f"Frechet distance    {self.frechet_distance:.3f}   ({self.frechet_samples:,} against as many real images)",
            f"real against real   {self.frechet_floor:.3f}   (what a perfect generator would get)",
        ]
        if self.coverage is None:
            return "\n".join(
                [*lines, f"coverage            not measured: no reader knows the factors of {self.dataset}"]
            )
        lines += ["", "factor        present   confidence (real)   rarer than a third of the true share"]
        for factor, found in self.coverage.factors.items():
            sure = f"{self.confidence[factor]:.3f} ({self.real_confidence[factor]:.3f})"
            present = f"{found.present}/{found.possible}"
            lines.append(f"{factor:<14}{present:<10}{sure:<20}{', '.join(found.missing) or '-'}")
        if len(self.coverage.factors) > 1:
            lines.append(f"distinct combinations: {self.coverage.combinations:,} in {self.samples:,} samples")
        return "\n".join(lines)


class Neighbours(NamedTuple):
    """The nearest real image of each image.

    Attributes:
        indices: int64 (N,), rows of the data set.
        distances: float64 (N,), root-mean-square difference in grey levels, 0 (a copy) to 255.
    """

    indices: Tensor
    distances: Tensor


def evaluate(
    generator: nn.Module,
    dataset: ImageDataset,
    reader: Reader | None = None,
    samples: int | None = None,
    seed: int = 0,
) -> Evaluation:
    """Score a generator against real images.

    The Frechet distance compares generated images with half of the real ones, and its floor compares that half with
    the other; all three sets have the same size, at most ``samples``. Generated images are rounded to 8 bits first,
    as the real ones are.

    Args:
        generator: Maps latent vectors to images in [-1, 1], on any device.
        dataset: Real images of the generator's size and channels.
        reader: Feature extractor and factor reader. None takes the released reader of the data set, and where there
            is none the plain extractor ``pixels-8x8``, without coverage.
        samples: Number of generated images; None means 5000, or half the number of real images if that is less.
        seed: Seed of the samples and of the choice of real images.

    Raises:
        UserError: If the generator does not fit the data set, its images are not finite, the reader knows other
            factors, or there are too few samples or real images for the number of features.
    """
    _check_fit(generator, dataset)
    if reader is None and dataset.name in released_readers():
        reader = load_reader(dataset.name)
    if reader is not None and reader.label_names != dict(dataset.label_names):
        raise UserError(
            f"the reader {reader.name!r} does not know the factors of {dataset.name!r}; choose its own reader"
        )
    if samples is None:
        samples = min(DEFAULT_SAMPLES, len(dataset) // 2)
    count = min(samples, len(dataset) // 2)
    dimension = 64 * dataset.channels if reader is None else reader.dimension
    _check_count(samples, len(dataset), SAMPLES_PER_FEATURE * dimension)

    device = next(generator.parameters()).device
    extract = pixel_features if reader is None else reader.to(device).features
    fake = extract(_generate_pixels(generator, samples, seed))
    order = torch.randperm(len(dataset), generator=torch.Generator().manual_seed(seed))
    # Read in pieces: the images may be on disk, and more than fit into memory.
    real, other = (
        torch.cat([extract(dataset.images[part]) for part in rows.split(_PIECE)])
        for rows in order[: 2 * count].split(count)
    )
    scores = Evaluation(
        dataset=dataset.name,
        image_size=dataset.image_size,
        samples=samples,
        seed=seed,
        extractor=PIXELS if reader is None else f"reader-{reader.name}",
        extractor_sha256="" if reader is None else reader.sha256,
        features=dimension,
        frechet_samples=count,
        frechet_distance=frechet_distance(fake[:count], real),
        frechet_floor=frechet_distance(other, real),
        **({} if reader is None else _read_factors(reader, fake, real, dataset)),
    )
    return scores


def frechet_distance(features_a: Tensor, features_b: Tensor) -> float:
    r"""Frechet distance between two sets of features, each summarised as a Gaussian.

    .. math:: \|\mu_a - \mu_b\|^2 + \operatorname{tr}(\Sigma_a + \Sigma_b - 2 (\Sigma_a \Sigma_b)^{1/2})

    Computed in float64 by torchmetrics, with unbiased covariances.

    Args:
        features_a: (N, D) with N >= 2, floating point.
        features_b: (M, D) with M >= 2.

    Returns:
        The squared distance, 0 or more, in squared units of the features.

    Raises:
        UserError: If the shapes do not fit, there are fewer than two rows, or a value is NaN or infinite.

    Source:
        Heusel et al. 2017, arXiv:1706.08500, eq. 6.
    """
    from torchmetrics.image.fid import FrechetInceptionDistance  # imports matplotlib: only when needed

    if features_a.ndim != 2 or features_b.ndim != 2 or features_a.shape[1] != features_b.shape[1]:
        shapes = f"{tuple(features_a.shape)} and {tuple(features_b.shape)}"
        raise UserError(f"features must be two matrices with as many columns, not {shapes}")
    if min(len(features_a), len(features_b)) < 2:
        raise UserError("a Frechet distance needs at least 2 samples on each side")
    pair = [features.detach().cpu().double() for features in (features_a, features_b)]
    if not all(bool(torch.isfinite(features).all()) for features in pair):
        raise UserError("the features contain NaN or infinity")
    identity = nn.Identity()
    identity.num_features = pair[0].shape[1]  # torchmetrics would otherwise push a random image through it
    metric = FrechetInceptionDistance(feature=identity, normalize=True)
    # torchmetrics subtracts n * mean * mean^T from sums of products; without a common offset fewer digits cancel.
    offset = torch.cat(pair).mean(dim=0)
    metric.update(pair[0] - offset, real=True)
    metric.update(pair[1] - offset, real=False)
    try:
        return max(0.0, metric.compute().item())
    except torch.linalg.LinAlgError:  # eigenvalues of the unsymmetric product need not converge, as for two constants
        return max(0.0, _symmetric_frechet_distance(*pair))


def coverage(labels: Tensor, label_names: Mapping[str, tuple[str, ...]], real_labels: Tensor | None = None) -> Coverage:
    """Count which values of each factor occur.

    Args:
        labels: int64 (N, F), N >= 1.
        label_names: Factor -> names of its values, in the order of the columns.
        real_labels: int64 (M, F), labels of real images, which give the true shares. None: all values equally likely.

    Raises:
        UserError: If the labels do not fit the names.
    """
    sizes = [len(values) for values in label_names.values()]
    for rows in (labels,) if real_labels is None else (labels, real_labels):
        if rows.ndim != 2 or rows.shape[1] != len(sizes) or len(rows) == 0:
            raise UserError(f"labels must have the shape (N, {len(sizes)}) with N >= 1, not {tuple(rows.shape)}")
        if bool((rows < 0).any()) or bool((rows >= torch.tensor(sizes)).any()):
            raise UserError("a label is outside the values of its factor")
    factors = {}
    for column, (factor, values) in enumerate(label_names.items()):
        shares = _shares(labels[:, column], values)
        true = (
            _shares(real_labels[:, column], values)
            if real_labels is not None
            else dict.fromkeys(values, 1 / len(values))
        )
        present = sum(shares[value] >= PRESENT_FROM * true[value] > 0 for value in values)
        factors[factor] = FactorCoverage(shares, true, present, sum(true[value] > 0 for value in values))
    return Coverage(len(labels), factors, len(labels.unique(dim=0)))


def nearest_neighbours(images: Tensor, dataset: ImageDataset) -> Neighbours:
    """Find the real image nearest to each image, pixel by pixel: a copy has distance 0.

    Args:
        images: (N, C, S, S), float in [-1, 1] or uint8.
        dataset: Real images of the same shape.

    Returns:
        Rows of the data set and distances.

    Raises:
        UserError: If the shapes differ or the images are not finite.
    """
    if images.shape[1:] != dataset.images.shape[1:]:
        expected, got = tuple(dataset.images.shape[1:]), tuple(images.shape[1:])
        raise UserError(f"images of {dataset.name!r} have the shape {expected}, not {got}")
    pixels = as_uint8(images).flatten(1)
    best = torch.full((len(pixels),), math.inf)
    indices = torch.zeros(len(pixels), dtype=torch.int64)
    centred = pixels.float() - 127.5  # smaller numbers, smaller rounding errors
    for start in range(0, len(dataset), _PIECE):
        block = dataset.images[start : start + _PIECE].flatten(1).float() - 127.5
        # |x - r|^2 without |x|^2, which is the same for all r
        distance, nearest = (block.square().sum(dim=1) - 2 * centred @ block.T).min(dim=1)
        closer = distance < best
        best[closer], indices[closer] = distance[closer], nearest[closer] + start
    pairs = zip(pixels, dataset.images[indices].flatten(1), strict=True)
    exact = [(image.double() - other.double()).square().mean().sqrt() for image, other in pairs]
    return Neighbours(indices, torch.stack(exact))


def pixel_features(images: Tensor) -> Tensor:
    """Average images over an 8x8 grid: the extractor ``pixels-8x8``.

    Args:
        images: (N, C, S, S), float in [-1, 1] or uint8, with S >= 8.

    Returns:
        float64 (N, 64 C), in [-1, 1].
    """
    small = [functional.adaptive_avg_pool2d(_to_float(chunk).double(), 8) for chunk in images.split(1000)]
    return torch.cat(small).flatten(1).cpu()


def _symmetric_frechet_distance(a: Tensor, b: Tensor) -> float:
    # The trace of (A B)^(1/2) is the sum of the roots of the eigenvalues of A^(1/2) B A^(1/2), which is symmetric.
    covariance_a, covariance_b = (torch.cov(x.T).reshape(x.shape[1], x.shape[1]) for x in (a, b))
    values, vectors = torch.linalg.eigh(covariance_a)
    root = vectors * values.clamp(min=0).sqrt() @ vectors.T
    cross = torch.linalg.eigvalsh(root @ covariance_b @ root).clamp(min=0).sqrt().sum()
    shift = (a.mean(dim=0) - b.mean(dim=0)).square().sum()
    return (shift + covariance_a.trace() + covariance_b.trace() - 2 * cross).item()


def _read_factors(reader: Reader, fake: Tensor, real: Tensor, dataset: ImageDataset) -> dict[str, Any]:
    labels, confidence = reader.classify(fake)
    _, real_confidence = reader.classify(real)
    names = list(reader.label_names)
    return {
        "coverage": coverage(labels, reader.label_names, dataset.labels),
        "confidence": dict(zip(names, confidence.double().mean(dim=0).tolist(), strict=True)),
        "real_confidence": dict(zip(names, real_confidence.double().mean(dim=0).tolist(), strict=True)),
    }


def _generate_pixels(generator: nn.Module, samples: int, seed: int) -> Tensor:
    # In pieces, so that 10,000 images never exist as floats at once.
    z = sample_latent(samples, generator.latent_dim, seed)
    return torch.cat([as_uint8(generate(generator, part)) for part in z.split(500)])


def _to_float(images: Tensor) -> Tensor:
    return to_model_range(images) if images.dtype == torch.uint8 else images


def _shares(column: Tensor, values: tuple[str, ...]) -> dict[str, float]:
    counts = torch.bincount(column, minlength=len(values)).double() / len(column)
    return dict(zip(values, counts.tolist(), strict=True))


def _check_fit(generator: nn.Module, dataset: ImageDataset) -> None:
    made = (generator.channels, generator.image_size)
    if made != (dataset.channels, dataset.image_size):
        raise UserError(
            f"the generator makes {made[1]}-pixel images with {made[0]} channels, but {dataset.name} has "
            f"{dataset.image_size} pixels and {dataset.channels} channels; load it with the generator's size"
        )


def _check_count(samples: int, real: int, minimum: int) -> None:
    if samples < minimum:
        raise UserError(f"{samples} samples are too few for these features: use at least {minimum}")
    if real // 2 < minimum:
        raise UserError(f"{real} real images are too few to compare with: load at least {2 * minimum}")
