"""Write image stores: the pixels block by block, then all the rest, in a folder that gets its name at the end.

A store is built in a folder beside its final place, ``PATH.unfinished``, and renamed when it is complete: what has the
store's name is a whole store.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
import torch
from torch import Tensor

from dcgan_lib.data import require_image_size
from dcgan_lib.errors import UserError
from dcgan_lib.files import locked, sync_folder
from dcgan_lib.store import IMAGES_NAME, INDEX_NAME, LABELS_NAME, UNFINISHED, StoreIndex

BLOCK_BYTES = 64 * 2**20
"""Pixels with one checksum, in bytes: the most work that a killed build loses."""

JOURNAL_NAME = "build.jsonl"
"""How far a build from a folder has come; see :mod:`dcgan_lib.store_builder`."""

Batch = Tensor | tuple[Tensor, Tensor]


def write_store(
    output: str | Path,
    train: Iterable[Batch],
    test: Iterable[Batch] = (),
    label_names: Mapping[str, Sequence[str]] | None = None,
    block_bytes: int = BLOCK_BYTES,
) -> StoreIndex:
    """Write a store of images that come in batches, such as generated ones; one batch is in memory at a time.

    Args:
        output: The store, a folder that must not exist. If anything fails on the way, nothing is left there.
        train: Images for training: each batch uint8 (n, C, S, S) with C of 1 or 3 and S of 32, 64 or 128, or a pair of
            such a batch and its labels, int64 (n, F).
        test: Images for the test split.
        label_names: Factor -> names of its values, in the order of the F columns of the labels. None: no labels.
        block_bytes: Pixels with one checksum, in bytes.

    Returns:
        The index of the store.

    Raises:
        UserError: If the batches do not fit each other or the names, there is no image for training, or the store
            exists, is being built by another process, or cannot be written.
    """
    names = {factor: tuple(values) for factor, values in (label_names or {}).items()}
    with new_store(output) as folder, ExitStack() as stack:
        if can_go_on(folder):
            raise UserError(f"{folder} is the unfinished build of a folder of images: finish it, or delete it")
        pixels, labels, splits = None, [], {"train": 0, "test": 0}
        for split, batches in (("train", train), ("test", test)):
            for batch in batches:
                images, rows = _checked(batch, names, pixels.shape if pixels else None)
                if pixels is None:
                    pixels = PixelFile(folder / IMAGES_NAME, tuple(images.shape[1:]), block_bytes)
                    stack.enter_context(pixels)
                pixels.append(images.numpy())
                labels.append(rows)
                splits[split] += len(images)
        if not splits["train"]:
            raise UserError(f"the store {output} would have no image for training")
        return complete(folder, pixels, splits, {"train": (), "test": ()}, torch.cat(labels), names)


class PixelFile:
    """Appends images to the file of pixels, with a checksum for each block.

    Args:
        path: The file; what it holds beyond `blocks` is cut off.
        shape: (C, S, S).
        block_bytes: Most bytes in a block; it holds whole images, and at least one.
        blocks: Checksums of the blocks that are there already.
    """

    def __init__(self, path: Path, shape: tuple[int, ...], block_bytes: int, blocks: Sequence[str] = ()) -> None:
        self.shape = shape
        image_bytes = int(np.prod(shape))
        self.block_images = max(1, block_bytes // image_bytes)
        self.block_bytes = self.block_images * image_bytes
        self.blocks = list(blocks)
        self._digest, self._filled = hashlib.sha256(), 0
        # Unbuffered: what a full disk refuses must fail here and now, and not once more as the file is closed.
        self._file = open(path, "r+b" if blocks else "wb", buffering=0)  # noqa: SIM115 (closed by __exit__)
        self._file.truncate(len(blocks) * self.block_bytes)
        self._file.seek(0, os.SEEK_END)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._file.close()

    def append(self, images: np.ndarray) -> None:
        """Append uint8 images, (C, S, S) or (n, C, S, S)."""
        rest = memoryview(np.ascontiguousarray(images).reshape(-1))
        while rest:
            part = rest[: self.block_bytes - self._filled]
            count = self._file.write(part)
            self._digest.update(part[:count])
            self._filled, rest = self._filled + count, rest[count:]
            if self._filled == self.block_bytes:
                self._end_block()

    def finish(self) -> None:
        """End the last block, which may be shorter."""
        if self._filled:
            self._end_block()

    def _end_block(self) -> None:
        os.fsync(self._file.fileno())
        self.blocks.append(self._digest.hexdigest())
        self._digest, self._filled = hashlib.sha256(), 0


def complete(
    folder: Path,
    pixels: PixelFile,
    splits: dict[str, int],
    skipped: dict[str, tuple[int, ...]],
    labels: Tensor,
    label_names: dict[str, tuple[str, ...]],
) -> StoreIndex:
    """Write what belongs to the pixels, the index last.

    Args:
        folder: Where the store is built.
        pixels: The images, all appended.
        splits: Split -> number of its images.
        skipped: Split -> places of the images that could not be read.
        labels: int64 (N, F).
        label_names: Factor -> names of its values.

    Returns:
        The index.
    """
    pixels.finish()
    content = labels.numpy().astype("<i8").tobytes()
    index = StoreIndex(
        shape=(sum(splits.values()), *pixels.shape),
        splits=splits,
        label_names=label_names,
        skipped=skipped,
        block_images=pixels.block_images,
        blocks=tuple(pixels.blocks),
        labels_sha256=hashlib.sha256(content).hexdigest(),
    )
    write_synced(folder / LABELS_NAME, content)
    write_synced(folder / INDEX_NAME, index.to_json().encode())
    return index


@contextmanager
def new_store(output: str | Path) -> Iterator[Path]:
    """Yield the folder in which to build a store; on success it becomes `output` in one step.

    Whatever fails, there is no `output`, and the folder stays only if a build can go on from it.

    Raises:
        UserError: If `output` exists, another process builds it, or the operating system refuses a write.
    """
    output = Path(os.path.abspath(Path(output).expanduser()))
    folder = output.parent / (output.name + UNFINISHED)
    try:
        _check_free(output)
        output.parent.mkdir(parents=True, exist_ok=True)
        with _kept_alone(output, folder):
            _check_free(output)
            folder.mkdir(exist_ok=True)
            _check_ours(folder)
            try:
                yield folder
                sync_folder(folder)
                os.rename(folder, output)
            except BaseException:
                if not can_go_on(folder):
                    shutil.rmtree(folder, ignore_errors=True)
                raise
            sync_folder(output.parent)
            (output / JOURNAL_NAME).unlink(missing_ok=True)
    except OSError as error:
        stays = f"what is built stays in {folder}: make room, and the same command goes on from there"
        advice = stays if can_go_on(folder) else "make room there, or choose another --output"
        raise UserError(f"cannot write {output}: {error.strerror or error}; {advice}") from error


def can_go_on(folder: Path) -> bool:
    """Whether a build from a folder can be resumed here."""
    return len(read_journal(folder / JOURNAL_NAME)) > 1


def read_journal(path: Path) -> list[dict[str, Any]]:
    """The lines of a journal that are whole: a kill may have left half a line at its end."""
    lines = []
    with suppress(FileNotFoundError, NotADirectoryError, ValueError):
        for line in path.read_text(encoding="ascii").splitlines(keepends=True):
            if not line.endswith("\n"):
                break
            lines.append(dict(json.loads(line)))
    return lines


def write_synced(path: Path, content: bytes, mode: str = "wb") -> None:
    """Write or append (mode "ab") to a file that is safely on disk when this returns."""
    with path.open(mode) as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


@contextmanager
def _kept_alone(output: Path, folder: Path) -> Iterator[None]:
    """Keep other processes from building the same store."""
    path = output.parent / f"{output.name}.lock"
    busy = f"another process is building {output}: wait for it, or choose another --output"
    with locked(path, busy):
        try:
            yield
        finally:
            if output.exists() or not folder.exists():  # nothing is left to protect
                with suppress(OSError):
                    path.unlink()


def _check_free(output: Path) -> None:
    if (output / INDEX_NAME).is_file():
        raise UserError(f"{output} is a store already: use it as store:{output}, or choose another --output")
    if os.path.lexists(output):
        raise UserError(f"{output} exists already: choose another --output, or delete it")


def _check_ours(folder: Path) -> None:
    """Make sure that the folder of an unfinished build holds nothing of others, which would end up in the store."""
    ours = {IMAGES_NAME, LABELS_NAME, INDEX_NAME, JOURNAL_NAME}
    for path in folder.iterdir():
        if path.name not in ours and not path.name.startswith("."):  # such as what a file manager leaves
            raise UserError(f"{folder} holds a foreign file, {path.name}: move it away, or choose another --output")


def _checked(
    batch: Batch, names: Mapping[str, tuple[str, ...]], shape: tuple[int, ...] | None
) -> tuple[Tensor, Tensor]:
    """Return the images and labels of a batch on the CPU; raise `UserError` if they do not fit the store."""
    images, labels = batch if isinstance(batch, tuple) else (batch, None)
    if images.dtype != torch.uint8 or images.ndim != 4 or images.shape[1] not in (1, 3):
        raise UserError(f"a batch must be uint8 (n, 1 or 3, S, S), not {images.dtype} {tuple(images.shape)}")
    if images.shape[2] != images.shape[3]:
        raise UserError(f"images must be square, not {images.shape[2]} x {images.shape[3]}")
    require_image_size(images.shape[2])
    if shape is not None and tuple(images.shape[1:]) != shape:
        raise UserError(f"all images of a store have one shape: {shape}, not {tuple(images.shape[1:])}")
    labels = torch.empty(len(images), 0, dtype=torch.int64) if labels is None else labels.cpu()
    if labels.dtype != torch.int64 or labels.shape != (len(images), len(names)):
        expected = (len(images), len(names))
        raise UserError(f"labels must be int64 {expected}, as label_names, not {labels.dtype} {tuple(labels.shape)}")
    sizes = torch.tensor([len(values) for values in names.values()])
    if bool((labels < 0).any()) or bool((labels >= sizes).any()):
        raise UserError("a label is outside the values of its factor")
    return images.cpu(), labels
