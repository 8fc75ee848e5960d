"""Checks of arguments: each raises `UserError`, one line with the argument's name and value, and what is wanted."""

from __future__ import annotations

import math
import reprlib
from numbers import Integral, Real
from typing import Any

import torch
from torch import Tensor

from dcgan_lib.errors import UserError


def as_points(x: Any, name: str = "x") -> Tensor:
    """Return numbers of any shape as float64; raise `UserError` for NaN, and for what holds no numbers."""
    try:
        points = torch.as_tensor(x, dtype=torch.float64)
    except (TypeError, ValueError):
        raise UserError(f"{name}={x!r} must be numbers") from None
    if bool(points.isnan().any()):
        raise UserError(f"{name} must be numbers, got NaN at {int(points.isnan().sum())} of {points.numel()} points")
    return points


def require_shape(name: str, values: Any, points: Tensor) -> None:
    """Raise `UserError` unless a function gave a tensor with one value for each point."""
    if not isinstance(values, Tensor):
        raise UserError(
            f"{name} gives {type(values).__name__}, not a tensor, for points of shape {tuple(points.shape)}"
        )
    if values.shape != points.shape:
        raise UserError(f"{name} gives shape {tuple(values.shape)} for points of shape {tuple(points.shape)}")


def require_finite(**numbers: Any) -> None:
    """Raise `UserError` unless each argument is a finite number."""
    for name, number in numbers.items():
        if not isinstance(number, Real) or not math.isfinite(number):
            raise UserError(f"{name}={number!r} must be a finite number, int or float")


def require_counts(**counts: Any) -> None:
    """Raise `UserError` unless each argument is a whole number of at least 1."""
    for name, count in counts.items():
        if not isinstance(count, Integral) or isinstance(count, bool) or count < 1:
            raise UserError(f"{name}={count!r} must be at least 1, a whole number")


def require_whole(name: str, value: Any, least: int = 1) -> None:
    """Raise `UserError` unless a value is an int of at least `least`."""
    if not isinstance(value, int) or isinstance(value, bool) or value < least:
        raise UserError(f"{name} must be a whole number of at least {least}, got {value!r}")


def require_between(name: str, value: Any, low: float, high: float) -> None:
    """Raise `UserError` unless a value is a number, at least `low` and below `high`, which may be infinite."""
    if isinstance(value, bool) or not isinstance(value, Real) or not low <= value < high:
        below = "" if high == math.inf else f" and below {high}"
        raise UserError(f"{name} must be a number of at least {low}{below}, got {value!r}")


def require_above_zero(name: str, value: Any) -> None:
    """Raise `UserError` unless a value is a finite number above 0."""
    if isinstance(value, bool) or not isinstance(value, Real) or not 0 < value < math.inf:
        raise UserError(f"{name} must be a number above 0, got {value!r}")


def require_is(name: str, value: Any, kind: type) -> None:
    """Raise `UserError` unless a value is of a class."""
    if not isinstance(value, kind):
        raise UserError(f"{name} must be a {kind.__name__}, got {reprlib.repr(value)}")


def as_generator(seed: Any) -> torch.Generator:
    """Return a generator as it is, and for a whole number a new one with that seed; raise `UserError` for the rest."""
    if isinstance(seed, torch.Generator):
        return seed
    if not isinstance(seed, int) or isinstance(seed, bool) or not -(2**63) <= seed < 2**64:
        raise UserError(f"seed must be a whole number of 64 bits, or a torch.Generator, got {seed!r}")
    return torch.Generator().manual_seed(seed)
