"""Convolution arithmetic: output sizes and receptive fields of strided and transposed convolutions.

The formulas are those of Dumoulin and Visin, *A guide to convolution arithmetic for deep learning* (2016), written
for one spatial axis; for square images both axes are alike.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from dcgan_lib.errors import UserError


class ConvolutionShape(NamedTuple):
    """Kernel size, stride and padding of one convolution layer along one axis, in pixels."""

    kernel: int
    stride: int = 1
    padding: int = 0


class ReceptiveField(NamedTuple):
    """What one output position of a stack of convolutions sees of the input, in input pixels.

    Attributes:
        size: Width of the window of input pixels that can change the output.
        jump: Distance between the windows of two neighbouring outputs.
        start: Index of the first pixel in output 0's window; negative when the window begins in the padding.
    """

    size: int
    jump: int
    start: int


def conv_output_size(size: int, kernel: int, stride: int = 1, padding: int = 0, dilation: int = 1) -> int:
    """Output size of a convolution, ``floor((size + 2 padding - dilation (kernel - 1) - 1) / stride) + 1``.

    Raises:
        UserError: If an argument is out of range, or the dilated kernel is larger than the padded input.
    """
    _check(size=size, kernel=kernel, stride=stride, dilation=dilation)
    _check_not_negative(padding=padding)
    span = dilation * (kernel - 1) + 1
    if span > size + 2 * padding:
        raise UserError(f"kernel={kernel} spans {span} pixels, more than the padded input's {size + 2 * padding}")
    return (size + 2 * padding - span) // stride + 1


def conv_transpose_output_size(
    size: int, kernel: int, stride: int = 1, padding: int = 0, output_padding: int = 0, dilation: int = 1
) -> int:
    """Output size of a transposed convolution.

    It is ``(size - 1) stride - 2 padding + dilation (kernel - 1) + output_padding + 1``, with the arguments named as
    in ``torch.nn.ConvTranspose2d``.

    Raises:
        UserError: If an argument is out of range, ``output_padding`` is not smaller than the stride or the dilation,
            or nothing would be left of the output.
    """
    _check(size=size, kernel=kernel, stride=stride, dilation=dilation)
    _check_not_negative(padding=padding, output_padding=output_padding)
    if output_padding >= max(stride, dilation):
        raise UserError(f"output_padding={output_padding} must be smaller than stride={stride} or dilation={dilation}")
    result = (size - 1) * stride - 2 * padding + dilation * (kernel - 1) + output_padding + 1
    if result < 1:
        raise UserError(f"padding={padding} leaves an output of {result} pixels; it must be at least 1")
    return result


def receptive_field(layers: Iterable[ConvolutionShape | tuple[int, int, int]]) -> ReceptiveField:
    """Receptive field of the last layer of a stack of convolutions.

    Every layer widens the window by ``(kernel - 1)`` of its input's jumps and multiplies the jump by its stride.

    Args:
        layers: Kernel, stride and padding of each layer, from the image inwards.
    """
    size, jump, start = 1, 1, 0
    for layer in layers:
        kernel, stride, padding = layer
        _check(kernel=kernel, stride=stride)
        _check_not_negative(padding=padding)
        start -= padding * jump
        size += (kernel - 1) * jump
        jump *= stride
    return ReceptiveField(size, jump, start)


def _check(**values: int) -> None:
    for name, value in values.items():
        if value < 1:
            raise UserError(f"{name}={value} must be at least 1")


def _check_not_negative(**values: int) -> None:
    for name, value in values.items():
        if value < 0:
            raise UserError(f"{name}={value} must not be negative")
