"""How every figure of the book looks: its colours, its style, and how it shows itself in a notebook."""

from __future__ import annotations

import base64
import io
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import matplotlib as mpl
import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from PIL import Image

from dcgan_lib import images as pictures

PALETTE = {
    "generator": "#D55E00",
    "discriminator": "#0072B2",
    "real": "#009E73",
    "fake": "#CC79A7",
    "accent": "#E69F00",
    "second": "#56B4E9",
    "neutral": "#595959",
    "faint": "#BFBFBF",
}
"""What each colour stands for, in every figure of the book."""

SERIES = (PALETTE["generator"], PALETTE["discriminator"], PALETTE["real"], PALETTE["fake"], PALETTE["neutral"])
"""Colours of paths and curves that are compared, in order; there they stand for no network."""

DASHES = ("-", (0, (5, 1.5)), (0, (1.5, 1)), "-.", "-")
"""Line styles that go with ``SERIES``, so that curves are told apart without colours, too."""

WIDTH = 7.0
"""Width of a full-size figure in inches; a page's text is about as wide."""

DPI = 144
"""Dots an inch in stored outputs: half as many again as a screen's 96."""
_CSS_DPI = 96

_LARGE = 12_000  # bytes; some thirty such figures are what a chapter may hold
_STYLE = {
    "figure.facecolor": "white",
    "figure.constrained_layout.use": True,
    "savefig.facecolor": "white",
    "axes.facecolor": "white",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "axes.prop_cycle": mpl.cycler(color=[PALETTE[n] for n in ("discriminator", "generator", "real", "fake", "accent")]),
    "axes.titlesize": 10,
    "axes.labelsize": 9,
    "font.family": "DejaVu Sans",  # comes with matplotlib, so text has the same size everywhere
    "font.size": 9,
    "grid.color": "#E5E5E5",
    "image.cmap": "gray",
    "image.interpolation": "nearest",
    "legend.frameon": False,
    "lines.linewidth": 1.6,
    "xtick.labelsize": 8,
    "ytick.labelsize": 8,
}

# Matplotlib's settings belong to the whole process, and JupyterLab lets widgets draw in a thread of their own: two
# threads that change them and put them back by turns would leave one figure without the style, and all others with it.
_SETTINGS = threading.RLock()


class BookFigure(Figure):
    """A matplotlib figure that shows itself in a notebook without pyplot, sharper than the screen."""

    def _repr_mimebundle_(self, **_options: Any) -> tuple[dict[str, str], dict[str, Any]]:
        drawn = io.BytesIO()
        self.savefig(drawn, format="png", dpi=DPI)
        packed = packed_png(drawn.getvalue())
        width, height = (round(inches * _CSS_DPI) for inches in self.get_size_inches())
        bundle = {"image/png": base64.b64encode(packed).decode("ascii"), "text/plain": repr(self)}
        return bundle, {"image/png": {"width": width, "height": height}}

    def __repr__(self) -> str:
        width, height = self.get_size_inches()
        return f"<Figure of {width:.1f} × {height:.1f} inches>"


@contextmanager
def style() -> Iterator[None]:
    """The book's style for figures drawn by hand: ``with plots.style(): ...``."""
    with _SETTINGS, mpl.rc_context(_STYLE):
        yield


def subplots(rows: int = 1, columns: int = 1, width: float = WIDTH, height: float = 2.8) -> tuple[BookFigure, Any]:
    """A figure in the book's style, with axes as from ``matplotlib.pyplot.subplots``.

    Args:
        rows: Rows of axes.
        columns: Columns of axes.
        width: Inches.
        height: Inches.

    Returns:
        The figure, and one ``Axes`` or an array of them.
    """
    with style():
        figure = BookFigure(figsize=(width, height))
        return figure, figure.subplots(rows, columns)


def packed_png(png: bytes) -> bytes:
    """Return a PNG in fewer bytes, for a notebook to store: without alpha, and large ones with 64 colours."""
    # Without the unused alpha channel it is a tenth smaller.
    picture = Image.open(io.BytesIO(png)).convert("RGB")
    packed = _png(picture)
    if len(packed) <= _LARGE:
        return packed
    # A grid of generated images in a quarter of the bytes. Maximum coverage keeps rare colours, of lines and
    # small things; the mean of each colour's pixels (kmeans) then brings it within a few grey levels.
    return _png(picture.quantize(64, Image.Quantize.MAXCOVERAGE, kmeans=1, dither=Image.Dither.NONE))


def _png(picture: Image.Image) -> bytes:
    packed = io.BytesIO()
    picture.save(packed, format="PNG", optimize=True)
    return packed.getvalue()


def show_image(axis: Axes, image: torch.Tensor) -> None:
    """Draw one image (C, H, W), uint8 or floating point in [-1, 1], on axes without ticks."""
    axis.imshow(np.asarray(pictures.to_pil(image)), cmap="gray", vmin=0, vmax=255, interpolation="nearest")
    axis.set(xticks=[], yticks=[])
    axis.grid(False)
    axis.spines[:].set_visible(False)
