"""The data sets that torchvision downloads: MNIST, Fashion-MNIST, CIFAR-10 and CelebA."""

from __future__ import annotations

import os
import shutil
import socket
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from torch import Tensor

from dcgan_lib.cat_parts import cache_folder
from dcgan_lib.errors import UserError
from dcgan_lib.folder import read_images
from dcgan_lib.seeds import shuffled

NAMES = ("fashion-mnist", "mnist", "cifar10", "celeba")

_PATIENCE = 30.0  # seconds a server may stay silent

Loaded = tuple[Tensor, Tensor, dict[str, tuple[str, ...]]]


def load_archive(name: str, image_size: int, split: str, root: Path, limit: int | None, seed: int) -> Loaded:
    """Load one of `NAMES`, downloading it on first use.

    Args:
        name: One of `NAMES`.
        image_size: S. Grey 28-pixel images are padded with black to 32, so at S = 32 every pixel is as published.
        split: "train" or "test".
        root: The folder with torchvision's layout (``FashionMNIST/raw``, ``MNIST/raw``, ``cifar-10-batches-py``,
            ``celeba``). Original archives found there are unpacked without a network.
        limit: Most images, a random choice fixed by `seed`; None means all.
        seed: Which images are chosen, and in which order.

    Returns:
        Images, uint8 (N, C, S, S); labels, int64 (N, F); the names of the labels' values.

    Raises:
        UserError: If the files are neither there nor downloadable, or are not the original ones.
    """
    if name == "celeba":
        return _load_celeba(image_size, split, root, limit, seed)
    images, classes, class_names = (_read_cifar if name == "cifar10" else _read_mnist)(name, split, root)
    if limit is not None:
        chosen = torch.from_numpy(shuffled(len(images), seed)[:limit])
        images, classes = images[chosen], classes[chosen]
    return _resize(images, image_size), classes[:, None], {"class": class_names}


def _read_mnist(name: str, split: str, root: Path) -> tuple[Tensor, Tensor, tuple[str, ...]]:
    from torchvision import datasets

    kind = datasets.FashionMNIST if name == "fashion-mnist" else datasets.MNIST
    folder = Path(kind.__name__) / "raw"
    with _explained(name, root / folder, list(kind.resources)):
        data = kind(_writable(root, folder, kind.resources), train=split == "train", download=True)
    images = torch.nn.functional.pad(data.data, (2, 2, 2, 2))[:, None]
    return images, data.targets.long(), tuple(label.split(" - ")[-1] for label in data.classes)


def _read_cifar(name: str, split: str, root: Path) -> tuple[Tensor, Tensor, tuple[str, ...]]:
    from torchvision import datasets

    # Its batches are pickles; torchvision compares each with the published md5 before it opens one.
    with _explained(name, root, [(datasets.CIFAR10.filename, datasets.CIFAR10.tgz_md5)]):
        data = datasets.CIFAR10(root, train=split == "train", download=True)
    return torch.from_numpy(data.data).permute(0, 3, 1, 2), torch.tensor(data.targets), tuple(data.classes)


def _load_celeba(image_size: int, split: str, root: Path, limit: int | None, seed: int) -> Loaded:
    from torchvision import datasets

    files = [(name, md5) for _, md5, name in datasets.CelebA.file_list]
    with _explained("celeba", root / "celeba", files):
        _unpack_celeba(root / "celeba", dict(files))
        data = datasets.CelebA(root, split=split, target_type="attr", download=True)
    names, attributes = list(data.filename), data.attr.long()
    if limit is not None:
        order = shuffled(len(names), seed)
        names, attributes = [names[i] for i in order], attributes[torch.from_numpy(order)]
    images, kept = read_images(root / "celeba" / "img_align_celeba", names, image_size, limit)
    if not kept:
        raise UserError(
            f"no image of celeba could be read: delete {root / 'celeba' / 'img_align_celeba'} and try again"
        )
    row = {name: i for i, name in enumerate(names)}
    labels = attributes[[row[name] for name in kept]]
    return images, labels, {name: ("no", "yes") for name in data.attr_names if name}


def _unpack_celeba(folder: Path, md5: dict[str, str]) -> None:
    """Unpack images that were put there by hand: torchvision asks for `gdown` first, even if nothing is missing."""
    from torchvision.datasets.utils import check_integrity, extract_archive

    archive = folder / "img_align_celeba.zip"
    if (folder / "img_align_celeba").exists() or not check_integrity(archive, md5[archive.name]):
        return
    # Beside its final place, so that a folder of this name is always complete.
    with tempfile.TemporaryDirectory(dir=folder) as unpacked:
        extract_archive(str(archive), unpacked)
        os.replace(Path(unpacked) / "img_align_celeba", folder / "img_align_celeba")


def _resize(images: Tensor, size: int) -> Tensor:
    if images.shape[-1] == size:
        return images.contiguous()
    parts = [
        torch.nn.functional.interpolate(part, size=(size, size), mode="bicubic", antialias=True)
        for part in images.split(1024)
    ]
    return torch.cat(parts)


def _writable(root: Path, folder: Path, files: list[tuple[str, str]]) -> Path:
    """Return `root`, or a copy of its archives in the cache folder where `root` does not let us unpack them."""
    source = root / folder
    unpacked = all((source / name).with_suffix("").exists() for name, _ in files)
    if unpacked or not source.exists() or os.access(source, os.W_OK):
        return root
    copy = cache_folder() / "archives"
    (copy / folder).mkdir(parents=True, exist_ok=True)
    for name, _ in files:
        if (source / name).exists() and not (copy / folder / name).with_suffix("").exists():
            shutil.copyfile(source / name, copy / folder / name)
    return copy


@contextmanager
def _explained(name: str, folder: Path, files: list[tuple[str, str]]) -> Iterator[None]:
    """Turn whatever goes wrong on the way to a data set into one line that says which files to put where."""
    from torchvision.datasets.utils import check_integrity

    patience = socket.getdefaulttimeout()
    socket.setdefaulttimeout(_PATIENCE)
    try:
        yield
    except Exception as error:  # refused, cut off, wrong hash, full disk, a damaged file: torchvision raises many types
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        wrong = [file for file, md5 in files if (folder / file).exists() and not check_integrity(folder / file, md5)]
        if wrong:
            reason = f"not the original file, or cut off: {', '.join(wrong)}"
        wanted = ", ".join(file for file, _ in files)
        raise UserError(
            f"cannot load '{name}' ({reason}); without a download, put the original files into {folder}, "
            f"in place of any damaged ones: {wanted}"
        ) from error
    finally:
        socket.setdefaulttimeout(patience)
