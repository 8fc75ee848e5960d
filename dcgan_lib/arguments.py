"""Checks of arguments: each raises `UserError`, one line with the argument's name and value, and what is wanted."""

from __future__ import annotations

import math
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
