"""Convolution arithmetic in whole numbers: sizes, which cell meets which, receptive fields, and costs.

The formulas are those of Dumoulin and Visin, *A guide to convolution arithmetic for deep learning* (2016), written
for one spatial axis; for square images both axes are alike, and a cell of an image is a pair of cells. All rests on one
relation between the cells of a convolution's input and output, with stride s, padding p, dilation d and place k in the
kernel::

    input = output * s - p + k * d

A transposed convolution goes the other way: its input takes the place of the output, and its output that of the input.
What the operations compute is in :mod:`dcgan_lib.convolution_views`.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from numbers import Integral
from typing import Any, NamedTuple

from dcgan_lib.errors import UserError

RULES = {
    "whole": "{name}={value} must be a whole number",
    "positive": "{name}={value} must be at least 1",
    "not_negative": "{name}={value} must not be negative",
    "between": "{name}={value} must be between {low} and {high}",
    "kernel_fits": "kernel={kernel} with dilation={dilation} spans {span} pixels; it must not span more than the "
    "padded input, {padded} pixels (size={size}, padding={padding})",
    "no_output_padding": "output_padding={output_padding} must be 0: only a transposed convolution has one",
    "output_padding": "output_padding={output_padding} must be smaller than stride={stride} or dilation={dilation}",
    "output_left": "padding={padding} cuts {cut} pixels from an output of {full}; it must leave at least 1",
    "groups": "groups={groups} must divide in_channels={in_channels} and out_channels={out_channels}",
}
"""Every rule that a setting can break, as the sentence that says so; the explorer on the page says the same ones."""


class ConvolutionShape(NamedTuple):
    """Kernel size, stride, padding and dilation of one convolution layer along one axis, in pixels."""

    kernel: int
    stride: int = 1
    padding: int = 0
    dilation: int = 1


class ReceptiveField(NamedTuple):
    """What one output position of a stack of convolutions sees of the input, in input pixels.

    Attributes:
        size: Width of the window of input pixels, from the first to the last that can change the output.
        jump: Distance between the windows of two neighbouring outputs.
        start: Index of the first pixel in output 0's window; negative when the window begins in the padding.
    """

    size: int
    jump: int
    start: int


class Tap(NamedTuple):
    """One product in the sum that makes an output: a cell of the other side and the place in the kernel it meets."""

    cell: int
    kernel: int


def kernel_span(kernel: int, dilation: int = 1) -> int:
    """Width in pixels of a dilated kernel, from its first to its last weight: ``dilation (kernel - 1) + 1``."""
    return dilation * (kernel - 1) + 1


@dataclass(frozen=True)
class ConvolutionSetting:
    """A convolution, or a transposed one, along one axis: its arguments, and which cells meet in it.

    Attributes:
        size: Size of the input, in pixels.
        kernel: Size of the kernel.
        stride: Step from window to window in a convolution's input, from stamp to stamp in a transposed one's output.
        padding: Pixels added at both ends of a convolution's input, or cut from both ends of a transposed one's output.
        dilation: Distance between neighbouring kernel weights.
        output_padding: Pixels added to the far end of a transposed convolution's output.
        transposed: Whether the operation is a transposed convolution.

    Raises:
        UserError: If the setting is impossible; the message is that of :func:`explain_impossible`.
    """

    size: int
    kernel: int
    stride: int = 1
    padding: int = 0
    dilation: int = 1
    output_padding: int = 0
    transposed: bool = False

    def __post_init__(self) -> None:
        problem = explain_impossible(**vars(self))
        if problem is not None:
            raise UserError(problem)

    @property
    def span(self) -> int:
        """Width of the kernel in pixels, with the gaps of its dilation."""
        return kernel_span(self.kernel, self.dilation)

    @property
    def output_size(self) -> int:
        """Size of the output, in pixels."""
        if self.transposed:
            return (self.size - 1) * self.stride - 2 * self.padding + self.span + self.output_padding
        return (self.size + 2 * self.padding - self.span) // self.stride + 1

    @property
    def size_formula(self) -> str:
        """The size formula with the numbers in it, such as ``⌊(8 + 2·1 − 1·(3 − 1) − 1) / 2⌋ + 1 = 4``."""
        kernel = f"{self.dilation}·({self.kernel} − 1)"
        if self.transposed:
            steps = f"({self.size} − 1)·{self.stride} − 2·{self.padding}"
            return f"{steps} + {kernel} + {self.output_padding} + 1 = {self.output_size}"
        return f"⌊({self.size} + 2·{self.padding} − {kernel} − 1) / {self.stride}⌋ + 1 = {self.output_size}"

    def touched_inputs(self, output: int) -> list[Tap]:
        """The input cells that an output cell reads, by place in the kernel: its row of the operation's matrix.

        Places that meet the padding, or in a transposed convolution no input cell at all, are left out.

        Raises:
            UserError: If there is no such output.
        """
        _check_index("output", output, self.output_size)
        return (self._backwards if self.transposed else self._forwards)(output, self.size)

    def touched_outputs(self, cell: int) -> list[Tap]:
        """The output cells that an input cell reaches, by place in the kernel: its column of the operation's matrix.

        In a transposed convolution this is the cell's stamp, without what the padding cuts off.

        Raises:
            UserError: If there is no such input.
        """
        _check_index("cell", cell, self.size)
        return (self._forwards if self.transposed else self._backwards)(cell, self.output_size)

    def _forwards(self, cell: int, limit: int) -> list[Tap]:
        """The cells ``cell * s - p + k * d``, one for each place k, as far as they are among the ``limit`` cells."""
        return [tap for tap in stamp(self, cell) if 0 <= tap.cell < limit]

    def _backwards(self, cell: int, limit: int) -> list[Tap]:
        """The cells, among ``limit``, from which ``_forwards`` arrives at this one."""
        taps = []
        for place in range(self.kernel):
            origin, missed_by = divmod(cell + self.padding - place * self.dilation, self.stride)
            if missed_by == 0 and 0 <= origin < limit:
                taps.append(Tap(origin, place))
        return taps


def stamp(setting: ConvolutionSetting, cell: int) -> list[Tap]:
    """Where a window or stamp lies along one axis, what falls on the padding included: cells below 0 or beyond the end.

    Args:
        setting: The operation.
        cell: The output of a convolution whose window it is, or the input of a transposed one whose stamp it is.
    """
    first = cell * setting.stride - setting.padding
    return [Tap(first + place * setting.dilation, place) for place in range(setting.kernel)]


def explain_impossible(
    size: int,
    kernel: int,
    stride: int = 1,
    padding: int = 0,
    dilation: int = 1,
    output_padding: int = 0,
    transposed: bool = False,
) -> str | None:
    """Say which rule a setting breaks; the arguments are those of :class:`ConvolutionSetting`.

    Returns:
        The first broken rule as one of the sentences in :data:`RULES`, or ``None`` if the setting is possible.
    """
    positive = {"size": size, "kernel": kernel, "stride": stride, "dilation": dilation}
    problem = _first_problem(positive, {"padding": padding, "output_padding": output_padding})
    if problem is not None:
        return problem
    span = kernel_span(kernel, dilation)
    padded, full = size + 2 * padding, (size - 1) * stride + span + output_padding
    rule = None
    if not transposed and output_padding:
        rule = "no_output_padding"
    elif not transposed and span > padded:
        rule = "kernel_fits"
    elif transposed and output_padding >= max(stride, dilation):
        rule = "output_padding"
    elif transposed and full <= 2 * padding:
        rule = "output_left"
    numbers = positive | {"padding": padding, "output_padding": output_padding}
    numbers |= {"span": span, "padded": padded, "full": full, "cut": 2 * padding}
    return RULES[rule].format(**numbers) if rule else None


def conv_output_size(size: int, kernel: int, stride: int = 1, padding: int = 0, dilation: int = 1) -> int:
    """Output size of a convolution, ``floor((size + 2 padding - dilation (kernel - 1) - 1) / stride) + 1``.

    Raises:
        UserError: If an argument is out of range, or the dilated kernel is larger than the padded input.
    """
    return ConvolutionSetting(size, kernel, stride, padding, dilation).output_size


def conv_transpose_output_size(
    size: int, kernel: int, stride: int = 1, padding: int = 0, output_padding: int = 0, dilation: int = 1
) -> int:
    """Output size of a transposed convolution.

    It is ``(size - 1) stride - 2 padding + dilation (kernel - 1) + output_padding + 1``, with the arguments named and
    ordered as in ``torch.nn.ConvTranspose2d``.

    Raises:
        UserError: If an argument is out of range, ``output_padding`` is not smaller than the stride or the dilation,
            or nothing would be left of the output.
    """
    return ConvolutionSetting(size, kernel, stride, padding, dilation, output_padding, True).output_size


def receptive_field(layers: Iterable[ConvolutionShape | tuple[int, ...]]) -> ReceptiveField:
    """Receptive field of the last layer of a stack of convolutions.

    Every layer widens the window by ``dilation (kernel - 1)`` of its input's jumps and multiplies the jump by its
    stride (Araujo, Norris and Sim, 2019).

    Args:
        layers: Kernel, stride, padding and, where it is not 1, dilation of each layer, from the image inwards.

    Raises:
        UserError: If a number is out of range.
    """
    size, jump, start = 1, 1, 0
    for layer in layers:
        kernel, stride, padding, dilation = ConvolutionShape(*layer)
        _check({"kernel": kernel, "stride": stride, "dilation": dilation}, {"padding": padding})
        start -= padding * jump
        size += (kernel_span(kernel, dilation) - 1) * jump
        jump *= stride
    return ReceptiveField(size, jump, start)


def count_weights(
    in_channels: int, out_channels: int, kernel: int, groups: int = 1, bias: bool = False, axes: int = 2
) -> int:
    """Number of parameters of a layer, transposed or not; it does not depend on the size of the maps.

    Args:
        in_channels: Channels of the input.
        out_channels: Channels of the output.
        kernel: Size of the kernel along each axis.
        groups: Groups of channels that do not see each other.
        bias: Whether each output channel has a bias.
        axes: 2 for images, 1 for sequences.

    Raises:
        UserError: If an argument is out of range, or ``groups`` does not divide the channels.
    """
    check_groups(in_channels, out_channels, groups)
    _check({"kernel": kernel, "axes": axes}, {})
    return in_channels * out_channels // groups * kernel**axes + (out_channels if bias else 0)


def count_multiplications(
    setting: ConvolutionSetting, in_channels: int, out_channels: int, groups: int = 1, axes: int = 2
) -> int:
    """Number of multiplications of a layer for one square image, as they are usually counted.

    A convolution multiplies by all of its weights at each output position, on the padding too; a transposed one at each
    input position, even where the padding cuts the result off.

    Args:
        setting: The layer along each axis.
        in_channels: Channels of the input.
        out_channels: Channels of the output.
        groups: Groups of channels that do not see each other.
        axes: 2 for images, 1 for sequences.

    Raises:
        UserError: If an argument is out of range, or ``groups`` does not divide the channels.
    """
    positions = (setting.size if setting.transposed else setting.output_size) ** axes
    return positions * count_weights(in_channels, out_channels, setting.kernel, groups, axes=axes)


def check_groups(in_channels: int, out_channels: int, groups: int) -> None:
    """Raise a ``UserError`` unless ``groups`` divides both numbers of channels."""
    _check({"groups": groups, "in_channels": in_channels, "out_channels": out_channels}, {})
    if in_channels % groups or out_channels % groups:
        rule = RULES["groups"]
        raise UserError(rule.format(groups=groups, in_channels=in_channels, out_channels=out_channels))


def _first_problem(positive: dict[str, Any], not_negative: dict[str, Any]) -> str | None:
    for rule, low, values in (("positive", 1, positive), ("not_negative", 0, not_negative)):
        for name, value in values.items():
            if not isinstance(value, Integral) or isinstance(value, bool):
                return RULES["whole"].format(name=name, value=repr(value))
            if value < low:
                return RULES[rule].format(name=name, value=value)
    return None


def _check(positive: dict[str, Any], not_negative: dict[str, Any]) -> None:
    problem = _first_problem(positive, not_negative)
    if problem is not None:
        raise UserError(problem)


def _check_index(name: str, value: int, count: int) -> None:
    _check({}, {name: value})
    if value >= count:
        raise UserError(RULES["between"].format(name=name, value=value, low=0, high=count - 1))
