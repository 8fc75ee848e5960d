"""The convolutions of a DCGAN for training on a CPU in bfloat16: the same numbers, by the fastest of equivalent forms.

PyTorch leaves a CPU's convolutions to oneDNN, which comes close to the processor's matrix rate in the large layers and
stays far below it in three places. For each of them :mod:`dcgan_lib.convolution_views` knows another form of the same
operation that is fast there:

- next to the image, where a map has 3 channels: its pixels in blocks of 2x2 become 12 channels of a map of half the
  size, and kernel 4 with stride 2 becomes kernel 2 with stride 1 (the sub-pixel form; Shi et al. 2016);
- next to the 4x4 maps, where the gradient of the weights sums over few positions: it is one matrix product with the
  patches of the larger map;
- between 1x1 and 4x4: a dense layer.

``benchmarks/throughput.py`` measures what each of them gains.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from dcgan_lib.models import INNERMOST, KERNEL, PADDING, STRIDE

FEW_CHANNELS = 4
"""Maps with at most this many channels are taken for images."""


@contextmanager
def fast_convolutions(*networks: nn.Module) -> Iterator[None]:
    """Within, the networks' convolutions compute in their fastest form wherever gradients are recorded in bfloat16.

    Everywhere else (when sampling, in float32, after the block) they are the ordinary layers.

    Args:
        networks: Generators and discriminators, on the CPU.
    """
    layers = [layer for network in networks for layer in network.modules() if _form(layer)]
    for layer in layers:
        layer.forward = partial(_forward, layer, _form(layer))
    try:
        yield
    finally:
        for layer in layers:
            del layer.forward  # what the class defines shows again


def dense(x: Tensor, weight: Tensor, bias: Tensor | None, transposed: bool) -> Tensor:
    """A convolution between 1x1 and kernel-sized maps as a matrix product.

    Args:
        x: (N, in, K, K), or (N, in, 1, 1) where ``transposed``.
        weight: (out, in, K, K), or (in, out, K, K) where ``transposed``.
        bias: (out,) or None.
        transposed: Whether the map grows from 1x1 to KxK.

    Returns:
        (N, out, 1, 1), or (N, out, K, K) where ``transposed``.
    """
    matrix = weight.permute(0, 2, 3, 1).reshape(len(weight), -1)  # the order of a channels-last map: no copy
    columns = x.permute(0, 2, 3, 1).reshape(len(x), -1)
    if not transposed:
        return F.linear(columns, matrix, bias)[:, :, None, None]
    grown = (columns @ matrix).unflatten(1, (*weight.shape[2:], weight.shape[1])).permute(0, 3, 1, 2)
    return grown if bias is None else grown + bias[:, None, None]


def sub_pixel(x: Tensor, weight: Tensor, bias: Tensor | None, transposed: bool) -> Tensor:
    """A convolution with kernel 4, stride 2 and padding 1 as one with kernel 2 and stride 1 over blocks of 2x2 pixels.

    Args:
        x: (N, in, 2 H, 2 W), or (N, in, H, W) where ``transposed``.
        weight: (out, in, 4, 4), or (in, out, 4, 4) where ``transposed``.
        bias: (out,) or None.
        transposed: Whether the map grows.

    Returns:
        (N, out, H, W), or (N, out, 2 H, 2 W) where ``transposed``.
    """
    small_kernel = _channels_last(F.pixel_unshuffle(weight, STRIDE))
    if not transposed:
        blocks = _channels_last(F.pixel_unshuffle(F.pad(x, [PADDING] * 4), STRIDE))
        return F.conv2d(blocks, small_kernel, bias)
    padded = F.pixel_shuffle(F.conv_transpose2d(x, small_kernel), STRIDE)
    image = _channels_last(padded[:, :, PADDING:-PADDING, PADDING:-PADDING])
    return image if bias is None else image + bias[:, None, None]


def matrix_gradient(x: Tensor, weight: Tensor, bias: Tensor | None, transposed: bool) -> Tensor:
    """A convolution with kernel 4, stride 2 and padding 1 whose weights get their gradient by one matrix product.

    Arguments and result are those of :func:`sub_pixel`.
    """
    return _MatrixGradient.apply(x, weight, bias, transposed)


class _MatrixGradient(torch.autograd.Function):
    """The value and the gradient of the input are PyTorch's; every step of ``backward`` can be differentiated again."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None, transposed: bool) -> Tensor:
        ctx.save_for_backward(x, weight)
        ctx.transposed = transposed
        return _CONVOLUTIONS[transposed](x, weight, bias, STRIDE, PADDING)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        x, weight = ctx.saved_tensors
        for_x = for_weight = for_bias = None
        if ctx.needs_input_grad[0]:  # the gradient of one convolution is the other one with the same weights
            for_x = _CONVOLUTIONS[not ctx.transposed](gradient, weight, None, STRIDE, PADDING)
        if ctx.needs_input_grad[1]:
            large, small = (gradient, x) if ctx.transposed else (x, gradient)
            for_weight = _correlation(large, small)
        if ctx.needs_input_grad[2]:
            for_bias = gradient.sum((0, 2, 3))
        return for_x, for_weight, for_bias, None


_CONVOLUTIONS = {False: F.conv2d, True: F.conv_transpose2d}


def _correlation(large: Tensor, small: Tensor) -> Tensor:
    """Sum over images and positions of each pixel of the small map times its 4x4 patch of the large one.

    Args:
        large: (N, in, 2 H, 2 W).
        small: (N, out, H, W).

    Returns:
        (out, in, 4, 4).
    """
    channels = large.shape[1]
    rows = F.pad(large, [PADDING] * 4).permute(0, 2, 3, 1)  # (N, 2 H + 2, 2 W + 2, in): one block in memory
    patches = rows.unfold(1, KERNEL, STRIDE).unfold(2, KERNEL, STRIDE).permute(0, 1, 2, 4, 5, 3)
    pixels = small.permute(0, 2, 3, 1).reshape(-1, small.shape[1])
    sums = pixels.t() @ patches.reshape(len(pixels), -1)
    return sums.unflatten(1, (KERNEL, KERNEL, channels)).permute(0, 3, 1, 2)


Form = Callable[[Tensor, Tensor, Tensor | None, bool], Tensor]


def _form(layer: nn.Module) -> Form | None:
    """The fastest form of a layer; None where it is the ordinary one."""
    if type(layer) not in (nn.Conv2d, nn.ConvTranspose2d) or layer.kernel_size != (KERNEL, KERNEL):
        return None
    if (layer.stride, layer.padding) == ((1, 1), (0, 0)):
        return dense
    if (layer.stride, layer.padding) != ((STRIDE, STRIDE), (PADDING, PADDING)):
        return None
    return sub_pixel if min(layer.in_channels, layer.out_channels) <= FEW_CHANNELS else matrix_gradient


def _forward(layer: nn.Conv2d | nn.ConvTranspose2d, form: Form, x: Tensor) -> Tensor:
    transposed = isinstance(layer, nn.ConvTranspose2d)
    bfloat16 = torch.is_autocast_enabled("cpu") and torch.get_autocast_dtype("cpu") == torch.bfloat16
    small = x.shape[-1] <= (INNERMOST if transposed else 2 * INNERMOST)
    if not (bfloat16 and torch.is_grad_enabled()) or (form is matrix_gradient and not small):
        return type(layer).forward(layer, x)
    bias = layer.bias if layer.bias is None else layer.bias.to(torch.bfloat16)
    return form(x.to(torch.bfloat16), layer.weight.to(torch.bfloat16), bias, transposed)


def _channels_last(x: Tensor) -> Tensor:
    return x.contiguous(memory_format=torch.channels_last)
