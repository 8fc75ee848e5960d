"""Data sets larger than memory: all pixels in one file on disk, from which batches are read by position.

A store is a folder of three files. It is written once, by :mod:`dcgan_lib.store_writer`, and never changed:

=============== =======================================================================================
``images.u8``   the pixels, uint8 (N, C, S, S) in C order and nothing else: first the images of the
                training split, then those of the test split
``labels.i64``  the labels, int64 (N, F), little-endian, in C order
``index.json``  format, version, shape, splits, names of the labels' values, and checksums of all the rest
=============== =======================================================================================
"""

from __future__ import annotations

import hashlib
import json
import os
import threading
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from dcgan_lib.errors import UserError
from dcgan_lib.seeds import shuffled

FORMAT = "dcgan_lib image store"
VERSION = 1
IMAGES_NAME = "images.u8"
LABELS_NAME = "labels.i64"
INDEX_NAME = "index.json"
UNFINISHED = ".unfinished"
"""What the name of a folder ends in while a store is being built there."""

_PIECE = 2**20  # bytes read at once where a whole block is not needed
_NAMED = 8  # an error names this many damaged blocks, and counts the others


@dataclass(frozen=True)
class StoreIndex:
    """What the index of a store says.

    Attributes:
        shape: (N, C, S, S).
        splits: "train" and "test" -> number of images, in the order of the file.
        label_names: Factor -> names of its values, in the order of the columns of the labels.
        skipped: Split -> places of the broken images among all that were found for this split, ascending.
        block_images: Images in a block, the unit of checksums; the last block may hold fewer.
        blocks: SHA-256 of each block of pixels.
        labels_sha256: SHA-256 of the labels.
    """

    shape: tuple[int, int, int, int]
    splits: dict[str, int]
    label_names: dict[str, tuple[str, ...]]
    skipped: dict[str, tuple[int, ...]]
    block_images: int
    blocks: tuple[str, ...]
    labels_sha256: str

    @property
    def image_size(self) -> int:
        """S, in pixels."""
        return self.shape[-1]

    @property
    def image_bytes(self) -> int:
        """Bytes of one image."""
        return int(np.prod(self.shape[1:]))

    @property
    def sizes(self) -> dict[str, int]:
        """Names of the store's other files -> their sizes in bytes."""
        count = self.shape[0]
        return {IMAGES_NAME: count * self.image_bytes, LABELS_NAME: count * len(self.label_names) * 8}

    def to_json(self) -> str:
        """Return the text of ``index.json``, which ends in a checksum of itself."""
        content = {"format": FORMAT, "version": VERSION} | asdict(self)
        return json.dumps(content | {"sha256": _content_sha256(content)}, indent=1) + "\n"


class StoredImages:
    """The images of a store, used like a uint8 tensor (N, C, S, S) that happens to lie on disk.

    ``images[index]`` with a whole number, a slice, or whole numbers in a tensor or list reads these images into a new
    tensor in memory; ``len`` and ``shape`` and ``dtype`` read nothing.

    The file is read by position (``pread``), not mapped into memory. What has been read through a map counts as memory
    of the process, and if the file is cut short or its disk goes away, the next touch of the map ends the process
    without a word; a read fails with an error that can be explained. Reading by position moves no common place in the
    file, so threads and forked processes may read at the same time. Images that lie together are read together.

    Args:
        path: The file of pixels, ``images.u8``.
        shape: (C, S, S), shape of one image.
        rows: Which images of the file these are: consecutive ones, or in any order, int64 (N,).

    Raises:
        UserError: If the file cannot be opened, and later if it cannot be read.
    """

    dtype = torch.uint8
    ndim = 4

    def __init__(self, path: Path, shape: Sequence[int], rows: range | np.ndarray) -> None:
        self.path, self.rows = path, rows
        self.shape = torch.Size((len(rows), *shape))
        self._image_bytes = int(np.prod(shape))
        self._lock = threading.Lock()  # only where there is no pread
        try:
            self._file = open(path, "rb", buffering=0)  # noqa: SIM115 (it is closed with the last use of this object)
        except OSError as error:
            raise self._unreadable(error.strerror or str(error)) from error

    def __len__(self) -> int:
        return len(self.rows)

    def __repr__(self) -> str:
        return f"StoredImages({str(self.path)!r}, shape={tuple(self.shape)})"

    def __reduce__(self) -> tuple[Any, ...]:
        # A process that is spawned rather than forked opens the file for itself.
        return type(self), (self.path, tuple(self.shape[1:]), self.rows)

    def __getitem__(self, index: int | slice | Tensor | Sequence[int]) -> Tensor:
        if isinstance(index, slice):
            start, stop, step = index.indices(len(self))
            if step < 0:
                raise ValueError("the step of a slice must be greater than zero, as for a tensor")
            numbers = np.arange(start, stop, step, dtype=np.int64)
        else:
            numbers = _whole_numbers(index, len(self))
        rows = numbers + self.rows.start if isinstance(self.rows, range) else self.rows[numbers]
        return self._read(rows.reshape(-1)).view(*numbers.shape, *self.shape[1:])

    def _read(self, rows: np.ndarray) -> Tensor:
        images = torch.empty(len(rows) * self._image_bytes, dtype=torch.uint8)
        memory = memoryview(images.numpy())
        begins = np.flatnonzero(np.diff(rows, prepend=-2) != 1)  # of runs of neighbours, read in one piece
        ends = np.append(begins, len(rows))[1:]
        for begin, end, row in zip(begins.tolist(), ends.tolist(), rows[begins].tolist(), strict=True):
            self._fill(memory[begin * self._image_bytes : end * self._image_bytes], row * self._image_bytes)
        return images

    def _fill(self, memory: memoryview, place: int) -> None:
        """Fill memory with the bytes from `place` on; the system may hand them over in several parts."""
        while memory:
            try:
                count = self._read_at(memory, place)
            except OSError as error:
                raise self._unreadable(error.strerror or str(error)) from error
            if count == 0:
                raise self._unreadable("it has been cut short")
            memory, place = memory[count:], place + count

    def _read_at(self, memory: memoryview, place: int) -> int:
        if hasattr(os, "preadv"):
            return os.preadv(self._file.fileno(), [memory], place)
        with self._lock:
            self._file.seek(place)
            return self._file.readinto(memory)

    def _unreadable(self, reason: str) -> UserError:
        return UserError(
            f"cannot read {self.path}: {reason}; mount its disk, or see what is damaged with: "
            f"dcgan store --check {self.path.parent}"
        )


def load_store(
    path: str | Path, image_size: int, split: str, limit: int | None, seed: int
) -> tuple[StoredImages, Tensor, dict[str, tuple[str, ...]]]:
    """Open a store; no pixel is read.

    The images are those that :func:`dcgan_lib.folder.load_folder` would return for the same arguments and the folder
    the store was built from, in the same order.

    Args:
        path: The store.
        image_size: S; a store has one size.
        split: "train" or "test".
        limit: Most images, a random choice fixed by `seed`; None means all.
        seed: Which images are chosen, and in which order.

    Returns:
        The images, uint8 (N, C, S, S) on disk; labels, int64 (N, F), in memory; and the names of the labels' values.

    Raises:
        UserError: If there is no store, it is damaged, its images have another size, or the split is empty.
    """
    path = Path(path).expanduser()
    index = read_index(path)
    size = index.image_size
    if size != image_size:
        raise UserError(
            f"the images of the store '{path}' have {size} x {size} pixels, not {image_size} x {image_size}: "
            f"choose image size {size}, or build another store"
        )
    count = index.splits[split]
    if not count:
        raise UserError(f"the store '{path}' has no image for split '{split}': build it from more images")
    first = 0 if split == "train" else index.splits["train"]
    rows = range(first, first + count)
    labels = _read_labels(path, index)[first : first + count]
    if limit is not None:
        chosen = _choose(count, index.skipped[split], limit, seed)
        rows, labels = first + chosen, labels[torch.from_numpy(chosen)]
    return StoredImages(path / IMAGES_NAME, index.shape[1:], rows), labels, index.label_names


def read_index(path: str | Path) -> StoreIndex:
    """Read the index of a store, and compare it with its own checksum and with the sizes of the other files.

    Raises:
        UserError: If there is no store, or it is damaged or of a version this package does not know.
    """
    path = Path(path).expanduser()
    try:
        text = (path / INDEX_NAME).read_text(encoding="utf-8")
    except (FileNotFoundError, NotADirectoryError) as error:
        raise UserError(_no_store(path)) from error
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "not text"
        raise UserError(f"cannot read {path / INDEX_NAME}: {reason}; {_rebuild(path)}") from error
    index = _parse_index(text, path)
    for name, expected in index.sizes.items():
        try:
            size = (path / name).stat().st_size
        except OSError as error:
            raise UserError(f"cannot read {path / name}: {error.strerror}; {_rebuild(path)}") from error
        if size != expected:
            raise UserError(f"{path / name} has {size:,} bytes instead of {expected:,}; {_rebuild(path)}")
    return index


def check_store(path: str | Path, progress: bool = False) -> StoreIndex:
    """Read a whole store and compare it with its checksums.

    Args:
        path: The store.
        progress: Show a progress bar.

    Returns:
        Its index.

    Raises:
        UserError: If anything differs; the message names the damaged blocks and the images in them.
    """
    from tqdm.auto import tqdm

    path = Path(path).expanduser()
    index = read_index(path)
    _read_labels(path, index)
    damaged = []
    with tqdm(total=index.shape[0], unit="image", disable=not progress, dynamic_ncols=True) as bar:
        for number, (digest, count) in enumerate(_digests(path / IMAGES_NAME, index)):
            if digest != index.blocks[number]:
                first = number * index.block_images
                damaged.append(f"block {number + 1} of {len(index.blocks)} (images {first:,} to {first + count - 1:,})")
            bar.update(count)
    if damaged:
        more = f", and {len(damaged) - _NAMED} more" if len(damaged) > _NAMED else ""
        raise UserError(f"damaged in {path / IMAGES_NAME}: {', '.join(damaged[:_NAMED])}{more}; {_rebuild(path)}")
    return index


def _content_sha256(content: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(content).encode()).hexdigest()


def _whole_numbers(index: Any, count: int) -> np.ndarray:
    """Return an index as int64 numbers from 0 to count - 1, of the index's own shape."""
    numbers = None
    if not isinstance(index, bool | tuple):
        with suppress(TypeError, ValueError, RuntimeError):
            numbers = torch.as_tensor(index).cpu()
    if numbers is None or (numbers.numel() and numbers.dtype not in (torch.int64, torch.int32)):
        raise TypeError(
            "an index of stored images is a whole number, a slice, or whole numbers in a tensor or list; "
            "for parts of images read them first, as in images[:100][:, 0]"
        )
    rows = numbers.numpy().astype(np.int64)
    rows = np.where(rows < 0, rows + count, rows)
    if rows.size and (rows.min() < 0 or rows.max() >= count):
        raise IndexError(f"an index is out of range for {count} stored images")
    return rows


def _choose(count: int, skipped: Sequence[int], limit: int, seed: int) -> np.ndarray:
    """Choose as :func:`dcgan_lib.folder.load_folder` does: it shuffles the broken images too, and then skips them."""
    number = np.full(count + len(skipped), -1, dtype=np.int64)
    good = np.ones(len(number), dtype=bool)
    good[list(skipped)] = False
    number[good] = np.arange(count)
    order = number[shuffled(len(number), seed)]
    return order[order >= 0][:limit]


def _parse_index(text: str, path: Path) -> StoreIndex:
    place = path / INDEX_NAME
    try:
        content = json.loads(text)
        if content["format"] != FORMAT:
            raise ValueError(content["format"])
        version, digest = content["version"], content.pop("sha256")
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise UserError(f"{place} is damaged, or not the index of an image store; {_rebuild(path)}") from error
    if version != VERSION:
        raise UserError(f"{path} is a store of version {version}, and this dcgan_lib reads version {VERSION}: "
                        f"use the dcgan_lib that built it, or build it again")  # fmt: skip
    if digest != _content_sha256(content):
        raise UserError(f"{place} was altered or damaged: its checksum differs; {_rebuild(path)}")
    try:
        index = StoreIndex(
            shape=tuple(content["shape"]),
            splits={split: int(content["splits"][split]) for split in ("train", "test")},
            label_names={factor: tuple(values) for factor, values in content["label_names"].items()},
            skipped={split: tuple(content["skipped"][split]) for split in ("train", "test")},
            block_images=int(content["block_images"]),
            blocks=tuple(content["blocks"]),
            labels_sha256=content["labels_sha256"],
        )
        count, channels, height, width = index.shape
        blocks = -(-count // index.block_images)
        if sum(index.splits.values()) != count or len(index.blocks) != blocks or height != width or channels < 1:
            raise ValueError("numbers that contradict each other")
    except (ValueError, KeyError, TypeError, AttributeError, ZeroDivisionError) as error:
        raise UserError(f"{place} is damaged: {error}; {_rebuild(path)}") from error
    return index


def _read_labels(path: Path, index: StoreIndex) -> Tensor:
    try:
        content = (path / LABELS_NAME).read_bytes()
    except OSError as error:
        raise UserError(f"cannot read {path / LABELS_NAME}: {error.strerror}; {_rebuild(path)}") from error
    if hashlib.sha256(content).hexdigest() != index.labels_sha256:
        raise UserError(f"{path / LABELS_NAME} was altered or damaged: its checksum differs; {_rebuild(path)}")
    labels = np.frombuffer(content, dtype="<i8").astype(np.int64)
    return torch.from_numpy(labels.reshape(index.shape[0], len(index.label_names)))


def _digests(path: Path, index: StoreIndex) -> Iterator[tuple[str, int]]:
    """Yield the checksum of each block as it is on disk now, and the number of images in it."""
    step = max(1, _PIECE // index.image_bytes)
    images = StoredImages(path, index.shape[1:], range(index.shape[0]))
    for first in range(0, len(images), index.block_images):
        last = min(first + index.block_images, len(images))
        digest = hashlib.sha256()
        for start in range(first, last, step):
            digest.update(memoryview(images[start : min(start + step, last)].view(-1).numpy()))
        yield digest.hexdigest(), last - first


def _no_store(path: Path) -> str:
    unfinished = path.parent / (path.name + UNFINISHED)
    if path.name.endswith(UNFINISHED) or unfinished.is_dir():
        return f"the store '{path}' is not finished: run the dcgan store command that builds it again, and it goes on"
    if path.is_dir():
        return f"'{path}' is not an image store: it holds no {INDEX_NAME}; for a folder of images write folder:{path}"
    return (
        f"there is no image store at '{path}': check the path, or mount its disk; build one with: "
        f"dcgan store --data folder:PATH --output {path}"
    )


def _rebuild(path: Path) -> str:
    return f"restore it from a copy, or delete {path} and build it again with dcgan store"
