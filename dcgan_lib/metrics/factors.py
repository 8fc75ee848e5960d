"""What is known about every image is counted: which values, combinations and unseen pairs of them a generator makes."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from dcgan_lib.errors import UserError

# A value counts as present from this part of its true share on: rarer, but not lost.
PRESENT_FROM = 1 / 3

Names = Mapping[str, tuple[str, ...]]


@dataclass(frozen=True)
class FactorCoverage:
    """How often each value of one factor occurs.

    Attributes:
        shares: Value -> share of the samples, in [0, 1].
        true_shares: Value -> its share among the real images.
        present: Number of values with at least a third of their true share.
        possible: Number of values that occur among the real images.
        entropy: Of the shares, in bits: log2 of the number of values if all were equally frequent.
        true_entropy: The same of the true shares.
    """

    shares: dict[str, float]
    true_shares: dict[str, float]
    present: int
    possible: int
    entropy: float
    true_entropy: float

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
class PairCoverage:
    """How many pairs of values occur that were held out of the training images.

    Attributes:
        shares: "factor=value, factor=value" -> share of the samples that show both.
        expected: The same, if the two factors were independent in the samples' true shares.
        present: Number of pairs with at least a third of what is expected.
    """

    shares: dict[str, float]
    expected: dict[str, float]
    present: int


def coverage(labels: Tensor, label_names: Names, real_labels: Tensor | None = None) -> Coverage:
    """Count which values of each factor occur.

    Args:
        labels: int64 (N, F), N >= 1.
        label_names: Factor -> names of its values, in the order of the columns.
        real_labels: int64 (M, F), labels of real images, which give the true shares. None: all values equally likely.

    Raises:
        UserError: If the labels do not fit the names.
    """
    for rows in (labels,) if real_labels is None else (labels, real_labels):
        _check(rows, label_names)
    factors = {}
    for column, (factor, values) in enumerate(label_names.items()):
        shares = _shares(labels[:, column], values)
        true = (
            _shares(real_labels[:, column], values)
            if real_labels is not None
            else dict.fromkeys(values, 1 / len(values))
        )
        present = sum(shares[value] >= PRESENT_FROM * true[value] > 0 for value in values)
        possible = sum(true[value] > 0 for value in values)
        factors[factor] = FactorCoverage(shares, true, present, possible, _entropy(shares), _entropy(true))
    return Coverage(len(labels), factors, len(labels.unique(dim=0)))


def pair_coverage(
    labels: Tensor, label_names: Names, real_labels: Tensor, pairs: Sequence[Mapping[str, str]]
) -> PairCoverage:
    """Count the pairs of values that no training image shows: does a generator compose, or does it copy?

    Args:
        labels: int64 (N, F), N >= 1, of generated images.
        label_names: Factor -> names of its values, in the order of the columns.
        real_labels: int64 (M, F), of the training images; the product of two values' shares is what is expected.
        pairs: Two factors -> the value of each, such as {"body": "pink", "eyes": "sly"}.

    Raises:
        UserError: If the labels or the pairs do not fit the names.
    """
    for rows in (labels, real_labels):
        _check(rows, label_names)
    columns, shares, expected = list(label_names), {}, {}
    for pair in pairs:
        try:
            wanted = [(columns.index(factor), label_names[factor].index(value)) for factor, value in pair.items()]
        except ValueError as error:
            raise UserError(f"there is no such pair of values: {dict(pair)}") from error
        name = ", ".join(f"{factor}={value}" for factor, value in pair.items())
        shares[name] = math.prod([labels[:, column] == value for column, value in wanted]).double().mean().item()
        expected[name] = math.prod((real_labels[:, column] == value).double().mean().item() for column, value in wanted)
    present = sum(shares[name] >= PRESENT_FROM * expected[name] > 0 for name in shares)
    return PairCoverage(shares, expected, present)


def _check(labels: Tensor, label_names: Names) -> None:
    sizes = [len(values) for values in label_names.values()]
    if labels.ndim != 2 or labels.shape[1] != len(sizes) or len(labels) == 0:
        raise UserError(f"labels must have the shape (N, {len(sizes)}) with N >= 1, not {tuple(labels.shape)}")
    if bool((labels < 0).any()) or bool((labels >= torch.tensor(sizes)).any()):
        raise UserError("a label is outside the values of its factor")


def _shares(column: Tensor, values: tuple[str, ...]) -> dict[str, float]:
    counts = torch.bincount(column, minlength=len(values)).double() / len(column)
    return dict(zip(values, counts.tolist(), strict=True))


def _entropy(shares: Mapping[str, float]) -> float:
    return -sum(share * math.log2(share) for share in shares.values() if share)
