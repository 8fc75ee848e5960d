"""Any folder of images: found, decoded, cropped to squares; what cannot be read is named, counted and skipped."""

from __future__ import annotations

import hashlib
import os
import warnings
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch
from torch import Tensor

from dcgan_lib.errors import UserError
from dcgan_lib.seeds import shuffled

if TYPE_CHECKING:
    from PIL import Image

SPLITS = ("train", "test")
SUFFIXES = (".png", ".jpg", ".jpeg", ".jpe", ".jfif", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".ppm", ".pgm", ".avif")
"""Files with other suffixes are not taken for images. What a file holds is decided by its content."""

_MOST_PIXELS = 89_478_485  # Pillow's own bound: a file that claims more is taken for a decompression bomb
_TEST_SHARE = 10  # one image in ten is kept for the test split
_NAMED = 8  # a warning names this many broken files, and counts the others

CHUNK = 1024
"""Images decoded at once: enough to keep every processor busy, few enough to fit into any memory."""


class Listing(NamedTuple):
    """The images below a folder, none of them opened yet.

    Attributes:
        root: The folder.
        names: Paths relative to it, with forward slashes and sorted.
        splits: "train" and "test" -> the names of that split, sorted.
    """

    root: Path
    names: list[str]
    splits: dict[str, list[str]]


def load_folder(
    path: str | Path, image_size: int, split: str, limit: int | None, seed: int
) -> tuple[Tensor, Tensor, dict[str, tuple[str, ...]]]:
    """Read the images below a folder.

    Where the folder holds nothing but the sub-folders ``train`` and ``test``, these are the splits, as photographs of
    one person or place should not be in both. Else the split of an image hangs on a hash of its path relative to the
    folder: about one in ten is for testing, and an image stays where it is when others come or go. The two images with
    the largest hashes are always for training, so a tiny folder has something to train on.

    Args:
        path: The folder; sub-folders are searched too, and links are followed.
        image_size: S; the shorter side is resized to S (bicubic, antialiased), then the centre is cut out.
        split: "train" or "test".
        limit: Most images to read, a random choice fixed by `seed`; None reads all, sorted by path.
        seed: Which images are chosen, and in which order.

    Returns:
        Images, uint8 (N, 3, S, S); labels, int64 (N, 1), the first sub-folder of each image (below its split's), or
        (N, 0) if there are no sub-folders; and the names of the labels' values.

    Raises:
        UserError: If there is no such folder, or if fewer than two images for training, or none for testing, can be
            read.
    """
    root, names, splits = list_folder(path)
    wanted = splits[split]
    if not wanted:
        raise UserError(
            f"the folder '{path}' is too small for a {split} split: add images, about one in ten goes there"
        )
    if limit is not None:
        wanted = [wanted[i] for i in shuffled(len(wanted), seed)]
    images, kept = read_images(root, wanted, image_size, limit)
    if not os.path.lexists(root / wanted[0]):  # else every image read since would pass for a broken one
        raise UserError(f"the folder of images '{path}' vanished while it was read: mount its disk and try again")
    require_enough(path, split, len(kept), len(wanted), min(2, limit or 2) if split == "train" else 1)
    labels, label_names = folder_labels(names, kept)
    return images, labels, label_names


def list_folder(path: str | Path) -> Listing:
    """Find the images below a folder and say which split each belongs to, as :func:`load_folder` describes.

    Raises:
        UserError: If there is no such folder, or it holds fewer than two images.
    """
    root = Path(path).expanduser()
    if not str(path) or not root.is_dir():
        what = "is a file, not a folder" if root.is_file() else "does not exist: check the path, or mount its disk"
        raise UserError(f"the folder of images '{path}' {what}")
    names = find_images(root)
    if len(names) < 2:
        count = "no image" if not names else "only one image"
        raise UserError(f"the folder '{path}' holds {count} ({', '.join(SUFFIXES)}); at least two are needed")
    split_of = _split_of(names)
    return Listing(root, names, {split: [name for name in names if split_of[name] == split] for split in SPLITS})


def require_enough(path: str | Path, split: str, readable: int, listed: int, least: int) -> None:
    """Raise `UserError` unless at least `least` of the `listed` images of a split can be read."""
    if readable < least:
        raise UserError(
            f"the folder '{path}' has {readable} of {listed} images for split '{split}' that can be read; "
            f"at least {least} needed"
        )


def find_images(root: Path) -> list[str]:
    """Return the paths, relative to `root` with forward slashes and sorted, of all files that look like images."""
    names: list[str] = []
    seen: set[tuple[int, int]] = set()
    for folder, sub_folders, files in os.walk(root, followlinks=True):
        status = os.stat(folder)
        if status.st_ino and (status.st_dev, status.st_ino) in seen:
            sub_folders.clear()  # a link back to a folder already searched
            continue
        seen.add((status.st_dev, status.st_ino))
        sub_folders[:] = sorted(name for name in sub_folders if not name.startswith((".", "__MACOSX")))
        place = Path(folder).relative_to(root)
        prefix = "" if place == Path() else f"{place.as_posix()}/"
        names += [prefix + file for file in files if file.lower().endswith(SUFFIXES) and not file.startswith(".")]
    return sorted(names)


def read_images(root: Path, names: Sequence[str], size: int, limit: int | None = None) -> tuple[Tensor, list[str]]:
    """Read images in the order given until there are `limit`; warn, in one line, of those that cannot be read.

    Args:
        root: The folder.
        names: Paths relative to it.
        size: S.
        limit: Stop after this many good ones; None reads all.

    Returns:
        uint8 (N, 3, S, S), and the names of the N images that could be read.
    """
    target = len(names) if limit is None else min(limit, len(names))
    images = torch.empty(target, 3, size, size, dtype=torch.uint8)
    kept: list[str] = []
    broken: list[tuple[str, str]] = []
    next_name = 0
    with decoding(root, size) as decode:
        while len(kept) < target and next_name < len(names):
            chunk = names[next_name : next_name + min(target - len(kept), CHUNK)]
            next_name += len(chunk)
            for name, result in decode(chunk):
                if isinstance(result, str):
                    broken.append((name, result))
                else:
                    images[len(kept)] = torch.from_numpy(result)
                    kept.append(name)
    warn_skipped(root, broken, next_name)
    return images[: len(kept)], kept


@contextmanager
def decoding(root: Path, size: int) -> Iterator[Callable[[Sequence[str]], Iterator[tuple[str, np.ndarray | str]]]]:
    """Start threads that decode images below `root`.

    Yields:
        A function of a chunk of names, which gives each name in order, with its pixels, uint8 (3, S, S), or with the
        reason why there are none.
    """
    with ThreadPoolExecutor(os.cpu_count()) as pool, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Pillow's remarks on odd metadata; bombs are found by their size
        try:
            yield lambda names: zip(names, pool.map(lambda name: _read(root / name, size), names), strict=True)
        finally:
            pool.shutdown(cancel_futures=True)  # whoever stops early does not wait for the rest of a chunk


def warn_skipped(root: Path, broken: Sequence[tuple[str, str]], count: int) -> None:
    """Warn, in one line, of images that were skipped.

    Args:
        root: Their folder.
        broken: Name and reason of each.
        count: Number of images looked at.
    """
    if not broken:
        return
    more = f", and {len(broken) - _NAMED} more" if len(broken) > _NAMED else ""
    listed = ", ".join(f"{name if name.isprintable() else ascii(name)} ({why})" for name, why in broken[:_NAMED])
    warnings.warn(f"skipped {len(broken)} of {count} images in '{root}': {listed}{more}", stacklevel=3)


def square(image: Image.Image, size: int) -> np.ndarray:
    """Resize the shorter side to `size` and cut out the centre; transparent pixels show white.

    Args:
        image: A loaded image of any mode.
        size: S.

    Returns:
        uint8 (3, S, S).
    """
    from PIL import Image, ImageOps

    with suppress(Exception):  # damaged metadata is no reason to lose the image
        ImageOps.exif_transpose(image, in_place=True)
    image = _to_rgb(image)
    side = min(image.size)
    left, top = (image.width - side) / 2, (image.height - side) / 2
    image = image.resize((size, size), Image.Resampling.BICUBIC, box=(left, top, left + side, top + side))
    return np.asarray(image).transpose(2, 0, 1)


def _read(path: Path, size: int) -> np.ndarray | str:
    """Return uint8 (3, S, S), or why there is none. Decoders raise almost anything, so almost anything is caught."""
    from PIL import Image, UnidentifiedImageError

    try:
        if path.stat().st_size == 0:
            return "empty file"
        with Image.open(path) as image:
            if image.width * image.height > _MOST_PIXELS:
                return f"enormous: {image.width} x {image.height} pixels"
            image.draft(None, (2 * size, 2 * size))  # lets JPEG skip detail that is averaged away
            return square(image, size)
    except Image.DecompressionBombError:
        return "enormous"
    except UnidentifiedImageError:
        return "not an image"
    except Exception as error:
        reason = (error.strerror if isinstance(error, OSError) else None) or str(error) or type(error).__name__
        return " ".join(reason.split())


def _to_rgb(image: Image.Image) -> Image.Image:
    from PIL import Image

    if image.mode.startswith("I"):  # 16 bits of grey, which Pillow would clip to white
        levels = np.asarray(image).astype(np.int64)
        if levels.min() < 0 or levels.max() > 65535:
            raise ValueError("grey levels beyond 16 bits")
        return Image.fromarray(np.round(levels / 257).astype(np.uint8)).convert("RGB")
    if image.mode == "F":
        raise ValueError("floating-point pixels, whose range is unknown")
    if image.has_transparency_data:
        drawn = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", drawn.size, "white"), drawn).convert("RGB")
    return image.convert("RGB")


def _names_its_splits(names: Sequence[str]) -> bool:
    return {name.partition("/")[0] if "/" in name else "" for name in names} == set(SPLITS)


def _split_of(names: Sequence[str]) -> dict[str, str]:
    if _names_its_splits(names):
        return {name: name.partition("/")[0] for name in names}
    digests = {}
    for name in names:
        digest = hashlib.sha256(name.encode("utf-8", "surrogateescape")).digest()
        digests[name] = int.from_bytes(digest[:8], "big")
    border = 2**64 // _TEST_SHARE
    splits = {name: "test" if digest < border else "train" for name, digest in digests.items()}
    for name in sorted(digests, key=digests.__getitem__)[-2:]:
        splits[name] = "train"
    return splits


def folder_labels(names: Sequence[str], kept: Sequence[str]) -> tuple[Tensor, dict[str, tuple[str, ...]]]:
    """Label images with their first sub-folder; the values come from all images, so they fit both splits.

    Where the folder names its splits, what counts is the first sub-folder of "train" and of "test".

    Args:
        names: All images of the folder.
        kept: The N images to label.

    Returns:
        int64 (N, 1) and the names of the values; (N, 0) and none if there are no sub-folders.
    """
    if _names_its_splits(names):
        names, kept = ([name.partition("/")[2] for name in each] for each in (names, kept))
    folders = sorted({name.split("/")[0] if "/" in name else "." for name in names})
    if folders == ["."]:
        return torch.empty(len(kept), 0, dtype=torch.int64), {}
    index = {folder: i for i, folder in enumerate(folders)}
    labels = [index[name.split("/")[0] if "/" in name else "."] for name in kept]
    return torch.tensor(labels, dtype=torch.int64).reshape(-1, 1), {"folder": tuple(folders)}
