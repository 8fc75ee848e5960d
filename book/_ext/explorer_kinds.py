"""The kinds of in-page explorers: what each needs, and the still picture that stands for it without scripts."""

from __future__ import annotations

import base64
import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from dcgan_lib.figures import PALETTE, WIDTH, subplots
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure


@dataclass(frozen=True)
class Kind:
    """One kind of explorer.

    Attributes:
        label: What it is, for screen readers.
        check: Raises ValueError, KeyError or TypeError for data that it cannot show; None if it takes no data.
        still: Draws the still picture from the data and the settings; None if each use must name a poster.
        options: The directive's options of this kind alone -> how they are converted (as in docutils).
    """

    label: str
    check: Callable[[Any], None] | None = None
    still: Callable[[Any, Mapping[str, Any]], Figure] | None = None
    options: Mapping[str, Callable[[str | None], Any]] = field(default_factory=dict)


# --- scrubber: recorded runs of a GAN on a ring of Gaussians ---------------------------------------------------------

NUMBERS = ("steps", "d_loss", "g_loss", "modes", "good")
"""What a run has one number of for each frame."""


def check_runs(data: Any) -> None:
    """Refuse runs that the scrubber cannot show."""
    if data["format"] != 1:
        raise ValueError(f"format is {data['format']!r}, and must be 1")
    if not data["runs"]:
        raise ValueError("there is no run")
    steps = data["runs"][0]["steps"]
    for run in data["runs"]:
        if run["steps"] != steps:
            raise ValueError(f"run {run['name']!r} was recorded at other steps than the first")
        if any(len(run[key]) != len(steps) for key in NUMBERS):
            raise ValueError(f"run {run['name']!r} does not have as many numbers as frames")
        frames(data, run)


def frames(data: Mapping[str, Any], run: Mapping[str, Any]) -> np.ndarray:
    """Unpack the frames of a run: uint8 (frames, bytes of a frame), points, surface and arrows in this order."""
    size = 2 * data["points"] + data["resolution"] ** 2 + 4 * data["arrows"]
    packed, count = np.frombuffer(zlib.decompress(base64.b64decode(run["frames"])), dtype=np.uint8), len(run["steps"])
    if packed.size != size * count:
        raise ValueError(f"run {run['name']!r} has {packed.size} bytes; {count} frames are {size * count}")
    return np.cumsum(packed.reshape(-1, size), axis=0, dtype=np.uint8)


def draw_runs(data: Mapping[str, Any], settings: Mapping[str, Any]) -> Figure:
    """Draw the last frame of each run side by side."""
    count = len(data["runs"])
    figure, axes = subplots(1, count, WIDTH, WIDTH / count + 0.35)
    for axis, run in zip(np.atleast_1d(axes), data["runs"], strict=True):
        _draw_frame(axis, data, frames(data, run)[-1])
        share = f"{run['modes'][-1]} of {len(data['centres'])} modes, {100 * run['good'][-1]:.0f} % good"
        axis.set_title(f"{run['title']}, step {run['steps'][-1]}\n{share}")
    return figure


def _draw_frame(axis: Axes, data: Mapping[str, Any], frame: np.ndarray) -> None:
    points, resolution, extent = data["points"], data["resolution"], data["extent"]
    colours = LinearSegmentedColormap.from_list("surface", [PALETTE["second"], "white", PALETTE["real"]])
    surface = frame[2 * points : 2 * points + resolution**2].reshape(resolution, resolution) / 255
    edge = extent * resolution / (resolution - 1)  # the grid's first and last points lie on the border
    where = {"origin": "lower", "extent": (-edge, edge, -edge, edge), "interpolation": "bilinear"}
    axis.imshow(surface, cmap=colours, vmin=0, vmax=1, alpha=0.7, **where)
    real = np.frombuffer(base64.b64decode(data["real"]), dtype=np.uint8)
    for packed, colour in ((real, PALETTE["real"]), (frame[: 2 * points], PALETTE["fake"])):
        x, y = (packed.reshape(-1, 2) / 255 * 2 * extent - extent).T
        axis.scatter(x, y, s=9, c=colour, edgecolors="#333333", linewidths=0.3)
    axis.set(xlim=(-extent, extent), ylim=(-extent, extent), xticks=[], yticks=[], aspect="equal")
    axis.grid(visible=False)


KINDS = {"scrubber": Kind("Recorded training runs", check=check_runs, still=draw_runs)}
