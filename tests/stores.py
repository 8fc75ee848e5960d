"""Small folders of pictures, their stores, and what tests of stores compare."""

import numpy as np
import torch
from PIL import Image

from dcgan_lib.store_builder import build_store

IMAGE_BYTES = 3 * 32 * 32
BLOCK = 8 * IMAGE_BYTES  # eight images


def make_pictures(path, count=60, broken=()):
    """Pictures of noise in two sub-folders; those whose numbers are in `broken` cannot be read."""
    random = np.random.default_rng(0)
    for number in range(count):
        file = path / ("ab"[number % 2]) / f"{number:03}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        if number in broken:
            file.write_bytes(b"broken")
        else:
            Image.fromarray(random.integers(0, 256, (32, 32, 3), dtype=np.uint8)).save(file)
    return path


def build(source, output, **options):
    return build_store(source, output, 32, block_bytes=BLOCK, **options)


def content(path):
    """Names and bytes of all files of a store."""
    return {file.name: file.read_bytes() for file in path.iterdir()}


def batches(count=50, channels=3, seed=0, each=7):
    random = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, (count, channels, 32, 32), dtype=torch.uint8, generator=random).split(each)


def assert_one_line(error, *words):
    message = str(error.value)
    assert "\n" not in message
    for word in words:
        assert str(word) in message, message


def assert_same_dataset(a, b):
    assert torch.equal(a.images[:], b.images[:])
    assert torch.equal(a.labels, b.labels)
    assert a.labels.dtype == b.labels.dtype == torch.int64
    assert a.label_names == b.label_names
    assert (len(a), a.channels, a.image_size) == (len(b), b.channels, b.image_size)
