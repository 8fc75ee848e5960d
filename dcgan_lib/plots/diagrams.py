"""Diagrams of the networks: their layers as blocks, and what a unit sees of the image."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import NamedTuple

import torch
from matplotlib.axes import Axes
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.patches import Polygon, Rectangle
from torch import nn

from dcgan_lib import images as pictures
from dcgan_lib.convolution import ReceptiveField
from dcgan_lib.errors import UserError
from dcgan_lib.latent import evaluating
from dcgan_lib.models import ResizeConv2d
from dcgan_lib.plots.look import PALETTE, WIDTH, show_image, style, subplots

_GAP = 1.3
_DEPTH = 0.28
_BLOCK_NAMES = {
    "BatchNorm2d": "batch norm",
    "ReLU": "ReLU",
    "LeakyReLU": "leaky ReLU",
    "Tanh": "tanh",
}


class _Stage(NamedTuple):
    """A volume of activations and the layer that made it."""

    channels: int
    size: int
    kernel: str
    after: str


def network_diagram(network: nn.Module) -> Figure:
    """Draw a generator or discriminator as a row of blocks, from its input to its output.

    A block is as high as its maps are in pixels and as wide as it has channels, both on a logarithmic scale; arrows
    carry the (transposed) convolution's kernel, stride and padding, and what follows it. Everything is read off the
    network itself.

    Args:
        network: A ``Generator`` or ``Discriminator`` (or any network with the same attributes, ``layers`` and
            ``features``, whose blocks begin with a convolution).
    """
    stages = _stages(network)
    generator = hasattr(network, "latent_dim")
    colour = PALETTE["generator" if generator else "discriminator"]
    widths = [_breadth(stage.channels) for stage in stages]
    depths = [_DEPTH * _height(stage.size) for stage in stages]
    total = sum(widths) + sum(depths) + _GAP * (len(stages) - 1)
    tallest = max(_height(stage.size) for stage in stages)
    low, high = -tallest / 2 - 1.15, tallest * (0.5 + _DEPTH) + 0.05
    figure, axis = subplots(height=WIDTH * (high - low) / total)
    first, last = ("z", "image") if generator else ("image", "logit")
    names = [first, *[""] * (len(stages) - 2), last]
    axis.set(xlim=(-0.15, total + 0.15), ylim=(low, high), aspect="equal")
    axis.axis("off")
    left = 0.0
    with style():
        for index, (stage, width, depth) in enumerate(zip(stages, widths, depths, strict=True)):
            if index:
                _arrow(axis, left, stage)
                left += _GAP
            ends = index in (0, len(stages) - 1)
            _block(axis, left, stage, PALETTE["neutral"] if ends else colour)
            text = f"{stage.channels}\n{stage.size}×{stage.size}\n{names[index]}"
            axis.text(left + width / 2, -tallest / 2 - 0.1, text, ha="center", va="top", fontsize=7.5)
            left += width + depth
    return figure


def receptive_field_overlay(
    image: torch.Tensor, fields: Mapping[str, ReceptiveField], at: Mapping[str, tuple[int, int]] | None = None
) -> Figure:
    """Draw over an image what one unit of each layer sees.

    Args:
        image: (C, H, W), uint8 or floating point in [-1, 1].
        fields: Layer -> its receptive field, as from ``Discriminator.receptive_fields``.
        at: Layer -> (row, column) of the unit within its map. Default: the one nearest the centre of the image.

    Returns:
        A figure; squares that leave the image reach into the zero padding, drawn in grey.
    """
    if not fields:
        raise UserError("give at least one receptive field")
    _, height, width = image.shape
    figure, axis = subplots(width=4.6, height=4.0)
    show_image(axis, pictures.as_uint8(image[None])[0])
    axis.set(facecolor="#EDEDED")
    colours = [PALETTE[name] for name in ("discriminator", "generator", "real", "fake", "accent", "second")]
    low, high = 0, max(height, width)
    for index, (name, field) in enumerate(fields.items()):
        unit = (at or {}).get(name) or (_central_unit(field, height), _central_unit(field, width))
        top, left = (field.start + field.jump * position for position in unit)
        colour, dashes = colours[index % len(colours)], ("-", "--", ":")[index % 3]
        frame = Rectangle((left - 0.5, top - 0.5), field.size, field.size, fill=False, color=colour, ls=dashes, lw=2)
        frame.set_label(f"{name}: {field.size}×{field.size}")
        axis.add_patch(frame)
        low, high = min(low, top, left), max(high, top + field.size, left + field.size)
    axis.set(xlim=(low - 1.5, high + 0.5), ylim=(high + 0.5, low - 1.5))
    figure.legend(loc="outside right upper", fontsize=8, title="unit of layer", title_fontsize=8)
    return figure


def _central_unit(field: ReceptiveField, size: int) -> int:
    """Index of the unit whose window has its centre nearest the image's."""
    return max(0, round(((size - field.size) / 2 - field.start) / field.jump))


def _stages(network: nn.Module) -> list[_Stage]:
    if not (hasattr(network, "layers") and hasattr(network, "features")):
        raise UserError(f"network_diagram draws generators and discriminators, not {type(network).__name__}")
    parameter = next(network.parameters())
    if hasattr(network, "latent_dim"):
        inputs = torch.zeros(1, network.latent_dim)
    else:
        inputs = torch.zeros(1, network.channels, network.image_size, network.image_size)
    with evaluating(network):
        outputs = network.features(inputs.to(parameter))
    stages = [_Stage(inputs.shape[1], inputs.shape[-1] if inputs.ndim == 4 else 1, "", "")]
    for block, output in zip(network.layers, outputs, strict=True):
        convolution, *rest = block
        numbers = [convolution.kernel_size, convolution.stride, convolution.padding]
        kernel, stride, padding = (pair[0] for pair in numbers)
        after = [_BLOCK_NAMES[type(layer).__name__] for layer in rest if type(layer).__name__ in _BLOCK_NAMES]
        text = f"{kernel}×{kernel}\nstride {stride}\npad {padding}"
        if isinstance(convolution, ResizeConv2d):
            text = f"repeat 2×2\n{text}"
        channels, size = (output.shape[1], output.shape[-1]) if output.ndim == 4 else (1, 1)
        stages.append(_Stage(channels, size, text, "\n".join(after)))
    return stages


def _height(size: int) -> float:
    return 0.35 + 0.42 * math.log2(size)


def _breadth(channels: int) -> float:
    return 0.12 + 0.09 * math.log2(channels)


def _block(axis: Axes, left: float, stage: _Stage, colour: str) -> None:
    """A cuboid in oblique projection, its front centred on the axis."""
    width, height = _breadth(stage.channels), _height(stage.size)
    right, top, bottom, slant = left + width, height / 2, -height / 2, _DEPTH * height
    faces = {
        0.35: [(left, bottom), (right, bottom), (right, top), (left, top)],
        0.20: [(left, top), (right, top), (right + slant, top + slant), (left + slant, top + slant)],
        0.55: [(right, bottom), (right + slant, bottom + slant), (right + slant, top + slant), (right, top)],
    }
    for strength, corners in faces.items():
        axis.add_patch(Polygon(corners, facecolor=_tint(colour, strength), edgecolor=colour, linewidth=0.8))


def _tint(colour: str, strength: float) -> tuple[float, ...]:
    """The colour mixed with white: opaque, so that blocks cover what is behind them."""
    return tuple(1 - strength * (1 - part) for part in to_rgb(colour))


def _arrow(axis: Axes, left: float, stage: _Stage) -> None:
    middle = left + _GAP / 2
    ends = {"xy": (left + _GAP - 0.12, 0), "xytext": (left + 0.12, 0)}
    axis.annotate("", **ends, arrowprops={"arrowstyle": "-|>", "color": PALETTE["neutral"], "linewidth": 1})
    axis.text(middle, 0.12, stage.kernel, ha="center", va="bottom", fontsize=6.5, linespacing=1.25)
    axis.text(middle, -0.14, stage.after, ha="center", va="top", fontsize=6.5, linespacing=1.25)
