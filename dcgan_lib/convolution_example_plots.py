"""A convolution with numbers in it, drawn: kernel, input and output as grids, and the matrix, with one cell lit.

It is the still picture of the explorer on the page and the living one of the explorer in a notebook. Every place in the
kernel has one colour in all four parts.
"""

from __future__ import annotations

from collections.abc import Iterable
from itertools import product

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import to_rgb
from matplotlib.patches import Rectangle
from numpy.typing import NDArray

from dcgan_lib.convolution_examples import ConvolutionExample, stamp
from dcgan_lib.convolution_plots import place_colour
from dcgan_lib.figures import PALETTE, WIDTH, BookFigure, style

CORNERS = ("#3d8fd1", "#f0a202", "#1fa97c", "#d0659c")
"""Colours of a square kernel's corners, row by row; those between are mixed. The page's explorer has the same."""

_STRONG, _PALE = 0.65, 0.15
_LEGIBLE = 0.155  # inches: the least cell with a number in it
_MOST_MATRIX = 700  # entries: the most that are drawn with numbers
_ACTIVE = "#0f5bc9"

Cell = tuple[int, ...]
Places = dict[Cell, NDArray[np.float64]]


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
    setting = example.setting
    side = side or ("input" if setting.transposed else "output")
    cell = (min(1, example.size_of(side) - 1),) * example.axes if cell is None else cell
    drawing = _Drawing(example, side, cell, overlaps, partial)
    with style():
        if example.axes == 1:
            figure = BookFigure(figsize=(WIDTH, 3.4))
            mosaic = [["kernel", "matrix"], ["input", "matrix"], ["lines", "matrix"], ["output", "matrix"]]
            axes = figure.subplot_mosaic(mosaic, width_ratios=[3, 2], height_ratios=[3, 3, 4, 3])
            drawing.lines(axes["lines"])
        else:
            figure = BookFigure(figsize=(WIDTH, 5.3))
            mosaic = [["kernel", "input", "output"], ["matrix"] * 3]
            axes = figure.subplot_mosaic(mosaic, width_ratios=[2, 4, 5], height_ratios=[5, 4])
        heading = f"{example.pytorch()}\noutput size = {setting.size_formula}"
        figure.suptitle(heading, fontsize=9, family="DejaVu Sans Mono")
        for name, axis in axes.items():
            axis.axis("off")
            if name != "lines":
                axis.set_title(drawing.title(name))
        figure.draw_without_rendering()  # the constrained layout decides here how large the axes are
        for name in ("kernel", "input", "output"):
            drawing.grid(axes[name], name)
        drawing.matrix(axes["matrix"])
    return figure


class _Drawing:
    """One picture: who meets whom, and in which colours."""

    def __init__(self, example: ConvolutionExample, side: str, cell: Cell, overlaps: bool, partial: bool) -> None:
        self.example, self.setting, self.side, self.cell = example, example.setting, side, cell
        self.products = example.products(side, cell)
        self.places = _place_colours(self.setting.kernel, example.axes)
        self.overlaps = overlaps
        whole = example.overlaps if overlaps else example.output
        self.most = max(int(whole.max()), 1)
        self.output = whole.double().numpy()
        if partial and not overlaps:
            self.output = example.output_up_to(side, cell).numpy()

    @property
    def coarse(self) -> str:
        """The side whose cells have a window or a stamp on the other."""
        return "input" if self.setting.transposed else "output"

    def title(self, name: str) -> str:
        counts = {"input": self.setting.size, "kernel": self.setting.kernel, "output": self.setting.output_size}
        if name == "matrix":
            axes = self.example.axes
            return f"matrix {counts['output'] ** axes} × {counts['input'] ** axes}"
        what = "overlap" if name == "output" and self.overlaps else name
        return f"{what} {counts[name]}" + (f" × {counts[name]}" if self.example.axes == 2 else "")

    def grid(self, axis: Axes, name: str) -> None:
        """Draw kernel, input or output."""
        count = {"kernel": self.setting.kernel}.get(name) or self.example.size_of(name)
        rim = self.setting.padding if name not in ("kernel", self.coarse) else 0
        step, first = 1.0, 0.0
        if self.example.axes == 1 and name == self.coarse:
            step, first = float(self.setting.stride), (self.setting.span - 1) / 2 - self.setting.padding
        size = self._fit(axis, name, count, rim)
        for position, colour, text, strong in self._cells(name, count, rim):
            row, column = _pair(position)
            inside = all(0 <= index < count for index in position)
            corner = (first + column * step - step / 2, row - 0.5)
            edge = PALETTE["neutral"] if inside else PALETTE["faint"]
            box = Rectangle(corner, step, 1, facecolor=colour, edgecolor=edge, linewidth=0.5 if inside else 0.6)
            box.set_linestyle("-" if inside else ":")
            axis.add_patch(box)
            if size * step >= _LEGIBLE and text:
                font, weight = min(9.0, 72 * size * min(step, 1.6) * 0.42), "bold" if strong else "normal"
                axis.text(first + column * step, row, text, ha="center", va="center", fontsize=font, fontweight=weight, color=_ink(colour))
        if name == self.side:
            row, column = _pair(self.cell)
            self._frame(axis, first + column * step - step / 2, row - 0.5, step, 1, 2.2)
        elif name != "kernel" and self.side == self.coarse:
            row, column = _pair(tuple(stamp(self.setting, index)[0].cell for index in self.cell))
            self._frame(axis, column - 0.5, row - 0.5, self.setting.span, self.setting.span if self.example.axes == 2 else 1, 1.6)

    def _cells(self, name: str, count: int, rim: int) -> Iterable[tuple[Cell, NDArray[np.float64], str, bool]]:
        """Position, colour, text and whether it is lit, of each cell and of the padding's."""
        lit = self._lit(name)
        values = {"kernel": self.example.kernel.numpy(), "input": self.example.input.numpy()}.get(name, self.output)
        shade, most = ("generator", self.most) if name == "output" and self.overlaps else ("discriminator", self.most if name == "output" else 5)
        for position in product(range(-rim, count + rim), repeat=self.example.axes):
            inside = all(0 <= index < count for index in position)
            value = values[position] if inside else (0 if name == "input" else np.nan)
            text = "" if np.isnan(value) else str(int(value))
            place = lit.get(position)
            if place is not None:
                yield position, _mix(self.places[place], _STRONG if inside else 0.3), text, True
            elif name == "kernel":
                yield position, _mix(self.places[position], _PALE), text, False
            elif not inside or np.isnan(value):
                yield position, np.ones(3), text, False
            else:
                strength = (0.85 if shade == "generator" else 0.3) * value / most
                yield position, _mix(np.array(to_rgb(PALETTE[shade])), strength), text, False

    def _lit(self, name: str) -> dict[Cell, Cell]:
        """The lit cells of a part and the places in the kernel that they meet."""
        if name == "kernel":
            return {found.place: found.place for found in self.products}
        if name == self.side:
            return {}
        if self.side != self.coarse:
            return {found.cell: found.place for found in self.products}
        stamps = [stamp(self.setting, index) for index in self.cell]
        return {tuple(tap.cell for tap in taps): tuple(tap.kernel for tap in taps) for taps in product(*stamps)}

    def _fit(self, axis: Axes, name: str, count: int, rim: int) -> float:
        """Choose the limits of a grid's axes, with square cells of one unit; return their size in inches."""
        box = axis.get_window_extent()
        wide, high = (length / axis.figure.dpi for length in (box.width, box.height))
        if self.example.axes == 1 and name != "kernel":
            low, top = self._extent()
            size = wide / (top - low)
            axis.set(xlim=(low, top), ylim=(0.55, -0.55))
            return size
        size = min(0.36, wide / (count + 2 * rim + 0.2), high / (count + 2 * rim + 0.2) if self.example.axes == 2 else high)
        middle = (count - 1) / 2
        rows = middle if self.example.axes == 2 else 0
        axis.set(xlim=(middle - wide / size / 2, middle + wide / size / 2), ylim=(rows + high / size / 2, rows - high / size / 2))
        return size

    def _extent(self) -> tuple[float, float]:
        """Both rows of a sequence share one scale, that of the side with the smaller step."""
        setting = self.setting
        fine, coarse = (setting.output_size, setting.size) if setting.transposed else (setting.size, setting.output_size)
        middle = (setting.span - 1) / 2 - setting.padding
        low = min(-setting.padding - 0.5, middle - setting.stride / 2)
        high = max(fine + setting.padding - 0.5, (coarse - 1) * setting.stride + middle + setting.stride / 2)
        spare = max(0.0, 10 - (high - low)) / 2  # a few cells do not fill the width
        return low - spare - 0.1, high + spare + 0.1

    def lines(self, axis: Axes) -> None:
        """Draw a line for every product of a sequence, those of the lit cell strong."""
        setting, middle = self.setting, (self.setting.span - 1) / 2 - self.setting.padding
        where = {True: lambda index: index * setting.stride + middle, False: lambda index: index}
        for i in range(setting.size):
            for q, place in setting.touched_outputs(i):
                strong = self.cell[0] == (i if self.side == "input" else q)
                ends = [where[self.coarse == "input"](i), where[self.coarse == "output"](q)]
                width, alpha = (1.8, 1.0) if strong else (0.8, 0.25)
                axis.plot(ends, [1, 0], color=self.places[(place,)], linewidth=width, alpha=alpha)
        axis.set(xlim=self._extent(), ylim=(0, 1))

    def matrix(self, axis: Axes) -> None:
        """Draw the matrix as pixels, with numbers where there is room; the lit row or column is framed."""
        shape = tuple(self.example.size_of(name) ** self.example.axes for name in ("output", "input"))
        pixels, weights = np.ones((*shape, 3)), np.zeros(shape, dtype=int)
        own = _flat(self.cell, self.example.size_of(self.side))
        for q in product(range(self.setting.output_size), repeat=self.example.axes):
            row = _flat(q, self.setting.output_size)
            for found in self.example.products("output", q):
                column = _flat(found.cell, self.setting.size)
                strong = own == (row if self.side == "output" else column)
                pixels[row, column] = _mix(self.places[found.place], _STRONG if strong else 0.3)
                weights[row, column] = found.weight
        box = axis.get_window_extent()
        wide, high = (length / axis.figure.dpi for length in (box.width, box.height))
        size_y = min(0.24, high / shape[0])
        size_x = min(0.24, wide / shape[1], 4 * size_y)
        size_y = min(size_y, 4 * size_x)
        axis.imshow(pixels, aspect="auto", interpolation="nearest")
        if min(size_x, size_y) >= _LEGIBLE * 0.8 and weights.size <= _MOST_MATRIX:
            for (row, column), weight in np.ndenumerate(weights):
                ink = _ink(pixels[row, column]) if weight else PALETTE["faint"]
                axis.text(column, row, str(weight), ha="center", va="center", fontsize=7, color=ink)
        middle_x, middle_y = (shape[1] - 1) / 2, (shape[0] - 1) / 2
        axis.set(xlim=(middle_x - wide / size_x / 2, middle_x + wide / size_x / 2), ylim=(shape[0] - 0.4 if size_y * shape[0] > 0.9 * high else high / size_y - 0.5, -0.6))
        self._frame(axis, -0.5, -0.5, shape[1], shape[0], 0.6, PALETTE["neutral"])
        if self.side == "output":
            self._frame(axis, -0.5, own - 0.5, shape[1], 1, 1.4)
        else:
            self._frame(axis, own - 0.5, -0.5, 1, shape[0], 1.4)

    @staticmethod
    def _frame(axis: Axes, left: float, top: float, width: float, height: float, line: float, colour: str = _ACTIVE) -> None:
        axis.add_patch(Rectangle((left, top), width, height, fill=False, edgecolor=colour, linewidth=line, zorder=4, clip_on=False))


def _place_colours(kernel: int, axes: int) -> Places:
    """The colour of each place: as in the chapter's pictures for a sequence, mixed from four corners for an image."""
    if axes == 1:
        return {(place,): np.array(to_rgb(place_colour(place))) for place in range(kernel)}
    corners = np.array([to_rgb(corner) for corner in CORNERS]).reshape(2, 2, 3)
    shares = [place / max(kernel - 1, 1) for place in range(kernel)]
    weights = {place: np.array([1 - share, share]) for place, share in enumerate(shares)}
    return {
        (row, column): np.einsum("i,j,ijc->c", weights[row], weights[column], corners)
        for row, column in product(range(kernel), repeat=2)
    }


def _mix(colour: NDArray[np.float64], strength: float) -> NDArray[np.float64]:
    return 1 - strength * (1 - colour)


def _ink(background: NDArray[np.float64]) -> str:
    """Black or white, whichever stands out more; the weights are those of luminance."""
    return "black" if background**2.2 @ np.array([0.2126, 0.7152, 0.0722]) > 0.18 else "white"


def _pair(position: Cell) -> tuple[int, int]:
    """Row and column of a cell; a sequence is one row."""
    return (0, position[0]) if len(position) == 1 else (position[0], position[1])


def _flat(position: Cell, size: int) -> int:
    """Number of a cell, row by row."""
    number = 0
    for index in position:
        number = number * size + index
    return number
