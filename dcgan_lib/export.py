"""Trained generators for other programs."""

from __future__ import annotations

import contextlib
import io
import json
import warnings
from pathlib import Path
from typing import Any

import torch
from torch.export import Dim

from dcgan_lib.errors import UserError
from dcgan_lib.features import load_reader, reader_for
from dcgan_lib.files import atomic_write
from dcgan_lib.latent import evaluating
from dcgan_lib.models import Generator
from dcgan_lib.page_description import describe
from dcgan_lib.page_generator import pack


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


def page_document(generator: Generator, name: str, dataset: str = "", bits: int | None = None) -> dict[str, Any]:
    """Make the document with which the book's latent explorer shows a generator.

    It holds the generator for a browser (:func:`dcgan_lib.page_generator.pack`), directions of its latent space, and,
    where a released reader knows the data set, their names and what is read in the first samples
    (:func:`dcgan_lib.page_description.describe`).

    Args:
        generator: The network; what is exported is its evaluation mode.
        name: What to call it.
        dataset: The data set it was trained on.
        bits: Bits of a weight, 8 to 16; None: as few as the images need.

    Raises:
        UserError: If ``bits`` is out of range or a weight is not finite.
    """
    known = reader_for(dataset)
    reader = None if known is None else load_reader(known)
    return pack(generator, name, dataset, describe(generator, reader), bits)


def export_page(
    generator: Generator, path: str | Path, name: str, dataset: str = "", bits: int | None = None
) -> dict[str, Any]:
    """Write :func:`page_document` to a JSON file, atomically, and return it.

    Args:
        generator: As there.
        path: The file; ``book/explorers/NAME.json`` is shown by ``:data: NAME``.
        name: As there.
        dataset: As there.
        bits: As there.

    Raises:
        UserError: As there, and if the file cannot be written.
    """
    document = page_document(generator, name, dataset, bits)
    with atomic_write(path) as temporary:
        temporary.write_text(json.dumps(document), encoding="utf-8")
    return document
