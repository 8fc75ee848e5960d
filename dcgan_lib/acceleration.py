"""What makes training fast on the device at hand; where something is not to be had, training does without it."""

from __future__ import annotations

import ctypes
import os
import warnings
from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext

import torch
from torch import nn

from dcgan_lib.config import TrainingConfig
from dcgan_lib.device import autocast_dtype
from dcgan_lib.fast_convolution import fast_convolutions


def adam(parameters: Iterable[nn.Parameter], config: TrainingConfig) -> torch.optim.Adam:
    """Adam with the rates of a configuration, its whole step in one kernel where PyTorch has one for the device."""
    parameters = list(parameters)
    options = {"lr": config.learning_rate, "betas": (config.beta1, config.beta2)}
    try:
        return torch.optim.Adam(parameters, **options, fused=True)
    except RuntimeError:  # no fused kernel for this device
        return torch.optim.Adam(parameters, **options)


@contextmanager
def accelerated(config: TrainingConfig, device: torch.device, *networks: nn.Module) -> Iterator[None]:
    """Within, the networks compute training steps as fast as this device can.

    On a CPU in bfloat16 the convolutions take their fastest form. On a CUDA GPU, or wherever ``config.compile`` is
    "yes", the networks are compiled instead, which takes a while at the first step; where there is no working
    compiler, a warning says so and they run as they are.

    Args:
        config: ``precision``, ``compile`` and ``deterministic`` are read from it.
        device: Where the networks are.
        networks: G and D.
    """
    with ExitStack() as stack:
        if config.deterministic:
            stack.enter_context(_deterministic())
        if config.compile == "yes" or (config.compile == "auto" and device.type == "cuda"):
            stack.enter_context(_compiled(device, *networks))
        elif device.type == "cpu" and autocast_dtype(device, config.precision) == torch.bfloat16:
            stack.enter_context(fast_convolutions(*networks))
        yield


def keep_freed_memory() -> None:
    """Let this process keep the memory it frees, for the next step, instead of giving it back to the system.

    A training step frees and takes the same memory again and again, and the system clears every page it hands out:
    up to 3 % of a step's time on a CPU. It acts on the whole process, so the command line asks for it and the library
    does not. Only glibc can be told; elsewhere nothing happens.
    """
    largest_mapping, trim = -3, -1  # M_MMAP_THRESHOLD and M_TRIM_THRESHOLD of malloc.h
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError, TypeError):
        return
    mallopt(largest_mapping, 32 * 2**20)  # the largest that glibc accepts
    mallopt(trim, 2**31 - 1)


def uncompiled(network: nn.Module, wanted: bool = True) -> AbstractContextManager:
    """The context in which a network that may be compiled runs as it was written, if that is wanted."""
    if not wanted or network._compiled_call_impl is None:
        return nullcontext()
    return torch.compiler.set_stance("force_eager")


@contextmanager
def _deterministic() -> Iterator[None]:
    before = torch.are_deterministic_algorithms_enabled()
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # read when a GPU's matrix library is first used
    torch.use_deterministic_algorithms(True)
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(before)


@contextmanager
def _compiled(device: torch.device, *networks: nn.Module) -> Iterator[None]:
    import torch._dynamo  # seconds of import, for those who compile

    if reason := _why_no_compiler(device):
        warnings.warn(f"no compiler works here ({reason}); the networks run uncompiled", stacklevel=2)
        yield
        return
    # Should a graph of ours defeat the compiler all the same, PyTorch says so and runs it as it is.
    with torch._dynamo.config.patch(suppress_errors=True):
        for network in networks:
            network.compile(dynamic=False)
        try:
            yield
        finally:
            for network in networks:
                network._compiled_call_impl = None  # what Module.compile sets; it has no public way back


def _why_no_compiler(device: torch.device) -> str:
    """Compile the smallest function there is; return why that failed, or nothing."""
    try:
        torch.compile(lambda x: 2 * x + 1)(torch.ones(2, device=device))
    except Exception as error:  # the compilers' errors have no common class
        return " ".join(str(error).split("\n\n")[0].split())
    return ""
