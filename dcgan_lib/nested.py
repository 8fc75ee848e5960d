"""Nested values, such as an optimizer's state, as tensors with names and one text that says how they belong together.

The text is JSON. Numbers, texts, True, False, None and lists stand for themselves; everything else is an object with
one key that names its kind: ``{"tensor": NAME}``, ``{"tuple": [...]}``, ``{"dict": [[KEY, VALUE], ...]}`` and
``{"OrderedDict": ...}``, whose keys may be whole numbers, as an optimizer's are. ``{"table": [[KEY, NAME], ...]}`` is a
list of mappings with the same keys, such as the records of a long run: each key's numbers are one tensor, which is
far smaller and quicker than their digits. What comes back is equal in every type and every bit. Values of any other
type are refused when they are taken apart, so that nothing but these kinds can ever be asked for by a file.
"""

from __future__ import annotations

import json
from collections import OrderedDict
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

_PLAIN = (type(None), bool, int, float, str)
_KEYS = (str, int)
_MAPPINGS = {"dict": dict, "OrderedDict": OrderedDict}
_COLUMNS = {int: torch.int64, float: torch.float64}  # which hold exactly what Python's numbers do, but for huge ones


def take_apart(value: Any) -> tuple[dict[str, Tensor], str]:
    """Separate the tensors in a nested value from the rest.

    Args:
        value: Tensors, numbers, texts, True, False and None in lists, tuples and mappings, nested at will.

    Returns:
        The tensors, named by their path, such as ``"/d_optimizer/state/0/exp_avg"``; and the text.

    Raises:
        TypeError: If there is a value of another type; the message says where.
    """
    tensors: dict[str, Tensor] = {}
    return tensors, json.dumps(_describe(value, "", tensors), separators=(",", ":"))


def put_together(tensors: Mapping[str, Tensor], text: str) -> Any:
    """Undo ``take_apart``.

    Raises:
        ValueError: If the text is not one that ``take_apart`` returns, or names a tensor that is missing, or one
            twice: a short text could otherwise ask for the same numbers any number of times.
    """
    try:
        return _build(json.loads(text), dict(tensors))
    except (KeyError, TypeError, AttributeError, RecursionError) as error:
        raise ValueError(f"not a description of nested values: {error}") from error


def _describe(value: Any, path: str, tensors: dict[str, Tensor]) -> Any:
    kind = type(value)
    if kind in _PLAIN:
        return value
    if isinstance(value, Tensor):
        return {"tensor": _add(value, path, tensors)}
    if kind is list and (columns := _columns(value)):
        return {"table": [[key, _add(column, f"{path}/{key}", tensors)] for key, column in columns.items()]}
    if kind in (list, tuple):
        items = [_describe(item, f"{path}/{index}", tensors) for index, item in enumerate(value)]
        return items if kind is list else {"tuple": items}
    if kind in _MAPPINGS.values() and all(type(key) in _KEYS for key in value):
        return {kind.__name__: [[key, _describe(item, f"{path}/{key}", tensors)] for key, item in value.items()]}
    raise TypeError(f"a state cannot hold the {kind.__name__} at {path!r}, or its keys")


def _add(tensor: Tensor, path: str, tensors: dict[str, Tensor]) -> str:
    if path in tensors:
        raise TypeError(f"two tensors of a state are both at {path!r}")
    tensors[path] = tensor
    return path


def _columns(rows: list[Any]) -> dict[str | int, Tensor] | None:
    """The numbers of mappings by key, if all have the same keys in the same order, and for each one type of number."""
    keys = list(rows[0]) if rows and type(rows[0]) is dict else []
    if not all(type(key) in _KEYS for key in keys) or any(type(row) is not dict or list(row) != keys for row in rows):
        return None
    columns = {}
    for key in keys:
        numbers = [row[key] for row in rows]
        kinds = {type(number) for number in numbers}
        if len(kinds) > 1 or not kinds <= _COLUMNS.keys():
            return None
        try:
            columns[key] = torch.tensor(numbers, dtype=_COLUMNS[kinds.pop()])
        except (RuntimeError, ValueError, OverflowError):  # a whole number of more than 64 bits
            return None
    return columns


def _build(described: Any, tensors: dict[str, Tensor]) -> Any:
    """Undo ``_describe``; what was used is removed from ``tensors``."""
    if isinstance(described, list):
        return [_build(item, tensors) for item in described]
    if not isinstance(described, dict):
        return described
    ((kind, content),) = described.items()
    if kind == "tensor":
        return tensors.pop(content)
    if kind == "tuple":
        return tuple(_build(item, tensors) for item in content)
    if not all(type(key) in _KEYS for key, _ in content):
        raise ValueError("a key is neither a text nor a whole number")
    if kind == "table":
        return _rows({key: tensors.pop(name) for key, name in content})
    return _MAPPINGS[kind]((key, _build(item, tensors)) for key, item in content)


def _rows(columns: Mapping[str | int, Tensor]) -> list[dict[str | int, float]]:
    if not all(column.ndim == 1 and column.dtype in _COLUMNS.values() for column in columns.values()):
        raise ValueError("a column of a table is not a row of Python's numbers")
    return [dict(zip(columns, row, strict=True)) for row in zip(*(c.tolist() for c in columns.values()), strict=True)]
