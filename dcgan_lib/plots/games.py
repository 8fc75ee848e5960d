"""The plane of a two-parameter game: its vector field as arrows, and the paths that training takes through it."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
from matplotlib.axes import Axes
from numpy.typing import ArrayLike

from dcgan_lib.errors import UserError
from dcgan_lib.plots.look import DASHES, SERIES, style


def draw_phase_plane(
    axis: Axes,
    field: Callable[[ArrayLike, ArrayLike], np.ndarray],
    paths: Mapping[str, np.ndarray] | None = None,
    extent: float = 1.6,
    arrows: int = 11,
) -> None:
    """Draw a vector field and paths on equal axes, theta to the right and psi upwards.

    Args:
        axis: From :func:`dcgan_lib.plots.subplots`.
        field: Maps theta and psi, each (arrows, arrows), to directions (arrows, arrows, 2): a game's ``vector_field``.
        paths: Label -> points (N, 2); a dot marks a path's start. At most five.
        extent: Half the side of the square that is drawn, above 0.
        arrows: Arrows along each side, at least 2. An arrow's length is to scale with the root of the field's, so that
            weak places can be seen, too.

    Raises:
        UserError: If a number is out of range, there are too many paths, or one is not a path.
    """
    paths = {} if paths is None else paths
    _check(axis, field, paths, extent, arrows)
    line = np.linspace(-extent, extent, arrows + 2)[1:-1]
    theta, psi = np.meshgrid(line, line)
    direction = np.asarray(field(theta, psi), np.float64)
    if direction.shape != (arrows, arrows, 2):
        raise UserError(f"field must return shape ({arrows}, {arrows}, 2); got {direction.shape}")
    length = np.linalg.norm(direction, axis=-1, keepdims=True)
    # direction / length ** 0.5 has the root's length; where there is no direction, there is no arrow.
    root = np.divide(direction, np.sqrt(length), out=np.zeros_like(direction), where=length > 0)
    spacing = line[1] - line[0]
    with style():
        u, v = np.moveaxis(root * spacing / (np.sqrt(length.max()) or 1.0), -1, 0)
        shape = {"angles": "xy", "scale_units": "xy", "scale": 1, "width": 0.005, "pivot": "mid"}
        axis.quiver(theta, psi, u, v, color="#9A9A9A", zorder=1, **shape)
        for (label, points), colour, dashes in zip(paths.items(), SERIES, DASHES, strict=False):
            axis.plot(*np.transpose(points), color=colour, linestyle=dashes, linewidth=1.5, label=label, zorder=3)
            axis.plot(*points[0], "o", color=colour, markersize=5, zorder=4)
        axis.plot(0, 0, "+", color="black", markersize=9, markeredgewidth=1.6, zorder=5)
        axis.set(xlim=(-extent, extent), ylim=(-extent, extent), aspect="equal")
        axis.set(xlabel="G's parameter θ", ylabel="D's parameter ψ")
        axis.grid(visible=False)


def _check(axis: object, field: object, paths: object, extent: object, arrows: object) -> None:
    if not isinstance(axis, Axes):
        raise UserError(f"axis must be an Axes, as from subplots; got {type(axis).__name__}")
    if not callable(field):
        raise UserError(f"field must be a function of theta and psi; got {field!r}")
    if isinstance(extent, bool) or not isinstance(extent, int | float | np.number) or not 0 < extent < np.inf:
        raise UserError(f"extent must be a number above 0; got {extent!r}")
    if isinstance(arrows, bool) or not isinstance(arrows, int) or arrows < 2:
        raise UserError(f"arrows must be a whole number, at least 2 along each side; got {arrows!r}")
    if not isinstance(paths, Mapping):
        raise UserError(f"paths must map labels to points; got {type(paths).__name__}")
    if len(paths) > len(SERIES):
        raise UserError(f"paths must be at most {len(SERIES)}; got {len(paths)}")
    for label, points in paths.items():
        shape = np.shape(points)
        if len(shape) != 2 or shape[0] == 0 or shape[1] != 2:
            raise UserError(f"paths must have shape (N, 2) with N at least 1; {label!r} has {shape}")
