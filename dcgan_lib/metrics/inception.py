"""The Frechet distance of the literature, in features of Inception-v3; an optional extra, since it is a download."""

from __future__ import annotations

import torch
from torch import nn

from dcgan_lib.data import ImageDataset
from dcgan_lib.errors import UserError
from dcgan_lib.images import as_uint8
from dcgan_lib.latent import generate, sample_latent
from dcgan_lib.metrics.evaluation import check_fit

FEATURES = 2048
_BATCH = 100


def inception_distance(generator: nn.Module, dataset: ImageDataset, samples: int, seed: int = 0) -> float:
    """Frechet inception distance (FID) of samples to as many real images, by torchmetrics and torch-fidelity.

    Grey images are shown as colour images with three equal channels. Inception-v3 has learnt photographs, and it sees
    images of 299 pixels: for small drawings its features say little, and only the number is comparable with others.

    Args:
        generator: Maps latent vectors to images in [-1, 1]; Inception-v3 runs on its device.
        dataset: Real images of its size and channels.
        samples: Images on each side; with fewer than 2048 the covariance is singular, and papers use 10,000 or 50,000.
        seed: Seed of the samples and of the choice of real images.

    Raises:
        UserError: If the generator does not fit the data set, torch-fidelity is not installed, or its network cannot
            be downloaded.

    Source:
        Heusel et al. 2017, arXiv:1706.08500.
    """
    from torchmetrics.image.fid import FrechetInceptionDistance

    check_fit(generator, dataset)
    device = next(generator.parameters()).device
    try:
        metric = FrechetInceptionDistance(feature=FEATURES).to(device)
    except ModuleNotFoundError as error:
        raise UserError("the Inception FID needs another package: pip install 'dcgan-lib[inception]'") from error
    except (OSError, RuntimeError) as error:  # no network, or only part of the file
        raise UserError(f"the Inception network cannot be downloaded ({error}); try again with a network") from error
    order = torch.randperm(len(dataset), generator=torch.Generator().manual_seed(seed))[:samples]
    for rows, z in zip(
        order.split(_BATCH), sample_latent(len(order), generator.latent_dim, seed).split(_BATCH), strict=True
    ):
        for images, real in ((dataset.images[rows], True), (as_uint8(generate(generator, z)), False)):
            metric.update(images.to(device).expand(-1, 3, -1, -1), real=real)
    return metric.compute().item()
