"""The values of convolutions and transposed convolutions, each way of computing them in the code that shows it best.

These functions are for reading and for checking: they loop over pixels in Python; ``torch.nn.functional`` is fast.
They take one image or sequence, without a batch axis, of any floating-point type: x is (channels, length) or (channels,
height, width), and a kernel has as many axes of its own. Strides, paddings and dilations hold for both axes; sizes may
differ between them. Autograd passes through all of them.

A transposed convolution's weight has the layout of ``torch.nn.ConvTranspose2d``, (in_channels, out_channels / groups,
kernel sizes). It is the very tensor of the convolution that it transposes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from itertools import product

import torch
from torch import Tensor
from torch.nn import functional

from dcgan_lib.convolution import check_groups, conv_output_size, conv_transpose_output_size, kernel_span
from dcgan_lib.errors import UserError


def cross_correlate(
    x: Tensor,
    weight: Tensor,
    stride: int = 1,
    padding: int = 0,
    dilation: int = 1,
    groups: int = 1,
) -> Tensor:
    """The sliding window: at each place, the sum of products of kernel and input.

    Deep learning calls it a convolution.

    Args:
        x: Input, (in_channels, sizes).
        weight: Kernel, (out_channels, in_channels / groups, kernel sizes).
        stride: Step from one window to the next.
        padding: Zeros around the input.
        dilation: Distance between neighbouring weights of the kernel.
        groups: Groups of channels that do not see each other.

    Returns:
        Output, (out_channels, output sizes).

    Raises:
        UserError: If the shapes do not fit each other, or the setting is impossible.
    """
    weight = _checked(x, weight, groups, transposed=False)
    inputs, kernel = x.shape[1:], weight.shape[2:]
    outputs = _shrunk(inputs, kernel, stride, padding, dilation)
    y = x.new_zeros(len(weight), *outputs)
    for output in cells(outputs):
        for place in cells(kernel):
            cell = [
                o * stride - padding + j * dilation  # on each axis
                for o, j in zip(output, place, strict=True)
            ]
            if _inside(cell, inputs):  # elsewhere the padding is 0
                y[:, *output] += weight[:, :, *place] @ x[:, *cell]
    return y


def convolve(
    x: Tensor, weight: Tensor, stride: int = 1, padding: int = 0, dilation: int = 1, groups: int = 1
) -> Tensor:
    """Convolution as in mathematics: the sliding window with the kernel turned round along each of its axes.

    Args and errors are those of :func:`cross_correlate`.
    """
    return cross_correlate(x, _turned(weight), stride, padding, dilation, groups)


def convolution_matrix(
    size: Sequence[int],
    weight: Tensor,
    stride: int = 1,
    padding: int = 0,
    dilation: int = 1,
    groups: int = 1,
    outputs: Sequence[int] | None = None,
) -> Tensor:
    """The matrix C of a convolution: ``cross_correlate(x, weight, ...).flatten() == C @ x.flatten()``.

    Args:
        size: Size of the input along each axis.
        weight: Kernel, (out_channels, in_channels / groups, kernel sizes).
        stride: As in :func:`cross_correlate`, like the arguments up to ``groups``.
        padding: See there.
        dilation: See there.
        groups: See there.
        outputs: Size of the output, if it is not to be all that fits.

    Returns:
        (out_channels * outputs, in_channels * inputs): a row for each output, a column for each input, in the order in
        which ``flatten`` puts them, channels first.

    Raises:
        UserError: If the shapes do not fit each other, or the setting is impossible.
    """
    weight = ungrouped(weight, groups)
    kernel = weight.shape[2:]
    if len(size) != len(kernel):
        raise UserError(f"size={tuple(size)} must have as many axes as the kernel, {tuple(kernel)}")
    fitting = _shrunk(size, kernel, stride, padding, dilation)
    outputs = fitting if outputs is None else outputs
    if len(outputs) != len(fitting) or not all(1 <= m <= most for m, most in zip(outputs, fitting, strict=True)):
        raise UserError(f"outputs={tuple(outputs)} must be at least 1 and at most {tuple(fitting)}, which fits")
    matrix = weight.new_zeros(weight.shape[0], *outputs, weight.shape[1], *size)
    for output in cells(outputs):
        for place in cells(kernel):
            cell = [o * stride - padding + j * dilation for o, j in zip(output, place, strict=True)]
            if _inside(cell, size):
                matrix[:, *output, :, *cell] = weight[:, :, *place]
    return matrix.flatten(1 + len(size)).flatten(0, len(size))


def transpose_by_formula(
    x: Tensor,
    weight: Tensor,
    stride: int = 1,
    padding: int = 0,
    output_padding: int = 0,
    dilation: int = 1,
    groups: int = 1,
) -> Tensor:
    """Transposed convolution, each output by itself: it looks up which inputs reach it.

    Args:
        x: Input, (in_channels, sizes).
        weight: Kernel, (in_channels, out_channels / groups, kernel sizes).
        stride: Step in the output from one input's stamp to the next.
        padding: Pixels cut from both ends of the output.
        output_padding: Pixels added at the far end of the output.
        dilation: Distance between neighbouring weights of the kernel.
        groups: Groups of channels that do not see each other.

    Returns:
        Output, (out_channels, output sizes).

    Raises:
        UserError: If the shapes do not fit each other, or the setting is impossible.
    """
    weight = _checked(x, weight, groups, transposed=True)
    inputs, kernel = x.shape[1:], weight.shape[2:]
    y = x.new_zeros(weight.shape[1], *_grown(inputs, kernel, stride, padding, output_padding, dilation))
    for output in cells(y.shape[1:]):
        for place in cells(kernel):
            steps = [q + padding - j * dilation for q, j in zip(output, place, strict=True)]
            cell = [step // stride for step in steps]
            if all(step % stride == 0 for step in steps) and _inside(cell, inputs):
                y[:, *output] += x[:, *cell] @ weight[:, :, *place]
    return y


def transpose_by_stamps(
    x: Tensor,
    weight: Tensor,
    stride: int = 1,
    padding: int = 0,
    output_padding: int = 0,
    dilation: int = 1,
    groups: int = 1,
) -> Tensor:
    """Transposed convolution, each input by itself: it stamps the kernel on a canvas.

    The stamp is scaled by the input's value.
    Arguments, result and errors are those of :func:`transpose_by_formula`.
    """
    weight = _checked(x, weight, groups, transposed=True)
    inputs, kernel = x.shape[1:], weight.shape[2:]
    outputs = _grown(inputs, kernel, stride, padding, output_padding, dilation)
    canvas = x.new_zeros(weight.shape[1], *(n + 2 * padding for n in outputs))
    for cell in cells(inputs):
        window = [
            slice(i * stride, i * stride + kernel_span(k, dilation), dilation)
            for i, k in zip(cell, kernel, strict=True)  # on each axis
        ]
        canvas[:, *window] += torch.tensordot(x[:, *cell], weight, dims=1)
    return canvas[:, *(slice(padding, padding + n) for n in outputs)]


def transpose_by_zeros(
    x: Tensor,
    weight: Tensor,
    stride: int = 1,
    padding: int = 0,
    output_padding: int = 0,
    dilation: int = 1,
    groups: int = 1,
) -> Tensor:
    """Transposed convolution as an ordinary one with stride 1: zeros between the inputs.

    The kernel is turned round.
    Arguments, result and errors are those of :func:`transpose_by_formula`.
    """
    weight = _checked(x, weight, groups, transposed=True)
    inputs, kernel = x.shape[1:], weight.shape[2:]
    # Says so if nothing would be left.
    _grown(inputs, kernel, stride, padding, output_padding, dilation)
    stuffed = x.new_zeros(len(x), *((n - 1) * stride + 1 for n in inputs))
    stuffed[:, *(slice(None, None, stride) for _ in inputs)] = x
    for axis, k in enumerate(kernel, start=1):
        rim = kernel_span(k, dilation) - 1 - padding  # below 0, it cuts
        stuffed = _pad(stuffed, axis, rim, rim + output_padding)
    return cross_correlate(stuffed, _turned(weight).transpose(0, 1), dilation=dilation)


def transpose_by_matrix(
    x: Tensor,
    weight: Tensor,
    stride: int = 1,
    padding: int = 0,
    output_padding: int = 0,
    dilation: int = 1,
    groups: int = 1,
) -> Tensor:
    """Transposed convolution as its name says: the transpose of a convolution's matrix, times the input.

    Arguments, result and errors are those of :func:`transpose_by_formula`.
    """
    weight = _checked(x, weight, groups, transposed=True)
    size = _grown(x.shape[1:], weight.shape[2:], stride, padding, output_padding, dilation)
    # The convolution that leads from the output's size back to the input's.
    matrix = convolution_matrix(size, weight, stride, padding, dilation, outputs=x.shape[1:])
    return (matrix.T @ x.flatten()).reshape(weight.shape[1], *size)


TRANSPOSED_VIEWS: dict[str, Callable[..., Tensor]] = {
    "formula": transpose_by_formula,
    "stamps": transpose_by_stamps,
    "zeros": transpose_by_zeros,
    "matrix": transpose_by_matrix,
}
"""The four views of one operation, by name."""


def ungrouped(weight: Tensor, groups: int, transposed: bool = False) -> Tensor:
    """Write a grouped layer's weight as that of an ordinary layer, with zeros between channels of different groups.

    Args:
        weight: (channels, others / groups, kernel sizes).
        groups: Number of groups.
        transposed: Whether ``channels`` are those of the input, and not those of the output.

    Returns:
        (channels, others, kernel sizes).

    Raises:
        UserError: If ``groups`` does not divide the channels.
    """
    channels, others = weight.shape[:2]
    both = (channels, others * groups) if transposed else (others * groups, channels)
    check_groups(*both, groups)
    rows = channels // groups
    whole = weight.new_zeros(channels, others * groups, *weight.shape[2:])
    for group in range(groups):
        row, column = group * rows, group * others
        whole[row : row + rows, column : column + others] = weight[row : row + rows]
    return whole


def cells(sizes: Sequence[int]) -> Iterator[tuple[int, ...]]:
    """All positions in a grid of these sizes, the last axis fastest: (0, 0), (0, 1), ..."""
    return product(*map(range, sizes))


def _inside(cell: Sequence[int], sizes: Sequence[int]) -> bool:
    return all(0 <= i < n for i, n in zip(cell, sizes, strict=True))


def _turned(weight: Tensor) -> Tensor:
    return weight.flip(tuple(range(2, weight.ndim)))


def _pad(x: Tensor, axis: int, before: int, after: int) -> Tensor:
    """Add zeros at both ends of an axis, or cut where a number is negative."""
    x = functional.pad(x.movedim(axis, -1), (max(before, 0), max(after, 0)))
    return x[..., max(-before, 0) : x.shape[-1] - max(-after, 0)].movedim(-1, axis)


def _shrunk(inputs: Sequence[int], kernel: Sequence[int], stride: int, padding: int, dilation: int) -> list[int]:
    """Output size of a convolution along each axis."""
    return [conv_output_size(n, k, stride, padding, dilation) for n, k in zip(inputs, kernel, strict=True)]


def _grown(
    inputs: Sequence[int], kernel: Sequence[int], stride: int, padding: int, output_padding: int, dilation: int
) -> list[int]:
    """Output size of a transposed convolution along each axis."""
    others = (stride, padding, output_padding, dilation)
    return [conv_transpose_output_size(n, k, *others) for n, k in zip(inputs, kernel, strict=True)]


def _checked(x: Tensor, weight: Tensor, groups: int, transposed: bool) -> Tensor:
    """The weight without groups, after a look at whether it belongs to the input."""
    if x.ndim not in (2, 3):
        raise UserError(f"x has shape {tuple(x.shape)}; it must be (channels, length) or (channels, height, width)")
    names = ("in_channels", "out_channels") if transposed else ("out_channels", "in_channels")
    layout = "({}, {} / groups, *kernel)".format(*names)
    if weight.ndim != x.ndim + 1:
        raise UserError(f"weight has shape {tuple(weight.shape)}; for x of shape {tuple(x.shape)} it must be {layout}")
    whole = ungrouped(weight, groups, transposed)
    if whole.shape[0 if transposed else 1] != len(x):
        shape, channels = tuple(weight.shape), f"in_channels={len(x)} and groups={groups}"
        raise UserError(f"weight has shape {shape}; with {channels} it must be {layout}")
    if x.dtype != weight.dtype:
        raise UserError(f"x is {x.dtype} and weight is {weight.dtype}; they must be of one type")
    return whole
