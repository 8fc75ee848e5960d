"""The drawn parts of the data set `cats`, shrunk so that laying them over each other stays exact.

The parts were drawn by David Revoy (https://www.peppercarrot.com), licence CC BY 4.0. They ship, as RGBA images of
1024 x 1024 pixels, inside the Python package `robohash` (its set 4). Nothing is downloaded.

**Why it takes more than shrinking.** A cat is drawn by laying parts over each other, then averaging each k x k cell of
the 1024-pixel image into one pixel. Shrinking the parts first and laying them over each other afterwards is thousands
of times cheaper, but an average of products is not the product of averages: where the outline of a scarf follows the
outline of the head, one part covers just what the other left free, and the cheap image shows a fringe of the
background there (up to 40 of 255 levels). The difference is, by definition, a covariance within the cell. So we keep,
next to the average of every part, the covariance of every pair of parts in the few cells where it is not zero. What
then remains are cells in which three outlines meet.
"""

from __future__ import annotations

import importlib.util
import os
import sys
from itertools import combinations
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from dcgan_lib.errors import UserError
from dcgan_lib.files import atomic_write

FULL_SIZE = 1024
LAYERS = ("base", "eyes", "mouth", "accessory")
"""What is laid over what, from the bottom up; "base" is each body with each fur, on white."""
PAIRS = tuple(combinations(LAYERS, 2))

_FOLDERS = {"body": "000#00body", "fur": "001#01fur", "eyes": "002#02eyes", "mouth": "003#03mouth"}
_FOLDERS["accessory"] = "004#04accessories"
_FILES = {"body": 15, "fur": 10, "eyes": 15, "mouth": 10, "accessory": 16}
_EMPTY_FUR = 6  # as empty as fur 2: keeping both would make every plain cat appear twice
_CACHE_VERSION = 3
_SMALLEST = 0.2  # levels of 255: smaller covariances change no pixel once it is rounded


def load_parts(image_size: int) -> dict[str, Tensor]:
    """Return the shrunk parts, from the cache folder when they are there (about 10 ms; 3 s to build).

    Args:
        image_size: S; must divide 1024.

    Returns:
        For each layer, ``LAYER.colour`` float32 (n, 3, S * S), colour times alpha in [0, 255], and ``LAYER.clear``
        float32 (n, 1, S * S), one minus alpha; "mouth" ends with an empty part, for a hidden mouth. For each pair of
        layers, ``LOWER-UPPER.start`` int64 (n_lower * n_upper + 1), ``.pixel`` int64 (E,) and ``.value`` float32
        (E, 4): entries start[i] to start[i + 1] hold the covariances, colour and clear, of pair
        i = lower * n_upper + upper.

    Raises:
        UserError: If the parts are not installed.
    """
    from safetensors.torch import load_file, save_file

    path = cache_folder() / f"cats-{image_size}-v{_CACHE_VERSION}.safetensors"
    try:
        parts = load_file(path)
        if _looks_right(parts, image_size):
            return parts
    except Exception:
        pass  # missing, truncated, unreadable or foreign: whatever the reason, build it again
    parts = _build(_read_parts(part_folder()), image_size)
    try:
        with atomic_write(path) as temporary:
            save_file(parts, temporary)
    except UserError:
        pass  # the cache only saves time
    return parts


def part_folder() -> Path:
    """Return the folder of `robohash` that holds the parts, without importing that package.

    Raises:
        UserError: If `robohash` is not installed or lacks the parts.
    """
    spec = importlib.util.find_spec("robohash")
    for place in (spec.submodule_search_locations or ()) if spec else ():
        folder = Path(place) / "sets" / "set4"
        if all(len(list((folder / _FOLDERS[name]).glob("*.png"))) == count for name, count in _FILES.items()):
            return folder
    raise UserError("the drawings of the data set 'cats' are missing: run pip install --force-reinstall robohash")


def cache_folder() -> Path:
    """Return where derived data are kept: ``$DCGAN_CACHE``, or ``dcgan_lib`` in the user's cache folder."""
    if chosen := os.environ.get("DCGAN_CACHE"):
        return Path(chosen)
    if sys.platform == "win32":
        base = os.environ.get("LOCALAPPDATA") or Path.home() / "AppData" / "Local"
    elif sys.platform == "darwin":
        base = Path.home() / "Library" / "Caches"
    else:
        base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "dcgan_lib"


def _looks_right(parts: dict[str, Tensor], size: int) -> bool:
    counts = {"base": _FILES["body"] * (_FILES["fur"] - 1), "eyes": 15, "mouth": 11, "accessory": 16}
    layers = all(
        parts[f"{name}.colour"].shape == (counts[name], 3, size**2)
        and parts[f"{name}.clear"].shape == (counts[name], 1, size**2)
        for name in LAYERS
    )
    return layers and all(
        len(parts[f"{lower}-{upper}.start"]) == counts[lower] * counts[upper] + 1
        and len(parts[f"{lower}-{upper}.pixel"]) == len(parts[f"{lower}-{upper}.value"])
        and parts[f"{lower}-{upper}.start"][-1] == len(parts[f"{lower}-{upper}.pixel"])
        for lower, upper in PAIRS
    )


def _read_parts(folder: Path) -> dict[str, Tensor]:
    """Return uint8 (n, 4, 1024, 1024), straight alpha, for each factor."""
    from PIL import Image

    drawings = {}
    for name, sub_folder in _FOLDERS.items():
        files = sorted((folder / sub_folder).glob("*.png"))
        if name == "fur":
            del files[_EMPTY_FUR]
        pixels = []
        for file in files:
            with Image.open(file) as image:
                pixels.append(torch.from_numpy(np.array(image.convert("RGBA"))).permute(2, 0, 1))
        if name == "mouth":
            pixels.append(torch.zeros_like(pixels[0]))
        drawings[name] = torch.stack(pixels)
    return drawings


def _build(drawings: dict[str, Tensor], size: int) -> dict[str, Tensor]:
    """Average the cells of all parts, and find the covariances of all pairs, one row of cells after the other."""
    cell = FULL_SIZE // size
    means: dict[str, list[Tensor]] = {name: [] for name in LAYERS}
    entries: dict[tuple[str, str], list[tuple[Tensor, Tensor, Tensor]]] = {pair: [] for pair in PAIRS}
    for row in range(size):
        layers = _layers({name: part[:, :, row * cell : (row + 1) * cell] for name, part in drawings.items()})
        cells = {name: _cells(layer, size) for name, layer in layers.items()}
        mean = {name: cells[name].mean(-1) for name in LAYERS}
        for name in LAYERS:
            means[name].append(mean[name].movedim(0, -1))
        for lower, upper in PAIRS:
            entries[lower, upper].append(_covariances(cells[lower], mean[lower], cells[upper], row * size))
    parts = {}
    for name in LAYERS:
        mean = torch.cat(means[name], dim=-1)
        parts[f"{name}.colour"] = mean[:, :3].contiguous()
        parts[f"{name}.clear"] = mean[:, 3:].contiguous()
    for lower, upper in PAIRS:
        pair, pixel, value = (torch.cat(column) for column in zip(*entries[lower, upper], strict=True))
        order = torch.argsort(pair, stable=True)
        count = torch.bincount(pair, minlength=len(parts[f"{lower}.clear"]) * len(parts[f"{upper}.clear"]))
        parts[f"{lower}-{upper}.start"] = torch.cat([torch.zeros(1, dtype=torch.int64), count.cumsum(0)])
        parts[f"{lower}-{upper}.pixel"] = pixel[order]
        parts[f"{lower}-{upper}.value"] = value[order]
    return parts


def _layers(strips: dict[str, Tensor]) -> dict[str, Tensor]:
    """Turn strips of straight RGBA into (n, 4, ...): colour times alpha in [0, 255], then one minus alpha."""
    layers = {}
    for name, strip in strips.items():
        alpha = strip[:, 3:].float() / 255
        layers[name] = torch.cat([strip[:, :3] * alpha, 1 - alpha], dim=1)
    body, fur = layers.pop("body"), layers.pop("fur")
    on_white = body[:, None, :3] + 255 * body[:, None, 3:]
    dressed = (on_white * fur[:, 3:] + fur[:, :3]).flatten(0, 1)
    return {"base": torch.cat([dressed, torch.zeros_like(dressed[:, :1])], dim=1), **layers}


def _cells(layer: Tensor, size: int) -> Tensor:
    """Cut a strip (n, 4, k, 1024) into cells (S, n, 4, k * k)."""
    count, channels, cell, _ = layer.shape
    return layer.reshape(count, channels, cell, size, cell).permute(3, 0, 1, 2, 4).flatten(3)


def _covariances(lower: Tensor, lower_mean: Tensor, upper: Tensor, first_pixel: int) -> tuple[Tensor, Tensor, Tensor]:
    """Return pair, pixel and value (E, 4) of each covariance, between all of `lower` and the clearness of `upper`."""
    size, n_lower, channels, area = lower.shape
    clear = upper[:, :, 3].mT  # (S, k * k, n_upper)
    present = torch.nonzero((clear < 1).flatten(0, 1).any(0))[:, 0]  # most parts leave most rows untouched
    clear = clear[:, :, present]
    moment = torch.bmm(lower.flatten(1, 2), clear) / area
    moment -= lower_mean.flatten(1)[:, :, None] * clear.mean(1, keepdim=True)
    moment = moment.view(size, n_lower, channels, -1).movedim(2, -1)  # (S, n_lower, present, 4)
    weight = torch.tensor([1.0, 1.0, 1.0, 255.0])
    cell, low, up = torch.nonzero(((moment * weight).abs() > _SMALLEST).any(-1), as_tuple=True)
    return low * upper.shape[1] + present[up], first_pixel + cell, moment[cell, low, up]
