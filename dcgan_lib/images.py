"""Batches of images to one picture, pixel for pixel; needs neither matplotlib nor IPython."""

from __future__ import annotations

import io
from pathlib import Path

import torch
from PIL import Image

from dcgan_lib import data
from dcgan_lib.errors import UserError
from dcgan_lib.files import atomic_write

BACKGROUND = 255
"""Grey level between the images of a grid and in its unused places."""


def as_uint8(images: torch.Tensor) -> torch.Tensor:
    """Return a batch of images as uint8 on the CPU.

    Args:
        images: (N, C, S, S) with N >= 1 and C of 1 or 3: uint8, or floating point in the model's range [-1, 1].

    Returns:
        uint8 tensor of the same shape.

    Raises:
        UserError: If the shape or type is another, or a value is not finite.
    """
    if images.ndim != 4 or images.shape[0] == 0 or images.shape[1] not in (1, 3):
        raise UserError(f"expected images of shape (N, 1 or 3, height, width), got {tuple(images.shape)}")
    images = images.detach().cpu()
    if images.dtype == torch.uint8:
        return images
    if not images.is_floating_point():
        raise UserError(f"images must be uint8, or floating point in [-1, 1]; got {images.dtype}")
    if not torch.isfinite(images).all():
        raise UserError("the images contain NaN or infinity; the network that made them has diverged")
    return data.to_uint8(images)


def make_grid(images: torch.Tensor, columns: int = 8, padding: int = 2) -> torch.Tensor:
    """Lay a batch out as one picture, row by row, without resampling.

    Args:
        images: (N, C, H, W), uint8 or floating point in [-1, 1].
        columns: Images in a row; a batch smaller than that makes one shorter row.
        padding: Pixels of white between neighbours; there is none around the outside.

    Returns:
        uint8 tensor (C, rows * (H + padding) - padding, columns * (W + padding) - padding).

    Raises:
        UserError: If ``images`` is not a batch of images, ``columns`` < 1 or ``padding`` < 0.
    """
    if columns < 1 or padding < 0:
        raise UserError(f"a grid needs columns >= 1 and padding >= 0; got columns={columns}, padding={padding}")
    images = as_uint8(images)
    count, channels, height, width = images.shape
    columns = min(columns, count)
    rows = -(-count // columns)
    shape = (channels, rows * (height + padding) - padding, columns * (width + padding) - padding)
    grid = torch.full(shape, BACKGROUND, dtype=torch.uint8)
    for index, image in enumerate(images):
        top = index // columns * (height + padding)
        left = index % columns * (width + padding)
        grid[:, top : top + height, left : left + width] = image
    return grid


def to_pil(image: torch.Tensor, size: int | None = None) -> Image.Image:
    """Turn one picture into a PIL image.

    Args:
        image: (C, H, W), uint8 or floating point in [-1, 1]; C is 1 (grey) or 3 (RGB).
        size: Width of the result in pixels, or ``None`` to keep it. Enlarged by repeating pixels, never smoothed,
            so that what one sees is what the network made.

    Returns:
        An image of mode ``L`` or ``RGB``.
    """
    pixels = as_uint8(image[None])[0]
    array = pixels.permute(1, 2, 0).contiguous().numpy()
    picture = Image.fromarray(array[:, :, 0] if array.shape[2] == 1 else array)
    if size is None:
        return picture
    if size < 1:
        raise UserError(f"size must be at least 1 pixel, got {size}")
    height = max(1, round(picture.height * size / picture.width))
    return picture.resize((size, height), Image.Resampling.NEAREST)


def png_bytes(image: torch.Tensor, size: int | None = None) -> bytes:
    """Encode one picture (C, H, W) as PNG, scaled to ``size`` pixels across as in :func:`to_pil`."""
    buffer = io.BytesIO()
    to_pil(image, size).save(buffer, format="PNG")
    return buffer.getvalue()


def save_png(images: torch.Tensor, path: str | Path, columns: int = 8, padding: int = 2) -> None:
    """Write a batch of images as one PNG grid, atomically; the pixels are those of :func:`make_grid`.

    Args:
        images: (N, C, H, W), uint8 or floating point in [-1, 1].
        path: The file to write. It is a PNG whatever its suffix.
        columns: Images in a row.
        padding: Pixels between neighbours.

    Raises:
        UserError: If the images are not valid, or the file cannot be written.
    """
    encoded = png_bytes(make_grid(images, columns, padding))
    with atomic_write(path) as temporary:
        temporary.write_bytes(encoded)
