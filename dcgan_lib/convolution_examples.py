"""Convolutions in numbers that can be checked in the head: what both convolution explorers show.

The explorer in a running notebook, :func:`dcgan_lib.widgets.convolution_explorer`, takes its numbers and sentences from
here; the one on the page, ``book/explorers/convolution-arithmetic.js``, says the same in JavaScript: a test compares
them.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from itertools import product
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

from dcgan_lib.convolution import RULES, ConvolutionSetting
from dcgan_lib.errors import UserError

LIMITS = {
    "size": (1, 16),
    "kernel": (1, 7),
    "stride": (0, 4),
    "padding": (0, 6),
    "dilation": (0, 3),
    "output_padding": (0, 4),
}
"""What the explorers' sliders go through; a reader who sets a stride of 0 is told why it is impossible."""

MAX_SEED = 9
SIDES = ("input", "output")

FORMULAS = {
    False: (
        "⌊(size + 2·padding − dilation·(kernel − 1) − 1) / stride⌋ + 1",
        "o = ⌊(i + 2p − k − (k − 1)(d − 1)) / s⌋ + 1",
    ),
    True: (
        "(size − 1)·stride − 2·padding + dilation·(kernel − 1) + output_padding + 1",
        "o′ = s(i′ − 1) + a + k + (k − 1)(d − 1) − 2p",
    ),
}
"""The size formula of a convolution (``False``) and of a transposed one (``True``): in PyTorch's words, and in the
letters of Dumoulin and Visin (2016, relationships 14 and 15), where ``a`` is the output padding."""


class Product(NamedTuple):
    """One product of a convolution.

    Attributes:
        cell: The cell on the other side: of the input for an output's sum, of the output for an input's stamp.
        place: The place in the kernel.
        value: The input's value.
        weight: The kernel's.
    """

    cell: tuple[int, ...]
    place: tuple[int, ...]
    value: int
    weight: int


def example_values(size: int, axes: int = 2, seed: int = 1, kernel: bool = False) -> Tensor:
    """The numbers of an input (1 to 5) or of a kernel (1 to 3): looking random, the same everywhere.

    No number is 0, so that a 0 in a matrix or an output says that nothing meets there.

    Args:
        size: Cells along each axis.
        axes: 1 or 2.
        seed: 0 to 9; with 0 all numbers are 1, which makes every output the number of its products.
        kernel: Whether they are a kernel's.

    Returns:
        int64, (size,) or (size, size).

    Raises:
        UserError: If ``axes`` or ``seed`` is out of range.
    """
    _check_axes(axes)
    _between("seed", seed, 0, MAX_SEED)
    column = torch.arange(size)
    row = column[:, None] if axes == 2 else torch.tensor(0)
    mixed = (73 * row + 179 * column + 283 * seed + (131 if kernel else 37)) ** 2 % 1009
    if seed == 0:
        return torch.ones_like(mixed)
    return 1 + mixed % (3 if kernel else 5)


@dataclass(frozen=True)
class ConvolutionExample:
    """A convolution or transposed convolution of one channel, with numbers in it.

    Attributes:
        setting: What is computed along each axis.
        axes: 1 for sequences, 2 for square images.
        seed: Which numbers; see :func:`example_values`.

    Raises:
        UserError: If ``axes`` or ``seed`` is out of range.
    """

    setting: ConvolutionSetting
    axes: int = 2
    seed: int = 1

    def __post_init__(self) -> None:
        _check_axes(self.axes)
        _between("seed", self.seed, 0, MAX_SEED)

    @cached_property
    def input(self) -> Tensor:
        """The input's numbers, int64 (size,) or (size, size)."""
        return example_values(self.setting.size, self.axes, self.seed)

    @cached_property
    def kernel(self) -> Tensor:
        """The kernel's numbers, int64 (kernel,) or (kernel, kernel)."""
        return example_values(self.setting.kernel, self.axes, self.seed, kernel=True)

    @cached_property
    def output(self) -> Tensor:
        """The result, int64 (output size,) or (output size, output size)."""
        return self._apply(self.input, self.kernel)

    @cached_property
    def overlaps(self) -> Tensor:
        """How many products each output cell is the sum of, in the shape of the output."""
        return self._apply(torch.ones_like(self.input), torch.ones_like(self.kernel))

    @property
    def coarse(self) -> str:
        """The side whose cells have a window or a stamp on the other: ``"input"`` of a transposed convolution."""
        return "input" if self.setting.transposed else "output"

    def inner(self, side: str) -> tuple[int, ...]:
        """The cell that is lit first: the second along each axis, which is no corner."""
        return (min(1, self.size_of(side) - 1),) * self.axes

    def output_up_to(self, side: str, cell: tuple[int, ...]) -> Tensor:
        """The output as far as it is done once the cells up to one, row by row, are done.

        Args:
            side: ``"input"``: each input has added its products; ``"output"``: each output has been summed.
            cell: The last cell of that side that is done.

        Returns:
            float64, in the shape of the output; NaN where nothing has been summed yet.

        Raises:
            UserError: If there is no such side or cell.
        """
        self.products(side, cell)
        size = self.size_of(side)
        numbers = torch.arange(size**self.axes).reshape((size,) * self.axes)
        done = numbers <= numbers[cell]
        if side == "input":
            return self._apply(self.input * done, self.kernel).double()
        return self.output.double().where(done, torch.nan)

    def size_of(self, side: str) -> int:
        """Cells along each axis of the ``"input"`` or the ``"output"``."""
        if side not in SIDES:
            raise UserError(f"side={side!r} must be 'input' or 'output'")
        return self.setting.size if side == "input" else self.setting.output_size

    def products(self, side: str, cell: tuple[int, ...]) -> list[Product]:
        """The products that an output cell sums, or those that an input cell takes part in, by place in the kernel.

        Args:
            side: ``"output"`` or ``"input"``.
            cell: A cell of that side, one index for each axis.

        Raises:
            UserError: If there is no such side or cell.
        """
        self.size_of(side)
        if len(cell) != self.axes:
            raise UserError(f"cell={cell} must have one index for each of the {self.axes} axes")
        touched = self.setting.touched_inputs if side == "output" else self.setting.touched_outputs
        made = []
        for taps in product(*(touched(index) for index in cell)):
            other, place = tuple(tap.cell for tap in taps), tuple(tap.kernel for tap in taps)
            value = self.input[other if side == "output" else cell]
            made.append(Product(other, place, int(value), int(self.kernel[place])))
        return made

    def sentence(self, side: str, cell: tuple[int, ...]) -> str:
        """The arithmetic of a cell, such as ``Output (0, 1) = 2·3 + 1·1 = 7``; arguments as in :meth:`products`."""
        products = self.products(side, cell)
        if side == "output":
            name = f"Output {name_of(cell)}"
            if not products:
                return f"{name} = 0: no input reaches it."
            terms = " + ".join(f"{found.value}·{found.weight}" for found in products)
            return f"{name} = {terms} = {int(self.output[cell])}"
        name = f"Input {name_of(cell)} = {int(self.input[cell])}"
        if not products:
            return f"{name} reaches no output."
        terms = ", ".join(f"{found.value}·{found.weight} = {found.value * found.weight}" for found in products)
        return f"{name} adds to {len(products)} output{'s' if len(products) > 1 else ''}: {terms}"

    def pytorch(self) -> str:
        """The line of PyTorch that makes this layer, without arguments that are at their defaults."""
        setting = self.setting
        return pytorch_line(
            setting.kernel,
            setting.stride,
            setting.padding,
            setting.dilation,
            setting.output_padding,
            setting.transposed,
            self.axes,
        )

    def _apply(self, x: Tensor, kernel: Tensor) -> Tensor:
        """Compute in float64, which is exact for these whole numbers."""
        setting = self.setting
        arguments = {"stride": setting.stride, "padding": setting.padding, "dilation": setting.dilation}
        if setting.transposed:
            arguments["output_padding"] = setting.output_padding
        name = f"conv{'_transpose' if setting.transposed else ''}{self.axes}d"
        y = getattr(functional, name)(x[None, None].double(), kernel[None, None].double(), **arguments)
        return y[0, 0].round().long()


def pytorch_line(
    kernel: int,
    stride: int = 1,
    padding: int = 0,
    dilation: int = 1,
    output_padding: int = 0,
    transposed: bool = False,
    axes: int = 2,
) -> str:
    """The line of PyTorch that makes a layer of one channel, without arguments that are at their defaults."""
    numbers = {"stride": stride, "padding": padding, "output_padding": output_padding, "dilation": dilation}
    defaults = {"stride": 1, "padding": 0, "output_padding": 0, "dilation": 1}
    named = [f"{name}={value}" for name, value in numbers.items() if value != defaults[name]]
    layer = f"Conv{'Transpose' if transposed else ''}{axes}d"
    return f"nn.{layer}({', '.join(['1', '1', str(kernel), *named, 'bias=False'])})"


def name_of(cell: tuple[int, ...]) -> str:
    """A cell in words: ``3`` in a sequence, ``(3, 2)``, row and column, in an image."""
    return str(cell[0]) if len(cell) == 1 else f"({', '.join(map(str, cell))})"


def _check_axes(axes: int) -> None:
    if axes not in (1, 2):
        raise UserError(f"axes={axes!r} must be 1 or 2")


def _between(name: str, value: int, low: int, high: int) -> None:
    if not isinstance(value, int) or isinstance(value, bool):
        raise UserError(RULES["whole"].format(name=name, value=repr(value)))
    if not low <= value <= high:
        raise UserError(RULES["between"].format(name=name, value=value, low=low, high=high))
