"""The one way our tensors are written to disk and read again: safetensors, with a checksum over the whole file.

A safetensors file is eight bytes with the length of its header, the header as JSON, and the numbers. Every program
that knows the format reads ours; nothing in it can be code. The metadata in the header holds ``sha256``, the SHA-256
of all bytes of the file with the 64 digits themselves replaced by zeros. It is compared before anything else in the
file is believed, so a flipped bit, a lost half or a swapped block is found wherever it is.

The checksum guards against accidents, not against somebody who computes it anew: what such a file says is checked as
strictly by those who read it, and takes no more than memory in proportion to its size.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator, Mapping
from itertools import chain
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load
from torch import Tensor

from dcgan_lib.errors import UserError
from dcgan_lib.files import atomic_write

_DTYPES = {
    torch.float64: "F64",
    torch.float32: "F32",
    torch.float16: "F16",
    torch.bfloat16: "BF16",
    torch.int64: "I64",
    torch.int32: "I32",
    torch.int16: "I16",
    torch.int8: "I8",
    torch.uint8: "U8",
    torch.bool: "BOOL",
}
_LENGTH = 8  # bytes of the number in front of the header
_MOST_HEADER = 2**20  # bytes; a run at 128 pixels needs 20,000, and a header takes much more memory once it is parsed
_BLANK = "0" * 64
# Quotation marks within a JSON string are escaped, so this finds the key itself and never a text that holds it.
_CHECKSUM = re.compile(rb'"sha256":"([0-9a-f]{64})"')


def write(path: str | Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> None:
    """Write tensors and a few texts to one file, atomically; the same content always makes the same bytes.

    Args:
        path: The file.
        tensors: By name; of any shape, strides and device. One at a time is copied to the CPU.
        metadata: For the header; ``format`` and ``sha256`` are added, or replaced if it was read from another file.

    Raises:
        UserError: If the file cannot be written; an earlier one stays as it was.
        TypeError: If a tensor is of a kind that the format does not hold.
    """
    order = sorted(tensors, key=lambda name: (-tensors[name].element_size(), name))  # so that all lie aligned
    header = _describe({name: tensors[name] for name in order}, metadata)
    digest, place = hashlib.sha256(), _LENGTH + _CHECKSUM.search(header).start(1)
    with atomic_write(path) as temporary, temporary.open("wb") as file:
        for piece in chain((len(header).to_bytes(_LENGTH, "little"), header), _numbers(tensors, order)):
            file.write(piece)
            digest.update(piece)
        file.seek(place)
        file.write(digest.hexdigest().encode())


def read(path: str | Path, if_damaged: str, if_foreign: str) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Read a file that ``write`` has written, and check every byte of it.

    Files written before there was a checksum are refused: nothing tells a whole one from a damaged one.

    Args:
        path: The file.
        if_damaged: What the user can do about a damaged file, for the error's message.
        if_foreign: What the user can do with a file of another origin.

    Returns:
        The tensors by name, on the CPU and each in memory of its own, and the metadata. On the way the memory
        holds the file's bytes once besides the tensors.

    Raises:
        UserError: If the file is missing, truncated, damaged, without a checksum, or of another origin.
    """
    try:
        content = Path(path).read_bytes()
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror or error}") from error
    except MemoryError as error:
        raise UserError(f"{path} is larger than the free memory; {if_damaged}") from error
    try:
        header = _header(content)
    except ValueError as error:
        raise UserError(f"{path} is truncated or not a safetensors file of dcgan_lib; {if_damaged}") from error
    checksums = list(_CHECKSUM.finditer(header))
    if len(checksums) != 1 and b'"dcgan_lib"' in header:
        raise UserError(f"{path} has no checksum: an earlier version wrote it, or it is damaged; {if_damaged}")
    if len(checksums) != 1:
        raise UserError(f"{path} was not written by dcgan_lib; {if_foreign}")
    if checksums[0][1].decode() != _checksum(content, _LENGTH + checksums[0].start(1)):
        raise UserError(f"{path} is truncated or damaged: its checksum does not match; {if_damaged}")
    try:
        return decode(content)
    except ValueError as error:
        raise UserError(f"{path} is damaged or altered: its tensors cannot be read; {if_damaged}") from error


def decode(content: bytes) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Take a safetensors file apart, of whatever origin, without a look at its checksum.

    Returns:
        The tensors by name, on the CPU, and the metadata.

    Raises:
        ValueError: If the content is not that of a safetensors file.
    """
    try:
        metadata = dict(json.loads(_header(content).decode()).get("__metadata__") or {})
        tensors = load(content)
        for name in tensors:  # into PyTorch's own memory, which is aligned: elsewhere, products may round differently
            tensors[name] = tensors[name].clone()
        return tensors, metadata
    except (SafetensorError, RuntimeError, KeyError, TypeError, AttributeError, AssertionError, OverflowError) as error:
        raise ValueError(f"not a safetensors file: {error}") from error


def _describe(tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> bytes:
    """The header: metadata with a blank checksum, and type, shape and place of each tensor in the order given."""
    ours = {"format": "dcgan_lib", "sha256": _BLANK}
    described = {"__metadata__": ours | {key: text for key, text in metadata.items() if key not in ours}}
    start = 0
    for name, tensor in tensors.items():
        if name in described or tensor.dtype not in _DTYPES or tensor.layout != torch.strided or tensor.is_meta:
            raise TypeError(f"the tensor {name!r} of {tensor.dtype} and {tensor.layout} cannot be written to a file")
        stop = start + tensor.numel() * tensor.element_size()
        described[name] = {
            "dtype": _DTYPES[tensor.dtype],
            "shape": list(tensor.shape),
            "data_offsets": [start, stop],
        }
        start = stop
    header = json.dumps(described, separators=(",", ":")).encode()
    header += b" " * (-len(header) % _LENGTH)
    if len(header) > _MOST_HEADER:
        raise TypeError(f"{len(tensors)} tensors and their metadata are too many for one file")
    return header


def _numbers(tensors: Mapping[str, Tensor], order: list[str]) -> Iterator[memoryview]:
    """The bytes of each tensor; NumPy knows no bfloat16, but every tensor is a row of bytes."""
    for name in order:
        yield tensors[name].detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data


def _header(content: bytes) -> bytes:
    """The header's bytes, without any trust in the length that the file gives for it."""
    length = int.from_bytes(content[:_LENGTH], "little")
    if length > min(len(content) - _LENGTH, _MOST_HEADER) or content[_LENGTH : _LENGTH + 1] != b"{":
        raise ValueError("the header is too long, or is none")
    return content[_LENGTH : _LENGTH + length]


def _checksum(content: bytes, place: int) -> str:
    view = memoryview(content)  # slices of bytes would be copies
    digest = hashlib.sha256(view[:place])
    digest.update(_BLANK.encode())
    digest.update(view[place + len(_BLANK) :])
    return digest.hexdigest()
