"""The plane of a two-parameter game: its vector field as arrows, and the paths that training takes through it."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
from matplotlib.axes import Axes
from numpy.typing import ArrayLike

from dcgan_lib.errors import UserError
from dcgan_lib.figures import PALETTE, style

SERIES = (PALETTE["generator"], PALETTE["discriminator"], PALETTE["real"], PALETTE["fake"], PALETTE["neutral"])
"""Colours of paths and curves that are compared, in order; here they stand for no network."""

_DASHES = ("-", (0, (5, 1.5)), (0, (1.5, 1)), "-.", "-")  # told apart without colours, too


def phase_plane(
    axis: Axes,
    field: Callable[[ArrayLike, ArrayLike], np.ndarray],
    paths: Mapping[str, np.ndarray] | None = None,
    extent: float = 1.6,
    arrows: int = 11,
) -> None:
    """Draw a vector field and paths on equal axes, theta to the right and psi upwards.

    Args:
        axis: From :func:`dcgan_lib.figures.subplots`.
        field: Maps theta and psi, each (arrows, arrows), to directions (arrows, arrows, 2): a game's ``vector_field``.
        paths: Label -> points (N, 2); a dot marks a path's start. At most five.
        extent: Half the side of the square that is drawn, above 0.
        arrows: Arrows along each side, at least 2. An arrow's length is to scale with the root of the field's, so that
            weak places can be seen, too.

    Raises:
        UserError: If a number is out of range or there are too many paths.
    """
    paths = paths or {}
    if not 0 < extent < np.inf:
        raise UserError(f"extent must be above 0; got {extent!r}")
    if arrows < 2:
        raise UserError(f"arrows must be at least 2 along each side; got {arrows!r}")
    if len(paths) > len(SERIES):
        raise UserError(f"paths must be at most {len(SERIES)}; got {len(paths)}")
    line = np.linspace(-extent, extent, arrows + 2)[1:-1]
    theta, psi = np.meshgrid(line, line)
    direction = field(theta, psi)
    length = np.linalg.norm(direction, axis=-1, keepdims=True)
    # direction / length ** 0.5 has the root's length; where there is no direction, there is no arrow.
    root = np.divide(direction, np.sqrt(length), out=np.zeros_like(direction), where=length > 0)
    spacing = line[1] - line[0]
    with style():
        u, v = np.moveaxis(root * spacing / (np.sqrt(length.max()) or 1.0), -1, 0)
        shape = {"angles": "xy", "scale_units": "xy", "scale": 1, "width": 0.005, "pivot": "mid"}
        axis.quiver(theta, psi, u, v, color="#9A9A9A", zorder=1, **shape)
        for (label, points), colour, dashes in zip(paths.items(), SERIES, _DASHES, strict=False):
            axis.plot(*np.transpose(points), color=colour, linestyle=dashes, linewidth=1.5, label=label, zorder=3)
            axis.plot(*points[0], "o", color=colour, markersize=5, zorder=4)
        axis.plot(0, 0, "+", color="black", markersize=9, markeredgewidth=1.6, zorder=5)
        axis.set(xlim=(-extent, extent), ylim=(-extent, extent), aspect="equal")
        axis.set(xlabel="G's parameter θ", ylabel="D's parameter ψ")
        axis.grid(visible=False)
