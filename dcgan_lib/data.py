"""Named data sets as uint8 images, in memory or in a store, and the only two functions that know about pixel ranges."""

from __future__ import annotations

import difflib
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from dcgan_lib import archives, cats, folder, store
from dcgan_lib.cats import compose_cats
from dcgan_lib.errors import UserError
from dcgan_lib.folder import SPLITS
from dcgan_lib.store import StoredImages

__all__ = ["IMAGE_SIZES", "NAMES", "ImageDataset", "compose_cats", "load_dataset", "to_model_range", "to_uint8"]

IMAGE_SIZES = (32, 64, 128)
FOLDER = "folder:"
STORE = "store:"
HELD_OUT = "cats-held-out"
CATS = ("cats", HELD_OUT)
NAMES = (*CATS, *archives.NAMES, f"{FOLDER}PATH", f"{STORE}PATH")


@dataclass(frozen=True)
class ImageDataset:
    """Images of one data set, with what is known about each of them.

    Attributes:
        images: uint8 (N, C, S, S) in [0, 255], in memory or stored on disk: ``images[indices]`` is a tensor either way.
        labels: int64 (N, F), one column for each factor.
        label_names: Factor -> names of its values, in the order of the columns of `labels`.
        name: The name it was loaded by.
    """

    images: Tensor | StoredImages
    labels: Tensor
    label_names: Mapping[str, tuple[str, ...]]
    name: str

    def __len__(self) -> int:
        return len(self.images)

    @property
    def channels(self) -> int:
        """1 for grey, 3 for RGB."""
        return self.images.shape[1]

    @property
    def image_size(self) -> int:
        """S, in pixels."""
        return self.images.shape[-1]


def to_model_range(images: Tensor) -> Tensor:
    """Map pixels, uint8 in [0, 255], to what the networks see, float32 in [-1, 1]: x / 127.5 - 1."""
    return images.to(torch.float32) / 127.5 - 1


def to_uint8(images: Tensor) -> Tensor:
    """Map what the generator makes, floats in [-1, 1], to uint8 pixels: rounded, and clamped to [0, 255]."""
    return ((images.detach().to(torch.float32) + 1) * 127.5).round().clamp(0, 255).to(torch.uint8)


def load_dataset(
    name: str,
    image_size: int = 64,
    split: str = "train",
    root: str | Path | None = None,
    limit: int | None = None,
    seed: int = 0,
) -> ImageDataset:
    """Load a data set as uint8 images: into memory, or for "store:PATH" open its store, however large.

    Args:
        name: One of "cats", "cats-held-out" (without 24 pairs of values, see ``cats.held_out_pairs``), "fashion-mnist",
            "mnist", "cifar10", "celeba", "folder:PATH", or "store:PATH" for what ``dcgan store`` has built.
        image_size: S, one of 32, 64, 128.
        split: "train" or "test".
        root: Where torchvision's data sets are kept or downloaded to; None means ``$DCGAN_DATA`` or ``./data``.
        limit: Most images to load, a random choice fixed by `seed`; None means all of them (of cats, 20,000).
        seed: Which images are chosen when there are more than `limit`.

    Returns:
        The images, their labels and the labels' names.

    Raises:
        UserError: If an argument is out of range, or the images cannot be read or downloaded.
    """
    _check(name, image_size, split, limit)
    if name in CATS:
        labels = cats.choose_cats(split, limit, seed, hold_out=name == HELD_OUT)
        images, label_names = compose_cats(labels, image_size), cats.LABEL_NAMES
    elif name.startswith(FOLDER):
        images, labels, label_names = folder.load_folder(name.removeprefix(FOLDER), image_size, split, limit, seed)
    elif name.startswith(STORE):
        images, labels, label_names = store.load_store(name.removeprefix(STORE), image_size, split, limit, seed)
    else:
        root = Path(root or os.environ.get("DCGAN_DATA") or "data").expanduser()
        images, labels, label_names = archives.load_archive(name, image_size, split, root, limit, seed)
    return ImageDataset(images, labels, label_names, name)


def load_unseen(
    name: str, image_size: int = 64, root: str | Path | None = None, limit: int | None = None, seed: int = 0
) -> ImageDataset:
    """Load real images that were not trained on, but could have been: what copies are told by.

    That is the test split, but for "cats-held-out": its test split shows what training must not show, and lies farther
    from the training images than new ones of their kind. There it is the test split of "cats" without those pairs.

    Args:
        name: As in :func:`load_dataset`, like the others.
        image_size: S.
        root: Where torchvision's data sets are.
        limit: Most images to load.
        seed: Which images are chosen when there are more.

    Raises:
        UserError: As :func:`load_dataset`.
    """
    if name != HELD_OUT:
        return load_dataset(name, image_size, "test", root, limit, seed)
    _check(name, image_size, "test", limit)
    labels = cats.choose_cats("test", None, seed)
    labels = labels[~cats.shows_held_out_pair(labels)][:limit]
    return ImageDataset(cats.compose_cats(labels, image_size), labels, cats.LABEL_NAMES, name)


def require_image_size(image_size: int) -> None:
    """Raise `UserError` unless there are networks for images of this size."""
    if image_size not in IMAGE_SIZES:
        raise UserError(f"image size {image_size} is not supported: choose from {', '.join(map(str, IMAGE_SIZES))}")


def _check(name: str, image_size: int, split: str, limit: int | None) -> None:
    if name not in NAMES and not name.startswith((FOLDER, STORE)):
        raise UserError(f"there is no data set '{name}': {_suggestion(name)}choose from {', '.join(NAMES)}")
    require_image_size(image_size)
    if split not in SPLITS:
        raise UserError(f"there is no split '{split}': choose {' or '.join(SPLITS)}")
    if limit is not None and (not isinstance(limit, int) or limit < 1):
        raise UserError(f"limit must be a whole number of images, at least 1, not {limit}")


def _suggestion(name: str) -> str:
    if Path(name).is_dir():
        kind = STORE if (Path(name) / store.INDEX_NAME).is_file() else FOLDER
        return f"did you mean '{kind}{name}'? "
    close = difflib.get_close_matches(name.lower(), NAMES, n=1)
    return f"did you mean '{close[0]}'? " if close else ""
