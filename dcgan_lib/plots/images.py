"""Grids and rows of images, every pixel a whole number of dots, and the maps inside of a network."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from matplotlib.figure import Figure

from dcgan_lib import images as pictures
from dcgan_lib.errors import UserError
from dcgan_lib.plots.look import DPI, WIDTH, BookFigure, show_image, subplots

_PADDING = 2


def image_grid(images: torch.Tensor, columns: int = 8, titles: Sequence[str] | None = None) -> Figure:
    """Show a batch of images as a grid, row by row, every pixel a whole number of screen pixels.

    Args:
        images: (N, C, H, W), uint8 or floating point in [-1, 1].
        columns: Images in a row.
        titles: N short texts, one above each image.

    Raises:
        UserError: If the images are not valid, or the number of titles is not N.
    """
    if titles is None:
        return _pixel_exact(pictures.make_grid(images, columns, _PADDING))
    images = pictures.as_uint8(images)
    if len(titles) != len(images):
        raise UserError(f"{len(images)} images need {len(images)} titles, got {len(titles)}")
    columns = max(1, min(columns, len(images)))
    rows = -(-len(images) // columns)
    cell = min(1.4, WIDTH / columns)
    figure, axes = subplots(rows, columns, cell * columns, (cell + 0.25) * rows)
    for index, axis in enumerate(np.atleast_1d(axes).flat):
        axis.axis("off")
        if index < len(images):
            show_image(axis, images[index])
            axis.set_title(titles[index], fontsize=8, loc="center")
    return figure


def image_rows(rows: Mapping[str, torch.Tensor], titles: Sequence[str] | None = None) -> Figure:
    """Show labelled rows of images beneath each other: two walks, two modes, one direction after another.

    Args:
        rows: Label -> images (N, C, H, W), uint8 or floating point in [-1, 1]; every row has the same shape.
        titles: N short texts above the columns.

    Raises:
        UserError: If the rows differ in shape, there are none, or the number of titles is not N.
    """
    shapes = {tuple(images.shape) for images in rows.values()}
    if len(shapes) != 1:
        raise UserError(f"every row must have as many images of one size; got shapes {sorted(shapes)}")
    images = torch.cat([pictures.as_uint8(row) for row in rows.values()])
    height, width, count = *images.shape[-2:], len(images) // len(rows)
    if titles is not None and len(titles) != count:
        raise UserError(f"{count} columns need {count} titles, got {len(titles)}")
    grid = pictures.make_grid(images, count, _PADDING)
    longest = max(len(line) for label in rows for line in label.split("\n"))
    figure = _pixel_exact(grid, left=0.15 + 0.08 * longest, top=0.25 if titles else 0.0)
    (axis,) = figure.axes
    for row, label in enumerate(rows):
        middle = row * (height + _PADDING) + height / 2
        axis.annotate(label, (0, middle), (-6, 0), textcoords="offset points", ha="right", va="center", fontsize=9)
    for column, title in enumerate(titles or ()):
        middle = column * (width + _PADDING) + width / 2
        axis.annotate(title, (middle, 0), (0, 4), textcoords="offset points", ha="center", va="bottom", fontsize=8)
    return figure


def feature_maps(maps: Sequence[torch.Tensor], names: Sequence[str] | None = None, count: int = 8) -> Figure:
    """Show the first channels of several layers, one row a layer, for one image.

    Args:
        maps: Per layer (1, C, H, W) or (C, H, W), as from ``features``; sizes may differ.
        names: One label a row; the default is the shape.
        count: Channels to show of each layer, the first ones: not chosen.

    Returns:
        A figure with grey levels scaled per channel from its smallest to its largest value.

    Raises:
        UserError: If a layer is not a map of one image, or the number of names is wrong.
    """
    layers = [layer[0] if layer.ndim == 4 and len(layer) == 1 else layer for layer in maps]
    if not layers or any(layer.ndim != 3 for layer in layers):
        shapes = ", ".join(str(tuple(layer.shape)) for layer in maps)
        raise UserError(f"expected maps of one image, (1, C, H, W) or (C, H, W); got {shapes or 'none'}")
    if names is None:
        names = ["×".join(map(str, layer.shape)) for layer in layers]
    if len(names) != len(layers):
        raise UserError(f"{len(layers)} layers need {len(layers)} names, got {len(names)}")
    figure, axes = subplots(len(layers), count, height=(WIDTH / count + 0.2) * len(layers))
    axes = np.reshape(axes, (len(layers), count))
    for row, (layer, name) in enumerate(zip(layers, names, strict=True)):
        for column in range(count):
            axes[row, column].axis("off")
            if column < len(layer):
                axes[row, column].imshow(layer[column].detach().cpu().float().numpy(), cmap="gray")
        axes[row, 0].set_title(name, loc="left", fontsize=9)
    return figure


def _pixel_exact(grid: torch.Tensor, left: float = 0.0, top: float = 0.0) -> BookFigure:
    """One picture, each of its pixels a square of whole dots, about as wide as the page or less; margins in inches."""
    _, height, width = grid.shape
    factor = min(4, max(1, round((WIDTH - left) * DPI / width)))
    across, down = width * factor / DPI, height * factor / DPI
    figure = BookFigure(figsize=(left + across, top + down), dpi=DPI, facecolor="white")
    axis = figure.add_axes((left / (left + across), 0, across / (left + across), down / (top + down)))
    axis.axis("off")
    axis.imshow(np.asarray(pictures.to_pil(grid)), cmap="gray", vmin=0, vmax=255, interpolation="nearest")
    return figure
