"""The game on the ring, drawn: a frame as a map of D with both kinds of points, and runs over their steps."""

from __future__ import annotations

import reprlib
from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import LinearSegmentedColormap, Normalize
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from dcgan_lib.errors import UserError
from dcgan_lib.plots.look import DASHES, PALETTE, SERIES, WIDTH, style, subplots
from dcgan_lib.ring import Frame

SURFACE = LinearSegmentedColormap.from_list("surface", ["#5c9bd8", "#ffffff", "#a9dbb0"])
"""Colours of D(x): blue where D says "generated", white at 1/2, green where it says "real"; the page's player has the
same. Also without red and green seen apart, the blue end is the darker."""

_ARROW, _EDGE = "#222832", "#6d2850"
_LONGEST = 0.22  # of the extent: the longest arrow of a frame


def ring_frame(
    frame: Frame,
    axis: Axes | None = None,
    title: str | None = None,
    surface: bool = True,
    arrows: bool = True,
    real: bool = True,
) -> Figure:
    """Draw one moment of the game: D's surface, real and generated points, and where D's gradient sends G's points.

    An arrow starts at a generated point and shows the direction in which that point's loss falls. The longest of the
    frame always has the same length on paper, the others are in proportion to it.

    Args:
        frame: From :meth:`dcgan_lib.ring.RingGAN.frame`.
        axis: Where to draw; without one, a figure of its own with a colour bar and a legend.
        title: Above the map. Default: the steps taken, and the modes covered.
        surface: Whether D's surface is drawn.
        arrows: Whether the arrows are drawn.
        real: Whether the real points are drawn.

    Returns:
        The figure that holds the map.

    Raises:
        UserError: If ``frame`` is not a frame, or ``axis`` not an Axes.
    """
    _check_frame("frame", frame)
    if axis is not None and not isinstance(axis, Axes):
        raise UserError(f"axis must be an Axes, as from subplots, got {type(axis).__name__}")
    if axis is not None:
        _draw_frame(axis, frame, title, surface, arrows, real)
        return axis.figure
    figure, axis = subplots(width=5.4, height=4.7)
    _draw_frame(axis, frame, title, surface, arrows, real)
    with style():
        if surface:
            _colour_bar(figure, axis)
        _legend(figure, axis)
    return figure


def ring_frames(frames: Mapping[str, Frame], columns: int = 3) -> Figure:
    """Draw several moments side by side, with one colour bar: of one run, or of several.

    Args:
        frames: Title -> frame.
        columns: Maps in a row. Where they are small, only the first of a frame's arrows are drawn.

    Raises:
        UserError: If there are no frames, one is something else, or ``columns`` is not a whole number of at least 1.
    """
    if not isinstance(frames, Mapping) or not frames:
        raise UserError(f"frames must map titles to frames, at least one, got {reprlib.repr(frames)}")
    for title, frame in frames.items():
        _check_frame(f"frames[{title!r}]", frame)
    if isinstance(columns, bool) or not isinstance(columns, int) or columns < 1:
        raise UserError(f"columns must be a whole number of at least 1, got {columns!r}")
    columns = min(columns, len(frames))
    rows = -(-len(frames) // columns)
    across = (WIDTH - 0.9) / columns
    scale = min(1.0, 0.6 * across / 2)
    figure, axes = subplots(rows, columns, height=(across + 0.25) * rows + 0.25)
    axes = np.atleast_1d(axes).ravel()
    for axis, (title, frame) in zip(axes, frames.items(), strict=False):
        _draw_frame(axis, frame, title, scale=scale)
    for axis in axes[len(frames) :]:
        axis.axis("off")
    with style():
        _colour_bar(figure, list(axes))
        _legend(figure, axes[0])
    return figure


def ring_history(runs: Mapping[str, Sequence[Frame]]) -> Figure:
    """Draw runs over their steps: modes covered, share of good points, and both losses.

    Args:
        runs: Name -> frames in the order of their steps, as from :func:`dcgan_lib.ring.record`; at most five runs.

    Raises:
        UserError: If there are no runs, more than five, or one without frames.
    """
    if not isinstance(runs, Mapping):
        raise UserError(f"runs must map names to frames, got {reprlib.repr(runs)}")
    if not 1 <= len(runs) <= len(SERIES):
        raise UserError(f"runs must be 1 to {len(SERIES)}, got {len(runs)}")
    for name, frames in runs.items():
        if not isinstance(frames, Sequence) or not frames:
            raise UserError(f"runs must have frames; {name!r} is {reprlib.repr(frames)}")
        for index, frame in enumerate(frames):
            _check_frame(f"runs[{name!r}][{index}]", frame)
    figure, axes = subplots(2, 2, height=4.4)
    with style():
        for (name, frames), colour, dashes in zip(runs.items(), SERIES, DASHES, strict=False):
            steps = [frame.g_steps for frame in frames]
            looks = {"color": colour, "linestyle": dashes, "label": name, "linewidth": 1.4}
            modes = [frame.coverage.modes for frame in frames]
            axes[0, 0].plot(steps, modes, drawstyle="steps-post", **looks)
            axes[0, 1].plot(steps, [100 * frame.coverage.good for frame in frames], **looks)
            axes[1, 0].plot(steps, [frame.d_loss for frame in frames], **looks)
            axes[1, 1].plot(steps, [frame.g_loss for frame in frames], **looks)
        most = max(frames[0].ring.modes for frames in runs.values())
        axes[0, 0].set(title=f"Modes covered, of {most}", ylim=(-0.3, most + 0.3))
        axes[0, 0].yaxis.set_major_locator(MaxNLocator(integer=True, nbins=most))
        axes[0, 1].set(title="Good points, in %", ylim=(0, 100))
        axes[1, 0].set(title="Loss of D")
        axes[1, 1].set(title="Loss of G")
        for axis in axes[1]:
            axis.set_xlabel("steps of G")
            axis.set_ylim(bottom=min(0.0, axis.get_ylim()[0]))
        handles, names = axes[0, 0].get_legend_handles_labels()
        figure.legend(handles, names, loc="outside upper center", ncols=len(runs), fontsize=9, handlelength=3)
    return figure


def _check_frame(name: str, frame: object) -> None:
    if not isinstance(frame, Frame):
        raise UserError(f"{name} must be a Frame, got {reprlib.repr(frame)}")


def _draw_frame(
    axis: Axes,
    frame: Frame,
    title: str | None = None,
    surface: bool = True,
    arrows: bool = True,
    real: bool = True,
    scale: float = 1.0,
) -> None:
    """Draw the map; `scale` is that of the points' areas, and of how many arrows there is room for."""
    extent = frame.ring.extent
    with style():
        if surface:
            # The grid's outer points lie on the border of the square, so half a cell hangs over on every side.
            over = extent * len(frame.surface) / (len(frame.surface) - 1)
            axis.imshow(
                frame.surface.numpy(),
                cmap=SURFACE,
                vmin=0,
                vmax=1,
                origin="lower",
                extent=(-over, over, -over, over),
                interpolation="bilinear",
            )
        if real:
            axis.scatter(
                *frame.real.numpy().T, s=4 * scale, color=PALETTE["real"], linewidths=0, label="real", zorder=2
            )
        fake = frame.fake.numpy()
        edge = 0.4 if scale == 1 else 0  # an edge round a small point would hide its colour
        axis.scatter(
            *fake.T, s=11 * scale, color=PALETTE["fake"], edgecolors=_EDGE, linewidths=edge, label="generated", zorder=4
        )
        drawn = frame.arrows[: round(scale * len(frame.arrows))]
        if arrows and len(drawn):
            _draw_arrows(axis, drawn.numpy(), extent)
        if title is None:
            coverage = frame.coverage
            title = f"after {frame.g_steps:,} steps: {coverage.modes} of {frame.ring.modes} modes"
            if frame.d_steps != frame.g_steps:
                title = f"D {frame.d_steps:,}, G {frame.g_steps:,} steps: {coverage.modes} of {frame.ring.modes} modes"
        axis.set_title(title, loc="center")
        axis.set(xlim=(-extent, extent), ylim=(-extent, extent), aspect="equal", xticks=[], yticks=[])
        axis.grid(False)
        axis.spines[:].set(visible=True, color=PALETTE["faint"])


def _draw_arrows(axis: Axes, arrows: np.ndarray, extent: float) -> None:
    direction = arrows[:, 2:]
    longest = np.linalg.norm(direction, axis=1).max()
    if not 0 < longest < np.inf:
        return
    shaft = direction * (_LONGEST * extent / longest)
    looks = {"angles": "xy", "scale_units": "xy", "scale": 1, "width": 0.005, "headwidth": 4.5, "minlength": 0.5}
    axis.quiver(arrows[:, 0], arrows[:, 1], *shaft.T, color=_ARROW, zorder=5, **looks)


def _colour_bar(figure: Figure, axes: Axes | list[Axes]) -> None:
    bar = figure.colorbar(ScalarMappable(Normalize(0, 1), SURFACE), ax=axes, shrink=0.75, pad=0.02, aspect=25)
    bar.set_ticks([0, 0.5, 1], labels=["0: generated", "1/2", "1: real"])
    bar.ax.set_title("D(x)", fontsize=9, loc="left")
    bar.outline.set_visible(False)


def _legend(figure: Figure, axis: Axes) -> None:
    handles, names = axis.get_legend_handles_labels()
    figure.legend(
        handles, names, loc="outside lower center", ncols=2, fontsize=9, markerscale=2 if len(figure.axes) > 2 else 1.5
    )
