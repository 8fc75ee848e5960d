"""A convolution with numbers in it, drawn: kernel, input and output as grids, and the matrix, with one cell lit.

It is the still picture of the explorer on the page and the living one of the explorer in a notebook. Every place in the
kernel has one colour in all four parts.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from itertools import product

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import to_rgb
from matplotlib.patches import Rectangle
from numpy.typing import NDArray

from dcgan_lib.convolution import stamp
from dcgan_lib.convolution_examples import ConvolutionExample
from dcgan_lib.plots.convolution import place_colour
from dcgan_lib.plots.look import PALETTE, WIDTH, BookFigure, style

CORNERS = ("#3d8fd1", "#f0a202", "#1fa97c", "#d0659c")
"""Colours of a square kernel's corners, row by row; those between are mixed. The page's explorer has the same."""

_STRONG, _PALE = 0.65, 0.15  # of the colour of a place, lit or not
_LARGEST, _LEGIBLE = 0.36, 0.155  # inches: the largest cell, and the least with a number in it
_ACTIVE = "#0f5bc9"
_TITLE = 0.22  # inches above each part

# Left, top, width and height of each part in inches, for sequences and for images.
_PLACES = {
    1: {
        "kernel": (0.1, 0.7, 4.3, 0.36),
        "input": (0.1, 1.35, 4.3, 0.36),
        "lines": (0.1, 1.71, 4.3, 0.75),
        "output": (0.1, 2.46, 4.3, 0.36),
        "matrix": (4.6, 0.7, 2.3, 2.35),
    },
    2: {
        "kernel": (0.1, 0.7, 1.2, 1.2),
        "input": (1.5, 0.7, 2.3, 2.3),
        "output": (4.0, 0.7, 2.9, 2.9),
        "matrix": (0.1, 3.9, 6.8, 2.0),
    },
}
_HEIGHTS = {1: 3.2, 2: 6.0}

Cell = tuple[int, ...]
Array = NDArray[np.float64]


def draw_example(
    example: ConvolutionExample,
    side: str | None = None,
    cell: Cell | None = None,
    overlaps: bool = False,
    partial: bool = False,
) -> BookFigure:
    """Draw a convolution or transposed convolution and what one of its cells meets.

    Args:
        example: The operation and its numbers.
        side: ``"input"`` or ``"output"``; default: the side whose cells have a window or a stamp, the output of a
            convolution and the input of a transposed one.
        cell: The lit cell of that side, one index for each axis; default: the second along each.
        overlaps: Whether the output shows how many products each cell is the sum of, not their sum.
        partial: Whether the output shows only what is done once the cells up to the lit one, row by row, are.

    Raises:
        UserError: If there is no such side or cell.
    """
    side = side or example.coarse
    cell = example.inner(side) if cell is None else cell
    drawing = _Drawing(example, side, cell, overlaps, partial)
    height = _HEIGHTS[example.axes]
    with style():
        figure = BookFigure(figsize=(WIDTH, height), layout="none")
        heading = f"{example.pytorch()}\noutput size = {example.setting.size_formula}"
        figure.text(0.5, 1 - 0.08 / height, heading, fontsize=9, family="DejaVu Sans Mono", ha="center", va="top")
        for name, (left, top, wide, high) in _PLACES[example.axes].items():
            axis = figure.add_axes((left / WIDTH, 1 - (top + high) / height, wide / WIDTH, high / height))
            axis.axis("off")
            if name == "lines":
                drawing.lines(axis)
                continue
            if name == "matrix":
                drawing.matrix(axis, wide, high)
            else:
                drawing.grid(axis, name, wide, high)
            below = name == "output" and example.axes == 1
            rise = 1 + 0.06 / high if not below else -0.06 / high
            axis.text(0, rise, drawing.title(name), transform=axis.transAxes, va="top" if below else "bottom")
    return figure


@dataclass
class _Drawing:
    """One picture: who meets whom, and in which colours. Arrays have two axes; a sequence is one row."""

    example: ConvolutionExample
    side: str
    cell: Cell
    overlaps: bool
    partial: bool

    def __post_init__(self) -> None:
        self.setting = self.example.setting
        self.products = self.example.products(self.side, self.cell)

    @cached_property
    def places(self) -> Array:
        """The colour of each place: as in the chapter's pictures for a sequence, mixed from four corners else."""
        kernel = self.setting.kernel
        if self.example.axes == 1:
            return np.array([[to_rgb(place_colour(place)) for place in range(kernel)]])
        corners = np.array([to_rgb(corner) for corner in CORNERS]).reshape(2, 2, 3)
        share = np.arange(kernel) / max(kernel - 1, 1)
        weights = np.stack([1 - share, share], axis=1)
        return np.einsum("ri,cj,ijk->rck", weights, weights, corners)

    def title(self, name: str) -> str:
        if name == "matrix":
            rows, columns = (self.example.size_of(side) ** self.example.axes for side in ("output", "input"))
            return f"matrix, {rows} outputs × {columns} inputs"
        count = self.setting.kernel if name == "kernel" else self.example.size_of(name)
        what = "products in each output," if name == "output" and self.overlaps else name
        return f"{what} {count}" + (f" × {count}" if self.example.axes == 2 else "")

    def _rim(self, name: str) -> int:
        """Cells of padding around a part."""
        return 0 if name in ("kernel", self.example.coarse) else self.setting.padding

    def _values(self, name: str) -> tuple[Array, float, str]:
        """Numbers of a part, the one with the strongest colour, and that colour."""
        example = self.example
        if name == "input":
            return example.input.numpy().astype(float), 5, PALETTE["discriminator"]
        if self.overlaps:
            return example.overlaps.numpy().astype(float), float(example.overlaps.max()), PALETTE["generator"]
        done = example.output_up_to(self.side, self.cell) if self.partial else example.output
        return done.numpy().astype(float), max(float(example.output.max()), 1), PALETTE["discriminator"]

    def _lit(self, name: str) -> dict[Cell, Cell]:
        """The lit cells of a part and the places in the kernel that they meet; those of the padding too."""
        if name == "kernel":
            return {found.place: found.place for found in self.products}
        if name == self.side:
            return {}
        if self.side != self.example.coarse:
            return {found.cell: found.place for found in self.products}
        stamps = [stamp(self.setting, index) for index in self.cell]
        return {tuple(tap.cell for tap in taps): tuple(tap.kernel for tap in taps) for taps in product(*stamps)}

    def _painted(self, name: str) -> tuple[Array, NDArray[np.str_], set[Cell]]:
        """Colours (rows, columns, 3) and texts of a part with its padding, and which of these cells are lit."""
        rim, lit = self._rim(name), self._lit(name)
        if name == "kernel":
            colours, texts = _mix(self.places, _PALE), _two(self.example.kernel.numpy()).astype(str)
        else:
            values, most, colour = self._values(name)
            values = _two(values)
            reach = 0.85 if name == "output" and self.overlaps else 0.3
            share = np.nan_to_num(values) / most * reach
            colours = _mix(np.broadcast_to(to_rgb(colour), (*values.shape, 3)), share[..., None])
            texts = np.where(np.isnan(values), "", np.nan_to_num(values).astype(int).astype(str))
        around = [(rim, rim) if self.example.axes == 2 else (0, 0), (rim, rim)]
        colours = np.pad(colours, [*around, (0, 0)], constant_values=1.0)
        texts = np.pad(texts, around, constant_values="0" if name == "input" else "")
        count = self.setting.kernel if name == "kernel" else self.example.size_of(name)
        shown = set()
        for cell, place in lit.items():
            row, column = _pair(cell)
            at = (row + around[0][0], column + rim)
            inside = all(0 <= index < count for index in cell)
            colours[at] = _mix(self.places[_pair(place)], _STRONG if inside else 0.3)
            shown.add(at)
        return colours, texts, shown

    def grid(self, axis: Axes, name: str, wide: float, high: float) -> None:
        """Draw kernel, input or output on axes of this size in inches."""
        rim, (colours, texts, lit) = self._rim(name), self._painted(name)
        rows, columns = colours.shape[:2]
        line = self.example.axes == 1
        step, first, size = 1.0, 0.0, min(_LARGEST, wide / columns, high / rows)
        if line and name != "kernel":
            low, top = self._extent()
            size = wide / (top - low)
            if name == self.example.coarse:
                step, first = float(self.setting.stride), (self.setting.span - 1) / 2 - self.setting.padding
            axis.set(xlim=(low, top), ylim=(0.5, -0.5))
        else:
            axis.set(
                xlim=(-rim - 0.5, -rim - 0.5 + wide / size),
                ylim=((0 if line else -rim) - 0.5 + high / size, (0 if line else -rim) - 0.5),
            )
        left, above = first + (-rim - 0.5) * step, (0 if line else -rim) - 0.5
        axis.imshow(
            colours,
            extent=(left, left + columns * step, above + rows, above),
            aspect="auto",
            interpolation="nearest",
            zorder=1,
        )
        axis.axis("off")
        axis.set_autoscale_on(False)
        self._rulers(axis, left, above, rows, columns, step, rim, size * step)
        if size * step >= _LEGIBLE:
            for row, column in product(range(rows), range(columns)):
                ink, weight = _ink(colours[row, column]), "bold" if (row, column) in lit else "normal"
                where = (left + (column + 0.5) * step, above + row + 0.5)
                axis.text(
                    *where,
                    texts[row, column],
                    ha="center",
                    va="center",
                    fontsize=min(9.0, 30 * size * min(step, 1.5)),
                    fontweight=weight,
                    color=ink,
                )
        if name == self.side:
            row, column = _pair(self.cell)
            _frame(axis, first + (column - 0.5) * step, row - 0.5, step, 1, 2.2)
        elif name != "kernel" and self.side == self.example.coarse:
            row, column = _pair(tuple(stamp(self.setting, index)[0].cell for index in self.cell))
            _frame(axis, column - 0.5, row - 0.5, self.setting.span, 1 if line else self.setting.span, 1.6)

    def _rulers(
        self, axis: Axes, left: float, above: float, rows: int, columns: int, step: float, rim: int, size: float
    ) -> None:
        """Lines between the cells where they can be seen, and round the whole; the padding's are dotted."""
        down = 0 if rows == 1 else rim
        for inner, look in ((0, {"color": PALETTE["faint"], "linestyles": ":"}), (rim, {"color": PALETTE["neutral"]})):
            xs = left + np.arange(inner, columns - inner + 1) * step
            ys = above + np.arange(down if inner else 0, rows - (down if inner else 0) + 1)
            if size < 0.06:
                xs, ys = xs[[0, -1]], ys[[0, -1]]
            axis.vlines(xs, ys[0], ys[-1], linewidth=0.6, zorder=2, clip_on=False, **look)
            axis.hlines(ys, xs[0], xs[-1], linewidth=0.6, zorder=2, clip_on=False, **look)

    def _extent(self) -> tuple[float, float]:
        """Both rows of a sequence share one scale, that of the side with the smaller step."""
        setting, coarse = self.setting, self.example.size_of(self.example.coarse)
        fine = self.example.size_of("output" if setting.transposed else "input")
        middle = (setting.span - 1) / 2 - setting.padding
        low = min(-setting.padding - 0.5, middle - setting.stride / 2)
        high = max(fine + setting.padding - 0.5, (coarse - 1) * setting.stride + middle + setting.stride / 2)
        return low - 0.05, max(high + 0.05, low + 12)  # a few cells do not fill the width

    def lines(self, axis: Axes) -> None:
        """Draw a line for every product of a sequence, those of the lit cell strong."""
        setting, middle = self.setting, (self.setting.span - 1) / 2 - self.setting.padding
        for i in range(setting.size):
            for q, place in setting.touched_outputs(i):
                strong = self.cell[0] == (i if self.side == "input" else q)
                ends = [i * setting.stride + middle, q] if setting.transposed else [i, q * setting.stride + middle]
                width, alpha = (1.8, 1.0) if strong else (0.8, 0.3)
                axis.plot(ends, [1, 0], color=self.places[0, place], linewidth=width, alpha=alpha)
        axis.set(xlim=self._extent(), ylim=(0, 1))

    def matrix(self, axis: Axes, wide: float, high: float) -> None:
        """Draw the matrix on axes of this size in inches; the lit row or column is framed."""
        met = self._met()
        rows, columns = met.shape
        own = _flat(self.cell, self.example.size_of(self.side))
        strength = np.full(met.shape, 0.3)
        strength[own if self.side == "output" else slice(None), own if self.side == "input" else slice(None)] = _STRONG
        pixels = np.where(met[..., None] < 0, 1.0, _mix(self.places.reshape(-1, 3)[met], strength[..., None]))
        size_x, size_y = min(0.24, wide / columns), min(0.24, high / rows)
        press = 16 if min(size_x, size_y) < 0.015 else 4
        size_x, size_y = min(size_x, press * size_y), min(size_y, press * size_x)
        axis.imshow(
            _thinned(pixels), extent=(-0.5, columns - 0.5, rows - 0.5, -0.5), aspect="auto", interpolation="nearest"
        )
        axis.axis("off")
        if min(size_x, size_y) >= 0.12:
            weights = np.where(met < 0, 0, self.example.kernel.numpy().reshape(-1)[met])
            for (row, column), weight in np.ndenumerate(weights):
                ink = _ink(pixels[row, column]) if weight else PALETTE["faint"]
                axis.text(column, row, str(weight), ha="center", va="center", fontsize=7, color=ink)
        axis.set(xlim=(-0.5, -0.5 + wide / size_x), ylim=(-0.5 + high / size_y, -0.5))
        _frame(axis, -0.5, -0.5, columns, rows, 0.6, PALETTE["neutral"])
        if self.side == "output":
            _frame(axis, -0.5, own - 0.5, columns, 1, 1.4)
        else:
            _frame(axis, own - 0.5, -0.5, 1, rows, 1.4)

    def _met(self) -> NDArray[np.int64]:
        """For each output and input, row by row, the number of the place in the kernel where they meet, or -1."""
        setting = self.setting
        line = np.full((setting.output_size, setting.size), -1)
        for output in range(setting.output_size):
            for cell, place in setting.touched_inputs(output):
                line[output, cell] = place
        if self.example.axes == 1:
            return line
        down, across = line[:, None, :, None], line[None, :, None, :]
        met = np.where((down < 0) | (across < 0), -1, down * setting.kernel + across)
        return met.reshape(setting.output_size**2, setting.size**2)


def _thinned(pixels: Array, most: int = 600) -> Array:
    """Fewer rows and columns than a picture has dots, each the darkest of those it stands for."""
    for axis in (0, 1):
        every = -(-pixels.shape[axis] // most)
        pixels = np.minimum.reduceat(pixels, np.arange(0, pixels.shape[axis], every), axis=axis)
    return pixels


def _frame(
    axis: Axes, left: float, top: float, width: float, height: float, line: float, colour: str = _ACTIVE
) -> None:
    box = Rectangle((left, top), width, height, fill=False, edgecolor=colour, linewidth=line, zorder=4, clip_on=False)
    axis.add_patch(box)


def _mix(colour: Array, strength: float | Array) -> Array:
    """A colour on white."""
    return 1 - strength * (1 - colour)


def _ink(background: Array) -> str:
    """Black or white, whichever stands out more; the weights are those of luminance."""
    return "black" if background**2.2 @ np.array([0.2126, 0.7152, 0.0722]) > 0.18 else "white"


def _two(values: NDArray) -> NDArray:
    """A sequence as one row."""
    return np.atleast_2d(values)


def _pair(position: Cell) -> tuple[int, int]:
    """Row and column of a cell; a sequence is one row."""
    return (0, position[0]) if len(position) == 1 else (position[0], position[1])


def _flat(position: Cell, size: int) -> int:
    """Number of a cell, row by row."""
    number = 0
    for index in position:
        number = number * size + index
    return number
