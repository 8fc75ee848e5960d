"""A trained generator as one small JSON document, which a page of the book runs in its reader's browser.

What a browser needs is less than a checkpoint. Batch norm in evaluation mode is a multiplication and an addition for
each channel, so it is folded into the transposed convolution before it. Doubling pixels and then convolving with
kernel 3 is the same as one transposed convolution with kernel 4, so every way to double a map becomes one. And the
weights are whole numbers times a step of their output channel.

How fine the steps are is found by measurement: as coarse as they may be for the images to stay within
``MEAN_ERROR`` and ``WORST_ERROR`` of PyTorch's. The 8 bits that are usual do not do for every network: where a small
change of z turns one part of a picture into another, so does a small change of the weights. For one that is to be
released, :func:`round_weights` makes them do: what PyTorch and a page run is then the same network.

The document is a header of texts and whole numbers, a CRC-32, and ``numbers``: base64 of a zlib stream of, for every
layer, steps (float32), biases (float32), the upper 8 bits of each weight, and the lower ones packed without gaps; then
the directions (int16, 32767 for 1) and what a reader finds in samples (uint8). ``book/explorers/latent-file.js`` reads
the same bytes.
"""

from __future__ import annotations

import base64
import json
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from dcgan_lib import latent
from dcgan_lib.errors import UserError
from dcgan_lib.models import Generator, ResizeConv2d

FORMAT = "dcgan_lib generator"
VERSION = 1
MEAN_ERROR, WORST_ERROR = 1.0, 6.0
"""What 8 bits are allowed, in grey levels of 255: on average over all pixels, and at the worst of them."""
COARSEST, FINEST = 8, 16
"""Bits of a weight."""

_TRIALS, _TRIAL_SEED = 256, 2**32  # latent vectors with which precision is chosen; no test uses this seed
_MARGIN = 0.5  # the worst of other vectors may be worse than the worst of these
_UNIT = 32767  # what stands for 1 in a direction
_MOST_NUMBERS = 2**28  # bytes; a generator for 128 pixels of width 128 has a quarter of that
# The 3x3 kernel that meets pixels repeated 2x2, as the 4x4 kernel of a transposed convolution: which of its rows
# each row of the larger one sums.
_FROM_RESIZE = torch.tensor([[0, 0, 1], [0, 1, 1], [1, 1, 0], [1, 0, 0]], dtype=torch.float64)


@dataclass(frozen=True)
class Layer:
    """One transposed convolution, batch norm included.

    Attributes:
        weight: (in, out, K, K) float64.
        bias: (out,) float64.
        stride: 1 for the layer at z, 2 for the others.
        padding: Rows and columns cut off at the top and left of what the kernels stamp.
        size: Height and width of its output.
    """

    weight: Tensor
    bias: Tensor
    stride: int
    padding: int
    size: int


@dataclass(frozen=True)
class Direction:
    """A direction of latent space, and what is known of it.

    Attributes:
        vector: (latent_dim,) of length 1.
        factor: The factor whose value it brings; empty for a principal direction.
        value: That value.
        before: Per cent of samples read as having it.
        after: Per cent of samples read as having it once they have been moved by 3.
    """

    vector: Tensor
    factor: str = ""
    value: str = ""
    before: int = 0
    after: int = 0


@dataclass(frozen=True)
class Description:
    """What is known of a generator's latent space.

    Attributes:
        directions: Named ones, then principal ones.
        factors: Factor -> names of its values; empty without a reader.
        labels: (N, F) uint8: the values that the reader finds in the first N samples of seed 0.
    """

    directions: tuple[Direction, ...] = ()
    factors: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    labels: Tensor = field(default_factory=lambda: torch.zeros(0, 0, dtype=torch.uint8))


class PageGenerator(nn.Module):
    """What a page computes, in PyTorch; made by :func:`unpack`.

    Attributes:
        layers: The transposed convolutions, ReLU after each and Tanh after the last.
        image_size: Height and width of the images.
        channels: 1 or 3.
        latent_dim: Length of the latent vectors.
        name: The name it was exported with.
        dataset: The data set it was trained on.
        description: What is known of its latent space.
    """

    def __init__(self, layers: Sequence[Layer], name: str, dataset: str, description: Description) -> None:
        super().__init__()
        self.layers = tuple(layers)
        self.latent_dim, self.channels = layers[0].weight.shape[0], layers[-1].weight.shape[1]
        self.image_size = layers[-1].size
        self.name, self.dataset, self.description = name, dataset, description

    def forward(self, z: Tensor) -> Tensor:
        """Generate images (N, C, S, S) in [-1, 1] from z (N, latent_dim), float32 or float64."""
        x = z[:, :, None, None]
        for layer in self.layers:
            x = functional.relu(_transposed(layer, x)) if layer is not self.layers[-1] else _transposed(layer, x)
        return torch.tanh(x)


def fold(generator: Generator) -> list[Layer]:
    """Write a generator in evaluation mode as transposed convolutions alone.

    Args:
        generator: Any of :func:`dcgan_lib.models.build_generator`; it is left as it was.

    Returns:
        The layers from z to the image, whose weights are exact to float64.

    Raises:
        UserError: If a weight is not finite.
    """
    layers, size = [], 1
    for block in generator.layers:
        convolution, size = block[0], 4 * size if not layers else 2 * size
        weight = convolution.weight.detach().cpu().double()
        if isinstance(convolution, ResizeConv2d):
            weight = torch.einsum("ka,oiab,lb->iokl", _FROM_RESIZE, weight, _FROM_RESIZE)
        bias = torch.zeros(weight.shape[1], dtype=torch.float64)
        if isinstance(block[1], nn.BatchNorm2d):
            mean, variance, gain, offset = (
                part.detach().cpu().double()
                for part in (block[1].running_mean, block[1].running_var, block[1].weight, block[1].bias)
            )
            scale = gain / torch.sqrt(variance + block[1].eps)
            weight, bias = weight * scale[:, None, None], offset - mean * scale
        if not (torch.isfinite(weight).all() and torch.isfinite(bias).all()):
            raise UserError("the generator's weights contain NaN or infinity; its training has diverged")
        stride = 2 if layers else 1
        padding = (weight.shape[-1] - 1) // 2 if layers else 0
        layers.append(Layer(weight, bias, stride, padding, size))
    return layers


def pack(
    generator: Generator,
    name: str = "",
    dataset: str = "",
    description: Description | None = None,
    bits: int | None = None,
) -> dict[str, Any]:
    """Make the document that a page loads.

    Args:
        generator: The network; what is exported is its evaluation mode.
        name: What to call it.
        dataset: The data set it was trained on.
        description: What is known of its latent space; see :func:`dcgan_lib.page_description.describe`.
        bits: Bits of a weight, 8 to 16. None: as few as keep to ``MEAN_ERROR`` and ``WORST_ERROR``. With 16, pictures
            of the released weights are within 1 grey level of PyTorch's; with 16-bit floats they are further off.

    Returns:
        Texts, whole numbers, lists and dictionaries of them, ready for JSON.

    Raises:
        UserError: If ``bits`` is out of range or a weight is not finite.
    """
    if bits is not None:
        _check_bits(bits)
    layers, description = fold(generator), description or Description()
    packed = [_quantised(layer, bits) for layer in layers] if bits else _within_the_bar(generator, layers)
    payload = b"".join(part.encoded() for part in packed)
    for direction in description.directions:
        payload += np.rint(_UNIT * direction.vector.numpy().astype(np.float64)).astype(np.int16).tobytes()
    header = {
        "format": FORMAT,
        "version": VERSION,
        "name": name,
        "dataset": dataset,
        "layers": [part.header() for part in packed],
        "directions": [[found.factor, found.value, found.before, found.after] for found in description.directions],
        "factors": [[factor, list(values)] for factor, values in description.factors.items()],
        "samples": len(description.labels),
    }
    payload += description.labels.numpy().tobytes()
    numbers = base64.b64encode(zlib.compress(payload, 9)).decode("ascii")
    return header | {"crc32": _checksum(header, payload), "numbers": numbers}


def unpack(document: Any) -> PageGenerator:
    """Read a document of :func:`pack`, believing none of it before its checksum.

    Raises:
        UserError: If it is not such a document, of another version, damaged, or does not fit together.
    """
    if not isinstance(document, dict) or document.get("format") != FORMAT:
        raise UserError("this is no generator for a page; dcgan export --run RUN --output NAME.json writes one")
    if document.get("version") != VERSION:
        raise UserError(
            f"this generator has version {document.get('version')} of the format, and {VERSION} is read here; "
            "export it again"
        )
    header = {key: value for key, value in document.items() if key not in ("crc32", "numbers")}
    try:
        payload = _inflated(document["numbers"])
        if document["crc32"] != _checksum(header, payload):
            raise ValueError("the checksum does not match")
        return _decoded(header, payload)
    except (ValueError, KeyError, TypeError, IndexError, AttributeError, zlib.error) as error:
        raise UserError(f"this generator is damaged or truncated: {error}; export it again") from error


def round_weights(generator: Generator, bits: int = COARSEST) -> None:
    """Round a trained generator's convolutions in place, so that as many bits hold them exactly.

    Each output channel gets steps of its own, and batch norm only multiplies a channel; so the folded weights are on
    such steps, too. A generator rounded before its release needs two thirds of the bytes on a page.

    Args:
        generator: Changed in place.
        bits: Bits of a weight, 8 to 16.

    Raises:
        UserError: If ``bits`` is out of range.
    """
    _check_bits(bits)
    with torch.no_grad():
        for block in generator.layers:
            weight = block[0].weight
            axes = (1, 2, 3) if isinstance(block[0], nn.Conv2d) else (0, 2, 3)
            steps = weight.abs().amax(dim=axes, keepdim=True).clamp_min(1e-30) / (2 ** (bits - 1) - 1)
            weight.copy_((weight / steps).round() * steps)


def errors(packed: nn.Module, generator: nn.Module, z: Tensor) -> tuple[float, float]:
    """How far the images of two networks differ for the same z, in grey levels of 255: on average, and at worst."""
    differences = [
        127.5 * (latent.generate(packed, part) - latent.generate(generator, part)).abs() for part in z.split(64)
    ]
    means = torch.stack([part.mean() * len(part) for part in differences])
    return float(means.sum() / len(z)), float(max(part.max() for part in differences))


@dataclass(frozen=True)
class _Quantised:
    """A layer as whole numbers: ``weight`` is close to ``numbers * steps``."""

    numbers: np.ndarray  # int32 (in, out, K, K)
    steps: np.ndarray  # float32 (out,)
    layer: Layer
    bits: int
    bias: np.ndarray = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "bias", self.layer.bias.numpy().astype(np.float32))

    def header(self) -> dict[str, int]:
        inputs, outputs, kernel, _ = self.numbers.shape
        return {
            "in": inputs,
            "out": outputs,
            "kernel": kernel,
            "stride": self.layer.stride,
            "padding": self.layer.padding,
            "size": self.layer.size,
            "bits": self.bits,
        }

    def encoded(self) -> bytes:
        low, flat = self.bits - 8, self.numbers.reshape(-1)
        high = (flat >> low).astype(np.int8)
        places = (flat[:, None] >> np.arange(low)) & 1  # lowest bit first
        rest = np.packbits(places.astype(np.uint8).reshape(-1), bitorder="little")
        return self.steps.tobytes() + self.bias.tobytes() + high.tobytes() + rest.tobytes()

    def restored(self) -> Layer:
        weight = self.numbers.astype(np.float64) * self.steps.astype(np.float64)[:, None, None]
        bias = torch.from_numpy(self.bias.astype(np.float64))
        return Layer(torch.from_numpy(weight), bias, self.layer.stride, self.layer.padding, self.layer.size)


def _quantised(layer: Layer, bits: int) -> _Quantised:
    most = 2 ** (bits - 1) - 1
    steps = (layer.weight.abs().amax(dim=(0, 2, 3)) / most).numpy().astype(np.float32)
    steps[steps == 0] = 1  # a channel without weights
    numbers = np.rint(layer.weight.numpy() / steps.astype(np.float64)[:, None, None])
    return _Quantised(np.clip(numbers, -most, most).astype(np.int32), steps, layer, bits)


def _within_the_bar(generator: Generator, layers: list[Layer]) -> list[_Quantised]:
    """The coarsest steps with which the images stay as they should, with a margin for the vectors not tried."""
    z = latent.sample_latent(_TRIALS, generator.latent_dim, _TRIAL_SEED)
    most = max(layer.weight.numel() for layer in layers)
    # A layer with a quarter of the weights is to err half as much: that costs little. First without, since weights
    # that have been rounded to 8 bits want just those steps.
    more = [round(np.log2(most / layer.weight.numel()) / 2) for layer in layers]
    for each in ([COARSEST] * len(layers), *([bits + m for m in more] for bits in range(COARSEST, FINEST + 1))):
        packed = [_quantised(layer, min(own, FINEST)) for layer, own in zip(layers, each, strict=True)]
        restored = PageGenerator([part.restored() for part in packed], "", "", Description())
        mean, worst = errors(restored, generator, z)
        if mean <= _MARGIN * MEAN_ERROR and worst <= _MARGIN * WORST_ERROR:
            break
    return packed


def _check_bits(bits: int) -> None:
    if not isinstance(bits, int) or not COARSEST <= bits <= FINEST:
        raise UserError(f"bits={bits!r} must be a whole number between {COARSEST} and {FINEST}")


def _transposed(layer: Layer, x: Tensor) -> Tensor:
    kernel = layer.weight.shape[-1]
    more = layer.size - ((x.shape[-1] - 1) * layer.stride - 2 * layer.padding + kernel)
    weight, bias = layer.weight.to(x), layer.bias.to(x)
    return functional.conv_transpose2d(x, weight, bias, layer.stride, layer.padding, output_padding=more)


def _decoded(header: Mapping[str, Any], payload: bytes) -> PageGenerator:
    at = 0

    def take(dtype: type, count: int) -> np.ndarray:
        nonlocal at
        found = np.frombuffer(payload, dtype, count, at)  # ValueError where there are too few bytes
        at += found.nbytes
        return found

    layers, before = [], None
    for about in header["layers"]:
        inputs, outputs, kernel, low = about["in"], about["out"], about["kernel"], about["bits"] - 8
        if before not in (None, inputs):
            raise ValueError(f"a layer of {inputs} channels follows one of {before}")
        count, before = inputs * outputs * kernel * kernel, outputs
        steps, bias = take(np.float32, outputs), take(np.float32, outputs)
        high = take(np.int8, count).astype(np.int64)
        places = np.unpackbits(take(np.uint8, -(-count * low // 8)), bitorder="little")[: count * low]
        rest = (places.reshape(count, low).astype(np.int64) << np.arange(low)).sum(axis=1)
        numbers = ((high << low) + rest).reshape(inputs, outputs, kernel, kernel)
        weight = torch.from_numpy(numbers * steps.astype(np.float64)[:, None, None])
        layers.append(
            Layer(weight, torch.from_numpy(bias.astype(np.float64)), about["stride"], about["padding"], about["size"])
        )
    dimension = header["layers"][0]["in"]
    directions = tuple(
        Direction(torch.from_numpy((take(np.int16, dimension) / _UNIT).astype(np.float32)), *about)
        for about in header["directions"]
    )
    factors = {factor: tuple(values) for factor, values in header["factors"]}
    labels = take(np.uint8, header["samples"] * len(factors)).reshape(-1, max(len(factors), 1)).copy()
    if at != len(payload):
        raise ValueError(f"it has {len(payload)} bytes of numbers, and its layers need {at}")
    description = Description(directions, factors, torch.from_numpy(labels))
    return PageGenerator(layers, header["name"], header["dataset"], description)


def _inflated(text: str) -> bytes:
    stream = zlib.decompressobj()
    payload = stream.decompress(base64.b64decode(text, validate=True), _MOST_NUMBERS)
    if not stream.eof:
        raise ValueError("its numbers end too early")
    return payload


def _checksum(header: Mapping[str, Any], payload: bytes) -> int:
    """CRC-32 of the header as a browser writes it, and the numbers."""
    text = json.dumps(header, separators=(",", ":"), ensure_ascii=False)
    return zlib.crc32(payload, zlib.crc32(text.encode()))
