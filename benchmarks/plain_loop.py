"""The usual example loop of a DCGAN, as tutorials show it: the baseline that ``throughput.py`` measures against.

Float32, maps in PyTorch's default layout, a DataLoader with worker processes, three backward passes of which the last
one computes gradients of D's weights that nobody uses, and ``.item()`` on every loss in every step. Written for this
comparison; the networks are the book's own.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from dcgan_lib.data import to_model_range
from dcgan_lib.models import Discriminator, Generator


class Images(Dataset):
    """Images one by one, as float32 in [-1, 1].

    Args:
        images: uint8 (N, C, S, S).
    """

    def __init__(self, images: Tensor) -> None:
        self.images = images

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> Tensor:
        return to_model_range(self.images[index])


def batches(images: Tensor, batch_size: int, workers: int, device: torch.device) -> Iterator[Tensor]:
    """Batches of float32 (batch_size, C, S, S) on the device, for ever."""
    loader = DataLoader(
        Images(images),
        batch_size,
        shuffle=True,
        drop_last=True,
        num_workers=workers,
        pin_memory=device.type == "cuda",
        persistent_workers=workers > 0,
    )
    while True:
        for batch in loader:
            yield batch.to(device)


class PlainLoop:
    """Both networks with their optimizers, trained step by step.

    Args:
        generator: G.
        discriminator: D, with batch norm.
        dtype: Arithmetic of the convolutions; bfloat16 shows what it changes by itself.
    """

    def __init__(self, generator: Generator, discriminator: Discriminator, dtype: torch.dtype = torch.float32) -> None:
        self.generator, self.discriminator = generator.train(), discriminator.train()
        self.dtype = dtype
        self.criterion = nn.BCEWithLogitsLoss()
        self.d_optimizer = torch.optim.Adam(discriminator.parameters(), lr=2e-4, betas=(0.5, 0.999))
        self.g_optimizer = torch.optim.Adam(generator.parameters(), lr=2e-4, betas=(0.5, 0.999))

    def step(self, real: Tensor, z: Tensor, read: bool = True) -> dict[str, float | Tensor]:
        """One step of D and one of G.

        Args:
            real: float32 (N, C, S, S) in [-1, 1].
            z: float32 (N, latent_dim).
            read: Whether to read the losses, for which the host waits for the device.

        Returns:
            ``d_loss`` and ``g_loss``, as numbers or, unread, as tensors.
        """
        ones = torch.ones(len(real), device=real.device)
        zeros = torch.zeros(len(real), device=real.device)

        self.discriminator.zero_grad()
        loss_real = self.criterion(self._run(self.discriminator, real), ones)
        loss_real.backward()
        fake = self._run(self.generator, z)
        loss_fake = self.criterion(self._run(self.discriminator, fake.detach()), zeros)
        loss_fake.backward()
        self.d_optimizer.step()

        self.generator.zero_grad()
        loss_g = self.criterion(self._run(self.discriminator, fake), ones)
        loss_g.backward()
        self.g_optimizer.step()
        values = {"d_loss": (loss_real + loss_fake).detach(), "g_loss": loss_g.detach()}
        return {name: value.item() for name, value in values.items()} if read else values

    def _run(self, network: nn.Module, x: Tensor) -> Tensor:
        if self.dtype == torch.float32:
            return network(x)
        # A block of its own for every call: autocast keeps rounded weights to the end of the outermost block, so that
        # one block around the whole step would let G learn from the D before its update.
        with torch.autocast(x.device.type, self.dtype):
            return network(x).float()
