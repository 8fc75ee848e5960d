"""Networks, images and runs small enough for tests."""

import contextlib
from collections.abc import Iterator
from dataclasses import replace

import torch

from dcgan_lib.config import TrainingConfig
from dcgan_lib.data import ImageDataset
from dcgan_lib.latent import sample_latent
from dcgan_lib.models import build_discriminator, build_generator, init_weights

CONFIG = TrainingConfig(
    steps=6, batch_size=4, precision="float32", device="cpu", log_every=1, sample_every=3, checkpoint_every=3
)
EVERY_OPTION = {
    "instance_noise": 0.1,
    "translation": 0.1,
    "mirror": True,
    "label_smoothing": 0.1,
    "r1_gamma": 1.0,
    "r1_every": 2,
    "average_half_life": 0.5,
}


def configure(**options) -> TrainingConfig:
    """A short run on the CPU."""
    return replace(CONFIG, **options)


def images(count: int = 10, channels: int = 1, seed: int = 0) -> ImageDataset:
    """Random 32 x 32 images: each in one colour of its own, so that any two of them differ."""
    random = torch.Generator().manual_seed(seed)
    colours = torch.randint(0, 256, (count, channels, 1, 1), generator=random, dtype=torch.uint8)
    return ImageDataset(
        colours.expand(-1, -1, 32, 32).contiguous(), torch.empty(count, 0, dtype=torch.int64), {}, "tiny"
    )


def networks(channels: int = 1, seed: int = 0, batch_norm: bool = True):
    """A generator and a discriminator for these images."""
    generator = build_generator(32, channels, latent_dim=6, width=4)
    discriminator = build_discriminator(32, channels, width=4, batch_norm=batch_norm)
    return init_weights(generator, seed), init_weights(discriminator, seed + 1)


def vivid_generator(latent_dim: int):
    """A generator of 32 x 32 colour images in evaluation mode, untrained, whose images differ visibly."""
    network = build_generator(32, 3, latent_dim, width=4)
    with torch.no_grad():
        network(sample_latent(64, latent_dim, seed=1))
        # Untrained, all images are nearly the same grey: more contrast makes every move visible.
        network.layers[-1][0].weight *= 30
    return network.eval()


@contextlib.contextmanager
def deterministic() -> Iterator[None]:
    """PyTorch's deterministic mode, for claims about single bits."""
    before = torch.are_deterministic_algorithms_enabled()
    torch.use_deterministic_algorithms(True)
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(before)


def assert_same(a, b, where: str = "") -> None:
    """Compare nested states of tensors and plain values bit for bit; the clock's readings may differ."""
    assert type(a) is type(b), where
    if isinstance(a, dict):
        assert a.keys() == b.keys(), where
        for key in a.keys() - {"seconds", "images_per_second"}:
            assert_same(a[key], b[key], f"{where}/{key}")
    elif isinstance(a, list | tuple):
        assert len(a) == len(b), where
        for index, (x, y) in enumerate(zip(a, b, strict=True)):
            assert_same(x, y, f"{where}/{index}")
    elif isinstance(a, torch.Tensor):
        assert a.dtype == b.dtype, where
        assert torch.equal(a, b), where
    else:
        assert a == b, where
