"""Trained generators for other programs."""

from __future__ import annotations

import contextlib
import io
import warnings
from pathlib import Path

import torch
from torch.export import Dim

from dcgan_lib.errors import UserError
from dcgan_lib.files import atomic_write
from dcgan_lib.latent import evaluating
from dcgan_lib.models import Generator


def export_onnx(generator: Generator, path: str | Path) -> None:
    """Write a generator as one self-contained ONNX file, atomically.

    Its input ``z`` is float32 (batch, latent_dim) with any batch, its output ``images`` float32
    (batch, channels, S, S) in [-1, 1].

    Args:
        generator: The network; it is exported in eval mode and left as it was.
        path: The file, ending in ``.onnx``.

    Raises:
        UserError: If the packages of the extra ``onnx`` are missing or the file cannot be written.
    """
    try:
        import onnx  # noqa: F401
        import onnxscript  # noqa: F401
    except ImportError as error:
        raise UserError("ONNX needs two more packages: pip install onnx onnxscript") from error

    z = torch.zeros(2, generator.latent_dim, device=next(generator.parameters()).device)
    # The exporter reports its progress on standard output and warns about its own internals.
    with evaluating(generator), atomic_write(path) as temporary, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with contextlib.redirect_stdout(io.StringIO()):
            torch.onnx.export(
                generator,
                (z,),
                temporary,
                input_names=["z"],
                output_names=["images"],
                dynamo=True,
                dynamic_shapes={"z": {0: Dim("batch")}},
                external_data=False,
            )
