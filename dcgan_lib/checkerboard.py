"""The checkerboard pattern of transposed convolutions: where it comes from, and how strong it is.

A transposed convolution of stride s treats the s * s phases of its output differently: for s = 2, the pixels in even
and in odd rows and columns are made by different weights (Odena, Dumoulin and Olah, 2016). What such a layer adds to an
image of its own accord therefore repeats every s pixels, and stands at multiples of 1/s in the Fourier spectrum.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from dcgan_lib.convolution import ConvolutionSetting
from dcgan_lib.errors import UserError

# A variance below this share of the mean square is rounding, in an image that is constant.
_ROUNDING = 1e-18


def overlap_map(
    size: int, kernel: int, stride: int, padding: int = 0, output_padding: int = 0, axes: int = 2
) -> Tensor:
    """Count how many stamps of a transposed convolution reach each output pixel.

    Args:
        size: Size of the input along each axis.
        kernel: Size of the kernel.
        stride: Step in the output from one stamp to the next.
        padding: Pixels cut from both ends of the output.
        output_padding: Pixels added at the far end of the output.
        axes: 2 for images, 1 for sequences.

    Returns:
        Counts, int64, (output size,) or (output size, output size).

    Raises:
        UserError: If the setting is impossible, or ``axes`` is neither 1 nor 2.
    """
    if axes not in (1, 2):
        raise UserError(f"axes={axes} must be 1 or 2")
    setting = ConvolutionSetting(size, kernel, stride, padding, 1, output_padding, transposed=True)
    line = torch.tensor([len(setting.touched_inputs(output)) for output in range(setting.output_size)])
    return line if axes == 1 else torch.outer(line, line)


def phase_sums(weight: Tensor, stride: int, padding: int = 0) -> Tensor:
    """What a transposed convolution makes of a constant input of ones, away from the borders.

    An output pixel meets only the weights of its own phase, every ``stride``-th one along each axis. If their sums
    differ, a constant comes out as a pattern of that period: a checkerboard.

    Args:
        weight: (in_channels, out_channels, height, width), as in ``torch.nn.ConvTranspose2d``.
        stride: The layer's stride.
        padding: The layer's padding.

    Returns:
        (in_channels, out_channels, stride, stride); the pixel in row i and column j gets the sum at
        ``[..., i % stride, j % stride]``.

    Raises:
        UserError: If the weight has not four axes, or a number is out of range.
    """
    if weight.ndim != 4:
        raise UserError(
            f"weight has shape {tuple(weight.shape)}; it must be (in_channels, out_channels, height, width)"
        )
    for extent in weight.shape[2:]:
        ConvolutionSetting(extent, extent, stride, padding)  # says so if a number is out of range
    sums = weight.new_zeros(*weight.shape[:2], stride, stride)
    for i in range(stride):
        for j in range(stride):
            # Output i meets the weights k with k = i + padding, up to a multiple of the stride.
            rows, columns = (i + padding) % stride, (j + padding) % stride
            sums[..., i, j] = weight[..., rows::stride, columns::stride].sum(dim=(2, 3))
    return sums


def power_spectrum(images: Tensor) -> Tensor:
    """Variance of each image and channel, frequency by frequency.

    Args:
        images: (N, C, H, W), in any unit.

    Returns:
        Squared magnitudes of the discrete Fourier transform, float64, (N, C, H, W), 0 at frequency (0, 0) and scaled so
        that they add up to the variance of the channel's pixels. Entry (u, v) has u / H periods a pixel downwards and
        v / W to the right.

    Raises:
        UserError: If the images have not four axes.
    """
    if images.ndim != 4:
        raise UserError(f"images have shape {tuple(images.shape)}; they must be (N, C, H, W)")
    images = images.double()
    centred = images - images.mean(dim=(2, 3), keepdim=True)
    return torch.fft.fft2(centred, norm="forward").abs().square()


def checkerboard_score(images: Tensor, period: int = 2) -> float:
    """Share of the images' variance in patterns that repeat every ``period`` pixels.

    It is the share of the power spectrum at the frequencies whose two coordinates are
    multiples of 1 / period, (0, 0) left out; the mean over images and channels.
    A checkerboard alone has 1; an image without such a pattern has 0, and so has a
    constant one; white noise has (period² - 1) / (H W - 1) on average.

    Args:
        images: (N, C, H, W), in any unit.
        period: 2 for the last doubling layer of a generator; 4 includes the one before.

    Raises:
        UserError: If the period does not divide height and width.
    """
    _check_period(images, period)
    power = power_spectrum(images)
    height, width = images.shape[2:]
    pattern = power[..., :: height // period, :: width // period].sum(dim=(2, 3))
    total = power.sum(dim=(2, 3))
    constant = total <= _ROUNDING * images.double().square().mean(dim=(2, 3))
    return torch.where(constant, 0.0, pattern / total).mean().item()


def average_tile(images: Tensor, period: int = 2) -> Tensor:
    """The pattern itself: the mean of all tiles of ``period`` by ``period`` pixels, less the mean of the image.

    Its mean square is the variance whose share :func:`checkerboard_score` gives, by Parseval's theorem.

    Args:
        images: (N, C, H, W), in any unit.
        period: Size of a tile.

    Returns:
        (N, C, period, period), float64, in the images' unit.

    Raises:
        UserError: If the period does not divide height and width.
    """
    _check_period(images, period)
    count, channels, height, width = images.shape
    tiles = images.double().reshape(count, channels, height // period, period, width // period, period)
    return tiles.mean(dim=(2, 4)) - images.double().mean(dim=(2, 3), keepdim=True)


def as_transposed_weight(weight: Tensor) -> Tensor:
    """Write "repeat every pixel 2x2, then convolve" as one transposed convolution.

    Its phase sums are all alike, whatever the weights are: each is the sum of the
    convolution's kernel. ``models.ResizeConv2d`` is the layer.

    Args:
        weight: The convolution's, (out_channels, in_channels, k, k) with odd k.

    Returns:
        (in_channels, out_channels, k + 1, k + 1), for stride 2 and padding k // 2.

    Raises:
        UserError: If the weight has not four axes, or its kernel is not square and odd.
    """
    height, width = weight.shape[2:] if weight.ndim == 4 else (0, 0)
    if height != width or height % 2 == 0:
        layout = "(out_channels, in_channels, k, k) with odd k"
        raise UserError(f"weight has shape {tuple(weight.shape)}; it must be {layout}")
    turned = weight.flip(2, 3).transpose(0, 1)
    twice = torch.ones(1, 1, 2, 2, dtype=weight.dtype, device=weight.device)
    spread = functional.conv2d(turned.reshape(-1, 1, height, width), twice, padding=1)
    return spread.reshape(*turned.shape[:2], height + 1, width + 1)


def _check_period(images: Tensor, period: int) -> None:
    if images.ndim != 4:
        raise UserError(f"images have shape {tuple(images.shape)}; they must be (N, C, H, W)")
    height, width = images.shape[2:]
    if period < 1 or height % period or width % period:
        raise UserError(f"period={period} must divide the images' height and width, {height}x{width}")
