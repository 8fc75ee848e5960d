"""All scores of one generator, with what it takes to repeat them."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from dcgan_lib.cats import held_out_pairs
from dcgan_lib.data import HELD_OUT, ImageDataset, to_model_range
from dcgan_lib.errors import UserError
from dcgan_lib.features import Reader, load_reader, reader_for
from dcgan_lib.images import as_uint8
from dcgan_lib.latent import generate, sample_latent
from dcgan_lib.metrics.distances import BLOCK, frechet_distance, kernel_distance
from dcgan_lib.metrics.factors import Coverage, PairCoverage, coverage, pair_coverage
from dcgan_lib.metrics.intervals import Score, jackknife
from dcgan_lib.metrics.manifold import MOST, Neighbourhoods
from dcgan_lib.metrics.memory import PIECE, Birthday, Copies, birthday, birthday_by_distance, copies

PIXELS = "pixels-8x8"
"""The extractor for data sets without a reader: no network, just colours averaged over an 8x8 grid."""

DEFAULT_SAMPLES = 5000

# Fewer than this many samples per feature, and the covariance is mostly sampling noise.
SAMPLES_PER_FEATURE = 2

COMPARED_PIXELS = 1000  # images whose pixels are compared with those of all training images


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
        compared: Number of images on each side of the distances.
        neighbours: Number of images on each side of density and coverage: as many, but at most 10,000.
        frechet: Frechet distance of generated to real images, a square as usual; its floor compares real images with
            other real ones.
        kernel: Kernel distance (KID), likewise.
        density: Density among the real images, likewise.
        coverage: Coverage of the real images, likewise.
        birthday: Coincidences among the samples: of all factors where they are read, else of pixels.
        copies: How near samples come to training images; None where no held-out images were given.
        factors: Values of the factors as the reader sees them; None without a reader.
        pairs: Pairs of values that were held out of training; None where there are none.
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
    compared: int
    neighbours: int
    frechet: Score
    kernel: Score
    density: Score
    coverage: Score
    birthday: Birthday
    copies: Copies | None = None
    factors: Coverage | None = None
    pairs: PairCoverage | None = None
    confidence: dict[str, float] | None = None
    real_confidence: dict[str, float] | None = None

    def to_dict(self) -> dict[str, Any]:
        """Return everything as dictionaries, lists, numbers and strings, ready for JSON."""
        return asdict(self)

    def table(self) -> str:
        """Return the scores as a text table."""
        weights = f", sha256 {self.extractor_sha256[:12]}" if self.extractor_sha256 else ", no network"
        fewer = "" if self.neighbours == self.compared else f"; density and coverage: {self.neighbours:,}"
        lines = [
            f"{self.samples:,} samples (seed {self.seed}) against {self.dataset}, {self.image_size}x{self.image_size}",
            f"features: {self.extractor} ({self.features} numbers{weights})",
            f"{self.compared:,} samples against as many real images; distances are squared, in brackets 95 % intervals"
            f"{fewer}",
            "",
            f"{'':<20}{'score':<30}real against real",
        ]
        scores = {"Frechet distance": self.frechet, "kernel distance": self.kernel}
        scores |= {"density": self.density, "coverage": self.coverage}
        lines += [f"{name:<20}{score!s:<30}{score.floor:.3f}" for name, score in scores.items()]
        return "\n".join([*lines, "", *self._about_memory(), *self._about_factors()])

    def _about_memory(self) -> list[str]:
        born = self.birthday
        about = "" if born.support is None else f"about {born.support:,.0f}, "
        seen = f"{born.collisions:,} among {born.samples:,} samples"
        lines = [f"coincidences        {seen}: {about}at least {born.at_least:,.0f} different images"]
        if self.copies is not None:
            near = self.copies
            lines += [
                f"nearest training    {near.nearest:.1f} grey levels away (held out: {near.held_out_nearest:.1f})",
                f"suspicious          {near.share.value:.1%} are as near as 1% of the held-out images; "
                f"by chance up to {near.chance:.1%}",
            ]
        return lines

    def _about_factors(self) -> list[str]:
        if self.factors is None:
            return [f"factors             not counted: no reader knows the factors of {self.dataset}"]
        lines = [
            "",
            f"{'factor':<14}{'present':<10}{'bits (true)':<16}{'confidence (real)':<20}"
            "rarer than a third of the true share",
        ]
        for factor, found in self.factors.factors.items():
            sure = f"{self.confidence[factor]:.3f} ({self.real_confidence[factor]:.3f})"
            present = f"{found.present}/{found.possible}"
            bits = f"{found.entropy:.2f} ({found.true_entropy:.2f})"
            lines.append(f"{factor:<14}{present:<10}{bits:<16}{sure:<20}{', '.join(found.missing) or '-'}")
        if len(self.factors.factors) > 1:
            lines.append(f"distinct combinations: {self.factors.combinations:,} in {self.samples:,} samples")
        if self.pairs is not None:
            lines.append(
                f"pairs of values never seen in training: {self.pairs.present} of {len(self.pairs.shares)} appear"
            )
        return lines


def evaluate(
    generator: nn.Module,
    dataset: ImageDataset,
    reader: Reader | None = None,
    samples: int | None = None,
    seed: int = 0,
    held_out: ImageDataset | None = None,
) -> Evaluation:
    """Score a generator against real images.

    The distances compare generated images with half of the real ones, and their floors compare that half with the
    other; all three sets have the same size, at most ``samples``. Generated images are rounded to 8 bits first, as the
    real ones are.

    Args:
        generator: Maps latent vectors to images in [-1, 1], on any device.
        dataset: Real images of the generator's size and channels: those it was trained on.
        reader: Feature extractor and factor reader. None takes the released reader of the data set, and where there
            is none the plain extractor ``pixels-8x8``, without factors.
        samples: Number of generated images; None means 5000, or half the number of real images if that is less.
        seed: Seed of the samples and of the choice of real images.
        held_out: Real images that were not trained on but drawn as those were, 100 or more, as
            :func:`dcgan_lib.data.load_unseen` gives them; None leaves out the search for copies.

    Raises:
        UserError: If the generator does not fit the data set, its images are not finite, the reader knows other
            factors, or there are too few samples or real images for the number of features.
    """
    check_fit(generator, dataset)
    if reader is None and (released := reader_for(dataset.name)):
        reader = load_reader(released)
    if reader is not None and list(reader.label_names.items()) != list(dataset.label_names.items()):
        raise UserError(
            f"the reader {reader.name!r} does not know the factors of {dataset.name!r}; leave it out, or choose one "
            "that was trained on them"
        )
    if samples is None:
        samples = min(DEFAULT_SAMPLES, len(dataset) // 2)
    count = min(samples, len(dataset) // 2)
    dimension = 64 * dataset.channels if reader is None else reader.dimension
    _check_count(samples, len(dataset), SAMPLES_PER_FEATURE * dimension)
    neighbours = min(count, MOST)

    device = next(generator.parameters()).device
    extract = pixel_features if reader is None else reader.to(device).features
    made = _generate_pixels(generator, samples, seed)
    fake = extract(made)
    order = torch.randperm(len(dataset), generator=torch.Generator().manual_seed(seed))
    # Read in pieces: the images may be on disk, and more than fit into memory.
    real, other = (
        torch.cat([extract(dataset.images[part]) for part in rows.split(PIECE)])
        for rows in order[: 2 * count].split(count)
    )
    few = min(count, COMPARED_PIXELS)
    extra = {} if reader is None else _read_factors(reader, fake, real, dataset)
    if "birthday" not in extra:
        extra["birthday"] = birthday_by_distance(made[:few], dataset.images[order[:few]])
    if held_out is not None:
        chosen = torch.randperm(len(held_out), generator=torch.Generator().manual_seed(seed))[:COMPARED_PIXELS]
        extra["copies"] = copies(made[:few], dataset, held_out.images[chosen])
    return Evaluation(
        dataset=dataset.name,
        image_size=dataset.image_size,
        samples=samples,
        seed=seed,
        extractor=PIXELS if reader is None else f"reader-{reader.name}",
        extractor_sha256="" if reader is None else reader.sha256,
        features=dimension,
        compared=count,
        neighbours=neighbours,
        **_compare(fake[:count], real, other, neighbours),
        **extra,
    )


def pixel_features(images: Tensor) -> Tensor:
    """Average images over an 8x8 grid: the extractor ``pixels-8x8``.

    Args:
        images: (N, C, S, S), float in [-1, 1] or uint8, with S >= 8.

    Returns:
        float64 (N, 64 C), in [-1, 1].
    """
    small = [functional.adaptive_avg_pool2d(_to_float(chunk).double(), 8) for chunk in images.split(1000)]
    return torch.cat(small).flatten(1).cpu()


def _compare(fake: Tensor, real: Tensor, other: Tensor, few: int) -> dict[str, Score]:
    """Every score that compares features, with its interval and its floor; density and coverage of the first few."""
    count = len(fake)
    blocks = max(1, count // BLOCK)

    def distances(a: Tensor, b: Tensor) -> tuple[float, float]:
        # As many blocks when a tenth is left out: the jackknife repeats one estimate.
        return frechet_distance(a, b), kernel_distance(a, b, block=len(a) // blocks)

    frechet, kernel = jackknife(lambda f, r: distances(fake[f], real[r]), count, count, at_least=-torch.inf)
    frechet = replace(frechet, low=max(0.0, frechet.low))
    density, covered = jackknife(Neighbourhoods(fake[:few], real[:few]).scores, few, few)
    covered = replace(covered, high=min(1.0, covered.high))
    floors = (*distances(other, real), *Neighbourhoods(other[:few], real[:few]).scores())
    scores = dict(zip(("frechet", "kernel", "density", "coverage"), (frechet, kernel, density, covered), strict=True))
    return {name: replace(score, floor=floor) for (name, score), floor in zip(scores.items(), floors, strict=True)}


def _read_factors(reader: Reader, fake: Tensor, real: Tensor, dataset: ImageDataset) -> dict[str, Any]:
    labels, confidence = reader.classify(fake)
    _, real_confidence = reader.classify(real)
    names = list(reader.label_names)
    found = {
        "factors": coverage(labels, reader.label_names, dataset.labels),
        "confidence": dict(zip(names, confidence.double().mean(dim=0).tolist(), strict=True)),
        "real_confidence": dict(zip(names, real_confidence.double().mean(dim=0).tolist(), strict=True)),
    }
    if len(names) > 1:  # enough to tell one image from another
        found["birthday"] = birthday(labels)
    if dataset.name == HELD_OUT:
        found["pairs"] = pair_coverage(labels, reader.label_names, dataset.labels, held_out_pairs())
    return found


def _generate_pixels(generator: nn.Module, samples: int, seed: int) -> Tensor:
    # In pieces, so that 10,000 images never exist as floats at once.
    z = sample_latent(samples, generator.latent_dim, seed)
    return torch.cat([as_uint8(generate(generator, part)) for part in z.split(500)])


def _to_float(images: Tensor) -> Tensor:
    return to_model_range(images) if images.dtype == torch.uint8 else images


def check_fit(generator: nn.Module, dataset: ImageDataset) -> None:
    """Refuse a generator whose images have another size, or other channels, than the real ones."""
    made = (generator.channels, generator.image_size)
    if made != (dataset.channels, dataset.image_size):
        raise UserError(
            f"the generator makes {made[1]}-pixel images with {made[0]} channels, but {dataset.name} has "
            f"{dataset.image_size} pixels and {dataset.channels} channels; load it with the generator's size"
        )


def _check_count(samples: int, real: int, minimum: int) -> None:
    if real // 2 < minimum:
        raise UserError(f"{real} real images are too few to compare with: load at least {2 * minimum}")
    if samples < minimum:
        raise UserError(f"{samples} samples are too few for these features: use at least {minimum}")
