"""The default data set: cartoon cats put together from parts, so that five factors of every image are known.

The parts were drawn by David Revoy and are licensed CC BY 4.0 (https://www.peppercarrot.com). They ship, as 1024-pixel
RGBA images, inside the Python package ``robohash`` (its set 4). Nothing is downloaded.
"""

from __future__ import annotations

import importlib.util
import os
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from dcgan_lib.errors import UserError
from dcgan_lib.files import atomic_write

LABEL_NAMES: dict[str, tuple[str, ...]] = {
    "body": (
        "maroon", "lime", "charcoal", "mauve", "coral", "sand", "pink", "brown", "blue", "yellow",
        "gold", "grey", "caramel", "cream", "orange",
    ),
    "fur": (
        "soft stripes", "bold stripes", "plain", "swirls", "dark patches", "pale patches", "pale muzzle", "squares",
        "dots",
    ),
    "eyes": (
        "wide", "sly", "beads", "worried", "monocle", "square", "closed", "startled", "bored", "green",
        "winged", "round", "glasses", "tall", "lashes",
    ),
    "mouth": (
        "laugh", "wide smile", "small o", "shout", "chuckle", "gasp", "smile", "chatter", "teeth", "grin",
    ),
    "accessory": (
        "red scarf", "bell collar", "red collar", "red headband", "pink bow", "black hat", "red headphones",
        "blue scarf", "medal collar", "typewriter", "necklace", "bandana", "blue bow", "red hat", "grey headphones",
        "nothing",
    ),
}  # fmt: skip
"""Factor -> what its values look like, in the order of drawing (a later part covers an earlier one)."""

FACTORS = tuple(LABEL_NAMES)
SIZES = tuple(len(names) for names in LABEL_NAMES.values())
COUNT = int(np.prod(SIZES))  # 15 * 9 * 15 * 10 * 16 = 324,000 combinations
DEFAULT_LIMIT = 20_000

_FOLDERS = ("000#00body", "001#01fur", "002#02eyes", "003#03mouth", "004#04accessories")
_FULL_SIZE = 1024
_TEST_SHARE = 10  # one combination in ten is kept for the test split
_CACHE_VERSION = 1
_BATCH = 64  # images composed at once: small enough for the processor's cache, which makes it three times faster


def choose_cats(split: str, limit: int | None, seed: int) -> Tensor:
    """Draw combinations of parts, none of them twice.

    Which split a combination belongs to is fixed once for all (a permutation with its own constant key), so no seed
    and no limit can move a test image into the training data.

    Args:
        split: "train" (nine combinations in ten) or "test".
        limit: Most rows to draw; None means 20,000.
        seed: Which rows, and their order.

    Returns:
        int64 (N, 5): columns body, fur, eyes, mouth, accessory.
    """
    order = _shuffled(COUNT, key=20_151_119)  # the day the DCGAN paper appeared
    border = COUNT // _TEST_SHARE
    members = order[:border] if split == "test" else order[border:]
    chosen = members[_shuffled(len(members), key=seed)[: limit or DEFAULT_LIMIT]]
    return torch.from_numpy(np.stack(np.unravel_index(chosen, SIZES), axis=1).astype(np.int64))


def compose_cats(factors: Tensor, image_size: int = 64) -> Tensor:
    """Draw cats from their factors.

    Args:
        factors: Integer (N, 5): columns body, fur, eyes, mouth, accessory; indices into `LABEL_NAMES`.
        image_size: S; must divide 1024.

    Returns:
        uint8 (N, 3, S, S), on a white background.

    Raises:
        UserError: If the factors have another shape or are out of range, or the parts cannot be found.
    """
    factors = torch.as_tensor(factors)
    if factors.ndim != 2 or factors.shape[1] != len(SIZES) or factors.is_floating_point():
        raise UserError(f"cats need integer factors of shape (N, {len(SIZES)}), not {tuple(factors.shape)}")
    if ((factors < 0) | (factors >= torch.tensor(SIZES))).any():
        raise UserError(f"a factor is out of range: {', '.join(FACTORS)} have {', '.join(map(str, SIZES))} values")
    if image_size < 1 or _FULL_SIZE % image_size:
        raise UserError(f"cats cannot be drawn at {image_size} pixels: choose a power of two up to {_FULL_SIZE}")
    parts = _load_parts(image_size)
    out = torch.empty(len(factors), 3, image_size, image_size, dtype=torch.uint8)
    for start in range(0, len(factors), _BATCH):
        rows = factors[start : start + _BATCH].long()
        image = parts["base"][rows[:, 0] * SIZES[1] + rows[:, 1]]
        for column, name in enumerate(FACTORS[2:], start=2):
            # Premultiplied "over": what lies beneath shines through by 1 - alpha, the part adds its own colour.
            image.mul_(parts[f"{name}_clear"][rows[:, column]]).add_(parts[f"{name}_colour"][rows[:, column]])
        out[start : start + _BATCH] = image.add_(0.5).to(torch.uint8)
    return out


def _shuffled(count: int, key: int) -> np.ndarray:
    # Sorting raw Philox bits, whose stream NumPy guarantees; the order of Generator.permutation may change (NEP 19).
    return np.argsort(np.random.Philox(key=key % 2**64).random_raw(count), kind="stable")


def _load_parts(image_size: int) -> dict[str, Tensor]:
    from safetensors.torch import load_file, save_file

    path = cache_folder() / f"cats-v{_CACHE_VERSION}-{image_size}.safetensors"
    expected = _shapes(image_size)
    try:
        parts = load_file(path)
        if {name: tuple(part.shape) for name, part in parts.items()} == expected:
            return parts
    except Exception:  # noqa: BLE001, S110 - missing, truncated or foreign: whatever the reason, build it again
        pass
    parts = _build_parts(image_size)
    try:
        with atomic_write(path) as temporary:
            save_file(parts, temporary)
    except UserError:
        pass  # the cache only saves time
    return parts


def _shapes(size: int) -> dict[str, tuple[int, ...]]:
    shapes = {"base": (SIZES[0] * SIZES[1], 3, size, size)}
    for name, count in zip(FACTORS[2:], SIZES[2:], strict=True):
        shapes[f"{name}_colour"] = (count, 3, size, size)
        shapes[f"{name}_clear"] = (count, 1, size, size)
    return shapes


def _build_parts(size: int) -> dict[str, Tensor]:
    """Area-average the parts; fur is laid on the body at full size first, since their outlines run together."""
    folder = part_folder()
    bodies, furs = (list(_read_parts(folder, column)) for column in (0, 1))
    base = []
    for body in bodies:
        on_white = body[:3] + 255 * (1 - body[3])
        base += [_shrink(on_white * (1 - fur[3]) + fur[:3], size) for fur in furs]
    parts = {"base": torch.stack(base)}
    for column, name in enumerate(FACTORS[2:], start=2):
        small = torch.stack([_shrink(part, size) for part in _read_parts(folder, column)])
        parts[f"{name}_colour"] = small[:, :3].contiguous()
        parts[f"{name}_clear"] = 1 - small[:, 3:]
    return parts


def _read_parts(folder: Path, column: int) -> Iterator[Tensor]:
    """Yield float32 (4, 1024, 1024): colour times alpha in [0, 255], alpha in [0, 1]."""
    from PIL import Image

    for path in sorted((folder / _FOLDERS[column]).glob("*.png")):
        if path.name == "006#fur6.png":
            continue  # as empty as fur 2: keeping both would make every plain cat appear twice
        with Image.open(path) as image:
            pixels = torch.from_numpy(np.array(image.convert("RGBA"))).permute(2, 0, 1).float()
        pixels[3] /= 255
        pixels[:3] *= pixels[3]
        yield pixels


def _shrink(image: Tensor, size: int) -> Tensor:
    return torch.nn.functional.avg_pool2d(image[None], _FULL_SIZE // size)[0]


def part_folder() -> Path:
    """Return the folder of `robohash` that holds the cat's parts, without importing that package.

    Raises:
        UserError: If `robohash` is not installed or lacks the parts.
    """
    spec = importlib.util.find_spec("robohash")
    for place in (spec.submodule_search_locations or ()) if spec else ():
        folder = Path(place) / "sets" / "set4"
        counts = [len(list((folder / name).glob("*.png"))) for name in _FOLDERS]
        if counts == [SIZES[0], SIZES[1] + 1, *SIZES[2:]]:
            return folder
    raise UserError("the parts of the data set 'cats' are missing: pip install --force-reinstall 'robohash>=1.1'")


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
