"""What the book's explorers say about a latent space: directions with names, and what a reader finds in samples.

Nothing here is chosen by hand. A *named* direction is the regression of "the reader finds this value" on z
(:func:`dcgan_lib.latent.factor_direction`); beside it stands how often the reader finds the value after a step of 3
along it, in samples that played no part in finding it. A *principal* direction needs no reader (GANSpace; Haerkoenen
et al. 2020). A *group* for arithmetic is made of the first samples of seed 0, in order, that the reader takes for the
same thing.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from dcgan_lib import latent
from dcgan_lib.errors import UserError
from dcgan_lib.features import Reader
from dcgan_lib.models import Generator
from dcgan_lib.page_generator import Description, Direction

POOL = 2_000
"""Samples of seed 0 that are read."""
STEP = 3.0
"""How far along a named direction its effect is measured, in standard deviations of the samples."""

GROUP = 3
"""Samples of a group; the paper adds means of three."""

_PROBES = 50
_RAREST = 30  # samples with a value from which its direction can be told
_LEAST_GAIN = 20  # points of per cent; a direction that does less is left out
_PRINCIPAL, _PRINCIPAL_SAMPLES = 8, 500


def describe(generator: Generator, reader: Reader | None = None, samples: int = POOL) -> Description:
    """Find directions and groups.

    Args:
        generator: A trained generator.
        reader: Reads the factors of its images; None where the data set has none, and then only principal directions
            are found.
        samples: Images to read.

    Returns:
        The description; the same for the same weights.
    """
    principal = tuple(
        Direction(vector) for vector in latent.principal_directions(generator, _PRINCIPAL_SAMPLES, _PRINCIPAL)
    )
    if reader is None:
        return Description(principal)
    z = latent.sample_latent(samples, generator.latent_dim, seed=0)
    labels = _read(generator, reader, z)
    directions = _named(generator, reader, z, labels) + principal
    return Description(directions, reader.label_names, labels.to(torch.uint8))


def first_rows(description: Description, wanted: Mapping[str, str], but: Mapping[str, str] | None = None) -> list[int]:
    """Rows of seed 0, in order, that are read as having all ``wanted`` values and none of ``but``; factor -> value."""
    chosen = torch.ones(len(description.labels), dtype=torch.bool)
    for values, present in ((wanted, True), (but or {}, False)):
        for factor, value in values.items():
            column = list(description.factors).index(factor)
            number = description.factors[factor].index(value)
            chosen &= (description.labels[:, column] == number) == present
    return chosen.nonzero()[:, 0].tolist()


@dataclass(frozen=True)
class Sum:
    """A - B + C, in words and rows: each group holds samples of seed 0.

    Attributes:
        titles: What the samples of A, B and C have in common.
        groups: Rows of A, B and C, as many as there are.
    """

    titles: tuple[str, str, str]
    groups: tuple[list[int], list[int], list[int]]


def first_sum(description: Description, bring: str | None = None) -> Sum:
    """The sum that the arithmetic shows first.

    With several factors, A has ``bring`` and the commonest value of the first factor, B that value without
    ``bring``, C the next commonest without it. With one factor, A, B and C are its three commonest values.

    Args:
        description: With labels.
        bring: A value of any factor but the first. None: the one whose direction works most often.

    Raises:
        UserError: If there is no such value, or a group has fewer than three samples.
    """
    if not description.factors:
        raise UserError("nobody has read what this generator's samples show, so there is nothing to add or subtract")
    first, *others = description.factors
    counts = torch.bincount(description.labels[:, 0].long(), minlength=len(description.factors[first]))
    common = [description.factors[first][number] for number in counts.argsort(descending=True, stable=True).tolist()]
    if not others:
        titles = common[0], common[1], common[2]
        groups = [first_rows(description, {first: value}) for value in titles]
    else:
        named = [direction for direction in description.directions if direction.factor in others]
        values = {value: factor for factor in reversed(others) for value in description.factors[factor]}
        if bring is None and named:
            bring = max(named, key=lambda direction: direction.after).value
        if bring not in values:
            raise UserError(f"there is no value {bring!r} to bring; there are {', '.join(sorted(values))}")
        brought = {values[bring]: bring}
        one = next((v for v in common if len(first_rows(description, {first: v} | brought)) >= GROUP), common[0])
        other = next(value for value in common if value != one)
        titles = f"{one}, {bring}", f"{one}, without", f"{other}, without"
        groups = [
            first_rows(description, {first: one} | brought),
            first_rows(description, {first: one}, brought),
            first_rows(description, {first: other}, brought),
        ]
    if min(map(len, groups)) < GROUP:
        raise UserError(f"of {', '.join(titles)}: one has fewer than {GROUP} samples; choose another value")
    return Sum(titles, tuple(groups))


def _read(generator: Generator, reader: Reader, z: Tensor) -> Tensor:
    """Factors (N, F) of the images of z, made and read a part at a time."""
    return torch.cat([reader.read(latent.generate(generator, part))[0] for part in z.split(250)])


def _named(generator: Generator, reader: Reader, z: Tensor, labels: Tensor) -> tuple[Direction, ...]:
    """A direction for every value that is not too rare; of each factor, the one that works most often first."""
    probes = latent.sample_latent(_PROBES, generator.latent_dim, seed=1)
    found = []
    for column, (factor, values) in enumerate(reader.label_names.items()):
        own = []
        for number, value in enumerate(values):
            has = labels[:, column] == number
            if not _RAREST <= has.sum() <= len(has) - _RAREST:
                continue
            vector = latent.factor_direction(z, has)
            moved = _read(generator, reader, probes + STEP * vector)[:, column] == number
            shares = (round(100 * share.double().mean().item()) for share in (has, moved))
            direction = Direction(vector, factor, value, *shares)
            if direction.after - direction.before >= _LEAST_GAIN:
                own.append(direction)
        found += sorted(own, key=lambda direction: -direction.after)
    return tuple(found)
