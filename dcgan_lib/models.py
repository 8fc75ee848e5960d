"""The two networks of DCGAN, for any image size in {32, 64, 128}.

The defaults follow the guidelines of Radford, Metz and Chintala (2015), section 3: strided and transposed
convolutions instead of pooling, batch normalisation except next to the images, no hidden fully connected layers,
ReLU in the generator with Tanh at its end, LeakyReLU of slope 0.2 in the discriminator.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterable
from functools import partial
from typing import Any, Literal, TypeVar

import torch
from torch import Tensor, nn
from torch.nn import functional

from dcgan_lib.convolution import ConvolutionShape, ReceptiveField, receptive_field
from dcgan_lib.errors import UserError

Network = TypeVar("Network", bound=nn.Module)

IMAGE_SIZES = (32, 64, 128)
CHANNELS = (1, 3)

# One transposed convolution with these numbers doubles the image, one convolution halves it.
KERNEL, STRIDE, PADDING = 4, 2, 1
# The innermost maps are 4x4 at every image size; only the number of layers around them changes.
INNERMOST = 4

Upsampling = Literal["transposed", "transposed-5", "resize"]
"""Ways to double a map: a transposed convolution with kernel 4, as in this book; one with kernel 5, as in the paper's
authors' code; or pixels repeated 2x2 and an ordinary convolution with kernel 3 (Odena, Dumoulin and Olah, 2016)."""


class ResizeConv2d(nn.Conv2d):
    """Repeats every pixel 2x2, then convolves like ``nn.Conv2d``.

    So it doubles a map, treating all pixels alike: with kernel 3 and padding 1,
    (N, in_channels, H, W) becomes (N, out_channels, 2 H, 2 W).
    """

    def forward(self, x: Tensor) -> Tensor:
        """Double the maps, float (N, in_channels, H, W)."""
        larger = functional.interpolate(x, scale_factor=2, mode="nearest")
        return super().forward(larger)


# A transposed convolution makes (i - 1) stride - 2 padding + kernel + output_padding pixels of i: here 2 i.
_DOUBLING: dict[Upsampling, Callable[..., nn.Module]] = {
    "transposed": partial(nn.ConvTranspose2d, kernel_size=KERNEL, stride=STRIDE, padding=PADDING),
    "transposed-5": partial(nn.ConvTranspose2d, kernel_size=5, stride=2, padding=2, output_padding=1),
    "resize": partial(ResizeConv2d, kernel_size=3, padding=1),
}


def doubling_layer(in_channels: int, out_channels: int, upsampling: Upsampling = "transposed") -> nn.Module:
    """Build the convolution that doubles a map in a generator, with PyTorch's initial weights and without bias.

    Args:
        in_channels: Channels of its input, (N, in_channels, H, W).
        out_channels: Channels of its output, (N, out_channels, 2 H, 2 W).
        upsampling: The way to do it.

    Raises:
        UserError: If the way is unknown.
    """
    if not isinstance(upsampling, str) or upsampling not in _DOUBLING:
        raise UserError(f"upsampling={upsampling!r} is unknown; choose from {', '.join(_DOUBLING)}")
    return _DOUBLING[upsampling](in_channels, out_channels, bias=False)


class Generator(nn.Module):
    """Maps latent vectors to images through a stack of layers that double a map; by default, transposed convolutions.

    ``layers`` holds one block per resolution, named by what leaves it: ``"4x4"``, ``"8x8"``, ... up to the image.
    Channels halve whenever the image doubles and arrive at ``width`` in the last block before the image.

    Attributes:
        image_size: Height and width of the images, in pixels.
        channels: 1 for grey images, 3 for colour.
        latent_dim: Length of the latent vectors, which are drawn from a standard normal distribution.
        width: Number of channels next to the image.
        upsampling: How maps are doubled.
    """

    def __init__(
        self,
        image_size: int,
        channels: int,
        latent_dim: int,
        width: int,
        upsampling: Upsampling = "transposed",
    ) -> None:
        super().__init__()
        self.image_size, self.channels = image_size, channels
        self.latent_dim, self.width, self.upsampling = latent_dim, width, upsampling
        resolutions = _resolutions(image_size)
        widths = [width * image_size // (2 * resolution) for resolution in resolutions[:-1]]
        # 1x1 -> 4x4: a dense projection of z, written as a transposed convolution.
        first = nn.ConvTranspose2d(latent_dim, widths[0], INNERMOST, bias=False)
        blocks = {"4x4": _up_block(first)}
        for before, after, size in zip(widths, widths[1:], resolutions[1:], strict=False):
            blocks[f"{size}x{size}"] = _up_block(doubling_layer(before, after, upsampling))
        blocks[f"{image_size}x{image_size}"] = nn.Sequential(
            # No batch norm: a pixel's mean and scale are for the generator to choose.
            doubling_layer(widths[-1], channels, upsampling),
            nn.Tanh(),
        )
        self.layers = nn.Sequential(OrderedDict(blocks))

    @property
    def architecture(self) -> dict[str, Any]:
        """The arguments that rebuild this network with ``build_generator``."""
        names = ("image_size", "channels", "latent_dim", "width", "upsampling")
        return {name: getattr(self, name) for name in names}

    def forward(self, z: Tensor) -> Tensor:
        """Generate images.

        Args:
            z: Latent vectors, float (N, latent_dim).

        Returns:
            Images in [-1, 1], float (N, channels, image_size, image_size).
        """
        return self.layers(z[:, :, None, None])

    def features(self, z: Tensor) -> list[Tensor]:
        """Output of every block for latent vectors ``z``: maps of 4x4, 8x8, ... pixels, the images last."""
        return _outputs(self.layers, z[:, :, None, None])


class MinibatchStd(nn.Module):
    """A convolution that sees one more map: how much the batch varies. It betrays a G whose samples are too much alike.

    The map is constant: the standard deviation over the batch, averaged over channels and positions. It is not laid
    beside the others, for odd numbers of channels are slow; its part of the sum is computed apart.

    Args:
        convolution: Maps (N, C, H, W) to (N, K, H / 2, W / 2), with kernel 4, stride 2 and padding 1.

    Source:
        Karras et al. 2018, "Progressive growing of GANs", section 3.
    """

    def __init__(self, convolution: nn.Conv2d) -> None:
        super().__init__()
        self.convolution = convolution
        self.variety = nn.Conv2d(1, convolution.out_channels, KERNEL, STRIDE, PADDING, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """Convolve the maps x, float (N, C, H, W), and their variety."""
        # By hand, and in the order of memory: torch.var takes more than twice as long.
        flat = x.permute(0, 2, 3, 1).reshape(len(x), -1).float()
        variance = (flat - flat.mean(dim=0)).square().mean(dim=0)
        deviation = (variance + 1e-8).sqrt().mean()  # the root has no slope at 0
        seen = self.convolution(x)
        return seen + deviation.to(seen.dtype) * self.variety(x.new_ones(1, 1, *x.shape[2:]))


class PartialBatchNorm2d(nn.BatchNorm2d):
    """Batch normalisation of the first channels of a map; the others pass as they are.

    Real and generated images go through D apart, so batch norm takes the mean and the spread of a channel, by which
    the two could differ, from either. Those who pass keep them.

    Args:
        num_features: How many channels are normalised.
    """

    def forward(self, x: Tensor) -> Tensor:
        """Normalise the maps x, float (N, C, H, W), of which C is at least ``num_features``."""
        return torch.cat([super().forward(x[:, : self.num_features]), x[:, self.num_features :]], dim=1)


class Discriminator(nn.Module):
    """Maps images to one logit each through a stack of strided convolutions.

    A logit above 0 says "real". ``layers`` holds one block per resolution, named by what leaves it: half the image
    first, ``"4x4"`` last but one, and ``"1x1"``, the logit.

    Attributes:
        image_size: Height and width of the images, in pixels.
        channels: 1 for grey images, 3 for colour.
        width: Number of channels next to the image.
        batch_norm: Share of the inner layers' channels that are batch normalised: 1, or True, for all, as in the paper.
        minibatch_std: Whether the block before the logit also sees how much the batch varies.
    """

    def __init__(
        self, image_size: int, channels: int, width: int, batch_norm: float, minibatch_std: bool = False
    ) -> None:
        super().__init__()
        self.image_size, self.channels, self.width = image_size, channels, width
        self.batch_norm, self.minibatch_std = batch_norm, minibatch_std
        resolutions = _resolutions(image_size)[-2::-1]
        widths = [width * image_size // (2 * resolution) for resolution in resolutions]
        # No batch norm on the input layer: D should see the images' own colours, not standardised ones.
        blocks = {f"{image_size // 2}x{image_size // 2}": _down_block(channels, width, batch_norm=None)}
        for before, after, size in zip(widths, widths[1:], resolutions[1:], strict=False):
            blocks[f"{size}x{size}"] = _down_block(before, after, batch_norm, minibatch_std and size == INNERMOST)
        blocks["1x1"] = nn.Sequential(nn.Conv2d(widths[-1], 1, INNERMOST, bias=False), nn.Flatten(0))
        self.layers = nn.Sequential(OrderedDict(blocks))

    @property
    def architecture(self) -> dict[str, Any]:
        """The arguments that rebuild this network with ``build_discriminator``."""
        names = ("image_size", "channels", "width", "batch_norm", "minibatch_std")
        return {name: getattr(self, name) for name in names}

    def forward(self, x: Tensor) -> Tensor:
        """Judge images.

        Args:
            x: Images in [-1, 1], float (N, channels, image_size, image_size).

        Returns:
            Logits, float (N,); ``torch.sigmoid`` of them is the probability D gives to "real".
        """
        return self.layers(x)

    def features(self, x: Tensor) -> list[Tensor]:
        """Output of every block for images ``x``: half-size maps first, the (N,) logits last."""
        return _outputs(self.layers, x)

    def receptive_fields(self) -> dict[str, ReceptiveField]:
        """Receptive field in image pixels of every block, by the block's name."""
        layers = [next(layer for layer in block.modules() if isinstance(layer, nn.Conv2d)) for block in self.layers]
        shapes = [ConvolutionShape(c.kernel_size[0], c.stride[0], c.padding[0]) for c in layers]
        names = (name for name, _ in self.layers.named_children())
        return {name: receptive_field(shapes[: i + 1]) for i, name in enumerate(names)}


def build_generator(
    image_size: int = 64,
    channels: int = 3,
    latent_dim: int = 100,
    width: int = 64,
    upsampling: Upsampling = "transposed",
) -> Generator:
    """Build a generator with the paper's initial weights.

    ``width=128`` at 64 pixels has the channel counts of the paper's Figure 1 (1024, 512, 256, 128); ``width=64`` has
    those of many tutorials (512, 256, 128, 64).

    Args:
        image_size: 32, 64 or 128 pixels.
        channels: 1 (grey) or 3 (colour).
        latent_dim: Length of the latent vectors.
        width: Channels next to the image.
        upsampling: How maps are doubled: "transposed", "transposed-5" or "resize".

    Raises:
        UserError: If an argument is out of range.
    """
    _check_architecture(image_size, channels, width)
    _check_count("latent_dim", latent_dim, 4096)
    return init_weights(Generator(image_size, channels, latent_dim, width, upsampling))


def build_discriminator(
    image_size: int = 64, channels: int = 3, width: int = 64, batch_norm: float = True, minibatch_std: bool = False
) -> Discriminator:
    """Build a discriminator with the paper's initial weights.

    Args:
        image_size: 32, 64 or 128 pixels.
        channels: 1 (grey) or 3 (colour).
        width: Channels next to the image.
        batch_norm: Share of the inner layers' channels that are batch normalised. 1, or True: all, as in the paper. In
            between: the first ones; see :class:`PartialBatchNorm2d`. 0, or False: none; the convolutions then have a
            bias, and a gradient penalty means what its paper says, since no image's gradient depends on the others.
        minibatch_std: Show the block before the logit how much the batch varies (Karras et al. 2018), so that a
            generator which drops part of the data is found out. An image's gradient then depends on the others, too.

    Raises:
        UserError: If an argument is out of range.
    """
    _check_architecture(image_size, channels, width)
    if not isinstance(batch_norm, int | float) or not 0 <= batch_norm <= 1:
        raise UserError(f"batch_norm={batch_norm!r} must be a share from 0 to 1, True or False")
    return init_weights(Discriminator(image_size, channels, width, batch_norm, minibatch_std))


def init_weights(module: Network, seed: int = 0) -> Network:
    """Draw initial weights in place as in section 4 of the paper, and return the module.

    Convolutions are drawn from N(0, 0.02), where 0.02 is the standard deviation.
    Batch-norm gains are drawn from N(1, 0.02), not N(0, 0.02), which would start
    every channel near zero with a random sign; offsets and biases start at 0.

    Args:
        module: The network.
        seed: Seed of the draw; the global random state is neither used nor changed.
    """
    random = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for layer in module.modules():
            if isinstance(layer, nn.Conv2d | nn.ConvTranspose2d):
                mean = 0.0
            elif isinstance(layer, nn.BatchNorm2d):
                mean = 1.0
            else:
                continue
            layer.weight.normal_(mean, 0.02, generator=random)
            if layer.bias is not None:
                layer.bias.zero_()
    return module


def load_in_order(module: nn.Module, tensors: Iterable[Tensor]) -> None:
    """Copy weights from a network with the same layers under other names, such as the PyTorch DCGAN example's.

    Args:
        module: The network to fill.
        tensors: Parameters and buffers in the order of the other network's ``state_dict().values()``.

    Raises:
        UserError: If the number or a shape of the tensors differs from the module's; the module is then unchanged.
    """
    own, tensors = module.state_dict(), list(tensors)
    if len(own) != len(tensors):
        raise UserError(f"the network has {len(own)} tensors and {len(tensors)} were given; are the sizes the same?")
    for (name, mine), other in zip(own.items(), tensors, strict=True):
        if mine.shape != other.shape:
            raise UserError(f"{name} has shape {tuple(mine.shape)}, the tensor given {tuple(other.shape)}")
    module.load_state_dict(dict(zip(own, tensors, strict=True)))


def count_parameters(module: nn.Module) -> int:
    """Number of trainable numbers in a network; batch norm's running statistics do not count."""
    return sum(parameter.numel() for parameter in module.parameters())


def _resolutions(image_size: int) -> list[int]:
    # 4, 8, ..., image_size
    return [INNERMOST * 2**i for i in range((image_size // INNERMOST).bit_length())]


def _up_block(convolution: nn.Module) -> nn.Sequential:
    # The convolution has no bias: batch norm's offset does what one would.
    return nn.Sequential(convolution, nn.BatchNorm2d(convolution.out_channels), nn.ReLU(inplace=True))


def _down_block(before: int, after: int, batch_norm: float | None, minibatch_std: bool = False) -> nn.Sequential:
    # None: the layer at the image, which has neither batch norm nor bias.
    normalised = round(after * (batch_norm or 0))
    kind = nn.BatchNorm2d if normalised == after else PartialBatchNorm2d
    bias = batch_norm is not None and not normalised
    convolution = nn.Conv2d(before, after, KERNEL, STRIDE, PADDING, bias=bias)
    normalisation = [kind(normalised)] if normalised else []
    seen = MinibatchStd(convolution) if minibatch_std else convolution
    return nn.Sequential(seen, *normalisation, nn.LeakyReLU(0.2, inplace=True))


def _outputs(layers: nn.Sequential, x: Tensor) -> list[Tensor]:
    outputs = []
    for layer in layers:
        x = layer(x)
        outputs.append(x)
    return outputs


def _check_architecture(image_size: int, channels: int, width: int) -> None:
    if image_size not in IMAGE_SIZES or not isinstance(image_size, int):
        raise UserError(f"image_size={image_size!r} is not supported; choose 32, 64 or 128")
    if channels not in CHANNELS or not isinstance(channels, int):
        raise UserError(f"channels={channels!r} is not supported; choose 1 (grey) or 3 (colour)")
    _check_count("width", width, 1024)


def _check_count(name: str, value: int, most: int) -> None:
    if not isinstance(value, int) or not 1 <= value <= most:
        raise UserError(f"{name}={value!r} must be a whole number between 1 and {most}")
