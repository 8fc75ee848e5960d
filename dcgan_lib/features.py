"""A small classifier that reads the known factors of an image: the eyes of :mod:`dcgan_lib.metrics`.

One convolutional network per data set, with one linear head per factor (``cats``: body, fur, eyes, mouth,
accessory; ``fashion-mnist``: class; ``clothing``, a folder of photographs: its sub-folders). Its answers count which
factor values a generator produces; the vector before its heads is the feature space of the Frechet distance. The
released weights and their model cards are in ``dcgan_lib/pretrained``; :mod:`dcgan_lib.reader_training` trains such
networks.

A Frechet distance in these features compares with another only if both used the same weights, which is why every
reader carries the SHA-256 of its file.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors.torch import save
from torch import Tensor, nn
from torch.nn import functional

from dcgan_lib import tensor_file
from dcgan_lib.checkpoint import PRETRAINED
from dcgan_lib.data import CATS, ImageDataset, to_model_range
from dcgan_lib.errors import UserError
from dcgan_lib.files import atomic_write

# SHA-256 of each released file. A score is only comparable with scores from the very same reader.
RELEASED: dict[str, str] = {
    "clothing": "307a70a855cf47089f24d158500e2d4a54880055cc27ba3973b03a98f47c0866",
    "cats": "83d2a04a4adca30c4a38cd6c8879063a6edb1d3506e996ab202ca362bcd70a1d",
    "fashion-mnist": "ed872b52c0a7e70c2edb09b27ed5559ca8d69b5351eb9b5e490eb649e8a1486a",
}

EMBEDDING = 64  # numbers the heads read
TEXTURE = 24  # maps of the first layer, and so numbers that describe the texture

# Images per forward pass. Fixed, so that a score cannot depend on the batch size of whoever asks.
CHUNK = 250


class Reader(nn.Module):
    """Read the factors of images, and embed images for the Frechet distance.

    Images of any size are first brought to ``resolution`` (area average down, bilinear up), then halved three times
    by strided convolutions to 8x8. Each of the 128 channels is summed over the 8x8 positions with weights of its own
    (a hat and a scarf differ by place) and projected to 64 numbers: what the heads read. To be read through blur and
    noise those are trained to ignore both, so the feature vector also holds the *texture*: the standard deviation over
    positions of each of the 24 first maps, which blur lowers and noise raises.

    Every feature is standardised by fixed numbers, so that on real images it has mean 0 and variance about 1: a
    generator with a single output gets a Frechet distance of at least about ``dimension``.

    Attributes:
        name: The data set it was trained on.
        label_names: Factor -> names of its values, in the order of the columns of ``read``.
        channels: Colour channels of the images it reads.
        resolution: Side in pixels at which it looks at images, 32 or 64.
        dimension: Length D of the feature vector, 64 + 24.
        sha256: Hash of the file the weights came from; empty for a reader that was not loaded.
    """

    def __init__(
        self,
        name: str,
        label_names: Mapping[str, tuple[str, ...]],
        channels: int = 3,
        resolution: int = 64,
    ) -> None:
        super().__init__()
        if resolution not in (32, 64):
            raise UserError(f"a reader's resolution is 32 or 64 pixels, not {resolution}")
        self.name = name
        self.label_names = {factor: tuple(values) for factor, values in label_names.items()}
        self.channels = channels
        self.resolution = resolution
        self.dimension = EMBEDDING + TEXTURE
        self.sha256 = ""
        self.maps = nn.Sequential(
            _block(channels, TEXTURE, kernel=5, stride=resolution // 32),  # 32x32
            _block(TEXTURE, 48, stride=2),  # 16x16
            _block(48, 64),
            _block(64, 96, stride=2),  # 8x8
            _block(96, 128),
        )
        self.pool = nn.Conv2d(128, 128, kernel_size=8, groups=128)
        self.project = nn.Linear(128, EMBEDDING, bias=False)
        self.standardise = nn.BatchNorm1d(EMBEDDING, affine=False)
        self.heads = nn.ModuleDict({f: nn.Linear(EMBEDDING, len(v)) for f, v in self.label_names.items()})
        self.register_buffer("texture_mean", torch.zeros(TEXTURE))
        self.register_buffer("texture_std", torch.ones(TEXTURE))

    def embed(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Map images (N, C, S, S), float in [-1, 1], to what the heads read (N, 64), and the texture (N, 24)."""
        if images.shape[-1] > self.resolution:
            images = functional.interpolate(images, size=(self.resolution, self.resolution), mode="area")
        elif images.shape[-1] < self.resolution:
            images = functional.interpolate(images, size=(self.resolution, self.resolution), mode="bilinear")
        first = self.maps[0](images)
        pooled = functional.relu(self.pool(self.maps[1:](first)).flatten(1))
        texture = (first.float().std(dim=(2, 3)) - self.texture_mean) / self.texture_std
        return self.standardise(self.project(pooled)), texture

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        """Classify images (N, C, S, S), float in [-1, 1]: factor -> logits (N, number of its values)."""
        embedding, _ = self.embed(images)
        return {factor: head(embedding) for factor, head in self.heads.items()}

    def features(self, images: Tensor) -> Tensor:
        """Embed any number of images, in evaluation mode, without gradients.

        Args:
            images: (N, C, S, S), float in [-1, 1] or uint8 in [0, 255], on any device.

        Returns:
            Features (N, D), float32, on the CPU.

        Raises:
            UserError: If the images have the wrong shape or channels, or contain NaN or infinity.
        """
        self._check(images)
        self.eval()
        with torch.no_grad():
            parts = [torch.cat(self.embed(self._prepare(chunk)), dim=1) for chunk in images.split(CHUNK)]
        return torch.cat([part.float().cpu() for part in parts])

    def classify(self, features: Tensor) -> tuple[Tensor, Tensor]:
        """Apply the heads to features.

        Args:
            features: (N, D), from :meth:`features`.

        Returns:
            The most likely value of each factor, int64 (N, F), and its probability, float32 (N, F); both on the CPU.
        """
        with torch.no_grad():
            embedding = features[:, :EMBEDDING].to(self.project.weight.device)
            best = [head(embedding).softmax(dim=1).max(dim=1) for head in self.heads.values()]
        labels = torch.stack([answer.indices for answer in best], dim=1)
        return labels.cpu(), torch.stack([answer.values for answer in best], dim=1).cpu()

    def read(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Read every factor of every image: ``classify(features(images))``."""
        return self.classify(self.features(images))

    def save(self, path: str | Path) -> str:
        """Write the weights (matrices as float16) with the architecture in the metadata; return the file's SHA-256."""
        weights = {key: compact(value).contiguous().cpu() for key, value in self.state_dict().items()}
        about = {
            "name": self.name,
            "label_names": {factor: list(values) for factor, values in self.label_names.items()},
            "channels": self.channels,
            "resolution": self.resolution,
        }
        content = save(weights, metadata={"reader": json.dumps(about)})
        with atomic_write(path) as temporary:
            temporary.write_bytes(content)
        return hashlib.sha256(content).hexdigest()

    def _prepare(self, chunk: Tensor) -> Tensor:
        chunk = chunk.to(self.project.weight.device)
        return to_model_range(chunk) if chunk.dtype == torch.uint8 else chunk.float()

    def _check(self, images: Tensor) -> None:
        if images.ndim != 4 or images.shape[1] != self.channels or images.shape[2] != images.shape[3]:
            expected = f"(N, {self.channels}, S, S)"
            raise UserError(f"the reader {self.name!r} wants images {expected}, not {tuple(images.shape)}")
        if len(images) == 0:
            raise UserError("there are no images to read")
        if images.is_floating_point() and not bool(torch.isfinite(images).all()):
            raise UserError("the images contain NaN or infinity: the generator's weights are broken")


def released_readers() -> list[str]:
    """Names of the data sets that have a released reader."""
    return sorted(RELEASED)


def reader_for(dataset: str) -> str | None:
    """Name of the released reader that knows the factors of a data set; None if there is none."""
    name = "cats" if dataset in CATS else dataset
    return name if name in RELEASED else None


def load_reader(name: str) -> Reader:
    """Load a released reader in evaluation mode.

    Args:
        name: Data set it reads, such as ``cats`` or ``fashion-mnist``.

    Raises:
        UserError: If there is no such reader, or its file is not the one whose hash is recorded here.
    """
    if name not in RELEASED:
        raise UserError(f"no reader for {name!r}; there are readers for: {', '.join(released_readers())}")
    return read_reader_file(PRETRAINED / f"reader-{name}.safetensors", expected_sha256=RELEASED[name])


def any_reader(name: str) -> Reader:
    """Load a reader by the name of its data set, or from a file.

    Raises:
        UserError: If there is neither, or the file is no reader's.
    """
    return load_reader(name) if name in RELEASED or not Path(name).exists() else read_reader_file(name)


def read_reader_file(path: str | Path, expected_sha256: str | None = None) -> Reader:
    """Load a reader from a file written by :meth:`Reader.save`.

    Args:
        path: A ``.safetensors`` file.
        expected_sha256: Refuse any file with another hash.

    Raises:
        UserError: If the file is missing, has another hash, or is no reader.
    """
    path = Path(path)
    try:
        content = path.read_bytes()
    except OSError as error:
        hint = "" if expected_sha256 is None else "; install the package again"
        raise UserError(f"cannot read {path}: {error.strerror}{hint}") from error
    digest = hashlib.sha256(content).hexdigest()
    if expected_sha256 is not None and digest != expected_sha256:
        raise UserError(f"{path.name} is not the released file (its SHA-256 differs); install the package again")
    try:
        weights, metadata = tensor_file.decode(content)
        reader = Reader(**json.loads(metadata["reader"]))
        reader.load_state_dict(weights)
    except (KeyError, TypeError, ValueError, AttributeError, RuntimeError) as error:
        raise UserError(f"{path} is not a reader's weights; train one: python -m dcgan_lib.reader_training") from error
    reader.sha256 = digest
    return reader.eval().requires_grad_(False)


def measure_accuracy(reader: Reader, dataset: ImageDataset) -> dict[str, float]:
    """Return the share of right answers per factor; the data set's factors must be the reader's."""
    if dataset.label_names != reader.label_names:
        raise UserError(f"the reader {reader.name!r} does not know the factors of {dataset.name!r}")
    # In pieces: the images may be on disk, and more than fit into memory.
    pieces = [slice(start, start + 4 * CHUNK) for start in range(0, len(dataset), 4 * CHUNK)]
    answers = torch.cat([reader.read(dataset.images[piece])[0] for piece in pieces])
    right = (answers == dataset.labels).double().mean(dim=0)
    return dict(zip(reader.label_names, right.tolist(), strict=True))


def _block(inputs: int, outputs: int, kernel: int = 3, stride: int = 1) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, kernel, stride, padding=kernel // 2, bias=False),
        nn.BatchNorm2d(outputs),
        nn.ReLU(),
    )


def compact(value: Tensor) -> Tensor:
    """Half precision for matrices, which halves the file; biases and running statistics are few and may be large."""
    return value.half() if value.ndim > 1 else value
