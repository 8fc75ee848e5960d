"""Where to compute, and in which arithmetic."""

from __future__ import annotations

import os
from contextlib import AbstractContextManager, nullcontext

import torch

from dcgan_lib.errors import UserError


def get_device(name: str = "auto") -> torch.device:
    """Choose where to compute: CUDA, else Apple MPS, else the CPU.

    Of several processes that ``torchrun`` started on one computer, each gets a GPU of its own.

    Args:
        name: ``"auto"``, or the device wanted.

    Raises:
        UserError: If the device wanted is unknown or not there.
    """
    cuda, mps = torch.cuda.is_available(), torch.backends.mps.is_available()
    if name == "auto":
        name = "cuda" if cuda else "mps" if mps else "cpu"
    if name == "cuda" and "LOCAL_RANK" in os.environ:
        name = f"cuda:{os.environ['LOCAL_RANK']}"
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise UserError(f"device={name!r} is unknown; choose auto, cuda, mps or cpu") from error
    there = {"cpu": True, "cuda": cuda and (device.index or 0) < torch.cuda.device_count(), "mps": mps}
    if not there.get(device.type, False):
        raise UserError(f"device={name!r} is not available here; choose auto or cpu")
    return device


def autocast(device: torch.device, precision: str) -> AbstractContextManager:
    """The context for the networks' forward passes.

    Args:
        device: Where they run.
        precision: ``"float32"``, ``"bfloat16"``, or ``"auto"``: bfloat16 where the device is fast with it.
    """
    dtype = autocast_dtype(device, precision)
    return nullcontext() if dtype == torch.float32 else torch.autocast(device.type, dtype)


def autocast_dtype(device: torch.device, precision: str) -> torch.dtype:
    """The type in which the convolutions compute; arguments as for :func:`autocast`."""
    if precision == "auto":
        precision = "bfloat16" if has_fast_bfloat16(device) else "float32"
    return torch.bfloat16 if precision == "bfloat16" else torch.float32


def has_fast_bfloat16(device: torch.device) -> bool:
    """Whether the device multiplies bfloat16 matrices in hardware."""
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    if device.type != "cpu":
        return False
    # CPUs that only emulate bfloat16 are several times slower with it than in float32. PyTorch 2.10 has no public
    # function that tells them apart; should these go one day, float32 is what remains.
    return any(getattr(torch.cpu, name, bool)() for name in ("_is_avx512_bf16_supported", "_is_amx_tile_supported"))
