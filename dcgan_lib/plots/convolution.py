"""Pictures of convolutions and transposed convolutions along one axis: who meets whom, as lines or as a matrix.

Every place in the kernel has one colour in all of them. They draw on axes that the caller makes, so that two of them
can stand side by side.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from matplotlib.axes import Axes
from matplotlib.colors import to_rgb
from matplotlib.patches import Rectangle

from dcgan_lib.convolution import ConvolutionSetting
from dcgan_lib.errors import UserError
from dcgan_lib.plots.look import PALETTE, style

PLACE_COLOURS = tuple(PALETTE[name] for name in ("discriminator", "generator", "real", "fake", "accent", "second"))
"""Colour of each place in the kernel; the seventh place has the first colour again."""

_SUBSCRIPTS = str.maketrans("0123456789", "₀₁₂₃₄₅₆₇₈₉")
_FAINT = 0.18


def place_colour(place: int) -> str:
    """Colour of a place in the kernel."""
    return PLACE_COLOURS[place % len(PLACE_COLOURS)]


def draw_connections(
    axis: Axes,
    setting: ConvolutionSetting,
    output: int | None = None,
    cell: int | None = None,
    labels: bool = True,
) -> None:
    """Draw inputs above, outputs below, and a line for every product, in the colour of its place in the kernel.

    Dashed cells are the padding of a convolution's input, or what the padding cuts off a transposed one's output.

    Args:
        axis: Where to draw.
        setting: The operation.
        output: An output cell whose lines to stand out; the others are drawn pale.
        cell: The same for an input cell.
        labels: Whether "input" and "output" stand beside the rows.

    Raises:
        UserError: If there is no such cell.
    """
    if output is not None:
        setting.touched_inputs(output)
    if cell is not None:
        setting.touched_outputs(cell)
    middle = (setting.span - 1) / 2 - setting.padding

    def along(index: int, fine: bool) -> float:
        """Both rows share one scale, that of the side with the smaller step; the other is centred on its windows."""
        return index if fine else index * setting.stride + middle

    fine_inputs = not setting.transposed
    with style():
        for i in range(setting.size):
            for q, place in setting.touched_outputs(i):
                lit = (output is None or q == output) and (cell is None or i == cell)
                ends = [along(i, fine_inputs), along(q, not fine_inputs)]
                width, alpha = (1.6, 1.0) if lit else (1.0, _FAINT)
                axis.plot(ends, [1, 0], color=place_colour(place), linewidth=width, alpha=alpha, zorder=2 if lit else 1)
        _row(axis, [along(i, fine_inputs) for i in range(setting.size)], 1, lit=cell)
        _row(axis, [along(q, not fine_inputs) for q in range(setting.output_size)], 0, lit=output)
        count = setting.size if fine_inputs else setting.output_size
        for index in (*range(-setting.padding, 0), *range(count, count + setting.padding)):
            _square(axis, index, 1 if fine_inputs else 0, "", dashed=True)
    low = min(-setting.padding, along(0, False)) - 0.7
    high = (
        max(count - 1 + setting.padding, along((setting.output_size if fine_inputs else setting.size) - 1, False)) + 0.7
    )
    _frame(axis, (low - 2.4 if labels else low, high), (-0.5, 1.5))
    for height, text in ((1, "input"), (0, "output")) if labels else ():
        axis.text(low - 0.2, height, text, ha="right", va="center", fontsize=9)


def draw_matrix(axis: Axes, setting: ConvolutionSetting, output: int | None = None, cell: int | None = None) -> None:
    """Draw the operation's matrix: a row for each output, a column for each input, the kernel's weights by name.

    Args:
        axis: Where to draw.
        setting: The operation.
        output: A row to stand out.
        cell: A column to stand out.

    Raises:
        UserError: If there is no such row or column.
    """
    rows, columns = setting.output_size, setting.size
    with style():
        for q in range(rows):
            found = dict(setting.touched_inputs(q))
            for i in range(columns):
                place, corner = found.get(i), (i - 0.5, q - 0.5)
                colour = "white" if place is None else place_colour(place)
                axis.add_patch(Rectangle(corner, 1, 1, facecolor=colour, edgecolor=PALETTE["faint"], linewidth=0.6))
                text = "0" if place is None else f"w{place}".translate(_SUBSCRIPTS)
                shade = PALETTE["neutral"] if place is None else _ink(colour)
                weight = "normal" if place is None else "bold"
                axis.text(i, q, text, ha="center", va="center", fontsize=8, color=shade, fontweight=weight)
        if output is not None:
            setting.touched_inputs(output)
            axis.add_patch(Rectangle((-0.5, output - 0.5), columns, 1, fill=False, edgecolor="black", linewidth=2))
        if cell is not None:
            setting.touched_outputs(cell)
            axis.add_patch(Rectangle((cell - 0.5, -0.5), 1, rows, fill=False, edgecolor="black", linewidth=2))
    _frame(axis, (-0.6, columns - 0.4), (rows - 0.4, -0.6))


def draw_numbers(axis: Axes, rows: Mapping[str, Sequence[str]], colours: Mapping[str, Sequence[int | None]]) -> None:
    """Draw labelled rows of cells with a text in each, one beneath the other; an empty text leaves the cell out.

    Args:
        axis: Where to draw.
        rows: Label -> texts; all rows have as many.
        colours: Label -> for each cell the place in the kernel whose colour it has, or ``None``; rows may be missing.

    Raises:
        UserError: If the rows have different lengths.
    """
    lengths = {len(texts) for texts in rows.values()}
    if len(lengths) != 1:
        raise UserError(f"every row must have as many cells; got rows of {sorted(lengths)}")
    with style():
        for height, (label, texts) in enumerate(reversed(rows.items())):
            places = colours.get(label, [None] * len(texts))
            axis.text(-0.9, height, label, ha="right", va="center", fontsize=9)
            for index, (text, place) in enumerate(zip(texts, places, strict=True)):
                if text:
                    _square(axis, index, height, text, None if place is None else place_colour(place), half=0.3)
    longest = max(map(len, rows))
    _frame(axis, (-1.2 - 0.17 * longest, lengths.pop() - 0.3), (-0.6, len(rows) - 0.4))


def _row(axis: Axes, positions: Sequence[float], height: float, lit: int | None) -> None:
    for index, position in enumerate(positions):
        _square(axis, position, height, str(index), bold=index == lit)


def _square(
    axis: Axes,
    x: float,
    y: float,
    text: str,
    colour: str | None = None,
    dashed: bool = False,
    bold: bool = False,
    half: float = 0.14,
) -> None:
    """A cell, twice ``half`` high and 0.84 wide, with a text in it."""
    edge = "black" if bold else PALETTE["faint"] if dashed else PALETTE["neutral"]
    lines = {"linestyle": "--" if dashed else "-", "linewidth": 2 if bold else 1}
    box = Rectangle(
        (x - 0.42, y - half), 0.84, 2 * half, facecolor=colour or "white", edgecolor=edge, zorder=3, **lines
    )
    axis.add_patch(box)
    axis.text(x, y, text, ha="center", va="center", fontsize=8, color=_ink(colour or "white"), zorder=4)


def _ink(background: str) -> str:
    """Black or white, whichever stands out more; the weights are those of luminance."""
    red, green, blue = (part**2.2 for part in to_rgb(background))
    return "black" if 0.2126 * red + 0.7152 * green + 0.0722 * blue > 0.18 else "white"


def _frame(axis: Axes, x: tuple[float, float], y: tuple[float, float]) -> None:
    axis.set(xlim=x, ylim=y)
    axis.axis("off")
