"""The convolutions of a DCGAN for training on a CPU in bfloat16: the same numbers, by the fastest of equivalent forms.

PyTorch leaves a CPU's convolutions to oneDNN, which comes close to the processor's matrix rate in the large layers and
stays far below it in three places. For each of them the chapters on convolutions know another form of the same
operation that is fast there:

- growing to an image of 3 channels: a convolution to the 12 channels of 2x2 blocks of pixels, with kernel 2 and
  stride 1, and the blocks laid out afterwards (the sub-pixel form; Shi et al. 2016);
- the gradient of the weights next to the 4x4 maps, a sum over few positions: one matrix product with the patches of
  the larger map;
- between 1x1 and 4x4: a dense layer.

``benchmarks/throughput.py`` measures what they gain together.
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


def shrink(large: Tensor, weight: Tensor) -> Tensor:
    """A convolution with kernel 4, stride 2 and padding 1; oneDNN's own form is the fastest everywhere.

    Args:
        large: (N, C, 2 H, 2 W).
        weight: (K, C, 4, 4).

    Returns:
        (N, K, H, W).
    """
    return F.conv2d(large, weight, None, STRIDE, PADDING)


def grow(small: Tensor, weight: Tensor) -> Tensor:
    """The transposed convolution that belongs to :func:`shrink`, and its gradient with respect to the larger map.

    Args:
        small: (N, K, H, W).
        weight: (K, C, 4, 4).

    Returns:
        (N, C, 2 H, 2 W).
    """
    if weight.shape[1] > FEW_CHANNELS:
        return F.conv_transpose2d(small, weight, None, STRIDE, PADDING)
    blocks = F.conv_transpose2d(small, F.pixel_unshuffle(weight, STRIDE))  # (N, 4 C, H + 1, W + 1)
    padded = F.pixel_shuffle(blocks, STRIDE)
    image = padded[:, :, PADDING:-PADDING, PADDING:-PADDING]
    return image.contiguous(memory_format=torch.channels_last)


def correlate(large: Tensor, small: Tensor) -> Tensor:
    """The gradient of :func:`shrink` and :func:`grow` with respect to the weights.

    Each pixel of the small map times its patch of the large one.

    Args:
        large: (N, C, 2 H, 2 W).
        small: (N, K, H, W).

    Returns:
        The sum over images and positions, (K, C, 4, 4).
    """
    shape = (small.shape[1], large.shape[1], KERNEL, KERNEL)
    if small.shape[-1] > INNERMOST:
        return torch.nn.grad.conv2d_weight(large, shape, small, STRIDE, PADDING)
    rows = F.pad(large, [PADDING] * 4).permute(0, 2, 3, 1)  # (N, 2 H + 2, 2 W + 2, C): one block in memory
    patches = rows.unfold(1, KERNEL, STRIDE).unfold(2, KERNEL, STRIDE).permute(0, 1, 2, 4, 5, 3)
    pixels = small.permute(0, 2, 3, 1).reshape(-1, small.shape[1])
    sums = pixels.t() @ patches.reshape(len(pixels), -1)  # (K, 4 * 4 * C)
    return sums.unflatten(1, (KERNEL, KERNEL, large.shape[1])).permute(0, 3, 1, 2)


def strided(x: Tensor, weight: Tensor, bias: Tensor | None, transposed: bool) -> Tensor:
    """:func:`shrink`, or :func:`grow` where ``transposed``, with the fastest gradients.

    Args:
        x: (N, C, 2 H, 2 W), or (N, K, H, W) where ``transposed``.
        weight: (K, C, 4, 4).
        bias: One number for each channel of the result, or None.
        transposed: Whether the map grows.
    """
    return _Strided.apply(x, weight, bias, transposed)


class _Strided(torch.autograd.Function):
    """Its backward pass uses operations that can be differentiated again, as the R1 penalty needs it."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None, transposed: bool) -> Tensor:
        ctx.save_for_backward(x, weight)
        ctx.transposed = transposed
        result = grow(x, weight) if transposed else shrink(x, weight)
        return result if bias is None else result + bias[:, None, None]

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        x, weight = ctx.saved_tensors
        for_x = for_weight = for_bias = None
        if ctx.needs_input_grad[0]:  # the gradient of one convolution is the other one with the same weights
            for_x = shrink(gradient, weight) if ctx.transposed else grow(gradient, weight)
        if ctx.needs_input_grad[1]:
            for_weight = correlate(gradient, x) if ctx.transposed else correlate(x, gradient)
        if ctx.needs_input_grad[2]:
            for_bias = gradient.sum((0, 2, 3))
        return for_x, for_weight, for_bias, None


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


Form = Callable[[Tensor, Tensor, Tensor | None, bool], Tensor]


def _form(layer: nn.Module) -> Form | None:
    """The form of a layer; None where it is left as it is."""
    if type(layer) not in (nn.Conv2d, nn.ConvTranspose2d) or layer.kernel_size != (KERNEL, KERNEL):
        return None
    forms = {((STRIDE, STRIDE), (PADDING, PADDING)): strided, ((1, 1), (0, 0)): dense}
    return forms.get((layer.stride, layer.padding))


def _forward(layer: nn.Conv2d | nn.ConvTranspose2d, form: Form, x: Tensor) -> Tensor:
    transposed = isinstance(layer, nn.ConvTranspose2d)
    bfloat16 = torch.is_autocast_enabled("cpu") and torch.get_autocast_dtype("cpu") == torch.bfloat16
    if not (bfloat16 and torch.is_grad_enabled()) or (form is strided and not _gains(layer, x, transposed)):
        return type(layer).forward(layer, x)
    bias = layer.bias if layer.bias is None else layer.bias.to(torch.bfloat16)
    return form(x.to(torch.bfloat16), layer.weight.to(torch.bfloat16), bias, transposed)


def _gains(layer: nn.Conv2d | nn.ConvTranspose2d, x: Tensor, transposed: bool) -> bool:
    """Whether one of the three operations of a layer has a faster form than its own."""
    near_image = layer.weight.shape[1] <= FEW_CHANNELS and (transposed or x.requires_grad)
    innermost = x.shape[-1] <= (INNERMOST if transposed else 2 * INNERMOST)
    return near_image or (innermost and layer.weight.requires_grad)
