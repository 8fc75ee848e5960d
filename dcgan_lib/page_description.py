"""What the book's explorers say about a latent space: directions with names, and what a reader finds in samples.

Nothing here is chosen by hand. A *named* direction is the regression of "the reader finds this value" on z
(:func:`dcgan_lib.latent.factor_direction`); beside it stands how often the reader finds the value after a step of 3
along it, in samples that played no part in finding it. A *principal* direction needs no reader (GANSpace; Haerkoenen
et al. 2020). A *group* for arithmetic is made of the first samples of seed 0, in order, that the reader takes for the
same thing.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
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
    most = min(_PRINCIPAL, generator.latent_dim)
    vectors = latent.principal_directions(generator, _PRINCIPAL_SAMPLES, most)
    principal = tuple(Direction(vector) for vector in vectors)
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
    """A - B + C of three samples each.

    Attributes:
        words: The three values that say which.
        titles: What the samples of A, B and C have in common.
        groups: The first three rows of seed 0 that are read as A, as B and as C.
    """

    words: tuple[str, ...]
    titles: tuple[str, ...]
    groups: tuple[list[int], ...]


def choose_sum(description: Description, words: Sequence[str] = ()) -> Sum:
    """Choose what is added and subtracted, by a rule where nobody says.

    With several factors the words are a value to bring, a value of the first factor to take it from, and one to give
    it to: A has the first two, B the second without the first, C the third without the first. Left out, they are the
    value whose direction works most often, and the commonest values of the first factor. With one factor the words
    are its values A, B and C, or else the three commonest.

    Args:
        description: With labels.
        words: Up to three values.

    Raises:
        UserError: If a value is unknown, or a group has fewer than three samples.
    """
    if not description.factors:
        raise UserError("no reader knows what this generator's samples show, so there is nothing to add and subtract")
    first, *others = description.factors
    counts = torch.bincount(description.labels[:, 0].long(), minlength=len(description.factors[first]))
    common = [description.factors[first][number] for number in counts.argsort(descending=True, stable=True).tolist()]
    if not others:
        chosen = (*words, *(value for value in common if value not in words))[:3]
        _check_words(chosen, [(first,)] * 3, description)
        return _sum(chosen, chosen, [{first: value} for value in chosen], [{}] * 3, description)
    named = sorted((found for found in description.directions if found.factor in others), key=lambda d: -d.after)
    bring = words[0] if words else next((found.value for found in named), description.factors[others[0]][0])
    one, other = (*words[1:], *(value for value in common if value not in words[1:]))[:2]
    _check_words((bring, one, other), [others, (first,), (first,)], description)
    factor = next(factor for factor in others if bring in description.factors[factor])
    titles = f"{one}, {bring}", f"{one}, without", f"{other}, without"
    wanted = [{first: one, factor: bring}, {first: one}, {first: other}]
    return _sum((bring, one, other), titles, wanted, [{}, {factor: bring}, {factor: bring}], description)


def _sum(
    words: Sequence[str],
    titles: Sequence[str],
    wanted: Sequence[Mapping[str, str]],
    but: Sequence[Mapping[str, str]],
    description: Description,
) -> Sum:
    groups = [first_rows(description, *pair)[:GROUP] for pair in zip(wanted, but, strict=True)]
    for title, rows in zip(titles, groups, strict=True):
        if len(rows) < GROUP:
            raise UserError(f"fewer than {GROUP} of {len(description.labels)} samples are read as {title!r}")
    return Sum(tuple(words), tuple(titles), tuple(groups))


def _check_words(words: Sequence[str], factors: Sequence[Sequence[str]], description: Description) -> None:
    for word, names in zip(words, factors, strict=True):
        known = [value for name in names for value in description.factors[name]]
        if word not in known:
            raise UserError(f"there is no {' or '.join(names)} {word!r}; known are {', '.join(known)}")


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
