"""Every image that D sees is shifted, mirrored and made noisy, each in its own way, and nothing else happens to it."""

import pytest
import tiny
import torch
from torch.nn import functional

from dcgan_lib.augmentation import augment
from dcgan_lib.config import TrainingConfig


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def candidates(image, most):
    """Every shift of an image by up to ``most`` pixels, and of its mirror image: (2, shifts, shifts, C, S, S)."""
    size = image.shape[-1]
    padded = functional.pad(torch.stack([image, image.flip(2)]), [most] * 4, mode="replicate")
    return padded.unfold(2, size, 1).unfold(3, size, 1).permute(0, 2, 3, 1, 4, 5)


@pytest.mark.parametrize("mirror", [False, True])
def test_each_image_is_moved_in_one_of_the_allowed_ways_and_all_ways_occur(mirror):
    images = torch.randn(200, 3, 16, 16)
    config = tiny.configure(translation=0.1, mirror=mirror)  # 1.6 pixels: two
    moved = augment(images, config, seeded())
    assert moved.shape == images.shape
    ways = set()
    for image, found in zip(images, moved, strict=True):
        (way,) = (candidates(image, 2) == found).all(dim=(3, 4, 5)).nonzero().tolist()
        ways.add(tuple(way))
    assert len(ways) > (40 if mirror else 24)
    assert {way[0] for way in ways} == ({0, 1} if mirror else {0})
    assert {way[1] for way in ways} == {way[2] for way in ways} == set(range(5))


def test_mirroring_alone_turns_about_half():
    images = torch.randn(1000, 1, 8, 8)
    moved = augment(images, tiny.configure(mirror=True), seeded())
    turned = (moved == images.flip(3)).all(dim=(1, 2, 3))
    kept = (moved == images).all(dim=(1, 2, 3))
    assert torch.equal(turned, ~kept)
    assert abs(int(turned.sum()) - 500) < 80


def test_gradients_find_their_way_back_to_the_pixels_they_came_from():
    images = torch.randn(4, 2, 16, 16, dtype=torch.float64, requires_grad=True)
    config = tiny.configure(translation=0.125, mirror=True, instance_noise=0.2)
    assert torch.autograd.gradcheck(lambda x: augment(x, config, seeded()), images)


def test_the_source_of_random_numbers_alone_decides():
    images = torch.randn(8, 3, 16, 16)
    config = tiny.configure(translation=0.25, mirror=True, instance_noise=0.1)
    torch.manual_seed(1)
    first = augment(images, config, seeded())
    torch.manual_seed(2)
    assert torch.equal(first, augment(images, config, seeded()))
    assert not torch.equal(first, augment(images, config, seeded(1)))


def test_nothing_asked_nothing_done():
    images, random = torch.randn(2, 3, 16, 16), seeded()
    before = random.get_state()
    assert augment(images, TrainingConfig(), random) is images
    assert torch.equal(random.get_state(), before)
    small = augment(images, tiny.configure(translation=0.01), random)  # less than a pixel
    assert torch.equal(small, images)


def test_the_layout_of_the_pixels_stays():
    images = torch.randn(8, 3, 16, 16).contiguous(memory_format=torch.channels_last)
    moved = augment(images, tiny.configure(translation=0.25, mirror=True), seeded())
    assert moved.is_contiguous(memory_format=torch.channels_last)
