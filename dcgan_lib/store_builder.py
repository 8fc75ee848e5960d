"""Build an image store from a folder of images, however many there are and whenever the build is interrupted.

While a store is built, a journal beside its pixels records every block that is safely on disk. A build that was killed
goes on from there.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from dcgan_lib.data import require_image_size
from dcgan_lib.errors import UserError
from dcgan_lib.folder import CHUNK, Listing, decoding, folder_labels, list_folder, require_enough, warn_skipped
from dcgan_lib.store import FORMAT, IMAGES_NAME, VERSION, StoreIndex
from dcgan_lib.store_writer import BLOCK_BYTES, JOURNAL_NAME, PixelFile, complete, new_store, read_journal, write_synced


def build_store(
    path: str | Path, output: str | Path, image_size: int = 64, progress: bool = False, block_bytes: int = BLOCK_BYTES
) -> StoreIndex:
    """Build a store of the images below a folder, with the pixels, labels and splits of ``folder:PATH``.

    A build that was killed goes on from its last whole block when it is started again with the same arguments, and
    ends in the same bytes. If pictures were added, removed or changed in between, it says so and starts over. Only
    the images' names are held in memory, and the pixels of a thousand of them. Broken images are named, counted and
    skipped.

    Args:
        path: The folder of images.
        output: The store, a folder that must not exist.
        image_size: S, one of 32, 64, 128.
        progress: Show a progress bar.
        block_bytes: Pixels with one checksum, in bytes.

    Returns:
        The index of the store.

    Raises:
        UserError: If the folder holds too few images or vanishes, or the store exists, is being built by another
            process, would lie inside the folder, or cannot be written. What is built is kept where that helps.
    """
    require_image_size(image_size)
    listing = list_folder(path)
    if Path(output).expanduser().resolve().is_relative_to(listing.root.resolve()):
        raise UserError(f"the store {output} would lie inside the folder of images: choose an --output outside of it")
    with new_store(output) as folder:
        build = _Build(listing, folder, image_size, block_bytes)
        with build.pixels:
            build.check_space()
            build.decode(progress)
            index = build.complete(path)
    warn_skipped(listing.root, [(build.listed[place], why) for place, why in build.journal.broken], len(build.listed))
    return index


class _Journal:
    """How far a build has come: a line with its arguments, then a line for each block of pixels that is on disk.

    Args:
        path: The file. The blocks of an earlier build with the same arguments count; if only its pictures were others,
            it is forgotten with a warning.
        arguments: What the result depends on.

    Raises:
        UserError: If the file belongs to a build with other arguments.
    """

    def __init__(self, path: Path, arguments: Mapping[str, Any]) -> None:
        self.path = path
        self.blocks: list[str] = []
        self.next = 0  # the first image, in the order of the list, that is in no whole block yet
        self.broken: list[tuple[int, str]] = []  # place in the list, and reason
        lines = read_journal(path)
        if lines and lines[0] != arguments:
            _require_same_build(path.parent, lines[0], arguments)
            lines = []
        pixels = path.with_name(IMAGES_NAME)
        on_disk = pixels.stat().st_size // arguments["block_bytes"] if pixels.exists() else 0
        for line in lines[1 : 1 + on_disk]:
            self._take(line)
        if len(self.blocks) > 0:
            os.truncate(path, sum(len(_line(line)) for line in lines[: 1 + len(self.blocks)]))
        else:
            write_synced(path, _line(arguments))

    def add(self, sha256: str, next_image: int, broken: Sequence[tuple[int, str]]) -> None:
        """Record one more block, and which images were broken on the way to it."""
        line = {"sha256": sha256, "next": next_image, "broken": broken}
        self._take(line)
        write_synced(self.path, _line(line), "ab")

    def _take(self, line: Mapping[str, Any]) -> None:
        self.blocks.append(line["sha256"])
        self.next = line["next"]
        self.broken += [(place, reason) for place, reason in line["broken"]]


class _Build:
    """One build: opens the journal and the file of pixels, decodes the rest, and completes the store."""

    def __init__(self, listing: Listing, folder: Path, image_size: int, block_bytes: int) -> None:
        self.listing, self.folder, self.image_size = listing, folder, image_size
        self.listed = [*listing.splits["train"], *listing.splits["test"]]
        pictures, self.missing = _fingerprint(listing.root, self.listed)
        self.image_bytes = 3 * image_size**2
        block_bytes = max(1, block_bytes // self.image_bytes) * self.image_bytes
        arguments = {
            "format": FORMAT, "version": VERSION, "folder": str(listing.root.resolve()), "image_size": image_size,
            "block_bytes": block_bytes, "pictures": pictures,
        }  # fmt: skip
        self.journal = _Journal(folder / JOURNAL_NAME, arguments)
        shape = (3, image_size, image_size)
        self.pixels = PixelFile(folder / IMAGES_NAME, shape, block_bytes, self.journal.blocks)

    def check_space(self) -> None:
        """Make sure that the rest of the store fits on the disk."""
        whole = (self.image_bytes + 8) * len(self.listed)  # an image and its label
        need = whole - len(self.pixels.blocks) * self.pixels.block_bytes
        free = shutil.disk_usage(self.folder).free
        if free < need:
            raise UserError(
                f"the store needs {need / 1e9:,.2f} GB, and the disk of {self.folder.parent} has {free / 1e9:,.2f} GB "
                f"left: make room, or choose another --output"
            )

    def decode(self, progress: bool) -> None:
        """Decode what is missing, block by block."""
        from tqdm.auto import tqdm

        start, count, broken = self.journal.next, len(self.listed), []
        bar = tqdm(initial=start, total=count, unit="image", disable=not progress, dynamic_ncols=True)
        with bar, decoding(self.listing.root, self.image_size) as decode:
            for first in range(start, count, CHUNK):
                for place, (name, result) in enumerate(decode(self.listed[first : first + CHUNK]), first):
                    if isinstance(result, str):
                        self._check_present(place, name)
                        broken.append((place, result))
                    else:
                        self.pixels.append(result)
                    if len(self.pixels.blocks) > len(self.journal.blocks):
                        self.journal.add(self.pixels.blocks[-1], place + 1, broken)
                        broken = []
                    bar.update()
        self.journal.broken += broken

    def complete(self, path: str | Path) -> StoreIndex:
        """Write what belongs to the pixels."""
        broken = {place for place, _ in self.journal.broken}
        kept = [name for place, name in enumerate(self.listed) if place not in broken]
        train = len(self.listing.splits["train"])
        skipped = {
            "train": tuple(sorted(place for place in broken if place < train)),
            "test": tuple(sorted(place - train for place in broken if place >= train)),
        }
        splits = {split: len(names) - len(skipped[split]) for split, names in self.listing.splits.items()}
        require_enough(path, "train", splits["train"], train, 2)
        labels, label_names = folder_labels(self.listing.names, kept)
        return complete(self.folder, self.pixels, splits, skipped, labels, label_names)

    def _check_present(self, place: int, name: str) -> None:
        """Tell an image that was broken from the start from a folder that goes away."""
        if place not in self.missing and not os.path.exists(self.listing.root / name):
            raise UserError(
                f"'{name}' has vanished from '{self.listing.root}' while the store was built: mount its disk if it is "
                f"gone, and run the same command again; it goes on from what is built"
            )


def _line(content: Mapping[str, Any]) -> bytes:
    return (json.dumps(content) + "\n").encode()


def _require_same_build(folder: Path, before: Mapping[str, Any], now: Mapping[str, Any]) -> None:
    """Warn if an unfinished build saw other pictures; raise `UserError` if its other arguments differ."""
    if {**before, "pictures": ""} != {**now, "pictures": ""}:
        raise UserError(
            f"{folder} is the unfinished build of '{before.get('folder')}' at {before.get('image_size')} pixels: "
            f"finish it with the same arguments, or delete it"
        )
    warnings.warn(f"the images in '{now['folder']}' have changed since the build began: it starts over", stacklevel=5)


def _fingerprint(root: Path, names: Sequence[str]) -> tuple[str, set[int]]:
    """Return a hash of names, sizes and times of files, and the places of those that are links to nothing."""
    digest, missing = hashlib.sha256(), set()
    for place, name in enumerate(names):
        try:
            status = os.stat(os.path.join(root, name))
            about = f"{status.st_size} {status.st_mtime_ns}"
        except OSError:
            about = "missing"
            missing.add(place)
        digest.update(f"{name}\0{about}\0".encode("utf-8", "surrogateescape"))
    return digest.hexdigest(), missing
