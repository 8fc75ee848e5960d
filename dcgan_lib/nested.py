"""Nested values, such as an optimizer's state, as tensors with names and one text that says how they belong together.

The text is JSON. Numbers, texts, True, False, None and lists stand for themselves; everything else is an object with
one key that names its kind: ``{"tensor": NAME}``, ``{"tuple": [...]}``, ``{"dict": [[KEY, VALUE], ...]}`` and
``{"OrderedDict": ...}``, whose keys may be whole numbers, as an optimizer's are. What comes back is equal in every
type and every bit. Values of any other type are refused when they are taken apart, so that nothing but these kinds
can ever be asked for by a file.
"""

from __future__ import annotations

import json
from collections import OrderedDict
from collections.abc import Mapping
from typing import Any

from torch import Tensor

_PLAIN = (type(None), bool, int, float, str)
_MAPPINGS = {"dict": dict, "OrderedDict": OrderedDict}


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
        ValueError: If the text is not one that ``take_apart`` returns, or names a tensor that is missing.
    """
    try:
        return _build(json.loads(text), tensors)
    except (KeyError, TypeError, AttributeError, RecursionError) as error:
        raise ValueError(f"not a description of nested values: {error}") from error


def _describe(value: Any, path: str, tensors: dict[str, Tensor]) -> Any:
    kind = type(value)
    if kind in _PLAIN:
        return value
    if isinstance(value, Tensor):
        if path in tensors:
            raise TypeError(f"two tensors of a state are both at {path!r}")
        tensors[path] = value
        return {"tensor": path}
    if kind in (list, tuple):
        items = [_describe(item, f"{path}/{index}", tensors) for index, item in enumerate(value)]
        return items if kind is list else {"tuple": items}
    if kind in _MAPPINGS.values() and all(type(key) in (str, int) for key in value):
        return {kind.__name__: [[key, _describe(item, f"{path}/{key}", tensors)] for key, item in value.items()]}
    raise TypeError(f"a state cannot hold the {kind.__name__} at {path!r}, or its keys")


def _build(described: Any, tensors: Mapping[str, Tensor]) -> Any:
    if isinstance(described, list):
        return [_build(item, tensors) for item in described]
    if not isinstance(described, dict):
        return described
    ((kind, content),) = described.items()
    if kind == "tensor":
        return tensors[content]
    if kind == "tuple":
        return tuple(_build(item, tensors) for item in content)
    pairs = [(key, _build(item, tensors)) for key, item in content]
    if not all(type(key) in (str, int) for key, _ in pairs):
        raise ValueError("a key is neither a text nor a whole number")
    return _MAPPINGS[kind](pairs)
