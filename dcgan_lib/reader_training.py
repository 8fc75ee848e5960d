"""Train a reader: ``python -m dcgan_lib.reader_training --output reader.safetensors``.

A generator's images are damaged in ways of their own, and a reader that has only seen clean ones misreads them. So it
learns from images that are shifted, blurred, noisy and of a lower resolution, and what it knows of a texture is
measured on clean ones afterwards.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional

from dcgan_lib import augmentation
from dcgan_lib.config import TrainingConfig
from dcgan_lib.data import ImageDataset, load_dataset, to_model_range
from dcgan_lib.errors import UserError
from dcgan_lib.features import EMBEDDING, Reader, compact, measure_accuracy, read_reader_file


@dataclass(frozen=True)
class ReaderTraining:
    """Train a reader, a small network that names the known factors of an image, such as the body of a cat.

    The defaults made the released reader of cats; the cards in dcgan_lib/pretrained have the commands of the others.
    """

    output: Path
    """File to write, ending in .safetensors."""
    data: str = "cats"
    """Labelled data set to learn; folder:PATH learns the names of its sub-folders."""
    name: str | None = None
    """What to call the reader. None: the name of the data set."""
    resolution: int = 64
    """Side in pixels at which the reader looks at images, 32 or 64."""
    limit: int = 100_000
    """Most training images."""
    epochs: int = 2
    """Passes over the training images."""
    batch_size: int = 128
    """Images per step."""
    learning_rate: float = 4e-3
    """Peak of the one-cycle schedule of AdamW."""
    mirror: bool = False
    """Learn from mirrored images as well, where left and right mean the same."""
    seed: int = 0
    """Fixes the initial weights, the order of the images and the augmentation."""
    root: Path | None = None
    """Folder of the data set's files, where it needs one."""

    def __post_init__(self) -> None:
        """Reject values that cannot work, before anything is computed."""
        if self.output.suffix != ".safetensors":
            raise UserError(f"--output {self.output} must end in .safetensors")
        for name in ("limit", "epochs", "batch_size"):
            if getattr(self, name) < 1:
                raise UserError(f"--{name.replace('_', '-')} {getattr(self, name)} must be at least 1")
        if not 0 < self.learning_rate <= 1:
            raise UserError(f"--learning-rate {self.learning_rate} must be above 0 and at most 1")


def train_reader(dataset: ImageDataset, options: ReaderTraining) -> Reader:
    """Train a reader by cross-entropy, summed over the factors, on augmented images.

    Repeatable bit for bit on one machine with the same number of threads. The matrix products run in bfloat16.

    Args:
        dataset: Images with at least one factor.
        options: Settings; ``output``, ``data``, ``limit`` and ``root`` are not used here.

    Returns:
        The reader, in evaluation mode, without a hash until it is saved and loaded.

    Raises:
        UserError: If the data set has no labels, or fewer images than a batch.
    """
    if not dataset.label_names:
        raise UserError(f"{dataset.name} has no labels to learn; a reader needs a labelled data set such as cats")
    if len(dataset) < options.batch_size:
        raise UserError(f"{len(dataset)} images are fewer than --batch-size {options.batch_size}")
    torch.manual_seed(options.seed)
    reader = Reader(options.name or dataset.name, dataset.label_names, dataset.channels, options.resolution)
    reader = reader.to(memory_format=torch.channels_last)
    steps = options.epochs * (len(dataset) // options.batch_size)
    optimizer = torch.optim.AdamW(reader.parameters(), lr=options.learning_rate, weight_decay=0.01)
    mirrored = TrainingConfig(mirror=options.mirror)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, options.learning_rate, total_steps=steps)
    started = time.monotonic()
    for epoch in range(options.epochs):
        total = 0.0
        for rows in torch.randperm(len(dataset)).split(options.batch_size):
            if len(rows) < options.batch_size:
                continue
            images = augmentation.augment(to_model_range(dataset.images[rows]), mirrored)
            images = augment(images).contiguous(memory_format=torch.channels_last)
            with torch.autocast("cpu", torch.bfloat16):
                logits = reader(images)
                answers = zip(logits.values(), dataset.labels[rows].unbind(1), strict=True)
                loss = torch.stack([functional.cross_entropy(*pair) for pair in answers]).sum()
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            optimizer.step()
            schedule.step()
            total += loss.item()
        mean = total / (len(dataset) // options.batch_size)
        print(f"epoch {epoch + 1}: loss {mean:.3f}, {time.monotonic() - started:.0f} s", flush=True)
    calibrate(reader.to(memory_format=torch.contiguous_format), dataset.images[:10_000])
    return reader


def calibrate(reader: Reader, images: Tensor) -> None:
    """Round a trained reader's weights to what its file will hold, and standardise its texture on real images.

    Args:
        reader: Changed in place; afterwards in evaluation mode, without gradients.
        images: uint8 (N, C, S, S), undamaged.
    """
    reader.eval().requires_grad_(False)
    for parameter in reader.parameters():
        parameter.copy_(compact(parameter))
    reader.texture_mean.zero_()
    reader.texture_std.fill_(1)
    texture = reader.features(images)[:, EMBEDDING:].double()
    reader.texture_mean.copy_(texture.mean(dim=0))
    reader.texture_std.copy_(texture.std(dim=0).clamp(min=1e-3))


def augment(images: Tensor) -> Tensor:
    """Damage a batch as generators do: shift, blur, lower resolution, noise, a change of brightness.

    Args:
        images: (N, C, S, S), float in [-1, 1]. Random numbers come from torch's global generator.

    Returns:
        Images of the same shape. Half of the images keep their sharpness and half stay free of noise.
    """
    count, _, size, _ = images.shape
    margin = size // 20
    padded = functional.pad(images, (margin,) * 4, mode="replicate")
    shifts = torch.randint(2 * margin + 1, (count, 2)).tolist()
    places = zip(padded, shifts, strict=True)
    images = torch.stack([image[:, row : row + size, column : column + size] for image, (row, column) in places])
    quarter = count // 4
    halved = functional.interpolate(functional.avg_pool2d(images[:quarter], 2), size=(size, size), mode="bilinear")
    images = torch.cat([halved, _blur(images[quarter : 2 * quarter]), images[2 * quarter :]])
    images = images * (1 + 0.05 * torch.randn(count, 1, 1, 1))
    noisy = images[::2]  # a view: half of the sharp and half of the blurred images
    noisy += 0.2 * torch.rand(len(noisy), 1, 1, 1) * torch.randn(noisy.shape)
    return images


def _blur(images: Tensor) -> Tensor:
    # One Gaussian for the batch, of standard deviation 0.3 to 1.2 pixels.
    sigma = 0.3 + 0.9 * torch.rand(())
    kernel = torch.exp(-0.5 * (torch.arange(-3, 4) / sigma) ** 2)
    kernel = torch.outer(kernel, kernel) / kernel.sum() ** 2
    channels = images.shape[1]
    padded = functional.pad(images, (3,) * 4, mode="replicate")
    return functional.conv2d(padded, kernel.expand(channels, 1, 7, 7), groups=channels)


def main(arguments: Sequence[str] | None = None) -> int:
    """Train a reader, save it, and print its hash and its accuracy on held-out images at 32, 64 and 128 pixels.

    Returns:
        The exit status: 2, after one line, for a mistake that the user can mend.
    """
    import tyro

    try:
        _train_and_report(tyro.cli(ReaderTraining, prog="python -m dcgan_lib.reader_training", args=arguments))
    except UserError as error:
        print(f"dcgan_lib.reader_training: error: {error}", file=sys.stderr)
        return 2
    return 0


def _train_and_report(options: ReaderTraining) -> None:
    dataset = load_dataset(options.data, options.resolution, root=options.root, limit=options.limit)
    digest = train_reader(dataset, options).save(options.output)
    reader = read_reader_file(options.output, expected_sha256=digest)
    print(f"{options.output}: sha256 {digest}, {sum(p.numel() for p in reader.parameters()):,} parameters")
    for size in (32, 64, 128):
        unseen = load_dataset(options.data, size, split="test", root=options.root, limit=5000)
        scores = ", ".join(f"{factor} {value:.2%}" for factor, value in measure_accuracy(reader, unseen).items())
        print(f"{size}x{size}, {len(unseen)} unseen images: {scores}")


if __name__ == "__main__":
    sys.exit(main())
