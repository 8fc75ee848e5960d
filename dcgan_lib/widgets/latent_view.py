"""What the views of a latent space share: a picture, buttons that save, and the looks of their controls."""

from __future__ import annotations

import io
import itertools
from collections.abc import Callable, Iterable
from pathlib import Path

import ipywidgets
import numpy as np
import torch
from PIL import Image
from torch import nn

from dcgan_lib import latent
from dcgan_lib.errors import UserError
from dcgan_lib.files import atomic_write
from dcgan_lib.widgets.base import StillWidget

MAX_SEED = 999_999
"""Largest seed the boxes take: any will do, and six digits can be read out to a neighbour."""
MAX_ROW = 9_999
"""Largest row of a seed they take."""

_STILL = 256  # pixels, the longer side of what a notebook stores
LOOKS = {"style": {"description_width": "8em"}, "layout": {"width": "27em", "max_width": "100%"}}
"""How every labelled control looks."""


class LatentView(StillWidget):
    """A generator, buttons that save, and a line that says what happened.

    A subclass has ``z``, the latent vectors of what it shows, and ``picture``.

    Attributes:
        generator: The network, on the device it was on and left in the mode it was in.
        save_z: Button: writes ``z`` into the notebook's folder, as float32 for ``numpy.load``.
        save_png: Button: writes the picture there.
        status: One line on what is seen, or what was saved.
    """

    z: torch.Tensor
    status: ipywidgets.Label

    def __init__(self, generator: nn.Module, size: int) -> None:
        super().__init__()
        self.generator, self._size = generator, size
        self.save_z = ipywidgets.Button(description="Save z", icon="save", tooltip="write the latent vector to a file")
        self.save_png = ipywidgets.Button(description="Save PNG", icon="image", tooltip="write the picture to a file")
        self.status = ipywidgets.Label()
        # No tooltip: ipywidgets 8.1 fails in the browser to show an Image that has one.
        self.picture = ipywidgets.Image(format="png", width=size)
        self.save_z.on_click(lambda _button: self._saved("npy", self.save))
        self.save_png.on_click(lambda _button: self._saved("png", self._write_picture))

    def save(self, path: str | Path) -> None:
        """Write ``z``, float32, as a file that ``numpy.load`` reads.

        Raises:
            UserError: If the file cannot be written.
        """
        with atomic_write(path) as temporary, temporary.open("wb") as file:
            np.save(file, self.z.numpy(), allow_pickle=False)

    def _still(self) -> bytes:
        """The picture, small and in few colours: a notebook with many of them stays light."""
        with Image.open(io.BytesIO(self.picture.value)) as picture:
            picture.thumbnail((_STILL, _STILL), Image.Resampling.BOX)
            still = io.BytesIO()
            picture.quantize(64, dither=Image.Dither.NONE).save(still, "png", optimize=True)
        return still.getvalue()

    def _write_picture(self, path: Path) -> None:
        with atomic_write(path) as temporary:
            temporary.write_bytes(self.picture.value)

    def _saved(self, kind: str, write: Callable[[Path], None]) -> None:
        """Write under the first name that is free, and say so."""
        path = next(path for n in itertools.count(1) if not (path := Path(f"latent-{n}.{kind}")).exists())
        try:
            write(path)
        except UserError as error:
            self.status.value = str(error)
        else:
            self.status.value = f"saved {path}"


def check_size(size: int) -> None:
    """Raise :class:`UserError` unless a picture can be ``size`` pixels wide."""
    if size < 1:
        raise UserError(f"size must be at least 1 pixel, got {size}")


def start_of(generator: nn.Module, seed: int, row: int = 0) -> torch.Tensor:
    """A latent vector of a seed, the first if nothing else is said, float32 (latent_dim,)."""
    return latent.sample_latent(1, generator.latent_dim, seed, first=row)[0]


def seed_box(value: int, description: str) -> ipywidgets.BoundedIntText:
    """A box for one seed."""
    return ipywidgets.BoundedIntText(
        value=value,
        min=0,
        max=MAX_SEED,
        description=description,
        **LOOKS,
        tooltip=f"{description}: a whole number from 0 to {MAX_SEED}",
    )


def slider(description: str, low: float, high: float, step: float, tooltip: str) -> ipywidgets.FloatSlider:
    """A slider that starts at 0."""
    return ipywidgets.FloatSlider(
        value=0.0,
        min=low,
        max=high,
        step=step,
        description=description,
        readout_format=".2f" if step < 0.1 else ".1f",
        **LOOKS,
        tooltip=tooltip,
    )


def samples_box(value: str, description: str, tooltip: str) -> ipywidgets.Text:
    """A box for a list of samples; it speaks up when a line is finished, not at every key."""
    return ipywidgets.Text(value=value, description=description, tooltip=tooltip, continuous_update=False, **LOOKS)


def samples_text(samples: Iterable[int | tuple[int, int]]) -> str:
    """What a box says for samples: ``4`` is the first sample of seed 4, ``4:17`` the one in row 17."""
    return ", ".join(":".join(map(str, each)) if isinstance(each, tuple) else str(each) for each in samples)


def parse_samples(text: str, least: int) -> list[tuple[int, ...]]:
    """Read a list of samples: (seed,) or (seed, row) of each.

    Raises:
        UserError: If it is none, has fewer than ``least``, or a seed or row is out of range.
    """
    words = text.replace(",", " ").split()
    if len(words) < least or not all(_is_sample(word) for word in words):
        raise UserError(
            f"write {least} or more seeds from 0 to {MAX_SEED}, separated by commas, not {text!r} "
            "(4:17 is row 17 of seed 4)"
        )
    return [tuple(int(part) for part in word.split(":")) for word in words]


def _is_sample(word: str) -> bool:
    parts = word.split(":")
    limits = (MAX_SEED, MAX_ROW)
    return len(parts) <= 2 and all(
        part.isascii() and part.isdigit() and int(part) <= most for part, most in zip(parts, limits, strict=False)
    )
