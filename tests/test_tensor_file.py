"""Files of tensors: what is written comes back, every program can read it, and no damage passes."""

import hashlib
import json
import re
import subprocess
import sys

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save, save_file

from dcgan_lib import tensor_file
from dcgan_lib.errors import UserError

DTYPES = ["float64", "float32", "float16", "bfloat16", "int64", "int32", "int16", "int8", "uint8", "bool"]
TENSORS = {
    "weight": torch.randn(3, 2, 4, 4, generator=torch.Generator().manual_seed(0)),
    "b/ïas": torch.tensor([1.5, float("nan"), -0.0]),
    'a "sha256":"quoted" name': torch.tensor(2**62 + 1),
    "empty": torch.empty(0, 5),
}
METADATA = {"step": "7", "note": '"sha256":"' + "0" * 64 + '"', "ünï": "ünï\n"}


def read(path):
    return tensor_file.read(path, if_damaged="copy it again", if_foreign="look elsewhere")


def refused(path, message):
    with pytest.raises(UserError, match=message) as caught:
        read(path)
    assert "\n" not in str(caught.value)


def bits(tensor):
    return tensor.contiguous().reshape(-1).view(torch.uint8)


def assert_equal(loaded, expected):
    assert loaded.keys() == expected.keys()
    for name, tensor in expected.items():
        assert (loaded[name].dtype, loaded[name].shape) == (tensor.dtype, tensor.shape)
        assert torch.equal(bits(loaded[name]), bits(tensor)), name


@pytest.fixture
def path(tmp_path):
    path = tmp_path / "new" / "a.safetensors"
    tensor_file.write(path, TENSORS, METADATA)
    return path


def test_what_is_written_comes_back(path):
    tensors, metadata = read(path)
    assert_equal(tensors, TENSORS)
    assert metadata.items() >= METADATA.items()
    assert metadata["format"] == "dcgan_lib"
    assert [entry.name for entry in path.parent.iterdir()] == [path.name]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", [(), (0,), (1,), (3,), (2, 3, 5)], ids=str)
def test_every_kind_of_number_and_shape(tmp_path, dtype, shape):
    random = torch.Generator().manual_seed(1)
    tensor = torch.randint(0, 2, shape, generator=random).to(getattr(torch, dtype))
    odd = torch.ones(1, dtype=torch.uint8)  # whatever stands before it, the tensor lies aligned
    tensor_file.write(tmp_path / "a", {"a": odd, "b": tensor}, {})
    assert_equal(read(tmp_path / "a")[0], {"a": odd, "b": tensor})


def test_any_strides(tmp_path):
    base = torch.randn(4, 6, 5, 5, generator=torch.Generator().manual_seed(2))
    tensors = {
        "channels_last": base.contiguous(memory_format=torch.channels_last),
        "transposed": base[0, 0].t(),
        "part": base[1:3, ::2, 1:, -1],
        "expanded": base[:1, :1, :1, :1].expand(2, 3, 1, 1),
        "shared": base[0],
        "leaf": torch.nn.Parameter(base[0, 0]),
    }
    tensor_file.write(tmp_path / "a", tensors, {})
    assert_equal(read(tmp_path / "a")[0], {name: tensor.detach() for name, tensor in tensors.items()})


def test_other_programs_read_the_file(path):
    assert_equal(load_file(path), TENSORS)  # the library's own reader, which knows nothing of us
    with safe_open(path, framework="np") as file:
        assert file.metadata().items() >= METADATA.items()
        assert file.get_tensor("weight").tolist() == TENSORS["weight"].tolist()


def test_the_checksum_is_that_of_the_file_with_its_digits_blank(path):
    content, digest = path.read_bytes(), read(path)[1]["sha256"]
    assert content.count(digest.encode()) == 1
    assert hashlib.sha256(content.replace(digest.encode(), b"0" * 64)).hexdigest() == digest


def test_what_was_read_can_be_written_again(path, tmp_path):
    tensor_file.write(tmp_path / "copy", *read(path))
    assert (tmp_path / "copy").read_bytes() == path.read_bytes()


def test_numbers_lie_aligned_in_the_file_and_in_memory(path):
    content = path.read_bytes()
    length = int.from_bytes(content[:8], "little")
    assert length % 8 == 0
    header = json.loads(content[8 : 8 + length])
    for name, tensor in TENSORS.items():
        assert header[name]["data_offsets"][0] % tensor.element_size() == 0
    assert all(tensor.data_ptr() % 64 == 0 for tensor in read(path)[0].values())


def test_the_same_content_makes_the_same_bytes_in_every_process(path, tmp_path):
    code = (
        "import sys; sys.path.insert(0, 'tests'); import test_tensor_file as t; from dcgan_lib import tensor_file; "
        "tensor_file.write(sys.argv[1], dict(reversed(t.TENSORS.items())), t.METADATA)"
    )
    subprocess.run([sys.executable, "-c", code, tmp_path / "b"], check=True, timeout=120)
    assert (tmp_path / "b").read_bytes() == path.read_bytes()


def test_every_flipped_bit_and_every_length_is_refused(tmp_path):
    whole = tmp_path / "whole"
    tensor_file.write(whole, {"weight": torch.arange(3, dtype=torch.float32)}, {"step": "1"})
    content, path = whole.read_bytes(), tmp_path / "damaged"
    for place in range(len(content)):
        for bit in range(8):
            damaged = bytearray(content)
            damaged[place] ^= 1 << bit
            path.write_bytes(damaged)
            refused(path, "damaged.* (copy it again|look elsewhere)$")
    for length in range(len(content)):
        path.write_bytes(content[:length])
        refused(path, "truncated .* copy it again$")
    for more in (b"\0", b" ", content):
        path.write_bytes(content + more)
        refused(path, "truncated or damaged: its checksum does not match; copy it again")


@pytest.mark.parametrize("length", [0, 1, 2, 2**20 + 1, 2**31, 2**32, 2**62, 2**63, 2**64 - 1])
def test_a_length_that_the_header_cannot_have(path, length):
    path.write_bytes(length.to_bytes(8, "little") + path.read_bytes()[8:])
    refused(path, r"is (truncated or|not)|was not written by dcgan_lib")


@pytest.mark.parametrize("content", [b"", b"{}", bytes(8), bytes(100), b"\xff" * 100, b"PK\x03\x04" + bytes(100)])
def test_what_is_no_safetensors_file(tmp_path, content):
    (tmp_path / "a").write_bytes(content)
    refused(tmp_path / "a", "is truncated or not a safetensors file of dcgan_lib; copy it again")


def test_files_of_others_and_of_earlier_versions(tmp_path):
    save_file(TENSORS, tmp_path / "a", {"format": "pt"})
    refused(tmp_path / "a", "was not written by dcgan_lib; look elsewhere")
    save_file(TENSORS, tmp_path / "a", {"format": "dcgan_lib"})
    refused(tmp_path / "a", "has no checksum: an earlier version wrote it, or it is damaged; copy it again")
    save_file(TENSORS, tmp_path / "a", {"format": "dcgan_lib", "sha256": "f" * 63})
    refused(tmp_path / "a", "has no checksum")


def test_files_that_are_not_there_or_not_files(tmp_path):
    refused(tmp_path / "nothing", "cannot read .*nothing: No such file")
    refused(tmp_path, "cannot read .*: Is a directory")


def signed(content: bytes) -> bytes:
    """The content with the right checksum, as somebody with intent would write it."""
    blank = re.sub(rb'("sha256":")[0-9a-f]{64}', rb"\g<1>" + b"0" * 64, content)
    return blank.replace(b'"sha256":"' + b"0" * 64, b'"sha256":"' + hashlib.sha256(blank).hexdigest().encode())


def with_header(header: bytes, numbers: bytes = b"") -> bytes:
    return signed(len(header).to_bytes(8, "little") + header + numbers)


CHECKSUM = b'{"__metadata__":{"sha256":"' + b"0" * 64 + b'"}'


def test_signed_files_are_read(tmp_path):
    entry = b',"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}}'
    (tmp_path / "a").write_bytes(with_header(CHECKSUM + entry, bytes(4)))
    assert_equal(read(tmp_path / "a")[0], {"a": torch.zeros(1)})


@pytest.mark.parametrize(
    ("entry", "numbers"),
    [
        (b'"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}', 0),  # beyond the file
        (b'"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}', 5),  # not to its end
        (b'"a":{"dtype":"F32","shape":[2],"data_offsets":[0,4]}', 4),
        (b'"a":{"dtype":"F32","shape":[-1],"data_offsets":[0,4]}', 4),
        (b'"a":{"dtype":"F32","shape":[1.0],"data_offsets":[0,4]}', 4),
        (b'"a":{"dtype":"F32","shape":[1],"data_offsets":[4,0]}', 4),
        (b'"a":{"dtype":"F32","shape":[1],"data_offsets":[-4,0]}', 4),
        (b'"a":{"dtype":"F32","shape":[4611686018427387905],"data_offsets":[0,4]}', 4),  # 4 * it overflows to 4
        (b'"a":{"dtype":"F32","shape":[4294967296,4294967296],"data_offsets":[0,0]}', 0),  # overflows to 0
        (b'"a":{"dtype":"F32","shape":[0,9223372036854775808],"data_offsets":[0,0]}', 0),
        (b'"a":{"dtype":"PY","shape":[1],"data_offsets":[0,4]}', 4),
        (b'"a":{"dtype":"F32","shape":[1]}', 4),
        (b'"a":5', 0),
        (
            b'"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]},"b":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}',
            4,
        ),
        (b'"__metadata__":5', 0),
        (b'"a":' + b"[" * 10_000, 0),
        (b'"a":\xff', 0),
    ],
)
def test_impossible_headers_with_a_right_checksum_are_refused(tmp_path, entry, numbers):
    (tmp_path / "a").write_bytes(with_header(CHECKSUM + b"," + entry + b"}", bytes(numbers)))
    refused(tmp_path / "a", "is damaged or altered: its tensors cannot be read; copy it again")


def test_a_header_that_would_fill_the_memory_once_parsed_is_refused(tmp_path):
    entries = b"".join(b',"%d":{"dtype":"U8","shape":[0],"data_offsets":[0,0]}' % number for number in range(30_000))
    (tmp_path / "a").write_bytes(with_header(CHECKSUM + entries + b"}"))
    refused(tmp_path / "a", "is truncated or not a safetensors file of dcgan_lib")


@pytest.mark.parametrize(
    ("name", "tensor"),
    [
        ("a", torch.zeros(2, dtype=torch.complex64)),
        ("a", torch.zeros(2, 2).to_sparse()),
        ("a", torch.zeros(2, device="meta")),
        ("__metadata__", torch.zeros(2)),
    ],
)
def test_what_the_format_cannot_hold_is_refused_before_anything_is_written(path, name, tensor):
    before = path.read_bytes()
    with pytest.raises(TypeError, match=f"the tensor '{name}' of "):
        tensor_file.write(path, {name: tensor}, {})
    assert path.read_bytes() == before


def test_a_file_that_would_be_refused_is_not_written(tmp_path):
    with pytest.raises(TypeError, match="1 tensors and their metadata are too many for one file"):
        tensor_file.write(tmp_path / "a", {"a": torch.zeros(1)}, {"note": "x" * 2**20})
    assert list(tmp_path.iterdir()) == []


def test_decode_reads_files_of_any_origin():
    tensors, metadata = tensor_file.decode(save(TENSORS, {"reader": "cats"}))
    assert_equal(tensors, TENSORS)
    assert metadata == {"reader": "cats"}
    assert tensor_file.decode(save(TENSORS))[1] == {}
    with pytest.raises(ValueError, match="not a safetensors file"):
        tensor_file.decode(save(TENSORS)[:-1])
